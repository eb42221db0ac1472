"""Every map in every arithmetic: none is missing, none falls through to another's rule; S by its definition."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest
from elementary import ELEMENTARY, by_mpmath
from mpmath.libmp import fone, mpf_abs, mpf_add, mpf_mul

import roundoff as ro
from roundoff.arithmetic import walk
from roundoff.arithmetic.ball import Ball
from roundoff.arithmetic.condition_scale import Scale, Scaled
from roundoff.arithmetic.expected import Expected
from roundoff.arithmetic.literal_errors import ROUNDING, Literals
from roundoff.arithmetic.multiprecision import Multiprecision
from roundoff.arithmetic.multiword import Multiword
from roundoff.arithmetic.running import Running
from roundoff.arithmetic.simulated import Simulated
from roundoff.arithmetic.ties import Ties
from roundoff.bounds.theorems import RMS_ROUNDING
from roundoff.gradients.reference.rounding import nearest
from roundoff.trace.functions import FUNCTIONS, Function, Kind, high_precision, slopes
from roundoff.trace.steps import Builder, Map, Trace

X = np.array([0.25, 0.5, 0.75])
Y = np.array([0.5, 0.3125, 0.75])

ARITHMETICS: dict[str, Any] = {
    "multiprecision": lambda trace: Multiprecision(100),
    "balls": lambda trace: Ball(100),
    "words": lambda trace: Multiword(2),
    "S": lambda trace: Scale(),
    "ties": lambda trace: Ties(),
    "bounds": lambda trace: Running("float32"),
    "bounds of an order": lambda trace: Running("float32", "pairwise"),
    "expected": lambda trace: Expected("float32"),
    "simulated": lambda trace: Simulated("float32"),
    "literals": lambda trace: Literals(trace, 0),
}


def trace_of(name: str) -> Trace:
    """One map of x and y; comparisons and logic choose between them, so that the output is a number."""
    build = Builder()
    x, y = build.input("x", (3,)), build.input("y", (3,))
    larger = build.map("gt", x, y)
    if name.startswith("logical"):
        given = [larger, build.map("lt", x, y)][: FUNCTIONS[name].arity]
    elif name == "where":
        given = [larger, x, y]
    else:
        given = [x, y][: FUNCTIONS[name].arity]
    found = build.map(name, *given)
    if FUNCTIONS[name].boolean:
        found = build.map("where", found, x, y)
    return Trace(tuple(build.steps), {"out": found})


def numbers(value: Any) -> np.ndarray:
    """Whatever an arithmetic's values are, as float64."""
    for field in ("value", "words"):
        value = getattr(value, field, value)
    if isinstance(value, tuple):
        value = value[0]
    flat = np.asarray(value).ravel()
    return np.array([nearest(v) if isinstance(v, tuple) else float(v) for v in flat])


def expected_of(name: str) -> np.ndarray:
    if name == "cast":
        return X
    function = FUNCTIONS[name]
    if name.startswith("logical"):
        found = function.float64(*[X > Y, X < Y][: function.arity])
    elif name == "where":
        found = np.where(X > Y, X, Y)
    else:
        found = function.float64(*[X, Y][: function.arity])
    return np.where(found, X, Y) if function.boolean else found


@pytest.mark.parametrize("kind", ARITHMETICS)
@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n != "special_zeta"])  # of a whole number
def test_every_arithmetic_carries_out_every_map(name, kind) -> None:
    trace = trace_of(name)
    inputs = {"x": X, "y": Y}
    if kind == "simulated":
        inputs = {key: value[None] for key, value in inputs.items()}
        found = walk(trace, ARITHMETICS[kind](trace), inputs, trials=True)["out"]
    else:
        if FUNCTIONS[name].kind in (Kind.COMPARISON, Kind.EXTREME) and kind == "balls":
            inputs["y"] = np.array([0.5, 0.3125, 0.875])  # a tie of balls of radius zero is decided
        found = walk(trace, ARITHMETICS[kind](trace), inputs)["out"]
    np.testing.assert_allclose(numbers(found)[:2], expected_of(name)[:2], rtol=2.0**-22)


