"""Summaries, distribution functions, intervals and paired tests: numbers in, numbers out.

The unit of replication is the seed.  Values that are not finite are counted, never averaged.
scipy.stats is imported where it is used: it takes longer to load than the rest of the package.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from roundoff.errors import ArgumentError
from roundoff.exclusive import SETTINGS

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Seed = int | Sequence[int]

__all__ = [
    "Ecdf",
    "Paired",
    "Summary",
    "correct",
    "dkw_band",
    "ecdf",
    "paired",
    "proportion_interval",
    "ratio_interval",
    "summarise",
    "zero_failures",
]

#: Up to this many pairs that differ, the null distribution is enumerated instead of approximated.
_EXACT_PAIRS = 50
_RESAMPLES = 1999


@dataclass(frozen=True, eq=False)
class Summary:
    """Order statistics and moments over the finite values of each row; NaN where there are none.

    n counts all values, finite the finite ones, zeros the exact zeros.
    """

    n: Counts
    finite: Counts
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
    rows = np.atleast_1d(np.asarray(values, np.float64))
    if rows.shape[-1] == 0:
        raise ArgumentError(f"summarise: values have shape {rows.shape}; there is nothing to count")
    usable = np.isfinite(rows)
    finite = np.asarray(usable.sum(axis=-1), np.int64)
    ordered = np.sort(np.where(usable, rows, np.nan), axis=-1)  # NaN sorts last
    mean, rms = _moments(np.where(usable, rows, 0.0), finite)
    return Summary(
        n=np.full(finite.shape, rows.shape[-1], np.int64),
        finite=finite,
        zeros=np.asarray((rows == 0).sum(axis=-1), np.int64),
        minimum=_quantile(ordered, finite, 0.0),
        lower_quartile=_quantile(ordered, finite, 0.25),
        median=_quantile(ordered, finite, 0.5),
        upper_quartile=_quantile(ordered, finite, 0.75),
        percentile_95=_quantile(ordered, finite, 0.95),
        maximum=_quantile(ordered, finite, 1.0),
        mean=mean,
        rms=rms,
    )


def _quantile(ordered: Array, finite: Counts, q: float) -> Array:
    position = np.maximum(finite - 1, 0) * q
    below = np.floor(position).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(finite - 1, 0))
    low = np.take_along_axis(ordered, below[..., None], axis=-1)[..., 0]
    high = np.take_along_axis(ordered, above[..., None], axis=-1)[..., 0]
    part = position - below
    # Not low + part (high - low): the difference of two finite numbers may overflow.
    return np.where(low == high, low, low * (1.0 - part) + high * part)


def _moments(values: Array, finite: Counts) -> tuple[Array, Array]:
    """Mean and root mean square; each row is scaled by a power of two, so no sum overflows."""
    exponent = np.frexp(np.abs(values).max(axis=-1))[1]
    with np.errstate(under="ignore", divide="ignore", invalid="ignore"):
        scaled = np.ldexp(values, -exponent[..., None])
        mean = scaled.sum(axis=-1) / finite
        rms = np.sqrt((scaled * scaled).sum(axis=-1) / finite)
        return np.ldexp(mean, exponent), np.ldexp(rms, exponent)


@dataclass(frozen=True, eq=False)
class Ecdf:
    """An empirical distribution function: `fraction` of all n values are <= `values`, which ascend.

    Values that are not finite stay in n, so the last fraction is below 1 where there are some.
    Exact zeros are the first point of a function of magnitudes: a logarithmic axis bins them apart.
    """

    values: Array
    fraction: Array
    n: int


def ecdf(values: npt.ArrayLike) -> Ecdf:
    """The empirical distribution function of all values of an array.

    >>> ecdf([2.0, 1.0, 2.0, float("inf")]).fraction.tolist()
    [0.25, 0.75]
    """
    flat = np.asarray(values, np.float64).ravel()
    distinct, counts = np.unique(flat[np.isfinite(flat)], return_counts=True)
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
    if not 0 <= successes <= n:
        raise ArgumentError(f"proportion_interval: {successes} successes of {n}; count 0 to n")
    tail = (1.0 - level) / 2.0
    low = special.betaincinv(successes, n - successes + 1, tail) if successes else 0.0
    high = special.betainccinv(successes + 1, n - successes, tail) if successes < n else 1.0
    return float(low), float(high)


def ratio_interval(ratios: npt.ArrayLike, seed: Seed, level: float = 0.95) -> tuple[float, float]:
    """A bootstrap interval of the geometric mean of positive ratios, one ratio per seed.

    Bias-corrected and accelerated, on logarithms, 1999 resamples by `numpy.random.default_rng`.
    One point where all ratios are equal; NaN for fewer than two ratios.
    Raises: ArgumentError for ratios that are not positive and finite.
    Source: Efron 1987.
    """
    values = np.asarray(ratios, np.float64).ravel()
    if not (np.isfinite(values) & (values > 0)).all():
        raise ArgumentError(
            "ratio_interval: ratios must be positive and finite; count others apart"
        )
    return _log_mean_interval(np.log(values), seed, level)


def _log_mean_interval(logs: Array, seed: Seed, level: float) -> tuple[float, float]:
    from scipy import stats

    if logs.size < 2:
        return math.nan, math.nan
    # Logarithms within a few roundings of each other: nothing to resample.
    if np.ptp(logs) <= 2.0**-48 * np.abs(logs).max():
        return math.exp(float(logs[0])), math.exp(float(logs[0]))
    with SETTINGS, np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = stats.bootstrap(
            (logs,),
            np.mean,
            n_resamples=_RESAMPLES,
            batch=max(1, 2_000_000 // logs.size),
            confidence_level=level,
            method="BCa",
            rng=np.random.default_rng(seed),
        )
    ends = np.array(found.confidence_interval, np.float64)
    if not np.isfinite(ends).all():
        tail = (1.0 - level) / 2.0
        ends = np.quantile(found.bootstrap_distribution, [tail, 1.0 - tail])
    return _exp(float(ends[0])), _exp(float(ends[1]))


@dataclass(frozen=True, eq=False)
class Paired:
    """Two errors per seed, compared across seeds.

    n pairs are compared: ties + first_wins + second_wins (a win is a smaller error); `excluded`
    more have a NaN and are not.  p_value: two-sided, of no difference.  effect: matched-pairs
    rank-biserial correlation, 1 where the first is always closer, -1 where the second is, ties
    counting as neither.  ratio: geometric mean of second / first over the `in_ratio`
    pairs with both nonzero and finite; 1 where all pairs tie, NaN where no pair has a ratio.
    interval: its 95 % bootstrap interval.
    """

    n: int
    ties: int
    first_wins: int
    second_wins: int
    excluded: int
    p_value: float
    effect: float
    ratio: float
    in_ratio: int
    interval: tuple[float, float]

    def closer(self, corrected: float, level: float = 0.05) -> str:
        """Who is: "first" or "second" if the corrected p-value is below `level`, else "neither"."""
        if not corrected < level or self.effect == 0.0:
            return "neither"
        return "first" if self.effect > 0.0 else "second"


def paired(first: npt.ArrayLike, second: npt.ArrayLike, seed: Seed) -> Paired:
    """The Wilcoxon signed-rank test, with Pratt's zeros, on log(second / first), one pair per seed.

    Errors are magnitudes.  The logarithm gives each seed the same say, however large its gradient.
    A pair with one error of zero (or infinity) differs by more than any pair of positive numbers,
    and as much as any other such pair; two zeros or two infinities tie.  Ties keep their ranks.
    The p-value is exact, given the ties, for up to 50 pairs that differ, else from the normal
    approximation.

    Raises: ArgumentError for errors of different number and for negative ones.
    Source: Pratt 1959; Cureton 1967; Kerby 2014 (effect, with the ranks of ties in the total).

    >>> paired([1.0, 1.0, 3.0], [1.0, 1.0, 3.0], seed=0).p_value
    1.0
    """
    errors_first = np.asarray(first, np.float64).ravel()
    errors_second = np.asarray(second, np.float64).ravel()
    _check_pairs(errors_first, errors_second)
    known = ~(np.isnan(errors_first) | np.isnan(errors_second))
    difference, usable = _log_ratios(errors_first[known], errors_second[known])
    p_value, effect = _signed_rank(difference)
    logs = difference[usable]
    ratio, interval = _ratio(logs, bool((difference == 0).all()), seed)
    return Paired(
        n=difference.size,
        ties=int((difference == 0).sum()),
        first_wins=int((difference > 0).sum()),
        second_wins=int((difference < 0).sum()),
        excluded=int((~known).sum()),
        p_value=p_value,
        effect=effect,
        ratio=ratio,
        in_ratio=logs.size,
        interval=interval,
    )


def _log_ratios(first: Array, second: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """log(second / first), 0 where both are 0 or infinite; and where the ratio is a number."""
    with np.errstate(divide="ignore", invalid="ignore"):
        # A difference of logarithms: it changes only its sign when the two sides are swapped.
        difference = np.log(second) - np.log(first)
    difference = np.where(first == second, 0.0, difference)
    # Two neighbouring floats may share a rounded logarithm; they are no tie.
    hidden = (difference == 0.0) & (first != second)
    difference = np.where(hidden, np.where(second > first, 2.0**-53, -(2.0**-53)), difference)
    usable = (first > 0) & (second > 0) & np.isfinite(first) & np.isfinite(second)
    return difference, usable


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


def _ratio(logs: Array, all_tie: bool, seed: Seed) -> tuple[float, tuple[float, float]]:
    if all_tie:
        return 1.0, (1.0, 1.0)
    if logs.size == 0:
        return math.nan, (math.nan, math.nan)
    return _exp(float(logs.mean())), _log_mean_interval(logs, seed, 0.95)


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

    p = np.asarray(p_values, np.float64).ravel()
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
    if n < 1:
        raise ArgumentError(f"statistics: n is {n}; at least one value is needed")
    if not 0.0 < level < 1.0:
        raise ArgumentError(f"statistics: level is {level}; it is a probability in (0, 1)")


def _check_pairs(first: Array, second: Array) -> None:
    if first.size != second.size:
        raise ArgumentError(
            f"paired: {first.size} first and {second.size} second errors; pass one of each per seed"
        )
    if (first < 0).any() or (second < 0).any():
        raise ArgumentError("paired: an error is negative; pass magnitudes")
