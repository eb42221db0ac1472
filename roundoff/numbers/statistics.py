"""Summaries, distribution functions, intervals and paired tests: numbers in, numbers out.

The unit of replication is the seed.  An infinite error, an overflow, is the largest one: it is ranked,
and an average over it is infinite.  NaN is no number: it is counted and left out.
scipy.stats is imported where it is used: it takes longer to load than the rest of the package.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from roundoff.arguments import fraction, whole
from roundoff.errors import ArgumentError
from roundoff.numbers.formats import as_float64

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

__all__ = [
    "Ecdf",
    "Paired",
    "Summary",
    "correct",
    "dkw_band",
    "ecdf",
    "median_interval",
    "paired",
    "proportion_interval",
    "quantiles",
    "summarise",
    "zero_failures",
]

#: Up to this many pairs that differ, the null distribution is enumerated instead of approximated.
_EXACT_PAIRS = 50


@dataclass(frozen=True, eq=False)
class Summary:
    """Order statistics and moments over the numbers of each row, infinities too; NaN where there are none.

    n counts all values, finite the finite ones, infinite the infinite ones, zeros the exact zeros.
    mean and rms are infinite where a value is (the mean of infinities of both signs is NaN).
    """

    n: Counts
    finite: Counts
    infinite: Counts
    zeros: Counts
    minimum: Array
    lower_quartile: Array
    median: Array
    upper_quartile: Array
    percentile_95: Array
    maximum: Array
    mean: Array
    rms: Array


def summarise(values: npt.ArrayLike) -> Summary:
    """The Summary of the last axis.

    Shapes: values is (..., n); every field is (...), a number's shape for one row.
    Quantiles interpolate linearly between order statistics (Hyndman and Fan 1996, type 7).
    Raises: ArgumentError for no values at all.

    >>> float(summarise([1.0, 2.0, 4.0, float("nan")]).median)
    2.0
    """
    rows = np.atleast_1d(as_float64(values)[0])
    if rows.shape[-1] == 0:
        raise ArgumentError(f"summarise: values have shape {rows.shape}; give at least one")
    known = ~np.isnan(rows)
    count = np.asarray(known.sum(axis=-1), np.int64)
    finite = np.asarray(np.isfinite(rows).sum(axis=-1), np.int64)
    ordered = np.sort(rows, axis=-1)  # NaN sorts last
    mean, rms = _moments(np.where(known, rows, 0.0), count)
    return Summary(
        n=np.full(finite.shape, rows.shape[-1], np.int64),
        finite=finite,
        infinite=count - finite,
        zeros=np.asarray((rows == 0).sum(axis=-1), np.int64),
        minimum=_quantile(ordered, count, 0.0),
        lower_quartile=_quantile(ordered, count, 0.25),
        median=_quantile(ordered, count, 0.5),
        upper_quartile=_quantile(ordered, count, 0.75),
        percentile_95=_quantile(ordered, count, 0.95),
        maximum=_quantile(ordered, count, 1.0),
        mean=mean,
        rms=rms,
    )


def quantiles(values: npt.ArrayLike, *fractions: float) -> Array:
    """Quantiles of the numbers of an array, infinities among them; NaN where there are none.

    They interpolate as those of `summarise`; beside an infinite value the result is infinite.

    >>> quantiles([1.0, 2.0, float("inf")], 0.5, 0.75).tolist()
    [2.0, inf]
    """
    flat = as_float64(values)[0].ravel()
    if not flat.size:
        return np.full(len(fractions), np.nan)
    count = np.array((~np.isnan(flat)).sum())
    ordered = np.sort(flat)
    return np.array([float(_quantile(ordered, count, q)) for q in fractions])


def _quantile(ordered: Array, count: Counts, q: float) -> Array:
    position = np.maximum(count - 1, 0) * q
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(count - 1, 0))
    low = np.take_along_axis(ordered, below[..., None], axis=-1)[..., 0]
    high = np.take_along_axis(ordered, above[..., None], axis=-1)[..., 0]
    part = position - below
    # Not low + part (high - low): the difference of two finite numbers may overflow.
    with np.errstate(invalid="ignore"):
        return np.where((low == high) | (part == 0), low, low * (1.0 - part) + high * part)


def _moments(values: Array, count: Counts) -> tuple[Array, Array]:
    """Mean and root mean square; each row is scaled by a power of two, so no sum overflows."""
    largest = np.abs(values).max(axis=-1)
    exponent = np.frexp(np.where(np.isfinite(largest), largest, 0.0))[1]
    with np.errstate(under="ignore", divide="ignore", invalid="ignore"):
        scaled = np.ldexp(values, -exponent[..., None])
        mean = scaled.sum(axis=-1) / count
        rms = np.sqrt((scaled * scaled).sum(axis=-1) / count)
        return np.ldexp(mean, exponent), np.ldexp(rms, exponent)


@dataclass(frozen=True, eq=False)
class Ecdf:
    """An empirical distribution function: `fraction` of all n values are <= `values`, which ascend.

    Exact zeros are the first point of a function of magnitudes and infinities the last: a logarithmic axis
    bins them apart.  NaN stays in n, so the last fraction is below 1 where there is some.
    """

    values: Array
    fraction: Array
    n: int


def ecdf(values: npt.ArrayLike) -> Ecdf:
    """The empirical distribution function of all values of an array.

    >>> ecdf([2.0, 1.0, 2.0, float("inf")]).fraction.tolist()
    [0.25, 0.75, 1.0]
    """
    flat = as_float64(values)[0].ravel()
    distinct, counts = np.unique(flat[~np.isnan(flat)], return_counts=True)
    return Ecdf(distinct, np.cumsum(counts) / max(flat.size, 1), flat.size)


def dkw_band(n: int, level: float = 0.95) -> float:
    """Half the height of the confidence band around an empirical distribution function of n values.

    Units: probability.  Valid for independent values, simultaneously at all points.
    Source: Dvoretzky, Kiefer and Wolfowitz 1956, with the constant of Massart 1990.

    >>> f"{dkw_band(1000):.6f}"
    '0.042947'
    """
    _check(n, level)
    return math.sqrt(math.log(2.0 / (1.0 - level)) / (2.0 * n))


def zero_failures(n: int, level: float = 0.95) -> float:
    """The largest failure rate that n trials without a failure leave possible.

    It is 1 - (1 - level)^(1/n), the rate at which no failure has probability 1 - level.
    Source: Clopper and Pearson 1934, one-sided (about 3/n at 95 %, the rule of three).

    >>> f"{zero_failures(1000):.7f}"
    '0.0029912'
    """
    _check(n, level)
    return -math.expm1(math.log1p(-level) / n)


def proportion_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The Clopper-Pearson interval of a proportion: covers with at least `level`, for every n.

    Source: Clopper and Pearson 1934, by quantiles of the beta distribution.

    >>> proportion_interval(0, 10)[0]
    0.0
    """
    from scipy import special

    _check(n, level)
    whole("successes", successes, 0, n)
    tail = (1.0 - level) / 2.0
    low = special.betaincinv(successes, n - successes + 1, tail) if successes else 0.0
    high = special.betainccinv(successes + 1, n - successes, tail) if successes < n else 1.0
    return float(low), float(high)


