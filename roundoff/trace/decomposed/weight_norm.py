"""Weights as a direction and a length."""

from __future__ import annotations

import torch

from roundoff.trace.decomposed.registry import decomposes


def _others(x: torch.Tensor, dim: int) -> list[int]:
    return [axis for axis in range(x.dim()) if axis != dim % x.dim()]


@decomposes("_weight_norm_interface")
def _weight_norm(
    direction: torch.Tensor, length: torch.Tensor, dim: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    norm = (direction * direction).sum(_others(direction, dim), keepdim=True).sqrt()
    return direction * (length / norm), norm


@decomposes("_weight_norm_interface_backward")
def _backward(
    upstream: torch.Tensor,
    direction: torch.Tensor,
    length: torch.Tensor,
    norm: torch.Tensor,
    dim: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """By both, as the kernel does: with the reciprocal of the norm, and its third power."""
    along = (upstream * direction).sum(_others(direction, dim), keepdim=True)
    scale = 1 / norm
    across = scale * upstream - scale * scale * scale * along * direction
    return length * across, along * scale
