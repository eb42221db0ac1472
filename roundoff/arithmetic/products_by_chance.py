"""Sums of products under probabilistic bounds: which errors are certain or predicted, by all or by a sample.

`random_errors.in_any_order` looks at every product some ten times; a layer has thousands of millions.  Where
a step has more than `MANY`:

1. One factor of a small product, below t = 4 u M, is below sqrt(t), up to the scales of the two operands.  If
   few factors are, all products with these are looked at.  Else small ones are counted from above:
   1 <= (t/|x|)^q for each of them, q > 0, and the sum over k of (t / |a_k b_k|)^q is t^q times a matrix
   product of |a|^-q and |b|^-q (Markov's bound).
2. A drift needs products whose low digits repeat: they repeat where those of both factors do.  A row, or a
   column, is suspected if its own numbers, multiplied by a constant, drift by more than `CHANCE` u M sqrt(n);
   if their digits were independent, it would be by Hoeffding less than once in a thousand cases.  It is
   looked at from the coarsest spacing on that any of its sums has beside the median of the other factors.
   Sums of a suspected row and a suspected column are looked at in full.
3. Of all others a sample is looked at in full, in which every row and every column occurs: its largest
   drift, in units of u M sqrt(n), n the number of the sum's products.  Sums of n independent errors exceed x
   such units with a probability that falls as exp(-c x^2), so the largest of N is about sqrt(log N / log m)
   times the largest of m.  That is taken for all N sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.enclosed_products import TOGETHER, blocks
from roundoff.bounds.random_errors import DECIDED, in_any_order
from roundoff.numbers.formats import Format
from roundoff.numbers.machines import two_product
from roundoff.trace.steps import Contract

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.signedinteger]

#: Where a step has no more products, each is looked at: tenths of a second.
MANY = 1 << 22

#: The part of an operand up to which products with its small numbers are looked at.
FEW = 0.05

#: Units u M sqrt(n) by which independent digits hardly ever drift: 2 exp(-CHANCE^2 / 2) < 0.001.
CHANCE = 4.0

#: Constants of many digits.
_CONSTANTS = (np.sqrt(2.0), np.pi / 2.0)


@dataclass(frozen=True)
class ProductsByChance:
    """Sums over k of a[b, i, k] times b[b, k, j], added in the format `wide`.

    held: whether each product is a number of float64; whole: whether each is one of the accumulator, so that
    nothing is rounded before it is added.
    """

    wide: Format
    held: bool
    whole: bool

    def __call__(self, a: Array, b: Array, most: Array) -> tuple[Array, Array]:
        """How many products of each sum are small, and the drift of the others.

        Shapes: a (batch, rows, n), b (batch, n, columns); most, above all partial sums, and the results
        (batch, rows, columns).
        """
        if most.size * a.shape[2] <= MANY or 1 in most.shape[1:]:
            return self.of_each(a, b, most)
        return self._of_small(a, b, most), self._of_sample(a, b, most)

    def of_each(self, a: Array, b: Array, most: Array) -> tuple[Array, Array]:
        """The same, from every product."""
        small, drift = np.empty(most.shape), np.empty(most.shape)
        step = Contract(most.shape, (), a.shape[2])
        for at, left, right in blocks(step, [a], [b]):
            x, y = np.broadcast_arrays(left[0], right[0])
            flat = len(x), most[at].size
            parts = self._of_factors(x.reshape(flat), y.reshape(flat), most[at].ravel())
            small[at], drift[at] = (part.reshape(most[at].shape) for part in parts)
        return small, drift

    def _of_factors(self, x: Array, y: Array, most: Array) -> tuple[Array, Array]:
        """Shapes: (terms, sums) and (sums,)."""
        products, rest = (x * y, np.zeros(())) if self.held else two_product(x, y)
        return self._of_products(products, rest, most)

    def _of_products(self, products: Array, rest: Array, most: Array) -> tuple[Array, Array]:
        lost = None if self.whole else rest
        return in_any_order(products, most, self.wide.u, self.wide.precision, lost)

    def _of_small(self, a: Array, b: Array, most: Array) -> Array:
        """At least as many as there are small products."""
        limit = DECIDED * self.wide.u * most
        bound = np.fmin(_products(a, b), _by_markov(a, b, limit))
        sizes = np.abs(a), np.abs(b)
        between = np.sqrt(np.exp(np.subtract(*(_logarithm(v).mean() for v in sizes))))
        root = np.sqrt(limit.max(initial=0.0))
        roots = root * between, root / between
        few = [(v > 0) & (v < largest) for v, largest in zip(sizes, roots, strict=True)]
        if not root < np.inf or max(v.mean() for v in few) > FEW:
            return bound
        found = _with_few(sizes[0], few[0], sizes[1], limit)
        found += _turned(_with_few(*map(_turned, (sizes[1], few[1], sizes[0], limit))))
        return np.fmin(bound, found)

    def _of_sample(self, a: Array, b: Array, most: Array) -> Array:
        n = a.shape[2]
        chance = self.wide.u * most * np.sqrt(_products(a, b))  # u M sqrt(n)
        largest = 0.0
        for batch, row, column in _sample(most.shape, max(1, TOGETHER // n)):
            each = batch, row, column
            drift = self._of_factors(a[batch, row].T, b[batch, :, column].T, most[each])[1]
            largest = max(largest, float(_ratio(drift, chance[each]).max()))
        counts = most.size, most.shape[0] * max(most.shape[1:])
        found: Array = largest * np.sqrt(np.log(counts[0]) / np.log(counts[1])) * chance
        for one, rows, columns in self._suspects(a, b, most):
            at = np.ix_(np.array([one]), rows, columns)
            found[at] = self.of_each(a[one, rows][None], b[one][None, :, columns], most[at])[1]
        return found

    def _suspects(self, a: Array, b: Array, most: Array) -> Iterator[tuple[int, Numbers, Numbers]]:
        """The batches with suspected rows and columns, and these."""
        rows = self._drifting(a, most / _middle(b, 1)[:, None, :])
        columns = self._drifting(
            b.swapaxes(1, 2), (most / _middle(a, 2)[:, :, None]).swapaxes(1, 2)
        )
        for one in np.flatnonzero(rows.any(axis=1) & columns.any(axis=1)).tolist():
            yield one, np.flatnonzero(rows[one]), np.flatnonzero(columns[one])

    def _drifting(self, factors: Array, spans: Array) -> Mask:
        """Which rows drift by themselves, at the coarsest or the finest of the spans of their sums.

        Shapes: factors (batch, rows, n), spans (batch, rows, columns); the result (batch, rows).
        """
        spans = np.where(np.isfinite(spans) & (spans > 0), spans, np.nan)
        scales = np.fmax.reduce(spans, axis=2).ravel(), np.fmin.reduce(spans, axis=2).ravel()
        terms = factors.reshape(-1, factors.shape[2]).T
        chance = self.wide.u * np.sqrt(np.count_nonzero(terms, axis=0))
        found = np.zeros(len(chance), np.bool_)
        for constant in _CONSTANTS:
            products, rest = two_product(terms, np.array(constant))
            for scale in scales:
                most = np.nan_to_num(scale * constant)
                drift = self._of_products(products, rest, most)[1]
                found |= drift > CHANCE * chance * most
        return found.reshape(factors.shape[:2])


def _products(a: Array, b: Array) -> Array:
    """How many products of each sum are not zero."""
    if a.all() and b.all():
        return np.full((*a.shape[:2], b.shape[2]), float(a.shape[2]))
    found: Array = (a != 0).astype(np.float64) @ (b != 0).astype(np.float64)
    return found


def _by_markov(a: Array, b: Array, limit: Array) -> Array:
    found = np.full(limit.shape, np.inf)
    for power in (0.5, 1.0):
        inverses = (np.power(np.abs(v), -power, where=v != 0, out=np.zeros_like(v)) for v in (a, b))
        found = np.fmin(found, np.matmul(*inverses) * limit**power)
    return found


def _with_few(a: Array, few: Mask, b: Array, limit: Array) -> Array:
    """How many products with one of few factors in the rows of a are below the limit."""
    found = np.zeros(limit.shape)
    for batch, row in np.argwhere(few.any(axis=2)).tolist():
        terms = np.flatnonzero(few[batch, row])
        products = a[batch, row, terms, None] * b[batch, terms]
        found[batch, row] = ((products < limit[batch, row]) & (products > 0)).sum(axis=0)
    return found


def _turned(v: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return v.swapaxes(1, 2)


def _logarithm(sizes: Array) -> Array:
    """0 for zero."""
    return np.log(sizes, where=sizes > 0, out=np.zeros_like(sizes))


def _middle(factors: Array, axis: int) -> Array:
    """The geometric mean of those that are not zero."""
    sums = _logarithm(np.abs(factors)).sum(axis=axis)
    middle: Array = np.exp(sums / np.maximum(np.count_nonzero(factors, axis=axis), 1))
    return middle


def _ratio(drift: Array, chance: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        found = drift / chance
    finite: Array = np.where(np.isfinite(found), found, 0.0)
    return finite


def _sample(shape: tuple[int, ...], some: int) -> Iterator[tuple[Numbers, Numbers, Numbers]]:
    """Numbers of batch, row and column of sums, so many at a time: each row and column in one or more."""
    batch, rows, columns = shape
    rng = np.random.default_rng(0)
    pairs = max(rows, columns)
    chosen = [np.resize(rng.permutation(n), (batch, pairs)).ravel() for n in (rows, columns)]
    numbers = np.repeat(np.arange(batch), pairs)
    for start in range(0, batch * pairs, some):
        part = slice(start, start + some)
        yield numbers[part], chosen[0][part], chosen[1][part]
