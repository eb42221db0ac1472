"""The theorems behind the bounds: check values, mpmath, and every sum of small formats."""

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

from roundoff import bounds, orders
from roundoff.errors import ArgumentError, InapplicableError
from roundoff.numbers.formats import Format, round_to

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
        ((5, U32, 0.1, 0), "outputs is 0"),
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


# -------------------------------------------------------------------- every sum of small formats

P2, P3 = Format("p2", 2, -2, 6), Format("p3", 3, -2, 6)


def numbers(target: Format, top: float) -> np.ndarray:
    """All numbers of a small format up to a magnitude."""
    steps = np.arange(0.0, top + target.smallest_subnormal, target.smallest_subnormal)
    positive = steps[round_to(steps, target) == steps]
    return np.concatenate([-positive[:0:-1], positive])


def everything(values: np.ndarray, n: int) -> np.ndarray:
    """All sequences of n of the values whose first is not negative: signs and all else alike."""
    rest = [values[values >= 0], *[values] * (n - 1)]
    return np.stack([v.ravel() for v in np.meshgrid(*rest, indexing="ij")], axis=-1)


def trees(n: int) -> list[orders.ReductionTree]:
    """Every shape of tree over leaves in order: n - 1 additions of neighbours."""
    found = []

    def grow(ids: list[int], pairs: list[tuple[int, int]]) -> None:
        if len(ids) == 1:
            found.append(orders.ReductionTree(n, np.array(pairs, np.int64).reshape(-1, 2)))
            return
        for k in range(len(ids) - 1):
            left, right = ids[k], ids[k + 1]
            grow([*ids[:k], n + len(pairs), *ids[k + 2 :]], [*pairs, (left, right)])

    grow(list(range(n)), [])
    return found


@pytest.mark.parametrize(
    ("target", "n", "top"), [(P2, 2, 16.0), (P2, 3, 16.0), (P3, 3, 8.0), (P3, 4, 2.0)], ids=str
)
def test_every_bound_holds_for_every_sum_of_a_small_format(
    target: Format, n: int, top: float
) -> None:
    """float64 holds all of these sums, so comparisons are exact; n u goes up to 1."""
    x = everything(numbers(target, top), n)
    exact = x.sum(axis=-1)
    tight = dict.fromkeys(("Jeannerod and Rump", "Lange and Rump", "partial sums"), 0.0)
    for order in [*trees(n), "kahan", "neumaier", "sum2"]:
        error = np.abs(orders.sum_in_order(x, order, target) - exact)
        found = bounds.sum(x, target, order)
        for statement in found.statements:
            if statement.kind in ("certified", "running") and statement.value is not None:
                limit = np.asarray(statement.value)
                assert (error <= limit)[~np.isnan(limit)].all(), statement.name
                if statement.name in tight:
                    ratio = (error[limit > 0] / limit[limit > 0]).max()
                    tight[statement.name] = max(tight[statement.name], ratio)
    assert tight["partial sums"] == pytest.approx(1.0, abs=2.0**-40)
    if (n - 1) * target.u <= 0.5:  # Lange and Rump is sharp
        assert tight["Lange and Rump"] == pytest.approx(1.0, abs=2.0**-40)


def test_lange_and_rump_over_many_terms_of_a_small_format() -> None:
    """Five terms with u = 1/8: (n - 1) u = 1/2, the end of the range that is claimed."""
    values = np.array([0.125, 0.25, 0.375, 0.5, 1.0, 1.25, 1.75, 2.0])
    x = everything(np.concatenate([-values, values]), 5)
    exact, scale = x.sum(axis=-1), np.abs(x).sum(axis=-1)
    limit = bounds.lange_rump(4, P3.u) * scale
    worst = 0.0
    for tree in trees(5):
        error = np.abs(orders.sum_in_order(x, tree, P3) - exact)
        assert (error <= limit).all()
        worst = max(worst, (error / limit).max())
    assert worst == pytest.approx(1.0, abs=2.0**-40)
    with pytest.raises(InapplicableError, match="exceeds 1/2"):
        bounds.lange_rump(5, P3.u)


@pytest.mark.parametrize("fma", [False, True])
def test_every_bound_holds_for_every_dot_product_of_a_small_format(fma: bool) -> None:
    """Products underflow here, too."""
    some = numbers(P3, 2.0)
    pairs = everything(some[:: 1 if fma else 2], 4)
    x, y = pairs[:, :2], pairs[:, 2:]
    exact = (x * y).sum(axis=-1)
    fused = orders.Order("fused pairwise", orders.pairwise, fused=True)
    names = ("sequential", "fma", fused) if fma else ("sequential", "kahan", "neumaier", "sum2")
    for order in names:
        error = np.abs(orders.dot_in_order(x, y, order, P3, fma=fma) - exact)
        for statement in bounds.dot(x, y, P3, order, fma=fma).statements:
            if statement.kind in ("certified", "running") and statement.value is not None:
                limit = np.asarray(statement.value)
                assert (error <= limit)[~np.isnan(limit)].all(), (order, statement.name)
