"""Errors against rational arithmetic, spacing written out, mpmath, and what the bits are."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roundoff.errors import ArgumentError
from roundoff.numbers import accuracy
from roundoff.numbers.formats import FLOAT64, FORMATS, Format, round_to

U = 2.0**-53
INF, NAN = math.inf, math.nan
finite = st.floats(allow_nan=False, allow_infinity=False)
vectors = st.lists(finite, min_size=1, max_size=8)


def exact_ulp(exact: Fraction, format: Format) -> Fraction:
    """Decision 6 by counting: the binade of |exact| is found by comparison with powers of two."""
    exponent = format.emin
    while Fraction(2) ** (exponent + 1) <= abs(exact):
        exponent += 1
    return Fraction(2) ** (exponent - format.precision + 1)


def references(format: Format, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random exact values hi + lo over ten binades, numbers of the format near them, and S."""
    generator = np.random.default_rng([seed, format.precision])
    hi = generator.standard_normal(40) * 2.0 ** generator.integers(-8, 3, 40)
    hi[:4] = [1.0, -1.0, 0.5, 2.0]  # lo decides the binade
    lo = hi * 2.0**-55 * generator.choice([-1.0, 1.0], 40)
    scale = np.abs(hi) * (1.0 + generator.random(40) * 1000.0)
    steps = 1.0 + generator.integers(-3, 4, 40) * format.u
    return round_to(hi * steps, format), hi, lo, scale


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_errors_are_those_of_rational_arithmetic(format: Format) -> None:
    computed, hi, lo, scale = references(format, 1)
    found = accuracy.errors(computed, hi, lo, scale, format)
    for k in range(computed.size):
        exact = Fraction(hi[k]) + Fraction(lo[k])
        error = Fraction(computed[k]) - exact
        wanted = {
            "absolute": error,
            "relative": error / abs(exact),
            "ulp": error / exact_ulp(exact, format),
            "scaled": error / (Fraction(format.u) * Fraction(scale[k])),
        }
        for name, value in wanted.items():
            assert abs(Fraction(getattr(found, name)[k]) - value) <= 8 * Fraction(U) * abs(value)
    assert not found.overflow.any() and not found.nan.any()


def test_lo_decides_between_two_binades() -> None:
    found = accuracy.errors([1.0, 1.0], 1.0, [-(2.0**-60), 2.0**-60], 1.0, "float32")
    assert found.ulp.tolist() == [
        2.0**-36,
        -(2.0**-37),
    ]  # FACTS: spacing 2^-24 below 1, 2^-23 above


def test_a_true_zero_has_an_error_in_subnormals_and_in_scale() -> None:
    found = accuracy.errors([0.0, 2.0**-20, -(2.0**-20)], 0.0, 0.0, [1.0, 1.0, 0.0], "float16")
    assert found.ulp.tolist() == [0.0, 16.0, -16.0]
    assert found.relative.tolist() == [0.0, INF, -INF]
    assert found.scaled.tolist() == [0.0, 2.0**-9, -INF]


def test_scale_zero_without_error_is_no_error() -> None:
    assert accuracy.errors(-0.0, 0.0, 0.0, 0.0, "float32").scaled == 0.0


def test_scaled_survives_where_u_times_scale_underflows() -> None:
    found = accuracy.errors(2.0**-1073, 2.0**-1074, 0.0, 2.0**-1070, "float64")
    assert found.scaled == 2.0**-4 * 2.0**53


def test_a_negative_zero_is_not_an_error() -> None:
    found = accuracy.errors(-0.0, 0.0, 0.0, 1.0, "float16")
    assert found.absolute == 0.0 and found.ulp == 0.0


