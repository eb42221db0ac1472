"""Distances between rows, in any norm, as the kernels compute them and their gradients."""

from __future__ import annotations

import math

import torch

from roundoff.trace.decomposed.plainly import plainly
from roundoff.trace.decomposed.registry import decomposes


def _distance(apart: torch.Tensor, p: float) -> torch.Tensor:
    """The norm along the last axis."""
    size = apart.abs()
    if p == 0:
        return (apart != 0).to(apart.dtype).sum(-1)
    if p == 1:
        return size.sum(-1)
    if p == 2:
        return (apart * apart).sum(-1).sqrt()
    if math.isinf(p):
        return size.amax(-1)
    return size.pow(p).sum(-1).pow(1 / p)


def _slope(
    apart: torch.Tensor, far: torch.Tensor, upstream: torch.Tensor, p: float
) -> torch.Tensor:
    """What each difference gets; distances (far) and upstream have an axis of one in place of its last."""
    if p == 0:
        return apart * 0
    if p == 1:
        return apart.sign() * upstream
    if math.isinf(p):
        return torch.where(apart.abs() == far, apart.sign() * upstream, 0)
    zero = far == 0
    if p == 2:
        return torch.where(zero, 0, upstream * apart / torch.where(zero, 1, far))
    divisor = torch.where(zero, 1, far).pow(p - 1)
    if p < 2:
        nothing = zero | (apart == 0)
        size = torch.where(nothing, 1, apart.abs())
        return torch.where(nothing, 0, apart.sign() * size.pow(p - 1) * upstream / divisor)
    nothing = apart == 0
    size = torch.where(nothing, 1, apart.abs())
    return torch.where(zero | nothing, 0, apart * size.pow(p - 2) * upstream / divisor)


@decomposes("_cdist_forward")
def _cdist(x: torch.Tensor, y: torch.Tensor, p: float, compute_mode: int | None) -> torch.Tensor:
    return _distance(x.unsqueeze(-2) - y.unsqueeze(-3), p)


@decomposes("_cdist_backward")
def _cdist_backward(
    upstream: torch.Tensor, x: torch.Tensor, y: torch.Tensor, p: float, far: torch.Tensor
) -> torch.Tensor:
    apart = x.unsqueeze(-2) - y.unsqueeze(-3)
    return _slope(apart, far.unsqueeze(-1), upstream.unsqueeze(-1), p).sum(-2)


def _pairs(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    one, two = plainly(torch.triu_indices, count, count, 1)
    return plainly(torch.clone, one), plainly(torch.clone, two)


@decomposes("_pdist_forward")
def _pdist(x: torch.Tensor, p: float = 2.0) -> torch.Tensor:
    one, two = _pairs(len(x))
    return _distance(x[one] - x[two], p)


@decomposes("_pdist_backward")
def _pdist_backward(
    upstream: torch.Tensor, x: torch.Tensor, p: float, far: torch.Tensor
) -> torch.Tensor:
    one, two = _pairs(len(x))
    slope = _slope(x[one] - x[two], far.unsqueeze(-1), upstream.unsqueeze(-1), p)
    zeros = plainly(torch.zeros_like, x)
    places = plainly(torch.cat, [one, two])
    return zeros.index_add(0, places, torch.cat([slope, -slope]))
