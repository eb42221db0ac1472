"""The tree of a reduction from counts: which unit terms survive when a huge pair cancels?

+M at one leaf and -M at another swamp every unit that is added to either before the two meet, so the
units that are left are those outside the lowest common ancestor of the two leaves.  Fix a leaf, the
pivot, and sort the others by that number: each group of equal number is the subtree that joins the
pivot's path at one node.  Source: Xie, Gao, Wang and others 2025, FPRev, USENIX ATC.

Everything is asked level by level, so that one run of a kernel can answer many questions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from roundoff.errors import RoundoffError

Ids = npt.NDArray[np.int64]
_NONE: Ids = np.empty(0, np.int64)


class NotATree(RoundoffError):
    """What was seen of a kernel fits no fixed tree of rounded additions."""


@dataclass(frozen=True, eq=False)
class CountQuestion:
    """For each leaf of `others`: +M at the pivot, -M there, a unit at each of `units`; how many are left?

    A leaf that holds M is no unit, whatever `units` says.
    """

    pivot: int
    others: Ids
    units: Ids


Ask = Callable[[Sequence[CountQuestion]], Sequence[Ids]]


@dataclass(eq=False)
class _Stretch:
    """Leaves whose lowest common ancestors with the pivot could not be told apart yet."""

    leaves: Ids
    untried: Ids  # leaves that have not been units; the stretch is one subtree when there are none


@dataclass(eq=False)
class _Set:
    """Leaves of one subtree, or of several that are children of one node.

    sentinel: a leaf outside, below the parent; it is swamped where two leaves meet in the parent only.
    """

    leaves: Ids
    sentinel: int
    parent: int
    pivot: int
    stretches: list[_Stretch]
    bad: int  # how many pivots in a row left most of their set in one piece
    foreign: Ids = field(default_factory=lambda: _NONE)
    fresh: bool = True


@dataclass(frozen=True, eq=False)
class _Asked:
    part: _Set
    stretch: _Stretch
    units: Ids
    guarded: bool

    @property
    def question(self) -> CountQuestion:
        shown = np.append(self.units, self.part.sentinel) if self.guarded else self.units
        return CountQuestion(self.part.pivot, self.stretch.leaves, shown)


def recover(leaves: Ids, ask: Ask, most: int, seed: int = 0) -> list[list[int]]:
    """The nodes of the tree over these leaves: children are leaves, or ~k for node k; the last is the root.

    most: how many units can be counted at a time.  Operands stand before their sums.

    Raises: NotATree where the counts contradict each other.
    """
    leaves = np.sort(np.asarray(leaves, np.int64))
    generator = np.random.default_rng([seed, len(leaves)])
    nodes: list[list[int]] = [[]]  # node 0 stands above the root

    def start(members: Ids, sentinel: int, parent: int, bad: int = 0) -> list[_Set]:
        if len(members) == 1:
            nodes[parent].append(int(members[0]))
            return []
        # The first leaf is deepest in most kernels, the last one in some; chance copes with the others.
        at = (0, len(members) - 1)[bad] if bad < 2 else int(generator.integers(len(members)))
        rest = np.delete(members, at)
        return [_Set(members, sentinel, parent, int(members[at]), [_Stretch(rest, rest)], bad)]

    pending = start(leaves, -1, 0)
    while pending:
        asked = [
            _Asked(part, stretch, *_units(part, stretch, most, generator))
            for part in pending
            for stretch in part.stretches
            if len(stretch.untried)
        ]
        counts = ask([one.question for one in asked])
        pieces = {id(one.stretch): _split(one, n) for one, n in zip(asked, counts, strict=True)}
        following: list[_Set] = []
        for part in pending:
            part.fresh = False
            part.stretches = [p for old in part.stretches for p in pieces.get(id(old), [old])]
            if any(len(stretch.untried) for stretch in part.stretches):
                following.append(part)
                continue
            below = part.pivot
            for stretch in part.stretches:
                nodes.append([below])
                below = -len(nodes)  # ~(len(nodes) - 1)
                bad = part.bad + 1 if 2 * len(stretch.leaves) > len(part.leaves) else 0
                following += start(stretch.leaves, part.pivot, ~below, bad)
            nodes[part.parent].append(below)
            if len(part.foreign):
                following += start(part.foreign, part.sentinel, part.parent)
        pending = following
    return _in_order(nodes)


def _units(
    part: _Set, stretch: _Stretch, most: int, generator: np.random.Generator
) -> tuple[Ids, bool]:
    """Which leaves are units in the next question, and whether the leaf outside is one more."""
    guarded = part.fresh and part.sentinel >= 0
    room = most - guarded
    if len(stretch.untried) <= room:
        return stretch.untried, guarded
    return np.sort(generator.choice(stretch.untried, room, replace=False)), guarded


def _split(asked: _Asked, counts: Ids) -> list[_Stretch]:
    """The stretch in pieces, from the pivot upwards; checks that the counts are those of a tree."""
    part, stretch, units = asked.part, asked.stretch, asked.units
    order = np.argsort(-counts, kind="stable")
    by_count = counts[order]
    cuts = np.flatnonzero(np.diff(by_count)) + 1
    pieces = [np.sort(piece) for piece in np.split(stretch.leaves[order], cuts)]
    values = by_count[np.concatenate([[0], cuts])].tolist()
    split = len(pieces) > 1
    if asked.guarded and values[-1] == 0:
        # Even the leaf outside is swamped: these meet the pivot in the node above the whole set.
        part.foreign = pieces.pop()
        values.pop()
    complete = len(units) == len(stretch.leaves)
    expected = len(units) + asked.guarded
    for piece, value in zip(pieces, values, strict=True):
        expected -= len(piece) if complete else len(np.intersect1d(piece, units, True))
        if value != expected:
            raise NotATree(
                f"{value} of {len(units)} unit terms survive +M at term {part.pivot} and -M at term "
                f"{int(piece[0])}, where a tree leaves {expected}"
            )
    if complete:
        return [_Stretch(piece, _NONE) for piece in pieces]
    if not split and pieces:
        return [_Stretch(pieces[0], np.setdiff1d(stretch.untried, units, True))]
    return [_Stretch(piece, piece if len(piece) > 1 else _NONE) for piece in pieces]


def _in_order(nodes: list[list[int]]) -> list[list[int]]:
    """The same nodes with operands before sums, children by their first leaf, node 0 dropped."""
    order, stack = [], [~child for child in nodes[0] if child < 0]
    if not stack:
        return []
    while stack:
        node = stack.pop()
        order.append(node)
        stack += [~child for child in nodes[node] if child < 0]
    order.reverse()
    number = {node: k for k, node in enumerate(order)}
    lowest = [0] * len(nodes)
    found = []
    for node in order:
        children = sorted(nodes[node], key=lambda c: lowest[~c] if c < 0 else c)
        lowest[node] = lowest[~children[0]] if children[0] < 0 else children[0]
        found.append([~number[~c] if c < 0 else c for c in children])
    return found
