"""Bounds on gradients against exact gradients, simulated kernels in every order, and torch's own."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems import NARROW, holds, squares

import roundoff as ro
from roundoff.arithmetic import walk
from roundoff.arithmetic.condition_scale import Scale
from roundoff.arithmetic.enclosed import Enclosed, compared, sign_of
from roundoff.arithmetic.multiword import Multiword
from roundoff.arithmetic.running import Running
from roundoff.arithmetic.sharing import RoundedInputs
from roundoff.arithmetic.simulated import Simulated, simulate
from roundoff.bounds.sum_laws import certified, likely
from roundoff.gradients.bounds import bounds_of_trace
from roundoff.gradients.inputs import round_inputs
from roundoff.gradients.reference import reference_of_trace
from roundoff.trace import FUNCTIONS, prune, trace_gradients


def attention(q, k, v):
    weights = torch.exp(q @ k.T / q.shape[-1] ** 0.5)
    return weights / weights.sum(-1, keepdim=True) @ v


def layer_norm(x, w):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5) * w


def elementary(x):
    return (
        torch.sin(x) * torch.cos(x) + torch.atan(x) + torch.asinh(x) + torch.erf(x) + torch.expm1(x)
        + torch.sinh(x) / torch.cosh(x) + torch.log1p(x.abs()) + torch.tan(x / 3) + torch.asin(x / 5)
        + torch.acos(x / 5) + torch.log2(x.abs() + 1) + torch.log10(x.abs() + 1) + torch.sigmoid(x)
    )  # fmt: skip


def selecting(x, w):
    out = torch.clamp(x @ w, -0.5, 0.7)
    return torch.where(out > 0.1, out * out, torch.maximum(out, -out)) + torch.relu(x.sum())


CASES: dict[str, tuple[Any, dict[str, tuple[int, ...]]]] = {
    "convolution": (lambda x, w, b: F.conv1d(x, w, b)[:, :, -5:], {"x": (2, 3, 9), "w": (3, 3, 2), "b": (3,)}),
    "tanh": (lambda x, w, v: torch.tanh(x @ w) @ v, {"x": (5, 6), "w": (6, 7), "v": (7, 2)}),
    "attention": (attention, {"q": (3, 4), "k": (4, 4), "v": (4, 3)}),
    "layer norm": (layer_norm, {"x": (4, 6), "w": (6,)}),
    "elementary": (elementary, {"x": (25,)}),
    "selecting": (selecting, {"x": (5, 4), "w": (4, 4)}),
    "power": (lambda x: (x.abs() + 0.1) ** 1.7 / (x + 5), {"x": (25,)}),
}  # fmt: skip


@lru_cache
def problem(case: str, format: Any, seed: int = 0):
    function, shapes = CASES[case]
    rng = np.random.default_rng([seed, *case.encode()])
    inputs = {name: np.clip(rng.standard_normal(shape), -3, 3) for name, shape in shapes.items()}
    trace = prune(trace_gradients(function, inputs, None, squares))
    rounded = round_inputs(trace, inputs, ro.as_format(format))
    return trace, rounded, reference_of_trace(trace, rounded, format=format, engine="ball")


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("format", ["bfloat16", "float16", "float32", "float64", NARROW], ids=str)
def test_bounds_hold_in_every_order(case, format) -> None:
    trace, inputs, reference = problem(case, format)
    free = bounds_of_trace(trace, inputs, format)
    stacked = {name: value[None] for name, value in inputs.items()}
    worst = 0.0
    for order in ro.orders.names():
        stated = bounds_of_trace(trace, inputs, format, order=order)
        found = simulate(trace, Simulated(format, order), stacked)
        for name in trace.outputs:
            holds(found[name][0], reference[name], free[name].certain)
            holds(found[name][0], reference[name], stated[name].certain)
            error = np.abs((found[name][0] - reference[name].high) - reference[name].low)
            with np.errstate(all="ignore"):
                worst = max(worst, float(np.nanmax(error / stated[name].certain)))
            if not ro.orders.as_order(order).compensation:
                # A compensated loop has more roundings, all of higher order.
                slack = 1 + 2.0**-6
                assert (stated[name].certain <= free[name].certain * slack).all()
    assert worst > 0.01, "a bound a hundred times above every error is a wrong bound"


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("format", ["bfloat16", "float16", "float32", "float64"])
def test_bounds_hold_for_torchs_own_kernels(case, format) -> None:
    trace, inputs, reference = problem(case, format)
    native = ro.native_gradients(CASES[case][0], inputs, None, squares, format=format)
    for name, bound in bounds_of_trace(trace, inputs, format).items():
        holds(native[name], reference[name], bound.certain)


@pytest.mark.parametrize("case", CASES)
def test_walks_that_share_results_find_the_same(case) -> None:
    """In whatever order they come, the reference's rounded values among what they share."""
    trace, inputs, reference = problem(case, "float32")
    laws = partial(likely, failure=1e-9, outputs=5), certified
    alone = [walk(trace, Running("float32", law=law), inputs) for law in laws]
    scales = walk(trace, Scale(), inputs)
    for first in ("reference", "scale", "bounds"):
        given = RoundedInputs.sharing(trace, inputs)
        given.format = ro.FLOAT32
        if first == "reference":
            reference_of_trace(trace, given, engine="auto")
            walk(trace, Multiword(2), given)
        elif first == "scale":
            walk(trace, Scale(), given)
        for law, lonely in zip(laws, alone, strict=True):
            found = walk(trace, Running("float32", law=law), given)
            for name, each in found.items():
                lone = lonely[name]
                gap = np.abs((each.value - reference[name].high) - reference[name].low)
                assert (gap <= each.own + reference[name].error).all()
                near = np.isclose(each.error, lone.error, rtol=2.0**-20, atol=0)
                assert (near | ~np.isfinite(lone.error)).all()
        for name, each in walk(trace, Scale(), given).items():
            assert np.allclose(each.scale, scales[name].scale, rtol=2.0**-40, atol=0)
            assert np.allclose(each.terms, scales[name].terms, rtol=2.0**-30, atol=2.0**-60)


