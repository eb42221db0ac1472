"""Movement operations: run on element numbers, their result is the index of a move."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.lowering.values import Selection, Value, as_number, as_value, exact
from roundoff.trace.steps import Builder

#: Movement operations: run on element numbers, their result is the index.  Only what moves whole
#: elements belongs here; sort, convolution and accumulating scatters also run on numbers and
#: return plausible nonsense.
MOVES = frozenset(
    """alias as_strided cat clone constant_pad_nd contiguous detach diagonal expand flip
    index index_select lift_fresh lift_fresh_copy movedim narrow permute pixel_shuffle
    pixel_unshuffle repeat reshape roll rot90 select select_backward slice slice_backward split
    split_with_sizes squeeze stack t transpose tril triu unbind unfold unsqueeze _unsafe_view
    view slice_scatter select_scatter diagonal_backward copy _reshape_alias view_as
    expand_as as_strided_scatter diagonal_scatter unsafe_split unsafe_chunk reflection_pad1d
    reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d im2col diag_embed
    upsample_nearest1d upsample_nearest2d upsample_nearest3d
    _upsample_nearest_exact1d _upsample_nearest_exact2d _upsample_nearest_exact3d
    block_diag channel_shuffle diagonal_copy""".split()
)

#: Moves whose further arguments are indices; all tensors that others take are moved.
INDEXING = frozenset(("index", "index_select", "narrow"))


def lower_move(build: Builder, target: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """The ATen operation itself, run on element numbers."""
    operands: list[int] = []
    start = 1
    name = target.overloadpacket.__name__
    if any(isinstance(argument, torch.dtype) for argument in args):
        raise UnsupportedError(
            f"cannot trace aten::{name} to another dtype, which reads the bits of numbers; convert them "
            "with .to()"
        )
    first = 1 if name in INDEXING else len(args)
    if any(isinstance(leaf, Value) for leaf in torch.utils._pytree.tree_leaves(args[first:])):
        raise UnsupportedError(
            f"cannot trace aten::{name} by a mask or by indices that depend on floats; choose by torch.where"
        )
    boolean = all(leaf.dtype == torch.bool for leaf in torch.utils._pytree.tree_leaves(out))

    def numbers(leaf: Any) -> Any:
        nonlocal start
        if not isinstance(leaf, torch.Tensor | Value):
            return leaf
        leaf = as_value(build, leaf)
        operands.append(leaf.step if boolean else as_number(build, leaf.step))
        tensor = _with_numbers(leaf, start)
        start += prod(leaf.shape)
        return tensor

    tree_map = torch.utils._pytree.tree_map
    args = (*tree_map(numbers, tuple(args[:first])), *args[first:])
    kwargs = {k: v for k, v in kwargs.items() if k not in ("dtype", "device", "layout")}
    if "constant_pad_nd" in str(target) and len(args) > 2 and args[2] != 0:
        operands.append(build.constant(exact(args[2])))
        args = (*args[:2], start)

    def index(tensor: torch.Tensor) -> Value:
        places = tensor.numpy().astype(np.int64)
        shape = tuple(tensor.shape)
        return Value(build.move(tuple(operands), places), shape, tuple(tensor.stride()))

    if name in ("view", "_unsafe_view"):  # of an expanded tensor, whose numbers lie in C order
        target = torch.ops.aten.reshape.default
    return tree_map(index, target(*args, **kwargs))


def move_selection(build: Builder, target: Any, args: Any, kwargs: Any) -> Selection:
    """The same of indices that depend on floats: each keeps its candidates."""
    chosen = args[0]
    numbers = torch.arange(1, 1 + len(chosen.candidates.reshape(-1, len(chosen.masks))))
    moved = target(numbers.reshape(chosen.candidates.shape[:-1]), *args[1:], **kwargs)
    return chosen.moved(build, moved.numpy())


def _with_numbers(value: Value, start: int) -> torch.Tensor:
    numbers = torch.arange(start, start + prod(value.shape), dtype=torch.float64)
    numbers = numbers.reshape(value.shape)
    if value.strides is None or 0 in value.strides:
        return numbers
    return torch.empty_strided(value.shape, value.strides, dtype=torch.float64).copy_(numbers)
