"""The named families of orders.

To add a family, write one function above `FAMILIES` and its line there: tests, study and report run over
that table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from roundoff.arguments import described, whole
from roundoff.errors import ArgumentError
from roundoff.orders.trees import Ids, ReductionTree


def _chain(ids: Iterable[int], pairs: list[tuple[int, int]], n: int) -> int:
    """Append the additions of a sequential sum; returns the id of its result."""
    iterator = iter(ids)
    total = next(iterator)
    for term in iterator:
        pairs.append((total, term))
        total = n + len(pairs) - 1
    return total


def _halve(ids: list[int], pairs: list[tuple[int, int]], n: int) -> int:
    """Append the additions of a pairwise sum, split at n // 2; returns the id of its result."""
    # Depth is log2 n, so this recursion is shallow.
    if len(ids) == 1:
        return ids[0]
    half = len(ids) // 2
    left, right = _halve(ids[:half], pairs, n), _halve(ids[half:], pairs, n)
    pairs.append((left, right))
    return n + len(pairs) - 1


def _tree(n: int, pairs: list[tuple[int, int]]) -> ReductionTree:
    return ReductionTree(n, np.array(pairs, np.int64))


#: A tree of more leaves would not fit into memory.
MOST_LEAVES = 1 << 27


def _check_size(n: int) -> None:
    whole("the number of terms", n, 1, MOST_LEAVES)


def sequential(n: int) -> ReductionTree:
    """((0 + 1) + 2) + ...: a plain loop.  Height n - 1."""
    _check_size(n)
    pairs: list[tuple[int, int]] = []
    _chain(range(n), pairs, n)
    return _tree(n, pairs)


def reverse(n: int) -> ReductionTree:
    """The plain loop from the last term to the first.  Height n - 1."""
    _check_size(n)
    pairs: list[tuple[int, int]] = []
    _chain(reversed(range(n)), pairs, n)
    return _tree(n, pairs)


def pairwise(n: int) -> ReductionTree:
    """Halves, split at n // 2, down to single terms.  Height ceil(log2 n)."""
    _check_size(n)
    pairs: list[tuple[int, int]] = []
    _halve(list(range(n)), pairs, n)
    return _tree(n, pairs)


def blocked(n: int, block: int) -> ReductionTree:
    """Sequential sums of `block` neighbours, which are then added sequentially."""
    _check_size(n)
    whole("block", block, 1)
    pairs: list[tuple[int, int]] = []
    sums = [_chain(range(i, min(i + block, n)), pairs, n) for i in range(0, n, block)]
    _chain(sums, pairs, n)
    return _tree(n, pairs)


def strided(n: int, lanes: int) -> ReductionTree:
    """Lane l adds terms l, l + lanes, l + 2 lanes, ... sequentially; the lanes are added pairwise."""
    _check_size(n)
    whole("lanes", lanes, 1)
    pairs: list[tuple[int, int]] = []
    sums = [_chain(range(lane, n, lanes), pairs, n) for lane in range(min(lanes, n))]
    _halve(sums, pairs, n)
    return _tree(n, pairs)


def shuffled(n: int, seed: int) -> ReductionTree:
    """A plain loop over the terms in an order drawn by numpy.random.default_rng([seed, n])."""
    _check_size(n)
    whole("seed", seed, 0)
    return sequential(n).permute(np.random.default_rng([seed, n]).permutation(n))


#: Families of trees, with the parameters that studies and tests try: none, or one integer each.
FAMILIES: dict[str, tuple[Callable[..., ReductionTree], tuple[int, ...]]] = {
    "sequential": (sequential, ()),
    "reverse": (reverse, ()),
    "pairwise": (pairwise, ()),
    "blocked": (blocked, (4,)),
    "strided": (strided, (8,)),
    "shuffled": (shuffled, (0,)),
}


# -------------------------------------------------------------------------------------- orders


@dataclass(frozen=True)
class Order:
    """A way to evaluate sums and dot products of any length, by name.

    tree: the tree of n leaves; fused: products enter their first addition unrounded (fused
    multiply-add); compensation: None or a key of COMPENSATIONS, along a plain loop.
    """

    name: str
    tree: Callable[[int], ReductionTree]
    fused: bool = False
    compensation: str | None = None

    def __str__(self) -> str:
        return self.name

    def restricted(self, leaves: int, kept: Ids | None) -> ReductionTree:
        """The tree over the leaves that are present."""
        return _restricted(self, leaves, None if kept is None else tuple(kept.tolist()))


@dataclass(frozen=True, eq=False)
class OneTree(Order):
    """The tree over the leaves that are present in one sum, structural zeros left out."""

    def restricted(self, leaves: int, kept: Ids | None) -> ReductionTree:
        """The tree itself.  Raises: ArgumentError where it has another number of leaves."""
        n = leaves if kept is None else len(kept)
        tree = self.tree(n)
        if tree.n != n:
            raise ArgumentError(
                f"the tree has {tree.n} leaves, the sum {n} terms; give the tree of that sum"
            )
        return tree


#: Evaluations that are no tree of rounded additions, each along a plain loop.
EVALUATIONS = {
    "kahan": Order("kahan", sequential, compensation="kahan"),
    "neumaier": Order("neumaier", sequential, compensation="neumaier"),
    "sum2": Order("sum2", sequential, compensation="sum2"),
    "fma": Order("fma", sequential, fused=True),
}


def names() -> tuple[str, ...]:
    """The order names that studies run by default: every family and evaluation.

    >>> names()[:3]
    ('sequential', 'reverse', 'pairwise')
    """
    found = []
    for family, (_, parameters) in FAMILIES.items():
        found += [f"{family}({value})" for value in parameters] or [family]
    return (*found, *EVALUATIONS)


def as_order(what: str | Order) -> Order:
    """The order of a name such as "pairwise", "blocked(32)", "shuffled(7)" or "kahan".

    Raises: ArgumentError for an unknown name, with the known ones, and for a tree, which fits one length.

    >>> as_order("blocked(2)").tree(4).height
    2
    """
    if isinstance(what, Order):
        return what
    if not isinstance(what, str):
        raise ArgumentError(
            f"the order is {described(what)}; give a name, or an Order for sums of any length"
        )
    return _named(what.replace(" ", ""))


@lru_cache(maxsize=256)
def _named(what: str) -> Order:
    if what in EVALUATIONS:
        return EVALUATIONS[what]
    found = re.fullmatch(r"([^()]+)(?:\((\d+)\))?", what)
    if found and found[1] in FAMILIES:
        function, examples = FAMILIES[found[1]]
        if bool(examples) == (found[2] is not None):
            parameters = () if found[2] is None else (int(found[2]),)
            if parameters:
                function(1, *parameters)  # a parameter that means nothing is refused here
            return Order(what, lambda n: function(n, *parameters))
    known = ", ".join(f"{f}(k)" if examples else f for f, (_, examples) in FAMILIES.items())
    raise ArgumentError(
        f"unknown order {described(what)}; use one of: {known}, {', '.join(EVALUATIONS)}, k a whole number"
    )


@lru_cache(maxsize=512)
def _restricted(order: Order, leaves: int, kept: tuple[int, ...] | None) -> ReductionTree:
    tree = order.tree(leaves)
    return tree if kept is None else tree.restrict(kept)