def test_what_walks_share_ends_with_the_comparison(monkeypatch) -> None:
    """Bounds and references live on with the result; their inputs do, not what was found at these."""
    met: list[RoundedInputs] = []
    real = RoundedInputs.shared
    monkeypatch.setattr(RoundedInputs, "shared", lambda self: met.append(self) or real(self))
    w, x = torch.randn(3, 4), torch.randn(4, 5)
    found = ro.compare(
        lambda w, x: w @ x, lambda w, x: (x.T @ w.T).T, {"w": w, "x": x}, loss=squares
    )
    assert len(met) == 2 * len({pair.format for pair in found.pairs.values()})
    assert all(each.findings is None for each in met)
    given = met[0]
    with real(given):
        walk(given.trace, Scale(), given)
        assert given.findings
    assert given.findings is None


def test_a_comparison_of_what_may_overflow_is_undecided() -> None:
    # 128.625 * 509.25 = 65502.28 rounds to 65504 in float16, and may be infinite: its sine may be anything.
    inputs = {"x": 128.625, "y": 509.25, "a": 3.0, "b": -1.0}
    for wave in (torch.sin, torch.cos, torch.tan):
        bound = ro.gradient_bounds(
            lambda x, y, a, b, wave=wave: torch.where(wave(x * y) > 0.5, a, b), inputs, ["a"],
            format="float16",
        )  # fmt: skip
        assert 1.0 <= bound["a"].certified < 1.0 + 1e-9
    a = Enclosed(np.ones(3), np.array([0.0, np.nan, 2.0]), np.array([np.nan, 0.0, 0.0]))
    zero = Enclosed(np.zeros(3), 0.0, 0.0)
    assert compared(FUNCTIONS["gt"], a, zero).error.tolist() == [1.0, 1.0, 1.0]
    assert sign_of(a).error.tolist() == [2.0, 2.0, 2.0] and sign_of(a).own.tolist() == [0, 2, 2]
    assert (
        compared(
            FUNCTIONS["gt"], Enclosed(np.ones(1), 0.0, 0.0), Enclosed(np.ones(1), 0.0, 0.0)
        ).error
        == 0
    )


@pytest.mark.parametrize("case", CASES)
def test_magnitudes_are_enclosed(case) -> None:
    """value and own hold the exact number, whatever the format."""
    trace, inputs, reference = problem(case, "float64")
    for order in (None, "pairwise"):
        for name, found in walk(trace, Running("float64", order), inputs).items():
            own = np.broadcast_to(found.own, found.value.shape)
            gap = np.abs((found.value - reference[name].high) - reference[name].low)
            assert (gap <= own + reference[name].error).all()
            assert (own <= 2.0**-40 * (reference[name].scale + 2.0**-20)).all()


