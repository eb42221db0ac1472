"""Moves that are strided views of one array: slices, transposes, expansions, windows."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

#: The first element, from 0, and the strides, in elements.
View = tuple[int, tuple[int, ...]]


def as_view(index: npt.NDArray[Any] | None) -> View | None:
    """The view that an index is, of element numbers from 1; None if it is none.

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