@pytest.mark.parametrize("kind", ARITHMETICS)
def test_a_function_without_record_is_refused_in_a_sentence(kind) -> None:
    build = Builder()
    x = build.input("x", (3,))
    trace = Trace((*build.steps, Map((3,), "cube", (x,))), {"out": 1}, {"x": X / 3})
    with pytest.raises(ro.UnsupportedError, match="'cube'; write its record in"):
        walk(trace, ARITHMETICS[kind](trace), {"x": X / 3})


# ------------------------------------------------------------------------------ a new function

SOFTSIGN = Function(
    "softsign", 1, Kind.ELEMENTARY, "all", ulp=2.0,
    float64=lambda x: x / (1.0 + np.abs(x)), float64_ulp=2.0, limits=False,
    mpmath=lambda x, bits: high_precision.quotient(x, mpf_add(fone, mpf_abs(x)), bits),
    arb=lambda x: x / (1 + abs(x)),
    slopes=(lambda x, y: 1.0 / (1.0 + np.abs(x)) ** 2,),
    steepest=(lambda low, high: 1.0 / (1.0 + slopes.near(low, high)) ** 2,),
)  # fmt: skip

DISTANCE = Function(
    "distance", 2, Kind.ELEMENTARY, "all", ulp=1.0,
    float64=np.hypot, float64_ulp=4.0, limits=True,
    mpmath=lambda x, y, bits: high_precision.root(mpf_add(mpf_mul(x, x), mpf_mul(y, y)), bits),
    arb=lambda x, y: (x * x + y * y).sqrt(),
    slopes=(lambda x, y, z: x / z, lambda x, y, z: y / z),
    steepest=(
        lambda *ends: (far := slopes.far(*ends[:2])) / np.hypot(far, slopes.near(*ends[2:])),
        lambda *ends: (far := slopes.far(*ends[2:])) / np.hypot(far, slopes.near(*ends[:2])),
    ),
)  # fmt: skip


@pytest.fixture(params=[SOFTSIGN, DISTANCE], ids=lambda function: function.name)
def added(request, monkeypatch) -> str:
    monkeypatch.setitem(FUNCTIONS, request.param.name, request.param)
    return request.param.name


@pytest.mark.parametrize("kind", ARITHMETICS)
def test_a_record_is_all_that_arithmetics_need_of_a_new_function(added, kind) -> None:
    test_every_arithmetic_carries_out_every_map(added, kind)


@pytest.mark.parametrize("format", ["bfloat16", "float32", "float64"])
def test_bounds_and_derivatives_of_a_new_function_hold(added, format) -> None:
    """Of operands that carry errors: values with their radii, computed results, S, the model, literals."""
    n, rng, function = 200, np.random.default_rng(1), FUNCTIONS[added]
    build = Builder()
    x, y = build.input("x", (n,)), build.input("y", (n,))
    operands = [build.map("mul", x, y), build.map("add", x, y)][: function.arity]
    outputs = {"out": len(build.steps), **{f"operand {k}": at for k, at in enumerate(operands)}}
    trace = Trace((*build.steps, Map((n,), added, tuple(operands))), outputs)
    inputs = {
        name: ro.round_to(rng.standard_normal(n) * 2.0 ** rng.integers(-8, 8, n), format)
        for name in ("x", "y")
    }
    engines = (Multiprecision(200), Ball(300), Multiword(3), Running(format))
    exact, ball, words, found = (walk(trace, engine, inputs)["out"] for engine in engines)
    computed = walk(trace, Simulated(format), {k: v[None] for k, v in inputs.items()}, trials=True)
    own, error = (np.broadcast_to(radius, n) for radius in (found.own, found.error))
    radius = np.broadcast_to(words.radius, n)
    ratios = []
    with mpmath.workprec(400):
        for k in range(n):
            truth = mpmath.mp.make_mpf(exact[k])
            near = abs(truth) * mpmath.mpf(2) ** -190
            assert abs(mpmath.mpf(ball[k].mid().str(120, radius=False)) - truth) <= near
            total = sum(mpmath.mpf(float(word[k])) for word in words.words)
            assert abs(total - truth) <= radius[k] + near and radius[k] <= abs(truth) * 2.0**-140
            assert abs(mpmath.mpf(found.value[k]) - truth) <= own[k] <= abs(truth) * 2.0**-47
            ratios.append(float(abs(mpmath.mpf(computed["out"][k, 0]) - truth) / error[k]))
    assert 0.05 < max(ratios) <= 1.0
    scale, *scales = walk(trace, Scale(), inputs).values()
    model, *models = walk(trace, Expected(format), inputs).values()
    by = [np.abs(slope(*(m.value for m in models), model.value)) for slope in function.slopes]
    once = (RMS_ROUNDING * ro.as_format(format).u * model.value) ** 2
    variance = once + sum(f**2 * m.variance for f, m in zip(by, models, strict=True))
    np.testing.assert_allclose(model.variance, variance, rtol=2.0**-40)
    moved = sum(f * s.scale for f, s in zip(by, scales, strict=True))
    np.testing.assert_allclose(scale.scale, np.maximum(np.abs(model.value), moved), rtol=2.0**-40)
    literal = Trace(trace.steps, trace.outputs, {"y": np.full(n, 0.3)})
    shift = walk(literal, Literals(literal, 0), {"x": inputs["x"]})["out"].shift
    with mpmath.workprec(400):
        up, down = (
            walk(trace, Multiprecision(200), {**inputs, "y": np.full(n, 0.3 * (1 + step))})["out"]
            for step in (2.0**-30, -(2.0**-30))
        )
        gaps = [
            mpmath.mp.make_mpf(a) - mpmath.mp.make_mpf(b) for a, b in zip(up, down, strict=True)
        ]
    slope = np.abs(np.array(gaps, np.float64)) * 2.0**29
    np.testing.assert_allclose(np.abs(shift), slope * ROUNDING, rtol=2.0**-20)


