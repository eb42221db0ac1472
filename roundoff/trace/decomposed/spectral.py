"""Eigenvalues of symmetric matrices, singular values, generalised inverses, exponentials: by iterations.

PyTorch's own results in float64 are where the iterations start; each step doubles the digits, so that a few
of them lead from what a start has, where the matrix itself was computed in the format, to far more than a
reference needs.  A guard keeps below NEAR how far the last step moved; what is left is of the order of its
square, 2^-90.  No kernel computes like that, so bounds say nothing: the guard is within the errors of
every format, and then they are infinite.  References are what these steps are for.

Source: Ogita and Aishima 2018, Iterative refinement for symmetric eigenvalue decomposition; Ben-Israel and
Cohen 1966, On iterative computation of generalized inverses; Higham 2008, Functions of matrices, chapter 10.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.decomposed.plainly import assured, constant, decided, disturbed, plainly
from roundoff.trace.decomposed.registry import decomposes
from roundoff.trace.decomposed.triangles import identity
from roundoff.trace.reference_only import reference_only

aten = torch.ops.aten

#: How far the last step may move, at most; what is left behind it is of the order of the square.
NEAR = 2.0**-45

#: Of the series of an exponential.
TERMS = 40

#: Eigenvalues this close, as a part of the largest, have no eigenvectors of their own.
APART = 2.0**-40


def _steps(dtype: torch.dtype, amplified: float) -> int:
    """How many steps are needed: the start errs as the matrix does, which may come from narrower types."""
    unit = 2.0**-20 if dtype == torch.float64 else 2.0**-8
    start = -math.log2(unit * min(max(amplified, 1.0), 1e300))
    return 1 + max(1, math.ceil(math.log2(66 / max(start, 2.0))))


def _plain(value: float, like: torch.Tensor) -> torch.Tensor:
    return plainly(torch.full, (), value, dtype=like.dtype)


def _eigen(
    a: torch.Tensor, start: torch.Tensor, what: str, *, vectors: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and vectors of symmetric matrices, from approximate vectors, in their order."""
    one = identity(a)
    found, diagonal = start, plainly(lambda: torch.eye(a.shape[-1], dtype=torch.bool))
    values = plainly(lambda: (start.mT @ a @ start).diagonal(dim1=-2, dim2=-1))
    alone = plainly(_alone, values)
    if vectors and not bool(plainly(lambda: (alone | diagonal).all())):
        raise UnsupportedError(
            f"cannot trace {what} of a matrix with equal eigenvalues (or singular values), whose vectors are "
            "not defined; ask for the values alone"
        )
    steps = plainly(lambda: _steps(a.dtype, _sensitivity(values, alone)))
    for step in range(steps):
        short = one - found.mT @ found
        inside = found.mT @ (a @ found)
        exact = inside.diagonal(dim1=-2, dim2=-1) / (1 - short.diagonal(dim1=-2, dim2=-1))
        columns, rows = exact.unsqueeze(-2), exact.unsqueeze(-1)
        turn = (inside + columns * short) / torch.where(alone, columns - rows, 1)
        move = torch.where(alone, turn, short / 2)
        if step == steps - 1:
            assured(move.abs() <= NEAR, what)
        found = found + found @ move
    return ((a @ found) * found).sum(-2) / (found * found).sum(-2), found


def _alone(values: torch.Tensor) -> torch.Tensor:
    """Which pairs of eigenvalues are apart."""
    gaps = (values.unsqueeze(-2) - values.unsqueeze(-1)).abs()
    return gaps > APART * values.abs().amax(-1, keepdim=True).unsqueeze(-1)


def _sensitivity(values: torch.Tensor, alone: torch.Tensor) -> float:
    """The largest eigenvalue by the smallest gap."""
    gaps = (values.unsqueeze(-2) - values.unsqueeze(-1)).abs().double()
    least = torch.where(alone, gaps, torch.inf).amin((-2, -1))
    return float((values.abs().amax(-1) / least).amax())


def _aligned(fine: torch.Tensor, native: torch.Tensor) -> torch.Tensor:
    """Columns with the signs that PyTorch gave them."""
    sign = (fine * native.to(fine.dtype)).sum(-2, keepdim=True)
    return torch.where(sign < 0, -fine, fine)


@decomposes("_linalg_eigh")
def _eigh(a: torch.Tensor, UPLO: str = "L", compute_v: bool = True) -> Any:
    triangle = a.tril() if UPLO.upper() == "L" else a.triu().mT
    whole = triangle + triangle.tril(-1).mT
    _, native = plainly(aten._linalg_eigh.default, a, UPLO, True)
    _, fine = plainly(lambda: torch.linalg.eigh(whole.double()))
    start = constant(plainly(_aligned, fine, native), a.dtype)
    values, vectors = _eigen(disturbed(whole, 4.0), start, "aten::linalg_eigh", vectors=compute_v)
    none = plainly(torch.empty, 0, dtype=a.dtype)
    return reference_only(values), reference_only(vectors) if compute_v else none


