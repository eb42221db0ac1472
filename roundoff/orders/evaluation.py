"""Sums and dot products carried out in an order, every operation rounded to a format."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import described, flag
from roundoff.errors import ArgumentError
from roundoff.formats import Format, as_float64, as_format
from roundoff.machine import Machine, machine
from roundoff.orders.families import Order, as_order
from roundoff.orders.trees import ReductionTree
from roundoff.words import counted

Array = npt.NDArray[np.float64]


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
    flag("fma", fma)
    target, wide = as_format(format), accumulator(format, accumulate)
    (a, give_back), (b, _) = as_float64(x), as_float64(y)
    if a.shape[-1:] != b.shape[-1:]:
        raise ArgumentError(
            f"x of shape {a.shape} and y of shape {b.shape} differ in the length of the last axis; give "
            "as many terms of both"
        )
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


def holds(wide: Format, narrow: Format) -> bool:
    """Whether every number of the one format is a number of the other."""
    return (
        wide.precision >= narrow.precision
        and wide.max >= narrow.max
        and wide.smallest_subnormal <= narrow.smallest_subnormal
    )


def accumulator(format: Any, accumulate: Any) -> Format:
    """The format that sums are kept in.  Raises: ArgumentError if it cannot hold the other."""
    target = as_format(format)
    wide = target if accumulate is None else as_format(accumulate)
    if not holds(wide, target):
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
        raise ArgumentError(
            f"the order is {described(order)}; give a name, an Order or a ReductionTree"
        )
    if order.n != n:
        raise ArgumentError(
            f"a tree of {counted(order.n, 'leaf', 'leaves')} for {counted(n, 'term')}; make the tree for {n}"
        )
    return Order("a given tree", lambda _: order)