# --------------------------------------------------------------------------------------------- S


def scaled(name: str, *operands: Scaled) -> Scaled:
    return Scale().map(Map((1,), name, tuple(range(len(operands)))), operands)


def of(value: float, size: float, terms: float = 0.0) -> Scaled:
    return Scaled(np.array([value]), np.array([size]), np.array([terms]))


def test_s_of_sums_products_quotients_and_powers() -> None:
    a, b = of(-3.0, 7.0, 5.0), of(2.0, 11.0, 13.0)
    cases = {
        "add": (18.0, 18.0), "sub": (18.0, 18.0), "mul": (77.0, 6.0),
        "div": (7 / 2 + 3 * 11 / 4, 1.5), "maximum": (11.0, 2.0), "minimum": (7.0, 3.0),
    }  # fmt: skip
    for name, (size, terms) in cases.items():
        found = scaled(name, a, b)
        assert found.scale[0] == size and found.terms[0] == terms, name
    assert scaled("div", b, of(-4.0, 8.0)).scale[0] == 11 / 4 + 2 * 8 / 16
    for name in ("neg", "abs"):
        assert scaled(name, a).scale[0] == 7.0 and scaled(name, a).terms[0] == 5.0
    chosen = Scaled(np.array([True]), np.array([1.0]), np.array([1.0]))
    assert scaled("where", chosen, a, b).scale[0] == 7.0
    assert scaled("sign", a).scale[0] == 1.0 and scaled("gt", a, b).scale[0] == 0.0
    power = scaled("pow", of(3.0, 5.0), of(2.0, 7.0)).scale[0]
    assert power == pytest.approx(2 * 3 * 5 + 9 * np.log(3) * 7, rel=8 * 2.0**-53)
    assert scaled("pow", of(3.0, 0.0), of(2.0, 0.0)).scale[0] == 9.0


@pytest.mark.parametrize("name", ELEMENTARY)
def test_s_of_functions_is_the_slope_times_s_and_at_least_the_value(name) -> None:
    function = by_mpmath(name)
    for x in (0.3, 0.7, -0.6):
        if x < FUNCTIONS[name].domain[0]:
            continue
        with mpmath.workprec(200):
            slope = float(abs(mpmath.diff(function, mpmath.mpf(x))))
            value = float(abs(function(mpmath.mpf(x))))
        (by_x,) = FUNCTIONS[name].slopes
        assert float(by_x(np.float64(x), FUNCTIONS[name].float64(x))) == pytest.approx(
            float(mpmath.diff(function, x)), rel=1e3 * 2.0**-53
        )
        large = scaled(name, of(x, 1000.0))
        assert large.scale[0] == pytest.approx(1000 * slope, rel=64 * 2.0**-53)
        assert scaled(name, of(x, 0.0)).scale[0] == pytest.approx(value, rel=64 * 2.0**-53)
        assert large.terms[0] == pytest.approx(value, rel=64 * 2.0**-53)
