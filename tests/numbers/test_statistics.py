"""Statistics against NumPy, SciPy, brute force over sign patterns, and coverage by simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from roundoff.errors import ArgumentError
from roundoff.numbers import statistics

U = 2.0**-53
INF, NAN = math.inf, math.nan


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=30))
@settings(max_examples=150, deadline=None)
def test_summary_of_finite_values_is_numpys(values: list[float]) -> None:
    found = statistics.summarise(values)
    largest = max(map(abs, values))
    quantiles = {
        "minimum": 0.0,
        "lower_quartile": 0.25,
        "median": 0.5,
        "upper_quartile": 0.75,
        "percentile_95": 0.95,
        "maximum": 1.0,
    }
    for name, q in quantiles.items():
        assert abs(float(getattr(found, name)) - np.quantile(values, q)) <= 8 * U * largest
    assert abs(float(found.mean) - math.fsum(values) / len(values)) <= 64 * U * largest
    if 1e-150 < largest < 1e150:
        rms = math.sqrt(math.fsum(v * v for v in values) / len(values))
        assert abs(float(found.rms) - rms) <= 64 * U * largest
    assert int(found.n) == int(found.finite) == len(values)
    assert int(found.zeros) == values.count(0.0)


def test_summary_ranks_infinities_and_leaves_nan_out() -> None:
    rows = np.array([[3.0, NAN, 1.0, INF, 0.0, -0.0], [NAN] * 6, [NAN, -INF, 1.0, 1.0, INF, INF]])
    found = statistics.summarise(rows)
    assert found.n.tolist() == [6, 6, 6]
    assert found.finite.tolist() == [4, 0, 2]
    assert found.infinite.tolist() == [1, 0, 3]
    assert found.zeros.tolist() == [2, 0, 0]
    assert found.maximum[0] == found.mean[0] == found.rms[0] == INF
    assert found.minimum[0] == 0.0 and found.median[0] == 1.0 and found.upper_quartile[0] == 3.0
    assert np.isnan([found.mean[1], found.rms[1], found.median[1], found.maximum[1]]).all()
    assert found.minimum[2] == -INF and found.median[2] == 1.0 and found.upper_quartile[2] == INF
    assert np.isnan(found.mean[2]) and found.rms[2] == INF
    assert float(statistics.summarise([INF, 1.0, 2.0]).maximum) == INF


@given(st.lists(st.sampled_from([0.0, 1.0, 2.5, INF, NAN]), min_size=1, max_size=9))
def test_a_larger_error_makes_no_summary_smaller(values: list[float]) -> None:
    """An overflow in place of any number: nothing that is summarised shrinks."""
    before = statistics.summarise(values)
    for k, value in enumerate(values):
        if not math.isnan(value):
            after = statistics.summarise([*values[:k], INF, *values[k + 1 :]])
            for name in (
                "minimum",
                "median",
                "upper_quartile",
                "percentile_95",
                "maximum",
                "mean",
                "rms",
            ):
                assert getattr(after, name) >= getattr(before, name)
            assert after.maximum == INF


@given(st.lists(st.floats(0, 1e300), min_size=1, max_size=20), st.integers(0, 3))
def test_quantiles_are_numpys_with_infinities_last(values: list[float], overflows: int) -> None:
    fractions = (0.0, 0.25, 0.5, 0.9, 1.0)
    found = statistics.quantiles([*values, *[INF] * overflows, NAN], *fractions)
    ranked = sorted([*values, *[INF] * overflows])
    for q, quantile in zip(fractions, found, strict=True):
        place = q * (len(ranked) - 1)
        low, high = ranked[math.floor(place)], ranked[math.ceil(place)]
        assert low * (1 - 4 * U) <= quantile <= high * (1 + 4 * U)
        assert (quantile == INF) == (high == INF)
    assert (
        np.isnan(statistics.quantiles([NAN], 0.5)).all()
        and np.isnan(statistics.quantiles([], 0.5)).all()
    )


def test_summary_neither_overflows_nor_underflows() -> None:
    big = statistics.summarise([1.5e308, -1.5e308, 1.5e308, 1.5e308])
    assert float(big.rms) == 1.5e308 and float(big.mean) == 0.75e308
    assert float(statistics.summarise([-1.5e308, 1.5e308]).median) == 0.0
    assert float(statistics.summarise([2.0**-1000] * 3).rms) == 2.0**-1000


def test_summary_of_rows_is_that_of_each_row() -> None:
    rows = np.random.default_rng(3).standard_normal((4, 5, 17))
    rows[1, 2, :9] = NAN
    together = statistics.summarise(rows)
    for index in np.ndindex(4, 5):
        alone = statistics.summarise(rows[index])
        for name in ("n", "finite", "median", "percentile_95", "mean", "rms"):
            assert getattr(together, name)[index] == getattr(alone, name)


def test_summary_of_nothing_is_refused() -> None:
    with pytest.raises(ArgumentError, match="give at least one"):
        statistics.summarise([])


def test_ecdf_counts_values_up_to_each_point() -> None:
    values = np.random.default_rng(4).integers(0, 9, 50).astype(float)
    values[:5] = [NAN, INF, -0.0, INF, NAN]
    found = statistics.ecdf(values)
    assert found.n == 50 and (np.diff(found.values) > 0).all()
    for point, fraction in zip(found.values, found.fraction, strict=True):
        assert fraction == sum(v <= point for v in values.tolist()) / 50
    assert (
        found.values[-1] == INF and found.fraction[-1] == 48 / 50 and found.fraction[-2] == 46 / 50
    )
    assert statistics.ecdf([]).values.size == 0


def test_check_values() -> None:
    """FACTS, Statistics."""
    assert round(statistics.dkw_band(1000), 6) == 0.042947
    assert round(statistics.zero_failures(1000), 7) == 0.0029912


def test_the_dkw_band_covers() -> None:
    """By the exact distribution of sup |F_n - F|: beyond the band at most 5 %, not much less."""
    for n in (10, 100, 1000):
        assert 0.03 < float(stats.kstwo.sf(statistics.dkw_band(n), n)) <= 0.05


@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
@pytest.mark.parametrize(("successes", "n"), [(0, 1), (1, 1), (0, 1000), (7, 20), (999, 1000)])
def test_clopper_pearson_is_scipys(successes: int, n: int, level: float) -> None:
    interval = stats.binomtest(successes, n).proportion_ci(level, method="exact")
    found = statistics.proportion_interval(successes, n, level)
    assert found == pytest.approx((interval.low, interval.high), rel=2.0**-30, abs=2.0**-50)


def test_zero_failures_is_the_rate_at_which_none_is_as_rare_as_said() -> None:
    for n, level in ((1, 0.95), (10, 0.5), (10**6, 0.999)):
        rate = statistics.zero_failures(n, level)
        assert stats.binom.pmf(0, n, rate) == pytest.approx(1 - level, rel=2.0**-20)


@pytest.mark.parametrize("function", [statistics.dkw_band, statistics.zero_failures])
@pytest.mark.parametrize(("n", "level"), [(0, 0.95), (5, 0.0), (5, 1.0), (5, 95.0)])
def test_intervals_refuse(function: object, n: int, level: float) -> None:
    assert callable(function)
    with pytest.raises(ArgumentError):
        function(n, level)


def test_proportions_refuse() -> None:
    with pytest.raises(ArgumentError, match="successes is 11"):
        statistics.proportion_interval(11, 10)


def test_clopper_pearson_covers_by_counting() -> None:
    """Its coverage at any proportion is a finite sum: never below the level."""
    for n in (4, 9, 30):
        ends = [statistics.proportion_interval(k, n) for k in range(n + 1)]
        for p in np.linspace(0.01, 0.99, 99):
            covered = [low <= p <= high for low, high in ends]
            assert stats.binom.pmf(np.arange(n + 1), n, p)[covered].sum() >= 0.95 - 2.0**-40


def test_the_dkw_band_covers_where_values_tie() -> None:
    generator = np.random.default_rng(13)
    levels = np.arange(1, 5) / 4
    for n in (4, 16, 30):
        draws = generator.integers(1, 5, (4000, n))
        found = np.stack([(draws <= k).mean(axis=1) for k in range(1, 5)], axis=1)
        missed = (np.abs(found - levels).max(axis=1) > statistics.dkw_band(n)).sum()
        assert stats.binomtest(int(missed), 4000, 0.05, alternative="greater").pvalue > 1e-4


#: Draws of shape (trials, n), and a median of their distribution.
DISTRIBUTIONS = {
    "normal": (lambda g, shape: g.standard_normal(shape), 0.0),
    "uniform": (lambda g, shape: g.random(shape), 0.5),
    "heavy tails": (lambda g, shape: g.standard_t(1, shape), 0.0),
    "skewed": (lambda g, shape: np.exp(2 * g.standard_normal(shape)), 1.0),
    "exponential": (lambda g, shape: g.exponential(size=shape), math.log(2.0)),
    "few values": (lambda g, shape: np.round(g.standard_normal(shape)), 0.0),
    "two values": (lambda g, shape: g.choice([-1.0, 1.0], shape), 0.0),
    "half ties": (
        lambda g, shape: np.where(g.random(shape) < 0.5, 0.0, g.standard_normal(shape)),
        0.0,
    ),
    "overflows": (lambda g, shape: np.where(g.random(shape) < 0.4, INF, g.random(shape)), 5 / 6),
}


@pytest.mark.parametrize("n", [4, 5, 6, 7, 8, 9, 10, 12, 16, 20, 25, 30])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_the_interval_of_a_median_covers(name: str, n: int) -> None:
    """At least 95 % whatever the distribution; below 6 values there is none."""
    draw, median = DISTRIBUTIONS[name]
    samples = draw(np.random.default_rng([14, n, *name.encode()]), (1000, n))
    ends = np.array([statistics.median_interval(sample) for sample in samples])
    if n < 6:
        assert np.isnan(ends).all()
        return
    hits = int(((ends[:, 0] <= median) & (median <= ends[:, 1])).sum())
    assert stats.binomtest(hits, 1000, 0.95, alternative="less").pvalue > 1e-4
    if name in ("normal", "uniform", "heavy tails", "skewed", "exponential"):
        exact = 1 - 2 * stats.binom.cdf(interval_rank(n) - 1, n, 0.5)
        assert exact < 0.995 and stats.binomtest(hits, 1000, exact).pvalue > 1e-4


def interval_rank(n: int) -> int:
    """The largest k with 2 P(fewer than k heads of n) <= 5 %, from whole numbers."""
    k, below = 0, 0
    while 40 * (below + math.comb(n, k)) <= 2**n:
        below += math.comb(n, k)
        k += 1
    return k


@pytest.mark.parametrize("n", [1, 5, 6, 16, 31, 1000])
def test_the_interval_of_a_median_is_the_narrowest_that_covers(n: int) -> None:
    values = np.random.default_rng(n).permutation(n) + 1.0
    k = interval_rank(n)
    found = statistics.median_interval([*values, NAN])
    assert found == ((k, n + 1 - k) if k else pytest.approx((NAN, NAN), nan_ok=True))
    if k:
        assert statistics.median_interval(values, level=0.5)[0] >= found[0]
    with pytest.raises(ArgumentError, match="level"):
        statistics.median_interval(values, 95)


def brute_force(first: list[float], second: list[float]) -> tuple[float, float]:
    """p-value and effect over all sign patterns of Pratt's ranks of the comparisons."""
    ranks = stats.rankdata(
        [abs(math.log(b) - math.log(a)) for a, b in zip(first, second, strict=True)]
    )
    signs = [(b > a) - (b < a) for a, b in zip(first, second, strict=True)]
    balance = sum(s * r for s, r in zip(signs, ranks, strict=True))
    moving = [r for s, r in zip(signs, ranks, strict=True) if s]
    patterns = list(itertools.product((-1, 1), repeat=len(moving)))
    extreme = sum(
        abs(sum(s * r for s, r in zip(pattern, moving, strict=True))) >= abs(balance)
        for pattern in patterns
    )
    return extreme / len(patterns), balance / ranks.sum()


