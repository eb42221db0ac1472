"""Reduction trees: an order in which n terms are added."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import described, whole
from roundoff.errors import ArgumentError
from roundoff.orders.notation import pattern
from roundoff.words import counted

Ids = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class ReductionTree:
    """A binary tree of additions: ids 0 to n - 1 are the leaves, id n + k adds children[k].

    Shapes: children is (n - 1, 2).  Operands stand before their sum; the last id is the root.

    >>> str(ReductionTree(3, np.array([[0, 1], [3, 2]])))
    '(0+1)+2'
    """

    n: int
    children: Ids

    def __post_init__(self) -> None:
        whole("a tree's number of leaves", self.n, 0)
        try:
            pairs = np.asarray(self.children)
            pairs = pairs.astype(np.int64, casting="same_kind" if pairs.size else "unsafe")
            pairs = pairs.reshape(-1, 2)
        except (TypeError, ValueError, RuntimeError):
            raise ArgumentError(
                f"a tree's children are {described(self.children)}; give pairs of whole numbers"
            ) from None
        object.__setattr__(self, "children", pairs)
        if self.n < 0 or len(pairs) != max(self.n - 1, 0):
            raise ArgumentError(
                f"a tree of {counted(self.n, 'leaf', 'leaves')} has "
                f"{counted(len(pairs), 'addition')}; it needs one less than leaves"
            )
        ids = np.sort(pairs, axis=None)
        if not np.array_equal(ids, np.arange(len(ids))):
            raise ArgumentError(
                "a tree uses a term twice or not at all; use every id but the root once"
            )
        if (pairs >= self.n + np.arange(len(pairs))[:, None]).any():
            raise ArgumentError(
                "a tree adds a sum that is not formed yet; put operands before sums"
            )

    @cached_property
    def levels(self) -> Ids:
        """Per id, the number of additions on the longest path below it (0 for leaves)."""
        level = [0] * (self.n + len(self.children))
        for node, (left, right) in enumerate(self.children.tolist(), self.n):
            level[node] = 1 + max(level[left], level[right])
        return np.array(level, np.int64)

    @property
    def height(self) -> int:
        """The number of additions on the longest path from a leaf to the root."""
        return int(self.levels[-1]) if self.n else 0

    @cached_property
    def depths(self) -> Ids:
        """Per leaf, how many additions it passes through."""
        depth = [0] * (self.n + len(self.children))
        for node in range(len(depth) - 1, self.n - 1, -1):
            left, right = self.children[node - self.n].tolist()
            depth[left] = depth[right] = depth[node] + 1
        return np.array(depth[: self.n], np.int64)

    def restrict(self, kept: Iterable[int]) -> ReductionTree:
        """The tree over some of the leaves, renumbered in ascending order.

        The others are zeros by structure: adding one changes no bits (but for the sign of a zero),
        so its addition is dropped.

        >>> from roundoff.orders.families import pairwise
        >>> str(pairwise(6).restrict([0, 2, 5]))
        '(0+1)+2'
        """
        leaves = np.unique(np.fromiter(kept, np.int64))
        if leaves.size and not 0 <= leaves[0] <= leaves[-1] < self.n:
            raise ArgumentError(
                f"restrict: kept names leaves {leaves[0]} to {leaves[-1]}; the tree has 0 to {self.n - 1}"
            )
        if leaves.size == self.n:
            return self
        image = [-1] * (self.n + len(self.children))
        for new, old in enumerate(leaves.tolist()):
            image[old] = new
        pairs: list[tuple[int, int]] = []
        for node, (left, right) in enumerate(self.children.tolist(), self.n):
            first, second = image[left], image[right]
            if first < 0 or second < 0:
                image[node] = max(first, second)
            else:
                image[node] = leaves.size + len(pairs)
                pairs.append((first, second))
        return ReductionTree(leaves.size, np.array(pairs, np.int64))

    def permute(self, order: Sequence[int] | Ids) -> ReductionTree:
        """The same tree with leaf order[i] where leaf i was."""
        at = np.concatenate([np.asarray(order, np.int64), np.arange(self.n, 2 * self.n)])
        return ReductionTree(self.n, at[self.children])

    def same_as(self, other: ReductionTree) -> bool:
        """Whether both add the same pairs: the same tree, left and right apart."""
        names: dict[tuple[int, int], int] = {}
        return self.n == other.n and self._root(names) == other._root(names)

    def _root(self, names: dict[tuple[int, int], int]) -> int:
        name = list(range(self.n))
        for left, right in self.children.tolist():
            a, b = sorted((name[left], name[right]))
            name.append(names.setdefault((a, b), self.n + len(names)))
        return name[-1] if name else -1

    def __str__(self) -> str:
        if self.n > 64:
            return pattern(self)
        text = [str(leaf) for leaf in range(self.n)]
        for left, right in self.children.tolist():
            a, b = text[left], text[right]
            text.append(f"({a}+{b})")
        return text[-1].removeprefix("(").removesuffix(")") if self.n > 1 else "".join(text)

    @cached_property
    def schedule(self) -> list[tuple[Any, Any]]:
        """Additions that can be done at once: in each entry, buffer[left] += buffer[right].

        A sum takes the place of its left operand, so the buffer has n rows; the root is in row
        `root_row`.
        """
        entries = []
        level = self.levels[self.n :]
        order = np.argsort(level, kind="stable")
        for nodes in np.split(order, np.flatnonzero(np.diff(level[order])) + 1):
            if nodes.size:
                entries.append(_places(*self.rows[self.children[nodes]].T))
        return entries

    @cached_property
    def rows(self) -> Ids:
        """Per id, the buffer row that holds it."""
        row = list(range(self.n))
        for left, _ in self.children.tolist():
            row.append(row[left])
        return np.array(row, np.int64)

    @property
    def root_row(self) -> int:
        """The buffer row of the whole sum."""
        return int(self.rows[-1])


def _places(left: Ids, right: Ids) -> tuple[Any, Any]:
    """One row each, slices where both are evenly spaced (views instead of copies), else arrays."""
    if len(left) == 1:
        return int(left[0]), int(right[0])
    slices = []
    for rows in (left, right):
        steps = np.diff(rows)
        if steps[0] <= 0 or (steps != steps[0]).any():
            return left, right
        slices.append(slice(int(rows[0]), int(rows[-1]) + 1, int(steps[0])))
    return slices[0], slices[1]
