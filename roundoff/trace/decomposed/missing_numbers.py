"""Where a function puts nan, as a logarithm of what is negative, and does not take it."""

from __future__ import annotations

import math
from typing import Any

import torch

from roundoff.trace.decomposed.plainly import decided, plainly
from roundoff.trace.decomposed.registry import decomposes


def _is_nan(x: Any) -> bool:
    if isinstance(x, torch.Tensor):
        return x.numel() == 1 and x.is_floating_point() and bool(plainly(torch.isnan, x).all())
    return isinstance(x, float) and math.isnan(x)


@decomposes("where")
def _where(condition: torch.Tensor, first: Any = None, second: Any = None) -> Any:
    """The other branch, where it is taken everywhere."""
    for nothing, other, taken in ((first, second, False), (second, first, True)):
        if _is_nan(nothing) and bool(plainly(lambda t=taken: (condition == t).all())):
            decided(condition if taken else ~condition, "aten::where of nan")
            like = torch.broadcast_shapes(condition.shape, other.shape)  # type: ignore[no-untyped-call]
            return other.expand(like)
    return NotImplemented


@decomposes("masked_fill")
def _masked_fill(x: torch.Tensor, mask: torch.Tensor, value: Any) -> Any:
    if _is_nan(value) and not bool(plainly(torch.any, mask)):
        decided(~mask, "aten::masked_fill of nan")
        return x + 0
    return NotImplemented
