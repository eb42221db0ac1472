"""Moves that are strided views of one array: slices, transposes, expansions, windows."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import as_strided

from roundoff.arithmetic import move_elements
from roundoff.trace.steps import Index, Move

Array = npt.NDArray[np.float64]


class Views:
    """Moves, carried out as views where they can be; that is found out once per step, and kept."""

    def __init__(self) -> None:
        self._found: dict[int, tuple[Move, tuple[int, tuple[int, ...]] | None]] = {}

    def move(self, step: Move, operands: Any) -> Any:
        """Read-only where it is a view."""
        if step.index is None:
            return operands[0].reshape(step.shape)
        view = self._of(step) if len(operands) == 1 else None
        if view is None:
            return move_elements(step, operands, 0)
        start, strides = view
        flat = np.ascontiguousarray(operands[0]).reshape(-1)
        inner = tuple(stride * flat.itemsize for stride in strides)
        return as_strided(flat[start:], step.shape, inner, writeable=False)

    def back(self, step: Move, values: Array, size: int) -> Array | None:
        """Per element of the one operand, of `size`, the sum of the values of all places that it went to;
        None where the move is no view, or one that overlaps itself."""
        view = self._of(step)
        if view is None:
            return None
        start, strides = view
        several = tuple(axis for axis, stride in enumerate(strides) if stride == 0)
        once = values.sum(axis=several, keepdims=True) if several else values
        if not _apart(strides, once.shape):
            return None
        flat = np.zeros(size)
        inner = tuple(stride * flat.itemsize for stride in strides)
        as_strided(flat[start:], once.shape, inner)[...] = once
        return flat

    def _of(self, step: Move) -> tuple[int, tuple[int, ...]] | None:
        # The step is kept, so that no other can have its id.
        if id(step) not in self._found:
            self._found[id(step)] = step, as_view(step.index)
        return self._found[id(step)][1]


def as_view(index: Index | None) -> tuple[int, tuple[int, ...]] | None:
    """The first element, from 0, and the strides, in elements, of an index that is a view; None if it is not.

    >>> as_view(np.array([[1, 3], [2, 4]])), as_view(np.array([0, 1])), as_view(np.array([1, 2, 4]))
    ((0, (1, 2)), None, None)
    """
    if index is None or not index.size:
        return None
    first = int(index.flat[0])
    if first == 0:
        return None
    strides = []
    for axis, length in enumerate(index.shape):
        one = [0] * index.ndim
        one[axis] = min(1, length - 1)
        strides.append(int(index[tuple(one)]) - first)
    ends = first + sum(s * (n - 1) for s, n in zip(strides, index.shape, strict=True))
    last = tuple(n - 1 for n in index.shape)
    if min(strides, default=0) < 0 or int(index[last]) != ends:
        return None
    offsets = np.full((), first, np.int64)
    for stride, length in zip(strides, index.shape, strict=True):
        offsets = offsets[..., None] + stride * np.arange(length)
    return (first - 1, tuple(strides)) if np.array_equal(offsets, index) else None


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
