"""S, the condition scale, beside a float64 value.

On a polynomial trace S is the same expression with absolute values throughout; u S is then the
natural unit of an error.  The values are plain float64 and serve derivatives and branches only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add, mul
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import move_elements
from roundoff.arithmetic.sharing import Sharing
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scaled:
    """A float64 value, its condition scale S, and the scale of its last sums, of one shape.

    terms: the sum of the |terms| of the last sum alone, as computed, products resetting it: what the
    value was made of in its last step.  S compounds over a trace, and soon says little of a deep one.
    """

    value: Any
    scale: Any
    terms: Any


class Scale(Sharing):
    """The arithmetic that carries S."""

    def load(self, values: Array) -> Scaled:
        size = np.abs(values)
        return Scaled(values, size, size)

    def constant(self, step: Constant) -> Scaled:
        full = np.full(step.shape, float(step.value))
        size = np.where(np.isinf(full), 0.0, np.abs(full))  # infinities carry no error
        return Scaled(full, size, size)

    def move(self, step: Move, operands: Sequence[Scaled]) -> Scaled:
        value = self.findings(step).moved
        if value is None:
            value = move_elements(step, [o.value for o in operands], 0)
        scale = move_elements(step, [o.scale for o in operands], 0)
        if all(o.scale is o.terms for o in operands):
            return Scaled(value, scale, scale)
        return Scaled(value, scale, move_elements(step, [o.terms for o in operands], 0))

    def map(self, step: Map, operands: Sequence[Scaled]) -> Scaled:
        x, s = [o.value for o in operands], [o.scale for o in operands]
        function = FUNCTIONS[step.function]
        if function.kind is Kind.CAST:
            return operands[0]
        with np.errstate(all="ignore"):
            value = function.float64(*x)
            terms = np.abs(value)
            if function.kind is Kind.SUM:
                terms = operands[0].terms + operands[1].terms
            elif function.kind is Kind.REFLECTION:
                terms = operands[0].terms
            return Scaled(value, _finite(scale_of(function, x, s, value)), _finite(terms))

    def reduce(self, step: Reduce, operand: Scaled) -> Scaled:
        with np.errstate(all="ignore"):
            sums = (v.sum(axis=-1) for v in (operand.value, operand.scale, operand.terms))
            value, scale, terms = sums
        return Scaled(value, _finite(scale), terms)

    def contract(self, step: Contract, first: Scaled, second: Scaled) -> Scaled:
        with np.errstate(all="ignore"):
            scale = first.scale @ second.scale
            plain = all(
                of.scale is of.terms for of in (first, second)
            )  # |value|, both: inputs, moved
            terms = scale if plain else np.abs(first.value) @ np.abs(second.value)
            found = self.findings(step)
            if found.value is None:
                found.value = first.value @ second.value, 0.0
            return Scaled(found.value[0], _finite(scale), terms)


def _finite(scale: Any) -> Any:
    """The largest float64 stands for more: S grows without limit in deep traces."""
    return np.nan_to_num(scale, nan=np.finfo(np.float64).max, posinf=np.finfo(np.float64).max)


def scale_of(function: Function, x: Sequence[Any], s: Sequence[Any], y: Any) -> Any:
    """S of a map from its operands' values x, their scales s, and its value y."""
    match function.kind:
        case Kind.SUM:
            return s[0] + s[1]
        case Kind.PRODUCT:
            return s[0] * s[1]
        case Kind.QUOTIENT:
            return s[0] / np.abs(x[1]) + np.abs(x[0]) * s[1] / x[1] ** 2
        case Kind.REFLECTION:
            return s[0]
        case Kind.SELECTION:
            return np.where(x[0], s[1], s[2])
        case Kind.EXTREME:
            return np.where(function.takes_first(*x), *s)
        case Kind.POWER | Kind.ELEMENTARY:
            slopes = (np.abs(slope(*x, y)) for slope in function.slopes)
            return np.maximum(np.abs(y), reduce(add, map(mul, slopes, s)))
        case _:  # constant but for jumps: no error of the operands reaches them
            return np.abs(y)
