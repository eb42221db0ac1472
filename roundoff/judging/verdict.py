"""Verdicts: whether two computed gradients differ by rounding, decided by exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

import numpy as np
import numpy.typing as npt

from roundoff.gradients.reference import GradientReference
from roundoff.judging.evidence import FAILURE, Judged, vague
from roundoff.judging.ordinary import Ordinary
from roundoff.numbers.accuracy import bitwise_equal, normwise

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Verdict(StrEnum):
    """What two computed gradients have to do with each other."""

    IDENTICAL = "IDENTICAL"
    ROUNDOFF = "ROUNDOFF"
    UNDECIDED = "UNDECIDED"
    SUSPICIOUS = "SUSPICIOUS"
    DIFFERENT = "DIFFERENT"


#: From harmless to grave; of several comparisons the gravest stands.
SEVERITY = tuple(Verdict)


#: Errors of numbers that are flushed: 2^30 times the largest one that can be.
TINY = 2.0**-96

#: What a verdict can rest on: the exact values, equal bits, what rounding cannot do, what it does once in 1e9
#: comparisons at most, what it usually does.
EVIDENCE = ("exact", "bits", "certified", "probabilistic", "predicted")


@dataclass(frozen=True)
class Judgement:
    """A verdict, with its reason in words.

    evidence: what decides, the strongest that does, of EVIDENCE; "" where nothing does.
    """

    verdict: Verdict
    reason: str
    evidence: str = ""


def same_reference(first: GradientReference, second: GradientReference, *, exact: bool) -> Mask:
    """Per element, whether two references can be the same number; true where one of them is not known.

    exact: both have no error at all, and the engines' own numbers are compared; otherwise elements are
    apart only if their enclosures are.
    """
    known = first.known & second.known
    if exact:
        return first.same_numbers(second) | ~known
    with np.errstate(invalid="ignore"):
        gap = np.abs((first.high - second.high) + (first.low - second.low))
        return np.asarray((gap <= (first.error + second.error) * (1 + 2.0**-50)) | ~known)


def agree(first: GradientReference, second: GradientReference, *, exact: bool) -> bool:
    """Whether two references are the same, or all but: literals rounded to double may set them apart."""
    return bool(same_reference(first, second, exact=exact).all()) or bool(
        by_literals(first, second).all()
    )


def by_literals(first: GradientReference, second: GradientReference) -> Mask:
    """Per element, whether two references are no farther apart than the literals of both sides explain."""
    with np.errstate(invalid="ignore"):
        gap = np.abs((first.high - second.high) + (first.low - second.low))
        reach = (first.error + second.error) + (first.literals + second.literals)
        return np.asarray((gap <= reach) | ~(first.known & second.known))


def normwise_errors(
    computed: Sequence[Array], references: Sequence[GradientReference], *, exact: bool
) -> tuple[float, float]:
    """The relative errors of both sides in the 2-norm, over one set of elements.

    Of one function a side's exact value is the other's, too: where a side's own is not known, that of the
    other side is the measure, and a NaN there is an infinite error.  Of two functions, only elements where
    both have their own count.
    """
    first, second = references
    alike = agree(first, second, exact=exact)
    known = first.known | second.known if alike else first.known & second.known
    found = []
    for values, reference, other in zip(computed, references, (second, first), strict=True):
        high, low = (
            np.where(reference.known, a, b)
            for a, b in ((reference.high, other.high), (reference.low, other.low))
        )
        found.append(normwise(values[known], high[known], low[known]))
    return found[0], found[1]


def different(
    first: GradientReference,
    second: GradientReference,
    *,
    exact: bool,
    rigorous: bool,
    where: str = "",
    what: str = "gradient",
) -> Judgement | None:
    """DIFFERENT (or UNDECIDED, where nothing is proven) by the references; None where they agree.

    They agree, too, where literals rounded to double may be all that separates them.
    what: the name of what they are references of, for the reason.
    """
    if agree(first, second, exact=exact):
        return None
    apart = ~same_reference(first, second, exact=exact) & ~by_literals(first, second)
    with np.errstate(invalid="ignore"):
        gap = np.abs((first.high - second.high) + (first.low - second.low))
    at = _place(apart)
    digits = next(
        (n for n in (6, 17) if f"{first.high[at]:.{n}g}" != f"{second.high[at]:.{n}g}"), 17
    )
    values = f"{first.high[at]:.{digits}g} and {second.high[at]:.{digits}g}"
    if first.high[at] == second.high[at]:
        values += f", which differ by {abs(first.low[at] - second.low[at]):.3g}"
    text = f"{where}at element {_listed(at)} the exact {what}s are {values}"
    if apart.size > 1:
        most = gap[apart].max()
        text += f"; {apart.sum()} of {apart.size} elements {'differs' if apart.sum() == 1 else 'differ'}"
        text += f", by up to {most:.3g}" if most else ""
    if not rigorous:
        return Judgement(Verdict.UNDECIDED, f"{text}, by references that are not proven")
    return Judgement(Verdict.DIFFERENT, f"different functions: {text}", "exact")


def judge(first: Judged, second: Judged) -> Judgement:
    """The verdict on one pair of computed gradients.  The first of these that holds:

    DIFFERENT    the exact gradients are apart (UNDECIDED if the references are not proven)
    IDENTICAL    all bits are equal, NaN for NaN, and not all of them are NaN
    SUSPICIOUS   a side is infinite or NaN where the exact gradient is an ordinary number of the format
    SUSPICIOUS   a side errs beyond its certified bound
    UNDECIDED    the sides are apart where no exact gradient is known, or one is NaN, or infinite with the
                 wrong sign, where the exact gradient overflows
    SUSPICIOUS   a side errs beyond its probabilistic bound or, where that decides nothing (it is above VAGUE
                 of the terms), several times beyond the predicted error
    ROUNDOFF     none of these

    Where one side's exact gradient is not known, that of the other is the measure.  A side that is not
    traced has the other's reference, and the exact gradients are not compared; that it is off does not tell
    which one is wrong, and the reason says so.
    """
    sides = _Measured(first, second), _Measured(second, first)
    if first.traced and second.traced:
        exact, rigorous = first.exact and second.exact, first.rigorous and second.rigorous
        found = different(
            first.reference, second.reference, exact=exact, rigorous=rigorous, what=first.what
        )
        if found is not None:
            return found
    equal = equal_bits(first.computed, second.computed)
    if equal.all() and not (np.isnan(first.computed).all() and equal.size):
        return Judgement(Verdict.IDENTICAL, "all bits are equal" + _not_finite(sides[0]), "bits")
    for reason in _lost(*sides):
        return Judgement(Verdict.SUSPICIOUS, reason, "certified")
    for side in sides:
        beyond = ~side.borrowed & side.beyond(side.certain)
        if beyond.any():
            return Judgement(Verdict.SUSPICIOUS, _beyond(side, beyond), "certified")
    reason = _apart_without_reference(*sides, equal) or _beside_overflow(*sides)
    if reason:
        return Judgement(Verdict.UNDECIDED, reason)
    bounds = all(side.decides for side in sides)
    return (_by_bounds if bounds else _by_prediction)(*sides, equal)


class _Measured:
    """A side's errors, by its own reference and bound or, where its own is not known, by the other side's."""

    def __init__(self, own: Judged, other: Judged) -> None:
        self.own, self.other, self.computed = own, other, own.computed
        self.borrowed: Mask = ~own.reference.known & other.reference.known
        self.known: Mask = own.reference.known | other.reference.known
        self.high = self._either(own.reference.high, other.reference.high)
        self.low = self._either(own.reference.low, other.reference.low)
        self.radius = self._either(own.reference.error, other.reference.error)

    def _either(self, own: Array, other: Array) -> Array:
        return np.where(self.borrowed, other, own) if self.borrowed.any() else own

    @cached_property
    def signed(self) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray((self.computed - self.high) - self.low)

    @cached_property
    def error(self) -> Array:
        return np.abs(self.signed)

    @cached_property
    def certain(self) -> Array:
        return self._either(self.own.certain, self.other.certain)

    @cached_property
    def likely(self) -> Array:
        return self._either(self.own.likely, self.other.likely)

    def beyond(self, bound: Array) -> Mask:
        """Where the error of a finite number exceeds a bound."""
        return np.isfinite(self.computed) & self.known & (self.error > bound + self.radius)

    @property
    def lost(self) -> Mask:
        """Where the side is no finite number, and the exact one is an ordinary number of the format.

        Where a finite bound reaches the largest number, an overflow may be rounding's doing.
        """
        lost = ~np.isfinite(self.computed) & self.known
        if not lost.any():
            return lost
        reach = np.where(np.isfinite(self.certain), self.certain, 0.0)
        return lost & (np.abs(self.high) + reach < self.own.bound.format.overflow_threshold)

    @property
    def decides(self) -> bool:
        """Whether the probabilistic bound does."""
        own, other = self.own.reference, self.other.reference
        scale, terms = self._either(own.scale, other.scale), self._either(own.terms, other.terms)
        return not vague(self.likely, scale, terms, self.known)

    @property
    def ordinary(self) -> Ordinary | None:
        """What errors are, by the side's own prediction, or the other's where nothing of its own is known."""
        return (self.other if self._unknown else self.own).ordinary

    @property
    def _unknown(self) -> bool:
        """Whether no exact value of its own is known."""
        return bool(self.borrowed.all() and self.borrowed.size)

    @property
    def unpredicted(self) -> str:
        """What the prediction leaves out that may explain the error, in words; "" if nothing does.

        Numbers that are flushed, for errors below TINY; and another branch, where errors WILD times as large
        take it and are as large.
        """
        ordinary = self.ordinary
        if ordinary is not None and ordinary.tiny and self.error[self.known].max() < TINY:
            return f"numbers are so small that kernels may flush them to zero ({ordinary.tiny})"
        tipped = (self.other if self._unknown else self.own).tipped()
        if tipped is None or not tipped.branch:
            return ""
        error = np.where(self.known & np.isfinite(self.signed), self.signed, 0.0)
        if np.linalg.norm(error) > 2.0 * tipped.norm:
            return ""
        return f"rounding may take another branch ({tipped.branch}), which makes errors as large"

    def exact(self, at: tuple[int, ...]) -> str:
        """The exact value at an element, and whose it is if it is not the side's own."""
        text = f"the exact {self.own.what} {self.high[at]:.6g}"
        if self.borrowed[at]:
            text += f" of {self.other.name}"
        return text

    @property
    def neutral(self) -> str:
        """What is said of a side that has no trace of its own, in place of blaming it."""
        return f"; {self.own.name} has no trace, so which one is wrong is not decided"


