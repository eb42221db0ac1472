"""Linear algebra: factors, solutions, determinants, eigenvalues, singular values."""

from __future__ import annotations

import torch

G = torch.Generator().manual_seed(12)
L = torch.linalg


def R(*shape):  # noqa: D103
    return torch.randn(*shape, generator=G)


def f(function, **inputs):  # noqa: D103
    return function, inputs


def wide(x):
    """Where kernels know no 16-bit numbers."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def positive(x):
    """A positive definite matrix."""
    x = wide(x)
    return x @ x.mT + torch.eye(x.shape[-1], dtype=x.dtype)


Z = {}
A, B = R(3, 3), R(3, 2)
Z["solve"] = f(lambda a, b: L.solve(wide(a), wide(b)), a=A, b=B)
Z["solve_left"] = f(lambda a, b: L.solve(wide(a).mT, wide(b).mT, left=False), a=A, b=B)
Z["solve_batch"] = f(lambda a, b: L.solve(wide(a), wide(b)), a=R(2, 3, 3), b=R(2, 3))
Z["inverse"] = f(lambda a: L.inv(wide(a)), a=A)
Z["determinant"] = f(lambda a: L.det(wide(a)), a=A)
Z["logdet"] = f(lambda a: torch.logdet(positive(a)), a=A)
Z["slogdet"] = f(lambda a: L.slogdet(wide(a))[1], a=R(2, 3, 3))
Z["cholesky"] = f(lambda a: L.cholesky(positive(a)), a=A)
Z["cholesky_upper"] = f(lambda a: L.cholesky(positive(a), upper=True), a=A)
Z["cholesky_solve"] = f(
    lambda a, b: torch.cholesky_solve(wide(b), L.cholesky(positive(a))), a=A, b=B
)
Z["cholesky_inverse"] = f(lambda a: torch.cholesky_inverse(L.cholesky(positive(a))), a=A)
Z["triangular"] = f(
    lambda a, b: L.solve_triangular(positive(a).triu(), wide(b), upper=True), a=A, b=B
)
Z["triangular_left"] = f(
    lambda a, b: L.solve_triangular(positive(a).tril(), wide(b).mT, upper=False, left=False),
    a=A,
    b=B,
)
Z["lu"] = f(lambda a: L.lu(wide(a))[1] * 2 + L.lu(wide(a))[2], a=A)
Z["lu_solve"] = f(lambda a, b: L.lu_solve(*L.lu_factor(wide(a)), wide(b)), a=A, b=B)
Z["qr"] = f(lambda a: L.qr(wide(a))[0] @ L.qr(wide(a))[1].abs(), a=R(4, 3))
Z["householder"] = f(lambda a, t: L.householder_product(wide(a), wide(t)), a=R(4, 2), t=R(2))
Z["least_squares"] = f(lambda a, b: L.lstsq(wide(a), wide(b)).solution, a=R(4, 2), b=R(4, 1))
Z["pinv"] = f(lambda a: L.pinv(wide(a)), a=R(4, 2))
Z["matrix_exp"] = f(lambda a: torch.matrix_exp(wide(a)), a=A)
Z["eigh"] = f(lambda a: L.eigh(positive(a))[1] ** 2 * L.eigvalsh(wide(a)), a=A)
Z["svd"] = f(lambda a: L.svd(wide(a), full_matrices=False)[0] ** 2 * L.svdvals(wide(a)), a=R(3, 2))
Z["nuclear"] = f(lambda a: L.matrix_norm(wide(a), "nuc") + L.cond(wide(a)), a=R(3, 2))
