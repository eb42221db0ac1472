"""Numbers cut into slices so narrow that float64 adds them, and their products, without error.

Source: Ozaki, Ogita, Oishi and Rump 2012, Error-free transformations of matrix multiplication by using fast
routines of matrix multiplication.  Here slices are whole numbers, so that neither overflow nor underflow is
possible inside a product, and digits are rounded to nearest, which saves each of them a bit.  The few numbers
that need more slices than nearly all others have their last ones in sparse matrices.

Arrays have three axes, and are worked through in blocks that fit a processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from roundoff.arithmetic.expansions import (
    added,
    swept,
)

Array = npt.NDArray[np.float64]
Exponents = npt.NDArray[np.int64]
Block = tuple[slice, slice]

#: Whole numbers up to 2^53 are float64 numbers; so are their sums, in whatever order, up to there.
WHOLE = 53

#: After a slice at most half a unit of it is left, and a second word of at most half an ulp of the number
#: before it: in units of the next slice 2^(w-1) and 2^(2w-55), which rounds to 2^(w-1) up to this width.
WIDEST = 27

#: What lies this far below the largest of its row is left out and accounted for: scaling cannot underflow.
DEEPEST = 2.0**-900

#: Slices that no more than this part of the numbers (of a sample of so many) needs are sparse matrices.
FEW, SAMPLE = 1 / 128, 1 << 12

#: How many elements are worked on at a time: few enough for a processor's cache.
BLOCK = 1 << 16


def product_widths(terms: int, spans: tuple[int, int] = (WHOLE, WHOLE)) -> tuple[int, int]:
    """Bits of the slices of the two factors of a dot product of so many terms.

    A slice of w bits is a whole number of at most 2^(w-1); the products of two have sums of at
    most terms 2^(w-1) 2^(v-1), which must not exceed 2^53.  spans: how many bits the factors have; of all
    pairs of widths that takes the fewest products of slices.
    """
    both = min(WHOLE + 2 - _log2(terms), 2 * WIDEST)

    def cost(width: int) -> tuple[int, int]:
        slices = _count(spans[0], width) * _count(spans[1], both - width)
        return slices, abs(both - 2 * width)

    width = min(range(max(1, both - WIDEST), min(WIDEST, both - 1) + 1), key=cost)
    return width, both - width


def sum_width(terms: int) -> int:
    """Bits of the slices of a sum of so many terms: terms 2^(w-1) <= 2^53."""
    return min(WHOLE + 1 - _log2(terms), WIDEST)


def _log2(terms: int) -> int:
    """Rounded up."""
    return max(terms - 1, 0).bit_length()


def _count(bits: int, width: int) -> int:
    """Slices of so many bits."""
    return -(-bits // width)


@dataclass(frozen=True, eq=False)
class Sliced:
    """Numbers as 2^exponent (sum over t of digits[t] 2^(1 - (t + 1) width) + rest).

    digits: whole, at most 2^(width-1); first arrays, then sparse matrices of (batches x rows) by (batches x
    terms), a block per batch.  One number per row (size 1 along the axis of the sums): exponent; rest,
    a bound; size, such that neither a number nor its digits together exceed size 2^exponent; some,
    which is 0.0 for rows of zeros and else 1.0.
    """

    digits: list[Any]
    width: int
    exponent: Exponents
    size: Array
    rest: Array
    some: Array

    @cached_property
    def turned(self) -> list[Any]:
        """The arrays (batches, rows, terms) among the digits as (batches x terms) by rows."""
        arrays = [d for d in self.digits if isinstance(d, np.ndarray)]
        return [d.swapaxes(1, 2).reshape(-1, d.shape[1]) for d in arrays]


class Rows:
    """An unevaluated sum of arrays, about to be cut; its rows lie along an axis, the last or last but one.

    words: the first one nearly the rounding of the sum.
    """

    def __init__(self, words: Sequence[Array], axis: int) -> None:
        self.words, self.axis, self.shape = words, axis, words[0].shape
        batches, rows, columns = self.shape
        largest = np.zeros((batches, rows, 1) if axis == -1 else (batches, 1, columns))
        for block in blocks(self.shape, BLOCK):
            sizes = [
                np.abs(word[block]).max(axis=axis, keepdims=True, initial=0.0) for word in words
            ]
            largest[self._of(block)] = np.maximum.reduce([largest[self._of(block)], *sizes])
        self.exponent = np.frexp(largest)[1].astype(np.int64)
        self.some = (largest > 0).astype(np.float64)

    def _of(self, block: Block) -> Any:
        """Where a block's rows are among all rows."""
        return block if self.axis == -1 else block[0]

    @cached_property
    def span(self) -> int:
        """So many bits has nearly every number, from the top of the largest of its row to its own last."""
        size = prod(self.shape)
        few = size <= SAMPLE
        at = np.arange(size) if few else np.random.default_rng(0).integers(0, size, SAMPLE)
        places = np.unravel_index(at, self.shape)
        top = np.broadcast_to(self.exponent, self.shape)[places]
        spans = np.zeros(len(at), np.int64)
        for word in self.words:
            spans = np.maximum(spans, 1 + top - _last_bit(word[places], top))
        if few:
            return int(spans.max(initial=0))
        return int(np.sort(spans)[len(spans) - 1 - int(FEW * len(spans))])

    def cut(self, width: int, bits: int) -> Sliced:
        """Slices until nothing is left, or for so many bits below the largest of each row."""
        arrays = [np.empty(self.shape) for _ in range(_count(min(self.span, bits), width))]
        enough = len(arrays) * width >= bits
        rest, dropped = np.zeros(self.exponent.shape), np.zeros(self.exponent.shape)
        tails = _Tails(len(self.words))
        for block in blocks(self.shape, BLOCK):
            of = self._of(block)
            left, small = _scaled([w[block] for w in self.words], width - 1 - self.exponent[of])
            left = swept(left)
            for array in arrays:
                left = _cut_off(left, width, array[block])
            if small is not None:
                dropped[of] += DEEPEST * small.max(axis=self.axis, keepdims=True)
            if not enough:
                tails.gather(left, block)
            elif any(word.any() for word in left):
                most = added(left).max(axis=self.axis, keepdims=True)
                rest[of] = np.maximum(rest[of], most * _unit(len(arrays), width))
        matrices = tails.cut(self, len(arrays), width, bits, rest)
        rest += dropped
        size = (len(self.words) + rest) * self.some
        return Sliced([*arrays, *matrices], width, self.exponent, size, rest, self.some)


