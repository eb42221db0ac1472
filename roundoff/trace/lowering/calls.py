"""ATen calls as records, so that a step knows the very call that its kernel gets."""

from __future__ import annotations

from typing import Any

import torch

from roundoff.trace.calls import Call, Given, Operand, contiguous


def call_of(target: Any, args: Any, kwargs: Any, number: int = 0) -> Call:
    """A call without the numbers of its floating-point operands: lowered values or tensors."""
    keywords = tuple((name, _recorded(value)) for name, value in sorted(kwargs.items()))
    return Call(str(target), _recorded(tuple(args)), keywords, number=number)


def _recorded(tree: Any) -> Any:
    if isinstance(tree, tuple | list):
        return tuple(_recorded(each) for each in tree)
    if isinstance(tree, torch.Tensor) and not tree.is_floating_point():
        plain = tree.detach().cpu().contiguous()
        return Given(tuple(tree.shape), _name(tree.dtype), plain.numpy().tobytes())
    if isinstance(tree, torch.Tensor) or hasattr(tree, "step"):
        strides = tree.stride() if isinstance(tree, torch.Tensor) else tree.strides
        shape = tuple(tree.shape)
        return Operand(
            shape, contiguous(shape) if strides is None else tuple(strides), _name(tree.dtype)
        )
    return tree


def _name(dtype: Any) -> Any:
    return None if dtype is None else str(dtype).removeprefix("torch.")
