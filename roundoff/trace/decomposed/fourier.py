"""Discrete Fourier transforms: every axis is one product with a matrix of exact cosines and sines.

PyTorch has them carried out by MKL or pocketfft, in some log n additions each.  The product is marked as a
transform (`roundoff::fft`), so that bounds and predictions take that for it, whatever its terms are
(`bounds.theorems.fourier`).
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from math import prod
from typing import Any

import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.decomposed.pairs import Pair, of_pairs
from roundoff.trace.decomposed.plainly import plainly

_library = torch.library.Library("roundoff", "FRAGMENT")  # type: ignore[no-untyped-call]
_library.define("fft(Tensor x, Tensor weights, int[] lengths) -> Tensor")  # type: ignore[no-untyped-call]


def _by_weights(x: torch.Tensor, weights: torch.Tensor, lengths: Sequence[int]) -> torch.Tensor:
    return x @ weights


_library.impl("fft", _by_weights, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]

#: x by weights (rows, n) (n, m), a part of a transform with so many elements along each of its axes.
FFT: Any = torch.ops.roundoff.fft.default

#: Elements along an axis.
LONGEST = 4096

#: Cosines that are rational, or the root of one.
_WHOLE = {Fraction(0): 0, Fraction(1, 4): 1, Fraction(1, 6): 2, Fraction(1, 8): 3}


def _cosine(turn: Fraction) -> tuple[int, Fraction]:
    """The sign of the cosine of so many turns, and an angle up to a quarter turn with that size."""
    turn %= 1
    turn = min(turn, 1 - turn)
    return (1, turn) if turn <= Fraction(1, 4) else (-1, Fraction(1, 2) - turn)


@cache
def _places(n: int) -> tuple[torch.Tensor, torch.Tensor, tuple[Fraction, ...]]:
    """Where the cosine and the sine of j k / n turns stand in a table, j by k; its other angles."""
    found = [_cosine(Fraction(k, 4 * n)) for k in range(4 * n)]
    angles = tuple(sorted({turn for _, turn in found} - _WHOLE.keys()))
    at = _WHOLE | {turn: len(_WHOLE) + k for k, turn in enumerate(angles)}
    size = len(_WHOLE) + len(angles)
    places = torch.tensor([at[turn] + (sign < 0) * size for sign, turn in found])
    numbers = torch.arange(n)
    turns = 4 * (numbers[:, None] * numbers % n)
    return places[turns], places[(turns - n) % (4 * n)], angles  # sin t = cos (t - 1/4)


def _table(angles: Sequence[Fraction], dtype: torch.dtype) -> torch.Tensor:
    """1, 0, 1/2, the root of 1/2, then the cosines of other angles, in turns up to 1/4; all negatives.

    The 0 is a difference: were it zero by structure, what it is multiplied by would be taken for absent.
    Of the two sides of an eighth of a turn, one is a sine: no cosine cancels.
    """
    one, half = torch.full((1,), 1.0, dtype=dtype), torch.full((1,), 0.5, dtype=dtype)
    parts = [one, one - one, half, half.sqrt()]
    pi = 4 * torch.full((), 1.0, dtype=dtype).atan()
    shallow = [turn for turn in angles if turn < Fraction(1, 8)]
    steep = [Fraction(1, 4) - turn for turn in angles if turn > Fraction(1, 8)]
    for turns, wave in ((shallow, torch.cos), (steep, torch.sin)):
        if turns:
            upper, lower = (
                plainly(torch.tensor, whole, dtype=dtype)
                for whole in ([2 * t.numerator for t in turns], [t.denominator for t in turns])
            )
            parts.append(wave(pi * upper / lower))
    table = torch.cat(parts)
    return torch.cat((table, -table))


def _waves(n: int, dtype: torch.dtype, forward: bool) -> Pair:
    """cos and sin of -2 pi j k / n, or of +2 pi j k / n, j by k.

    Raises: UnsupportedError for too many.
    """
    if n > LONGEST:
        raise UnsupportedError(
            f"cannot trace a Fourier transform of {n} elements, which is followed as a product with {n} by "
            f"{n} numbers; take at most {LONGEST} along an axis"
        )
    cosines, sines, angles = plainly(_places, n)
    table = _table(angles, dtype)
    return Pair(table[cosines], -table[sines] if forward else table[sines])


def _along(z: Pair, axis: int, forward: bool, lengths: Sequence[int]) -> Pair:
    """The transform along one axis."""
    laid = z.map(lambda part: part.movedim(axis, -1))
    shape = laid.re.shape
    n = shape[-1]
    waves = _waves(n, z.re.dtype, forward)
    rows = torch.cat((waves.re, waves.im), 1), torch.cat((-waves.im, waves.re), 1)
    x = torch.cat((laid.re.reshape(-1, n), laid.im.reshape(-1, n)), 1)
    found = FFT(x, torch.cat(rows), lengths)
    return Pair(found[:, :n], found[:, n:]).map(lambda part: part.reshape(shape).movedim(-1, axis))


def _scaled(x: torch.Tensor, normalization: int, lengths: Sequence[int]) -> torch.Tensor:
    """Times 1 / n (2), or 1 / sqrt n (1)."""
    if normalization == 0:
        return x
    count = torch.full((), float(prod(lengths)), dtype=x.dtype)
    return x * (1 / (count.sqrt() if normalization == 1 else count))


@of_pairs("_fft_c2c")
def _complex_to_complex(z: Pair, dim: Sequence[int], normalization: int, forward: bool) -> Pair:
    lengths = [z.re.shape[axis] for axis in dim]
    for axis in dim:
        z = _along(z, axis, forward, lengths)
    return z.map(lambda part: _scaled(part, normalization, lengths))


@of_pairs("_fft_r2c")
def _real_to_complex(
    x: torch.Tensor, dim: Sequence[int], normalization: int, onesided: bool
) -> Pair:
    lengths = [x.shape[axis] for axis in dim]
    laid = x.movedim(dim[-1], -1)
    n = laid.shape[-1]
    kept = n // 2 + 1 if onesided else n
    waves = _waves(n, x.dtype, True).map(lambda part: part[:, :kept])
    found = FFT(laid.reshape(-1, n), torch.cat((waves.re, waves.im), 1), lengths)
    shape = (*laid.shape[:-1], kept)
    z = Pair(found[:, :kept], found[:, kept:])
    z = z.map(lambda part: part.reshape(shape).movedim(-1, dim[-1]))
    for axis in dim[:-1]:
        z = _along(z, axis, True, lengths)
    return z.map(lambda part: _scaled(part, normalization, lengths))


@of_pairs("_fft_c2r")
def _complex_to_real(
    z: Pair, dim: Sequence[int], normalization: int, last_dim_size: int
) -> torch.Tensor:
    """The other half of the last axis is the conjugate of the first; ends are taken for real."""
    n = last_dim_size
    lengths = [*(z.re.shape[axis] for axis in dim[:-1]), n]
    for axis in dim[:-1]:
        z = _along(z, axis, False, lengths)
    laid = z.map(lambda part: part.movedim(dim[-1], -1)[..., : n // 2 + 1])
    inner = slice(1, (n + 1) // 2)
    end = torch.zeros_like(laid.im[..., :1])
    ends = [end] if n > 1 and n % 2 == 0 else []
    half = laid.im[..., inner]
    re = torch.cat((laid.re, laid.re[..., inner].flip(-1)), -1)
    im = torch.cat((end, half, *ends, -half.flip(-1)), -1)
    waves = _waves(n, re.dtype, False)
    x = torch.cat((re.reshape(-1, n), im.reshape(-1, n)), 1)
    found = FFT(x, torch.cat((waves.re, -waves.im)), lengths)
    found = found.reshape(re.shape).movedim(-1, dim[-1])
    return _scaled(found, normalization, lengths)