def median_interval(values: npt.ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """An interval of the median of what independent values are drawn from: covers it with at least `level`.

    Its ends are the k-th value from below and from above, k the largest with 2 P(B < k) <= 1 - level,
    B the number of heads in n fair throws.  Nothing is assumed of the distribution: it may be skewed,
    have ties or infinities.  It is conservative: at 95 % it covers with 96.9 % at 6 values, 97.9 % at
    16, 95.7 % at 30, and with more where values tie.  NaN among the values is left out.  NaN, "too few",
    where even the extremes do not cover: below 6 values at 95 %.
    Source: Thompson 1936; David and Nagaraja, Order Statistics, 3rd ed., 7.1.

    >>> median_interval([3.0, 1.0, 2.0, 6.0, 5.0, 4.0]), median_interval([1.0, 2.0])
    ((1.0, 6.0), (nan, nan))
    """
    from scipy import special

    flat = as_float64(values)[0].ravel()
    ordered = np.sort(flat[~np.isnan(flat)])
    n = ordered.size
    _check(max(n, 1), level)
    half = special.bdtr(np.arange(max(n, 1)), max(n, 1), 0.5)  # P(B <= j)
    k = int(np.sum(2.0 * half <= 1.0 - level)) if n else 0
    return (float(ordered[k - 1]), float(ordered[n - k])) if k else (math.nan, math.nan)


@dataclass(frozen=True, eq=False)
class Paired:
    """Two errors per seed, compared across seeds.

    n pairs are compared: ties + first_wins + second_wins (a win is a smaller error); `excluded`
    more have a NaN and are not.  p_value: two-sided, of no difference.  effect: matched-pairs
    rank-biserial correlation, 1 where the first is always closer, -1 where the second is, ties
    counting as neither.  ratio: median of second / first, 1 for a tie, infinite where the first alone
    is exact or the second alone overflows, and 0 the other way round; interval: of that median, 95 %,
    NaN for fewer than 6 pairs (see `median_interval`).
    """

    n: int
    ties: int
    first_wins: int
    second_wins: int
    excluded: int
    p_value: float
    effect: float
    ratio: float
    interval: tuple[float, float]

    @property
    def factor(self) -> tuple[float, float, float]:
        """The farther error over the closer, whoever that is, and the ends of its interval."""
        if not self.ratio < 1:
            return self.ratio, *self.interval
        low, high = self.interval
        return _inverse(self.ratio), _inverse(high), _inverse(low)

    def closer(self, corrected: float, level: float = 0.05) -> str:
        """Who is: "first" or "second" if the corrected p-value is below `level`, else "neither"."""
        if not corrected < level or self.effect == 0.0:
            return "neither"
        return "first" if self.effect > 0.0 else "second"


def paired(first: npt.ArrayLike, second: npt.ArrayLike) -> Paired:
    """The Wilcoxon signed-rank test, with Pratt's zeros, on log(second / first), one pair per seed.

    Errors are magnitudes.  The logarithm gives each seed the same say, however large its gradient.
    A pair with one error of zero or one of infinity (an overflow) differs by more than any pair of positive
    numbers, and as much as any other such pair; two zeros or two infinities tie.  Ties keep their ranks.
    The p-value is exact, given the ties, for up to 50 pairs that differ, else from the normal
    approximation.

    Raises: ArgumentError for errors of different number and for negative ones.
    Source: Pratt 1959; Cureton 1967; Kerby 2014 (effect, with the ranks of ties in the total).

    >>> paired([1.0, 1.0, 3.0], [1.0, 1.0, 3.0]).p_value
    1.0
    """
    errors_first = as_float64(first)[0].ravel()
    errors_second = as_float64(second)[0].ravel()
    _check_pairs(errors_first, errors_second)
    known = ~(np.isnan(errors_first) | np.isnan(errors_second))
    difference = _log_ratios(errors_first[known], errors_second[known])
    p_value, effect = _signed_rank(difference)
    low, high = median_interval(difference)
    return Paired(
        n=difference.size,
        ties=int((difference == 0).sum()),
        first_wins=int((difference > 0).sum()),
        second_wins=int((difference < 0).sum()),
        excluded=int((~known).sum()),
        p_value=p_value,
        effect=effect,
        ratio=_exp(_middle(difference)),
        interval=(_exp(low), _exp(high)),
    )


def _log_ratios(first: Array, second: Array) -> Array:
    """log(second / first), 0 where both are 0 or infinite."""
    with np.errstate(divide="ignore", invalid="ignore"):
        # A difference of logarithms: it changes only its sign when the two sides are swapped.
        difference = np.log(second) - np.log(first)
    difference = np.where(first == second, 0.0, difference)
    # Two neighbouring floats may share a rounded logarithm; they are no tie.
    hidden = (difference == 0.0) & (first != second)
    return np.where(hidden, np.where(second > first, 2.0**-53, -(2.0**-53)), difference)


def _signed_rank(difference: Array) -> tuple[float, float]:
    """The p-value, and the rank sum of the positive less that of the negative over that of all."""
    from scipy import stats

    signs = np.sign(difference)
    if not signs.any():
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(difference))
    balance = float((signs * ranks).sum())
    effect = balance / float(ranks.sum())
    moving = ranks[signs != 0]
    if moving.size <= _EXACT_PAIRS:
        return _exact_p(moving, balance), effect
    found = stats.wilcoxon(signs * ranks, zero_method="pratt", method="asymptotic")
    return float(found.pvalue), effect


