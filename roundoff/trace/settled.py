"""Integers and booleans that code reads while it is traced: what no float decides, and decisions."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from roundoff.trace.decided import DECIDED
from roundoff.trace.in_place import storage_of

aten = torch.ops.aten

#: Of a tensor, these ask its shape alone.
_SHAPED = frozenset(
    "zeros_like ones_like full_like new_zeros new_ones new_full sym_size sym_numel".split()
)


def is_number(tensor: torch.Tensor) -> bool:
    """Whether a tensor is of real or complex numbers, no integers and no truth values."""
    return tensor.is_floating_point() or tensor.is_complex()


class Settled(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Above a trace: reads of integers and booleans are answered.

    A tensor is settled unless it is floating-point, or was made of or written from one that is not.  What is
    read of others is a decision of the trace.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._open: dict[int, torch.UntypedStorage] = {}  # kept, or others would get their numbers

    def holds(self, value: Any) -> bool:
        """Whether a value is no tensor, or a settled one."""
        if not isinstance(value, torch.Tensor):
            return True
        return not is_number(value) and storage_of(value) not in self._open

    def decide(self, value: torch.Tensor) -> None:
        """Integers or truth values are read: where floats decide them, the trace notes what they are."""
        if not self.holds(value):
            DECIDED(value, "what the function reads (an if, .item() or .tolist())")

    def _alike(self, func: Any, first: torch.Tensor, second: torch.Tensor, **near: Any) -> Any:
        if func is aten.allclose.default:
            return self._read(torch.isclose(first, second, **near).all())
        return first.shape == second.shape and self._read((first == second).all())

    def _read(self, value: torch.Tensor) -> Any:
        self.decide(value)
        with _disable_current_modes():
            return value.item()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        settled = all(map(self.holds, given))
        if torch.Tag.data_dependent_output in func.tags:
            if func in (aten.equal.default, aten.allclose.default):
                with self:
                    return self._alike(func, *args, **kwargs)
            if not any(isinstance(each, torch.Tensor) and is_number(each) for each in given):
                return self._read(args[0])
        found = func(*args, **kwargs)
        random = torch.Tag.nondeterministic_seeded in func.tags
        if random or not (settled or func.overloadpacket.__name__ in _SHAPED):
            written = given if func._schema.is_mutable else ()
            for each in (*tree_leaves(found), *written):
                if isinstance(each, torch.Tensor) and not each.is_floating_point():
                    self._open[storage_of(each)] = each.untyped_storage()
        return found