def test_overflow_and_nan_are_counted_and_kept() -> None:
    computed = [INF, -INF, 65504.0, NAN, 65504.0, 1.0]
    exact = [65000.0, -1.0, 65505.0, 1.0, 65504.0, NAN]
    found = accuracy.errors(computed, exact, 0.0, 70000.0, "float16")
    assert found.overflow.tolist() == [True, True, True, False, False, False]
    assert found.nan.tolist() == [False, False, False, True, False, True]
    assert found.ulp[:2].tolist() == [INF, -INF] and math.isnan(found.ulp[2])
    assert found.absolute[2] == -1.0 and found.ulp[4] == 0.0
    for name in ("absolute", "relative", "ulp", "scaled"):
        assert getattr(found, name)[:2].tolist() == [INF, -INF]
        assert getattr(found, name)[3] == INF and math.isnan(getattr(found, name)[5])
    # Infinite also where the exact value has no ulp, and where S is infinite.
    assert accuracy.errors(INF, 1e6, 0.0, 1e6, "float16").ulp == INF
    assert accuracy.errors(NAN, 1.0, 0.0, INF, "float16").scaled == INF
    assert math.isnan(accuracy.errors(2.0, 1.0, 0.0, INF, "float16").scaled)


def test_a_saturated_format_overflows_by_its_exact_value() -> None:
    found = accuracy.errors([448.0, 448.0], [448.0, 500.0], 0.0, 500.0, "float8_e4m3fn")
    assert found.overflow.tolist() == [False, True]


def test_seeds_broadcast_against_one_reference() -> None:
    found = accuracy.errors(np.zeros((5, 3)), np.ones(3), np.zeros(3), np.ones(3), "float32")
    assert found.absolute.shape == found.overflow.shape == (5, 3)


def test_bad_arguments_name_the_value() -> None:
    with pytest.raises(ArgumentError, match=r"computed \(2,\), hi \(3,\)"):
        accuracy.errors(np.zeros(2), np.zeros(3), 0.0, 1.0, "float32")
    with pytest.raises(ArgumentError, match=r"scale is -2\.0"):
        accuracy.errors(1.0, 1.0, 0.0, -2.0, "float32")


def mp_normwise(computed: np.ndarray, hi: np.ndarray, lo: np.ndarray) -> Any:
    context = mpmath.mp.clone()
    context.prec = 300
    exact = [context.mpf(float(h)) + context.mpf(float(x)) for h, x in zip(hi, lo, strict=True)]
    error = [context.mpf(float(c)) - e for c, e in zip(computed, exact, strict=True)]
    return context.norm(error, 2) / context.norm(exact, 2)


@pytest.mark.parametrize("exponent", [-900, -520, 0, 511, 1000])
def test_normwise_is_that_of_mpmath_at_any_size(exponent: int) -> None:
    computed, hi, lo, _ = references(FLOAT64, 2)
    computed, hi, lo = (np.ldexp(each, exponent) for each in (computed, hi, lo))
    wanted = mp_normwise(computed, hi, lo)
    assert abs(accuracy.normwise(computed, hi, lo) / float(wanted) - 1.0) <= 16 * U


