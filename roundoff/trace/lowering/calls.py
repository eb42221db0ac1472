"""ATen calls as records, so that a step knows the very call that its kernel gets."""

from __future__ import annotations

from typing import Any

import torch

from roundoff.trace.call import Call, Declared, Given, Operand, contiguous


def call_of(
    target: Any, args: Any, kwargs: Any, declared: str = "float32", number: int = 0
) -> Call:
    """A call without the numbers of its floating-point operands: lowered values or tensors."""

    def recorded(tree: Any) -> Any:
        if isinstance(tree, tuple | list):
            return tuple(recorded(each) for each in tree)
        if isinstance(tree, torch.dtype) and _name(tree) == declared:
            return Declared()
        if isinstance(tree, torch.Tensor) and not tree.is_floating_point():
            plain = tree.detach().cpu().contiguous()
            return Given(tuple(tree.shape), _name(tree.dtype), plain.numpy().tobytes())
        if isinstance(tree, torch.Tensor):
            # Constants that no float depends on are kept in float64, whatever they are in PyTorch.
            dtype = None if tree.dtype == torch.float64 else tree.dtype
            return Operand(tuple(tree.shape), tuple(tree.stride()), own(dtype))
        if hasattr(tree, "candidates"):  # indices that depend on floats: other steps make them
            return "indices", tuple(tree.candidates.shape[:-1])
        if hasattr(tree, "strides"):  # a lowered value
            strides = contiguous(tree.shape) if tree.strides is None else tuple(tree.strides)
            return Operand(tuple(tree.shape), strides, own(tree.dtype))
        if hasattr(tree, "candidates"):  # indices that depend on floats, by what they choose among
            return tree.masks, tree.candidates.shape, tree.candidates.tobytes()
        return tree

    def own(dtype: torch.dtype | None) -> str | None:
        return None if dtype is None or _name(dtype) == declared else _name(dtype)

    keywords = tuple((name, recorded(value)) for name, value in sorted(kwargs.items()))
    return Call(str(target), recorded(tuple(args)), keywords, number=number)


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")