def _by_bounds(first: _Measured, second: _Measured, equal: Mask) -> Judgement:
    for side in (first, second):
        if (side.beyond(side.likely) & ~side.borrowed).any():
            return Judgement(Verdict.SUSPICIOUS, _unlikely(side), "probabilistic")
    return Judgement(Verdict.ROUNDOFF, _rounding(first, second, equal), "probabilistic")


def _by_prediction(first: _Measured, second: _Measured, equal: Mask) -> Judgement:
    """Where bounds decide nothing: are the errors those that rounding makes here?"""
    for side in (first, second):
        if side.ordinary is None:
            return Judgement(
                Verdict.UNDECIDED,
                f"cannot tell rounding from a bug in {side.own.bound.format}: what {side.own.name} computes "
                "overflows on the way; take smaller inputs, or a wider format",
            )
        how = side.ordinary.beyond(side.signed, side.radius)
        if how:
            reason = f"{side.own.name} errs {how} (predicted)"
            why = side.unpredicted
            if why:
                return Judgement(Verdict.UNDECIDED, f"{reason}, but {why}")
            if not side.own.traced:
                reason = (
                    f"not explained by rounding: beside {side.other.name}, {reason}{side.neutral}"
                )
            return Judgement(Verdict.SUSPICIOUS, reason, "predicted")
    return Judgement(Verdict.ROUNDOFF, _rounding(first, second, equal, " (predicted)"), "predicted")


