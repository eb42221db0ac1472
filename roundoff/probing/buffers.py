"""Tensors whose numbers are written one at a time, in the user's own layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from roundoff.gradients.native import native_dtype
from roundoff.numbers.formats import Format

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

#: Bytes: kernels peel off what does not start at a multiple of the widest vector.
ALIGNMENT = 64


def encoder(dtype: Any) -> Callable[[Any], Any]:
    """float64 numbers to what a NumPy view of memory of this type takes: bits where NumPy lacks the type."""
    if isinstance(dtype, torch.dtype) and dtype.itemsize == 2:
        return lambda values: (
            torch.from_numpy(np.array(values, np.float64, ndmin=1))
            .to(dtype)
            .view(torch.int16)
            .numpy()
        )
    return lambda values: np.array(values, np.float64, ndmin=1)


class Buffer:
    """A tensor of a format with a given shape, strides and alignment.

    bits: its memory as NumPy sees it; where: per element in C order, its place there.
    """

    def __init__(self, like: torch.Tensor, format: Format, device: Any = "cpu") -> None:
        dtype = native_dtype(format)
        shape, strides = tuple(like.shape), tuple(like.stride())
        if not like.numel() or any(stride < 0 for stride in strides):
            strides = torch.empty(shape).stride()
        places = np.zeros(shape, np.int64)
        for axis, (size, stride) in enumerate(zip(shape, strides, strict=True)):
            steps = np.arange(size, dtype=np.int64) * stride
            places += steps.reshape(-1, *[1] * (len(shape) - axis - 1))
        self.where: Ids = places.ravel()
        self.distinct = len(np.unique(self.where)) == len(self.where)
        span = int(self.where.max(initial=0)) + 1
        per = ALIGNMENT // dtype.itemsize
        # What starts off the vector width goes on doing so.
        shift = (
            like.data_ptr() % ALIGNMENT // like.element_size() if like.device.type == "cpu" else 0
        )
        memory = torch.zeros(span + 2 * per, dtype=dtype)
        start = -memory.data_ptr() % ALIGNMENT // dtype.itemsize + shift % per
        self._staged = memory.as_strided(shape, strides, start)
        flat = memory[start : start + span]
        self.bits = (flat.view(torch.int16) if dtype.itemsize == 2 else flat).numpy()
        self.encode, self.device, self.dtype = encoder(dtype), device, dtype
        self._remote = None if str(device) == "cpu" else self._staged.to(device)

    @property
    def tensor(self) -> torch.Tensor:
        """The tensor, with what was written so far."""
        if self._remote is None:
            return self._staged
        self._remote.copy_(self._staged)
        return self._remote

    def fill(self, value: float) -> None:
        """One number everywhere."""
        self.bits[:] = self.encode(value)[0]

    def draw(self, draw: Callable[[int], Array]) -> Array:
        """Random numbers, elements that share memory alike; returns them by element."""
        values = draw(len(self.bits))
        self.bits[:] = self.encode(values)
        return values[self.where]

    def put(self, values: Array) -> None:
        """Numbers of the format by element, in C order."""
        self.bits[self.where] = self.encode(values)
