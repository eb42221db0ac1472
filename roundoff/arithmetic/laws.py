"""How far rounding can move a sum: certainly, or but with some probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from roundoff.bounds import theorems
from roundoff.trace.steps import Contract, Reduce, Trace

Array = npt.NDArray[np.float64]


def present(step: Reduce | Contract) -> int:
    """How many terms each sum of a step has."""
    return step.leaves if step.kept is None else len(step.kept)


class Law(Protocol):
    """How far rounding can move sums; relative to the sum of the magnitudes of their terms."""

    def sum(self, n: int) -> float:
        """Factor for a sum of n terms in any order."""
        ...

    def dot(self, n: int) -> float:
        """Factor for a dot product of n terms in any order, products rounded or fused."""
        ...

    def tree(
        self, certain: Array, before: Array, squares: Array, roundings: int, height: int
    ) -> Array:
        """An absolute error along a tree.

        certain: the certain one; before: the errors of the terms; squares: sum of (partial sums)^2.
        """
        ...


@dataclass(frozen=True)
class Certain:
    """Never exceeded.  Source: Jeannerod and Rump 2013, in any order, for any n.

    Not the sharper form of Lange and Rump: n u also holds where a kernel fuses a product of an earlier step
    into the sum, for the error of that product is in the bound already.
    """

    u: float

    def sum(self, n: int) -> float:
        return theorems.jeannerod_rump(max(n - 1, 0), self.u)

    def dot(self, n: int) -> float:
        return theorems.dot(n, self.u)

    def tree(
        self, certain: Array, before: Array, squares: Array, roundings: int, height: int
    ) -> Array:
        return certain


@dataclass(frozen=True)
class Likely:
    """Exceeded with probability at most `failure` by any of all sums of a trace.

    The rounding errors inside each sum are taken as independent and of mean zero; errors of
    earlier steps are propagated by absolute values, so nothing is assumed of how they combine.  Where
    stagnation is possible (2 n u > 1: a partial sum may swallow half a typical term), the certain
    factor is used.

    sums: how many of them share the failure probability.
    Source: Hallman and Ipsen, arXiv 2107.01604, Theorem 2.6, with the partial sums of the tree; in any
    order with the sum of the magnitudes in place of each.
    """

    u: float
    failure: float
    sums: int

    def _factor(self, n: int, certain: float) -> float:
        if n == 0 or 2 * n * self.u > 1:
            return certain
        # No partial sum exceeds the sum of the magnitudes; n of them, the products together as one.
        found = theorems.hallman_ipsen(float(n), 2 * n, n, self.u, self.failure, max(1, self.sums))
        return min(certain, float(found))

    def sum(self, n: int) -> float:
        return self._factor(n, Certain(self.u).sum(n))

    def dot(self, n: int) -> float:
        return self._factor(n, Certain(self.u).dot(n))

    def tree(
        self, certain: Array, before: Array, squares: Array, roundings: int, height: int
    ) -> Array:
        if 2 * (roundings + 1) * self.u > 1:
            return certain
        found = theorems.hallman_ipsen(
            squares, max(1, roundings), height, self.u, self.failure, max(1, self.sums)
        )
        result: Array = np.fmin(certain, before + found)
        return result


def count_sums(trace: Trace) -> int:
    """How many sums a trace carries out."""
    return sum(int(np.prod(s.shape)) for s in trace.steps if isinstance(s, Reduce | Contract))
