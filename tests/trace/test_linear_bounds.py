"""Bounds on linear algebra: they hold for LAPACK on hard matrices, or there are none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import linalg

import roundoff as ro

B = torch.from_numpy(np.random.default_rng(8).standard_normal((5, 2)))
SQUARE = torch.diag(torch.tensor([0.01, -0.3], dtype=torch.float64))


def hard(kind, n, rng):
    """Badly conditioned and graded matrices, and those in which pivots are equal."""
    a = rng.standard_normal((n, n))
    if kind == "ill":
        u, _, v = np.linalg.svd(a)
        a = u * np.logspace(0, -4, n) @ v
    if kind == "graded":
        a = a * np.logspace(0, -6, n)[:, None]
    if kind == "whole":
        a = rng.choice([-1.0, 1.0], (n, n)) + 3 * np.triu(np.ones((n, n)), 1)
    return torch.from_numpy(a)


BOUNDED = {
    "solve": lambda a, b: linalg.solve(a, b),
    "triangular": lambda a, b: linalg.solve_triangular(a, b, upper=True),
    "right": lambda a, b: linalg.solve_triangular(a.tril(), b.mT, upper=False, left=False),
    "inv": lambda a, b: linalg.inv(a),
    "lu": lambda a, b: linalg.lu(a)[2] + linalg.lu(a)[1],
    "det": lambda a, b: linalg.det(a),
    "cholesky": lambda a, b: linalg.cholesky(a @ a.mT + torch.eye(len(a), dtype=a.dtype)),
}


@pytest.mark.parametrize("format", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["plain", "ill", "graded", "whole"])
@pytest.mark.parametrize("name", BOUNDED)
def test_bounds_hold_for_lapack(name, kind, format) -> None:
    rng = np.random.default_rng(len(name) + 10 * len(kind))
    dtype = getattr(torch, format)
    n = 5 if kind != "whole" else 3
    inputs = {"a": hard(kind, n, rng), "b": torch.from_numpy(rng.standard_normal((n, 2)))}
    inputs = {name: value.to(dtype) for name, value in inputs.items()}
    native = BOUNDED[name](**inputs).double().numpy()
    if not np.isfinite(native).all():
        pytest.skip("singular")
    exact = {name: value.double() for name, value in inputs.items()}
    ones = torch.ones(native.shape, dtype=torch.float64)

    def weighted(w, **given):
        return (w * BOUNDED[name](**given)).sum()

    arguments = {"w": ones, **exact}
    found = ro.reference_gradients(weighted, arguments, wrt=["w"], format=format)["w"]
    bound = ro.gradient_bounds(weighted, arguments, wrt=["w"], format=format)["w"].certified.numpy()
    error = np.abs((native - found.high) - found.low)
    assert (error <= bound + found.error).all()
    if kind == "plain":
        assert np.isfinite(bound).all()


@pytest.mark.parametrize(
    "function",
    [
        lambda b: linalg.qr(b)[1],
        lambda b: torch.cholesky_inverse(b[:2]),
        lambda b: torch.matrix_exp(b[:2]),
    ],
    ids=["qr", "cholesky_inverse", "matrix_exp"],
)
def test_what_kernels_may_do_otherwise_has_no_bound(function) -> None:
    """PyTorch's exponential of SQUARE's multiples errs by more than the steps of a trace would."""
    b = torch.cat([SQUARE + 0.5 * torch.eye(2, dtype=torch.float64), B])
    bound = ro.gradient_bounds(lambda b: function(b).square().sum(), {"b": b}, format="float64")[
        "b"
    ]
    assert np.isinf(bound.certified.numpy()).any()
    found = ro.reference_gradients(
        lambda b: function(b).square().sum(), {"b": b}, format="float64"
    )["b"]
    x = b.clone().requires_grad_()
    (native,) = torch.autograd.grad(function(x).square().sum(), x)
    assert np.allclose(found.high, native.numpy(), rtol=1e-9, atol=1e-9)
