"""Predicted errors of gradients: what they promise, and how native errors compare."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import roundoff as ro
from roundoff.gradients.native import native_gradients
from roundoff.gradients.problem import Problem
from roundoff.kernels.levels import levels
from roundoff.numbers.formats import FLOAT64
from roundoff.trace.steps import Reduce

GENERATOR = torch.Generator().manual_seed(0)


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=GENERATOR, dtype=torch.float64)


def squares(out):
    return (out**2).sum()


PROBLEMS = {
    "linear": (lambda x, w, b: F.linear(x, w, b), {"x": _normal(16, 96), "w": _normal(24, 96), "b": _normal(24)}),
    "softmax": (lambda x: x.softmax(-1), {"x": _normal(16, 40)}),
    "convolution": (lambda x, w: F.conv1d(x, w), {"x": _normal(2, 4, 60), "w": _normal(6, 4, 5)}),
    "layer norm": (lambda x, w: F.layer_norm(x, (48,), w), {"x": _normal(32, 48), "w": _normal(48)}),
    "gelu": (lambda x, w: F.gelu(x @ w), {"x": _normal(16, 32), "w": _normal(32, 16)}),
    # Sums of runs of equal numbers, one image after the other.
    "batch norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, True).mean((2, 3)),
        {"x": _normal(9, 4, 8, 8), "w": _normal(4), "b": _normal(4)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", PROBLEMS)
def test_native_errors_are_of_the_predicted_size(name, format) -> None:
    """Kernels differ between machines: by a factor of 6 at most, in the 2-norm."""
    function, inputs = PROBLEMS[name]
    predicted = ro.predict(function, inputs, None, squares, format=format)
    reference = ro.reference_gradients(function, inputs, None, squares, format=format)
    native = native_gradients(function, inputs, None, squares, format=format)
    assert set(predicted) == {*inputs, "output"}
    for gradient in inputs:
        found, exact = predicted[gradient], reference[gradient]
        error = (native[gradient] - exact.hi.numpy()) - exact.lo.numpy()
        ratio = np.sqrt((error**2).sum() / (found.rms**2).sum())
        assert 1 / 6 < ratio < 6, (gradient, ratio)
        assert (np.abs(error) > 6 * found.quantile(0.99)).mean() < 0.05


def test_a_wrong_gradient_is_far_outside() -> None:
    """One part in a thousand, in bfloat16 sums kept in float32 and in float32 throughout."""
    function, inputs = PROBLEMS["linear"]
    for format, factor in (("float32", 1 + 1e-4), ("bfloat16", 1.02)):
        found = ro.predict(function, inputs, None, squares, format=format)["w"]
        wrong = (factor - 1) * found.value
        assert np.sqrt((wrong**2).sum() / (found.rms**2).sum()) > 6


def test_a_prediction_in_a_stated_order_is_of_kernels_that_round_every_step() -> None:
    function, inputs = PROBLEMS["linear"]
    plain = ro.predict(function, inputs, None, squares, format="bfloat16")["w"]
    stated = ro.predict(function, inputs, None, squares, format="bfloat16", order="sequential")["w"]
    wide = ro.predict(
        function, inputs, None, squares, format="bfloat16", order="sequential", accumulate="float32"
    )["w"]
    assert stated.normwise[0] > 1.5 * plain.normwise[0]
    assert 0.5 < wide.normwise[0] / plain.normwise[0] < 2


def test_16_bit_kernels_compute_in_float32_and_round_once() -> None:
    function, inputs = PROBLEMS["softmax"]
    once = ro.predict(function, inputs, None, squares, format="bfloat16")["output"]
    every = ro.predict(function, inputs, None, squares, format="bfloat16", order="sequential")[
        "output"
    ]
    assert every.normwise[0] > 1.5 * once.normwise[0]


def test_a_mean_of_a_power_of_two_of_terms_is_rounded_at_the_end() -> None:
    """The division keeps all digits of the sum, which float32 holds and bfloat16 does not."""
    classes = torch.arange(32) % 10
    found = ro.predict(
        lambda x: F.cross_entropy(x, classes),
        {"x": _normal(32, 10)},
        format="bfloat16",
        samples=200,
    )["output"]
    spacing = ro.spacing(found.value, 0.0, "bfloat16")
    assert 0.25 < found.rms / spacing < 0.5


def test_numbers_that_may_be_flushed_are_named() -> None:
    small = {"x": torch.full((4, 4), 2.0**-64), "w": torch.full((4, 4), 2.0**-63)}
    for format in ("bfloat16", "float32"):
        found = ro.predict(lambda x, w: x @ w, small, None, squares, format=format)["output"]
        assert found.tiny == "mm"
    assert not ro.predict(lambda x, w: x @ w, small, None, squares, format="float64")["output"].tiny
    large = {name: v * 2.0**60 for name, v in small.items()}
    assert not ro.predict(lambda x, w: x @ w, large, None, squares)["output"].tiny


def test_samples_are_those_of_the_seed() -> None:
    function, inputs = PROBLEMS["gelu"]
    first, again, other = (
        ro.predict(function, inputs, None, squares, samples=3, seed=seed)["w"] for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.errors, again.errors)
    assert (first.errors != other.errors).any()
    more = ro.predict(function, inputs, None, squares, samples=5, seed=1)["w"]
    np.testing.assert_array_equal(more.errors[:3], first.errors)


def test_normwise_and_quantiles() -> None:
    """By hand, for errors whose norms are known."""
    errors = np.arange(1.0, 21.0)[:, None] * np.array([3.0, 4.0]) * ro.FLOAT32.u
    found = ro.Prediction("x", ro.FLOAT32, np.array([0.0, 5.0]), errors)
    np.testing.assert_allclose(found.norms, np.arange(1.0, 21.0))
    # P(Bin(20, 1/2) < 6) = 0.0207, so the 6th and the 15th enclose the median with 95.9 %.
    assert found.normwise == pytest.approx((10.5, 6.0, 15.0))
    assert found.quantile(0.99)[1] / found.rms[1] == pytest.approx(
        2.8453, abs=1e-4
    )  # t, 20 degrees
    text = str(found)
    assert "10.5 u of float32" in text
    assert "20 samples" in text
    for q in (0.0, 1.0, -1, 2):
        with pytest.raises(ro.ArgumentError, match="take one in"):
            found.quantile(q)


def test_bad_arguments_are_refused() -> None:
    function, inputs = PROBLEMS["softmax"]
    for wrong, message in (
        ({"samples": 1}, "samples"), ({"format": "float33"}, "float33"), ({"order": "sideways"}, "sideways"),
        ({"wrt": ("y",)}, "'y'"), ({"accumulate": "bfloat16"}, "bfloat16"),
    ):  # fmt: skip
        with pytest.raises(ro.ArgumentError, match=message):
            ro.predict(function, inputs, **{"loss": squares, **wrong})


def test_a_proven_tree_takes_the_place_of_the_usual_shape() -> None:
    """Against errors of the replayed kernel on many data sets: a loop of 300 terms in float32."""
    rng = np.random.default_rng(0)
    inputs = {"w": torch.randn(1, 6), "x": torch.from_numpy(rng.uniform(1, 2, (300, 6))).float()}

    def function(w, x):
        return x @ w.T

    upstream = torch.from_numpy(rng.uniform(1, 2, (300, 1))).float()
    revealed = ro.reveal_gradient(function, inputs, "w", upstream=upstream)
    if not revealed.proven or len(revealed.classes) != 1:
        pytest.skip("this machine's kernel follows no single tree here")
    kernel = revealed.kernel
    usual = ro.predict(function, inputs, ("w",), upstream=upstream, samples=200)["w"]
    found = ro.predict(
        function, inputs, ("w",), upstream=upstream, samples=200, trees={"w": revealed}
    )["w"]
    u, once = ro.as_format("float32").u, 0.42466
    products = (upstream.double() * inputs["x"].double()).numpy()
    partial = _partial_sums(kernel.tree, products)
    theory = once * u * np.sqrt((partial**2).sum(axis=0) + 0.0)
    assert np.allclose(found.rms[0], theory, rtol=0.2)
    assert usual.rms.shape == found.rms.shape
    again = ro.predict(
        function, inputs, ("w",), upstream=upstream, samples=200, trees={"w": kernel}
    )["w"]
    assert np.array_equal(again.drawn, found.drawn)


def _partial_sums(tree, terms):
    """All of a tree's, the definition."""
    values = list(terms)
    for left, right in tree.children:
        values.append(values[left] + values[right])
    return np.array(values[len(terms) :])


