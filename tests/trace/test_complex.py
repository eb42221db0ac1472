"""Complex numbers as pairs of real ones: against mpmath, against PyTorch's own gradients, and in verdicts."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from zoo_complex import COMPLEX, X, of, parts, rotary

import roundoff as ro
from roundoff.gradients.reference import reference_of_trace
from roundoff.trace import prune, trace_gradients

G = torch.Generator().manual_seed(5)
BASE = {"x": X}


def squares(out):
    return (out * out).sum()


@pytest.mark.parametrize("name", COMPLEX)
def test_references_are_torchs_own_gradients(name) -> None:
    function = COMPLEX[name]
    x = X.clone().requires_grad_()
    (native,) = torch.autograd.grad(squares(function(x)), x)
    found = ro.reference_gradients(function, BASE, loss=squares, format="float64")["x"]
    tolerance = 1e-6 if name == "complex casts" else 1e-11
    assert np.allclose(found.high, native.numpy(), rtol=tolerance, atol=tolerance)


FUNCTIONS = {
    "exp": (torch.exp, mpmath.exp, lambda w: mpmath.exp(w)),
    "log": (torch.log, mpmath.log, lambda w: 1 / w),
    "sqrt": (torch.sqrt, mpmath.sqrt, lambda w: 1 / (2 * mpmath.sqrt(w))),
    "sin": (torch.sin, mpmath.sin, lambda w: mpmath.cos(w)),
    "cos": (torch.cos, mpmath.cos, lambda w: -mpmath.sin(w)),
    "sinh": (torch.sinh, mpmath.sinh, lambda w: mpmath.cosh(w)),
    "cosh": (torch.cosh, mpmath.cosh, lambda w: mpmath.sinh(w)),
    "tanh": (torch.tanh, mpmath.tanh, lambda w: 1 - mpmath.tanh(w) ** 2),
    "tan": (torch.tan, mpmath.tan, lambda w: 1 + mpmath.tan(w) ** 2),
    "reciprocal": (torch.reciprocal, lambda w: 1 / w, lambda w: -1 / w**2),
    "power": (lambda z: z**1.5, lambda w: w**1.5, lambda w: 1.5 * mpmath.sqrt(w)),
    "cube": (lambda z: z**3, lambda w: w**3, lambda w: 3 * w**2),
}


def _exact(function, inputs, loss, wrt=None):
    """The gradients, and the output."""
    trace = trace_gradients(function, inputs, wrt, loss, forward=True, format="float64")
    arrays = {name: value.numpy() for name, value in inputs.items()}
    return reference_of_trace(prune(trace), arrays, format="float64")


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_and_gradients_against_mpmath(name) -> None:
    """The gradient of Re f is conj(f'), in PyTorch's convention."""
    function, value, slope = FUNCTIONS[name]
    points = [(0.7, -1.3), (-0.4, 0.9), (-1.25, -0.5), (0.0, 0.75), (2.0, 0.125), (-1.5, 0.25)]
    x = torch.tensor(points, dtype=torch.float64)
    found = _exact(lambda x: function(of(x)), {"x": x}, lambda z: z.real.sum())
    with mpmath.workdps(60):
        for k, (a, b) in enumerate(points):
            w = mpmath.mpc(a, b)
            for key, wanted in (("output", value(w)), ("x", mpmath.conj(slope(w)))):
                for j, part in enumerate((wanted.real, wanted.imag)):
                    got = found[key]
                    gap = abs(mpmath.mpf(float(got.high[k, j])) + float(got.low[k, j]) - part)
                    assert gap <= 2.0**-80 * (1 + abs(part)), (key, k, j)


def test_a_product_keeps_pytorchs_convention() -> None:
    y = torch.randn(3, 4, 2, generator=G, dtype=torch.float64)
    upstream = torch.randn(3, 4, 2, generator=G, dtype=torch.float64)
    found = ro.reference_gradients(
        lambda x, y: of(x) * of(y), {"x": X, "y": y}, upstream=upstream, format="float64"
    )
    wanted = parts(of(upstream) * of(y).conj())
    assert np.allclose(found["x"].high, wanted.numpy(), rtol=1e-14, atol=1e-14)


def test_real_operands_of_complex_calls_get_real_gradients() -> None:
    y = torch.randn(3, 4, generator=G, dtype=torch.float64)
    function = lambda x, y: parts(of(x) * y + torch.where(y > 0, of(x), 2.0) / y)
    found = ro.reference_gradients(function, {"x": X, "y": y}, loss=squares, format="float64")
    real = y.clone().requires_grad_()
    (native,) = torch.autograd.grad(squares(function(X, real)), real)
    assert np.allclose(found["y"].high, native.numpy(), rtol=1e-12, atol=1e-12)


def test_angles_in_all_quadrants() -> None:
    y = torch.tensor([0.0, 1, 1, 1, 0, -1, -1, -1, 3, -3, 1, -1])
    x = torch.tensor([1.0, 1, 0, -1, -1, -1, 0, 1, 1, 1, 3, -3])
    found = _exact(torch.atan2, {"input": y.double(), "other": x.double()}, squares, wrt=())
    for k, (a, b) in enumerate(zip(y.tolist(), x.tolist(), strict=True)):
        with mpmath.workdps(50):
            got = mpmath.mpf(float(found["output"].high[k])) + float(found["output"].low[k])
            assert abs(got - mpmath.atan2(a, b)) <= 2.0**-70


def half_turned(x, conjugated=False):
    """Rotary embedding by real numbers, as other libraries write it; or turned the other way."""
    places = torch.arange(x.shape[0], dtype=x.dtype)[:, None]
    speeds = 1 / 100.0 ** (torch.arange(x.shape[1], dtype=x.dtype) / x.shape[1])
    cos, sin = (places * speeds).cos(), (places * speeds).sin()
    sin = -sin if conjugated else sin
    a, b = x.unbind(-1)
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1)


def _verdicts(found):
    return {str(pair.judgement.verdict) for pair in found.pairs.values()}


def test_rotary_embeddings_written_twice() -> None:
    x = {"x": torch.randn(16, 8, 2, generator=G, dtype=torch.float64)}
    formats = ("float32", "float64")
    same = ro.compare(rotary, half_turned, x, formats=formats)
    assert _verdicts(same) <= {"ROUNDOFF", "IDENTICAL"}
    other = ro.compare(rotary, lambda x: half_turned(x, conjugated=True), x, formats=formats)
    assert _verdicts(other) == {"DIFFERENT"}


def test_complex_tensors_that_are_brought_along_are_followed_in_every_format() -> None:
    turns = torch.polar(torch.ones(4), torch.arange(4.0) * 0.7)
    function = lambda x: parts(torch.view_as_complex(x.float()) * turns.conj())
    found = ro.reference_gradients(function, BASE, loss=squares)["x"]
    x = X.float().double().requires_grad_()
    wide = parts(of(x) * turns.to(torch.complex128).conj())
    (native,) = torch.autograd.grad(squares(wide), x)
    assert np.allclose(found.high, native.numpy(), rtol=1e-12, atol=1e-12)


def test_unknown_operations_are_refused_by_name() -> None:
    with pytest.raises(
        ro.UnsupportedError, match=r"aten::linalg_inv_ex of complex numbers; write it"
    ):
        ro.reference_gradients(
            lambda x: torch.linalg.inv(of(x)[:, :3]), BASE, loss=lambda z: z.real.sum()
        )
    square = {"x": X[..., 0] @ X[..., 0].T}
    with pytest.raises(ro.UnsupportedError, match="complex"):
        ro.reference_gradients(lambda x: torch.linalg.eigvals(x).abs(), square, loss=squares)
