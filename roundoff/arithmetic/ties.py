"""Ties: comparisons whose operands are equal, where a function has a kink and conventions differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import walk
from roundoff.arithmetic.condition_scale import Scale, Scaled
from roundoff.trace.functions import FUNCTIONS
from roundoff.trace.steps import Map, Trace

Array = npt.NDArray[np.float64]

#: Closer than this part of their scales, two numbers count as equal.
NEAR = 2.0**-40


class Ties(Scale):
    """Float64 values; remembers the first tie, in words."""

    def __init__(self) -> None:
        super().__init__()
        self.found = ""

    def map(self, step: Map, operands: Sequence[Scaled]) -> Scaled:
        if not self.found and FUNCTIONS[step.function].sides:
            a, b = (*operands, Scaled(0.0, 0.0, 0.0))[:2]
            with np.errstate(invalid="ignore"):
                near = np.abs(a.value - b.value) <= NEAR * np.maximum(a.terms, b.terms)
            near &= np.isfinite(a.value)
            if near.any():
                at = [int(i) for i in np.argwhere(near)[0]]
                value = float(np.asarray(a.value)[tuple(at)])
                self.found = f"{step.function} at element {at} of shape {list(step.shape)}, value {value:.6g}"
        return super().map(step, operands)


def first_tie(trace: Trace, inputs: Mapping[str, Array]) -> str:
    """The first tie of a trace in words; empty where there is none."""
    ties = Ties()
    walk(trace, ties, inputs)
    return ties.found
