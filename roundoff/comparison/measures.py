"""A pair of gradients in numbers: a row of the comparison's table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from roundoff import accuracy, statistics
from roundoff.bounding import tolerance
from roundoff.verdict import FAILURE

if TYPE_CHECKING:
    from roundoff.bounds import Bound
    from roundoff.comparison.result import Pair
    from roundoff.formats import Format
    from roundoff.reference import GradientReference

Array = npt.NDArray[np.float64]


def row(pair: Pair, names: tuple[str, str]) -> dict[str, Any]:
    """For the columns see `Comparison.table`."""
    found: dict[str, Any] = {
        "gradient": pair.gradient,
        "format": str(pair.format),
        "verdict": str(pair.judgement.verdict),
    }
    if pair.computed is not None and pair.references is not None and pair.bounds is not None:
        found |= _measures(pair.computed, pair.references, pair.bounds, pair.format, names)
    if pair.seeds:
        found |= _in_general(pair.seeds, names)
    return {**found, "engine": pair.engine, "reason": pair.judgement.reason}


def _measures(
    computed: tuple[Array, Array], references: tuple[GradientReference, GradientReference],
    bounds: tuple[Bound, Bound], format: Format, names: tuple[str, str],
) -> dict[str, Any]:  # fmt: skip
    (a, b), (one, two), u = computed, references, format.u
    with np.errstate(all="ignore"):
        unit = u * np.where(one.terms > 0, one.terms, np.nan)
        likely = np.maximum(*(bound.likely(FAILURE) for bound in bounds))
        certain = np.maximum(*(bound.certain for bound in bounds))
        gap = np.abs(a - b)
        errors = [accuracy.normwise(v, r.high, r.low) / u for v, r in ((a, one), (b, two))]
        closer, ratio = _closer(errors, names)
        known = np.isfinite(likely).all()
        rtol, atol = tolerance(likely, one.high) if known else (np.inf, np.inf)
        return {
            "bitwise_equal": bool(accuracy.bitwise_equal(a, b).all()),
            "fraction_equal": float(accuracy.bitwise_equal(a, b).mean()),
            "ulp_between": _largest(accuracy.ulp_between(a, b, format)),
            "relative_between": _largest(gap / np.where(one.high != 0, np.abs(one.high), np.nan)),
            "scaled_between": _largest(gap / unit),
            "normwise_between": accuracy.normwise(a, b, 0.0) / u,
            "error_first": errors[0],
            "error_second": errors[1],
            "closer": closer,
            "ratio": ratio,
            "bound_certified": _largest(certain / unit),
            "bound_probabilistic": _largest(likely / unit),
            "rtol": rtol,
            "atol": atol,
        }


def _closer(errors: Sequence[float], names: tuple[str, str]) -> tuple[str, float]:
    """Whose error is smaller, and how many times; nobody's where three digits do not tell them apart."""
    one, two = errors
    if not (np.isfinite(one) and np.isfinite(two)) or one == two:
        return "neither", 1.0
    small, large = min(one, two), max(one, two)
    ratio = large / small if small else float("inf")
    if f"{ratio:.3g}" == "1":
        return "neither", ratio
    return names[0] if one < two else names[1], ratio


def _in_general(seeds: Sequence[tuple[float, float]], names: tuple[str, str]) -> dict[str, Any]:
    errors = np.array(seeds)
    test = statistics.paired(errors[:, 0], errors[:, 1], 0)
    who = {"first": names[0], "second": names[1], "neither": "neither"}[
        test.closer(test.p_value, 0.01)
    ]
    low, high = test.interval
    ratio = test.ratio
    if ratio < 1:
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    return {
        "in_general": who, "seeds": len(seeds), "ratio_in_general": ratio, "ratio_low": low,
        "ratio_high": high,
    }  # fmt: skip


def _largest(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.max()) if known.size else float("nan")
