"""Bounds of single layers without a trace, against those of their traces."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro


@pytest.mark.parametrize("format", ["float16", "float32", "float64"])
@pytest.mark.parametrize(
    ("size", "taps", "options"),
    [
        ((10,), (3,), {"padding": 1}),
        ((11,), (3,), {"stride": 2, "padding": 2, "dilation": 2, "groups": 2}),
        ((7, 6), (3, 2), {"stride": (2, 1), "padding": (1, 0), "dilation": (1, 2)}),
        ((4, 5, 4), (2, 2, 3), {"padding": 1, "groups": 2}),
    ],
)
def test_convolution_shortcuts_agree_with_the_trace(size, taps, options, format) -> None:
    rng = np.random.default_rng(0)
    convolve = (F.conv1d, F.conv2d, F.conv3d)[len(size) - 1]
    groups = options.get("groups", 1)
    x, w = rng.standard_normal((2, 4, *size)), rng.standard_normal((6, 4 // groups, *taps))

    def function(x, weight, bias):
        return convolve(x, weight, bias, **options)

    out = function(torch.from_numpy(x), torch.from_numpy(w), None)
    x, w, g = (ro.round_to(v, format) for v in (x, w, rng.standard_normal(out.shape)))
    found = ro.bounds.conv_gradients(x, w, g, format, **options)
    fused = ro.bounds.conv_gradients(x, w, g, format, fma=True, **options)
    traced = ro.gradient_bounds(
        function,
        {"x": x, "weight": w, "bias": np.zeros(6)},
        upstream=g,
        format=format,
        accumulate=format,
    )
    sizes = [torch.from_numpy(np.abs(v)).requires_grad_() for v in (x, w)]
    scale = torch.autograd.grad(function(*sizes, None), sizes, torch.from_numpy(np.abs(g)))
    np.testing.assert_allclose(found["input"].S, scale[0], rtol=2.0**-40)
    np.testing.assert_allclose(found["weight"].S, scale[1], rtol=2.0**-40)
    for name, own in (("x", "input"), ("weight", "weight"), ("bias", "bias")):
        limit = traced[name].certified.numpy()
        assert found[own].certified.shape == limit.shape
        # One walk: the trace's, whose kernels may fuse, for it does not say that they don't.
        np.testing.assert_allclose(fused[own].certified, limit, rtol=2.0**-40, atol=0)
        assert (found[own].certified <= limit * (1 + 2.0**-40)).all()
        if own == "bias":
            np.testing.assert_array_equal(found[own].certified, fused[own].certified)


def test_linear_and_matmul_shortcuts_agree_with_the_trace() -> None:
    rng = np.random.default_rng(1)
    x, w, g = (
        ro.round_to(rng.standard_normal(s), "float32") for s in ((2, 8, 3), (5, 3), (2, 8, 5))
    )
    traced = ro.gradient_bounds(
        F.linear, {"input": x, "weight": w, "bias": np.zeros(5)}, upstream=g, format="float32"
    )
    found = ro.bounds.linear_gradients(x, w, g, "float32")
    for name in ("weight", "bias", "input"):
        np.testing.assert_allclose(found[name].certified, traced[name].certified, rtol=1e-5)
    a, b, up = x[0], w.T, g[0]
    traced = ro.gradient_bounds(
        torch.matmul, {"input": a, "other": b}, upstream=up, format="float32"
    )
    found = ro.bounds.matmul_gradients(a, b, up, "float32")
    np.testing.assert_allclose(found["a"].certified, traced["input"].certified, rtol=1e-5)
    np.testing.assert_allclose(found["b"].certified, traced["other"].certified, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda one: ro.bounds.linear_gradients(one(2, 3), one(4, 5), one(2, 4), "float32"), "do not fit"),
        (lambda one: ro.bounds.matmul_gradients(one(2, 3), one(3, 5), one(2, 4), "float32"), "upstream has the shape of a @ b"),
        (lambda one: ro.bounds.conv_gradients(one(1, 1, 4), one(1, 1, 2), one(1, 1, 4), "float32"), "do not fit"),
        (
            lambda one: ro.bounds.conv_gradients(
                one(1, 1, 4), one(1, 1, 2), one(1, 1, 3), "float32", stride=0
            ),
            "stride is 0",
        ),
        (lambda one: ro.gradient_bounds(lambda x: x.sum(), {"x": one(2)}, order="odd"), "unknown order"),
        (
            lambda one: ro.gradient_bounds(lambda x: x.sum(), {"x": one(2)}, accumulate="float16"),
            "cannot hold",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(make, message) -> None:
    with pytest.raises(ro.RoundoffError, match=message):
        make(lambda *shape: np.ones(shape))
