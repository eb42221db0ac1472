"""Sampling at the points of a grid, written with other operations; in which cell a point lies is decided."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch

#: What PyTorch calls the modes, by number.
MODES = ("bilinear", "nearest", "bicubic")
PADDINGS = ("zeros", "border", "reflection")


def grid_sample(
    input: torch.Tensor, grid: torch.Tensor, mode: str = "bilinear", padding_mode: str = "zeros",
    align_corners: bool | None = None,
) -> torch.Tensor:  # fmt: skip
    """Elements of input (N, C, *sizes) around the points of grid (N, *out, dimensions), weighted."""
    sizes, aligned = input.shape[2:], bool(align_corners)
    places = [_unnormalised(grid[..., -1 - k], size, aligned) for k, size in enumerate(sizes)]
    if mode == "bicubic":
        return _sum_of_taps(
            input, [_cubic(p, s, padding_mode, aligned) for p, s in zip(places, sizes, strict=True)]
        )
    inside = [_padded(p, s, padding_mode, aligned) for p, s in zip(places, sizes, strict=True)]
    taps = [_nearest(p) if mode == "nearest" else _linear(p) for p in inside]
    return _sum_of_taps(input, taps)


def by_number(
    input: torch.Tensor, grid: torch.Tensor, interpolation_mode: int = 0, padding_mode: int = 0,
    align_corners: bool = False,
) -> torch.Tensor:  # fmt: skip
    """The same, with the modes by number."""
    return grid_sample(
        input, grid, MODES[interpolation_mode], PADDINGS[padding_mode], align_corners
    )


def _unnormalised(x: torch.Tensor, size: int, aligned: bool) -> torch.Tensor:
    """From -1 ... 1 to element numbers."""
    return (x + 1) / 2 * (size - 1) if aligned else ((x + 1) * size - 1) / 2


def _padded(x: torch.Tensor, size: int, padding: str, aligned: bool) -> torch.Tensor:
    if padding == "zeros":
        return x
    if padding == "reflection":
        x = _reflected(x, 0, 2 * (size - 1)) if aligned else _reflected(x, -1, 2 * size - 1)
    return x.clamp(0, size - 1)


def _reflected(x: torch.Tensor, twice_low: int, twice_high: int) -> torch.Tensor:
    if twice_low == twice_high:
        return torch.zeros_like(x)
    low, span = twice_low / 2, (twice_high - twice_low) / 2
    apart = (x - low).abs()
    times = torch.div(apart.detach(), span, rounding_mode="floor")
    extra = apart - times * span
    odd = (times.long() % 2).bool()
    return torch.where(odd, (span - extra) + low, extra + low)


#: Along an axis: element numbers, which may be outside, and their weights.
Taps = Sequence[tuple[torch.Tensor, Any]]


def _linear(x: torch.Tensor) -> Taps:
    first = x.detach().floor()
    return [(first, (first + 1) - x), (first + 1, x - first)]


def _nearest(x: torch.Tensor) -> Taps:
    return [(x.detach().round(), None)]


def _cubic(x: torch.Tensor, size: int, padding: str, aligned: bool) -> Taps:
    """Source: R. Keys, Cubic convolution interpolation for digital image processing, 1981; a = -3/4."""
    a, first = -0.75, x.detach().floor()
    t = x - first

    def near(s: torch.Tensor) -> torch.Tensor:
        return ((a + 2) * s - (a + 3)) * s * s + 1

    def far(s: torch.Tensor) -> torch.Tensor:
        return ((a * s - 5 * a) * s + 8 * a) * s - 4 * a

    weights = far(t + 1), near(t), near(1 - t), far(2 - t)
    return [(_padded(first + (k - 1), size, padding, aligned), w) for k, w in enumerate(weights)]


class _Weighted(torch.autograd.Function):
    """The sum of values (taps, N, C, *out) times a weight of every axis; which of these: `chosen`, per tap.

    What each weight gets is one sum over taps and channels, of products with the others, as in kernels.
    """

    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, chosen: Any, *weights: torch.Tensor
    ) -> torch.Tensor:
        ctx.chosen = chosen
        ctx.save_for_backward(values, *weights)
        terms = [v * _product(weights, c).unsqueeze(1) for v, c in zip(values, chosen, strict=True)]
        total: torch.Tensor = functools.reduce(torch.add, terms)
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        values, *weights = ctx.saved_tensors
        (grad,) = upstream
        of_values = torch.stack([grad * _product(weights, c).unsqueeze(1) for c in ctx.chosen])
        found = []
        for axis, weight in enumerate(weights):
            rows = []
            for tap in range(len(weight)):
                terms = [
                    values[t] * _product(weights, c, axis).unsqueeze(1) * grad
                    for t, c in enumerate(ctx.chosen)
                    if c[axis] == tap
                ]
                rows.append(torch.cat(terms, 1).sum(1))
            found.append(torch.stack(rows))
        return of_values, None, *found


def _product(weights: Sequence[torch.Tensor], chosen: Sequence[int], but: int = -1) -> torch.Tensor:
    factors = [w[c] for k, (w, c) in enumerate(zip(weights, chosen, strict=True)) if k != but]
    return functools.reduce(torch.mul, factors) if factors else torch.ones_like(weights[0][0])


def _sum_of_taps(input: torch.Tensor, axes: Sequence[Taps]) -> torch.Tensor:
    sizes, channels = input.shape[2:], input.shape[1]
    flat = input.reshape(*input.shape[:2], -1)
    values, numbers = [], [range(len(taps)) for taps in axes]
    for chosen in itertools.product(*numbers):
        places = [taps[c][0].long() for taps, c in zip(axes, chosen, strict=True)]
        number, inside = torch.zeros_like(places[0]), torch.ones_like(places[0], dtype=torch.bool)
        for at, size in zip(places, sizes, strict=True):
            inside = inside & (at >= 0) & (at < size)
            number = number * size + at.clamp(0, size - 1)
        rows = number.reshape(len(number), 1, -1).expand(-1, channels, -1)
        found = flat.gather(2, rows).reshape(len(number), channels, *number.shape[1:])
        values.append(torch.where(inside.unsqueeze(1), found, 0))
    if axes[0][0][1] is None:
        return values[0]
    weights = [torch.stack([weight for _, weight in taps]) for taps in axes]
    total: torch.Tensor = _Weighted.apply(
        torch.stack(values), list(itertools.product(*numbers)), *weights
    )  # type: ignore[no-untyped-call]
    return total


SAMPLED: dict[Any, Callable[..., torch.Tensor]] = {
    torch.nn.functional.grid_sample: grid_sample,
    torch.grid_sampler: by_number,
    torch.grid_sampler_2d: by_number,
    torch.grid_sampler_3d: by_number,
}
