"""Pooling: windows are moves; averages divide by counts, maxima choose."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from roundoff.trace.lowering.accumulation import adjoint
from roundoff.trace.lowering.expressions import Expression
from roundoff.trace.lowering.reductions import chosen, folded
from roundoff.trace.lowering.registry import lowers
from roundoff.trace.lowering.values import Selection, Value, apply, as_value, exact_to
from roundoff.trace.steps import Builder, Index, Shape, numbered


def _windows(shape: Shape, tables: Sequence[Index]) -> Index:
    """Element numbers (*lead, *positions, taps in C order) of a tensor, 0 outside; tables[axis][p, j]."""
    dims = len(tables)
    lead = shape[: len(shape) - dims]
    numbers = numbered(shape).reshape(-1, *shape[len(lead) :])
    for axis, table in enumerate(tables):
        at = 1 + 2 * axis
        blank = [(0, 0)] * numbers.ndim
        blank[at] = (0, 1)
        numbers = np.take(np.pad(numbers, blank), table, axis=at)
    positions = [1 + 2 * axis for axis in range(dims)]
    taps = [2 + 2 * axis for axis in range(dims)]
    laid = numbers.transpose([0, *positions, *taps])
    return laid.reshape(*lead, *laid.shape[1 : 1 + dims], -1)


def _pair(value: Any, dims: int) -> list[int]:
    values = list(value) if isinstance(value, Sequence) else [value]
    return values * dims if len(values) == 1 else values


def _table(size: int, out: int, taps: int, stride: int, padding: int, dilation: int = 1) -> Index:
    at = np.arange(out)[:, None] * stride - padding + np.arange(taps)[None, :] * dilation
    return np.where((at >= 0) & (at < size), at, -1)


def _regular(
    shape: Shape, out: Shape, kernel: Any, stride: Any, padding: Any, dilation: Any = 1
) -> list[Index]:
    dims = len(_pair(kernel, 2)) if isinstance(kernel, Sequence) and len(kernel) > 1 else 2
    kernel, padding, dilation = (_pair(v, dims) for v in (kernel, padding, dilation))
    stride = _pair(stride, dims) if stride != [] and stride is not None else kernel
    return [
        _table(shape[-dims + k], out[-dims + k], kernel[k], stride[k], padding[k], dilation[k])
        for k in range(dims)
    ]


def _adaptive(shape: Shape, out: Sequence[int]) -> list[Index]:
    tables = []
    for size, count in zip(shape[-len(out) :], out, strict=True):
        start = [k * size // count for k in range(count)]
        end = [-(-(k + 1) * size // count) for k in range(count)]
        taps = max(e - s for s, e in zip(start, end, strict=True))
        tables.append(
            np.array(
                [
                    [s + j if s + j < e else -1 for j in range(taps)]
                    for s, e in zip(start, end, strict=True)
                ]
            )
        )
    return tables


# ---------------------------------------------------------------------------------- averages


def _counts(
    shape: Shape, tables: Sequence[Index], window: Any, include_pad: bool, divisor: Any
) -> Index:
    """What each average is divided by, (*positions)."""
    if divisor is not None:
        return np.full([len(table) for table in tables], divisor)
    parts = []
    for axis, table in enumerate(tables):
        if include_pad:
            kernel, stride, padding = (values[axis] for values in window)
            size = shape[len(shape) - len(tables) + axis]
            start = np.arange(len(table)) * stride - padding
            parts.append(np.minimum(start + kernel, size + padding) - start)
        else:
            parts.append((table >= 0).sum(axis=1))
    return functools.reduce(np.multiply.outer, parts)


def _divided(x: Expression, counts: Sequence[Index]) -> Expression:
    """By one count after another."""
    for count in counts:
        x = x / torch.from_numpy(count.astype(np.float64))
    return x


def _average(build: Builder, x: Any, tables: Sequence[Index], *counts: Index) -> Value:
    source = Expression(build, x)
    sums = source.move(_windows(source.shape, tables)).sum_last()
    return _divided(sums, counts).value


def _average_backward(
    build: Builder, upstream: Any, shape: Shape, tables: Sequence[Index], *counts: Index
) -> Value:
    windows = _windows(shape, tables)
    share = _divided(Expression(build, upstream), counts)
    spread = exact_to(build, share.reshape((*share.shape, 1)).value, windows.shape)
    return adjoint(build, spread, shape, windows)


def _out_shape(name: str, shape: Shape, *args: Any) -> Shape:
    found = getattr(torch.ops.aten, name)(torch.empty(shape, device="meta"), *args)
    return tuple((found[0] if isinstance(found, tuple) else found).shape)


def _average_pool(dims: int) -> None:
    name = f"avg_pool{dims}d"

    def plan(
        shape: Shape,
        kernel: Any,
        stride: Any,
        padding: Any,
        ceil: bool,
        include: bool,
        divisor: Any,
    ) -> tuple[list[Index], Index]:
        out = _out_shape(name, shape, kernel, stride or kernel, padding, ceil, include, divisor)
        window = (
            _pair(kernel, dims), _pair(stride or kernel, dims), _pair(padding, dims)
        )  # fmt: skip
        tables = _regular(shape, out, *window)
        return tables, _counts(shape, tables, window, include, divisor)

    @lowers(name)
    def forward(
        build: Builder, x: Any, kernel: Any, stride: Any = (), padding: Any = 0, ceil: bool = False,
        include: bool = True, divisor: Any = None,
    ) -> Value:  # fmt: skip
        shape = as_value(build, x).shape
        return _average(build, x, *plan(shape, kernel, stride, padding, ceil, include, divisor))

    @lowers(f"{name}_backward")
    def backward(
        build: Builder, upstream: Any, x: Any, kernel: Any, stride: Any, padding: Any, ceil: bool,
        include: bool, divisor: Any,
    ) -> Value:  # fmt: skip
        shape = as_value(build, x).shape
        found = plan(shape, kernel, stride, padding, ceil, include, divisor)
        return _average_backward(build, upstream, shape, *found)


_average_pool(2)
_average_pool(3)


def _per_axis(tables: Sequence[Index]) -> list[Index]:
    """The lengths of the windows, (positions of the axis, 1, ...): kernels divide by one after another."""
    return [
        (table >= 0).sum(axis=1).reshape(-1, *[1] * behind)
        for table, behind in zip(tables, reversed(range(len(tables))), strict=True)
    ]


def _adaptive_average_pool(dims: int) -> None:
    @lowers(f"_adaptive_avg_pool{dims}d")
    def forward(build: Builder, x: Any, size: Sequence[int]) -> Value:
        tables = _adaptive(as_value(build, x).shape, size)
        return _average(build, x, tables, *_per_axis(tables))

    @lowers(f"_adaptive_avg_pool{dims}d_backward")
    def backward(build: Builder, upstream: Any, x: Any) -> Value:
        shape, positions = as_value(build, x).shape, as_value(build, upstream).shape
        tables = _adaptive(shape, positions[-dims:])
        return _average_backward(build, upstream, shape, tables, *_per_axis(tables))


_adaptive_average_pool(2)
_adaptive_average_pool(3)


# ------------------------------------------------------------------------------------- maxima


def _largest(build: Builder, x: Any, tables: Sequence[Index]) -> tuple[Value, Selection]:
    """The maxima of windows, and which elements they are (numbered within their planes)."""
    source = Expression(build, x)
    windows = _windows(source.shape, tables)
    outside = source.constant(float("-inf"))
    padded = np.where(windows > 0, windows, prod(source.shape) + 1)
    candidates = source.move(padded, outside) if (windows == 0).any() else source.move(windows)
    plane = prod(source.shape[-len(tables) :])
    places = np.where(windows > 0, (windows - 1) % plane, 0)
    return folded(candidates, "maximum", -1).value, Selection(chosen(candidates, "maximum"), places)


def _largest_backward(
    build: Builder, upstream: Any, shape: Shape, index: Selection, dims: int
) -> Value:
    """Every upstream element goes to the one that was chosen."""
    grad = as_value(build, upstream)
    plane = prod(shape[-dims:])
    lead = prod(shape[:-dims])
    planes = np.repeat(np.arange(lead), prod(grad.shape[-dims:])).reshape(grad.shape)
    parts = [apply(build, "where", Value(mask, grad.shape), grad, 0).step for mask in index.masks]
    laid = build.move(tuple(parts), numbered((len(parts), *grad.shape)))
    places = np.stack([planes * plane + index.candidates[..., k] + 1 for k in range(len(parts))])
    return adjoint(build, Value(laid, places.shape), shape, places)


def _max_pool(dims: int) -> None:
    name = f"max_pool{dims}d_with_indices"

    @lowers(name)
    def forward(
        build: Builder, x: Any, kernel: Any, stride: Any = (), padding: Any = 0, dilation: Any = 1,
        ceil: bool = False,
    ) -> tuple[Value, Selection]:  # fmt: skip
        shape = as_value(build, x).shape
        out = _out_shape(name, shape, kernel, stride or kernel, padding, dilation, ceil)
        window = [_pair(v, dims) for v in (kernel, stride or kernel, padding, dilation)]
        return _largest(build, x, _regular(shape, out, *window))

    @lowers(f"{name}_backward")
    def backward(
        build: Builder, upstream: Any, x: Any, kernel: Any, stride: Any, padding: Any, dilation: Any,
        ceil: bool, index: Selection,
    ) -> Value:  # fmt: skip
        """By the index alone, which names every window's maximum."""
        return _largest_backward(build, upstream, as_value(build, x).shape, index, dims)

    @lowers(f"adaptive_max_pool{dims}d")
    def adaptive(build: Builder, x: Any, size: Sequence[int]) -> tuple[Value, Selection]:
        return _largest(build, x, _adaptive(as_value(build, x).shape, size))

    @lowers(f"adaptive_max_pool{dims}d_backward")
    def adaptive_backward(build: Builder, upstream: Any, x: Any, index: Selection) -> Value:
        return _largest_backward(build, upstream, as_value(build, x).shape, index, dims)


_max_pool(2)
_max_pool(3)
