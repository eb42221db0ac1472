"""Partial sums along a tree, with everything that bounds need to know about them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from roundoff.bounds.random_errors import decided, predicted
from roundoff.numbers.formats import FLOAT64
from roundoff.orders import ReductionTree

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Walked:
    """What a walk along the tree has found out at its root, per sum.

    Shapes: (sums,) each.
    value: the sum in float64; own: |value - exact| is at most this; error: |computed - exact| is at
    most this; squares: sum over the additions of (exact partial sum)^2, rounded upward; peak: no partial sum
    exceeds it.  As `random_errors` tells additions apart: certain: what those of kind 1 err by at most;
    swallowed: their predicted errors, added with signs; drift: those of the others; independent:
    sum of (exact partial sum)^2 over the others; independent_large: the same for terms with errors.
    """

    value: Array
    own: Array
    error: Array
    squares: Array
    peak: Array
    certain: Array
    swallowed: Array
    drift: Array
    independent: Array
    independent_large: Array


def along(
    value: Array,
    own: Array,
    error: Array,
    tree: ReductionTree,
    unit: float,
    precision: int,
    *,
    nearest: bool = True,
    fused: npt.NDArray[np.bool_] | None = None,
) -> Walked:
    """Bounds on the error of sums along a tree, from the sizes of the partial sums.

    At a node with computed operands a^ and b^ the new error is at most unit |a^ + b^| and, to nearest,
    at most min(|a^|, |b^|), since either operand is a number of the format.  |a^ + b^| is at most
    |exact partial sum| and the errors below.  That is Wilkinson's running bound with sizes from
    the data instead of from a computed sum, so it is certified beforehand.

    Shapes: value, own, error are (terms, sums) and are overwritten.  value and own: terms are within
    own of value; error: bounds on the errors of the terms before they are added.
    unit: u/(1+u) to nearest, 2u else; precision: of the accumulator; fused: which terms, if any, are
    products that are not rounded before their addition, so that neither they nor their sums with zero are
    numbers of the format; overwritten, too.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.3 and 4.2; for the
    minimum Jeannerod and Rump 2013.
    """
    peak = (np.abs(value) + own + error).max(axis=0, initial=0.0)
    squares, certain, swallowed, drift, free, large = (np.zeros_like(peak) for _ in range(6))
    for left, right in tree.schedule:
        a, b = np.abs(value[left]), np.abs(value[right])
        below = error[left] + error[right]
        sides = a + own[left] + error[left], b + own[right] + error[right]
        total = value[left] + value[right]
        spread = own[left] + own[right] + FLOAT64.u * np.abs(total)
        exact = np.abs(total) + spread
        computed = exact + below
        smaller = np.minimum(*sides)
        whole = np.zeros_like(smaller, bool) if fused is None else fused[left] | fused[right]
        local = unit * computed
        if nearest:
            local = np.where(whole, local, np.minimum(local, smaller))
        adds = (smaller > 0) | whole  # a zero is added without error
        small = adds & decided(np.minimum(a, b), total, unit) & nearest
        signed = np.where(adds, predicted(value[left], value[right], precision), 0.0)
        squares += _down(np.where(adds, exact * exact, 0.0))
        free += _down(np.where(adds & ~small, exact * exact, 0.0))
        large += _down(np.where(adds & ~small, computed * computed, 0.0))
        certain += _down(np.where(small, local, 0.0))
        swallowed += _down(np.where(small, signed, 0.0))
        drift += _down(np.where(small, 0.0, signed))
        value[left], own[left] = total, spread
        error[left] = below + np.where(adds, local, 0.0)
        if fused is not None:
            fused[left] = False
        np.maximum(peak, _most(computed + local), out=peak)
    # Sums and products of non-negative numbers: at most 8 roundings a level, each below 2^-53; the
    # squares add as many more as there are nodes.
    slack, nodes = 1.0 + (8 * tree.height + 32) * 2.0**-52, 1.0 + (2 * tree.n + 32) * 2.0**-52
    row = tree.root_row
    with np.errstate(over="ignore"):
        return Walked(
            value[row], own[row] * slack, error[row] * slack, squares * slack * nodes, peak * slack,
            certain * slack * nodes, np.abs(swallowed), np.abs(drift), free * slack * nodes,
            large * slack * nodes,
        )  # fmt: skip


def _down(rows: Array) -> Array:
    """Rows of several nodes added up; one node's as it is."""
    result: Array = rows.sum(axis=0) if rows.ndim == 2 else rows
    return result


def _most(rows: Array) -> Array:
    result: Array = rows.max(axis=0) if rows.ndim == 2 else rows
    return result


def rounded_products(tree: ReductionTree, fused: bool) -> npt.NDArray[np.bool_]:
    """Which products are rounded before they are added (see orders.multiply_and_add)."""
    if not fused or tree.n == 1:
        return np.ones(tree.n, bool)
    both = (tree.children < tree.n).all(axis=1)
    rounded = np.zeros(tree.n, bool)
    rounded[tree.children[both, 0]] = True
    return rounded
