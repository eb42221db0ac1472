"""Machines: correctly rounded + - * and fused multiply-add of whole arrays in one format.

The fast ones are hardware's own; any other format is computed in float64 and rounded.  That is one
correct rounding if float64 has at least 2p + 2 bits and subnormals finer by 2^(p+2); `machine`
checks it, once.  Source: Figueroa 1995, When is double rounding innocuous?
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from roundoff.errors import UnsupportedError
from roundoff.numbers.formats import FLOAT32, FLOAT64, Format, round_to, rounder

Array = npt.NDArray[np.float64]


class Machine(Protocol):
    """Operations on the machine's own arrays; `load` and `store` change from and to float64.

    NumPy's floating-point warnings are the caller's to silence, once for many operations.
    """

    def load(self, values: Array, exact: bool = False) -> Any:
        """A new array of the machine, rounded to the format (exact: known to be in it)."""
        ...

    def store(self, values: Any) -> Array:
        """The same numbers in float64."""
        ...

    def adder(self, terms: Any) -> Callable[[Any, Any], Any]:
        """The fastest a += b for sums of some of these terms: in place, and returned."""
        ...

    def add(self, a: Any, b: Any) -> Any: ...

    def subtract(self, a: Any, b: Any) -> Any: ...

    def multiply(self, a: Any, b: Any) -> Any: ...

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        """a b + c with one rounding."""
        ...

    def where(self, condition: Any, a: Any, b: Any) -> Any: ...

    def zeros_like(self, a: Any) -> Any: ...


class NumPy:
    """float32 and float64, by NumPy."""

    def __init__(self, target: Format) -> None:
        self.target, self.dtype = target, target.numpy_dtype

    def load(self, values: Array, exact: bool = False) -> Any:
        return values.astype(self.dtype)

    def store(self, values: Any) -> Array:
        return np.asarray(values, np.float64)

    def adder(self, terms: Any) -> Callable[[Any, Any], Any]:
        return lambda a, b: np.add(a, b, a)

    def add(self, a: Any, b: Any) -> Any:
        return np.add(a, b)

    def subtract(self, a: Any, b: Any) -> Any:
        return np.subtract(a, b)

    def multiply(self, a: Any, b: Any) -> Any:
        return np.multiply(a, b)

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        x, y, z = (self.store(v) for v in (a, b, c))
        return fused_multiply_add(x, y, z, self.target).astype(self.dtype)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return np.where(condition, a, b)

    def zeros_like(self, a: Any) -> Any:
        return np.zeros_like(a)


class Torch:
    """float16 and bfloat16, by torch: each operation is done in float32 and rounded."""

    def __init__(self, target: Format) -> None:
        import torch

        self.torch, self.target, self.dtype = torch, target, target.torch_dtype

    def load(self, values: Array, exact: bool = False) -> Any:
        # torch casts float64 by way of float32, which rounds twice.
        rounded = values if exact else round_to(values, self.target)
        return self.torch.from_numpy(np.ascontiguousarray(rounded)).to(self.dtype)

    def store(self, values: Any) -> Array:
        result: Array = values.to(self.torch.float64).numpy()
        return result

    def adder(self, terms: Any) -> Callable[[Any, Any], Any]:
        return lambda a, b: a.add_(b)

    def add(self, a: Any, b: Any) -> Any:
        return self.torch.add(a, b)

    def subtract(self, a: Any, b: Any) -> Any:
        return self.torch.sub(a, b)

    def multiply(self, a: Any, b: Any) -> Any:
        return self.torch.mul(a, b)

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        x, y, z = (self.store(v) for v in (a, b, c))
        return self.load(fused_multiply_add(x, y, z, self.target), exact=True)

    def where(self, condition: Any, a: Any, b: Any) -> Any:
        return self.torch.where(condition, a, b)

    def zeros_like(self, a: Any) -> Any:
        return self.torch.zeros_like(a)


class Emulated(NumPy):
    """Any other format: wider arithmetic, then one rounding.

    The arrays are float32 where that is wide enough for sums, else float64.
    """

    def __init__(self, target: Format) -> None:
        self.target, self.round = target, rounder(target)
        small = _emulates(FLOAT32, target)
        self.dtype = np.dtype(np.float32 if small else np.float64)
        self.integers: np.dtype[Any] = np.dtype(np.uint32 if small else np.uint64)
        self.dropped = (FLOAT32 if small else FLOAT64).precision - target.precision

    def load(self, values: Array, exact: bool = False) -> Any:
        copy = np.array(values, np.float64)
        return (copy if exact else self.round(copy)).astype(self.dtype)

    def adder(self, terms: Any) -> Callable[[Any, Any], Any]:
        # |computed| <= (1 + (n-1) u) S for every order (Jeannerod and Rump 2013): nothing overflows.
        largest = float(np.abs(terms).sum(axis=0, dtype=np.float64).max(initial=0.0))
        safe = largest * (1.0 + len(terms) * self.target.u) < self.target.max
        return _SumRounder(self.dropped, self.integers, None if safe else self.target)

    def add(self, a: Any, b: Any) -> Any:
        return self._rounded(np.add(self.store(a), self.store(b)))

    def subtract(self, a: Any, b: Any) -> Any:
        return self._rounded(np.subtract(self.store(a), self.store(b)))

    def multiply(self, a: Any, b: Any) -> Any:
        return self._rounded(np.multiply(self.store(a), self.store(b)))

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        x, y, z = (self.store(v) for v in (a, b, c))
        return fused_multiply_add(x, y, z, self.target).astype(self.dtype)

    def _rounded(self, values: Any) -> Any:
        return self.round(np.atleast_1d(values)).reshape(np.shape(values)).astype(self.dtype)


class _SumRounder:
    """a += b, rounded to nearest even by dropping low bits of the significand as an integer.

    Legal for sums: one in the subnormal range is exact, because its operands are multiples of the smallest
    subnormal; so the last bit to keep is at one place of the significand.  Infinity and NaN
    keep theirs.  limit: a format whose overflow is looked for, or None where there can be none.
    """

    def __init__(self, dropped: int, integers: np.dtype[Any], limit: Format | None) -> None:
        one = integers.type(1)
        self.integers, self.one, self.shift, self.limit = (
            integers,
            one,
            integers.type(dropped),
            limit,
        )
        self.below_half = integers.type((1 << (dropped - 1)) - 1)
        self.mask = ~integers.type((1 << dropped) - 1)
        self.scratch: dict[tuple[int, ...], Any] = {}

    def __call__(self, a: Any, b: Any) -> Any:
        np.add(a, b, a)
        bits = a.view(self.integers)
        if a.shape not in self.scratch:
            self.scratch[a.shape] = np.empty(a.shape, self.integers)
        odd = self.scratch[a.shape]
        np.right_shift(bits, self.shift, odd)
        np.bitwise_and(odd, self.one, odd)
        np.add(odd, self.below_half, odd)
        np.add(bits, odd, bits)
        np.bitwise_and(bits, self.mask, bits)
        return a if self.limit is None else self._limited(a, self.limit)

    def _limited(self, a: Any, limit: Format) -> Any:
        if not limit.infinity:
            return np.clip(a, -limit.max, limit.max, out=a)
        over = np.abs(a) > limit.max
        if over.any():
            a[over] = np.copysign(np.inf, a[over])
        return a


@lru_cache(maxsize=64)
def machine(target: Format) -> Machine:
    """The fastest correct machine of a format.

    Raises: UnsupportedError for a format that float64 arithmetic cannot emulate.
    """
    if target.name in ("float32", "float64") and target.numpy_dtype is not None:
        return NumPy(target)
    if target.name in ("float16", "bfloat16") and target.torch_dtype is not None:
        return Torch(target)
    check_emulated(target)
    return Emulated(target)


def check_emulated(target: Format) -> None:
    """Refuse a format whose arithmetic would round twice in float64."""
    if target != FLOAT64 and not _emulates(FLOAT64, target):
        raise UnsupportedError(
            f"format {target.name!r} (p = {target.precision}, emin = {target.emin}, emax = {target.emax}) "
            "cannot be emulated by rounding float64 results; take p <= 25 and exponents within -500 .. 511"
        )


def _emulates(wide: Format, target: Format) -> bool:
    """Whether rounding wide results of + - * to the target is one correct rounding."""
    finest = target.smallest_subnormal * 2.0 ** -(target.precision + 2)
    return (
        wide.precision >= 2 * target.precision + 2
        and finest >= wide.smallest_subnormal
        and 2 * target.emax + 1 <= wide.emax
    )


# ------------------------------------------------------------------------------- error-free steps


def two_sum(a: Array, b: Array) -> tuple[Array, Array]:
    """s = fl(a + b) and its error, exactly.  Source: Knuth, TAOCP 2, 4.2.2, theorem B."""
    s = a + b
    back = s - a
    return s, (a - (s - back)) + (b - back)


def two_product(a: Array, b: Array) -> tuple[Array, Array]:
    """p = fl(a b) and its error, exactly barring overflow and underflow.  Source: Dekker 1971."""
    p = a * b
    (ah, al), (bh, bl) = _split(a), _split(b)
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


def _split(a: Array) -> tuple[Array, Array]:
    c = 134217729.0 * a  # 2^27 + 1
    high = c - (c - a)
    return high, a - high


def add_to_odd(a: Array, b: Array) -> Array:
    """a + b rounded to odd: toward zero, with the last bit set if inexact.

    Rounding the result to at most 51 bits gives the correct rounding of a + b.
    Source: Boldo and Melquiond 2008.
    """
    s, e = two_sum(a, b)
    even = (s.view(np.int64) & 1) == 0
    # s is even and e not zero: the odd neighbour lies on the side of e.
    neighbour = np.nextafter(s, np.where(e > 0, np.inf, -np.inf))
    return np.where((e != 0) & even & np.isfinite(s), neighbour, s)


def fused_multiply_add(a: Array, b: Array, c: Array, target: Format) -> Array:
    """a b + c with one rounding to the format, for float64 arrays of its numbers.

    Source: Boldo and Melquiond 2008, Emulation of a FMA and correctly rounded sums: proved algorithms
    using rounding to odd.  Where a product may overflow or underflow on the way, exact rationals.
    """
    a, b, c = (np.atleast_1d(np.array(v, np.float64)) for v in np.broadcast_arrays(a, b, c))
    with np.errstate(all="ignore"):
        if 2 * target.precision <= FLOAT64.precision:
            return rounder(target)(add_to_odd(a * b, c))  # the product is exact
        high, low = two_product(a, b)
        upper, lower = two_sum(c, low)
        top, rest = two_sum(high, upper)
        result = top + add_to_odd(lower, rest)
        sizes = np.abs(np.stack([a, b, a * b, c]))
        risky = (sizes > 2.0**960).any(axis=0) | ((sizes[2] < 2.0**-900) & (a != 0) & (b != 0))
        plain = ~np.isfinite(sizes).all(axis=0) & ~(
            np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
        )
        result = np.where(plain | (a == 0) | (b == 0), a * b + c, result)
    for at in zip(*np.nonzero(risky & ~plain), strict=True):
        result[at] = _nearest(Fraction(a[at]) * Fraction(b[at]) + Fraction(c[at]))
    return result


def _nearest(exact: Fraction) -> float:
    try:
        return float(exact)
    except OverflowError:
        return float("inf") if exact > 0 else float("-inf")
