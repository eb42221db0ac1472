"""Replay: what a kernel tree returns, in software, for many sums at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import fsum
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from roundoff.gradients.native import native_dtype
from roundoff.numbers.formats import FLOAT64, Format, as_format, rounder, spacing
from roundoff.numbers.machines import fused_multiply_add, two_product
from roundoff.probing.kernel_tree import KernelTree

Array = npt.NDArray[np.float64]

#: The factors of leaf k as tensors of the accumulator's dtype, all sums at once; None for a factor 1.
Factors = Callable[[int], tuple[torch.Tensor, torch.Tensor | None]]


def partial_sums(kernel: KernelTree, x: Array, y: Array | None = None) -> tuple[Array, Array]:
    """Every value of one sum and the error of its rounding: the readable definition of `replay`.

    In rational arithmetic, term by term; nodes of several terms are not done.

    Shapes: x, y (n,); both results (2n - 1,), leaves first; the result is the last value, rounded.
    """
    wide, narrow = kernel.accumulate, kernel.format
    mixed = wide != narrow
    values: list[Fraction] = []
    errors: list[float] = []

    def put(exact: Fraction, *targets: Format) -> None:
        found = exact
        for target in targets:
            found = round_rational(found, target)
        values.append(found)
        errors.append(float(found - exact))

    for k in range(kernel.n):
        product = Fraction(x[k]) * (1 if y is None else Fraction(y[k]))
        put(product, *([] if kernel.fused[k] else [narrow]))
    for k, (left, right) in enumerate(kernel.tree.children.tolist()):
        put(
            values[left] + values[right],
            *([wide, narrow] if mixed and kernel.narrow[k] else [wide]),
        )
    if kernel.n == 1:
        values[0] = round_rational(values[0], narrow)
    return np.array([float(v) for v in values]), np.array(errors)


def round_rational(value: Fraction, target: Format) -> Fraction:
    """A rational number rounded to the nearest number of a format, ties to even, whatever its size."""
    if value == 0:
        return value
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > abs(value)
    unit = Fraction(2) ** (max(exponent, target.emin) - target.precision + 1)
    return round(value / unit) * unit


def terms_of(kernel: KernelTree, values: Array) -> torch.Tensor:
    """Numbers of the kernel's format as a tensor of its accumulator's dtype; leaves along the first axis."""
    return torch.from_numpy(np.ascontiguousarray(values)).to(native_dtype(kernel.accumulate))


def replay(kernel: KernelTree, factors: Factors) -> Array:
    """What the kernel returns: every rounding of the tree and no other.

    Shapes: factors(k) gives two tensors that broadcast to the same shape for all k, and the result has it.
    """
    n = kernel.n
    dtype, narrow = native_dtype(kernel.accumulate), native_dtype(kernel.format)
    multiply_and_add = _fused(dtype)
    mixed, exact = narrow != dtype, kernel.exact_products
    values: dict[int, Any] = {}

    def rounded(k: int) -> torch.Tensor:
        """A value in the accumulator's format."""
        if k >= n:
            value: torch.Tensor = values.pop(k)
            return value
        x, y = factors(k)
        if y is None:
            return x
        product = x * y
        return product.to(narrow).to(dtype) if mixed and not kernel.fused[k] else product

    def parts(k: int) -> list[Array]:
        """float64 arrays whose exact sum is the value: the terms of a node of several, or one."""
        if k >= n:
            value = values.pop(k)
            return value if isinstance(value, list) else [value.double().numpy()]
        if exact or not kernel.fused[k]:
            return [rounded(k).double().numpy()]
        x, y = factors(k)
        assert y is not None, "a fused leaf has two factors"
        return list(two_product(x.double().numpy(), y.double().numpy()))

    def added(k: int, left: int, right: int) -> torch.Tensor:
        """An addition of two terms."""
        leaf, other = (right, left) if right < n and kernel.fused[right] else (left, right)
        if leaf >= n or not kernel.fused[leaf]:
            return rounded(left) + rounded(right)
        x, y = factors(leaf)
        assert y is not None, "a fused leaf has two factors"
        single = mixed and kernel.narrow[k] and narrow == torch.float32
        if single and (kernel.narrow[other - n] if other >= n else not kernel.fused[other]):
            # A float32 multiply-add inside float64 sums: rounding twice would differ at times.
            return _fused(narrow)(x.to(narrow), y.to(narrow), rounded(other).to(narrow)).to(dtype)
        return multiply_and_add(x, y, rounded(other))

    for k, (left, right) in enumerate(kernel.tree.children.tolist()):
        total: Any
        several = kernel.joined[k] or any(isinstance(values.get(c), list) for c in (left, right))
        both = max(left, right) < n and not exact and kernel.fused[[left, right]].all()
        if several:
            total = parts(left) + parts(right)
            if not kernel.joined[k]:
                total = add_aligned(total, kernel.kept, kernel.accumulate, kernel.truncated)
        elif both:
            total = round_exactly(parts(left) + parts(right), kernel.accumulate)
        else:
            total = added(k, left, right)
        if isinstance(total, np.ndarray):
            total = torch.from_numpy(total).to(dtype)
        if kernel.narrow[k] and mixed and not kernel.joined[k]:
            total = total.to(narrow).to(dtype)
        values[n + k] = total
    result = rounded(2 * n - 2) if n > 1 else rounded(0)
    if kernel.divisor is not None:
        divisor = torch.tensor(float(kernel.divisor), dtype=dtype)
        result = result * (1.0 / divisor) if kernel.reciprocal else result / divisor
    # One correct rounding: 16-bit numbers come from float32 here, never from float64.
    found: Array = result.to(narrow).double().numpy()
    return found


