"""How many roundings each term of a gradient passes through, and what underflow may add.

On a polynomial trace a computed element is a sum over monomials, each times at most L factors 1 + d with
|d| <= u, plus terms that carry an underflow error of a product.  With the same expression over absolute
values, |computed - exact| <= gamma_L S + (1 + gamma_L) T for every order of every sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import move_elements
from roundoff.errors import UnsupportedError
from roundoff.formats import Format, round_to
from roundoff.trace.steps import Contract, Index, Map, Reduce, Shape

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Terms:
    """scale: S per element; underflow: T per element; roundings: L; monomials: at most, per element."""

    scale: Any
    underflow: Any
    roundings: int
    monomials: int


class APriori:
    """The arithmetic that carries `Terms`, for kernels whose every result is rounded to `format`.

    Sums may be kept in any format at least as wide: its roundings are smaller, and the last one, to the
    format, is counted.
    """

    def __init__(self, format: Format) -> None:
        self.format = format
        self.eta = format.smallest_subnormal / 2

    def load(self, values: Array) -> Terms:
        return Terms(np.abs(values), np.zeros_like(values), 0, 1)

    def constant(self, value: Fraction, shape: Shape) -> Terms:
        near = float(round_to(float(value), self.format))
        scale = np.full(shape, abs(float(value)))
        return Terms(scale, np.zeros(shape), 0 if Fraction(near) == value else 2, 1)

    def move(self, operands: Sequence[Terms], index: Index | None, shape: Shape) -> Terms:
        return Terms(
            move_elements([o.scale for o in operands], index, shape, 0),
            move_elements([o.underflow for o in operands], index, shape, 0),
            max(o.roundings for o in operands),
            max(o.monomials for o in operands),
        )

    def map(self, step: Map, operands: Sequence[Terms]) -> Terms:
        a = operands[0]
        match step.function:
            case "neg":
                return a
            case "cast":
                return Terms(a.scale, a.underflow + self.eta, a.roundings + 1, a.monomials)
            case "add" | "sub":
                b = operands[1]
                roundings = max(a.roundings, b.roundings) + 1
                sums = a.scale + b.scale, a.underflow + b.underflow
                return Terms(*sums, roundings, a.monomials + b.monomials)
            case "mul":
                b = operands[1]
                scale, underflow = _product(np.multiply, a, b)
                roundings = a.roundings + b.roundings + 1
                return Terms(scale, underflow + self.eta, roundings, a.monomials * b.monomials)
        raise UnsupportedError(
            f"no bound for a gradient with {step.function}: only sums, differences and products have one"
        )

    def reduce(self, step: Reduce, operand: Terms) -> Terms:
        n = step.leaves if step.kept is None else len(step.kept)
        sums = operand.scale.sum(axis=-1), operand.underflow.sum(axis=-1) + self.eta
        return Terms(*sums, operand.roundings + n, operand.monomials * n)

    def contract(self, step: Contract, first: Terms, second: Terms) -> Terms:
        n = step.leaves if step.kept is None else len(step.kept)
        scale, underflow = _product(np.matmul, first, second)
        roundings = first.roundings + second.roundings + n + 1
        # One underflow per product, one more in the rounding to the format.
        lost = underflow + (n + 1) * self.eta
        return Terms(scale, lost, roundings, first.monomials * second.monomials * n)


def _product(multiply: Any, a: Terms, b: Terms) -> tuple[Any, Any]:
    cross = multiply(a.scale, b.underflow) + multiply(a.underflow, b.scale)
    return multiply(a.scale, b.scale), cross + multiply(a.underflow, b.underflow)
