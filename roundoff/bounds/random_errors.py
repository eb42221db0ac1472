"""Which rounding errors of a sum probabilistic bounds may treat as random, and what the others are.

An addition to nearest rounds a^ + b^, two numbers of the format.  The larger is a multiple of the spacing of
its binade, which is about that of the sum; so the error depends on the larger by its last place at most, and
on what the smaller has below the spacing of the sum, 2 u |s| or less.

1. An operand below 4 u |s| spans but a spacing or two: its size alone decides how it is rounded, in the end
   that it is swallowed (stagnation).  Nothing there is random.  Such an addition counts with the most that it
   can err by, min(u |s|, the operand).
2. A larger operand is rounded by its low digits.  Where terms repeat, hardly vary or lie on a coarse grid,
   these digits do as well, and the errors have a mean.  It is predicted: the same addition of the exact
   operands, each rounded to the format, has the error d_v, and the d_v are added with their signs.  For an
   operand far smaller than its sum d_v is the very error.  |sum of d_v| counts in full: the drift.
3. What remains of the error of each addition of 2. has a mean of zero given all earlier ones; that is the
   assumption.  It lies in an interval of length 2 u |s_v|, and so, by Azuma and Hoeffding, their sum exceeds
   u sqrt(2 ln(2/delta)) sqrt(sum s_v^2) with probability at most delta: `theorems.hallman_ipsen`.

The error is at most the sum of the three.  Without a tree the partial sums are unknown, but at most
(S + |s|) / 2 =: M in any order.  Every addition of a tree can be matched with a term inside its smaller
operand, another for each.  So as many additions are of kind 1 as there are terms below 4 u M, each with u M,
if sums of several terms are not far smaller than these terms (it is assumed that they seldom cancel).  The
drift is the largest over the spacings at M and below, with every term on that grid (it is assumed that sums
of several terms do not repeat).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.numbers.formats import FLOAT64
from roundoff.numbers.machines import two_product, two_sum

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: Below this many units u |s| an operand is decided by its size.
DECIDED = 4.0


def decided(smaller: Any, total: Any, unit: float) -> Any:
    """Where an operand is so small beside its sum that its rounding error is not random."""
    return smaller < DECIDED * unit * np.abs(total)


def predicted(a: Array, b: Array, precision: int) -> Array:
    """The error of adding two numbers, each rounded to so many bits first."""
    if precision >= FLOAT64.precision:
        return -two_sum(a, b)[1]
    cut = shortener(precision)
    total = cut(a) + cut(b)
    result: Array = cut(total) - total
    return np.where(np.isfinite(result), result, 0.0)


def shortener(precision: int) -> Callable[[Any], Any]:
    """Rounding to so many bits, without underflow, overflow or ties to even.

    Source: Dekker 1971; Boldo 2006, Pitfalls of a full floating-point proof, for any number of bits.
    """
    factor = 2.0 ** (FLOAT64.precision - precision) + 1.0

    def cut(values: Any) -> Any:
        large = factor * values
        return large - (large - values)

    return cut


def rounding_of_products(x: Array, y: Array, precision: int) -> Array:
    """The errors of products rounded to so many bits, underflow and overflow aside."""
    product, lost = two_product(x, y)
    if precision >= FLOAT64.precision:
        return -lost
    result: Array = shortener(precision)(product) - product - lost
    return np.where(np.isfinite(result), result, 0.0)


def in_any_order(
    terms: Array, most: Array, unit: float, precision: int, lost: Any = None
) -> tuple[Array, Array]:
    """How many terms are of kind 1 in any order, and the drift of the others.

    Shapes: terms (terms, sums), float64 numbers; most, results (sums,).
    lost: the terms are products, rounded to the precision before they are added; what float64 lost of them.
    """
    sizes = np.abs(terms)
    small = decided(sizes, most, unit) & (sizes > 0)
    count, drift = small.sum(axis=0).astype(np.float64), np.zeros_like(most)
    if lost is not None:
        held = terms if precision >= FLOAT64.precision else shortener(precision)(terms)
        drift = np.abs((held - terms - lost).sum(axis=0))
        terms = held
    rest = np.where(small, 0.0, terms)
    largest = np.zeros_like(most)
    spacing = np.ldexp(2.0, np.frexp(most)[1] - 1 - precision)
    # On the grid 2^-j of that a drift is at most n/2^j of its half: soon below sqrt(n) of the first.
    rest = rest / spacing  # in units of the spacing, a power of two
    for _ in range(2 + int(np.log2(max(1, len(terms))) / 2)):
        error = np.rint(rest)
        error -= rest
        largest = np.fmax(largest, np.abs(error.sum(axis=0)) * spacing)
        rest *= 2
        spacing = spacing / 2
    return count, drift + largest
