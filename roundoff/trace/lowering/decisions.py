"""Decisions: what a comparison or an arg-max has come to becomes a constant, and the trace a guard."""

from __future__ import annotations

import numpy as np
import torch

from roundoff.trace.lowering.values import Selection, Value, apply
from roundoff.trace.steps import Builder


def take(
    build: Builder, condition: Value | Selection | torch.Tensor, taken: torch.Tensor, what: str
) -> torch.Tensor:
    """The outcome of truth values, integers or indices; the trace holds for it alone.  what: who decides."""
    numbers = taken.numpy()
    if isinstance(condition, Selection):
        first = np.argmax(condition.candidates == numbers[..., None], axis=-1)
        for k, mask in enumerate(condition.masks):
            build.guard(mask, first == k, what)
    elif isinstance(condition, Value) and build.boolean(condition.step):
        build.guard(condition.step, numbers, what)
    elif isinstance(condition, Value):
        equal = apply(build, "eq", condition, taken)
        build.guard(equal.step, np.ones(numbers.shape, bool), what)
    return taken
