"""Layers of real size, each compared with another form of itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roundoff.judging.comparison import Comparison, compare

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Layer:
    """A function of inputs by name, and the names of those whose gradients are judged."""

    name: str
    function: Callable[..., torch.Tensor]
    inputs: Mapping[str, torch.Tensor]
    wrt: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Measured:
    """A layer against another form of it; seconds: of the comparison and of one float64 backward pass."""

    layer: Layer
    comparison: Comparison
    seconds: float
    baseline: float


def measured(
    layer: Layer, other: Callable[..., torch.Tensor], formats: Sequence[str], *, seed: int = 0
) -> Measured:
    """Compare a layer with another form of it, and time that beside torch's own float64 gradients.

    The upstream gradient is random.
    """
    from roundoff.gradients.native import native_gradients

    def whole_batch(**values: torch.Tensor) -> torch.Tensor:
        return layer.function(**values)

    def two_halves(**values: torch.Tensor) -> torch.Tensor:
        return other(**values)

    baseline = min(
        _seconds(
            lambda: native_gradients(
                whole_batch, layer.inputs, layer.wrt, lambda out: out.sum(), format="float64"
            )
        )
        for _ in range(3)
    )
    started = time.perf_counter()
    found = compare(whole_batch, two_halves, layer.inputs, layer.wrt, formats=formats, seed=seed)
    return Measured(layer, found, time.perf_counter() - started, baseline)


def _seconds(work: Callable[[], Any]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
