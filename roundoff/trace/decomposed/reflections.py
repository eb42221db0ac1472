"""Householder's reflections: QR factors, their products, least squares.

As LAPACK's unblocked routines (geqr2, org2r, ormr2) carry them out, with their signs.  Blocked ones apply
several reflections at once: no bound is known of what they return.

Source: Golub and Van Loan 2013, section 5.1; Higham 2002, chapter 19.
"""

from __future__ import annotations

from typing import Any

import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.decomposed.plainly import decided, disturbed, plainly
from roundoff.trace.decomposed.registry import decomposes
from roundoff.trace.decomposed.triangles import solved
from roundoff.trace.reference_only import reference_only

aten = torch.ops.aten


def _reflection(column: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The vector below its first element, which is 1, its factor, and what the column becomes."""
    top, rest = column[..., :1, :], column[..., 1:, :]
    if not rest.shape[-2]:
        return rest, top * 0, top
    there = (rest != 0).any(-2, keepdim=True)
    decided(there, "aten::geqrf (a column that is zero below the diagonal)")
    positive = plainly(torch.ge, top, 0)
    decided((top >= 0) == positive, "aten::geqrf (the sign of a diagonal element)")
    there, sign = (
        plainly(torch.clone, there),
        plainly(lambda: torch.where(positive, -1.0, 1.0).to(top.dtype)),
    )
    length = (column * column).sum(-2, keepdim=True).sqrt() * sign
    length = torch.where(there, length, top)
    factor = torch.where(there, (length - top) / torch.where(there, length, 1), 0)
    apart = torch.where(there, top - length, 1)
    return torch.where(there, rest * (1 / apart), 0), factor, length


def reflected(x: torch.Tensor, vector: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Rows of x from the one where the vector has its 1: x - factor v (v' x)."""
    whole = torch.cat([vector.new_ones(*vector.shape[:-2], 1, 1), vector], -2)
    along = (whole * x).sum(-2, keepdim=True)
    return x - whole * (factor * along)


def _packed(a: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """R above the diagonal, the vectors below it; and the factors."""
    rows, columns = a.shape[-2:]
    least = min(rows, columns)
    done, factors = [], []
    rest = a
    for k in range(least):
        vector, factor, length = _reflection(rest[..., k:, :1])
        done.append(torch.cat([rest[..., :k, :1], length, vector], -2))
        factors.append(factor[..., 0, 0])
        right = rest[..., 1:]
        if right.shape[-1]:
            below = right[..., k:, :]
            right = torch.cat([right[..., :k, :], reflected(below, vector, factor)], -2)
        rest = right
    return torch.cat([*done, rest], -1), torch.stack(factors, -1)


def _vector(packed: torch.Tensor, k: int) -> torch.Tensor:
    return packed[..., k + 1 :, k : k + 1]


@decomposes("geqrf")
def _geqrf(a: torch.Tensor) -> Any:
    return tuple(map(reference_only, _packed(a)))


@decomposes("linalg_householder_product")
def product(packed: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    """The first columns of the product of all reflections, from the last one back."""
    rows, columns = packed.shape[-2:]
    found = plainly(
        lambda: torch.eye(rows, columns, dtype=packed.dtype).expand(packed.shape).clone()
    )
    for k in reversed(range(factors.shape[-1])):
        factor = factors[..., k, None, None]
        below = reflected(found[..., k:, :], _vector(packed, k), factor)
        found = torch.cat([found[..., :k, :], below], -2)
    return reference_only(found)


@decomposes("ormqr")
def _ormqr(
    packed: torch.Tensor,
    factors: torch.Tensor,
    x: torch.Tensor,
    left: bool = True,
    transpose: bool = False,
) -> torch.Tensor:
    """The product of all reflections, or its transpose, times x; or x times it."""
    if not left:
        return _ormqr(packed, factors, x.mT, transpose=not transpose).mT
    numbers = range(factors.shape[-1])
    for k in numbers if transpose else reversed(numbers):
        below = reflected(x[..., k:, :], _vector(packed, k), factors[..., k, None, None])
        x = torch.cat([x[..., :k, :], below], -2)
    return reference_only(x)


@decomposes("linalg_qr")
def _qr(a: torch.Tensor, mode: str = "reduced") -> Any:
    packed, factors = _packed(a)
    rows, columns = a.shape[-2:]
    if mode == "complete" and rows > columns:
        wide = torch.cat([packed, packed.new_zeros(*a.shape[:-2], rows, rows - columns)], -1)
        return product(wide, factors), reference_only(packed.triu())
    least = min(rows, columns)
    if mode == "r":
        return plainly(torch.empty, 0, dtype=a.dtype), reference_only(packed[..., :least, :].triu())
    upper = reference_only(packed[..., :least, :].triu())
    return product(packed[..., :, :least], factors), upper


@decomposes("linalg_lstsq")
def _lstsq(
    a: torch.Tensor, b: torch.Tensor, rcond: float | None = None, *, driver: str | None = None
) -> Any:
    """Of a matrix of full rank; LAPACK's drivers take other ways to the same solution."""
    found, residuals, rank, values = plainly(aten.linalg_lstsq.default, a, b, rcond, driver=driver)
    rows, columns = a.shape[-2:]
    if rank.numel() and bool(plainly(lambda: (rank < min(rows, columns)).any())):
        raise UnsupportedError(
            "cannot trace aten::linalg_lstsq of a matrix whose rank is not full; take other columns"
        )
    a, vector = disturbed(a, 2.0), found.dim() == a.dim() - 1
    wide = b.unsqueeze(-1) if vector else b
    packed, factors = _packed(a if rows >= columns else a.mT)
    least = min(rows, columns)
    triangle = packed[..., :least, :least]
    if rows >= columns:
        solution = solved(
            triangle, _ormqr(packed, factors, wide, transpose=True)[..., :least, :], upper=True
        )
    else:
        short = solved(triangle, wide, upper=True, transposed=True)
        zeros = short.new_zeros(*short.shape[:-2], columns - rows, short.shape[-1])
        solution = _ormqr(packed, factors, torch.cat([short, zeros], -2))
    apart = a @ solution - wide
    left = (apart * apart).sum(-2) if residuals.numel() else residuals
    if values.numel():
        values = torch.linalg.svdvals(a)
    return (solution.squeeze(-1) if vector else solution), left, rank, values
