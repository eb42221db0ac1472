"""Maxima over windows whose places random samples tell; the samples are an argument."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch

from roundoff.trace.decomposed.plainly import decided, plainly
from roundoff.trace.decomposed.registry import decomposes

aten = torch.ops.aten


def _starts(sample: float, size: int, kernel: int, out: int) -> list[int]:
    """Where windows begin along an axis.  Source: Graham 2014, Fractional max-pooling, pseudorandom."""
    if out == 1:
        return [size - kernel]
    step = (size - kernel) / (out - 1)
    return [int((k + sample) * step) - int(sample * step) for k in range(out - 1)] + [size - kernel]


def _windows(
    shape: Sequence[int], kernel: Sequence[int], out: Sequence[int], samples: torch.Tensor
) -> torch.Tensor:
    """Per channel the numbers of the elements in every window: (*lead, windows, taps)."""
    dims = len(kernel)
    lead = shape[: len(shape) - dims]
    rows = []
    for sample in samples.reshape(-1, dims).tolist():
        axes = [
            [range(s, s + k) for s in _starts(u, size, k, o)]
            for u, size, k, o in zip(
                reversed(sample) if dims == 2 else sample, shape[-dims:], kernel, out, strict=True
            )
        ]
        rows.append(
            [
                [_number(place, shape[-dims:]) for place in itertools.product(*window)]
                for window in itertools.product(*axes)
            ]
        )
    return torch.tensor(rows).reshape(*lead, len(rows[0]), -1)


def _number(place: Sequence[int], shape: Sequence[int]) -> int:
    number = 0
    for at, size in zip(place, shape, strict=True):
        number = number * size + at
    return number


def _pooled(operation: Any) -> Any:
    def pooled(x: torch.Tensor, kernel: Any, out: Any, samples: torch.Tensor) -> Any:
        _, places = plainly(operation, x, kernel, out, samples)
        lead = x.shape[: x.dim() - len(kernel)]
        flat = x.reshape(*lead, -1)
        values = flat.gather(-1, plainly(lambda: places.reshape(*lead, -1)))
        windows = plainly(_windows, x.shape, kernel, out, samples)
        inside = flat.unsqueeze(-2).expand(*lead, windows.shape[-2], flat.shape[-1])
        decided(values.unsqueeze(-1) >= inside.gather(-1, windows), "aten::fractional_max_pool")
        return values.reshape(places.shape), places

    return pooled


def _backward(
    upstream: torch.Tensor, x: torch.Tensor, kernel: Any, out: Any, places: torch.Tensor
) -> Any:
    lead = x.shape[: x.dim() - len(kernel)]
    zeros = plainly(lambda: torch.zeros_like(x).reshape(*lead, -1))
    flat = upstream.reshape(*lead, -1)
    return zeros.scatter_add(-1, places.reshape(flat.shape), flat).reshape(x.shape)


for _dims in (2, 3):
    _name = f"fractional_max_pool{_dims}d"
    decomposes(_name)(_pooled(getattr(aten, _name).default))
    decomposes(f"{_name}_backward")(_backward)
