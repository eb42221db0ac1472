"""Gaussian elimination with row exchanges: factors, solutions, inverses, determinants.

Which rows are exchanged is PyTorch's decision at the given inputs, and guarded: no candidate is larger than
the pivot.  As in `triangles`, every entry is one sum.  PyTorch factors a matrix or its transpose, as its rows
or columns lie in memory; which one is seen from its own factors.

Source: Higham 2002, chapter 9; Golub and Van Loan 2013, section 3.4, for the order of the operations.
"""

from __future__ import annotations

from typing import Any

import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.decomposed.plainly import decided, plainly
from roundoff.trace.decomposed.registry import decomposes
from roundoff.trace.decomposed.triangles import identity, less_products, over, solved

aten = torch.ops.aten


def _order(pivots: torch.Tensor, rows: int) -> torch.Tensor:
    """The rows as they are after the exchanges (..., rows)."""
    flat = pivots.reshape(-1, pivots.shape[-1]).tolist()
    orders = []
    for exchanges in flat:
        order = list(range(rows))
        for k, other in enumerate(exchanges):
            order[k], order[other - 1] = order[other - 1], order[k]
        orders.append(order)
    return torch.tensor(orders).reshape(*pivots.shape[:-1], rows)


def rows_of(x: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Rows of matrices (..., m, n) by number (..., m)."""
    wide = plainly(lambda: order.unsqueeze(-1).expand(*order.shape, x.shape[-1]).clone())
    return x.expand(*order.shape[:-1], *x.shape[-2:]).gather(-2, wide)


def _factors(a: torch.Tensor, pivot: bool = True) -> tuple[torch.Tensor, torch.Tensor]:
    """Both factors in one matrix, and the exchanges."""
    rows, columns = a.shape[-2:]
    packed, pivots, info = plainly(aten.linalg_lu_factor_ex.default, a, pivot=pivot)
    del packed
    if bool(plainly(torch.any, info)):
        raise UnsupportedError(
            "cannot trace aten::linalg_lu_factor_ex of a singular matrix: a pivot is zero"
        )
    if pivot:
        a = rows_of(a, plainly(_order, pivots, rows))
    lower, upper = a[..., :0], a[..., :0, :]
    for k in range(min(rows, columns)):
        row = less_products(a[..., k : k + 1, k:], lower[..., k : k + 1, :], upper[..., :, k:])
        top = row[..., :1]
        rest = less_products(
            a[..., k + 1 :, k : k + 1], lower[..., k + 1 :, :], upper[..., :, k : k + 1]
        )
        if pivot and rest.shape[-2]:
            decided(rest.abs() <= top.abs(), "aten::linalg_lu_factor (a pivot)")
        upper = torch.cat([upper, torch.cat([a.new_zeros(*a.shape[:-2], 1, k), row], -1)], -2)
        above = a.new_zeros(*a.shape[:-2], k + 1, 1)
        lower = torch.cat([lower, torch.cat([above, over(rest, top)], -2)], -1)
    below = lower[..., :, : min(rows, columns)]
    wide = torch.cat([below, a.new_zeros(*a.shape[:-2], rows, columns - below.shape[-1])], -1)
    high = torch.cat([upper, a.new_zeros(*a.shape[:-2], rows - upper.shape[-2], columns)], -2)
    mask = plainly(lambda: torch.ones(rows, columns, dtype=torch.bool).triu())
    return torch.where(mask, high, wide), pivots


@decomposes("linalg_lu_factor_ex")
def _lu_factor_ex(a: torch.Tensor, *, pivot: bool = True, check_errors: bool = False) -> Any:
    found, pivots = _factors(a, pivot)
    return found, pivots, plainly(torch.zeros, a.shape[:-2], dtype=torch.int32)


@decomposes("linalg_lu")
def _lu(a: torch.Tensor, *, pivot: bool = True) -> Any:
    found, pivots = _factors(a, pivot)
    exchange, lower, upper = _unpacked(found, pivots)
    return (exchange if pivot else plainly(torch.empty, 0, dtype=a.dtype)), lower, upper


@decomposes("lu_unpack")
def _lu_unpack(
    packed: torch.Tensor, pivots: torch.Tensor, unpack_data: bool = True, unpack_pivots: bool = True
) -> Any:
    exchange, lower, upper = _unpacked(packed, pivots)
    none = plainly(torch.empty, 0, dtype=packed.dtype)
    return (
        exchange if unpack_pivots else none,
        lower if unpack_data else none,
        upper if unpack_data else none,
    )


def _unpacked(packed: torch.Tensor, pivots: torch.Tensor) -> Any:
    rows, columns = packed.shape[-2:]
    least = min(rows, columns)
    one = plainly(torch.eye, rows, least, dtype=packed.dtype)
    lower = packed[..., :, :least].tril(-1) + one
    order = plainly(_order, pivots, rows)
    exchange = plainly(
        lambda: torch.zeros(*order.shape, rows, dtype=packed.dtype).scatter(
            -2, order.unsqueeze(-2), 1.0
        )
    )
    return exchange, lower, packed[..., :least, :].triu()


@decomposes("linalg_lu_solve")
def lu_solve(
    packed: torch.Tensor, pivots: torch.Tensor, b: torch.Tensor, *, left: bool = True,
    adjoint: bool = False,
) -> torch.Tensor:  # fmt: skip
    """The matrix with these factors, or its transpose, times x is b; left=False: x times it."""
    if not left:
        return lu_solve(packed, pivots, b.mT, adjoint=not adjoint).mT
    order = plainly(_order, pivots, packed.shape[-1])
    batch = torch.broadcast_shapes(order.shape[:-1], b.shape[:-2])  # type: ignore[no-untyped-call]
    order = plainly(lambda: order.expand(*batch, order.shape[-1]).clone())
    if adjoint:
        between = solved(packed, b, upper=True, transposed=True)
        found = solved(packed, between, upper=False, unit=True, transposed=True)
        return rows_of(found, plainly(torch.argsort, order))
    between = solved(packed, rows_of(b, order), upper=False, unit=True)
    return solved(packed, between, upper=True)


@decomposes("lu_solve")
def _lu_solve(b: torch.Tensor, packed: torch.Tensor, pivots: torch.Tensor) -> torch.Tensor:
    return lu_solve(packed, pivots, b)


@decomposes("_linalg_solve_ex")
def _solve_ex(
    a: torch.Tensor, b: torch.Tensor, *, left: bool = True, check_errors: bool = False
) -> Any:
    transposed = _transposed(plainly(aten._linalg_solve_ex.default, a, b, left=left)[1], a)
    packed, pivots = _factors(a.mT if transposed else a)
    vector = b.dim() == 1 or (a.dim() - 1 == b.dim() and b.shape == a.shape[:-1])
    wide = b.unsqueeze(-1) if vector else b
    found = lu_solve(packed, pivots, wide, left=left, adjoint=transposed)
    info = plainly(torch.zeros, a.shape[:-2], dtype=torch.int32)
    return (found.squeeze(-1) if vector else found), packed, pivots, info


@decomposes("linalg_inv_ex")
def _inv_ex(a: torch.Tensor, *, check_errors: bool = False) -> Any:
    found, _, _, info = _solve_ex(a, identity(a))
    return found, info


def _transposed(packed: torch.Tensor, a: torch.Tensor) -> bool:
    """Whether PyTorch has factored the transpose."""
    apart = [
        plainly(lambda m=m: (packed - aten.linalg_lu_factor_ex.default(m)[0]).abs().sum())
        for m in (a, a.mT)
    ]
    return bool(plainly(torch.lt, apart[1], apart[0]))


def _sign(pivots: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Of the exchanges."""
    numbers = torch.arange(1, pivots.shape[-1] + 1)
    return (1 - 2 * ((pivots != numbers).sum(-1) % 2)).to(dtype)


@decomposes("_linalg_det")
def _det(a: torch.Tensor) -> Any:
    transposed = _transposed(plainly(aten._linalg_det.default, a)[1], a)
    packed, pivots = _factors(a.mT if transposed else a)
    diagonal = packed.diagonal(dim1=-2, dim2=-1)
    return diagonal.prod(-1) * plainly(_sign, pivots, a.dtype), packed, pivots


@decomposes("_linalg_slogdet")
def _slogdet(a: torch.Tensor) -> Any:
    transposed = _transposed(plainly(aten._linalg_slogdet.default, a)[2], a)
    packed, pivots = _factors(a.mT if transposed else a)
    diagonal = packed.diagonal(dim1=-2, dim2=-1)
    sign = diagonal.sign().prod(-1) * plainly(_sign, pivots, a.dtype)
    return sign, diagonal.abs().log().sum(-1), packed, pivots
