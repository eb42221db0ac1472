"""Reduction trees, the named families of orders, and sums and dot products carried out in them.

A sum of n floating-point terms has as many results as there are orders; an order is a binary tree.
To add a family, write one function below `FAMILIES`: tests, study and report run over that table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.errors import ArgumentError
from roundoff.formats import Format, as_float64, as_format
from roundoff.machine import Machine, machine

Array = npt.NDArray[np.float64]
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
        pairs = np.asarray(self.children, np.int64).reshape(-1, 2)
        object.__setattr__(self, "children", pairs)
        if self.n < 0 or len(pairs) != max(self.n - 1, 0):
            raise ArgumentError(
                f"a tree of {self.n} leaves has {len(pairs)} additions; it needs one less than leaves"
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

        >>> str(pairwise(6).restrict([0, 2, 5]))
        '(0+1)+2'
        """
        leaves = np.unique(np.fromiter(kept, np.int64))
        if leaves.size and not 0 <= leaves[0] <= leaves[-1] < self.n:
            raise ArgumentError(
                f"restrict: leaves {leaves[0]} to {leaves[-1]} of a tree of {self.n}"
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
            return f"a tree of {self.n} leaves, height {self.height}, mean depth {self.depths.mean():.1f}"
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


# ------------------------------------------------------------------------------------ families


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


def _check_size(n: int) -> None:
    if n < 1:
        raise ArgumentError(f"an order of {n} terms: give at least one term")


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
    _check_parameter("blocked", "a block of {} terms", block)
    pairs: list[tuple[int, int]] = []
    sums = [_chain(range(i, min(i + block, n)), pairs, n) for i in range(0, n, block)]
    _chain(sums, pairs, n)
    return _tree(n, pairs)


def strided(n: int, lanes: int) -> ReductionTree:
    """Lane l adds terms l, l + lanes, l + 2 lanes, ... sequentially; the lanes are added pairwise."""
    _check_size(n)
    _check_parameter("strided", "{} lanes", lanes)
    pairs: list[tuple[int, int]] = []
    sums = [_chain(range(lane, n, lanes), pairs, n) for lane in range(min(lanes, n))]
    _halve(sums, pairs, n)
    return _tree(n, pairs)


def shuffled(n: int, seed: int) -> ReductionTree:
    """A plain loop over the terms in an order drawn by numpy.random.default_rng([seed, n])."""
    _check_size(n)
    if seed < 0:
        raise ArgumentError(f"shuffled: seed {seed}; give a seed of zero or more")
    return sequential(n).permute(np.random.default_rng([seed, n]).permutation(n))


def _check_parameter(family: str, what: str, value: int) -> None:
    if value < 1:
        raise ArgumentError(f"{family}: {what.format(value)}; give at least one")


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
            f"an order is a name or an Order for sums of any length; {type(what).__name__} is neither"
        )
    return _named(what.replace(" ", ""))


@lru_cache(maxsize=256)
def _named(what: str) -> Order:
    if what in EVALUATIONS:
        return EVALUATIONS[what]
    found = re.fullmatch(r"([a-z_]+)(?:\((\d+)\))?", what)
    if found and found[1] in FAMILIES:
        function, examples = FAMILIES[found[1]]
        if bool(examples) == (found[2] is not None):
            parameters = () if found[2] is None else (int(found[2]),)
            if parameters:
                function(1, *parameters)  # a parameter that means nothing is refused here
            return Order(what, lambda n: function(n, *parameters))
    known = ", ".join(f"{f}(k)" if examples else f for f, (_, examples) in FAMILIES.items())
    raise ArgumentError(
        f"unknown order {what!r}; use one of: {known}, {', '.join(EVALUATIONS)}, k a whole number"
    )


@lru_cache(maxsize=512)
def _restricted(order: Order, leaves: int, kept: tuple[int, ...] | None) -> ReductionTree:
    tree = order.tree(leaves)
    return tree if kept is None else tree.restrict(kept)


# ------------------------------------------------------------------------------------ evaluation


