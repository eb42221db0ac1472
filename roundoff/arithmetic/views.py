"""Strided views: moved to, back to where their elements came from, and as matrix products take them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from roundoff.trace.steps import Move

Array = npt.NDArray[np.float64]


def viewed(step: Move, values: Any) -> Any:
    """A move that is a view, of an array of any element type: read-only."""
    assert step.view is not None
    start, strides = step.view
    flat = np.ascontiguousarray(values).reshape(-1)
    inner = tuple(stride * flat.itemsize for stride in strides)
    return as_strided(flat[start:], step.shape, inner, writeable=False)


def moved_back(step: Move, values: Array, size: int) -> Array | None:
    """Per element of the one operand, of `size`, the sum of the values of all places that it went to; None
    where the move is no view, or one that overlaps itself."""
    if step.view is None:
        return None
    start, strides = step.view
    several = tuple(axis for axis, stride in enumerate(strides) if stride == 0)
    once = values.sum(axis=several, keepdims=True) if several else values
    if not _apart(strides, once.shape):
        return None
    flat = np.zeros(size)
    inner = tuple(stride * flat.itemsize for stride in strides)
    as_strided(flat[start:], once.shape, inner)[...] = once
    return flat


def _apart(strides: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether no two elements are in the same place."""
    reach = 0
    for stride, length in sorted(zip(strides, shape, strict=True)):
        if length > 1:
            if stride <= reach:
                return False
            reach += stride * (length - 1)
    return True


def for_products(matrices: Array) -> Array:
    """A batch of matrices that a matrix product takes without copying each, or a copy that is one."""
    rows, columns = matrices.strides[-2:]
    item = matrices.itemsize
    height, width = matrices.shape[-2:]
    plain = columns == item and rows >= item * width
    turned = rows == item and columns >= item * height
    return (
        matrices if plain or turned or prod(matrices.shape) == 0 else np.ascontiguousarray(matrices)
    )
