"""Code that computes in several types: judged in the type that it runs in, by all arithmetics."""

from __future__ import annotations

from itertools import product

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from zoo import loss

import roundoff as ro
from roundoff.gradients.bounds import bounds_of_trace
from roundoff.gradients.inputs import float64_array, round_inputs
from roundoff.gradients.native import native_gradients
from roundoff.gradients.reference import reference_of_trace
from roundoff.trace import Traces, prune, trace_gradients

HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32

FORMATS = ("float16", "bfloat16", "float32", "float64")


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def total(out):
    return out.float().sum() if out.dtype != torch.float64 else out.sum()


def ratios(function, inputs, format, loss=None, engine="ball", upstream=None):
    """Error over certified bound of every element, by gradient and for the output; asserts that it holds."""
    trace = prune(
        trace_gradients(function, inputs, None, loss, upstream, format=format, forward=True)
    )
    given = dict(inputs) if upstream is None else {**inputs, "upstream gradient": upstream}
    arrays = {
        k: float64_array(torch.as_tensor(v)) if not isinstance(v, np.ndarray) else v
        for k, v in given.items()
    }
    exact = reference_of_trace(trace, arrays, format=format, engine=engine)
    bounds = bounds_of_trace(trace, round_inputs(trace, arrays, ro.as_format(format)), format)
    computed = native_gradients(function, inputs, None, loss, upstream, format=format, forward=True)
    found = {}
    for key, values in computed.items():
        error = np.abs((values - exact[key].high) - exact[key].low)
        limit = bounds[key].certain + exact[key].error
        assert ((error <= limit) | np.isinf(limit)).all(), (format, key, (error / limit).max())
        found[key] = np.where(error > 0, error / np.where(limit > 0, limit, 1), 0.0)
    return found


# --------------------------------------------------------------------------- the type that is judged


def test_a_bug_in_one_type_is_found_there_and_not_elsewhere() -> None:
    def branching(x):
        return loss(1.5 * x if x.dtype == torch.float16 else 2 * x)

    found = ro.compare(branching, lambda x: loss(x + x), {"x": normal(5)}, formats=FORMATS)
    assert {(p.format.name, str(p.judgement.verdict)) for p in found.pairs.values()} == {
        ("float16", "DIFFERENT"),
        ("bfloat16", "IDENTICAL"),
        ("float32", "IDENTICAL"),
        ("float64", "IDENTICAL"),
    }
    assert not any("equal everywhere" in note for note in found.notes)


def test_random_points_are_those_of_the_type_that_is_judged() -> None:
    """x y and x + y - 1 have the same value and gradients at (1, 1)."""

    def branching(x, y):
        return x + y - 1 if x.dtype == torch.float16 else x * y

    one = {"x": np.ones(()), "y": np.ones(())}
    found = ro.compare(branching, lambda x, y: x * y, one, formats=("float16", "float32"))
    assert str(found.verdict("x", "float16")) == "DIFFERENT"
    assert str(found.verdict("x", "float32")) == "IDENTICAL"
    assert "in float32: both sides have the same trace" in "".join(found.notes)


def test_formats_in_which_a_function_makes_the_same_calls_share_a_trace() -> None:
    """A cast that rounds in one format and not in another makes two traces, whichever is made first."""
    inputs = {"x": normal(4, 8), "w": normal(8, 3)}
    brought = torch.from_numpy(normal(4, 3, seed=1)).float()
    functions = {
        1: lambda x, w: loss(torch.tanh(x @ w) * 0.1),
        # No calls in float32, narrower in float64.
        3: lambda x, w: loss((x.float() @ w.float()).to(x.dtype)),
        4: lambda x, w: (x * torch.finfo(x.dtype).eps).sum() + w.sum(),
    }
    for count, function in functions.items():
        traces = Traces(function, inputs)
        assert len({id(traces.of(format)) for format in FORMATS}) == count
    plain = Traces(functions[1], inputs)
    assert plain.of("float8_e4m3fn") is plain.of("float32")
    functions[0] = lambda x, w: loss((x @ w) * brought.to(x.dtype))
    for function, formats in product(functions.values(), (FORMATS, FORMATS[::-1])):
        traces = Traces(function, inputs)
        for target in formats:
            own = prune(trace_gradients(function, inputs, format=target))
            found = traces.of(target)
            assert found.same_function(own), target
            rounds = [[getattr(s, "format", None) for s in t.steps] for t in (found, own)]
            assert rounds[0] == rounds[1], target


