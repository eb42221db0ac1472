"""Operations that have no lowering are taken apart: by functions of ours, else by PyTorch's own tables.

The steps of PyTorch's decompositions need not be those of its kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch._decomp import decomposition_table
from torch.utils._pytree import tree_map_only

from roundoff.trace.decomposed import DECOMPOSED
from roundoff.trace.lowering import LOWERINGS
from roundoff.trace.lowering.movement import MOVES
from roundoff.trace.lowering.registry import FACTORIES

#: Bounds on their decompositions hold for their kernels, as tests over the zoo know; all others are refused.
CHECKED = frozenset("dist nansum sinc special_entr".split())


def _copied(view: Any, *args: Any, **kwargs: Any) -> Any:
    """A view, in memory of its own."""
    return tree_map_only(torch.Tensor, torch.Tensor.contiguous, view(*args, **kwargs))


def decomposition(call: Any) -> Callable[..., Any] | None:
    """What takes an ATen call apart; None where it is lowered as it is, or where there is none.

    It may return NotImplemented for arguments that need it not.
    """
    name = call.overloadpacket.__name__
    for own in (f"{name}.{call._overloadname}", name):
        if own in DECOMPOSED:
            return DECOMPOSED[own]
    if name in LOWERINGS or name in MOVES or name in FACTORIES or call._schema.is_mutable:
        return None
    if torch.Tag.nondeterministic_seeded in call.tags:
        return None
    view = getattr(torch.ops.aten, name.removesuffix("_copy"), None)
    if name.endswith("_copy") and hasattr(view, call._overloadname):
        return partial(_copied, getattr(view, call._overloadname))
    if name in CHECKED:
        return decomposition_table[call]  # type: ignore[no-any-return]
    return call.decompose if call._can_decompose() else None
