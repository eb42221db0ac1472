"""Sums of products in several steps, each of which rounds."""

from __future__ import annotations

from typing import Any

import torch

from roundoff.trace.decomposed.registry import decomposes


@decomposes("addbmm")
def _addbmm(
    x: torch.Tensor, one: torch.Tensor, two: torch.Tensor, *, beta: Any = 1, alpha: Any = 1
) -> torch.Tensor:
    """One product after another is added."""
    for k, (first, second) in enumerate(zip(one, two, strict=True)):
        x = torch.addmm(x, first, second, beta=1 if k else beta, alpha=alpha)
    return x


@decomposes("addr")
def _addr(
    x: torch.Tensor, one: torch.Tensor, two: torch.Tensor, *, beta: Any = 1, alpha: Any = 1
) -> torch.Tensor:
    row = one.unsqueeze(1)
    product = (row if alpha == 1 else row * alpha) * two
    if beta == 0:
        return product
    return (x if beta == 1 else x * beta) + product


@decomposes("_trilinear")
def _trilinear(
    one: torch.Tensor, two: torch.Tensor, three: torch.Tensor, expand1: Any, expand2: Any,
    expand3: Any, sumdim: Any, unroll_dim: int = 1,
) -> torch.Tensor:  # fmt: skip
    """Products of three; those of the first two are summed over the axes that the third has not."""
    tensors = []
    for tensor, axes in ((one, expand1), (two, expand2), (three, expand3)):
        for axis in sorted(axes):
            tensor = tensor.unsqueeze(axis)
        tensors.append(tensor)
    early = [axis for axis in sumdim if axis in expand3 or axis == unroll_dim]
    late = [axis for axis in sumdim if axis not in early]
    parts = []
    for k in range(max(tensor.shape[unroll_dim] for tensor in tensors)):
        a, b, c = (t.narrow(unroll_dim, k if t.shape[unroll_dim] > 1 else 0, 1) for t in tensors)
        found = _summed(a * b, early) * c
        parts.append(_summed(found, late))
    if unroll_dim not in sumdim:
        joined = torch.cat(parts, unroll_dim)
    else:
        joined = parts[0]
        for part in parts[1:]:
            joined = joined + part
    for axis in sorted(sumdim, reverse=True):
        joined = joined.squeeze(axis)
    return joined


def _summed(x: torch.Tensor, axes: Any) -> torch.Tensor:
    return x.sum(axes, keepdim=True) if axes else x


@decomposes("renorm")
def _renorm(x: torch.Tensor, p: Any, dim: int, maxnorm: Any) -> torch.Tensor:
    """Slices whose norm is too large are scaled down, in float32 at least."""
    others = [axis for axis in range(x.dim()) if axis != dim % x.dim()]
    wide = torch.promote_types(x.dtype, torch.float32)
    norm = torch.linalg.vector_norm(x, float(p), others, keepdim=True, dtype=wide)
    factor = torch.where(norm > maxnorm, norm.new_full((), float(maxnorm)) / (norm + 1e-7), 1)
    return x * factor.to(x.dtype)


@decomposes("native_dropout_backward")
def _dropout_backward(upstream: torch.Tensor, mask: torch.Tensor, scale: float) -> torch.Tensor:
    return upstream * (mask.to(upstream.dtype) * scale)
