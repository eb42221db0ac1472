"""Error-free transformations: unevaluated sums of float64 arrays, shortened with a proven remainder.

Written apart from roundoff.numbers.machines on purpose: a reference shares no arithmetic code with what it
judges.  All of it is for rounding to nearest with gradual underflow; overflow leaves infinities or NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: A product of two float64 numbers of at least this size has an error that float64 holds (2^-1022 + 53 bits).
LEAST_PRODUCT = 2.0**-960

#: More than the error of one product below LEAST_PRODUCT: a handful of roundings of 2^-1075 each.
LOST = 2.0**-1070

#: Added to radii where a product or quotient of them may have underflowed.
TINY = 2.0**-1000

#: Radii are computed upward: products and sums of a few non-negative numbers, times this.
UPWARD = 1.0 + 2.0**-40


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """s = fl(a + b) and e with a + b = s + e, exactly; additions are exact when they underflow.

    Source: Knuth, The Art of Computer Programming 2, 4.2.2, theorem B.
    """
    s = a + b
    part = s - a
    return s, (a - (s - part)) + (b - part)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """p = fl(a b) and e with a b = p + e, exactly where |p| >= LEAST_PRODUCT or a b = 0.

    Source: Dekker 1971, with Veltkamp's splitting at 2^27 + 1.
    """
    p = a * b
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


def _halves(a: Array) -> tuple[Array, Array]:
    c = 134217729.0 * a
    high = c - (c - a)
    return high, a - high


def products(first: Sequence[Array], second: Sequence[Array]) -> tuple[list[Array], Any]:
    """Terms whose sum is (sum of first) (sum of second), and a bound of what underflow lost."""
    highs: list[list[Array]] = [[] for _ in range(len(first) + len(second))]
    lost: Any = 0.0
    for i, a in enumerate(first):
        for j, b in enumerate(second):
            p, error = two_product(a, b)
            highs[i + j].append(p)
            highs[i + j + 1].append(error)
            small = (np.abs(p) < LEAST_PRODUCT) & (a != 0) & (b != 0)
            if small.any():
                lost = lost + np.where(small, LOST, 0.0)
    return [term for level in highs for term in level], lost


def shorten(terms: Iterable[Array], words: int) -> tuple[tuple[Array, ...], Any]:
    """At most `words` arrays whose sum is that of the terms to within the second result.

    terms: largest first, roughly.  The second result is 0.0 where nothing is lost anywhere.  The first word
    is nearly the sum: see `swept`.
    Source: Ogita, Rump and Oishi 2005, algorithm 4.8 (SumK), with the last vector kept.
    """
    given = list(terms)
    left = [term for term in given if term.any()]
    if len(left) < 2:
        return tuple(left or given[:1]), 0.0
    for top in range(min(words, len(left) - 1)):
        for k in range(len(left) - 1, top, -1):
            left[k - 1], left[k] = two_sum(left[k - 1], left[k])
    return tuple(swept(left[:words])), added(left[words:])


def swept(words: Sequence[Array]) -> list[Array]:
    """The same sum; behind the first word no more is left than 2^-50 of it.

    Words that are zero everywhere are dropped.
    """
    found = list(words)
    for _ in range(len(found) + 1):
        for k in range(len(found) - 1, 0, -1):
            found[k - 1], found[k] = two_sum(found[k - 1], found[k])
        # The second word is at most 2^-53 of the first; others may be left over from a cancellation.
        if len(found) < 3 or not np.any(added(found[2:]) > 2.0**-51 * np.abs(found[0])):
            return [found[0], *(word for word in found[1:] if word.any())]
    raise FloatingPointError(
        "the float64 words of a sum do not settle; this is an error of roundoff, please report it"
    )


def added(rest: Sequence[Array]) -> Any:
    """An upper bound of the sum of magnitudes; 0.0 where all are zero."""
    total: Any = 0.0
    for term in rest:
        if term.any():
            total = total + np.abs(term)
    # len(rest) additions of non-negative numbers, each with a relative error below 2^-53
    return total * (1.0 + (len(rest) + 1) * 2.0**-52)


def above(parts: Sequence[Any]) -> Any:
    """An upper bound of a sum of a few non-negative numbers."""
    return sum(parts[1:], parts[0]) * UPWARD


class RunningSum:
    """A running sum in a few words, with a bound of what fell off its end."""

    def __init__(self, words: int) -> None:
        self.words: list[Array] = []
        self.spare: list[Array] = []
        self.most = words
        self.lost: Any = 0.0

    def add(self, term: Array) -> None:
        """Add a term, whose array is used up: `two_sum` word by word, in place."""
        for k, word in enumerate(self.words):
            s = np.add(word, term, out=self.spare[0])
            part = np.subtract(s, word, out=self.spare[1])
            term -= part
            np.subtract(s, part, out=part)
            word -= part
            term += word
            self.words[k], self.spare[0] = s, word
        if not term.any():
            return
        if not self.words:
            self.spare = [np.empty_like(term), np.empty_like(term)]
        if len(self.words) < self.most:
            self.words.append(term)
        else:
            self.lost = (self.lost + np.abs(term)) * (1.0 + 2.0**-51)

    def total(self, shape: tuple[int, ...]) -> tuple[tuple[Array, ...], Any]:
        """The sum, as `shorten` gives it."""
        if not self.words:
            return (np.zeros(shape),), 0.0
        kept, lost = shorten(self.words, self.most)
        return kept, added([np.broadcast_to(v, shape) for v in (lost, self.lost) if np.any(v)])
