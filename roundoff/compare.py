"""Verdicts: whether two computed gradients differ by rounding, decided by exact arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from roundoff.accuracy import bitwise_equal
from roundoff.bounds import Bound
from roundoff.formats import Format
from roundoff.reference import GradientReference

Array = npt.NDArray[np.float64]

#: Failure probability of the probabilistic bound per comparison (design decision 10).
FAILURE = 1e-9


class Verdict(StrEnum):
    """What two computed gradients have to do with each other."""

    IDENTICAL = "IDENTICAL"
    ROUNDOFF = "ROUNDOFF"
    UNDECIDED = "UNDECIDED"
    SUSPICIOUS = "SUSPICIOUS"
    DIFFERENT = "DIFFERENT"


#: From harmless to grave; of several comparisons the gravest stands.
SEVERITY = tuple(Verdict)


@dataclass(frozen=True)
class Judgement:
    """A verdict, with its reason in words."""

    verdict: Verdict
    reason: str


def same_reference(
    first: GradientReference, second: GradientReference, *, exact: bool
) -> npt.NDArray[np.bool_]:
    """Per element, whether two references can be the same number.

    exact: both have no error at all, and the engines' own numbers are compared; otherwise elements are
    apart only if their enclosures are.
    """
    if exact:
        pairs = zip(first.numbers.ravel(), second.numbers.ravel(), strict=True)
        return np.array([a == b for a, b in pairs], bool).reshape(first.high.shape)
    with np.errstate(invalid="ignore"):
        gap = np.abs((first.high - second.high) + (first.low - second.low))
    return np.asarray(gap <= (first.error + second.error) * (1 + 2.0**-50))


def judge(
    first: GradientReference,
    second: GradientReference,
    computed_first: Array,
    computed_second: Array,
    bound_first: Bound,
    bound_second: Bound,
    *,
    exact: bool,
    rigorous: bool,
    names: tuple[str, str] = ("first", "second"),
) -> Judgement:
    """The verdict on one pair of computed gradients, in the order of design decision 10.

    Shapes: the computed gradients have the references' shape.
    """
    same = same_reference(first, second, exact=exact)
    if not same.all():
        at = _place(~same)
        values = f"{first.high[at]:.6g} and {second.high[at]:.6g}"
        where = f"at element {list(map(int, at))} the exact gradients are {values}"
        if not rigorous:
            return Judgement(Verdict.UNDECIDED, f"{where}, by references that are not proven")
        return Judgement(Verdict.DIFFERENT, f"different functions: {where}")
    if bitwise_equal(computed_first, computed_second).all():
        return Judgement(Verdict.IDENTICAL, "all bits are equal")
    sides = [
        (names[0], computed_first, first, bound_first),
        (names[1], computed_second, second, bound_second),
    ]
    for name, computed, reference, bound in sides:
        found = _suspicion(name, computed, reference, bound.certain, bound.format)
        if found:
            return Judgement(Verdict.SUSPICIOUS, found)
    for name, computed, reference, bound in sides:
        likely = bound.likely(FAILURE)
        if (likely > reference.scale / 8)[reference.scale > 0].any():
            return Judgement(
                Verdict.UNDECIDED,
                f"cannot tell rounding from a bug in {bound.format}: too few bits",
            )
        beyond = _error(computed, reference) > likely + reference.error
        if (beyond & np.isfinite(computed)).any():
            return Judgement(
                Verdict.SUSPICIOUS,
                f"{name} errs more than rounding does but once in {1 / FAILURE:.0e} comparisons",
            )
    return Judgement(Verdict.ROUNDOFF, "the same function; both errors are what rounding does")


def _error(computed: Array, reference: GradientReference) -> Array:
    with np.errstate(invalid="ignore"):
        return np.abs((computed - reference.high) - reference.low)


def _suspicion(
    name: str, computed: Array, reference: GradientReference, certified: Array, format: Format
) -> str | None:
    # Where the bound reaches the largest number, an overflow may be rounding's doing.
    representable = np.abs(reference.high) + certified < format.overflow_threshold
    lost = ~np.isfinite(computed) & representable
    if lost.any():
        at = _place(lost)
        return (
            f"{name} is {computed[at]} at element {list(map(int, at))}, where the exact gradient "
            f"{reference.high[at]:.6g} is an ordinary {format} number"
        )
    beyond = np.isfinite(computed) & (_error(computed, reference) > certified + reference.error)
    if beyond.any():
        at = _place(beyond)
        return (
            f"{name} errs by {_error(computed, reference)[at]:.3g} at element {list(map(int, at))}, "
            f"where no order of rounded operations exceeds {certified[at]:.3g}"
        )
    return None


def _place(mask: npt.NDArray[np.bool_]) -> tuple[np.intp, ...]:
    found = np.unravel_index(int(np.argmax(mask)), mask.shape)
    return tuple(found)


def gravest(verdicts: list[Verdict]) -> Verdict:
    """The verdict of several comparisons of the same two functions."""
    return max(verdicts, key=SEVERITY.index)
