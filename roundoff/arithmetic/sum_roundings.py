"""The root mean square of the error that the additions of a step make: of the operands that they are given.

Every addition errs by 0.42466 u of its result (root mean square over log-uniform significands), and no two
errors are correlated; so the mean square error of a sum is (0.42466 u)^2 times the sum of the squares of all
its partial sums.  For terms t_1 .. t_n in random order, Q = sum t^2 and s = sum t, a partial sum of k terms has

    E s_k^2 = k/n Q + k (k - 1) / (n (n - 1)) (s^2 - Q).

A kernel adds in levels: chains of m_1 terms, chains of m_2 of their sums, and so on.  Level i has n / (G m_i)
chains over groups of G = m_1 .. m_(i-1) terms, each of which meets partial sums of 2 G, 3 G .. m_i G terms.
So the sum of the squares is  a Q + b s^2  with a and b of n and the levels alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.bounds.theorems import RMS_ROUNDING
from roundoff.numbers.formats import Format

Array = npt.NDArray[np.float64]


def squares_of_partial_sums(n: Any, squares: Any, total: Any, levels: Sequence[float]) -> Any:
    """The mean of the sum of the squares of all partial sums, the first term of a chain excepted.

    n: how many terms are not zero; squares, total: sum t^2 and sum t; levels: the lengths of chains, of
    which the last takes what is left.

    >>> squares_of_partial_sums(2, 2.0, 2.0, ()), squares_of_partial_sums(4, 4.0, 4.0, (2,))
    (4.0, 24.0)
    """
    n = np.asarray(n, np.float64)
    with np.errstate(all="ignore"):
        single = squares / n  # the factor of k
        double = (total * total - squares) / (n * (n - 1.0))  # and of k (k - 1)
        group, found = np.ones_like(n), np.zeros(())
        for length in (*levels, np.inf):
            m = np.minimum(length, n / group)
            first = m * (m + 1.0) / 2.0 - 1.0  # the sum of j, from 2 to m
            second = m * (m + 1.0) * (2.0 * m + 1.0) / 6.0 - 1.0  # and of j^2
            chain = (single - double) * group * first + double * group**2 * second
            found = found + np.where(m > 1.0, n / (group * m) * chain, 0.0)
            group = group * m
        return np.where(n > 1.0, np.maximum(found, 0.0), 0.0)


def rms_of_sums(n: Any, squares: Any, total: Any, levels: Sequence[float], wide: Format) -> Any:
    """That of the error of each sum, in a format."""
    return RMS_ROUNDING * wide.u * np.sqrt(squares_of_partial_sums(n, squares, total, levels))