def _lost(first: _Measured, second: _Measured) -> Iterator[str]:
    for side, other in ((first, second), (second, first)):
        lost = side.lost
        if not lost.any():
            continue
        both = lost & other.lost & equal_bits(side.computed, other.computed)
        at = _place(both if both.any() else lost)
        who = f"{side.own.name} and {other.own.name} are" if both.any() else f"{side.own.name} is"
        text = f"{who} {side.computed[at]} at element {_listed(at)}{_count(lost)}, where "
        text += f"{side.exact(at)} is an ordinary {side.own.bound.format} number"
        if side.borrowed[at]:
            text += f"; its own has no value: {side.own.reference.why(at)}"
        yield text + ("" if both.any() or side.own.traced else side.neutral)


def _beyond(side: _Measured, beyond: Mask) -> str:
    at = _worst(side, side.certain, beyond)
    limit, place = f"{side.certain[at]:.3g}", _listed(at)
    if side.own.traced:
        return (
            f"{side.own.name} errs by {side.error[at]:.3g} at element {place}{_count(beyond)}, where no "
            f"order of rounded operations exceeds {limit}"
        )
    gap = abs(side.computed[at] - side.other.computed[at])
    return (
        f"not explained by rounding: {side.own.name} and {side.other.name} differ by {gap:.3g} at element "
        f"{place}{_count(beyond)}, where rounding in {side.other.name} does not exceed {limit}"
        + side.neutral
    )


