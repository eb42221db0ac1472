"""Every map in every arithmetic: none is missing, none falls through to another's rule; S by its definition."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import pytest

import roundoff as ro
from roundoff.arithmetic import condition_scale, walk
from roundoff.arithmetic.ball import Ball
from roundoff.arithmetic.condition_scale import FUNCTIONS, RULES, SLOPES, Scale, Scaled
from roundoff.arithmetic.expected import Expected
from roundoff.arithmetic.literals import Literals
from roundoff.arithmetic.multiprecision import Multiprecision
from roundoff.arithmetic.multiword import Multiword
from roundoff.arithmetic.running import Running
from roundoff.arithmetic.simulated import Simulated
from roundoff.arithmetic.ties import Ties
from roundoff.gradients.reference.rounding import nearest
from roundoff.trace.steps import BOOLEAN, MAPS, Builder, Map, Trace

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
        given = [larger, build.map("lt", x, y)][: MAPS[name].arity]
    elif name == "where":
        given = [larger, x, y]
    else:
        given = [x, y][: MAPS[name].arity]
    found = build.map(name, *given)
    if name in BOOLEAN:
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
    if name.startswith("logical"):
        found = FUNCTIONS[name](*[X > Y, X < Y][: MAPS[name].arity])
    elif name == "where":
        found = np.where(X > Y, X, Y)
    else:
        found = FUNCTIONS[name](*[X, Y][: MAPS[name].arity])
    return np.where(found, X, Y) if name in BOOLEAN else found


@pytest.mark.parametrize("kind", ARITHMETICS)
@pytest.mark.parametrize("name", MAPS)
def test_every_arithmetic_carries_out_every_map(name, kind) -> None:
    trace = trace_of(name)
    inputs = {"x": X, "y": Y}
    if kind == "simulated":
        inputs = {key: value[None] for key, value in inputs.items()}
        found = walk(trace, ARITHMETICS[kind](trace), inputs, trials=True)["out"]
    else:
        if name in ("gt", "ge", "lt", "le", "eq", "ne", "maximum", "minimum") and kind == "balls":
            inputs["y"] = np.array([0.5, 0.3125, 0.875])  # a tie of balls of radius zero is decided
        found = walk(trace, ARITHMETICS[kind](trace), inputs)["out"]
    np.testing.assert_allclose(numbers(found)[:2], expected_of(name)[:2], rtol=2.0**-22)


def test_all_maps_have_a_rule_for_s_and_no_rule_is_idle() -> None:
    assert set(RULES) == set(MAPS) - {"cast"} == set(FUNCTIONS)
    assert set(SLOPES) <= set(MAPS)
    assert {n for n in RULES if RULES[n] is RULES["sign"]} == {"sign", *BOOLEAN}


@pytest.mark.parametrize("kind", ARITHMETICS)
def test_a_function_that_an_arithmetic_does_not_know_is_no_other_one(kind, monkeypatch) -> None:
    monkeypatch.setitem(condition_scale.FUNCTIONS, "cube", lambda x: x * x * x)
    build = Builder()
    x = build.input("x", (3,))
    trace = Trace((*build.steps, Map((3,), "cube", (x,))), {"out": 1}, {"x": X / 3})
    if kind == "simulated":  # rounds whatever float64 computes
        return
    with pytest.raises((ro.RoundoffError, KeyError), match="cube"):
        walk(trace, ARITHMETICS[kind](trace), {"x": X / 3})


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


@pytest.mark.parametrize("name", SLOPES)
def test_s_of_functions_is_the_slope_times_s_and_at_least_the_value(name) -> None:
    f = {
        "gelu_erf": mpmath.erf,
        "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
        "log2": lambda x: mpmath.log(x, 2),
    }
    function = f.get(name) or getattr(mpmath, name)
    for x in (0.3, 0.7, -0.6):
        if x < 0 and name in ("sqrt", "log", "log2", "log10"):
            continue
        with mpmath.workprec(200):
            slope = float(abs(mpmath.diff(function, mpmath.mpf(x))))
            value = float(abs(function(mpmath.mpf(x))))
        assert float(SLOPES[name](np.float64(x), np.float64(FUNCTIONS[name](x)))) == pytest.approx(
            float(mpmath.diff(function, x)), rel=1e3 * 2.0**-53
        )
        large = scaled(name, of(x, 1000.0))
        assert large.scale[0] == pytest.approx(1000 * slope, rel=64 * 2.0**-53)
        assert scaled(name, of(x, 0.0)).scale[0] == pytest.approx(value, rel=64 * 2.0**-53)
        assert large.terms[0] == pytest.approx(value, rel=64 * 2.0**-53)
