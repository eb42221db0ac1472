"""Sums, products, extrema and what is made of them, over axes."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Sequence
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.lowering.expressions import Expression, formula
from roundoff.trace.lowering.registry import lowers
from roundoff.trace.lowering.values import Selection, Value, apply
from roundoff.trace.steps import Builder, Index, Shape, numbered
from roundoff.words import counted

#: Terms of all prefixes together, beyond which a cumulative sum is refused.
MOST_PREFIX_TERMS = 1 << 24


def axes_of(shape: Shape, dims: Any) -> list[int]:
    """Axes by number from 0; all of them for none given."""
    if dims is None or (isinstance(dims, Sequence) and not dims):
        return list(range(len(shape)))
    dims = [dims] if isinstance(dims, int) else dims
    return sorted(d % len(shape) for d in dims) if shape else []


def laid_out(x: Expression, dims: Any) -> tuple[Expression, Shape]:
    """The summed axes last, in C order, as one; and the shape with ones in their place."""
    axes = axes_of(x.shape, dims)
    rest = [axis for axis in range(len(x.shape)) if axis not in axes]
    lead = tuple(x.shape[axis] for axis in rest)
    terms: Index = numbered(x.shape).transpose([*rest, *axes])
    leaves = prod(x.shape[axis] for axis in axes)
    kept = tuple(1 if a in axes else s for a, s in enumerate(x.shape))
    return x.move(np.ascontiguousarray(terms).reshape(*lead, leaves)), kept


def _shaped(result: Expression, kept: Shape, keepdim: bool) -> Expression:
    return result.reshape(kept) if keepdim else result


def total(x: Expression, dims: Any = None, keepdim: bool = False) -> Expression:
    """The sum.  Leaves in C order of the summed axes."""
    laid, kept = laid_out(x, dims)
    return _shaped(laid.sum_last(), kept, keepdim)


def count_of(x: Expression, dims: Any) -> int:
    """How many elements go into one result over these axes."""
    return prod(x.shape[axis] for axis in axes_of(x.shape, dims))


def average(x: Expression, dims: Any = None, keepdim: bool = False) -> Expression:
    """The mean."""
    count = count_of(x, dims)
    if count == 0:
        raise UnsupportedError("cannot trace the mean of no elements; it is not a number")
    return total(x, dims, keepdim) / count


def updated_mean(x: Expression, dims: Any) -> Expression:
    """The mean of kernels that update it, by Welford's way: every term is multiplied by a reciprocal.

    At worst n updates round more often than that, by some 3 ln n of n + 1 times; the largest error found by a
    search was 0.87 of the bound (four terms, float32; tests/gradients/test_torch_kernels.py has the kind).
    """
    return total(x * (x.constant(1) / count_of(x, dims)), dims, keepdim=True)


def folded(x: Expression, function: str, dims: Any = None, keepdim: bool = False) -> Expression:
    """All elements by an associative map, in halves."""
    laid, kept = laid_out(x, dims)
    while (n := laid.shape[-1]) > 1:
        numbers = numbered(laid.shape)
        half = n // 2
        pairs = laid.move(numbers[..., :half].copy()).map(
            function, laid.move(numbers[..., half : 2 * half].copy())
        )
        if n % 2:
            joined = np.concatenate(
                [numbered(pairs.shape), numbers[..., -1:] + prod(pairs.shape)], -1
            )
            pairs = pairs.move(joined, laid)
        laid = pairs
    return _shaped(laid.reshape(laid.shape[:-1]), kept, keepdim)


@formula("sum")
def _sum(x: Expression, dim: Any = None, keepdim: bool = False) -> Expression:
    return total(x, dim, keepdim)


@formula("mean")
def _mean(x: Expression, dim: Any = None, keepdim: bool = False) -> Expression:
    return average(x, dim, keepdim)


@formula("trace")
def _trace(x: Expression) -> Expression:
    return x.move(np.diagonal(numbered(x.shape)).copy()).sum_last()


@formula("prod")
def _prod(x: Expression, dim: Any = None, keepdim: bool = False) -> Expression:
    return folded(x, "mul", dim, keepdim)


def _prefixes(x: Expression, dim: int) -> Index:
    """Element numbers of every prefix along an axis, padded with zeros: (*shape, n)."""
    n = x.shape[dim]
    if prod(x.shape) * n > MOST_PREFIX_TERMS:
        raise UnsupportedError(
            f"cannot trace a cumulative sum of {counted(n, 'element')} in "
            f"{counted(prod(x.shape) // n, 'row')}: too many; "
            "take a shorter one"
        )
    numbers = np.moveaxis(numbered(x.shape), dim, -1)[..., None, :]
    below = np.tril(np.ones((n, n), bool))
    return np.moveaxis(np.where(below, numbers, 0), -2, dim % len(x.shape))


@formula("cumsum")
def _cumsum(x: Expression, dim: int) -> Expression:
    return x.move(_prefixes(x, dim)).sum_last() if x.shape else x


@formula("cumprod")
def _cumprod(x: Expression, dim: int) -> Expression:
    """One after another."""
    if not x.shape:
        return x
    numbers = numbered(x.shape)
    factors = [x.move(part.copy()) for part in np.split(numbers, x.shape[dim], dim)]
    first, *others = itertools.accumulate(factors, operator.mul)
    places = [numbered(first.shape, 1 + k * prod(first.shape)) for k in range(len(factors))]
    return first.move(np.concatenate(places, dim), *others)


# ------------------------------------------------------------------------------- soft maxima


def shifted(x: Expression, dim: Any) -> tuple[Expression, Expression]:
    """x less its maximum, and the maximum; what stable kernels exponentiate."""
    largest = folded(x, "maximum", dim, keepdim=True)
    return x - largest, largest


@formula("_softmax", "_safe_softmax", "softmax")
def _softmax(x: Expression, dim: int) -> Expression:
    if not x.shape:
        return x.constant(1)
    powers = shifted(x, dim)[0].exp()
    return powers * (1 / total(powers, dim, keepdim=True))  # as kernels do it over the last axis


@formula("_softmax_backward_data")
def _softmax_backward(upstream: Expression, y: Expression, dim: int) -> Expression:
    return y * (upstream - total(upstream * y, dim, keepdim=True))


@formula("_log_softmax", "log_softmax")
def _log_softmax(x: Expression, dim: int) -> Expression:
    if not x.shape:
        return x.constant(0)
    below, _ = shifted(x, dim)
    return below - total(below.exp(), dim, keepdim=True).log()


@formula("_log_softmax_backward_data")
def _log_softmax_backward(upstream: Expression, y: Expression, dim: int) -> Expression:
    return upstream - y.exp() * total(upstream, dim, keepdim=True)


@formula("logsumexp")
def _logsumexp(x: Expression, dim: Any, keepdim: bool = False) -> Expression:
    below, largest = shifted(x, dim)
    found = total(below.exp(), dim, keepdim=True).log() + largest
    return _shaped(found.reshape(_dropped(found.shape, dim)), found.shape, keepdim)


def _dropped(shape: Shape, dims: Any) -> Shape:
    axes = axes_of(shape, dims)
    return tuple(size for axis, size in enumerate(shape) if axis not in axes)


# ----------------------------------------------------------------------- variances and norms


def variance(
    x: Expression, dims: Any, correction: Any = 1, keepdim: bool = False
) -> tuple[Expression, Expression]:
    """The variance by two passes, and the mean."""
    centre = average(x, dims, keepdim=True)
    apart = x - centre
    count = count_of(x, dims)
    freedom = count - Fraction(1 if correction is None else correction)
    if freedom <= 0:
        raise UnsupportedError(
            f"cannot trace a variance of {counted(count, 'element')} with "
            f"correction={correction}; it has no value"
        )
    found = total(apart * apart, dims, keepdim) / freedom
    return found, centre if keepdim else centre.reshape(found.shape)


@formula("var")
def _var(
    x: Expression, dim: Any = None, *, correction: Any = 1, keepdim: bool = False
) -> Expression:
    return variance(x, dim, correction, keepdim)[0]


@formula("std")
def _std(
    x: Expression, dim: Any = None, *, correction: Any = 1, keepdim: bool = False
) -> Expression:
    return variance(x, dim, correction, keepdim)[0].sqrt()


@formula("var_mean")
def _var_mean(x: Expression, dim: Any = None, *, correction: Any = 1, keepdim: bool = False) -> Any:
    found, _ = variance(x, dim, correction, keepdim)
    return found, updated_mean(x, dim).reshape(found.shape)


@formula("linalg_vector_norm", "norm")
def _vector_norm(
    x: Expression, order: Any = 2, dim: Any = None, keepdim: bool = False
) -> Expression:
    order = 2 if order is None else order
    size = abs(x)
    if order == float("inf") or order == -float("inf"):
        return folded(size, "maximum" if order > 0 else "minimum", dim, keepdim)
    if order == 0:
        return total(x.map("ne", 0).where(1, 0), dim, keepdim)
    if order == 1:
        return total(size, dim, keepdim)
    if order == 2:
        return total(x * x, dim, keepdim).sqrt()
    power = size
    if order == int(order) and 0 < order <= 64:
        for _ in range(int(order) - 1):
            power = power * size
    else:
        power = size.map("pow", order)
    return total(power, dim, keepdim).map("pow", 1 / size.constant(order))


# --------------------------------------------------------------------------- maxima and minima


@formula("amax")
def _amax(x: Expression, dim: Any = None, keepdim: bool = False) -> Expression:
    return folded(x, "maximum", dim, keepdim)


@formula("amin")
def _amin(x: Expression, dim: Any = None, keepdim: bool = False) -> Expression:
    return folded(x, "minimum", dim, keepdim)


@formula("any")
def _any(x: Expression, dim: Any = None, keepdim: bool = False) -> Expression:
    return folded(_truth(x), "logical_or", dim, keepdim)


@formula("all")
def _all(x: Expression, dim: Any = None, keepdim: bool = False) -> Expression:
    return folded(_truth(x), "logical_and", dim, keepdim)


def _truth(x: Expression) -> Expression:
    return x if x.build.boolean(x.value.step) else x.map("ne", 0)


def chosen(candidates: Expression, function: str) -> tuple[int, ...]:
    """A mask per place along the last axis: which element is the first largest, or smallest."""
    numbers = numbered(candidates.shape)
    parts = [candidates.move(numbers[..., k].copy()) for k in range(candidates.shape[-1])]
    best, takes = parts[0], []
    for part in parts[1:]:
        takes.append(part > best if function == "maximum" else part < best)
        best = best.map(function, part)
    masks: list[Expression] = []
    later: Expression | None = None  # whether a later element is taken
    for k in reversed(range(len(parts))):
        take = takes[k - 1] if k else None
        mask = take
        if later is not None:
            mask = ~later if take is None else take & ~later
        if mask is None:  # one element alone
            mask = parts[0].constant(0).map("eq", 0).expand(parts[0].shape)
        masks.append(mask)
        if take is not None:
            later = take if later is None else later.map("logical_or", take)
    return tuple(mask.value.step for mask in reversed(masks))


def _extreme(function: str) -> None:
    name = {"maximum": "max", "minimum": "min"}[function]

    @lowers(name)
    def extreme(build: Builder, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        values = Expression(build, x)
        if isinstance(dim, Value | torch.Tensor):  # of two tensors
            return apply(build, function, x, dim)
        found = folded(values, function, dim, keepdim)
        if dim is None:
            return found.value
        laid, kept = laid_out(values, dim)
        shape = kept if keepdim else laid.shape[:-1]
        masks = tuple(build.reshape(mask, shape) for mask in chosen(laid, function))
        places = np.broadcast_to(np.arange(len(masks)), (*shape, len(masks)))
        return found.value, Selection(masks, places)


_extreme("maximum")
_extreme("minimum")
