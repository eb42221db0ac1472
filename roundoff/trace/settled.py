"""Integers and booleans that depend on no float: code may read them while it is traced."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from roundoff.trace.in_place import storage_of

#: Of a tensor, these ask its shape alone.
_SHAPED = frozenset(
    "zeros_like ones_like full_like new_zeros new_ones new_full sym_size sym_numel".split()
)


class Settled(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Above a trace: reads of settled tensors are answered; all others are left to the trace.

    A tensor is settled unless it is floating-point, or was made of or written from one that is not.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._open: dict[int, torch.UntypedStorage] = {}  # kept, or others would get their numbers

    def holds(self, value: Any) -> bool:
        """Whether a value is no tensor, or a settled one."""
        if not isinstance(value, torch.Tensor):
            return True
        whole = not (value.is_floating_point() or value.is_complex())
        return whole and storage_of(value) not in self._open

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = tree_leaves((args, kwargs))
        settled = all(map(self.holds, given))
        if settled and torch.Tag.data_dependent_output in func.tags:
            with _disable_current_modes():
                return func(*args, **kwargs)
        found = func(*args, **kwargs)
        random = torch.Tag.nondeterministic_seeded in func.tags
        if random or not (settled or func.overloadpacket.__name__ in _SHAPED):
            written = given if func._schema.is_mutable else ()
            for each in (*tree_leaves(found), *written):
                if isinstance(each, torch.Tensor) and not each.is_floating_point():
                    self._open[storage_of(each)] = each.untyped_storage()
        return found