@decomposes("_linalg_svd")
def _svd(
    a: torch.Tensor, full_matrices: bool = False, compute_uv: bool = True, driver: str | None = None
) -> Any:
    """By the eigenvectors of the smaller one of both products with the transpose."""
    if a.shape[-2] < a.shape[-1]:
        left, values, right = _svd(a.mT, full_matrices, compute_uv, driver)
        return (right.mT, values, left.mT) if compute_uv else (left, values, right)
    u, s, vh = plainly(aten._linalg_svd.default, a, full_matrices, True)
    _, _, fine = plainly(lambda: torch.linalg.svd(a.double(), full_matrices=False))
    start = constant(plainly(lambda: _aligned(fine.mT, vh.mT)), a.dtype)
    a = disturbed(a, 2.0)
    squares, vectors = _eigen(a.mT @ a, start, "aten::linalg_svd", vectors=compute_uv)
    values = squares.sqrt()
    none = plainly(torch.empty, 0, dtype=a.dtype)
    if not compute_uv:
        return none, reference_only(values), none
    if bool(plainly(lambda: (s <= APART * s.amax(-1, keepdim=True)).any())):
        raise UnsupportedError(
            "cannot trace aten::linalg_svd of a matrix whose rank is not full, which has no vectors of its "
            "own; ask for the singular values alone"
        )
    right = vectors / (vectors * vectors).sum(-2, keepdim=True).sqrt()
    left = (a @ right) / values.unsqueeze(-2)
    if full_matrices and a.shape[-2] > a.shape[-1]:
        rest = plainly(lambda: u[..., a.shape[-1] :].clone())
        left = torch.cat([left, _completed(left, rest)], -1)
    return reference_only(left), reference_only(values), reference_only(right.mT)


def _completed(left: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Orthonormal columns beside others, from approximate ones."""
    found = rest - left @ (left.mT @ rest)
    for _ in range(_steps(left.dtype, 2.0**8)):
        found = found + found @ (identity(found.mT @ found) - found.mT @ found) / 2
    return found


def _norm(a: torch.Tensor) -> torch.Tensor:
    return torch.linalg.matrix_norm(a)


@decomposes("linalg_pinv")
def _pinv(a: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    """Where the rank is not full the start has, as all steps have, exactly the ranges of the transpose."""
    if kwargs.get("hermitian"):  # of which the lower triangle is read
        a = a.tril() + a.tril(-1).mT
    a, wide = disturbed(a, 2.0), plainly(lambda: a.to(torch.float64))
    if not args and all(each is None for name, each in kwargs.items() if name != "hermitian"):
        kwargs = {**kwargs, "rtol": max(a.shape[-2:]) * torch.finfo(a.dtype).eps}
    near = plainly(torch.linalg.pinv, wide, *args, **kwargs)
    ranks = plainly(torch.linalg.matrix_rank, near).reshape(-1).tolist()
    if len(set(ranks)) > 1:  # one after another
        parts = [_pinv(part, *args, **kwargs) for part in a.reshape(-1, *a.shape[-2:])]
        return torch.stack(parts).reshape(*a.shape[:-2], a.shape[-1], a.shape[-2])
    rank = ranks[0] if ranks else 0
    if rank < int(plainly(torch.linalg.matrix_rank, a).amax()):
        raise UnsupportedError(
            "cannot trace aten::linalg_pinv that leaves out singular values by rtol or atol; leave them out "
            "by torch.linalg.svd"
        )
    if rank == a.shape[-2] == a.shape[-1]:
        found = constant(near, a.dtype)
    elif rank == a.shape[-2]:
        found = a.mT @ constant(plainly(lambda: near.mT @ near), a.dtype)
    elif rank == a.shape[-1]:
        found = constant(plainly(lambda: near @ near.mT), a.dtype) @ a.mT
    else:
        found = a.mT @ constant(plainly(lambda: near.mT @ near @ near.mT), a.dtype) @ a.mT
    for _ in range(plainly(lambda: _steps(a.dtype, float((_norm(wide) * _norm(near)).amax())))):
        found = 2 * found - found @ (a @ found)
    size = plainly(lambda: float(a.abs().amax()))
    assured((a @ found @ a - a).abs() <= NEAR * size, "aten::linalg_pinv")
    return reference_only(found)


@decomposes("linalg_matrix_exp")
def _matrix_exp(a: torch.Tensor) -> torch.Tensor:
    """TERMS of the series of a / 2^s, squared s times; with a norm up to 1 the others are below 2^-160.

    Kernels take fewer terms, of larger parts: no bound is known of what they return.
    """
    if not a.shape[-1]:
        return a.clone()
    norm = float(plainly(lambda: a.abs().sum(-2).amax()))
    halvings = 0
    while norm > 2.0 ** (halvings - 1):
        halvings += 1
    decided(a.abs().sum(-2) < 2.0**halvings, "aten::linalg_matrix_exp")
    small, one = a * 2.0**-halvings, identity(a)
    found = one
    for k in range(TERMS, 0, -1):
        found = one + small @ found / _plain(float(k), a)
    for _ in range(halvings):
        found = found @ found
    return reference_only(found)
