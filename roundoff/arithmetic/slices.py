"""Sums and matrix products without error: numbers cut into slices so narrow that float64 adds them exactly.

Source: Ozaki, Ogita, Oishi and Rump 2012, Error-free transformations of matrix multiplication by using fast
routines of matrix multiplication.  Here slices are whole numbers, so that neither overflow nor underflow is
possible inside a product, and digits are rounded to nearest, which saves each of them a bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.expansions import Accumulator, added, swept

Array = npt.NDArray[np.float64]

#: Whole numbers up to 2^53 are float64 numbers; so are their sums, in whatever order, up to there.
WHOLE = 53

#: After a slice at most half a unit of it is left, and a second word of at most half an ulp of the number
#: before it: in units of the next slice 2^(w-1) and 2^(2w-55), which rounds to 2^(w-1) up to this width.
WIDEST = 27

#: What lies this far below the largest of its row is left out and accounted for: scaling cannot underflow.
DEEPEST = 2.0**-900


def product_widths(terms: int) -> tuple[int, int]:
    """Bits of the slices of the two factors of a dot product of so many terms.

    A slice of w bits is a whole number of at most 2^(w-1); the products of two have sums of at
    most terms 2^(w-1) 2^(v-1), which must not exceed 2^53.
    """
    both = min(WHOLE + 2 - _log2(terms), 2 * WIDEST)
    return both // 2, both - both // 2


def sum_width(terms: int) -> int:
    """Bits of the slices of a sum of so many terms: terms 2^(w-1) <= 2^53."""
    return min(WHOLE + 1 - _log2(terms), WIDEST)


def _log2(terms: int) -> int:
    """Rounded up."""
    return max(terms - 1, 0).bit_length()


@dataclass(frozen=True, eq=False)
class Sliced:
    """Numbers as 2^exponent (sum over t of digits[t] 2^(1 - (t + 1) width) + rest).

    digits: whole, at most 2^(width-1).  One number per row (size 1 along the axis of the sums): exponent;
    rest, a bound; size, such that neither a number nor its digits together exceed size 2^exponent; some,
    which is 0.0 for rows of zeros and else 1.0.
    """

    digits: list[Array]
    width: int
    exponent: npt.NDArray[np.int64]
    size: Array
    rest: Array
    some: Array


def cut(words: Sequence[Array], axis: int, width: int, bits: int) -> Sliced:
    """Slices until nothing is left, or for so many bits below the largest of each row.

    words: an unevaluated sum, the first word nearly its rounding.
    """
    words = swept(words)
    largest = np.maximum.reduce(
        [np.abs(w).max(axis=axis, keepdims=True, initial=0.0) for w in words]
    )
    exponent = np.frexp(largest)[1].astype(np.int64)
    scaled = [_scaled(word, -exponent) for word in words]
    left = [word for word, _ in scaled]
    digits: list[Array] = []
    half = 2.0 ** (width - 1)
    spare = np.empty(left[0].shape)
    while (some_left := any(word.any() for word in left)) and len(digits) * width < bits:
        grid = 2.0 ** (1 - (len(digits) + 1) * width)
        digit = left[0] * (1.0 / grid)
        np.rint(digit, out=digit)
        if len(left) > 1:
            np.clip(
                digit, -half, half, out=digit
            )  # never needed, see WIDEST; what it cut would stay
        digits.append(digit)
        # Exact: both are multiples of one power of two, and the difference is no larger than the number.
        left[0] -= np.multiply(digit, grid, out=spare)
        if len(left) > 1:
            left = swept(left)
    some = (largest > 0).astype(np.float64)
    rest: Any = 0.0
    if some_left:
        rest = added([np.abs(word).max(axis=axis, keepdims=True) for word in left])
    for _, dropped in scaled:
        if dropped is not None:
            rest = rest + DEEPEST * dropped.any(axis=axis, keepdims=True)
    rest = np.broadcast_to(rest, some.shape)
    return Sliced(digits, width, exponent, (len(words) + rest) * some, rest, some)


def _scaled(values: Array, exponent: npt.NDArray[np.int64]) -> tuple[Array, Any]:
    """values 2^exponent, at most 1 in size, without those below DEEPEST; and which these are, if any.

    In two steps where 2^exponent itself may be out of range: each is exact, except on the way to numbers
    below DEEPEST.
    """
    step = exponent // 2 if np.abs(exponent).max(initial=0) > 1000 else 0
    scaled = values * np.ldexp(1.0, exponent - step)
    if np.any(step):
        scaled *= np.ldexp(1.0, step)
    small = np.abs(scaled) < DEEPEST
    small &= values != 0
    if not small.any():
        return scaled, None
    scaled[small] = 0.0
    return scaled, small


def multiply(
    first: Sequence[Array],
    second: Sequence[Array],
    words: int,
    bits: int,
    product: Callable[[Array, Array], Array] = np.matmul,
) -> tuple[tuple[Array, ...], Any, Any]:
    """The matrix product of two unevaluated sums: words, a bound of their error, and 2^exponent's exponent.

    Shapes: (B, M, K) by (B, K, N).  Products of slices below 2^-bits of the largest possible are left out
    and accounted for.  product: a float64 matrix product; in any order, with or without fused multiply-add.
    """
    terms = first[0].shape[-1]
    widths = product_widths(terms)
    a, b = cut(first, -1, widths[0], bits), cut(second, -2, widths[1], bits)
    live_a, live_b = ([_live(d, axis) for d in x.digits] for x, axis in ((a, -1), (b, -2)))
    sums = Accumulator(words)
    left_out = 0.0
    for s, t in _by_size(a, b):
        weight = 2.0 ** -(s * a.width + t * b.width)
        if s * a.width + t * b.width >= bits:
            left_out += terms * weight
            continue
        whole = _product(a.digits[s], b.digits[t], live_a[s], live_b[t], product)
        whole *= weight * 2.0 ** (2 - a.width - b.width)  # a power of two
        sums.add(whole)
    shape = (*first[0].shape[:-1], second[0].shape[-1])
    found, lost = sums.total(shape)
    rest = left_out * (a.some * b.some) + terms * (a.rest * b.size + b.rest * a.size)
    return found, _radius(rest, lost, shape), a.exponent + b.exponent


def _live(digits: Array, axis: int) -> npt.NDArray[np.int64] | None:
    """The rows or columns with a digit other than zero, where these are fewer than half of all.

    The last slices hold the ends of the few numbers that are small in their rows.
    """
    found = np.flatnonzero(digits.any(axis=(0, axis)))
    return found if 2 * len(found) < digits.shape[-1 if axis == -2 else -2] else None


def _product(
    first: Array, second: Array, rows: Any, columns: Any, product: Callable[[Array, Array], Array]
) -> Array:
    """The product, in which other rows and columns than these are zero; None stands for all."""
    if rows is None and columns is None:
        return product(first, second)
    shape = (*first.shape[:-1], second.shape[-1])
    rows = np.arange(shape[1]) if rows is None else rows
    columns = np.arange(shape[2]) if columns is None else columns
    part = product(first[:, rows], np.ascontiguousarray(second[:, :, columns]))
    whole = np.zeros(shape)
    whole[:, rows[:, np.newaxis], columns] = part
    return whole


def total(words: Sequence[Array], most: int, bits: int) -> tuple[tuple[Array, ...], Any, Any]:
    """The sum over the last axis of an unevaluated sum; results as of `multiply`."""
    terms = words[0].shape[-1]
    a = cut(words, -1, sum_width(terms), bits)
    sums = Accumulator(most)
    for number, digit in enumerate(a.digits):
        sums.add(digit.sum(axis=-1) * 2.0 ** (1 - (number + 1) * a.width))
    shape = words[0].shape[:-1]
    found, lost = sums.total(shape)
    return found, _radius(terms * a.rest[..., 0], lost, shape), a.exponent[..., 0]


def _radius(rest: Any, lost: Any, shape: tuple[int, ...]) -> Any:
    """The sum of two bounds; `rest` has seen fewer than 64 roundings of non-negative numbers."""
    if not np.any(rest) and not np.any(lost):
        return 0.0
    return np.broadcast_to((rest + lost) * (1.0 + 2.0**-45), shape)


def _by_size(a: Sliced, b: Sliced) -> Iterator[tuple[int, int]]:
    pairs = ((s, t) for s in range(len(a.digits)) for t in range(len(b.digits)))
    return iter(sorted(pairs, key=lambda pair: pair[0] * a.width + pair[1] * b.width))
