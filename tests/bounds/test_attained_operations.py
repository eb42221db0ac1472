"""Bounds on operations from below: errors that a machine may make, beside the bound that must not be smaller."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
from elementary import ELEMENTARY, by_mpmath

from roundoff.arithmetic.enclosed import Enclosed, compared, extreme, propagated, selected, sign_of
from roundoff.arithmetic.running import Running
from roundoff.numbers.formats import Format, round_to
from roundoff.trace.functions import FUNCTIONS
from roundoff.trace.steps import Map

P4 = Format("p4", 4, -6, 8)
U = P4.u


def given(*values: float) -> Enclosed:
    return Enclosed(np.array(values), 0.0, 0.0)


def off(values: object, error: float) -> Enclosed:
    value = np.atleast_1d(np.asarray(values, np.float64))
    return Enclosed(value, 0.0, np.full(value.shape, error))


def numbers(target: Format = P4) -> np.ndarray:
    """One binade and the next."""
    return np.arange(2 ** (target.precision - 1), 2 ** (target.precision + 1)) * 2.0 ** (
        1 - target.precision
    )


# ------------------------------------------------------------------------------ one operation


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_one_operation_on_every_pair_of_a_binade(name) -> None:
    """The largest relative error of all products is nearly u/(1+u), and never above the bound."""
    some = numbers()
    some = some[round_to(some, P4) == some]
    a, b = (v.ravel() for v in np.meshgrid(some, some))
    exact = FUNCTIONS[name].float64(a, b)
    error = np.abs(round_to(exact, P4) - exact)
    # A tiny error of the operands makes their values unknown.
    step = Map(a.shape, name, (0, 1))
    rough = Running(P4).map(step, [off(a, 2.0**-60), off(b, 2.0**-60)]).error
    assert (error <= rough).all()
    limit = U / (1 + U) * np.abs(exact)
    assert (rough <= limit * (1 + 2.0**-40) + 2.0**-55).all()
    assert (error[exact != 0] / rough[exact != 0]).max() > 0.88  # of 4 bits
    known = Running(P4).map(step, [given(*a), given(*b)]).error
    assert (error <= known).all() and (np.equal(known, 0) == (error == 0))[
        exact * 64 % 1 == 0
    ].all()


@pytest.mark.parametrize("factor", [0.0, 1.0, -2.0, 0.25])
def test_products_by_powers_of_two_keep_all_bits(factor) -> None:
    a = off(numbers(), 0.01)
    for name in ("mul", "div") if factor else ("mul",):
        found = Running(P4).map(
            Map(a.value.shape, name, (0, 1)), [a, given(*np.full(a.value.shape, factor))]
        )
        scale = abs(factor) if name == "mul" else 1 / abs(factor)
        np.testing.assert_allclose(found.error, 0.01 * scale, rtol=2.0**-40)
        assert np.equal(found.own, 0).all()
    # Not where the result may be subnormal, where the power itself is uncertain, or for any other factor.
    tiny = off([P4.smallest_normal], 2.0**-60)
    step = Map((1,), "mul", (0, 1))
    assert Running(P4).map(step, [tiny, given(0.5)]).error >= P4.smallest_subnormal / 2
    assert Running(P4).map(step, [off([1.5], 0.01), off([2.0], 1e-9)]).error > 0.02 + U
    assert Running(P4).map(step, [off([1.5], 0.01), given(3.0)]).error > 0.03 + U
    both = Running(P4).map(Map((1,), "add", (0, 1)), [off([1.5], 0.01), given(0.0)])
    assert both.error == pytest.approx(0.01, rel=2.0**-40)
    both = Running(P4).map(Map((1,), "add", (0, 1)), [off([0.0], 0.01), given(1.5)])
    assert both.error >= 0.019, "a zero that is none"


def test_a_known_sum_of_the_format_is_exact_and_no_other() -> None:
    step = Map((2,), "add", (0, 1))
    found = Running(P4).map(step, [given(1.0, 1.0), given(2.0**-3, 2.0**-4)])
    assert found.error[0] == 0 and found.error[1] >= 2.0**-4
    assert Running(P4).map(Map((1,), "mul", (0, 1)), [given(1.5), given(1.25)]).error == 0.0
    assert Running(P4).map(Map((1,), "mul", (0, 1)), [given(1.875), given(1.875)]).error > 0
    # Exact in the format as far as float64 can tell: 1 + 2^-60 is not.
    assert Running(P4).map(step, [given(1.0, 1.0), given(2.0**-60, 0.0)]).error[0] > 0


def test_casts_round_once() -> None:
    a = off([1.0], 2.0**-30)
    step = Map((1,), "cast", (0,), "bfloat16")
    narrow = Running("float32").of(step)
    found = narrow.map(step, [a]).error
    assert 2.0**-8 / (1 + 2.0**-8) <= found <= 2.0**-8
    assert narrow.map(step, [given(1.5)]).error == 0
    assert narrow.map(step, [given(1 + 2.0**-8)]).error >= 2.0**-8 * (1 - 2.0**-7)
    step = Map((1,), "cast", (0,), "float32")
    assert 2.0**-30 <= Running("bfloat16").of(step).map(step, [a]).error <= 2.0**-30 + 2.0**-24


# -------------------------------------------------------------------------- two uncertain operands


def corners(name: str, a: Enclosed, b: Enclosed) -> float:
    """The largest error of a function over the corners of two intervals."""
    exact = FUNCTIONS[name].float64(a.value, b.value)
    ends = [(a.value + s * a.error, b.value + t * b.error) for s in (-1, 0, 1) for t in (-1, 0, 1)]
    return float(max(np.abs(FUNCTIONS[name].float64(x, y) - exact).max() for x, y in ends))


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "pow"])
@pytest.mark.parametrize(("e", "f"), [(0.5, 0.25), (0.25, 0.5), (0.0, 0.5), (0.5, 0.0)])
def test_propagated_errors_are_those_of_the_corners(name, e, f) -> None:
    a, b = off([1.5], e), off([1.25], f)
    found = float(propagated(FUNCTIONS[name], (a, b))[1][0])
    worst = corners(name, a, b)
    assert worst * (1 - 2.0**-40) <= found
    if name != "pow":
        assert found <= worst * (1 + 2.0**-40)
    else:
        assert found <= 4 * worst


def test_the_larger_of_two_has_the_error_of_either() -> None:
    for name, sign in (("maximum", 1), ("minimum", -1)):
        for e, f in ((0.05, 0.2), (0.2, 0.05)):
            for low, high in ((1.0, 1.05), (1.05, 1.0)):
                a, b = off([sign * low], e), off([sign * high], f)
                found = float(extreme(FUNCTIONS[name], a, b).error[0])
                assert corners(name, a, b) <= found <= max(e, f)
    apart = extreme(FUNCTIONS["maximum"], off([1.0], 0.1), off([2.0], 0.3))
    assert (
        apart.error == 0.3
        and extreme(FUNCTIONS["minimum"], off([1.0], 0.1), off([2.0], 0.3)).error == 0.1
    )
    own = extreme(FUNCTIONS["maximum"], Enclosed(np.ones(1), np.full(1, 0.3), 0.0), given(1.01))
    assert own.own == 0.3


def test_what_is_selected_may_be_the_other_with_its_error() -> None:
    undecided = Enclosed(np.array([True]), 0.0, np.ones(1))
    for a, b in (((0.0, 0.25), (1.0, 0.5)), ((0.0, 0.5), (1.0, 0.25))):
        found = selected(undecided, off([a[0]], a[1]), off([b[0]], b[1])).error
        assert 1 + b[1] <= found <= (1 + max(a[1], b[1])) * (1 + 2.0**-40)
    decided = Enclosed(np.array([True, False]), 0.0, np.zeros(2))
    found = selected(decided, off([0.0, 0.0], 0.25), off([1.0, 1.0], 0.5)).error
    np.testing.assert_allclose(found, [0.25, 0.5], rtol=2.0**-40)
    one = Enclosed(np.array([True]), np.ones(1), np.ones(1))
    assert selected(one, given(0.0), given(3.0)).own >= 3.0


def test_comparisons_are_undecided_within_the_errors_of_both() -> None:
    for e, f, found in ((0.06, 0.06, 1), (0.06, 0.0, 0), (0.0, 0.11, 1), (0.04, 0.05, 0)):
        assert compared(FUNCTIONS["gt"], off([1.0], e), off([1.1], f)).error == found
    assert sign_of(off([0.1], 0.11)).error == 2 and sign_of(off([0.1], 0.09)).error == 0
    assert sign_of(Enclosed(np.full(1, 0.1), np.full(1, 0.2), 0.0)).own == 2


@pytest.mark.parametrize("name", ELEMENTARY)
def test_the_steepest_slope_is_attained_on_the_interval(name) -> None:
    """Against mpmath's derivative on a fine grid: not below, and within a little above."""
    exact = by_mpmath(name)
    positive = FUNCTIONS[name].domain[0] == 0
    inside = name in ("asin", "acos")
    cases = [(0.25, 0.5), (0.5, 0.75)] + ([] if positive else [(-0.5, -0.25), (-0.25, 0.5)])
    cases += [] if inside else [(1.0, 1.25), (2.0, 2.5)]
    for low, high in cases:
        slopes = [
            abs(float(mpmath.diff(exact, x)))
            for x in [*np.linspace(low, high, 9), *([0.0] if low < 0 < high else [])]
        ]
        found = float(FUNCTIONS[name].steepest[0](np.float64(low), np.float64(high)))
        assert max(slopes) <= found * (1 + 2.0**-30), (low, high)
        if name not in ("sin", "cos"):
            assert found <= max(slopes) * (1 + 2.0**-20), (low, high)
        else:
            assert found <= max(slopes) + (high - low) / 2 + 2.0**-40
