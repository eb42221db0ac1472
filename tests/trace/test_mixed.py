"""Code that casts inside: every step in the format that it is computed in, and the trace in the judged type."""

from __future__ import annotations

from itertools import product

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from zoo import Z, loss

import roundoff as ro
from roundoff.gradients.bounds import bounds_of_trace
from roundoff.gradients.inputs import float64_array, round_inputs
from roundoff.gradients.native import native_gradients
from roundoff.gradients.reference import reference_of_trace
from roundoff.trace import Traces, prune, trace_gradients

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


# ------------------------------------------------------------------- the whole zoo, cast inside


def within(dtype):
    def wrap(function):
        def cast(**values):
            given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in values.items()}
            return function(**given).float()

        return cast

    return wrap


def autocast(function):
    def cast(**values):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return function(**values).float()

    return cast


#: How the function casts, and the format that is declared.
CASTS = {
    "half": (within(torch.float16), "float32"),
    "bfloat16": (within(torch.bfloat16), "float32"),
    "double": (within(torch.float64), "float32"),
    "float": (within(torch.float32), "float64"),
    "autocast": (autocast, "float32"),
}
#: torch's kernels that do not exist in a format, as of 2.13.
ABSENT = {("avgpool3", "half"), ("avgpool3", "bfloat16")}


@pytest.mark.parametrize("name", Z)
@pytest.mark.parametrize("cast", CASTS)
def test_torch_is_within_the_bounds_of_code_that_casts(cast, name) -> None:
    """Away from subnormal numbers, which some 16-bit kernels flush."""
    wrap, format = CASTS[cast]
    function, inputs = Z[name]
    if (name, cast) in ABSENT:
        with pytest.raises(ro.UnsupportedError, match="not implemented"):
            native_gradients(wrap(function), inputs, None, loss, format=format)
        return
    ratios(wrap(function), inputs, format, loss)


@pytest.mark.parametrize(
    "name", ["linear", "conv1", "layernorm", "softmax", "act_GELU", "mse", "lstm"]
)
def test_casts_are_the_identity_of_references(name) -> None:
    """A reference of code that casts is that of the code without casts, at the numbers it is given."""
    function, inputs = Z[name]

    def reference(f, format):
        return ro.reference_gradients(f, inputs, None, loss, format=format, engine="mpmath")

    plain = {format: reference(function, format) for format in ("float32", "float64")}
    for wrap, format in CASTS.values():
        one, two = reference(wrap(function), format), plain[format]
        for key in one:
            gap = np.abs((one[key].high - two[key].high) + (one[key].low - two[key].low))
            assert (gap <= one[key].error + two[key].error).all(), (format, key)


# ------------------------------------------------------------------------ from below: single steps

HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32
STEPS = {
    "cast": lambda x, y, d: x.to(d),
    "mul": lambda x, y, d: x.to(d) * y.to(d),
    "add": lambda x, y, d: x.to(d) + y.to(d),
    "div": lambda x, y, d: x.to(d) / y.to(d),
    "sqrt": lambda x, y, d: x.to(d).sqrt(),
    "exp": lambda x, y, d: x.to(d).exp(),
    "tanh": lambda x, y, d: x.to(d).tanh(),
    "sigmoid": lambda x, y, d: x.to(d).sigmoid(),
    "product": lambda x, y, d: (x.to(d)[:, None, None] @ y.to(d)[:, None, None])[:, 0, 0],
    "sum": lambda x, y, d: torch.stack([x, y], -1).to(d).sum(-1),
}


#: Their float32 kernels err by less, on some machines, than the ulps that are known of them.
GOOD = {("tanh", SINGLE), ("sigmoid", SINGLE), ("sqrt", SINGLE)}


@pytest.mark.parametrize(
    ("step", "dtype"), [p for p in product(STEPS, (HALF, BRAIN, SINGLE)) if p not in GOOD]
)
def test_bounds_of_single_narrow_steps_are_nearly_attained(step, dtype) -> None:
    """With the wide format's u, or with half the bound, one of 20 000 numbers in [1, 2) would exceed it."""
    wide = "float64" if dtype == SINGLE else "float32"
    x, y = np.random.default_rng(3).uniform(1.0, 2.0, (2, 20_000))

    def function(x, y):
        found = STEPS[step](x, y, dtype)
        return found.to(x.dtype)

    ones = np.ones(len(x))
    assert 0.5 < ratios(function, {"x": x, "y": y}, wide, upstream=ones)["output"].max() <= 1.0


def test_a_step_in_a_wider_type_costs_the_declared_format_one_rounding() -> None:
    x, y = np.random.default_rng(4).uniform(1.0, 2.0, (2, 20_000))

    def function(x, y):
        return (x.double() * y.double() + x.double()).to(x.dtype)

    given = {"x": x, "y": y}
    assert 0.5 < ratios(function, given, "float32", upstream=np.ones(len(x)))["output"].max() <= 1
    trace = prune(
        trace_gradients(
            function, given, None, None, np.ones(len(x)), format="float32", forward=True
        )
    )
    arrays = round_inputs(
        trace, {**given, "upstream gradient": np.ones(len(x))}, ro.as_format("float32")
    )
    bound = bounds_of_trace(trace, arrays, "float32")["output"].certain
    assert (bound <= (1 + 2.0**-20) * 2.0**-24 * (x * y + x)).all()


# ------------------------------------------------------------- what was reported, and its kind


def llama(x, w):
    """RMSNorm as Llama has it: in float32 whatever the type of x."""
    wide = x.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    return loss(w * wide.to(x.dtype))


