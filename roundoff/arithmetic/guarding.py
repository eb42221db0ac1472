"""Arithmetics that check on their own values the decisions that a trace has taken."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from roundoff.errors import BrokenGuardError
from roundoff.trace.steps import Guard


class Guarding(ABC):
    """An arithmetic that a walk tells of every decision, with the value of its boolean step."""

    @abstractmethod
    def decided(self, guard: Guard, value: Any) -> None:
        """Check a decision.  Raises: BrokenGuardError where it falls otherwise, if that ends the walk."""


def check(guard: Guard, values: Any) -> None:
    """Raise BrokenGuardError where truth values are not those that the trace has taken."""
    apart = np.asarray(values, bool) != guard.taken
    if apart.any():
        raise broken(guard, int(np.flatnonzero(apart)[0]), int(np.count_nonzero(apart)))


def broken(guard: Guard, element: int, count: int = 1) -> BrokenGuardError:
    """What to raise where a decision falls otherwise; element: the first one, in C order."""
    where = f" at {guard.source.place}" if guard.source is not None and guard.source.line else ""
    at = [int(i) for i in np.unravel_index(element, guard.taken.shape)]
    place = f"at element {at}{f' and {count - 1} more' if count > 1 else ''}" if at else "there"
    error = BrokenGuardError(
        f"{guard.what}{where} decides by data, and {place} exact values decide otherwise than PyTorch "
        "did when the function was traced; the results part there, whatever the rounding: move the inputs "
        "off the tie"
    )
    error.brief = f"exact values decide otherwise than PyTorch did, by {guard.what}{where}"
    return error
