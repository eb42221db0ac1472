"""Does a function take the same steps in two types?  Its calls of PyTorch, recorded and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from roundoff.trace.lowering.dtypes import narrows

#: Stands for the type of the function's inputs, whichever that is.
DECLARED = "declared"


class Run(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """The ATen calls of one run, with every tensor by the number of the call that made it.

    declared: the type of the run; given: its inputs.  Tensors that no call made, such as those that the
    function brings along, are kept as they are.
    """

    def __init__(self, declared: torch.dtype, given: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.declared = declared
        self.calls: list[tuple[Any, ...]] = []
        self.numbers = {id(tensor): number for number, tensor in enumerate(given)}
        self.kept: list[torch.Tensor] = list(given)  # or another tensor may get its identity

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        leaves = tree_leaves((args, sorted(kwargs.items())))
        asked = [part for leaf in leaves for part in self._asked(leaf)]
        found = func(*args, **kwargs)
        self.calls.append((func, asked, [self._made(leaf) for leaf in tree_leaves(found)]))
        return found

    def _asked(self, leaf: Any) -> Sequence[Any]:
        if isinstance(leaf, torch.dtype):
            return (self._named(leaf),)
        if not isinstance(leaf, torch.Tensor):
            return ((type(leaf), leaf),)
        if id(leaf) in self.numbers:
            return (self.numbers[id(leaf)],)
        return leaf, self._named(leaf.dtype)

    def _made(self, leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        self.numbers[id(leaf)] = len(self.kept)
        self.kept.append(leaf)
        return tuple(leaf.shape), leaf.stride(), self._named(leaf.dtype)

    def _named(self, dtype: torch.dtype) -> Any:
        """A type as it stands to the declared one: a cast between the two may round in one run alone."""
        if dtype == self.declared:
            return DECLARED
        if dtype.is_complex:
            return "complex", self._named(dtype.to_real())
        if not dtype.is_floating_point:
            return dtype
        return dtype, narrows(self.declared, dtype), narrows(dtype, self.declared)

    def alike(self, other: Run) -> bool:
        """Whether both runs are one and the same, but for the type that the inputs have."""
        return len(self.calls) == len(other.calls) and all(
            one[0] is two[0] and len(one[1]) == len(two[1]) and all(map(_same, one[1], two[1]))
            and one[2] == two[2]
            for one, two in zip(self.calls, other.calls, strict=True)
        )  # fmt: skip


def _same(first: Any, second: Any) -> bool:
    if isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor):
        return first is second or (
            first.dtype == second.dtype
            and first.stride() == second.stride()
            and torch.equal(first, second)
        )
    return type(first) is type(second) and bool(first == second)
