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
        return first.same_numbers(second)
    with np.errstate(invalid="ignore"):
        gap = np.abs((first.high - second.high) + (first.low - second.low))
    return np.asarray(gap <= (first.error + second.error) * (1 + 2.0**-50))


#: References closer than this part of their terms differ by a constant rounded to double, not by a bug.
SUSPECT = 2.0**-50


def different(
    first: GradientReference,
    second: GradientReference,
    *,
    exact: bool,
    rigorous: bool,
    where: str = "",
) -> Judgement | None:
    """DIFFERENT (or UNDECIDED, where nothing is proven) by the references; None where they agree.

    They agree, too, where all that separates them is below SUSPECT: a literal rounded to double.
    """
    same = same_reference(first, second, exact=exact)
    if same.all() or constant_apart(first, second):
        return None
    at = _place(~same)
    digits = next(
        (n for n in (6, 17) if f"{first.high[at]:.{n}g}" != f"{second.high[at]:.{n}g}"), 17
    )
    values = f"{first.high[at]:.{digits}g} and {second.high[at]:.{digits}g}"
    if first.high[at] == second.high[at]:
        values += f", which differ by {abs(first.low[at] - second.low[at]):.3g}"
    text = f"{where}at element {list(map(int, at))} the exact gradients are {values}"
    if not rigorous:
        return Judgement(Verdict.UNDECIDED, f"{text}, by references that are not proven")
    return Judgement(Verdict.DIFFERENT, f"different functions: {text}")


def constant_apart(first: GradientReference, second: GradientReference) -> bool:
    """Whether two references differ by less than SUSPECT of what they were made of.

    That is S per element; S compounds over deep traces, but no more than the tensor's largest terms.
    """
    with np.errstate(invalid="ignore"):
        gap = np.abs((first.high - second.high) + (first.low - second.low))
    most = np.minimum(first.terms, second.terms).max(initial=0.0)
    size = np.minimum(np.minimum(first.scale, second.scale), most)
    return bool((gap <= SUSPECT * size).all())


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
    found = different(first, second, exact=exact, rigorous=rigorous)
    if found is not None:
        return found
    finite = np.isfinite(computed_first).all()
    if finite and bitwise_equal(computed_first, computed_second).all():
        return Judgement(Verdict.IDENTICAL, "all bits are equal")
    sides = [
        (names[0], computed_first, first, bound_first),
        (names[1], computed_second, second, bound_second),
    ]
    found = _by_rounding(sides)
    if found is not None:
        return found
    text = "the same function; both errors are what rounding does"
    if not same_reference(first, second, exact=exact).all():
        text += (
            " (their references agree to 2^-50 only: a literal rounded to double sets them apart)"
        )
    return Judgement(Verdict.ROUNDOFF, text)


def judge_opaque(
    reference: GradientReference,
    computed_first: Array,
    computed_second: Array,
    bound: Bound,
    *,
    names: tuple[str, str] = ("first", "second"),
) -> Judgement:
    """The verdict where one side cannot be traced: by the other's reference and bound.

    SUSPICIOUS is the worst that can be said: its algorithm is not known.
    """
    finite = np.isfinite(computed_first).all()
    if finite and bitwise_equal(computed_first, computed_second).all():
        return Judgement(Verdict.IDENTICAL, "all bits are equal")
    both = zip(names, (computed_first, computed_second), strict=True)
    found = _by_rounding([(name, computed, reference, bound) for name, computed in both])
    if found is None:
        return Judgement(Verdict.ROUNDOFF, "both errors are what rounding does in the traced side")
    if found.verdict == Verdict.SUSPICIOUS:
        return Judgement(found.verdict, f"not explained by rounding: {found.reason}")
    return found


def _by_rounding(
    sides: list[tuple[str, Array, GradientReference, Bound]],
) -> Judgement | None:
    """SUSPICIOUS or UNDECIDED by the bounds; None where all errors are what rounding does."""
    for name, computed, reference, bound in sides:
        found = _suspicion(name, computed, reference, bound.certain, bound.format)
        if found:
            return Judgement(Verdict.SUSPICIOUS, found)
    for name, computed, reference, bound in sides:
        likely = bound.likely(FAILURE)
        vague = (likely > reference.scale / 8)[reference.scale > 0].any()
        whole = reference.terms.max(initial=0.0)
        if vague or (whole > 0 and likely.max(initial=0.0) > whole / 8):
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
    return None


def _error(computed: Array, reference: GradientReference) -> Array:
    with np.errstate(invalid="ignore"):
        return np.abs((computed - reference.high) - reference.low)


def _suspicion(
    name: str, computed: Array, reference: GradientReference, certified: Array, format: Format
) -> str | None:
    # Where a finite bound reaches the largest number, an overflow may be rounding's doing.
    reach = np.where(np.isfinite(certified), certified, 0.0)
    representable = np.abs(reference.high) + reach < format.overflow_threshold
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
