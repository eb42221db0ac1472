"""Functions whose kernels have no lowering, written with operations that have one."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F


def whole_number(like: torch.Tensor, value: int) -> torch.Tensor:
    """As an operand, on which a graph records the operation."""
    return torch.full((), float(value), dtype=like.dtype, device=like.device)


def pi(like: torch.Tensor) -> torch.Tensor:
    """As operations on a whole number."""
    return 4 * whole_number(like, 1).atan()


def _take(input: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return input.reshape(-1)[index]


def _fmax(input: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Of numbers: NaN is no input."""
    return torch.where(input >= other, input, other)


def _fmin(input: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    return torch.where(input <= other, input, other)


def _linear(places: torch.Tensor, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Between the two elements around each place, none of which is before the first."""
    places = places.clamp(min=0.0)
    first = places.floor()
    behind = (places - first).to(dtype)
    return [(first, 1 - behind), (first + 1, behind)]


def _cubic(places: torch.Tensor, dtype: torch.dtype) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Cubic convolution with a = -3/4 of the four elements around each place.

    Source: R. Keys, Cubic convolution interpolation for digital image processing, 1981.
    """
    a, first = -0.75, places.floor()
    t = places - first

    def near(x: torch.Tensor) -> torch.Tensor:
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x: torch.Tensor) -> torch.Tensor:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    weights = far(t + 1), near(t), near(1 - t), far(2 - t)
    return [(first + (k - 1), weight.to(dtype)) for k, weight in enumerate(weights)]


_WAYS = {"linear": _linear, "bilinear": _linear, "trilinear": _linear, "bicubic": _cubic}


class _Interpolated(torch.autograd.Function):
    """Along the last axis, then along the others; back, all products of weights are added at once.

    axes: per axis behind the first two, the elements that are taken, and their weights.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, axes: Any) -> torch.Tensor:
        ctx.axes, ctx.shape = axes, x.shape
        for axis in range(x.dim() - 1, 1, -1):
            shape = [-1 if k == axis else 1 for k in range(x.dim())]
            parts = [x.index_select(axis, at) * w.reshape(shape) for at, w in axes[axis - 2]]
            x = functools.reduce(torch.add, parts)
        return x

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        (grad,) = upstream
        dims, lead = len(ctx.axes), ctx.shape[:2].numel()
        places, terms = [], []
        for chosen in itertools.product(*ctx.axes):
            number, term = torch.zeros((), dtype=torch.long), grad
            for axis, (at, weight) in enumerate(chosen):
                shape = [-1 if k == axis else 1 for k in range(dims)]
                number = number * ctx.shape[axis + 2] + at.reshape(shape)
                term = term * weight.reshape(shape)
            places.append(number.reshape(-1))
            terms.append(term.reshape(lead, -1))
        empty = torch.zeros(lead, ctx.shape[2:].numel(), dtype=grad.dtype)
        found = empty.index_add(1, torch.cat(places), torch.cat(terms, 1))
        return found.reshape(ctx.shape), None


def _interpolate(
    input: torch.Tensor, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None, antialias: bool = False,
) -> torch.Tensor:  # fmt: skip
    """Places and weights in float32 at least; some 16-bit kernels keep weights and sums in 16 bits."""
    if antialias or mode not in _WAYS:
        return F.interpolate(
            input, size, scale_factor, mode, align_corners, recompute_scale_factor, antialias
        )
    dims = input.dim() - 2
    factors = (
        list(scale_factor) if isinstance(scale_factor, tuple | list) else [scale_factor] * dims
    )
    sizes = list(size) if isinstance(size, tuple | list) else [size] * dims
    wide = torch.promote_types(input.dtype, torch.float32)
    axes = []
    for present, factor, wanted in zip(input.shape[2:], factors, sizes, strict=True):
        wanted = math.floor(present * factor) if wanted is None else wanted
        scale = None if recompute_scale_factor else factor
        places = _places(wide, present, wanted, bool(align_corners), scale)
        weighted = _WAYS[mode](places, input.dtype)
        axes.append([(at.long().clamp(0, present - 1), weight) for at, weight in weighted])
    return _Interpolated.apply(input, axes)  # type: ignore[no-untyped-call,no-any-return]


def _places(
    dtype: torch.dtype, size: int, wanted: int, align_corners: bool, scale: float | None
) -> torch.Tensor:
    """Where the elements that are wanted lie among those that there are."""
    numbers = torch.arange(wanted, dtype=dtype)
    if align_corners:
        return numbers * (whole_number(numbers, size - 1) / max(wanted - 1, 1))
    step = (
        whole_number(numbers, size) / wanted if scale is None else whole_number(numbers, 1) / scale
    )
    return (numbers + 0.5) * step - 0.5


def _linear_cross_entropy(*args: Any, options: Any = None, **kwargs: Any) -> torch.Tensor:
    """In one piece: chunks are rows, which know nothing of each other."""
    found: torch.Tensor = F.linear_cross_entropy(*args, **kwargs)
    return found


REWRITTEN: dict[Any, Callable[..., torch.Tensor]] = {
    **dict.fromkeys((torch.take, torch.Tensor.take), _take),
    **dict.fromkeys((torch.fmax, torch.Tensor.fmax), _fmax),
    **dict.fromkeys((torch.fmin, torch.Tensor.fmin), _fmin),
    F.interpolate: _interpolate,
    F.linear_cross_entropy: _linear_cross_entropy,
}
