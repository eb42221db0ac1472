"""How far rounding can move a sum: certainly, or but with some probability."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from roundoff.bounds import theorems
from roundoff.bounds.tree_errors import Walked
from roundoff.trace.steps import Contract, Reduce, Trace

Array = npt.NDArray[np.float64]


def present(step: Reduce | Contract) -> int:
    """How many terms each sum of a step has."""
    return step.leaves if step.kept is None else len(step.kept)


@dataclass(frozen=True, eq=False)
class Sums:
    """What is known of the sums of a step before any order is.

    Shapes: those of the sums, or numbers.
    count: terms that are not zero; size: at least the sum of the magnitudes of the computed terms (of
    products before they are rounded); rounded: the part of it that comes from products that round; total: at
    least |sum| of the computed terms; by_chance: as `random_errors.in_any_order`, given the largest partial
    sum.
    """

    count: Any
    size: Array
    rounded: Any
    total: Array
    by_chance: Callable[[Array], tuple[Array, Array]]


class Law(Protocol):
    """How far rounding can move sums.  Units: absolute, of the accumulator's u."""

    def free(self, sums: Sums) -> Array:
        """In any order, products rounded or fused."""
        ...

    def tree(
        self, walked: Walked, before: Array, squares: Any, roundings: int, height: int
    ) -> Array:
        """Along a tree, errors of the terms included.

        before: these errors; squares: sum of the squares of the products that are rounded.
        """
        ...


@dataclass(frozen=True)
class Certain:
    """Never exceeded.  Source: Jeannerod and Rump 2013, in any order, for any n.

    Not the sharper form of Lange and Rump: n u also holds where a kernel fuses a product of an earlier step
    into the sum, for the error of that product is in the bound already.
    """

    u: float

    def free(self, sums: Sums) -> Array:
        products = self.u / (1.0 + self.u) * sums.rounded
        additions = np.maximum(sums.count - 1, 0)
        result: Array = (products + additions * self.u * (sums.size + products)) * theorems.MARGIN
        return result

    def tree(
        self, walked: Walked, before: Array, squares: Any, roundings: int, height: int
    ) -> Array:
        return walked.error


@dataclass(frozen=True)
class Likely:
    """Exceeded with probability at most `failure` by any of all sums of a trace.

    The rounding errors inside each sum are told apart by `roundoff.bounds.random_errors`: certain,
    predicted, or of mean zero given the earlier ones.  Errors of earlier steps are propagated by absolute
    values, so nothing is assumed of how they combine.

    sums: how many of them share the failure probability.
    Source: Hallman and Ipsen, arXiv 2107.01604, Theorem 2.6, with the partial sums of the tree; in any
    order with (S + |s|) / 2 in place of each.
    """

    u: float
    failure: float
    sums: int

    def free(self, sums: Sums) -> Array:
        certain = Certain(self.u).free(sums)
        most = 0.5 * (sums.size + sums.total) * theorems.MARGIN
        small, drift = sums.by_chance(most)
        n = int(np.max(sums.count, initial=0))
        # The products together are no more than one rounding of all their magnitudes.
        squares = np.maximum(sums.count - 1 - small, 0) * most**2 + np.square(sums.rounded)
        found = self._deviation(squares, 2 * n, n) + small * self.u * most + drift
        result: Array = np.fmin(certain, found)
        return result

    def tree(
        self, walked: Walked, before: Array, squares: Any, roundings: int, height: int
    ) -> Array:
        found = self._deviation(walked.independent_large + squares, roundings, height)
        result: Array = np.fmin(walked.error, before + walked.certain + walked.drift + found)
        return result

    def _deviation(self, squares: Any, roundings: int, height: int) -> Any:
        return theorems.hallman_ipsen(
            squares, max(1, roundings), height, self.u, self.failure, max(1, self.sums)
        )


def count_sums(trace: Trace) -> int:
    """How many sums a trace carries out."""
    return sum(int(np.prod(s.shape)) for s in trace.steps if isinstance(s, Reduce | Contract))
