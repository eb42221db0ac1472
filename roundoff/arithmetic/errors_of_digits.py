"""Random numbers made of the digits of others, as rounding errors are: equal for equal numbers and for those
that differ by a power of two, opposite for opposite ones.

The digits are mixed by two multiplications by odd numbers, of which the upper half is folded down in between
(a variant of D. Lemire's and others' multiplicative hashes).  All is done a block at a time, so that what is
in between stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from roundoff.numbers.formats import Format

Array = npt.NDArray[np.float64]
Bits = npt.NDArray[np.uint64]

#: So many numbers at a time.
BLOCK = 1 << 14

#: The digits of a float64, and the rest: its sign and its power of two.
_FRACTION, _POWER = np.uint64(0x000F_FFFF_FFFF_FFFF), np.uint64(0xFFF0_0000_0000_0000)
_FIRST, _SECOND = np.uint64(0x9E37_79B9_7F4A_7C15), np.uint64(0xD6E8_FEB8_6659_FD93)

#: Quantiles of the standard normal distribution, chosen by so many bits.
_CHOOSING = 14
_NORMAL = special.ndtri((np.arange(1 << _CHOOSING) + 0.5) / (1 << _CHOOSING))


def centred(value: Array, key: np.uint64) -> Array:
    """Uniform in (-1/2, 1/2), of 24 bits."""
    return _in_blocks(value, lambda at, bits, part: np.copysign(1.0, part) * _uniform(bits, key))


def rounding_errors(value: Array, key: np.uint64, format: Format, larger: float = 1.0) -> Array:
    """Uniform within half a spacing of the format at each value, times `larger`; none at 0."""

    def of_block(at: slice, bits: Bits, part: Array) -> Array:
        return _uniform(bits, key) * _signed_spacing(bits, part, format, larger)

    return _in_blocks(value, of_block)


def normal_errors(value: Array, key: np.uint64, spread: Any) -> Array:
    """Normal numbers with a standard deviation each.

    Shapes: spread broadcasts against value.
    """
    spread = np.asarray(spread, np.float64)
    each = np.broadcast_to(spread, value.shape).reshape(-1) if spread.ndim else None

    def of_block(at: slice, bits: Bits, part: Array) -> Array:
        chosen: Array = _NORMAL.take(
            (_mixed(bits, key) >> np.uint64(64 - _CHOOSING)).view(np.int64)
        )
        chosen *= np.copysign(spread if each is None else each[at], part)
        return chosen

    return _in_blocks(value, of_block)


def spacing_at(value: Array, format: Format) -> Array:
    """The format's spacing in the binade of each value; none at 0, nor where it is not finite.

    >>> from roundoff.numbers.formats import as_format
    >>> spacing_at(np.array([1.5, -0.7, 0.0, np.inf]), as_format("float32")) * 2.0**24
    array([2., 1., 0., 0.])
    """
    found = _in_blocks(value, lambda at, bits, part: _signed_spacing(bits, part, format))
    return np.asarray(np.abs(found))


def _in_blocks(value: Array, of_block: Callable[[slice, Bits, Array], Array]) -> Array:
    """Per block its place, its bits and its numbers."""
    found = np.empty(np.shape(value))
    flat, out = np.ascontiguousarray(value, np.float64).reshape(-1), found.reshape(-1)
    bits = flat.view(np.uint64)
    for start in range(0, flat.size, BLOCK):
        at = slice(start, start + BLOCK)
        out[at] = of_block(at, bits[at], flat[at])
    return found


def _mixed(bits: Bits, key: np.uint64) -> Bits:
    mixed = bits & _FRACTION
    with np.errstate(over="ignore"):  # numpy warns where a scalar is taken modulo 2^64
        mixed += key
        mixed *= _FIRST
        mixed ^= mixed >> np.uint64(32)
        mixed *= _SECOND
    return mixed


def _uniform(bits: Bits, key: np.uint64) -> Array:
    """In (-1/2, 1/2), by the digits, whatever the sign."""
    mixed = _mixed(bits, key)
    mixed >>= np.uint64(40)
    drawn = mixed.view(np.int64).astype(np.float64)
    drawn *= 2.0**-24
    drawn += 2.0**-25 - 0.5
    return drawn


def _signed_spacing(bits: Bits, part: Array, format: Format, larger: float = 1.0) -> Array:
    """The spacing with the sign of the value."""
    power = (bits & _POWER).view(np.float64)
    size = np.abs(power)
    least, most = size.min(), size.max()
    if least < format.smallest_normal:
        power = np.copysign(np.maximum(size, format.smallest_normal), power)
        power[part == 0] = 0.0
    if most == np.inf:
        power = np.where(np.isinf(power), 0.0, power)
    power *= 2.0 * format.u * larger
    return power
