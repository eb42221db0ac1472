"""Grids of points, turned and moved by matrices."""

from __future__ import annotations

from typing import Any

import torch

from roundoff.trace.decomposed.plainly import plainly
from roundoff.trace.decomposed.registry import decomposes


def _axis(count: int, aligned: bool, like: torch.Tensor) -> torch.Tensor:
    """From -1 to 1: the middles of as many cells or, aligned, their outer ends."""
    if count == 1:
        return plainly(torch.zeros, 1, dtype=like.dtype)
    numbers = plainly(lambda: torch.arange(1 - count, count, 2).to(like.dtype))
    ends = numbers / plainly(torch.full, (), float(count - 1), dtype=like.dtype)
    if aligned:
        return ends
    share = plainly(torch.full, (), float(count - 1), dtype=like.dtype) / count
    return ends * share


def _base(like: torch.Tensor, size: Any, aligned: bool) -> torch.Tensor:
    """(points, dimensions + 1), the last one 1; the last axis of the grid first."""
    sizes = list(size[2:])
    columns = []
    for axis in reversed(range(len(sizes))):
        shape = [-1 if k == axis else 1 for k in range(len(sizes))]
        columns.append(_axis(sizes[axis], aligned, like).reshape(shape).expand(sizes).reshape(-1))
    ones = plainly(torch.ones, columns[0].shape[0], dtype=like.dtype)
    return torch.stack([*columns, ones], -1)


@decomposes("affine_grid_generator")
def _affine_grid(theta: torch.Tensor, size: Any, align_corners: bool) -> torch.Tensor:
    base = _base(theta, size, align_corners)
    points = base.expand(len(theta), *base.shape) @ theta.mT
    return points.reshape(len(theta), *size[2:], theta.shape[1])


@decomposes("affine_grid_generator_backward")
def _backward(upstream: torch.Tensor, size: Any, align_corners: bool) -> torch.Tensor:
    base = _base(upstream, size, align_corners)
    flat = upstream.reshape(upstream.shape[0], -1, upstream.shape[-1])
    return flat.mT @ base.expand(len(flat), *base.shape)
