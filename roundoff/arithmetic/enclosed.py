"""A value with two error radii, float64's own and the kernel's, and how elementwise functions change them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.trace.functions import Function, Kind

Array = npt.NDArray[np.float64]

#: More than a handful of roundings below float64's normal numbers lose, 2^-1075 each.
UNDERFLOW = 2.0**-1070


@dataclass(frozen=True, eq=False)
class Enclosed:
    """A float64 (or boolean) value and two radii.

    own: |value - exact| is at most this; error: |computed - exact| is at most this; 0.0 in place of an
    array: exact everywhere.  For booleans 1 marks the undecided ones.  terms: of a matrix product in any
    order, how many products it adds up, and magnitudes: the sum of theirs; kernels start their sums with
    what is added to it (a bias), or add that in between.
    """

    value: Any
    own: Any
    error: Any
    terms: int = 0
    magnitudes: Any = 0.0

    @cached_property
    def size(self) -> Any:
        """At least |exact|."""
        size = np.abs(self.value)
        return size if exact(self.own) else size + self.own

    @cached_property
    def computed(self) -> Any:
        """At least |computed|."""
        return self.size if exact(self.error) else self.size + self.error


def slack(n: int) -> float:
    """Covers the roundings, each below 2^-53, of a sum of n products of non-negative numbers."""
    return 1.0 + (2 * n + 64) * 2.0**-52


def exact(radius: Any) -> bool:
    """Whether a radius is 0.0 for all elements."""
    return isinstance(radius, float) and radius == 0.0


def within(gap: Any, radius: Any) -> Any:
    """Whether a gap may be no gap; true for radii that are not numbers, of which nothing is known.

    Gap and radius may be rounded sums.
    """
    return ~np.greater(gap * (1.0 - 2.0**-50), radius) & ~np.equal(radius, 0)


def compared(function: Function, a: Enclosed, b: Enclosed) -> Enclosed:
    """A comparison; undecided where the operands are closer than their radii."""
    gap = np.abs(a.value - b.value)
    own, error = a.own + b.own, a.error + b.error
    return Enclosed(
        function.float64(a.value, b.value),
        np.where(within(gap, own), 1.0, 0.0),
        np.where(within(gap, own + error), 1.0, 0.0),
    )


def logical(function: Function, operands: Sequence[Enclosed]) -> Enclosed:
    """And, or, not; undecided where an operand is."""
    own, error = operands[0].own, operands[0].error
    for other in operands[1:]:
        own, error = np.maximum(own, other.own), np.maximum(error, other.error)
    return Enclosed(function.float64(*(o.value for o in operands)), own, error)


def settled(function: Function, found: Enclosed, operands: Sequence[Enclosed]) -> Enclosed:
    """No error where an operand is an infinity that the function put in: the result is exact there.

    It is not where float64 has not the limit (pi/2), or where the other operand's error decides which it is.
    """
    if function.limits is False:
        return found
    given = np.logical_or.reduce([np.isinf(o.value) & np.equal(o.error, 0) for o in operands])
    if function.kind in (Kind.PRODUCT, Kind.QUOTIENT):
        for other in operands:
            given &= ~within(np.abs(other.value), other.own + other.error)
    own, error = (np.where(given, 0.0, radius) for radius in (found.own, found.error))
    return Enclosed(found.value, own, error, found.terms)


def selected(condition: Enclosed, a: Enclosed, b: Enclosed) -> Enclosed:
    """One of two values; where the condition is undecided, either."""
    taken = np.asarray(condition.value, bool)
    apart = np.abs(a.value - b.value) + a.own + b.own
    own = np.where(np.greater(condition.own, 0), apart, np.where(taken, a.own, b.own))
    either = apart + np.maximum(a.error, b.error)
    error = np.where(np.greater(condition.error, 0), either, np.where(taken, a.error, b.error))
    return Enclosed(np.where(taken, a.value, b.value), own * slack(1), error * slack(1))


def sign_of(a: Enclosed) -> Enclosed:
    """-1, 0 or 1; off by up to 2 where the sign is undecided."""
    own = np.where(within(np.abs(a.value), a.own), 2.0, 0.0)
    error = np.where(within(np.abs(a.value), a.own + a.error), 2.0, 0.0)
    return Enclosed(np.sign(a.value), own, error)


def extreme(function: Function, a: Enclosed, b: Enclosed) -> Enclosed:
    """The larger or smaller of two; with the errors of both where they are close."""
    value = function.float64(a.value, b.value)
    first = function.takes_first(a.value, b.value)
    close = within(np.abs(a.value - b.value), a.own + b.own + a.error + b.error)
    own, error = (
        np.where(close, np.maximum(x, y), np.where(first, x, y))
        for x, y in ((a.own, b.own), (a.error, b.error))
    )
    return Enclosed(value, own, error)


def _times(a: Enclosed, b: Enclosed) -> tuple[Any, Any]:
    return (
        np.abs(a.value) * b.own + a.own * b.size,
        a.size * b.error + a.error * b.computed,
    )


def _over(a: Enclosed, b: Enclosed) -> tuple[Any, Any]:
    """|a/b - a^/b^| = |(a - a^) - a/b (b - b^)| / |b^|; what underflows is divided by b, too."""
    size = np.abs(b.value)
    least = size * (1.0 - 2.0**-50) - (b.own + b.error)
    ratio = a.size / (size * (1.0 - 2.0**-50) - b.own) * (1.0 + 2.0**-50) + UNDERFLOW

    def total(x: Any, y: Any) -> Any:
        return x + np.where(np.equal(y, 0), 0.0, ratio * y + UNDERFLOW)

    own, error = total(a.own, b.own) / size, total(a.error, b.error) / least
    fails = ~(least > 0)
    return np.where(fails, np.inf, own), np.where(fails, np.inf, error)


def _power(a: Enclosed, b: Enclosed) -> tuple[Any, Any]:
    """By the largest partial derivatives over the box, which lie at its corners for positive bases."""
    bases, exponents = interval(a), interval(b)
    corners = [(x, y, x**y + UNDERFLOW) for x in bases for y in exponents]
    powers = np.maximum.reduce([power for _, _, power in corners])
    most = np.maximum.reduce([np.abs(y) for y in exponents])
    by_exponent = powers * np.maximum(np.abs(np.log(bases[0])), np.abs(np.log(bases[1])))
    outside = ~(bases[0] > 0)

    def total(by_x: Any, by_y: Any) -> Any:
        # y x^(y-1) r as y x^y (r/x): x^(y-1) may underflow where the others do not.
        by_base = np.maximum.reduce([power * _zero_times(1.0 / x, by_x) for x, _, power in corners])
        found = most * by_base + _zero_times(by_exponent, by_y)
        unknown = outside & ~(np.equal(by_x, 0) & np.equal(by_y, 0))
        return np.where(unknown, np.inf, found) * (1 + 2.0**-40)

    return total(a.own, b.own), total(a.error, b.error)


def interval(a: Enclosed) -> tuple[Any, Any]:
    """An interval that holds the exact number and every computed one; its ends are rounded outward."""
    if exact(a.own) and exact(a.error):
        return a.value, a.value
    spread = (a.own + a.error) * slack(1)
    low, high = np.nextafter(a.value - spread, -np.inf), np.nextafter(a.value + spread, np.inf)
    known = np.equal(spread, 0)
    return np.where(known, a.value, low), np.where(known, a.value, high)


def _zero_times(slope: Any, radius: Any) -> Any:
    return np.where(np.equal(radius, 0), 0.0, slope * radius)


def _by_slopes(function: Function, operands: Sequence[Enclosed]) -> tuple[Any, Any]:
    """Errors by the mean value theorem, in a box that holds the exact operands and all computed ones."""
    ends = [end for a in operands for end in interval(a)]
    slopes = [slope(*ends) * (1 + 2.0**-40) for slope in function.steepest]
    own, error = (
        reduce(add, map(_zero_times, slopes, radii))
        for radii in ([a.own for a in operands], [a.error for a in operands])
    )
    if function.modulus is not None:
        modulus, (least, most) = function.modulus, function.domain
        inside = (ends[0] >= least) & (ends[1] <= most)
        own, error = (
            np.where(inside, np.fmin(found, modulus(radius) * (1 + 2.0**-50)), found)
            for found, radius in ((own, operands[0].own), (error, operands[0].error))
        )
    return own, error


def propagated(function: Function, operands: Sequence[Enclosed]) -> tuple[Any, Any]:
    """What the two radii of the operands become, before any rounding."""
    match function.kind:
        case Kind.SUM:
            a, b = operands
            return a.own + b.own, a.error + b.error
        case Kind.PRODUCT:
            return _times(*operands)
        case Kind.QUOTIENT:
            return _over(*operands)
        case Kind.POWER:
            return _power(*operands)
    return _by_slopes(function, operands)
