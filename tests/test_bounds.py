"""Bounds against check values, mpmath, and sums that attain or must not exceed them."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from roundoff import bounds
from roundoff.errors import ArgumentError, InapplicableError

U16, U32, U64 = 2.0**-11, 2.0**-24, 2.0**-53


def test_check_values() -> None:
    """FACTS, bounds on sums and dots."""
    assert round(bounds.gamma(1000, U16), 10) == 0.9541984733
    assert round(bounds.gamma(10**6, U32), 10) == 0.0633825385
    assert round(bounds.higham_mary_lambda(10**6, U32, 1e-3), 3) == 6.545
    assert bounds.gamma(0, U32) == 0.0


@given(st.integers(1, 2**53), st.integers(2, 60))
@settings(max_examples=300, deadline=None)
def test_gamma_is_the_smallest_float_not_below_the_formula(n: int, p: int) -> None:
    u = 2.0**-p
    if n >= 2**p:
        with pytest.raises(InapplicableError, match="not below 1"):
            bounds.gamma(n, u)
        return
    exact = Fraction(n, 2**p) / (1 - Fraction(n, 2**p))
    found = bounds.gamma(n, u)
    assert Fraction(math.nextafter(found, 0.0)) < exact <= Fraction(found)


def formula(n: int, u: float, failure: float, outputs: int) -> tuple[Any, Any]:
    """lambda and the bound, to 60 digits."""
    context = mpmath.mp.clone()
    context.dps = 60
    roundoff = context.mpf(u)
    size = 2 * context.mpf(n) * outputs / context.mpf(failure)
    factor = context.sqrt(2 * context.log(size)) / (1 - roundoff)
    exponent = factor * context.sqrt(n) * roundoff + n * roundoff**2 / (1 - roundoff)
    return factor, context.expm1(exponent)


@given(
    st.integers(1, 10**9),
    st.sampled_from([2.0**-4, 2.0**-8, U16, U32, U64]),
    st.floats(1e-12, 0.9),
    st.integers(1, 10**6),
)
@settings(max_examples=300, deadline=None)
def test_higham_mary_is_just_above_the_formula(
    n: int, u: float, failure: float, outputs: int
) -> None:
    factor, bound = formula(n, u, failure, outputs)
    found_factor = bounds.higham_mary_lambda(n, u, failure, outputs)
    assert factor <= found_factor <= factor * (1 + 2.0**-46)
    found = bounds.higham_mary(n, u, failure, outputs)
    assert bound <= found
    if bound < 1e3:  # the exponent's rounding grows with the exponent
        assert found <= bound * (1 + 2.0**-42)


def test_lambda_makes_the_failure_probability_what_was_asked() -> None:
    factor = bounds.higham_mary_lambda(300, U16, 1e-3, outputs=7)
    probability = 7 * 2 * 300 * math.exp(-(factor**2) * (1 - U16) ** 2 / 2)
    assert 0.999e-3 < probability <= 1e-3


def test_lambda_of_five_says_nothing_about_a_million_terms() -> None:
    """FACTS: at n = 1e6, lambda = 5 is vacuous."""
    assert 2e6 * math.exp(-12.5) > 1.0 > 2e6 * math.exp(-(6.545**2) / 2)


def test_a_hopeless_exponential_is_infinite() -> None:
    assert bounds.higham_mary(10**12, 2.0**-4, 1e-3) == math.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, U32, 0.1), "n is -1"),
        ((0, U32, 0.1), "n is 0"),
        ((5, 0.0, 0.1), "u is 0.0"),
        ((5, 1.0, 0.1), "u is 1.0"),
        ((5, U32, 0.0), "failure is 0.0"),
        ((5, U32, 1.0), "failure is 1.0"),
        ((5, U32, 0.1, 0), "outputs 0"),
    ],
)
def test_bad_arguments_name_the_value(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        bounds.higham_mary(*arguments)


@pytest.mark.parametrize(("n", "u"), [(1024, 2.0**-10), (2, 0.5), (10**6, U16)])
def test_gamma_refuses_where_it_says_nothing(n: int, u: float) -> None:
    with pytest.raises(InapplicableError, match="not below 1"):
        bounds.gamma(n, u)


def sequential_dots(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 dot products by plain rows, with each error over S; products are exact in float64."""
    total = np.zeros(x.shape[0], np.float32)
    for a, b in zip(x.T, y.T, strict=True):
        total = total + a * b
    products = x.astype(np.float64) * y.astype(np.float64)
    exact = np.array([math.fsum(row) for row in products])
    scale = np.array([math.fsum(row) for row in np.abs(products)])
    return total, np.abs(total - exact) / scale


def test_dots_stay_inside_and_the_probabilistic_bound_covers() -> None:
    generator = np.random.default_rng(20190)
    x, y = generator.standard_normal((2, 2000, 200), np.float32)
    _, error = sequential_dots(x, y)
    assert error.max() <= bounds.gamma(200, U32)
    for failure in (0.5, 0.05):
        beyond = int((error > bounds.higham_mary(200, U32, failure)).sum())
        more = stats.binomtest(beyond, 2000, failure, alternative="greater").pvalue
        assert more > 1e-3
    # The union bound over n terms is loose: the largest of 2000 is a tenth of the bound or less ...
    assert error.max() < 0.2 * bounds.higham_mary(200, U32, 1e-3)
    # ... which is itself far below the certified one.
    assert bounds.higham_mary(200, U32, 1e-3) < 0.5 * bounds.gamma(200, U32)


def test_gamma_is_nearly_attained() -> None:
    """1 + u + u + ...: each addition ties to even and loses a whole u."""
    n = 1000
    total = np.float32(1.0)
    for _ in range(n):
        total = total + np.float32(U32)
    exact = Fraction(1) + n * Fraction(U32)
    ratio = abs(Fraction(float(total)) - exact) / exact / Fraction(bounds.gamma(n, U32))
    assert 0.999 < ratio <= 1
