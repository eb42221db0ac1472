"""Where a kernel rounds: fused multiply-adds, and sums that are kept in a narrow format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from roundoff.orders import ReductionTree
from roundoff.probing.recovery import Ids, NotATree

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Probes:
    """Data sets that are zero but at a few leaves each.

    Shapes: leaves, first and second factors (probes, leaves of each).
    """

    leaves: Ids
    first: Array
    second: Array

    def __len__(self) -> int:
        return len(self.leaves)


class SettableTerms(Protocol):
    """A reduction whose terms can be set."""

    def __call__(self, probes: Probes) -> Array:
        """One result per probe."""
        ...


#: Additions that are looked at one by one where no run of them is kept wide.
SAMPLE = 64


def siblings(tree: ReductionTree) -> tuple[Ids, Ids, Ids]:
    """Per id: its parent (-1 for the root), its sibling, and its leaf of least depth."""
    n, size = tree.n, tree.n + len(tree.children)
    parent, sibling = np.full(size, -1, np.int64), np.full(size, -1, np.int64)
    nodes = np.arange(n, size)
    left, right = tree.children.T
    parent[left] = parent[right] = nodes
    sibling[left], sibling[right] = right, left
    shallow = list(range(n))
    depth = [0] * n
    for first, second in tree.children.tolist():
        one = first if depth[first] <= depth[second] else second
        shallow.append(shallow[one])
        depth.append(depth[one] + 1)
    return parent, sibling, np.array(shallow, np.int64)


def fused(tree: ReductionTree, near: float, probing: SettableTerms) -> Flags:
    """Per leaf, whether its product enters its addition unrounded.

    One probe per leaf: the product (1 + near)^2 beside -(1 + 2 near) at a leaf of the sibling subtree.
    near^2 is left where the product was not rounded, nothing where it was.  The leaf of least depth of a
    subtree is the partner of one leaf at most, so that few probes share a leaf.
    """
    _, sibling, shallow = siblings(tree)
    leaves = np.arange(tree.n)
    if tree.n == 1:
        return np.zeros(1, bool)
    pairs = np.stack([leaves, shallow[sibling[leaves]]], axis=1)
    x, y = np.array([1 + near, -(1 + 2 * near)]), np.array([1 + near, 1.0])
    found = probing(Probes(pairs, np.broadcast_to(x, pairs.shape), np.broadcast_to(y, pairs.shape)))
    wrong = (found != 0) & ~_is(found, near * near)
    if wrong.any():
        raise NotATree(
            f"the product at term {leaves[wrong][0]} leaves {found[wrong][0]:.6g} where a rounded one leaves "
            f"0 and an unrounded one {near * near:.6g}"
        )
    result: Flags = found != 0
    return result


def narrow(
    tree: ReductionTree, small: float, probing: SettableTerms, thorough: bool = False
) -> Flags:
    """Per addition, whether its result is rounded to the narrow format.

    1 and `small` meet at the node and -1 comes in at its parent: `small` is left where the sum was kept in
    a wider format.  A run of nodes up to a common ancestor is asked at once.  The root's result is narrow.
    Where no run is kept wide, all nodes are taken to be narrow if a sample is, unless thorough.
    """
    n, count = tree.n, len(tree.children)
    parent, sibling, shallow = siblings(tree)
    flags = np.zeros(count, bool)
    flags[-1:] = True
    if count < 2:
        return flags

    def kept(low: Ids, high: Ids) -> Flags:
        """Whether all nodes from low up to high keep `small`."""
        left, right = tree.children[low - n].T
        leaves = np.stack([shallow[left], shallow[right], shallow[sibling[high]]], axis=1)
        ones = np.ones(leaves.shape)
        found = probing(Probes(leaves, ones * np.array([1.0, small, -1.0]), ones))
        wrong = (found != 0) & ~_is(found, small)
        if wrong.any():
            raise NotATree(
                f"1 + {small:.6g} - 1 gives {found[wrong][0]:.6g} inside the sum, neither kept nor lost"
            )
        good: Flags = found != 0
        return good

    low, high, members = _runs(parent, n, count)
    wide = kept(low, high)
    single = np.array(
        [node for run, good in zip(members, wide, strict=True) if not good for node in run],
        np.int64,
    )
    if not wide.any() and not thorough and len(single) > SAMPLE:
        chosen = single[np.random.default_rng(count).permutation(len(single))[:SAMPLE]]
        if not kept(chosen, chosen).any():
            flags[single - n] = True
            return flags
    if len(single):
        flags[single - n] = ~kept(single, single)
    return flags


def kept(tree: ReductionTree, joined: Flags, probing: SettableTerms) -> int:
    """How many bits below the leading one of their largest term the nodes of several terms keep.

    1, -1 and 2^-k at three of the terms of a node: 2^-k is left if it was kept.

    Raises: NotATree where no power is left.
    """
    n = tree.n
    _, _, shallow = siblings(tree)
    node = int(np.flatnonzero(joined)[0])
    first, second = tree.children[node]
    parent, sibling, _ = siblings(tree)
    third = sibling[n + node]
    at = shallow[np.array([first, second, third])]
    powers = np.arange(64)
    first_factors = np.stack([np.ones(64), -np.ones(64), 2.0**-powers], axis=1)
    ones = np.ones(first_factors.shape)
    found = probing(Probes(np.broadcast_to(at, first_factors.shape), first_factors, ones))
    left = np.flatnonzero(found == 2.0**-powers)
    if not len(left) or len(left) == 64:
        raise NotATree("a node of several terms keeps none or all of their bits")
    del parent
    return int(left[-1])


def _runs(parent: Ids, n: int, count: int) -> tuple[Ids, Ids, list[list[int]]]:
    """Paths of nodes upwards that cover all but the root: lowest, highest, members."""
    seen = np.zeros(n + count, bool)
    root = n + count - 1
    up = parent.tolist()
    lows, highs, members = [], [], []
    for node in range(n, root):
        if not seen[node]:
            run = [node]
            while up[run[-1]] != root and not seen[up[run[-1]]]:
                run.append(up[run[-1]])
            seen[run] = True
            lows.append(node)
            highs.append(run[-1])
            members.append(run)
    return np.array(lows), np.array(highs), members


def _is(found: Any, expected: float) -> Any:
    """Whether what is left is what was put in; a mean has rounded it once more."""
    return np.abs(found - expected) <= expected / 16
