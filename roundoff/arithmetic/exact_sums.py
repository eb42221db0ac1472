"""Sums and matrix products of unevaluated sums, made of slices that float64 adds without error."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import slices
from roundoff.arithmetic.expansions import LEAST_PRODUCT, LOST, TINY, UPWARD, RunningSum
from roundoff.arithmetic.slices import Block, Exponents, Rows, Sliced, blocks

Array = npt.NDArray[np.float64]
Product = Callable[[Array, Array], Array]

#: Elements of a matrix product that are made at a time.
PANEL = 1 << 20


def multiply(
    first: Sequence[Array],
    second: Sequence[Array],
    words: int,
    bits: int,
    product: Product = np.matmul,
) -> tuple[tuple[Array, ...], Any]:
    """The matrix product of two unevaluated sums as words, and a bound of their error (0.0: none anywhere).

    Shapes: (B, M, K) by (B, K, N).  Products of slices below 2^-bits of the largest possible are left out
    and accounted for.  product: a float64 matrix product; in any order, with or without fused multiply-add.
    What is beyond float64's range becomes infinite or NaN.
    """
    rows, columns = Rows(first, -1), Rows(second, -2)
    terms, shape = rows.shape[-1], (*rows.shape[:-1], columns.shape[-1])
    widths = slices.product_widths(terms, (min(rows.span, bits), min(columns.span, bits)))
    a, b = rows.cut(widths[0], bits), columns.cut(widths[1], bits)
    pairs = sorted(
        (s * a.width + t * b.width, s, t)
        for s in range(len(a.digits))
        for t in range(len(b.digits))
    )
    left_out = terms * sum(2.0**-below for below, _, _ in pairs if below >= bits)
    exact = not left_out and not a.rest.any() and not b.rest.any()
    found = _Sums(shape, words, bits)
    for panel in blocks(shape, PANEL):
        many = panel[0]
        parts = [_part(a, s, b, t, panel, product) for below, s, t in pairs if below < bits]
        rest: Any = 0.0
        if not exact:
            rest = left_out * (a.some[panel] * b.some[many])
            rest = rest + terms * (a.rest[panel] * b.size[many] + b.rest[many] * a.size[panel])
        found.add(panel, parts, rest, (a.exponent[panel], b.exponent[many]))
    return found.result()


@dataclass(frozen=True, eq=False)
class ScaledProduct:
    """Whole numbers, times a power of two; few: most may be zero."""

    values: Array
    weight: float
    few: bool


def _part(a: Sliced, s: int, b: Sliced, t: int, panel: Block, product: Product) -> ScaledProduct:
    """A panel of the product of two slices."""
    weight = 2.0 ** (2 - (s + 1) * a.width - (t + 1) * b.width)
    first, second = a.digits[s], b.digits[t]
    few = not (isinstance(first, np.ndarray) and isinstance(second, np.ndarray))
    return ScaledProduct(_of_slices(a, s, b, t, panel, product), weight, few)


def _of_slices(a: Sliced, s: int, b: Sliced, t: int, panel: Block, product: Product) -> Array:
    many, some = panel
    first, second = a.digits[s], b.digits[t]
    rows, columns = a.exponent.shape[1], b.exponent.shape[2]
    shape = many.stop - many.start, some.stop - some.start, columns
    if isinstance(first, np.ndarray) and isinstance(second, np.ndarray):
        return product(first[many, some], second[many])
    lines = slice(many.start * rows + some.start, (many.stop - 1) * rows + some.stop)
    if isinstance(second, np.ndarray):
        return np.asarray(first[lines] @ second.reshape(-1, columns)).reshape(shape)
    second = second[many.start * columns : many.stop * columns]
    if isinstance(first, np.ndarray):
        found = np.asarray(second @ a.turned[s][:, some])
        return found.reshape(shape[0], columns, shape[1]).swapaxes(1, 2)
    few = (first[lines] @ second.T).tocoo()
    whole = np.zeros(shape)
    whole[few.row // shape[1], few.row % shape[1], few.col % columns] = few.data
    return whole


def total(words: Sequence[Array], most: int, bits: int) -> tuple[tuple[Array, ...], Any]:
    """The sum over the last axis of an unevaluated sum; results as of `multiply`."""
    *outer, terms = words[0].shape
    rows = prod(outer)
    a = Rows([w.reshape(1, rows, terms) for w in words], -1).cut(slices.sum_width(terms), bits)
    found = _Sums((1, rows, 1), most, bits)
    parts = [
        ScaledProduct(d.sum(axis=-1).reshape(1, rows, 1), 2.0 ** (1 - (t + 1) * a.width), False)
        for t, d in enumerate(a.digits)
    ]
    found.add((slice(0, 1), slice(0, rows)), parts, terms * a.rest, (a.exponent,))
    placed, radius = found.result()
    shaped = radius.reshape(outer) if np.ndim(radius) else radius
    return tuple(w.reshape(outer) for w in placed), shaped


class _Sums:
    """Sums of whole numbers times powers of two, block by block, as words with a radius.

    bits: the powers are at least 2^-(bits + 2 WIDEST).
    """

    def __init__(self, shape: tuple[int, ...], words: int, bits: int) -> None:
        self.shape, self.most = shape, words
        self.finest = bits + 2 * slices.WIDEST
        self.words = [np.zeros(shape)]
        self.radius: Any = 0.0

    def add(
        self,
        panel: Block,
        parts: Sequence[ScaledProduct],
        rest: Any,
        exponents: Sequence[Exponents],
    ) -> None:
        """A panel: the sum of weights times whole numbers, to within `rest`, times 2^(sum of exponents)."""
        many, some = panel
        shape = many.stop - many.start, some.stop - some.start, self.shape[2]
        rest = np.broadcast_to(rest, shape)
        power = _Power(exponents, shape)
        for block in blocks(shape, slices.BLOCK):
            sums, own = RunningSum(self.most), rest[block]
            for part in parts:
                if not part.few or part.values[block].any():
                    term = np.empty(own.shape)
                    sums.add(np.multiply(part.values[block], part.weight, out=term))
            words, lost = sums.total(own.shape)
            radius: Any = 0.0
            if np.any(lost) or own.any():  # own: fewer than 64 roundings of non-negative numbers
                radius = (own + lost) * (1.0 + 2.0**-45)
            at = tuple(slice(b.start + p.start, b.stop + p.start) for b, p in zip(block, panel))
            self._put(at, *power.times(words, radius, block, self.finest))

    def _put(self, block: Any, words: Sequence[Array], radius: Any) -> None:
        while len(self.words) < len(words):
            self.words.append(np.zeros(self.shape))
        for whole, word in zip(self.words, words):
            whole[block] = word
        if np.any(radius):
            if not np.ndim(self.radius):
                self.radius = np.zeros(self.shape)
            self.radius[block] = radius

    def result(self) -> tuple[tuple[Array, ...], Any]:
        return tuple(self.words), self.radius


class _Power:
    """2^exponent per element; the exponent is a sum of some that are the same along an axis."""

    def __init__(self, exponents: Sequence[Exponents], shape: tuple[int, ...]) -> None:
        self.least = sum(int(e.min(initial=0)) for e in exponents)
        self.exponents = [np.broadcast_to(e, shape) for e in exponents]
        near = all(np.abs(e).max(initial=0) <= 500 for e in exponents)
        self.factors = [np.broadcast_to(np.ldexp(1.0, e), shape) for e in exponents] if near else []

    def times(
        self, words: Sequence[Array], own: Any, block: Block, finest: int
    ) -> tuple[tuple[Array, ...], Any]:
        """Words and radius times 2^exponent; where a word becomes subnormal it may be rounded.

        finest: the words are multiples of 2^-finest.
        """
        with np.errstate(all="ignore"):
            if self.factors:
                power = prod(factor[block] for factor in self.factors)
                placed = tuple(word * power for word in words)
            else:
                exponent = sum(e[block] for e in self.exponents)
                placed = tuple(np.ldexp(word, exponent) for word in words)
            lost: Any = 0.0
            if np.ldexp(1.0, self.least - finest) < LEAST_PRODUCT:
                for word, before in zip(placed, words, strict=True):
                    small = (np.abs(word) < LEAST_PRODUCT) & (before != 0)
                    lost = lost + np.where(small, LOST, 0.0)
            if np.any(own):
                grown = own * power if self.factors else np.ldexp(own, exponent)
                own = np.where(own > 0, grown * UPWARD + TINY, 0.0)
            return placed, (own + lost) * UPWARD
