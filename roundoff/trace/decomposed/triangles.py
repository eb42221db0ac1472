"""Triangular systems and Cholesky's factors, by substitution.

Every entry is one sum, of the entry that was there and the products that are taken off, so that the bounds
hold for kernels that add them block by block, in any order.  Quotients are products with a reciprocal, as
kernels may compute them.

Source: Higham 2002, Accuracy and stability of numerical algorithms, chapters 8 and 10.
"""

from __future__ import annotations

from typing import Any

import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.decomposed.plainly import plainly
from roundoff.trace.decomposed.registry import decomposes
from roundoff.trace.reference_only import reference_only

aten = torch.ops.aten


def less_products(start: torch.Tensor, one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """start (..., m, n) less one (..., m, k) times two (..., k, n), as one sum."""
    if not one.shape[-1]:
        return start
    products = one.unsqueeze(-1) * two.unsqueeze(-3)
    wide = torch.broadcast_shapes(start.shape, products.shape[:-2] + products.shape[-1:])  # type: ignore[no-untyped-call]
    first = start.expand(wide).unsqueeze(-2)
    return torch.cat([first, -products.expand(*wide[:-1], *products.shape[-2:])], -2).sum(-2)


def over(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """By the reciprocal."""
    return x * (1 / y)


def forward(a: torch.Tensor, b: torch.Tensor, *, unit: bool) -> torch.Tensor:
    """a x = b for a lower triangle a (..., n, n) and b (..., n, k)."""
    batch = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])  # type: ignore[no-untyped-call]
    a, b = a.expand(*batch, *a.shape[-2:]), b.expand(*batch, *b.shape[-2:])
    found = b[..., :0, :]
    for k in range(a.shape[-1]):
        row = less_products(b[..., k : k + 1, :], a[..., k : k + 1, :k], found)
        found = torch.cat([found, row if unit else over(row, a[..., k : k + 1, k : k + 1])], -2)
    return found


def solved(
    a: torch.Tensor, b: torch.Tensor, *, upper: bool, unit: bool = False, transposed: bool = False
) -> torch.Tensor:
    """The triangle a, or its transpose, times x is b."""
    if transposed:
        a, upper = a.mT, not upper
    if upper:
        return forward(a.flip((-2, -1)), b.flip(-2), unit=unit).flip(-2)
    return forward(a, b, unit=unit)


@decomposes("linalg_solve_triangular")
def _solve_triangular(
    a: torch.Tensor, b: torch.Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> torch.Tensor:
    if left:
        return solved(a, b, upper=upper, unit=unitriangular)
    return solved(a.mT, b.mT, upper=not upper, unit=unitriangular).mT


@decomposes("triangular_solve")
def _triangular_solve(
    b: torch.Tensor, a: torch.Tensor, upper: bool = True, transpose: bool = False,
    unitriangular: bool = False,
) -> Any:  # fmt: skip
    return solved(a, b, upper=upper, unit=unitriangular, transposed=transpose), a.clone()


def _factor(a: torch.Tensor) -> torch.Tensor:
    """Cholesky's lower factor, column by column."""
    n = a.shape[-1]
    found = a[..., :0]
    for k in range(n):
        rest = less_products(a[..., k:, k : k + 1], found[..., k:, :], found[..., k : k + 1, :].mT)
        top = rest[..., :1, :].sqrt()
        column = torch.cat([a.new_zeros(*a.shape[:-2], k, 1), top, over(rest[..., 1:, :], top)], -2)
        found = torch.cat([found, column], -1)
    return found


@decomposes("linalg_cholesky_ex")
def _cholesky_ex(a: torch.Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    _, info = plainly(aten.linalg_cholesky_ex.default, a, upper=upper)
    if bool(plainly(torch.any, info)):
        raise UnsupportedError(
            "cannot trace aten::linalg_cholesky_ex of a matrix that is not positive definite; add to its "
            "diagonal"
        )
    found = _factor(a.mT if upper else a)
    return (found.mT if upper else found), info


@decomposes("cholesky")
def _cholesky(a: torch.Tensor, upper: bool = False) -> torch.Tensor:
    return _cholesky_ex(a, upper=upper)[0]


@decomposes("cholesky_solve")
def _cholesky_solve(b: torch.Tensor, factor: torch.Tensor, upper: bool = False) -> torch.Tensor:
    between = solved(factor, b, upper=upper, transposed=upper)
    return solved(factor, between, upper=upper, transposed=not upper)


@decomposes("cholesky_inverse")
def _cholesky_inverse(factor: torch.Tensor, upper: bool = False) -> torch.Tensor:
    """The inverse of the factor times its transpose.

    Kernels invert by rows or by columns, as their blocks have it: no bound is known of what they return.
    """
    lower = factor.mT if upper else factor
    inverse = forward(lower, identity(factor), unit=False)
    return reference_only(inverse.mT @ inverse)


def identity(like: torch.Tensor) -> torch.Tensor:
    """Of the size of square matrices."""
    n = like.shape[-1]
    return plainly(lambda: torch.eye(n, dtype=like.dtype).expand(*like.shape[:-2], n, n).clone())