def test_a_wide_accumulator_is_used() -> None:
    trace, inputs, reference = problem("tanh", "float16")
    narrow = bounds_of_trace(trace, inputs, "float16")
    wide = bounds_of_trace(trace, inputs, "float16", accumulate="float32")
    for name in trace.outputs:
        assert (wide[name].certain < narrow[name].certain).all()
        for order in ("sequential", "kahan"):
            found = simulate(
                trace,
                Simulated("float16", order, "float32"),
                {k: v[None] for k, v in inputs.items()},
            )
            holds(found[name][0], reference[name], wide[name].certain)


def test_an_undecided_branch_may_go_either_way() -> None:
    """relu of a sum that cancels to less than its rounding error: the gradient may be 0 or not."""
    inputs = {"a": np.array([1.0, 3.0]), "b": np.array([2.0**-30, 1.0])}
    found = ro.gradient_bounds(
        lambda a, b: torch.relu((a + b) - a).sum(), inputs, ("b",), format="float32"
    )["b"].certified
    assert found[0] >= 1.0 and found[1] < 1e-6
    native = ro.native_gradients(
        lambda a, b: torch.relu((a + b) - a).sum(), inputs, ("b",), format="float32"
    )
    assert np.abs(native["b"] - 1.0)[0] <= found[0]


def test_overflow_and_poles_have_no_finite_bound() -> None:
    found = ro.gradient_bounds(lambda x: (x * x * x).sum(), {"x": [200.0, 2.0]}, format="float16")[
        "x"
    ]
    assert torch.isinf(found.certified[0]) and torch.isfinite(found.certified[1])
    near = ro.gradient_bounds(
        lambda a, b: (1 / (a - b)).sum(), {"a": [1.0], "b": [1.0 + 2.0**-20]}, format="float32"
    )
    assert torch.isfinite(near["a"].certified).all(), "an exact difference of the format"
    lost = ro.gradient_bounds(
        lambda a, b, c: (1 / (a + b - c)).sum(),
        {"a": [1.0], "b": [2.0**-23], "c": [1.0]}, ("a",), format="bfloat16", accumulate="float32",
    )  # fmt: skip
    assert torch.isinf(lost["a"].certified).all()


def test_probabilistic_and_expected_gradients() -> None:
    rng = np.random.default_rng(0)
    inputs = {"x": rng.standard_normal((400, 6)), "w": rng.standard_normal((6, 4))}
    problem = {"inputs": inputs, "loss": squares, "format": "float32"}
    for order in (None, "sequential", "pairwise"):
        bound = ro.gradient_bounds(lambda x, w: x @ w, **problem, order=order)["w"]
        likely, certain = bound.probabilistic(1e-3), bound.certified
        assert isinstance(certain, torch.Tensor) and certain.shape == (6, 4)
        assert (likely <= certain).all()
        assert (bound.probabilistic(0.1) <= likely).all()
        assert (bound.expected < likely).all() and (bound.expected > 0).all()
        if order != "pairwise":
            assert (likely < 0.7 * certain).all()
    with pytest.raises(ro.ArgumentError, match="failure is 1"):
        bound.probabilistic(1)
    text = str(bound)
    assert "the gradient 'w' in float32, order pairwise" in text and "shared by" in text
    with pytest.raises(ro.InapplicableError, match="no running bound"):
        assert bound.running


def test_the_expected_error_is_the_mean_square() -> None:
    rng = np.random.default_rng(4)
    draws = {"x": rng.standard_normal((200, 30, 3)), "w": rng.standard_normal((200, 3, 4))}
    draws = {k: ro.round_to(v, "float32") for k, v in draws.items()}
    one = {k: v[0] for k, v in draws.items()}
    trace = prune(trace_gradients(lambda x, w: torch.tanh(x @ w), one, ("w",), squares))
    for order in ("sequential", "pairwise"):
        found = simulate(trace, Simulated("float32", order), draws)["w"]
        wide = simulate(trace, Simulated("float64", order), draws)["w"]
        ratios = []
        for k in range(200):
            model = bounds_of_trace(
                trace, {n: v[k] for n, v in draws.items()}, "float32", order=order
            )["w"]
            ratios.append(((found[k] - wide[k]) / np.asarray(model.expected)).ravel())
        assert 0.7 < np.sqrt(np.mean(np.square(ratios))) < 1.4


def test_failures_are_shared_by_all_sums() -> None:
    trace, _, _ = problem("convolution", "float32")
    # forward 2*3*5 sums (kept outputs), weight 3*3*2, bias 3, input 2*3*6
    assert trace.sums >= 2 * 3 * 5 + 18 + 3