def _fused(dtype: torch.dtype) -> Callable[[Any, Any, Any], torch.Tensor]:
    """x y + z with one rounding, by torch.addcmul where that is one on this machine, else emulated."""
    if _hardware(dtype):
        return lambda x, y, z: torch.addcmul(z, x, y)
    return lambda x, y, z: _emulated(x, y, z, dtype)


def _emulated(x: Any, y: Any, z: Any, dtype: torch.dtype) -> torch.Tensor:
    a, b, c = np.broadcast_arrays(*(v.double().numpy() for v in (x, y, z)))
    found = fused_multiply_add(a, b, c, as_format(dtype))
    return torch.from_numpy(found.reshape(a.shape)).to(dtype)


@lru_cache(maxsize=4)
def _hardware(dtype: torch.dtype) -> bool:
    """Whether torch.addcmul is a fused multiply-add here: for all lengths of vectors, and broadcast.

    Its compiler may or may not have contracted the product and the sum.  The numbers are such that
    every separate rounding shows.
    """
    generator = np.random.default_rng(0)

    def numbers(*shape: int) -> torch.Tensor:
        return torch.from_numpy(generator.standard_normal(shape)).to(dtype)

    cases = [(numbers(n), numbers(n)) for n in (*range(1, 40), 1000, 70001)]
    cases += [(numbers(3, 37, 1), numbers(3, 1, 41)), (numbers(64, 3).T, numbers(64, 3).T)]
    for x, y in cases:
        z = -(x * y)
        if not torch.equal(torch.addcmul(z, x, y), _emulated(x, y, z, dtype)):
            return False
    return True


def round_exactly(parts: Sequence[Array], target: Format) -> Array:
    """The sum of the arrays, rounded once to the format.

    math.fsum rounds correctly to float64; its error has the sign that rounding to odd needs, after which
    one more rounding is harmless (Boldo and Melquiond 2008).
    """
    arrays = np.broadcast_arrays(*parts)
    stack = np.stack(arrays).reshape(len(arrays), -1)
    total = np.array([fsum(column) for column in stack.T])
    if target != FLOAT64:
        left = np.array([fsum([*c, -t]) for c, t in zip(stack.T, total, strict=True)])
        even = (total.view(np.int64) & 1) == 0
        odd = np.nextafter(total, np.where(left > 0, np.inf, -np.inf))
        total = rounder(target)(np.where((left != 0) & even, odd, total))
    return total.reshape(arrays[0].shape)


def add_aligned(parts: Sequence[Array], kept: int, target: Format, truncated: bool) -> Array:
    """The sum of terms that are cut off `kept` bits below the leading bit of the largest, rounded once.

    truncated: the sum is rounded toward zero.
    """
    stack = np.stack(np.broadcast_arrays(*parts))
    _, exponent = np.frexp(np.abs(stack).max(axis=0))
    cut = np.trunc(np.ldexp(stack, kept + 1 - exponent))
    cut = np.ldexp(cut, exponent - kept - 1)
    nearest = round_exactly(list(cut), target)
    if not truncated:
        return nearest
    flat = cut.reshape(len(cut), -1)
    over = np.array([fsum([*c, -t]) for c, t in zip(flat.T, nearest.ravel(), strict=True)])
    away = (over.reshape(nearest.shape) * np.sign(nearest)) < 0
    inner = nearest - np.sign(nearest) * spacing(nearest, 0.0 * nearest, target)
    # Just above a power of two the spacing below is half of it; toward zero is the nearest multiple.
    edge = np.abs(np.frexp(nearest)[0]) == 0.5
    inner = np.where(
        edge, nearest - np.sign(nearest) * spacing(nearest, 0.0 * nearest, target) / 2, inner
    )
    return np.where(away, inner, nearest)