def test_verdicts_do_not_depend_on_the_formats_that_are_asked_for_beside() -> None:
    inputs = {"x": normal(5)}

    def first(x):
        return (x.tanh().float() ** 2).sum()

    def second(x):
        return (((x.exp() - (-x).exp()) / (x.exp() + (-x).exp())).float() ** 2).sum()

    for formats in (("float16", "float64"), ("float64", "float16")):
        found = ro.compare(first, second, inputs, formats=formats)
        assert {str(found.verdict("x", f)) for f in formats} <= {"IDENTICAL", "ROUNDOFF"}, found


def test_what_the_type_decides_is_in_the_reference() -> None:
    """Against mpmath's own gradient: x / (|x| + eps), and rms_norm, whose default eps is that of the type."""
    x = normal(6)
    for format in FORMATS:
        dtype = getattr(torch, format)
        eps = torch.finfo(dtype).eps
        given = ro.round_to(x, format)
        found = ro.reference_gradients(
            lambda x: (x / (x.norm() + torch.finfo(x.dtype).eps))[0], {"x": x}, format=format
        )["x"].mp()
        with mpmath.workprec(300):
            v = [mpmath.mpf(float(each)) for each in given]
            norm = mpmath.sqrt(sum(each**2 for each in v))
            for k, each in enumerate(v):
                want = (k == 0) / (norm + eps) - v[0] * each / norm / (norm + eps) ** 2
                assert abs(found[k] - want) <= mpmath.mpf(2) ** -80
        wide = torch.finfo(torch.promote_types(dtype, SINGLE)).eps
        found = ro.reference_gradients(lambda x: F.rms_norm(x, (6,))[0], {"x": x}, format=format)[
            "x"
        ].mp()
        with mpmath.workprec(300):
            mean = sum(each**2 for each in v) / 6 + wide
            for k, each in enumerate(v):
                want = (k == 0) / mpmath.sqrt(mean) - v[0] * each / 6 / mean**1.5
                assert abs(found[k] - want) <= mpmath.mpf(2) ** -80


def test_assertions_take_the_type_of_the_gradient() -> None:
    """The float32 function's own eps rejected the right float64 gradient."""

    def scaled(x):
        return (x / (x.norm() + torch.finfo(x.dtype).eps))[0]

    x = {"x": 1e-6 * normal(6)}
    for format in FORMATS[2:]:
        right = native_gradients(scaled, x, format=format)["x"]
        actual = {"x": torch.from_numpy(right).to(getattr(torch, format))}
        ro.testing.assert_within_roundoff(actual, scaled, x)
        with pytest.raises(AssertionError):
            ro.testing.assert_within_roundoff({"x": actual["x"] * 1.01}, scaled, x)


def test_native_code_and_reference_see_the_same_captured_numbers() -> None:
    """What a function brings along has a type of its own, and is not rounded to the one that is judged."""
    wide, single = torch.from_numpy(normal(5)), torch.from_numpy(normal(5)).float()
    ones = np.ones(5)
    for format in FORMATS:
        for brought in (wide, single):
            found = ro.reference_gradients(
                lambda x, brought=brought: (x * brought).sum(), {"x": ones}, format=format
            )["x"]
            assert (found.high == brought.double().numpy()).all() and not found.low.any()