@given(st.lists(st.tuples(*[st.sampled_from([0.25, 0.5, 1.0, 2.0])] * 2), min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_the_test_is_exact_with_ties_of_every_kind(pairs: list[tuple[float, float]]) -> None:
    first, second = (list(side) for side in zip(*pairs, strict=True))
    found = statistics.paired(first, second)
    p_value, effect = brute_force(first, second)
    assert found.p_value == pytest.approx(p_value, rel=64 * U)
    assert found.effect == pytest.approx(effect, abs=64 * U)
    assert found.n == found.ties + found.first_wins + found.second_wins == len(pairs)


@pytest.mark.parametrize("n", [5, 20, 50])
def test_the_test_is_scipys_without_ties(n: int) -> None:
    first, second = np.exp(np.random.default_rng(n).standard_normal((2, n)))
    second *= 1.3
    wanted = stats.wilcoxon(np.log(second) - np.log(first), method="exact").pvalue
    assert statistics.paired(first, second).p_value == pytest.approx(wanted, rel=2.0**-40)


def test_many_pairs_take_scipys_approximation_with_pratts_zeros() -> None:
    first, second = np.exp(np.random.default_rng(8).standard_normal((2, 300)))
    second[:80] = first[:80]
    difference = np.log(second) - np.log(first)
    wanted = stats.wilcoxon(difference, zero_method="pratt", method="asymptotic").pvalue
    assert statistics.paired(first, second).p_value == pytest.approx(wanted, rel=2.0**-40)


def test_few_differences_among_many_ties_are_no_evidence() -> None:
    """Five wins of a thousand: 2/32, where the normal approximation says .025."""
    second = np.ones(1000)
    second[:5] = [2.0, 3.0, 4.0, 5.0, 6.0]
    found = statistics.paired(np.ones(1000), second)
    assert found.p_value == 2 / 32
    assert (found.ties, found.first_wins, found.second_wins) == (995, 5, 0)
    assert 0 < found.effect < 0.02


def test_swapping_the_sides_turns_everything_around() -> None:
    first, second = np.exp(np.random.default_rng(9).standard_normal((2, 30)))
    one, other = statistics.paired(first, second), statistics.paired(second, first)
    assert one.p_value == other.p_value and one.effect == -other.effect
    assert one.first_wins == other.second_wins
    assert one.ratio * other.ratio == pytest.approx(1.0, rel=16 * U)


def test_all_ties() -> None:
    found = statistics.paired([1.0, 0.0, INF, 3.0], [1.0, 0.0, INF, 3.0])
    assert (found.p_value, found.effect, found.ties, found.n) == (1.0, 0.0, 4, 4)
    assert found.ratio == 1.0 and np.isnan(found.interval).all()
    assert statistics.paired(np.ones(6), np.ones(6)).interval == (1.0, 1.0)
    assert found.closer(found.p_value) == "neither"


def test_an_exact_side_wins_by_more_than_any_ratio() -> None:
    found = statistics.paired([0.0, 0.0, 2.0, 1e-300], [1e-300, 5.0, 1.0, INF])
    assert (found.first_wins, found.second_wins) == (3, 1)
    assert found.effect == pytest.approx(
        (3 + 3 + 3 - 1) / 10
    )  # three infinite differences share 2..4
    assert found.ratio == INF and found.factor[0] == INF
    assert np.isnan(found.interval).all()
    found = statistics.paired(np.zeros(12), np.ones(12))
    assert found.ratio == INF and found.interval == (INF, INF)
    assert found.p_value == 2 / 2**12 and found.closer(found.p_value) == "first"


@pytest.mark.parametrize("overflows", [4, 6, 12])
def test_a_method_that_overflows_is_not_closer(overflows: int) -> None:
    """Smaller errors wherever it has one, and an overflow at every other seed or more."""
    generator = np.random.default_rng(15)
    steady = generator.uniform(1.0, 2.0, 12)
    wild = steady / 1.01
    wild[:overflows] = INF
    found = statistics.paired(wild, steady)
    assert (found.n, found.excluded, found.second_wins) == (12, 0, overflows)
    assert found.closer(found.p_value) in ("neither", "second")
    if overflows == 12:
        assert found.closer(found.p_value) == "second"
        assert found.ratio == 0.0 and found.factor == (INF, INF, INF)
    both = statistics.paired(np.full(12, INF), np.full(12, INF))
    assert (both.ties, both.ratio, both.interval) == (12, 1.0, (1.0, 1.0))


def test_between_an_exact_side_and_an_overflow_no_ratio_is_larger() -> None:
    found = statistics.paired([0.0, 1.0], [1.0, 0.0])
    assert found.ratio == 1.0 and found.effect == 0.0


def test_nan_pairs_are_excluded_and_counted() -> None:
    found = statistics.paired([NAN, 1.0, 1.0], [1.0, NAN, 2.0])
    assert (found.n, found.excluded, found.first_wins) == (1, 2, 1)
    nothing = statistics.paired([NAN], [1.0])
    assert (nothing.n, nothing.p_value, nothing.effect) == (0, 1.0, 0.0)


def test_neighbouring_floats_do_not_tie() -> None:
    above = math.nextafter(3e200, INF)
    assert math.log(above) == math.log(3e200)
    found = statistics.paired([3e200, above], [above, above])
    assert (found.ties, found.first_wins) == (1, 1)


def test_the_ratio_is_the_median_with_its_interval_around_it() -> None:
    first = np.exp(np.random.default_rng(10).standard_normal(201))
    second = first * np.exp(np.random.default_rng(11).standard_normal(201) * 0.1) * 1.5
    found = statistics.paired(first, second)
    assert found.ratio == pytest.approx(np.median(second / first), rel=256 * U)
    assert 1.4 < found.interval[0] < found.ratio < found.interval[1] < 1.6
    assert found.closer(found.p_value) == "first"
    other = statistics.paired(second, first)
    assert found.factor == (found.ratio, *found.interval)
    assert other.factor == pytest.approx(found.factor, rel=256 * U) and other.ratio < 1


def test_closer_is_decided_by_the_corrected_p_value() -> None:
    found = statistics.paired(np.full(10, 2.0), np.linspace(0.5, 1.5, 10))
    assert found.closer(0.049) == "second"
    assert found.closer(0.05) == found.closer(1.0) == found.closer(NAN) == "neither"
    assert found.closer(0.05, level=0.1) == "second"


def test_the_level_is_kept_under_the_null() -> None:
    """Two equal methods, 16 seeds with ties: 5 % of the tests at most say that one is closer."""
    generator = np.random.default_rng(12)
    rejected = 0
    for _ in range(400):
        first, second = np.round(np.exp(generator.standard_normal((2, 16))), 1) + 0.1
        rejected += _p_only(first, second) < 0.05
    assert stats.binomtest(rejected, 400, 0.05, alternative="greater").pvalue > 1e-3
    assert rejected > 0


def _p_only(first: np.ndarray, second: np.ndarray) -> float:
    return statistics._signed_rank(np.log(second) - np.log(first))[0]


def test_paired_refuses() -> None:
    with pytest.raises(ArgumentError, match="3 first and 2 second"):
        statistics.paired([1.0] * 3, [1.0] * 2)
    with pytest.raises(ArgumentError, match="negative"):
        statistics.paired([1.0], [-1.0])


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
@settings(max_examples=100, deadline=None)
def test_benjamini_hochberg_by_its_definition(p_values: list[float]) -> None:
    """min over q >= p of q m / #{p <= q}, at most 1."""
    found = statistics.correct(p_values)
    m = len(p_values)
    for p, corrected in zip(p_values, found, strict=True):
        steps = [q * m / sum(other <= q for other in p_values) for q in p_values if q >= p]
        assert corrected == pytest.approx(min(1.0, *steps), rel=16 * U, abs=2.0**-1060)


def test_correct_refuses_and_accepts_nothing() -> None:
    assert statistics.correct([]).size == 0
    for bad in (NAN, -0.1, 1.5):
        with pytest.raises(ArgumentError, match="p-value is"):
            statistics.correct([0.5, bad])