class _Tails:
    """The few numbers of which something is left, by the place of each in its array."""

    def __init__(self, words: int) -> None:
        none = np.empty(0, np.int64)
        self.places: list[tuple[Exponents, ...]] = [(none, none, none)]
        self.left: list[list[Array]] = [[np.empty(0)] * words]

    def gather(self, left: Sequence[Array], block: Block) -> None:
        some = left[0] != 0
        for word in left[1:]:
            some |= word != 0
        at = np.flatnonzero(some)
        if len(at):
            batch, row, column = np.unravel_index(at, some.shape)
            self.places.append((batch + block[0].start, row + block[1].start, column))
            given = [word.ravel()[at] for word in left]
            more = len(self.left[0]) - len(given)
            self.left.append([*given, *[np.zeros(len(at))] * more])

    def cut(self, rows: Rows, done: int, width: int, bits: int, rest: Array) -> list[Any]:
        """Their next slices as sparse matrices; what remains of them, too, goes into `rest`."""
        batch, row, term = (np.concatenate(axis) for axis in zip(*self.places, strict=True))
        left = [np.concatenate(word) for word in zip(*self.left, strict=True)]
        count, terms = rows.shape[1:]
        if rows.axis == -2:
            row, term, count, terms = term, row, terms, count
        row, term = batch * count + row, batch * terms + term
        shape = rows.shape[0] * count, rows.shape[0] * terms
        matrices: list[Any] = []
        while len(row) and (done + len(matrices)) * width < bits:
            digit = np.empty(len(row))
            left = _cut_off(left, width, digit)
            some = digit != 0
            matrices.append(sparse.csr_array((digit[some], (row[some], term[some])), shape))
            kept = np.logical_or.reduce([word != 0 for word in left])
            row, term, left = row[kept], term[kept], [word[kept] for word in left]
        if len(row):
            most = added(left) * _unit(done + len(matrices), width)
            np.maximum.at(rest.reshape(-1), row, most)
        return matrices


def _scaled(words: Sequence[Array], exponent: Exponents) -> tuple[list[Array], Any]:
    """Words times 2^exponent, without those below DEEPEST; and how many such there were, if any.

    In two steps where 2^exponent itself may be out of range.  Each is exact, except on the way to numbers
    below DEEPEST.
    """
    half = exponent // 2
    steps = [half, exponent - half] if np.abs(exponent).max(initial=0) > 1000 else [exponent]
    first, *others = (np.ldexp(1.0, step) for step in steps)
    found, dropped = [], None
    for word in words:
        scaled = word * first
        for power in others:
            scaled *= power
        small = np.abs(scaled) < DEEPEST
        if small.any():
            small &= word != 0
            if small.any():
                scaled[small] = 0.0
                dropped = small.astype(np.float64) + (0.0 if dropped is None else dropped)
        found.append(scaled)
    return found, dropped


def _cut_off(left: list[Array], width: int, digit: Array) -> list[Array]:
    """The next slice into `digit`; returns what is left, in units of the slice after it.

    left: in units of this slice, used up.
    """
    np.rint(left[0], out=digit)
    if len(left) > 1:
        half = 2.0 ** (width - 1)
        np.clip(digit, -half, half, out=digit)  # never needed, see WIDEST; what it cut would stay
    # Exact: both are multiples of one power of two, and the difference is no larger than the number.
    left[0] -= digit
    if len(left) > 1:
        left = swept(left)
    for word in left:
        word *= 2.0**width
    return left


def _unit(done: int, width: int) -> float:
    """The unit of the slice after so many, relative to 2^exponent."""
    return 2.0 ** (1 - (done + 1) * width)


def _last_bit(values: Array, default: Exponents) -> Exponents:
    """The exponent of the last bit that is not zero; the default for zeros."""
    fraction, exponent = np.frexp(values)
    whole = (fraction * 2.0**WHOLE).astype(np.int64)
    last = np.frexp((whole & -whole).astype(np.float64))[1] - 1
    return np.where(values == 0, default, exponent.astype(np.int64) - WHOLE + last)


def blocks(shape: tuple[int, ...], elements: int) -> Iterator[Block]:
    """Slices of the first two of three axes, of about so many elements."""
    batches, rows, columns = shape
    if not prod(shape):
        return
    deep = max(1, elements // columns)
    many = max(1, deep // rows)
    deep = _count(rows, _count(rows, deep))  # all nearly alike
    for batch in range(0, batches, many):
        for row in range(0, rows, deep):
            yield slice(batch, min(batch + many, batches)), slice(row, min(row + deep, rows))
