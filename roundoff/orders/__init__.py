"""Reduction trees, the named families of orders, and sums and dot products carried out in them.

A sum of n floating-point terms has as many results as there are orders; an order is a binary tree.
"""

from roundoff.orders.evaluation import (
    COMPENSATIONS,
    accumulator,
    add_up,
    dot_in_order,
    dots,
    holds,
    sum_in_order,
    sums,
)
from roundoff.orders.families import (
    EVALUATIONS,
    FAMILIES,
    MOST_LEAVES,
    OneTree,
    Order,
    as_order,
    blocked,
    names,
    pairwise,
    reverse,
    sequential,
    shuffled,
    strided,
)
from roundoff.orders.patterns import describe, parting
from roundoff.orders.trees import ReductionTree

__all__ = [
    "COMPENSATIONS",
    "EVALUATIONS",
    "FAMILIES",
    "MOST_LEAVES",
    "OneTree",
    "Order",
    "ReductionTree",
    "accumulator",
    "add_up",
    "as_order",
    "blocked",
    "describe",
    "dot_in_order",
    "dots",
    "holds",
    "names",
    "pairwise",
    "parting",
    "reverse",
    "sequential",
    "shuffled",
    "strided",
    "sum_in_order",
    "sums",
]