def llama_divided(x, w):
    wide = x.float()
    wide = wide / torch.sqrt((wide * wide).mean(-1, keepdim=True) + 1e-6)
    return loss(wide.to(x.dtype) * w)


def angles(size, like):
    position = torch.arange(size, dtype=torch.float32)
    rate = 1.0 / (100.0 ** (torch.arange(0, size, 2, dtype=torch.float32) / size))
    angle = torch.outer(position, rate)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def rotary(x):
    cos, sin = angles(4, x)
    a, b = x[:, :2], x[:, 2:]
    return loss(torch.cat([a * cos - b * sin, a * sin + b * cos], -1))


def rotary_added(x):
    cos, sin = angles(4, x)
    a, b = x[:, :2], x[:, 2:]
    return loss(torch.cat([a * cos + b * -sin, b * cos + a * sin], -1))


TARGET = torch.from_numpy(normal(4, 6, seed=9)).float()
SCALE = torch.tensor(0.1)


def overwritten(x):
    narrow = torch.zeros(3, 4, dtype=torch.float16)
    narrow[1:] = x[1:]
    return loss(narrow.float())


CODE = {
    "sigmoid of a product in half": (
        lambda x, w: total(torch.sigmoid((x @ w).half())), {"x": normal(4, 6), "w": normal(6, 4)},
    ),
    "exp of half": (lambda x: total(x.half().exp()), {"x": normal(256)}),
    "square in half": (lambda x: total(x.half() * x.half()), {"x": normal(256)}),
    "tanh of bfloat16": (lambda x: total(torch.tanh(x.bfloat16())), {"x": normal(256)}),
    "batch norm of bfloat16": (
        lambda x, w, b: loss(F.batch_norm(x.bfloat16(), None, None, w.bfloat16(), b.bfloat16(), True).float()),
        {"x": normal(8, 3, 4), "w": normal(3), "b": normal(3)},
    ),
    "llama": (llama, {"x": normal(4, 8), "w": normal(8)}),
    "rotary": (rotary, {"x": normal(4, 4)}),
    "captured target": (lambda x: F.mse_loss(x, TARGET), {"x": normal(4, 6)}),
    "captured number": (lambda x: loss(SCALE * x), {"x": normal(6)}),
    "written into half": (overwritten, {"x": normal(3, 4)}),
    "literal in half": (
        lambda x: loss(torch.full((), 0.1, dtype=torch.float16).float() * x), {"x": normal(6)},
    ),
    "array in the own type": (
        lambda x: loss(torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype) * x), {"x": normal(3)},
    ),
    "window": (
        lambda x: loss(torch.hann_window(8, periodic=False, dtype=x.dtype) * x), {"x": normal(8)},
    ),
    "even steps": (
        lambda x: loss(
            torch.linspace(-1, 1, 23, dtype=x.dtype) * x + torch.linspace(0.1, 3, 23, dtype=x.dtype)
        ),
        {"x": normal(23)},
    ),
    "broken steps": (
        lambda x: loss(
            torch.arange(-1, 1, 0.1, dtype=x.dtype) * x + torch.arange(20, dtype=x.dtype) / 7
        ),
        {"x": normal(20)},
    ),
    "own eps": (
        lambda x: (x / (x.norm() + torch.finfo(x.dtype).eps))[0], {"x": normal(6)},
    ),
    "rms norm": (lambda x, w: loss(F.rms_norm(x, (8,), w)), {"x": normal(4, 8), "w": normal(8)}),
    "sum in another type": (
        lambda x: x.sum(dtype=torch.float64).to(x.dtype) + total(x.mean(0, dtype=torch.float32)),
        {"x": normal(5, 4)},
    ),
    "islands": (
        lambda x, w: total(F.softmax((x.half() @ w.half()).float(), -1).bfloat16() * x),
        {"x": normal(4, 4), "w": normal(4, 4)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", CODE)
def test_code_of_mixed_types_is_within_its_bounds(name, format) -> None:
    function, inputs = CODE[name]
    for found in ratios(function, inputs, format).values():
        assert (found <= 1).all()


HONEST = {
    "llama": (llama, llama_divided, {"x": normal(4, 8), "w": normal(8)}),
    "rotary": (rotary, rotary_added, {"x": normal(4, 4)}),
    "captured target": (
        lambda x: F.mse_loss(x, TARGET), lambda x: ((x - TARGET) ** 2).mean(), {"x": normal(4, 6)},
    ),
    "tanh": (
        lambda x: total(torch.tanh(x.bfloat16())), lambda x: total(torch.tanh(x)), {"x": normal(50)},
    ),
    "eps": (
        lambda x: (x / (x.norm() + torch.finfo(x.dtype).eps))[0],
        lambda x: x[0] / (torch.finfo(x.dtype).eps + (x * x).sum().sqrt()), {"x": normal(6)},
    ),
    "rms norm": (
        lambda x: loss(F.rms_norm(x, (8,))),
        lambda x: loss(
            (x.to(torch.promote_types(x.dtype, SINGLE)) / (
                x.to(torch.promote_types(x.dtype, SINGLE)).square().mean(-1, True)
                + torch.finfo(torch.promote_types(x.dtype, SINGLE)).eps
            ).sqrt()).to(x.dtype)
        ),
        {"x": normal(4, 8)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_honest_rewrites_of_mixed_code_differ_by_rounding(name) -> None:
    first, second, inputs = HONEST[name]
    found = ro.compare(first, second, inputs, formats=FORMATS)
    assert {str(pair.judgement.verdict) for pair in found.pairs.values()} <= {
        "IDENTICAL",
        "ROUNDOFF",
    }, found


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
