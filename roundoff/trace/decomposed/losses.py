"""Losses by margins, and their gradients."""

from __future__ import annotations

from typing import Any

import torch

from roundoff.trace.decomposed.plainly import plainly
from roundoff.trace.decomposed.registry import decomposes

#: What PyTorch calls the reductions.
NONE, MEAN, SUM = 0, 1, 2


def _over(x: torch.Tensor, count: int) -> torch.Tensor:
    return x / plainly(torch.full, (), float(count), dtype=x.dtype)


def _reduced(each: torch.Tensor, reduction: int) -> torch.Tensor:
    if reduction == NONE:
        return each
    return each.mean() if reduction == MEAN else each.sum()


@decomposes("soft_margin_loss")
def _soft_margin(x: torch.Tensor, target: torch.Tensor, reduction: int = MEAN) -> torch.Tensor:
    return _reduced((-x * target).exp().log1p(), reduction)


@decomposes("soft_margin_loss_backward")
def _soft_margin_backward(
    upstream: torch.Tensor, x: torch.Tensor, target: torch.Tensor, reduction: int
) -> torch.Tensor:
    power = (-target * x).exp()
    slope = target * power
    slope = -_over(slope, x.numel()) if reduction == MEAN else -slope
    return slope / (power + 1) * upstream


def _rows(x: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of one sample as of several."""
    return (x, target) if x.dim() == 2 else (x.reshape(1, -1), target.reshape(1, -1))


def _margins(
    x: torch.Tensor, target: torch.Tensor, margin: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """By how much each class comes too near to the target; and the mask of all other classes."""
    target = target.reshape(-1, 1)
    others = plainly(lambda: torch.arange(x.shape[1]) != target)
    return x.new_full((), float(margin)) - x.gather(1, target) + x, others


@decomposes("multi_margin_loss")
def _multi_margin(
    x: torch.Tensor, target: torch.Tensor, p: Any = 1, margin: Any = 1,
    weight: torch.Tensor | None = None, reduction: int = MEAN,
) -> torch.Tensor:  # fmt: skip
    rows, _ = _rows(x, target)
    near, others = _margins(rows, target, margin)
    each = torch.where(others & (near > 0), near, 0)
    if p == 2:
        each = each * each
    if weight is not None:
        each = each * weight[target.reshape(-1, 1)]
    found = _over(each.sum(1), rows.shape[1])
    if reduction == NONE:
        return found.reshape(target.shape)
    return _over(found.sum(), len(rows)) if reduction == MEAN else found.sum()


@decomposes("multi_margin_loss_backward")
def _multi_margin_backward(
    upstream: torch.Tensor, x: torch.Tensor, target: torch.Tensor, p: Any, margin: Any,
    weight: torch.Tensor | None = None, reduction: int = MEAN,
) -> torch.Tensor:  # fmt: skip
    rows, _ = _rows(x, target)
    near, others = _margins(rows, target, margin)
    count = rows.numel() if reduction == MEAN else rows.shape[1]
    slope = _over(near.new_ones(()), count)
    slope = 2 * slope * near if p == 2 else slope.expand(near.shape)
    if weight is not None:
        slope = slope * weight[target.reshape(-1, 1)]
    slope = torch.where(others & (near > 0), slope, 0)
    whole = slope - torch.where(others, 0, slope.sum(1, keepdim=True))
    wide = upstream.reshape(-1, 1) if reduction == NONE else upstream
    return (whole * wide).reshape(x.shape)


def _labels(
    x: torch.Tensor, target: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Rows of targets up to the first -1: which are there, which classes they are, and the mask of these."""
    there = (target >= 0).to(torch.int64).cumprod(1) > 0
    classes = target.clamp(min=0)
    mask = (
        torch.zeros(x.shape, dtype=torch.int64).scatter_add(1, classes, there.to(torch.int64)) > 0
    )
    return there, classes, mask


@decomposes("multilabel_margin_loss_forward")
def _multilabel(x: torch.Tensor, target: torch.Tensor, reduction: int) -> Any:
    """Every class that is no target against every one that is."""
    rows, wanted = _rows(x, target)
    near, free, mask = _multilabel_margins(rows, wanted)
    found = _over(torch.where(free & (near > 0), near, 0).sum((1, 2)), rows.shape[1])
    is_target = plainly(lambda: mask.to(x.dtype).reshape(target.shape))
    if reduction == NONE:
        return found.reshape(x.shape[:-1]), is_target
    return (_over(found.sum(), len(rows)) if reduction == MEAN else found.sum()), is_target


def _multilabel_margins(
    rows: torch.Tensor, wanted: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    there, classes, mask = plainly(_labels, rows, wanted)
    near = 1 - rows.gather(1, classes).unsqueeze(2) + rows.unsqueeze(1)
    free = plainly(lambda: there.unsqueeze(2) & ~mask.unsqueeze(1))
    return near, free, mask


@decomposes("multilabel_margin_loss_backward")
def _multilabel_backward(
    upstream: torch.Tensor, x: torch.Tensor, target: torch.Tensor, reduction: int,
    is_target: torch.Tensor,
) -> torch.Tensor:  # fmt: skip
    rows, wanted = _rows(x, target)
    near, free, _ = _multilabel_margins(rows, wanted)
    _, classes, _ = plainly(_labels, rows, wanted)
    count = rows.numel() if reduction == MEAN else rows.shape[1]
    slope = torch.where(free & (near > 0), _over(rows.new_ones(()), count), 0)
    up = slope.sum(1)
    whole = up.scatter_add(1, classes, -slope.sum(2))
    wide = upstream.reshape(-1, 1) if reduction == NONE else upstream
    return (whole * wide).reshape(x.shape)
