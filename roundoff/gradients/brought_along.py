"""Tensors that a function brings along, cast to the type that it runs in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from roundoff.trace.in_place import storage_of


class BroughtAlong(TorchDispatchMode):
    """Floating-point tensors that were there before, and are none of those given, are read in a type."""

    def __init__(self, dtype: torch.dtype, given: Iterable[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.dtype = dtype
        self._known: dict[int, torch.UntypedStorage] = {}  # kept, or others would get their numbers
        for tensor in given:
            self._note(tensor)

    def _note(self, tensor: torch.Tensor) -> None:
        self._known[storage_of(tensor)] = tensor.untyped_storage()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map_only(torch.Tensor, self._read, (args, kwargs or {}))
        found = func(*args, **kwargs)
        for each in tree_leaves(found):
            if isinstance(each, torch.Tensor) and each.layout == torch.strided:
                self._note(each)
        return found

    def _read(self, tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.is_floating_point() or storage_of(tensor) in self._known:
            return tensor
        return tensor.to(self.dtype)