def _exact_p(ranks: Array, balance: float) -> float:
    """P(|sum of +-rank| >= |balance|) with fair signs: the distribution is built rank by rank."""
    # Twice a mid-rank is whole.  chance[k]: the positive ranks, doubled, sum to k.
    doubled = np.rint(2.0 * ranks).astype(np.int64)
    total = int(doubled.sum())
    chance = np.zeros(total + 1)
    chance[0] = 1.0
    for rank in doubled.tolist():
        moved = np.zeros_like(chance)
        moved[rank:] = chance[:-rank]
        chance = 0.5 * (chance + moved)
    sums = 2 * np.arange(total + 1) - total
    extreme = np.abs(sums) >= round(abs(2.0 * balance))
    return min(1.0, float(chance[extreme].sum()))


def _middle(logs: Array) -> float:
    """The median; 0, which is one, between infinities of both signs."""
    found = float(quantiles(logs, 0.5)[0])
    return 0.0 if logs.size and math.isnan(found) else found


def _inverse(ratio: float) -> float:
    return math.inf if ratio == 0 else 1.0 / ratio


def correct(p_values: npt.ArrayLike) -> Array:
    """Benjamini-Hochberg corrected p-values, in the order given.

    Of the tests with a corrected p-value up to q, a fraction of at most q is expected to be false.
    Shapes: (tests,) in and out.
    Raises: ArgumentError for a p-value outside [0, 1] or NaN.
    Source: Benjamini and Hochberg 1995.

    >>> correct([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.04, 0.04]
    """
    from scipy import stats

    p = as_float64(p_values)[0].ravel()
    if not ((p >= 0) & (p <= 1)).all():
        bad = p[~((p >= 0) & (p <= 1))][0]
        raise ArgumentError(f"correct: a p-value is {bad}; pass probabilities in [0, 1]")
    return np.asarray(stats.false_discovery_control(p, method="bh"), np.float64) if p.size else p


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf


def _check(n: int, level: float) -> None:
    whole("n", n, 1)
    fraction("level", level)


def _check_pairs(first: Array, second: Array) -> None:
    if first.size != second.size:
        raise ArgumentError(
            f"paired: {first.size} first and {second.size} second errors; pass one of each per seed"
        )
    if (first < 0).any() or (second < 0).any():
        raise ArgumentError("paired: an error is negative; pass magnitudes")
