"""Verdicts and the bounds that they rest on: honest pairs, planted bugs, overflow, coverage."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro
from roundoff.arithmetic.condition_scale import Scaled
from roundoff.arithmetic.simulated import Simulated, simulate
from roundoff.gradients.bounds import bounds_of_trace
from roundoff.gradients.native import native_gradients, threads
from roundoff.gradients.reference import GradientReference, reference_of_trace
from roundoff.judging import verdict as verdicts
from roundoff.judging.evidence import Judged, evidence_of_trace
from roundoff.judging.verdict import Verdict, judge
from roundoff.trace import prune, trace_gradients

FORMATS = ("float16", "bfloat16", "float32", "float64")
WRT = ("weight", "bias")


def squares(out):
    return (out**2).sum()


def slice_then_conv(weight, bias, x):
    return F.conv1d(x[:, :, -5:], weight, bias)


def conv_then_slice(weight, bias, x):
    return F.conv1d(x, weight, bias)[:, :, -5:]


def draw(seed=0, n=1, c=3, t=10, taps=1):
    rng = np.random.default_rng(seed)
    return {
        "weight": rng.uniform(-1, 1, (c, c, taps)),
        "bias": rng.uniform(-1, 1, c),
        "x": rng.random((n, c, t)),
    }


@lru_cache
def traced(function, *shapes):
    inputs = dict(zip(("weight", "bias", "x"), map(np.zeros, shapes)))
    return prune(trace_gradients(function, inputs, WRT, squares))


def judged(first, second, inputs, format, gradient="weight", natives=None, accumulate=None):
    """The verdict of two functions on one draw."""
    target = ro.as_format(format)
    arrays = {k: ro.round_to(v, target) for k, v in inputs.items()}
    sides = []
    for k, (name, function) in enumerate((("first", first), ("second", second))):
        trace = traced(function, *(v.shape for v in inputs.values()))
        if natives is None:
            native = native_gradients(function, inputs, WRT, squares, format=target)[gradient]
        else:
            native = natives[k]
        found = evidence_of_trace(trace, arrays, target, accumulate=accumulate)
        sides.append(found.of(gradient, name, native))
    return judge(*sides)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("gradient", WRT)
def test_honest_pairs_are_never_suspected(format, gradient) -> None:
    for seed in range(20):
        verdict = judged(slice_then_conv, conv_then_slice, draw(seed), format, gradient).verdict
        assert verdict in (Verdict.IDENTICAL, Verdict.ROUNDOFF)
    assert judged(conv_then_slice, conv_then_slice, draw(), format).verdict is Verdict.IDENTICAL


def padded(weight, bias, x):
    return F.conv1d(F.pad(x, (2, 0)), weight, bias)[:, :, -5:]


def wrong_halo(weight, bias, x):
    return F.conv1d(F.pad(x[:, :, -6:], (1, 0)), weight, bias)


def halo(weight, bias, x):
    return F.conv1d(x[:, :, -7:], weight, bias)


def dropped_step(weight, bias, x):
    return F.conv1d(x[:, :, -4:], weight, bias)


def shifted_step(weight, bias, x):
    return F.conv1d(x[:, :, -6:-1], weight, bias)


def transposed_weight(weight, bias, x):
    return F.conv1d(x[:, :, -5:], weight.transpose(0, 1), bias)


def tiny_factor(weight, bias, x):
    return F.conv1d(x[:, :, -5:], weight, bias) * (1 + 2.0**-49)


def one_channel(weight, bias, x):
    factor = torch.tensor([1.0, 1.0, 1 + 2.0**-20], dtype=x.dtype)[:, None]
    return F.conv1d(x[:, :, -5:], weight, bias) * factor.to(x.dtype)


def test_a_bug_in_one_channel_is_different() -> None:
    found = judged(conv_then_slice, one_channel, draw(), "float64")
    assert found.verdict is Verdict.DIFFERENT and "[2, " in found.reason


BUGS = [
    (padded, wrong_halo, 3),
    (conv_then_slice, dropped_step, 1),
    (conv_then_slice, shifted_step, 1),
    (conv_then_slice, transposed_weight, 1),
    (conv_then_slice, tiny_factor, 1),
]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("honest", "bug", "taps"), BUGS, ids=lambda f: getattr(f, "__name__", f))
def test_a_planted_bug_is_never_roundoff(honest, bug, taps, format) -> None:
    for seed in range(5):
        found = judged(honest, bug, draw(seed, taps=taps), format)
        assert found.verdict is Verdict.DIFFERENT, found
        assert "exact gradients are" in found.reason
    assert judged(padded, halo, draw(1, taps=3), format).verdict in (
        Verdict.IDENTICAL,
        Verdict.ROUNDOFF,
    )


def native_pair(format, change):
    inputs = draw()
    good = native_gradients(conv_then_slice, inputs, WRT, squares, format=format)["weight"]
    return inputs, [good, change(good.copy())]


@pytest.mark.parametrize("format", ["float16", "float32", "float64"])
def test_a_wrong_kernel_is_suspicious(format) -> None:
    def off(values):
        values.flat[np.argmax(np.abs(values))] *= 1.25
        return values

    def overflown(values):
        values[1, 1, 0] = np.inf
        return values

    def not_a_number(values):
        values[1, 1, 0] = np.nan
        return values

    for change, words in (
        (off, "second errs"),
        (overflown, "second is inf"),
        (not_a_number, "second is nan"),
    ):
        inputs, natives = native_pair(format, change)
        found = judged(slice_then_conv, conv_then_slice, inputs, format, natives=natives)
        assert found.verdict is Verdict.SUSPICIOUS and words in found.reason
        found = judged(slice_then_conv, conv_then_slice, inputs, format, natives=natives[::-1])
        assert (
            found.verdict is Verdict.SUSPICIOUS and words.replace("second", "first") in found.reason
        )


def test_where_a_bound_is_vague_the_prediction_decides() -> None:
    inputs = draw(n=8, c=40, t=60)
    good = native_gradients(conv_then_slice, inputs, WRT, squares, format="bfloat16")["weight"]
    some = np.arange(good.size).reshape(good.shape) % 3 == 0
    for factor, verdict in ((1 + 2.0**-7 * some, Verdict.ROUNDOFF), (1.25, Verdict.SUSPICIOUS)):
        off = ro.round_to(good * factor, "bfloat16")
        found = judged(
            slice_then_conv, conv_then_slice, inputs, "bfloat16", natives=[good, off],
            accumulate="bfloat16",
        )  # fmt: skip
        assert found.verdict is verdict and found.evidence == "predicted", found.reason


def exactly(*values, radius=0.0, terms=None):
    """A reference of float64 numbers; terms: the sums of |terms|, by default their absolute values."""
    high = np.array(values, np.float64)
    size = np.abs(high) if terms is None else np.broadcast_to(np.float64(terms), high.shape)
    return GradientReference(
        high, np.zeros_like(high), np.full_like(high, radius), (high,), "multiword", radius == 0,
        lambda: Scaled(high, size, size),
    )  # fmt: skip


def within(certain, likely, format="float32"):
    """A bound of the same size at all elements."""
    return SimpleNamespace(
        certain=np.asarray(certain),
        likely=lambda _: np.asarray(likely),
        format=ro.as_format(format),
    )


def test_unproven_references_cannot_say_different() -> None:
    for rigorous, verdict in ((True, Verdict.DIFFERENT), (False, Verdict.UNDECIDED)):
        one, two = (
            Judged(n, np.array([1.0]), exactly(v), within([1.0], [1.0]), False, rigorous)
            for n, v in (("first", 1.0), ("second", 2.0))
        )
        assert judge(one, two).verdict is verdict


def test_the_gravest_verdict_stands() -> None:
    assert (
        verdicts.gravest([Verdict.ROUNDOFF, Verdict.DIFFERENT, Verdict.IDENTICAL])
        is Verdict.DIFFERENT
    )
    assert verdicts.gravest([Verdict.IDENTICAL, Verdict.ROUNDOFF]) is Verdict.ROUNDOFF


@pytest.mark.parametrize("format", [*FORMATS, ro.Format("narrow", 8, -9, 12)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 2.0**-9])
def test_certified_bounds_hold_in_every_order_in_exact_arithmetic(format, scale) -> None:
    """Subnormal products included: scaled down, narrow ranges underflow."""
    target = ro.as_format(format)
    draws = [{k: ro.round_to(v * scale, target) for k, v in draw(s).items()} for s in range(20)]
    trace = prune(trace_gradients(conv_then_slice, draws[0], WRT, squares))
    stacked = {k: np.stack([d[k] for d in draws]) for k in draws[0]}
    exact = [reference_of_trace(trace, d, format=target, engine="mpmath") for d in draws]
    bounds = [bounds_of_trace(trace, d, target) for d in draws]
    worst = 0.0
    for order in ro.orders.names():
        found = simulate(trace, Simulated(target, order), stacked)
        for name in WRT:
            for k in range(len(draws)):
                limit = bounds[k][name].certified
                for at in np.ndindex(limit.shape):
                    sign, mantissa, exponent, _ = exact[k][name].numbers[at]
                    truth = (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** exponent
                    error = abs(Fraction(float(found[name][k][at])) - truth)
                    if np.isfinite(limit[at]):
                        assert error <= Fraction(float(limit[at]))
                        worst = max(worst, float(error) / limit[at])
    assert worst > 0.04, "a bound hundreds of times too large at so few terms is a wrong bound"


def test_probabilistic_bounds_are_below_the_certified_and_hold() -> None:
    inputs = draw(n=64, c=8, t=30)
    trace = prune(trace_gradients(conv_then_slice, inputs, WRT, squares))
    for format in ("float32", "float64"):
        arrays = {k: ro.round_to(v, format) for k, v in inputs.items()}
        exact = reference_of_trace(trace, arrays, format=format)
        native = native_gradients(conv_then_slice, inputs, WRT, squares, format=format)
        for name, bound in bounds_of_trace(trace, arrays, format).items():
            likely = bound.probabilistic(1e-9)
            assert (likely <= bound.certified).all()
            error = np.abs((native[name] - exact[name].high) - exact[name].low)
            assert (error <= likely).all()
            assert (bound.probabilistic(0.1) < likely).all()


def test_native_gradients_are_torchs_on_rounded_inputs() -> None:
    inputs = draw()
    for format in FORMATS:
        dtype = ro.as_format(format).torch_dtype
        values = {
            k: torch.from_numpy(ro.round_to(v, format)).to(dtype).requires_grad_(k in WRT)
            for k, v in inputs.items()
        }
        squares(conv_then_slice(**values)).backward()
        with threads(torch.get_num_threads()):
            found = native_gradients(conv_then_slice, inputs, WRT, squares, format=format)
        for name in WRT:
            np.testing.assert_array_equal(found[name], values[name].grad.double())


def test_inputs_are_rounded_once_on_their_way_to_torch() -> None:
    # By way of float32 this number would be a tie, and go down.
    x = 1 + 2.0**-11 + 2.0**-40
    assert native_gradients(lambda x: (x * x).sum(), {"x": [x]}, format="float16")["x"] == 2 * (
        1 + 2.0**-10
    )


def test_native_refusals_are_named() -> None:
    for format, words in (
        ("float8_e5m2", "float8_e5m2; simulate"),
        ("tfloat32", "tfloat32; simulate"),
    ):
        with pytest.raises(ro.UnsupportedError, match=words):
            native_gradients(conv_then_slice, draw(), WRT, squares, format=format)
    with pytest.raises(ro.ArgumentError, match="threads is 0"), threads(0):
        pass
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
