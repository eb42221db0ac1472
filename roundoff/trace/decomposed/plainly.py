"""What decompositions ask PyTorch for without a trace of it, and what they assume by that."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from roundoff.trace.decided import DECIDED


def plainly(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """The results as they are here: constants of the trace, which decisions must justify."""
    with _disable_current_modes():
        return operation(*args, **kwargs)


def decided(condition: torch.Tensor, what: str) -> None:
    """The trace holds where the truth values are what they are now; what: the operation, by name."""
    DECIDED(condition, what)


def ascending(values: torch.Tensor, what: str) -> None:
    """The trace holds where values along the last axis do not fall."""
    if values.dim() and values.shape[-1] > 1:
        decided(values[..., 1:] >= values[..., :-1], what)
