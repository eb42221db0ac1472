"""A pair of gradients in numbers: a row of the comparison's table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.judging.comparison.pairs import Pair
from roundoff.judging.evidence import Judged, tolerance_pair
from roundoff.judging.verdict import Verdict, agree, equal_bits, normwise_errors
from roundoff.numbers import accuracy, statistics

Array = npt.NDArray[np.float64]

#: Who is closer, where each side has its own exact gradient.
NO_QUESTION = "no question"


def row(pair: Pair, names: tuple[str, str]) -> dict[str, Any]:
    """One row of the comparison's table; for the columns see `Comparison.table`."""
    found: dict[str, Any] = {
        "gradient": pair.gradient,
        "format": str(pair.format),
        "verdict": str(pair.judgement.verdict),
    }
    if pair.sides is not None:
        found |= measures(*pair.sides)
        predicted = pair.judgement.evidence == "predicted"
        found["predicted"] = max(map(_predicted, pair.sides)) if predicted else np.nan
        if pair.judgement.verdict == Verdict.ROUNDOFF:
            found["notices"] = max(side.power.factor for side in pair.sides)
        if one_question(pair):
            errors = found["error_first"], found["error_second"]
            closer, ratio = ("neither", 1.0) if found["bitwise_equal"] else _closer(errors, names)
            found |= {"closer": closer, "ratio": ratio}
        else:
            found |= {"closer": NO_QUESTION, "ratio": np.nan}
            for error, side in zip(("error_first", "error_second"), pair.sides, strict=True):
                if not side.traced:  # no error of its own is known
                    found[error] = np.nan
    if pair.seeds and one_question(pair):
        found |= _in_general(pair.seeds, names)
    judgement = pair.judgement
    return {
        **found,
        "engine": pair.engine,
        "evidence": judgement.evidence,
        "reason": judgement.reason,
    }


def one_question(pair: Pair) -> bool:
    """Whether the errors of both sides are against one exact gradient, so that one may be closer to it.

    They are not for different functions, nor where the reference is that of one side alone and the other
    is off it.
    """
    if pair.sides is None or pair.judgement.verdict == Verdict.DIFFERENT:
        return False
    first, second = pair.sides
    if not (first.traced and second.traced):
        return pair.judgement.verdict in (Verdict.IDENTICAL, Verdict.ROUNDOFF)
    return agree(first.reference, second.reference, exact=first.exact and second.exact)


def measures(first: Judged, second: Judged) -> dict[str, Any]:
    """How far two sides are apart, and how far from what is exact where that is known."""
    one, two = first.reference, second.reference
    a, b, known, format = first.computed, second.computed, one.known & two.known, first.bound.format
    u = format.u
    with np.errstate(all="ignore"):
        unit = u * np.where(known & (one.terms > 0), one.terms, np.nan)
        likely = np.maximum(first.likely, second.likely)
        certain = np.maximum(first.certain, second.certain)
        numbers = ~(np.isnan(a) & np.isnan(b))
        apart = np.isfinite(a) != np.isfinite(b)  # an infinity or a NaN beside a number
        gap = np.where(apart, np.inf, np.abs(a - b))
        exact = first.exact and second.exact
        errors = [error / u for error in normwise_errors((a, b), (one, two), exact=exact)]
        rtol, atol = tolerance_pair(first, second)
        equal = equal_bits(a, b)
        return {
            "bitwise_equal": bool(equal.all()),
            "fraction_equal": float(equal.mean()),
            "ulp_between": _largest(accuracy.ulp_between(a, b, format)),
            "relative_between": _largest(gap / np.where(one.high != 0, np.abs(one.high), np.nan)),
            "scaled_between": _largest(gap / unit),
            "normwise_between": np.inf
            if apart.any()
            else accuracy.normwise(a[numbers], b[numbers], 0.0) / u,
            "error_first": errors[0],
            "error_second": errors[1],
            "not_finite_first": int((~np.isfinite(a)).sum()),
            "not_finite_second": int((~np.isfinite(b)).sum()),
            "without_value": int((~(one.known | two.known)).sum()),
            "bound_certified": _largest(certain / unit),
            "bound_probabilistic": _largest(likely / unit),
            "rtol": rtol,
            "atol": atol,
        }


def _predicted(side: Judged) -> float:
    """The predicted error in the 2-norm, in u; NaN where nothing is predicted."""
    return np.nan if side.ordinary is None else side.ordinary.median


def _closer(errors: Sequence[float], names: tuple[str, str]) -> tuple[str, float]:
    """Whose error is smaller, and how many times; nobody's where three digits do not tell them apart.

    An overflow is an infinite error: the other side is closer, infinitely many times.
    """
    one, two = errors
    if np.isnan(one) or np.isnan(two) or one == two:
        return "neither", 1.0
    small, large = min(one, two), max(one, two)
    ratio = large / small if small else float("inf")
    if f"{ratio:.3g}" == "1":
        return "neither", ratio
    return names[0] if one < two else names[1], ratio


def _in_general(seeds: Sequence[tuple[float, float]], names: tuple[str, str]) -> dict[str, Any]:
    errors = np.array(seeds)
    test = statistics.paired(errors[:, 0], errors[:, 1])
    who = {"first": names[0], "second": names[1], "neither": "neither"}[
        test.closer(test.p_value, 0.01)
    ]
    ratio, low, high = test.factor
    return {
        "in_general": who, "seeds": len(seeds), "ratio_in_general": ratio, "ratio_low": low,
        "ratio_high": high,
    }  # fmt: skip


def _largest(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.max()) if known.size else float("nan")
