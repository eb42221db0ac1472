"""Convolutions of any dimension, forward and backward, as moves and contractions.

Every one of them is a table per spatial axis: which source position meets kernel tap j at output
position p, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from roundoff.trace.steps import Builder, Index, Shape, numbered


@dataclass(frozen=True)
class Geometry:
    """Stride, padding and dilation per spatial axis, and the number of groups.

    Shapes: weight (C_out, C_in / groups, *taps); transposed convolutions swap the roles of input and
    output, so that their weight is (C_in, C_out / groups, *taps).
    """

    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    groups: int

    def forward(self, positions: Shape, taps: Shape, source: Shape) -> list[Index]:
        """Per axis, table[p, j] = p stride - padding + j dilation, or -1 outside the source."""
        tables = []
        for axis, (outer, k, inner) in enumerate(zip(positions, taps, source, strict=True)):
            p, j = np.arange(outer)[:, None], np.arange(k)[None, :]
            at = p * self.stride[axis] - self.padding[axis] + j * self.dilation[axis]
            tables.append(np.where((at >= 0) & (at < inner), at, -1))
        return tables

    def backward(self, positions: Shape, taps: Shape, source: Shape) -> list[Index]:
        """Per axis, the p with p stride - padding + j dilation = x: table[x, j] = p, or -1."""
        tables = []
        for axis, (outer, k, inner) in enumerate(zip(positions, taps, source, strict=True)):
            x, j = np.arange(outer)[:, None], np.arange(k)[None, :]
            at = x + self.padding[axis] - j * self.dilation[axis]
            p = at // self.stride[axis]
            hit = (at % self.stride[axis] == 0) & (p >= 0) & (p < inner)
            tables.append(np.where(hit, p, -1))
        return tables


def windows(shape: Shape, tables: list[Index], groups: int) -> Index:
    """Element numbers of (N, C, *source) as a view (groups, C / groups, *taps, N, *positions)."""
    numbers = numbered(shape)
    dims = len(tables)
    for axis, table in enumerate(tables):
        at = 2 + 2 * axis  # axes before it are (position, tap) pairs already
        blank = [(0, 0)] * numbers.ndim
        blank[at] = (0, 1)  # the last place, where -1 points, is a structural zero
        numbers = np.take(np.pad(numbers, blank), table, axis=at)
    batch, channels = shape[:2]
    positions = [2 + 2 * axis for axis in range(dims)]
    taps = [3 + 2 * axis for axis in range(dims)]
    split = numbers.reshape(batch, groups, channels // groups, *numbers.shape[2:])
    order = [1, 2, *(t + 1 for t in taps), 0, *(p + 1 for p in positions)]
    return split.transpose(order)


def columns(shape: Shape, tables: list[Index], groups: int) -> Index:
    """Element numbers of (N, C, *source) laid out (groups, C / groups * taps, N * positions)."""
    found = windows(shape, tables, groups)
    half = 2 + len(tables)
    return found.reshape(groups, prod(found.shape[1:half]), prod(found.shape[half:]))


def rows(shape: Shape, tables: list[Index], groups: int) -> Index:
    """The same numbers laid out (groups, N * positions, C / groups * taps)."""
    found = windows(shape, tables, groups)
    half = 2 + len(tables)
    turned = found.transpose(0, *range(half, found.ndim), *range(1, half))
    return turned.reshape(groups, prod(found.shape[half:]), prod(found.shape[1:half]))


def by_group(shape: Shape, groups: int) -> Index:
    """Element numbers of (N, C, *positions) laid out (groups, C / groups, N * positions)."""
    batch, channels = shape[:2]
    positions = prod(shape[2:])
    numbers = numbered(shape).reshape(batch, groups, channels // groups, positions)
    return numbers.transpose(1, 2, 0, 3).reshape(groups, channels // groups, batch * positions)


def _back(build: Builder, value: int, shape: Shape, groups: int) -> int:
    """(groups, C / groups, N * positions) back to (N, C, *positions)."""
    batch, channels = shape[:2]
    numbers = numbered(build.shape(value)).reshape(
        groups, channels // groups, batch, prod(shape[2:])
    )
    return build.move((value,), numbers.transpose(2, 0, 1, 3).reshape(shape))


def correlate(build: Builder, source: int, weight: int, geometry: Geometry, shape: Shape) -> int:
    """out[n, o, p] = sum over c, j of weight[o, c, j] source[n, c, p stride - padding + j dilation]."""
    groups, kernel = geometry.groups, build.shape(weight)
    tables = geometry.forward(shape[2:], kernel[2:], build.shape(source)[2:])
    second = build.move((source,), columns(build.shape(source), tables, groups))
    first = build.reshape(weight, (groups, kernel[0] // groups, prod(kernel[1:])))
    return _back(build, build.contract(first, second), shape, groups)


def correlate_transposed(
    build: Builder, source: int, weight: int, geometry: Geometry, shape: Shape
) -> int:
    """out[n, c, x] = sum over o, j of weight[o, c, j] source[n, o, p].

    The p with p stride - padding + j dilation = x.
    """
    groups, kernel = geometry.groups, build.shape(weight)
    tables = geometry.backward(shape[2:], kernel[2:], build.shape(source)[2:])
    second = build.move((source,), columns(build.shape(source), tables, groups))
    split = numbered(kernel).reshape(groups, kernel[0] // groups, kernel[1], prod(kernel[2:]))
    first = build.move((weight,), split.transpose(0, 2, 1, 3).reshape(groups, kernel[1], -1))
    return _back(build, build.contract(first, second), shape, groups)


def weight_gradient(
    build: Builder, source: int, upstream: int, geometry: Geometry, shape: Shape
) -> int:
    """dw[o, c, j] = sum over n, p of upstream[n, o, p] source[n, c, p stride - padding + j dilation]."""
    groups, outer = geometry.groups, build.shape(upstream)
    tables = geometry.forward(outer[2:], shape[2:], build.shape(source)[2:])
    second = build.move((source,), rows(build.shape(source), tables, groups))
    first = build.move((upstream,), by_group(outer, groups))
    return build.reshape(build.contract(first, second), shape)


def bias_gradient(build: Builder, upstream: int) -> int:
    """db[o] = sum over n, p of upstream[n, o, p]."""
    index = by_group(build.shape(upstream), 1)[0]
    return build.reduce(build.move((upstream,), index))