def test_a_captured_tensor_is_rounded_where_torch_does_not_compute() -> None:
    single = torch.tensor([0.1, 0.2])
    found = ro.reference_gradients(
        lambda x: (x * single).sum(), {"x": np.ones(2)}, format="float8_e5m2"
    )["x"]
    assert (found.high == ro.round_to(single.double().numpy(), "float8_e5m2")).all()
    with pytest.raises(ro.ArgumentError, match="brings along.*beyond the largest"):
        ro.reference_gradients(
            lambda x: (x * (1e4 * single)).sum() + (x * torch.tensor([1e6, 1.0])).sum(),
            {"x": np.ones(2)}, format="float8_e5m2",
        )  # fmt: skip


def test_an_error_of_torch_in_a_type_leaves_the_float32_trace() -> None:
    weight = torch.from_numpy(normal(3, 4)).float()  # float16 inputs do not fit it
    found = ro.reference_gradients(
        lambda x: loss(F.linear(x, weight)), {"x": normal(2, 4)}, format="float16"
    )
    assert np.isfinite(found["x"].high).all()


# -------------------------------------------------------------------------- the other arithmetics


@pytest.mark.parametrize("dtype", [HALF, BRAIN])
def test_simulated_steps_are_those_of_the_type_they_are_cast_to(dtype) -> None:
    from roundoff.arithmetic.simulated import Simulated, simulate

    def function(x, y):
        return loss((x.to(dtype) * y.to(dtype) + x.to(dtype)).float() / y)

    inputs = {"x": normal(3, 200), "y": np.random.default_rng(2).uniform(1, 2, (3, 200))}
    trace = prune(trace_gradients(function, inputs, ("x",), format="float32"))
    given = {k: ro.round_to(v, "float32")[None] for k, v in inputs.items()}
    found = simulate(trace, Simulated("float32"), given)["x"][0]
    assert (found == native_gradients(function, inputs, ("x",), format="float32")["x"]).all()


@pytest.mark.parametrize(
    ("cast", "format"), [(HALF, "float32"), (SINGLE, "float64"), (BRAIN, "float64")]
)
def test_expected_errors_are_those_of_the_narrow_steps(cast, format) -> None:
    """The root mean square over 4000 numbers is within a factor of 1.5 of the model's."""
    x, y = np.random.default_rng(5).uniform(0.5, 8.0, (2, 4000))

    def function(x, y):
        return (x.to(cast) * y.to(cast)).to(x.dtype)

    given = (function, {"x": x, "y": y}, ("x",), None, np.ones(len(x)))
    trace = prune(trace_gradients(*given, format=format, forward=True))
    arrays = {"x": x, "y": y, "upstream gradient": np.ones(len(x))}
    rounded = round_inputs(trace, arrays, ro.as_format(format))
    exact = reference_of_trace(trace, rounded, format=format, engine="ball")["output"]
    computed = native_gradients(*given, format=format, forward=True)["output"]
    expected = bounds_of_trace(trace, rounded, format)["output"].expected
    measured = np.sqrt(np.mean(((computed - exact.high) / exact.high) ** 2))
    model = np.sqrt(np.mean((expected / exact.high) ** 2))
    assert model / 1.5 < measured < model * 1.5


def test_accumulators_are_never_narrower_than_a_step_nor_taken_for_wider_ones() -> None:
    """accumulate="float32" holds sums in half; a float64 island keeps its own."""

    def island(x):
        wide = x.double()
        return (wide * wide).sum().to(x.dtype)

    x = normal(200)
    plain, wide = (
        ro.gradient_bounds(lambda x: x.half().sum().float(), {"x": x}, accumulate=a)
        for a in (None, "float32")
    )
    assert plain.keys() == wide.keys()
    for accumulate in (None, "float32"):
        bound = ro.gradient_bounds(island, {"x": x}, accumulate=accumulate)["x"]
        assert (bound.certain <= 1.01 * 2.0**-24 * np.abs(2 * x)).all()
