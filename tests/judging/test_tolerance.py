"""Tolerances as (rtol, atol): every element is covered, in exact arithmetic and as printed, and no pair is tighter."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import roundoff as ro
from roundoff.gradients.bounds import rounded_up, rtol_atol

GENERATOR = np.random.default_rng(8)
INPUTS = {name: torch.from_numpy(GENERATOR.standard_normal((5, 5))).float() for name in ("w", "x")}


def covers(rtol, atol, bound, exact) -> bool:
    return all(
        Fraction(rtol) * abs(Fraction(e)) + Fraction(atol) >= 2 * Fraction(b)
        for b, e in zip(bound, exact, strict=True)
    )


def least_mean(bound, exact) -> Fraction:
    """The smallest mean of rtol |exact| + atol of all pairs that cover: at a corner of what they satisfy.

    A corner lies on two of the lines rtol |exact_i| + atol = 2 bound_i, rtol = 0 and atol = 0.
    """
    points = {(abs(Fraction(e)), 2 * Fraction(b)) for b, e in zip(bound, exact, strict=True)}
    lines = [(x, Fraction(1), y) for x, y in points]
    lines += [(Fraction(1), Fraction(0), Fraction(0)), (Fraction(0), Fraction(1), Fraction(0))]
    middle = sum(abs(Fraction(e)) for e in exact) / len(exact)
    found = []
    for (a, b, c), (d, e, f) in itertools.combinations(lines, 2):
        determinant = a * e - b * d
        if determinant == 0:
            continue
        rtol, atol = (c * e - b * f) / determinant, (a * f - c * d) / determinant
        if rtol >= 0 and atol >= 0 and all(rtol * x + atol >= y for x, y in points):
            found.append(rtol * middle + atol)
    return min(found)


SIZES = st.one_of(
    st.sampled_from([0.0, 1.0, 2.0, 3.0, 1e-3]),
    st.floats(-1e3, 1e3, allow_subnormal=False),
    st.floats(1e-6, 1e6).map(lambda x: -x),
)
BOUNDS = st.one_of(st.sampled_from([0.0, 1.0, 0.5, 2.0]), st.floats(0, 1e3, allow_subnormal=False))


@given(st.lists(st.tuples(BOUNDS, SIZES), min_size=1, max_size=7))
@settings(max_examples=400, deadline=None)
def test_the_pair_covers_and_no_pair_is_tighter(elements) -> None:
    bound, exact = (np.array(side) for side in zip(*elements, strict=True))
    rtol, atol = rtol_atol(bound, exact)
    assert rtol >= 0 and atol >= 0 and covers(rtol, atol, bound, exact)
    mean = Fraction(rtol) * sum(map(abs, map(Fraction, exact))) / len(exact) + Fraction(atol)
    least = least_mean(bound, exact)
    assert least <= mean <= least * (1 + Fraction(2) ** -44) + Fraction(2) ** -1060
    assert mean <= 2 * Fraction(bound.max()) * (1 + Fraction(2) ** -44) + Fraction(2) ** -1060
    printed = float(rounded_up(rtol)), float(rounded_up(atol))
    assert covers(*printed, bound, exact)


@pytest.mark.parametrize("exponent", [-1074, -1060, -1022, -500, 0, 500, 900])
def test_pairs_cover_at_every_size(exponent) -> None:
    exact = np.ldexp(GENERATOR.standard_normal(200), exponent)
    for of in (np.abs(exact), np.full(200, 2.0**exponent), np.ldexp(GENERATOR.random(200), -1040)):
        for part in (2.0**-20, 1.0, 2.0**30):
            bound = of * part
            assert covers(*rtol_atol(bound, exact), bound, exact)


def test_many_elements_against_the_linear_program_of_scipy() -> None:
    from scipy.optimize import linprog

    for spread in (0, 1, 3):
        exact = GENERATOR.standard_normal(1000) * 10.0 ** (spread * GENERATOR.standard_normal(1000))
        bound = np.abs(exact) * GENERATOR.random(1000) + GENERATOR.random(1000)
        rtol, atol = rtol_atol(bound, exact)
        mean = np.abs(exact).mean()
        rows = -np.stack([np.abs(exact), np.ones(1000)], axis=1)
        least = linprog([mean, 1.0], A_ub=rows, b_ub=-2 * bound).fun
        assert rtol * mean + atol == pytest.approx(least, rel=1e-6)
        assert covers(rtol, atol, bound, exact)


def test_plain_cases() -> None:
    assert rtol_atol(np.array([0.25]), np.array([0.0])) == (0.0, 0.5)
    assert rtol_atol(np.zeros(3), np.array([0.0, 1.0, -2.0])) == (0.0, 0.0)
    assert rtol_atol(np.array([]), np.array([])) == (0.0, 0.0)
    rtol, atol = rtol_atol(np.array([1.0, 2.0]), np.array([-4.0, 8.0]))
    assert rtol == pytest.approx(0.5, rel=2.0**-40) and atol == 0.0
    # An element that is small beside its tolerance sets no rtol for the others.
    assert rtol_atol(np.array([1.0, 1.0, 1.0]), np.array([1e-9, 1.0, 10.0])) == (0.0, 2.0)
    for infinite in (np.inf, 1.7e308, np.nan):
        with pytest.raises(ro.ArgumentError, match="wider format"):
            rtol_atol(np.array([infinite]), np.ones(1))


@given(st.floats(0.0, allow_infinity=False), st.integers(1, 6))
@settings(max_examples=300, deadline=None)
def test_what_is_printed_is_the_next_decimal_above(value, digits) -> None:
    text = rounded_up(value, digits)
    assert float(text) >= value
    if 1e-300 < value < 1e300:
        below = Fraction(text) - Fraction(10) ** (math.floor(math.log10(value)) - digits + 1)
        assert below < Fraction(value) * (1 + Fraction(10) ** -12)
    assert len(text.split("e")[0].replace(".", "").lstrip("0")) <= max(
        digits, len(text.split(".")[0])
    )


def attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def layer_norm(x, w, b):
    return F.layer_norm(x, (16,), w, b)


def group_norm(x, w, b):
    return F.group_norm(x, 4, w, b)


SHAPES = {
    attention: {"q": (1, 2, 6, 4), "k": (1, 2, 6, 4), "v": (1, 2, 6, 4)},
    layer_norm: {"x": (4, 16), "w": (16,), "b": (16,)},
    group_norm: {"x": (2, 8, 5), "w": (8,), "b": (8,)},
}


@pytest.mark.parametrize("function", SHAPES)
def test_pairs_of_layers_are_no_larger_than_their_largest_tolerance(function) -> None:
    inputs = {
        name: torch.from_numpy(GENERATOR.standard_normal(shape)).float()
        for name, shape in SHAPES[function].items()
    }
    found = ro.tolerance(function, inputs, loss=lambda out: (out * out).sum())
    for each in found.values():
        for kind in ("certified", "probabilistic", "empirical"):
            limit = getattr(each, kind)
            rtol, atol = each.pair(kind)
            assert covers(rtol, atol, limit.ravel(), each.exact.ravel())
            assert np.mean(rtol * np.abs(each.exact) + atol) <= 2 * limit.max() * (1 + 2.0**-40)
    assert len(str(found).splitlines()) == len(found) == len(repr(found).splitlines())
    assert all(
        line.startswith(f"{name}, float32: rtol=")
        for name, line in zip(found, str(found).splitlines(), strict=True)
    )


def product(w, x):
    return w @ x


PROBLEM = dict(inputs=INPUTS, wrt=("w",), loss=lambda out: (out * out).sum())


def test_tolerances_hold_and_their_pairs_follow() -> None:
    for format in ("float32", "float64"):
        found = ro.tolerance(product, **PROBLEM, format=format)
        native = ro.native_gradients(product, **PROBLEM, format=format)["w"]
        each = found["w"]
        error = np.abs(native - each.exact)  # the low parts are below the tolerances
        for kind in ("certified", "probabilistic", "empirical"):
            limit = getattr(each, kind)
            assert (error <= limit * (1 + 2.0**-20)).all()
            rtol, atol = each.pair(kind)
            assert covers(rtol, atol, limit.ravel(), each.exact.ravel())
        assert (each.probabilistic <= each.certified).all()
        assert each.rtol == each.pair()[0] and each.atol == each.pair()[1]
        assert "rtol=" in str(each) and "empirical" in str(each) and "\n" not in repr(each)
        with pytest.raises(ro.ArgumentError, match="'likely'; use one of: certified"):
            each.pair("likely")


def test_a_baseline_that_overflows_is_no_baseline() -> None:
    def squared(x):
        return (x * x).sqrt() * 2.0**-3

    found = ro.tolerance(squared, {"x": torch.full((3,), 2.0**100)}, loss=lambda out: out.sum())
    assert np.isinf(found["output"].empirical).all() and np.isfinite(found["output"].exact).all()
    assert "no pair: the empirical tolerance is infinite" in str(found["output"])


def test_a_pair_that_tells_nothing_says_so() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 64))).float()
    for function, wide in (
        (lambda x: x * x, False),
        (lambda x: (x.exp() - x.exp()) * 3 + x * 0, True),
    ):
        text = str(ro.tolerance(function, {"x": x}, loss=lambda out: out.sum(), format="bfloat16"))
        assert ("too wide, it notices no factor" in text) == wide, text