def add_up(buffer: Any, tree: ReductionTree, on: Machine) -> Any:
    """The sums over axis 0 of the machine's own array, in the tree's order.  Overwrites it."""
    rows, add = list(buffer), on.adder(buffer)
    for left, right in tree.schedule:
        if isinstance(left, int):
            add(rows[left], rows[right])
        elif isinstance(left, slice):
            add(buffer[left], buffer[right])
        else:
            buffer[left] = add(buffer[left], buffer[right])
    return rows[tree.root_row]


def kahan(buffer: Any, on: Machine) -> Any:
    """Kahan's compensated sum over axis 0, term by term.

    Source: Kahan 1965; Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., algorithm 4.2.
    """
    total, carry = on.zeros_like(buffer[0]), on.zeros_like(buffer[0])
    for k in range(len(buffer)):
        term = on.subtract(buffer[k], carry)
        longer = on.add(total, term)
        carry = on.subtract(on.subtract(longer, total), term)
        total = longer
    return total


def neumaier(buffer: Any, on: Machine) -> Any:
    """Neumaier's compensated sum over axis 0: the lost part is taken from the smaller operand.

    A sum that overflows gives NaN: the lost part is infinite then.

    Source: Neumaier 1974, ZAMM 54, variant IV.
    """
    total, carry = on.zeros_like(buffer[0]), on.zeros_like(buffer[0])
    for k in range(len(buffer)):
        term = buffer[k]
        longer = on.add(total, term)
        total_first = abs(total) >= abs(term)
        large = on.where(total_first, total, term)
        small = on.where(total_first, term, total)
        carry = on.add(carry, on.add(on.subtract(large, longer), small))
        total = longer
    return on.add(total, carry)


def sum2(buffer: Any, on: Machine) -> Any:
    """Sum2 over axis 0: the errors of all additions are added up and put back.

    Source: Ogita, Rump and Oishi 2005, algorithm 4.4; the error of an addition by Knuth's TwoSum.
    """
    total, lost = buffer[0], on.zeros_like(buffer[0])
    for k in range(1, len(buffer)):
        total, error = _two_sum(total, buffer[k], on)
        lost = on.add(lost, error)
    return on.add(total, lost)


def dot2(x: Any, y: Any, on: Machine) -> Any:
    """Dot2 over axis 0: as Sum2, the errors of the products included.

    Source: Ogita, Rump and Oishi 2005, algorithm 5.3; the error of a product by fused multiply-add.
    """
    products = on.multiply(x, y)
    errors = on.fused(x, y, on.subtract(on.zeros_like(products), products))
    total, lost = products[0], errors[0]
    for k in range(1, len(products)):
        total, error = _two_sum(total, products[k], on)
        lost = on.add(lost, on.add(error, errors[k]))
    return on.add(total, lost)


def _two_sum(a: Any, b: Any, on: Machine) -> tuple[Any, Any]:
    total = on.add(a, b)
    back = on.subtract(total, a)
    return total, on.add(on.subtract(a, on.subtract(total, back)), on.subtract(b, back))


COMPENSATIONS: dict[str, Callable[[Any, Machine], Any]] = {
    "kahan": kahan,
    "neumaier": neumaier,
    "sum2": sum2,
}


def multiply_and_add(x: Any, y: Any, tree: ReductionTree, on: Machine) -> Any:
    """Dot products over axis 0 with fused multiply-add wherever a product meets a sum.

    Where two products meet, the left one is rounded first.
    """
    n, values = tree.n, {}
    if n == 1:
        return on.multiply(x[0], y[0])
    for node, (left, right) in enumerate(tree.children.tolist(), n):
        if left < n and right < n:
            values[left] = on.multiply(x[left], y[left])
        leaf, total = (right, left) if right < n else (left, right)
        if leaf < n:
            values[node] = on.fused(x[leaf], y[leaf], values.pop(total))
        else:
            values[node] = on.add(values.pop(left), values.pop(right))
    return values[n + len(tree.children) - 1]


