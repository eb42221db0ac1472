"""Operations by which a graph says where it holds.

`decided(condition, what)`: for the truth values (or indices) that the tensor has now; what: which operation
decides by it.  `assured(condition, what)`: where all of it is true, whatever it is in PyTorch's arithmetic.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import has_side_effect

_library = torch.library.Library("roundoff", "DEF")  # type: ignore[no-untyped-call]
for _name in ("decided", "assured"):
    _library.define(f"{_name}(Tensor condition, str what) -> Tensor")  # type: ignore[no-untyped-call]


def _same(condition: torch.Tensor, what: str) -> torch.Tensor:
    return condition.clone()


for _name in ("decided", "assured"):
    _library.impl(_name, _same, "CompositeExplicitAutograd")  # type: ignore[no-untyped-call]

DECIDED: Any = torch.ops.roundoff.decided.default
ASSURED: Any = torch.ops.roundoff.assured.default
for _each in (DECIDED, ASSURED):
    has_side_effect(_each)  # a graph keeps it, though nobody reads the result

#: Under which a node has the outcome.
TAKEN = "taken"