def test_trees_that_do_not_fit_are_refused() -> None:
    inputs = {"w": torch.randn(2, 6), "x": torch.randn(5, 6)}

    def function(w, x):
        return (x @ w.T).exp().sum()

    with pytest.raises(ro.ArgumentError, match="trees names 'v'"):
        ro.predict(function, inputs, trees={"v": None})
    with pytest.raises(ro.ArgumentError, match="the tree of w is None"):
        ro.predict(function, inputs, trees={"w": None})
    tree = ro.reveal(lambda v: v.sum(), n=9)
    with pytest.raises(ro.ArgumentError, match="the tree has 9 leaves, the sum 5 terms"):
        ro.predict(function, inputs, trees={"w": tree})
    with pytest.raises(ro.ArgumentError, match="no single sum"):
        ro.predict(lambda x: (x.exp() * 2).sum(), {"x": torch.randn(4)}, trees={"x": tree})


@pytest.mark.parametrize("running", [False, True], ids=["alone", "with running statistics"])
def test_batch_norm_adds_its_means_in_a_loop(running) -> None:
    """Whichever of torch's calls it is."""

    def normed(x):
        statistics = (torch.zeros(4).to(x), torch.ones(4).to(x)) if running else (None, None)
        return F.batch_norm(x, *statistics, None, None, True)

    trace = Problem(normed, {"x": _normal(9, 4, 8, 8)}, None, squares, forward=True).trace(
        "float64"
    )
    sums = [
        s for s in trace.steps if isinstance(s, Reduce) and s.call and "batch_norm" in s.call.name
    ]
    forward = [levels(step, FLOAT64) for step in sums if "backward" not in step.call.name]
    backward = [levels(step, FLOAT64) for step in sums if "backward" in step.call.name]
    assert forward and set(forward) == {()} and backward and set(backward) == {(16.0, 4)}


@pytest.mark.parametrize("format", ["bfloat16", "float32"])
@pytest.mark.parametrize("kernel", ["interpolation", "embedding", "index"])
def test_many_terms_of_one_element_are_added_one_by_one(kernel, format) -> None:
    """Of hundreds each: in a cascade they would err ten times less."""
    index = torch.from_numpy(np.random.default_rng(0).integers(0, 3, 1000))
    function, x, upstream = {
        "interpolation": (
            lambda x: F.interpolate(x, size=(40, 40), mode="bilinear"),
            (1, 10, 2, 1),
            (1, 10, 40, 40),
        ),
        "embedding": (lambda x: F.embedding(index, x), (3, 16), (1000, 16)),
        "index": (lambda x: x[index], (3, 16), (1000, 16)),
    }[kernel]
    given = {"x": _normal(*x)}, None, None, np.random.default_rng(1).random(upstream)
    found = ro.predict(function, *given, format=format)["x"]
    exact = ro.reference_gradients(function, *given, format=format)["x"]
    native = native_gradients(function, *given, format=format)["x"]
    error = (native - exact.high) - exact.low
    assert 1 / 4 < np.linalg.norm(error) / np.linalg.norm(found.rms) < 4