def sum_in_order(values: Any, order: Any, format: Any) -> Any:
    """Sums over the last axis, every addition rounded to the format; float64, a tensor for a tensor.

    values: numbers; those that the format does not hold are rounded to it first.  order: a
    ReductionTree of as many leaves, an Order or a name.

    Shapes: (..., n) to (...).
    Raises: ArgumentError for a tree of another size and for unknown names.

    >>> float(sum_in_order([1.0] * 300, "sequential", "bfloat16"))
    256.0
    """
    on = machine(as_format(format))
    numbers, give_back = as_float64(values)
    terms, shape = _terms_first(numbers)
    order = _fitting(order, len(terms))
    found = on.store(sums(on.load(terms), order, order.tree(len(terms)), on))
    return give_back(found.reshape(shape))


def dot_in_order(
    x: Any,
    y: Any,
    order: Any,
    format: Any,
    *,
    fma: bool = False,
    accumulate: Any = None,
) -> Any:
    """Dot products over the last axis: products and sums in `accumulate`, one last rounding to format.

    x and y broadcast; numbers that the format does not hold are rounded to it first.  fma: a product
    is not rounded before its addition.  accumulate (default: the format) is at least as wide.

    Shapes: (..., n) and (..., n) to (...).
    Raises: ArgumentError for a tree of another size, unknown names, and too narrow an accumulator.

    >>> float(dot_in_order([1.0, 2.0], [3.0, 4.0], "sequential", "float16"))
    11.0
    """
    target, wide = as_format(format), accumulator(format, accumulate)
    (a, give_back), (b, _) = as_float64(x), as_float64(y)
    try:
        (first, shape), (second, _) = map(_terms_first, np.broadcast_arrays(a, b))
    except ValueError:
        raise ArgumentError(
            f"x of shape {a.shape} and y of shape {b.shape} do not broadcast; give matching shapes"
        ) from None
    order = _fitting(order, len(first))
    if fma and order.compensation:
        raise ArgumentError(
            f"order {order} has products of its own; leave out fma, or take order 'fma'"
        )
    narrow, on = machine(target), machine(wide)
    first, second = (narrow.store(narrow.load(v)) for v in (first, second))
    results = on.store(dots(first, second, order, order.tree(len(first)), on, fma))
    return give_back(narrow.store(narrow.load(results)).reshape(shape))


@np.errstate(all="ignore")
def sums(terms: Any, order: Order, tree: ReductionTree, on: Machine) -> Any:
    """Sums over axis 0 of the machine's own array, which is overwritten; the tree is the order's."""
    if order.compensation:
        return COMPENSATIONS[order.compensation](terms, on)
    return add_up(terms, tree, on)


@np.errstate(all="ignore")
def dots(
    x: Array, y: Array, order: Order, tree: ReductionTree, on: Machine, fma: bool = False
) -> Any:
    """Dot products over axis 0 of numbers that the machine's format holds, as its own array."""
    first, second = on.load(x, exact=True), on.load(y, exact=True)
    if order.compensation == "sum2":
        return dot2(first, second, on)
    if order.fused or fma:
        return multiply_and_add(first, second, tree, on)
    return sums(on.multiply(first, second), order, tree, on)


def accumulator(format: Any, accumulate: Any) -> Format:
    """The format that sums are kept in.  Raises: ArgumentError if it cannot hold the other."""
    target = as_format(format)
    wide = target if accumulate is None else as_format(accumulate)
    holds = (
        wide.precision >= target.precision
        and wide.max >= target.max
        and wide.smallest_subnormal <= target.smallest_subnormal
    )
    if not holds:
        raise ArgumentError(
            f"sums in {wide} cannot hold every {target} number; accumulate in {target} or a wider format"
        )
    return wide


def _terms_first(array: Array) -> tuple[Array, tuple[int, ...]]:
    """(terms, sums) in memory, and the shape of the sums."""
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ArgumentError(
            f"values of shape {array.shape} have no terms to add; give at least one"
        )
    return np.ascontiguousarray(array.reshape(-1, array.shape[-1]).T), array.shape[:-1]


def _fitting(order: Any, n: int) -> Order:
    if isinstance(order, str | Order):
        return as_order(order)
    if not isinstance(order, ReductionTree):
        raise ArgumentError(f"{order!r} is no order; give a name, an Order or a ReductionTree")
    if order.n != n:
        raise ArgumentError(f"a tree of {order.n} leaves for {n} terms; make the tree for {n}")
    return Order("a given tree", lambda _: order)
