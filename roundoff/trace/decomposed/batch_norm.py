"""Batch norms by their newer names, as the kernels that have a lowering."""

from __future__ import annotations

from typing import Any

import torch

from roundoff.trace.decomposed.plainly import plainly
from roundoff.trace.decomposed.registry import decomposes

aten = torch.ops.aten


@decomposes("_batch_norm_with_update_functional")
def _with_update(
    x: torch.Tensor, weight: Any, bias: Any, running_mean: torch.Tensor,
    running_var: torch.Tensor, momentum: float, eps: float,
) -> Any:  # fmt: skip
    """The results, and the running statistics after them."""
    found, mean, scale = aten.native_batch_norm(x, weight, bias, None, None, True, momentum, eps)
    axes = [axis for axis in range(x.dim()) if axis != 1]
    means = running_mean * (1 - momentum) + mean * momentum
    spreads = running_var * (1 - momentum) + x.var(axes, correction=1) * momentum
    reserve = plainly(torch.empty, 0, dtype=torch.uint8)
    return found, mean, scale, reserve, means, spreads


@decomposes("batch_norm_backward")
def _backward(
    upstream: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, running_mean: Any,
    running_var: Any, mean: Any, scale: Any, update: bool, eps: float, mask: Any,
    reserve: torch.Tensor,
) -> Any:  # fmt: skip
    return aten.native_batch_norm_backward(
        upstream, x, weight, running_mean, running_var, mean, scale, update, eps, mask
    )