def test_normwise_at_the_edges() -> None:
    assert accuracy.normwise([0.0, 0.0], [0.0, 0.0], 0.0) == 0.0
    assert accuracy.normwise([0.0, 1.0], [0.0, 0.0], 0.0) == INF
    assert accuracy.normwise([1.0, 2.0], [1.0, 2.0], 0.0) == 0.0
    assert (
        accuracy.normwise([INF], [1.0], 0.0)
        == accuracy.normwise([-INF, 1.0], [1.0, 1.0], 0.0)
        == INF
    )
    assert accuracy.normwise([NAN, 1.0], [1.0, 1.0], 0.0) == INF
    assert math.isnan(accuracy.normwise([1.0, NAN], [1.0, NAN], 0.0))
    assert math.isnan(accuracy.normwise([INF, 1.0], [INF, 1.0], 0.0))
    rows = accuracy.normwise_rows([[1.0, 2.0], [INF, 2.0], [1.0, NAN]], [[1.0, 2.0]] * 3, 0.0)
    assert rows.tolist() == [0.0, INF, INF]
    # The difference is not a float64, the relative error is 2.
    assert accuracy.normwise([1.5e308], [-1.5e308], 0.0) == 2.0
    assert accuracy.normwise([2.0**-1074], [2.0**-1073], 0.0) == 0.5
    assert accuracy.normwise([1.0], [2.0**-1022], 0.0) == pytest.approx(2.0**1022, rel=4 * U)
    assert accuracy.normwise([2.0], [2.0**-1074], 0.0) == INF


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_ulp_between_neighbours(format: Format) -> None:
    below = 1.0 - format.u
    above = 1.0 + 2 * format.u
    a = [1.0, 1.0, above, -1.0, 1.0, 0.0, format.max, format.smallest_subnormal]
    b = [above, below, below, 1.0, 1.0, -0.0, -format.max, -format.smallest_subnormal]
    # 1 is the lower end of its binade: one number below it is half a spacing away.
    top = format.max / 2.0 ** (format.emax - format.precision + 1) * 2.0
    wanted = [1.0, 0.5, 1.5, 1.0 / format.u, 0.0, 0.0, top, 2.0]
    assert accuracy.ulp_between(a, b, format).tolist() == wanted
    assert accuracy.ulp_between(b, a, format).tolist() == wanted


def test_ulp_between_what_is_not_finite() -> None:
    a = [INF, INF, INF, NAN, NAN, 7e4]
    b = [INF, -INF, 1.0, NAN, INF, 1.0]
    wanted = [0.0, INF, INF, NAN, INF, NAN]
    np.testing.assert_array_equal(accuracy.ulp_between(a, b, "float16"), wanted)


def test_bitwise_equal_is_about_bits() -> None:
    other = np.array([0x7FF8000000000001], np.int64).view(np.float64)[0]
    a = np.array([0.0, NAN, NAN, INF, 1.0, 2.0**-1074])
    b = np.array([-0.0, NAN, other, INF, 1.0 + 2.0**-52, 2.0**-1074])
    assert accuracy.bitwise_equal(a, b).tolist() == [False, True, False, True, False, True]
    assert accuracy.bitwise_equal(np.ones((4, 6))[:, ::2], np.ones((4, 3))).shape == (4, 3)
    assert accuracy.bitwise_equal(1.0, 1.0).shape == ()


def fractions_dot(x: list[float], y: list[float]) -> tuple[Fraction, Fraction]:
    terms = [Fraction(a) * Fraction(b) for a, b in zip(x, y, strict=True)]
    return sum(terms, Fraction()), sum(map(abs, terms), Fraction())


def as_float(value: Fraction) -> float:
    try:
        return float(value)
    except OverflowError:
        return INF


@given(vectors, vectors)
@settings(max_examples=100, deadline=None)
def test_condition_numbers_are_correctly_rounded(x: list[float], y: list[float]) -> None:
    y = (y * len(x))[: len(x)]
    cases: list[tuple[list[float], Callable[[], float]]] = [
        (y, lambda: accuracy.dot_condition(x, y)),
        ([1.0] * len(x), lambda: accuracy.sum_condition(x)),
    ]
    for second, found in cases:
        exact, scale = fractions_dot(x, second)
        wanted = 1.0 if scale == 0 else INF if exact == 0 else as_float(scale / abs(exact))
        assert found() == wanted


