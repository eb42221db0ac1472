"""What decompositions ask PyTorch for without a trace of it, and what they assume by that."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from roundoff.trace.decided import ASSURED, DECIDED


def plainly(operation: Any, *args: Any, **kwargs: Any) -> Any:
    """The results as they are here: constants of the trace, which decisions must justify."""
    with _disable_current_modes():
        return operation(*args, **kwargs)


def decided(condition: torch.Tensor, what: str) -> None:
    """The trace holds where the truth values are what they are now; what: the operation, by name."""
    DECIDED(condition, what)


def assured(condition: torch.Tensor, what: str) -> None:
    """The trace holds where all is true; in PyTorch's own arithmetic it need not be."""
    ASSURED(condition, what)


def constant(numbers: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Float64 numbers as a constant of the trace, which PyTorch has in another type, rounded."""
    with _disable_current_modes():
        found = numbers.to(dtype, copy=True)
    found.precise = numbers  # type: ignore[attr-defined]
    return found


def disturbed(a: torch.Tensor, times: float) -> torch.Tensor:
    """The same matrices, after a rounding at so many times the size of their norm.

    Stable algorithms are exact for matrices a few roundings of that size off (Higham 2002, section 1.5).
    Predictions carry roundings through the steps of a trace; where those are not the algorithm's, this stands
    for its error.  times: as measured by native errors over predicted ones.
    """
    with _disable_current_modes():
        norm = a.to(torch.float64).square().sum((-2, -1), keepdim=True).sqrt()
        shift = (norm * times / 3).to(a.dtype)
        three = torch.full((), 3.0, dtype=a.dtype)
    third = a / three  # whatever digits a has, these are all
    return ((third + shift) - shift) * three


def ascending(values: torch.Tensor, what: str) -> None:
    """The trace holds where values along the last axis do not fall."""
    if values.dim() and values.shape[-1] > 1:
        decided(values[..., 1:] >= values[..., :-1], what)
