"""The operation by which a graph says that it holds for one outcome of a decision alone.

`decided(condition, what)`: the graph has been recorded for the truth values (or indices) that the tensor
has now; what: which operation decides by it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import has_side_effect

_library = torch.library.Library("roundoff", "DEF")  # type: ignore[no-untyped-call]
_library.define("decided(Tensor condition, str what) -> Tensor")  # type: ignore[no-untyped-call]


def _same(condition: torch.Tensor, what: str) -> torch.Tensor:
    return condition.clone()


_library.impl("decided", _same, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]

DECIDED: Any = torch.ops.roundoff.decided.default
has_side_effect(DECIDED)  # a graph keeps it, though nobody reads the result

#: Under which a node has the outcome.
TAKEN = "taken"
