"""The power of a check: which faults a tolerance notices for sure, and which it cannot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from roundoff.gradients.bounds import rounded_up

Array = npt.NDArray[np.float64]

#: A check that might not notice this factor on all elements decides nothing.
LEAST = 2.0


@dataclass(frozen=True)
class Power:
    """The smallest faults that are noticed in any result whose own error is within its tolerance.

    factor: larger ones on all elements are noticed, and ones below 1 / factor, 0 and negative ones among
    them; 1 where a tolerance is 0, infinite where not even 0 is noticed.  term: a dropped term of more than
    this part of the sum of |terms|; swaps: the fraction of all swaps of neighbouring elements.
    """

    factor: float
    term: float
    swaps: float

    def __str__(self) -> str:
        term = "any term" if self.term == 0 else "no dropped term"
        if 0 < self.term < 1:
            term = f"a dropped term of {self.term:.2g} of the sum of |terms|"
        swaps = f"{100 * self.swaps:.0f} % of swaps of neighbours"
        return f"{factor_in_words(self.factor)}, {term}, {swaps}"


def factor_in_words(factor: float) -> str:
    """The smallest factor that is noticed; rounded upward, with two digits of what it has beyond 1.

    >>> factor_in_words(1.000123), factor_in_words(1.0), factor_in_words(float("inf"))
    ('a factor of 1.00013', 'any factor', 'no factor, not even 0')
    """
    if factor == 1:
        return "any factor"
    if not np.isfinite(factor):
        return "no factor, not even 0"
    beyond = max(0, int(np.ceil(-np.log10(min(factor - 1.0, 1.0)))))
    return f"a factor of {rounded_up(factor, 2 + beyond)}"


def power_of(exact: Array, terms: Array, tolerance: Array) -> Power:
    """Of the check |computed - exact| <= tolerance at every element.  NaN is left out: there is no check.

    An element with error d, |d| <= t, that is multiplied by f > 1 errs by |f (e + d) - e|, at least
    (f - 1) |e| - f t, which is above t for f > (|e| + t) / (|e| - t); for f below the inverse likewise.  The
    element with the smallest t / |e| notices most.  A swap and a dropped term are noticed where above 2 t.

    Shapes: all alike.
    """
    with np.errstate(all="ignore"):
        size = np.abs(exact)
        left = size - tolerance
        # Rounded upward: the sum, the difference and the quotient are rounded once each.
        factor = _least(np.where(left > 0, (size + tolerance) / left * (1 + 2.0**-50), np.inf))
        if ((tolerance == 0) & (size > 0)).any():
            factor = 1.0
        term = _least(np.where(terms > 0, 2.0 * tolerance / terms, np.inf))
        flat, limit = exact.ravel(), 2.0 * tolerance.ravel()
        swaps = np.abs(np.diff(flat)) > np.maximum(limit[1:], limit[:-1])
    return Power(factor, term, float(swaps.mean()) if swaps.size else 0.0)


def _least(values: Array) -> float:
    return float(np.min(values[~np.isnan(values)], initial=np.inf))