def _unlikely(side: _Measured) -> str:
    rare = f"more than rounding does but once in {1 / FAILURE:.0e} comparisons"
    if side.own.traced:
        return f"{side.own.name} errs {rare}"
    return (
        f"not explained by rounding: {side.own.name} and {side.other.name} differ by {rare}"
        + side.neutral
    )


def _apart_without_reference(first: _Measured, second: _Measured, equal: Mask) -> str:
    """Where the sides are apart at an element whose exact value, or whose side's own, is not known."""
    unknown = ~first.known & (~equal | np.isnan(first.computed).all())
    borrowed = [side.borrowed & side.beyond(side.likely) for side in (first, second)]
    apart = unknown | borrowed[0] | borrowed[1]
    if not apart.any():
        return ""
    at, what = _place(apart), first.own.what
    side = first if not first.own.reference.known[at] else second
    values = f"{first.own.name} is {first.computed[at]:.6g} and {second.own.name} {second.computed[at]:.6g}"
    whose = f"of {side.own.name} " if side.known[at] else ""
    text = (
        f"at element {_listed(at)}{_count(apart)} the exact {what} {whose}has no known value "
        f"({side.own.reference.why(at)}); {values}"
    )
    return text + (f", where {side.exact(at)} is known" if side.known[at] else "")


def _beside_overflow(first: _Measured, second: _Measured) -> str:
    """Where a side is NaN, or infinite with the wrong sign, where the exact value is beyond the format."""
    for side in (first, second):
        infinite = np.copysign(np.inf, side.high)
        odd = side.known & ~np.isfinite(side.computed) & (side.computed != infinite)
        if odd.any():
            at = _place(odd)
            return (
                f"{side.own.name} is {side.computed[at]} at element {_listed(at)}{_count(odd)}, where "
                f"{side.exact(at)} is beyond {side.own.bound.format}'s range, or what leads to it; take "
                "smaller inputs, or a wider format"
            )
    return ""


def _not_finite(side: _Measured) -> str:
    """A remark on equal numbers that are not finite."""
    odd = ~np.isfinite(side.computed)
    if not odd.any():
        return ""
    at = _place(odd)
    why = f"where {side.exact(at)}" if side.known[at] else side.own.reference.why(at)
    return f"; both are {side.computed[at]} at element {_listed(at)}{_count(odd)}: {why}"


def _rounding(first: _Measured, second: _Measured, equal: Mask, how: str = "") -> str:
    if not (first.own.traced and second.own.traced):
        text = f"both errors are what rounding does in the traced side{how}"
    else:
        exact = first.own.exact and second.own.exact
        same = same_reference(first.own.reference, second.own.reference, exact=exact).all()
        but = "" if same else ", but for literals rounded to double"
        text = f"the exact values are equal at these inputs{but}; both errors are what rounding does{how}"
    unknown = ~first.own.reference.known | ~second.own.reference.known
    if unknown.any():
        at = _place(unknown)
        side = first if not first.own.reference.known[at] else second
        alike = "the bits are equal" if equal[at] else f"{side.exact(at)} is the measure"
        text += (
            f"; no exact {first.own.what} of {side.own.name} is known at element {_listed(at)}"
            f"{_count(unknown)} ({side.own.reference.why(at)}): {alike}"
        )
    return text


def equal_bits(a: Array, b: Array) -> Mask:
    """Where the bits are equal, any NaN for any other."""
    return np.asarray(bitwise_equal(a, b) | (np.isnan(a) & np.isnan(b)))


def _place(mask: Mask) -> tuple[int, ...]:
    """The first element of a mask."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))


def _worst(side: _Measured, bound: Array, mask: Mask) -> tuple[int, ...]:
    """The element of a mask whose error exceeds its bound by most."""
    excess = np.where(mask, side.error - bound, -np.inf)
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(excess)), mask.shape))


def _listed(at: tuple[int, ...]) -> str:
    return str(list(at))


def _count(mask: Mask) -> str:
    """How many elements are like the one that is named."""
    count = int(mask.sum())
    return f" ({count} of {mask.size} elements)" if count > 1 else ""


def gravest(verdicts: list[Verdict]) -> Verdict:
    """The verdict of several comparisons of the same two functions."""
    return max(verdicts, key=SEVERITY.index)
