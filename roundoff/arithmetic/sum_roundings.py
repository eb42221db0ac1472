"""The mean square of the error that the additions of a step make: of the operands that they are given.

A rounding errs by 0.42466 u of its result (root mean square over log-uniform significands), and no two
errors are correlated; so the mean square error of a sum is (0.42466 u)^2 times the sum of the squares of
all its partial sums.  For terms t_1 .. t_n in random order, Q = sum t^2 and s = sum t, one of k terms has

    E s_k^2 = k/n Q + k (k - 1) / (n (n - 1)) (s^2 - Q).

A kernel adds in levels: chains of m_1 terms, chains of m_2 of their sums, and so on.  Level i has n / (G m_i)
chains over groups of G = m_1 .. m_(i-1) terms, each of which meets partial sums of 2 G, 3 G .. m_i G terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.enclosed_products import blocks
from roundoff.bounds.exactness import powers_of_two
from roundoff.bounds.theorems import RMS_ROUNDING
from roundoff.bounds.tree_errors import along, rounded_products
from roundoff.numbers.formats import Format
from roundoff.orders import Order
from roundoff.trace.steps import Contract, Reduce, present

Array = npt.NDArray[np.float64]

#: A plain loop.
LOOP: tuple[float, ...] = ()


class SumRoundings:
    """The additions of sums of one format, kept in another.

    order: in which terms are added, None for a random one in the levels of the kernel; fused: whether
    products enter additions unrounded.
    """

    def __init__(self, format: Format, wide: Format, order: Order | None, fused: bool) -> None:
        self.format, self.wide, self.order, self.fused = format, wide, order, fused
        self.once = (RMS_ROUNDING * wide.u) ** 2

    @property
    def _stated(self) -> bool:
        return self.order is not None and not self.order.compensation

    def of_terms(
        self,
        step: Reduce,
        terms: Array,
        count: Any,
        squares: Any,
        total: Any,
        levels: Sequence[float] = LOOP,
    ) -> Any:
        """The mean squares of the errors of the sums over the last axis.

        count: how many terms are not zero; squares, total: the sums of their squares and of themselves.
        """
        if self._stated and terms.shape[-1]:
            columns = np.array(np.moveaxis(terms, -1, 0).reshape(terms.shape[-1], -1))
            return self._along(step, columns).reshape(np.shape(total))
        return self.once * self._unordered(count, squares, total, levels)

    def of_products(
        self, step: Contract, a: Array, b: Array, count: Any, squares: Any, total: Any,
        levels: Sequence[float] = LOOP,
    ) -> Any:  # fmt: skip
        """Those of matrix products, the roundings of the products included."""
        if self._stated and present(step):
            added = np.empty(step.shape)
            for at, left, right in blocks(step, [a], [b]):
                terms = (left[0] * right[0]).reshape(present(step), -1)
                added[at] = self._along(step, terms).reshape(added[at].shape)
        else:
            added = self.once * self._unordered(count, squares, total, levels)
        return added + self.once * self._products(step, a, b, squares)

    def _along(self, step: Reduce | Contract, terms: Array) -> Array:
        """The variance that the additions of a tree make; what is swallowed is known.  Terms are
        overwritten."""
        tree = self.order.restricted(step.leaves, step.kept)  # type: ignore[union-attr]
        nothing = np.zeros_like(terms)
        unit = self.wide.u / (1.0 + self.wide.u)
        walked = along(terms, nothing, nothing.copy(), tree, unit, self.wide.precision)
        result: Array = self.once * walked.squares + walked.swallowed**2
        return result

    def _products(self, step: Contract, a: Array, b: Array, squares: Array) -> Any:
        """The sum of the squares of the products that are rounded: not those by powers of two."""
        exact = 2 * self.format.precision <= self.wide.precision
        whole = self.order is not None and self.order.compensation == "sum2"
        if exact or whole or (self.fused and not self._stated):
            return 0.0
        powers = powers_of_two(a), powers_of_two(b)
        if not (self.fused or powers[0].any() or powers[1].any()):
            return squares
        kept = [np.where(power, 0.0, v * v) for power, v in zip(powers, (a, b), strict=True)]
        if self.fused:
            tree = self.order.restricted(step.leaves, step.kept)  # type: ignore[union-attr]
            kept[0] = kept[0] * rounded_products(tree, True)
        return kept[0] @ kept[1]

    def _unordered(self, n: Any, squares: Any, total: Any, levels: Sequence[float]) -> Any:
        if self.order is not None:  # compensated: the last addition alone
            return total**2
        return squares_of_partial_sums(n, squares, total, levels)


def squares_of_partial_sums(
    n: Any, squares: Any, total: Any, levels: Sequence[float] = LOOP
) -> Any:
    """The mean of the sum of the squares of all partial sums, the first term of a chain excepted.

    n: how many terms are not zero; squares, total: sum t^2 and sum t; levels: the lengths of chains, of
    which the last takes what is left.

    >>> squares_of_partial_sums(2, 2.0, 2.0).tolist(), squares_of_partial_sums(4, 4.0, 4.0, (2,)).tolist()
    (4.0, 24.0)
    """
    with np.errstate(all="ignore"):
        sums = _of_loop(n, squares, total) if not levels else _of_levels(n, squares, total, levels)
    return np.where(np.greater(n, 1), np.maximum(sums, 0.0), 0.0)


def _of_loop(n: Any, squares: Any, total: Any) -> Any:
    """E s_k^2 summed over k = 2 .. n."""
    return (n + 1) / 2 * squares - squares / np.maximum(n, 1) + (n + 1) / 3 * (total**2 - squares)


def _of_levels(n: Any, squares: Any, total: Any, levels: Sequence[float]) -> Any:
    n = np.asarray(n, np.float64)
    single, double = squares / n, (total * total - squares) / (n * (n - 1.0))
    group, sums = np.ones_like(n), np.zeros(())
    for length in (*levels, np.inf):
        m = np.minimum(length, n / group)
        first = m * (m + 1.0) / 2.0 - 1.0  # j, summed over j = 2 .. m
        second = m * (m + 1.0) * (2.0 * m + 1.0) / 6.0 - 1.0  # j^2
        chain = (single - double) * group * first + double * group**2 * second
        sums = sums + np.where(m > 1.0, n / (group * m) * chain, 0.0)
        group = group * m
    return sums
