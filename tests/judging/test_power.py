"""What assertions notice: planted faults in layers and formats are caught, or the assertion says that it cannot."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import roundoff as ro
from roundoff.gradients.problem import Problem
from roundoff.judging.power import factor_in_words, power_of
from roundoff.judging.reference_cache import remembered
from roundoff.testing import assert_within_roundoff
from roundoff.testing import assertions as testing

FORMATS = ("float16", "bfloat16", "float32", "float64")


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape)).float()


def squares(out):
    return (out * out).sum()


def linear(weight, bias, x):
    return F.linear(x, weight, bias)


def conv(weight, bias, x):
    return F.conv1d(x, weight, bias)


def layer_norm(weight, bias, x):
    return F.layer_norm(x, weight.shape, weight, bias)


LAYERS = {
    "linear, 3 rows": (linear, {"weight": (4, 8), "bias": (4,), "x": (3, 8)}),
    "linear, 256 rows": (linear, {"weight": (4, 8), "bias": (4,), "x": (256, 8)}),
    "linear, 4096 rows": (linear, {"weight": (2, 4), "bias": (2,), "x": (4096, 4)}),
    "conv, 16 to 16": (conv, {"weight": (16, 16, 3), "bias": (16,), "x": (2, 16, 20)}),
    "layer norm": (layer_norm, {"weight": (16,), "bias": (16,), "x": (32, 16)}),
}
PROBLEMS = {
    name: (function, {k: normal(*shape, seed=n) for n, (k, shape) in enumerate(shapes.items())})
    for name, (function, shapes) in LAYERS.items()
}

#: Faults that no assertion may pass, whatever the format.
GROSS = {
    "zero": torch.zeros_like,
    "negated": lambda g: -g,
    "doubled": lambda g: 2 * g,
    "a tenth": lambda g: g / 10,
}
FINE = {
    "permuted": lambda g: g.flip(0),
    "factor 1.1": lambda g: 1.1 * g,
    "factor 1.001": lambda g: 1.001 * g,
    "one element": lambda g: torch.where(torch.arange(g.numel()).reshape(g.shape) == 1, 0.0, g),
}


def outcome(check, *arguments, **options) -> str:
    """What an assertion says: "passes", "caught" or "undecided"."""
    try:
        check(*arguments, **options)
    except AssertionError as error:
        return "caught" if "power          notices" in str(error) else "not said"
    except ro.UndecidedError:
        return "undecided"
    return "passes"


def asserted(actual, problem, **options) -> str:
    function, inputs = problem
    return outcome(assert_within_roundoff, actual, function, inputs, loss=squares, **options)


def exact_rounded(problem, format: str):
    """The exact gradients, rounded to the format once: right on every machine."""
    function, inputs = problem
    found = ro.reference_gradients(function, inputs, loss=squares, format=format)
    return {name: each.hi.to(getattr(torch, format)) for name, each in found.items()}


def cases(problem, format, accumulate=None):
    """Per gradient and for the output: the exact one rounded once, and a check of it."""
    function, inputs = problem
    target = ro.as_format(format)
    problem = Problem(function, inputs, loss=squares, forward=True)
    trace, rounded = problem.trace(target), problem.rounded(target)
    of = remembered(trace, rounded, target, 1e-9, accumulate, predicted=True)
    for name, known in of.items():
        gradient = torch.from_numpy(known.high).to(target.torch_dtype)

        def check(actual, kind="probabilistic", name=name, known=known) -> str:
            values = actual.double().numpy()

            def judged() -> None:
                if not testing._check(name, values, known, kind, target):
                    raise ro.UndecidedError("no power")

            return outcome(judged)

        yield known, gradient, check


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("layer", PROBLEMS)
def test_no_gross_fault_passes(layer, format) -> None:
    """By all tolerances, with and without float32 sums: a fault is caught, or nothing can be."""
    for accumulate in (None, format, "float32") if format in ("float16", "bfloat16") else (None,):
        for _, gradient, check in cases(PROBLEMS[layer], format, accumulate):
            for kind in testing.KINDS:
                honest = check(gradient, kind)
                assert honest in ("passes", "undecided")
                assert honest == "passes" or format in ("float16", "bfloat16")
                for fault, plant in GROSS.items():
                    found = check(plant(gradient), kind)
                    assert found == "caught" or found == honest == "undecided", (fault, kind)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("layer", PROBLEMS)
def test_a_fault_passes_only_where_it_is_within_the_stated_power(layer, format) -> None:
    u = ro.as_format(format).u
    for known, gradient, check in cases(PROBLEMS[layer], format):
        power = power_of(known.high, known.terms, known.likely)
        for fault, plant in FINE.items():
            planted = plant(gradient)
            found = check(planted)
            error = np.abs(planted.double().numpy() - known.high)
            assert (found == "caught") == bool((error > known.likely * (1 + 2.0**-20)).any())
            if fault.startswith("factor"):
                assert found != "passes" or power.factor > float(fault.split()[1]) * (1 - 4 * u)


def test_float32_sums_catch_what_sums_in_16_bits_cannot() -> None:
    for layer in ("linear, 256 rows", "linear, 4096 rows", "conv, 16 to 16"):
        for _, gradient, check in cases(PROBLEMS[layer], "bfloat16", "float32"):
            assert check(gradient) == "passes"
            assert {check(plant(gradient)) for plant in GROSS.values()} == {"caught"}


def test_a_check_without_power_says_why_and_what_to_do() -> None:
    function, inputs = PROBLEMS["linear, 4096 rows"]
    good = exact_rounded((function, inputs), "bfloat16")["weight"]
    narrow = {"accumulate": "bfloat16"}
    likely = {**narrow, "kind": "probabilistic"}
    assert asserted({"weight": good}, (function, inputs), **likely) == "undecided"
    assert asserted({"weight": good}, (function, inputs), accumulate="float32") == "passes"
    assert asserted({"weight": good}, (function, inputs), **narrow) == "passes", "predicted"
    for plant in GROSS.values():
        assert asserted({"weight": plant(good)}, (function, inputs), **narrow) == "caught"
    for actual in (good, 0 * good):
        with pytest.raises(ro.UndecidedError) as caught:
            assert_within_roundoff(
                {"weight": actual}, function, inputs, loss=squares, kind="certified", **narrow
            )
        text = str(caught.value)
        assert not isinstance(caught.value, AssertionError)
        for words in ("'weight' cannot be judged in bfloat16", "zeros would pass",
                      'accumulate="float32" if', ", or float", "leave 'weight' out"):  # fmt: skip
            assert words in text
        assert 'kind="predicted"' in text and "probabilistic" not in text, (
            "that bound says as little"
        )
    # What is certainly wrong is said to be wrong.
    with pytest.raises(AssertionError, match="notices no factor, not even 0, no dropped term"):
        assert_within_roundoff({"weight": 1e6 * good}, function, inputs, loss=squares, **likely)


def test_an_exact_gradient_of_zero_is_checked() -> None:
    """There is nothing that a factor would change; a constant is noticed."""
    inputs = {"bias": torch.ones(3), "x": normal(8, 3, seed=5)}

    def centred(bias, x):
        out = x + bias
        return out - out.mean(0)

    loss = lambda out: (out**3).sum()
    assert_within_roundoff({"bias": torch.zeros(3)}, centred, inputs, ("bias",), loss)
    with pytest.raises(AssertionError):
        assert_within_roundoff({"bias": torch.full((3,), 0.01)}, centred, inputs, ("bias",), loss)


def test_the_power_is_kept_for_the_summary() -> None:
    testing.usages.clear()
    function, inputs = PROBLEMS["linear, 3 rows"]
    good = exact_rounded((function, inputs), "float32")
    assert_within_roundoff(good, function, inputs, loss=squares)
    testing.assert_same_function(function, function, inputs, loss=squares)
    taken = [(usage.name, usage.factor) for usage in testing.usages]
    testing.usages.clear()
    assert [name for name, _ in taken] == [*good, "output", *good]
    assert all(1 < factor < 1.001 for _, factor in taken)


NUMBERS = st.one_of(st.just(0.0), st.floats(1e-6, 1e6), st.floats(-1e6, -1e-6))


@given(
    st.lists(
        st.tuples(NUMBERS, st.one_of(st.just(0.0), st.floats(1e-9, 1e6))), min_size=1, max_size=6
    )
)
@settings(max_examples=300, deadline=None)
def test_factors_beyond_the_power_are_noticed_whatever_the_error(elements) -> None:
    exact, tolerance = (np.array(side) for side in zip(*elements, strict=True))
    power = power_of(exact, np.abs(exact), tolerance)
    pairs = [(Fraction(e), Fraction(t)) for e, t in zip(exact, tolerance, strict=True)]

    def noticed(factor: Fraction) -> bool:
        """With the errors that hide the factor best, as large as they may be."""
        hiding = [min(t, max(-t, e / factor - e)) if factor else Fraction(0) for e, t in pairs]
        return any(abs(factor * (e + d) - e) > t for (e, t), d in zip(pairs, hiding, strict=True))

    if np.isfinite(power.factor):
        above = Fraction(power.factor) * (1 + Fraction(2) ** -40)
        assert all(map(noticed, (above, 2 * above, 1 / above, Fraction(0), -above, -1 / above)))
        below = 1 + (Fraction(power.factor) - 1) * (1 - Fraction(2) ** -20)
        assert power.factor < 1 + 1e-6 or not (noticed(below) or noticed(1 / below))
    else:
        assert not noticed(Fraction(0))


def test_swaps_and_terms() -> None:
    exact, tolerance = (
        np.array([1.0, 2.0, 2.25, np.nan, 9.0]),
        np.array([0.25, 0.25, 0.25, 0.25, 0.25]),
    )
    found = power_of(exact, np.array([1.0, 4.0, 5.0, 1.0, np.nan]), tolerance)
    assert (found.swaps, found.term) == (0.25, 0.1)
    assert found.factor == pytest.approx(9.25 / 8.75, rel=2.0**-40) and found.factor >= 9.25 / 8.75
    nothing = power_of(np.zeros(0), np.zeros(0), np.zeros(0))
    assert (nothing.swaps, nothing.term, nothing.factor) == (0.0, np.inf, np.inf)
    assert str(power_of(np.ones(2), np.ones(2), np.zeros(2))).startswith("any factor, any term")


@pytest.mark.parametrize("factor", [1 + 2.0**-52, 1.0000123, 1.5, 1.999, 2.0, 3.21, 1e9])
def test_printed_factors_are_not_below(factor) -> None:
    shown = float(factor_in_words(factor).split()[-1])
    assert factor <= shown and shown - 1 <= (factor - 1) * 1.12 + 1e-15


def scalar_of(format, value=1.0):
    return torch.tensor(value, dtype=getattr(torch, format))


UNIFORM = np.random.default_rng(1).uniform(0.5, 1.5, 720).tolist()
STEPS = [1 + k / 3000 for k in range(3000)]


@pytest.mark.parametrize(
    ("function", "values", "format", "options", "expected"),
    [
        # Amplified in every step: a format is wide enough or not, where sums are kept does not matter.
        (lambda x: (40 * x).exp().exp().sum(), [0.085, 0.08], "bfloat16", {}, {"float32"}),
        (lambda x: (2e7 * x - 2e7).exp().sum(), [1.000001, 1.0], "float32", {}, {"float64"}),
        # Not even float64 tells.
        (lambda x: (1e16 * x - 1e16 * (1 + 2**-20)).exp().sum(), [1 + 2**-20], "float32", {}, set()),
        (lambda x: (1e16 * x - 1e16 * (1 + 2**-20)).exp().sum(), [1 + 2**-20], "float64", {}, set()),
        # Long sums in a narrow format.
        (lambda x: x.sum(), STEPS, "bfloat16", {"accumulate": "bfloat16", "kind": "probabilistic"},
         {"accumulate", "float32", "kind="}),
        (lambda x: (x * x).sum(), UNIFORM, "float16", {"accumulate": "float16", "kind": "certified"},
         {"accumulate", "float32", "kind="}),
    ],
)  # fmt: skip
def test_a_remedy_is_named_where_it_helps_and_nowhere_else(
    function, values, format, options, expected
) -> None:
    inputs = {"x": torch.tensor(values, dtype=torch.float64)}

    def asked(format, **options):
        exact = float(ro.tolerance(function, inputs, format=format)["output"].exact)
        assert_within_roundoff(scalar_of(format, exact), function, inputs, **options)

    with pytest.raises(ro.UndecidedError) as caught:
        asked(format, **options)
    text = str(caught.value)
    remedies = text.split("might pass; ")[-1].split("would pass; ")[-1]
    remedies = remedies.replace('accumulate="float32"', "accumulate")
    named = {word for word in ("kind=", "accumulate", "float32", "float64") if word in remedies}
    assert named == expected, text
    kind = {name: value for name, value in options.items() if name == "kind"}
    for other in {"float32", "float64"} & named:
        asked(other, **kind)
    if "kind=" in named:
        asked(format, **{**options, "kind": remedies.split('kind="')[1].split('"')[0]})
    if "accumulate" in named:
        asked(format, **kind, accumulate="float32")
    assert named or "check a part of the function" in text


def test_a_tolerance_that_lets_twice_the_gradient_pass_has_no_power() -> None:
    """(|e| + t) / (|e| - t) is 2 at t = |e| / 3; one element that notices is enough."""
    ((known, gradient, _), *_) = cases(PROBLEMS["linear, 3 rows"], "float32")
    target = ro.FLOAT32
    for part, power in ((0.99, True), (1.01, False)):
        wide = replace(known, likely=part / 3 * np.abs(known.high))
        assert (
            testing._check("x", gradient.double().numpy(), wide, "probabilistic", target) is power
        )
    size = np.abs(known.high)
    size.flat[0] /= 2
    assert testing._check(
        "x",
        gradient.double().numpy(),
        replace(known, likely=1.01 / 3 * size),
        "probabilistic",
        target,
    )
