"""Each side's terms, added in the other side's trees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.orders.patterns import parting
from roundoff.probing import KernelTree, Revealed
from roundoff.probing.gate import same
from roundoff.probing.gradient_reductions import Reduction
from roundoff.probing.recovery import Ids
from roundoff.probing.replay import replay, terms_of
from roundoff.probing.tightness import along_tree, any_order

Array = npt.NDArray[np.float64]


class Swap:
    """Each side's terms in the other side's trees."""

    def __init__(
        self,
        trees: tuple[Revealed, Revealed],
        reductions: tuple[Reduction, Reduction],
        upstream: Array,
    ) -> None:
        self.trees, self.reductions, self.upstream = trees, reductions, upstream
        self.values = [r.factor_values(r.graph.own) for r in reductions]
        self.alike, self.of, self.parts = True, 0, ""
        self.apart: list[tuple[KernelTree, KernelTree]] = []
        self.matched = [0, 0]
        self.tighter = (1.0, 1.0)

    def run(self, results: Sequence[Array]) -> None:
        """Compare with both sides' own results under the common upstream gradient."""
        ratios: list[list[Array]] = [[], []]
        size = len(results[0])
        classes = [np.full(size, -1, np.int64) for _ in self.trees]
        for at, known in zip(classes, self.trees, strict=True):
            for number, one in enumerate(known.classes):
                at[one.outputs] = number
        kinds = np.stack(classes)
        for pair in np.unique(kinds[:, (kinds >= 0).all(axis=0)], axis=1).T.tolist():
            elements = np.flatnonzero((kinds == np.array(pair)[:, None]).all(axis=0))
            chosen = [side.classes[k] for side, k in zip(self.trees, pair, strict=True)]
            keys = [
                r.keys(elements, one.leaves) for r, one in zip(self.reductions, chosen, strict=True)
            ]
            order = _matching(keys[0], keys[1])
            if order is None:
                self.alike = False
                continue
            # Leaf k of the first side is leaf order[k] of the second.
            trees = chosen[0].tree, chosen[1].tree.permute(np.argsort(order))
            self.of += len(elements)
            for k in (0, 1):  # the terms of side k in the tree of the other
                found = replay(trees[1 - k], self._factors(trees[1 - k], keys[0]))
                self.matched[k] += int(same(found, results[1 - k][elements]).sum())
            if not same(results[0][elements], results[1][elements]).all():
                self.apart.append(trees)
            if not self.parts and not trees[0].same_as(trees[1]):
                self.parts = (
                    parting(trees[0].tree, trees[1].tree) or "the same additions, rounded otherwise"
                )
            magnitudes, products = self._magnitudes(keys[0])
            for k, tree in enumerate(trees):
                wide = any_order(tree, magnitudes, products)
                along = np.minimum(along_tree(tree, magnitudes, products), wide)
                ratios[k].append(np.where(along > 0, wide / np.where(along > 0, along, 1.0), 1.0))
        missing = size - int((kinds >= 0).all(axis=0).sum())
        self.alike = self.alike and self.of > 0
        zero = all(bool((r.terms.rows[(kinds < 0).any(axis=0)] < 0).all()) for r in self.reductions)
        if missing and zero:  # elements without terms are zero on both sides
            self.of += missing
            self.matched = [m + missing for m in self.matched]
        medians = [float(np.median(np.concatenate(r))) if r else 1.0 for r in ratios]
        self.tighter = medians[0], medians[1]

    def _factors(self, tree: KernelTree, key: tuple[Ids, Ids]) -> Any:
        upstream, other = key
        x = terms_of(tree, self.upstream[upstream - 1].T)
        if (other < 0).all():
            return lambda k: (x[k], None)
        y = terms_of(tree, self._other(other).T)
        return lambda k: (x[k], y[k])

    def _other(self, ids: Ids) -> Array:
        found: Array = np.where(ids > 0, self.values[0][np.maximum(ids - 1, 0)], 1.0)
        return found

    def _magnitudes(self, key: tuple[Ids, Ids]) -> tuple[Array, bool]:
        upstream, other = key
        return np.abs(self.upstream[upstream - 1] * self._other(other)).T, bool((other > 0).any())


def _matching(first: tuple[Ids, Ids], second: tuple[Ids, Ids]) -> Ids | None:
    """Where the first side's leaves stand on the second; None where the terms are not the same.

    Shapes: both (elements, leaves); one order for all elements.
    """
    if first[0].shape != second[0].shape:
        return None
    here, there = np.lexsort((first[1][0], first[0][0])), np.lexsort((second[1][0], second[0][0]))
    order = np.empty_like(here)
    order[here] = there
    equal = all((a == b[:, order]).all() for a, b in zip(first, second, strict=True))
    return order if equal else None
