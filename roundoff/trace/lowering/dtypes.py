"""In which floating-point type a call computes, and where a conversion may round."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from roundoff.numbers.formats import as_format
from roundoff.orders import holds
from roundoff.trace.lowering.values import Value
from roundoff.trace.steps import Builder


def computed_in(out: Any, operands: Sequence[Any] = ()) -> torch.dtype | None:
    """The type that a call computes in: the narrowest floating-point one of its results.

    Where no result is floating-point (a comparison), the type that the operands are promoted to.
    """
    results = _types(torch.utils._pytree.tree_leaves(out))
    if results:
        return max(results, key=lambda dtype: torch.finfo(dtype).eps)
    given = _types([v for v in operands if isinstance(v, Value) and v.shape]) or _types(operands)
    return functools.reduce(torch.promote_types, given) if given else None


def _types(leaves: Sequence[Any]) -> list[torch.dtype]:
    types = [getattr(leaf, "dtype", None) for leaf in leaves]
    return [dtype for dtype in types if dtype is not None and dtype.is_floating_point]


def narrows(source: torch.dtype | None, target: torch.dtype | None) -> bool:
    """Whether a conversion between floating-point types may round."""
    if source is None or target in (None, source) or not source.is_floating_point:
        return False
    return not holds(as_format(target), as_format(source))


def converted(build: Builder, leaf: Any, own: torch.dtype | None) -> Any:
    """An operand as the call reads it: in the type that the call computes in."""
    if not isinstance(leaf, Value) or not narrows(leaf.dtype, own):
        return leaf
    return replace(leaf, step=build.map("cast", leaf.step), dtype=own)


def format_name(dtype: Any) -> str:
    """Of a floating-point type: float16, bfloat16, float32, float64."""
    return str(dtype).removeprefix("torch.")


def laid(result: Any, out: Any, own: torch.dtype | None) -> Any:
    """Results with their strides in PyTorch, on which a later view depends, and the call's type."""
    if isinstance(result, tuple | list) and isinstance(out, tuple | list):
        return type(result)(laid(r, o, own) for r, o in zip(result, out, strict=False))
    if isinstance(result, Value) and isinstance(out, torch.Tensor):
        strides = tuple(out.stride()) if result.strides is None else result.strides
        return replace(result, strides=strides, dtype=own if out.is_floating_point() else out.dtype)
    return result