@given(finite, vectors)
@settings(max_examples=100, deadline=None)
def test_backward_errors_are_those_of_rational_arithmetic(c: float, x: list[float]) -> None:
    y = x[::-1]
    exact, scale = fractions_dot(x, y)
    found = accuracy.dot_backward(c, x, y)
    error = abs(Fraction(c) - exact)
    if scale == 0:
        assert found.componentwise == (0.0 if error == 0 else INF)
        return
    assert found.componentwise == as_float(error / scale)
    square = error**2 / (fractions_dot(x, x)[0] * fractions_dot(y, y)[0])
    context = mpmath.mp.clone()
    context.prec = 200
    root = context.sqrt(context.mpf(square.numerator) / square.denominator)
    if 2.0**-1000 < root < 2.0**1000:
        assert abs(found.normwise / float(root) - 1.0) <= 4 * U


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=6), st.floats(-1e3, 1e3))
@settings(max_examples=50, deadline=None)
def test_no_smaller_change_of_the_data_explains_a_sum(x: list[float], c: float) -> None:
    """The optimum, constructed: each term moves by eps of its size toward the computed sum."""
    eps = accuracy.sum_backward(c, x).componentwise
    exact, scale = fractions_dot(x, [1.0] * len(x))
    if math.isfinite(eps):
        reached = exact + (1 if Fraction(c) > exact else -1) * Fraction(eps) * scale
        size = abs(Fraction(c)) + scale
        assert abs(reached - Fraction(c)) <= 2 * Fraction(U) * size + Fraction(2.0**-1060)


def test_backward_error_of_what_is_not_finite() -> None:
    assert accuracy.sum_backward(INF, [1.0]).componentwise == INF
    assert accuracy.sum_backward(-INF, [1.0]).normwise == INF
    assert accuracy.sum_backward(NAN, [1.0]).normwise == INF
    for call in (lambda v: accuracy.sum_condition(v), lambda v: accuracy.sum_backward(1.0, v)):
        with pytest.raises(ArgumentError, match="contains inf"):
            call([1.0, INF])
    with pytest.raises(ArgumentError, match=r"shape \(1,\) and y \(2,\)"):
        accuracy.dot_condition([1.0], [1.0, 2.0])


def test_a_sum_backward_is_the_scaled_error() -> None:
    values = [1.0, 2.0**-24, -0.75]
    computed = 0.25
    found = accuracy.sum_backward(computed, values)
    error = accuracy.errors(
        computed, math.fsum(values), 0.0, math.fsum(map(abs, values)), "float32"
    )
    assert found.componentwise / 2.0**-24 == -float(error.scaled)


def test_long_sums_are_quick_and_exact() -> None:
    generator = np.random.default_rng(5)
    values = generator.standard_normal(50_000) * 2.0 ** generator.integers(-40, 40, 50_000)
    wanted = math.fsum(np.abs(values)) / abs(math.fsum(values))
    assert abs(accuracy.sum_condition(values) / wanted - 1.0) <= 4 * U


def test_normwise_conditions_are_never_below_the_componentwise() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        x, y = rng.standard_normal((2, 9)) * 2.0 ** rng.integers(-300, 300, 2)[:, None]
        norm = accuracy.dot_condition_normwise(x, y)
        a, b = x / np.abs(x).max(), y / np.abs(y).max()
        expected = np.linalg.norm(a) * np.linalg.norm(b) / abs(math.fsum(a * b))
        assert norm == pytest.approx(expected, rel=2.0**-30)
        assert norm >= accuracy.dot_condition(x, y) * (1 - 2.0**-50)
        assert accuracy.sum_condition_normwise(x) >= accuracy.sum_condition(x) * (1 - 2.0**-50)
    assert accuracy.dot_condition_normwise([1.0, 1.0], [1.0, -1.0]) == math.inf
    assert accuracy.sum_condition_normwise([0.0, 0.0]) == accuracy.sum_condition_normwise([]) == 1.0


def test_nothing_is_stretched_to_another_shape() -> None:
    for computed, hi in (
        ([1.0, 2.0], [1.0]),
        ([1.0], [1.0, 2.0, 3.0]),
        (1.0, [1.0]),
        ([[1.0]], [1.0, 2.0]),
    ):
        for measure in (
            lambda c, h: accuracy.normwise(c, h, 0.0),
            lambda c, h: accuracy.errors(c, h, 0.0, 1.0, "float32"),
        ):
            with pytest.raises(ArgumentError, match="shape"):
                measure(computed, hi)
    assert accuracy.errors([[1.0], [2.0]], [1.0], 0.0, 1.0, "float32").absolute.tolist() == [
        [0.0],
        [1.0],
    ]
