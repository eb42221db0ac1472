"""The root mean square of the error of every value, by a model: an estimate, never a bound.

Every rounding errs by 0.42466 u of its result (root mean square over log-uniform significands), and no two
errors are correlated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import move_elements
from roundoff.arithmetic.per_step import Rounding
from roundoff.bounds.theorems import RMS_ROUNDING
from roundoff.bounds.tree_errors import along
from roundoff.kernels.facts import Kernels
from roundoff.numbers.formats import Format
from roundoff.orders import as_order
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Varied:
    """A float64 value and the variance of its computed form."""

    value: Any
    variance: Any


class Expected(Rounding):
    """The arithmetic of that model; order, accumulate as in `Simulated`.

    order None or compensated: a plain loop over the terms in random order, or the last addition alone.
    """

    def __init__(
        self,
        format: Any,
        order: Any = None,
        accumulate: Any = None,
        kernels: Kernels | None = None,
    ) -> None:
        super().__init__(format, accumulate, kernels)
        self.wide = self.place.wide
        self.order = None if order is None else as_order(order)
        self.once = (RMS_ROUNDING * self.format.u) ** 2
        self.wide_once = (RMS_ROUNDING * self.wide.u) ** 2

    def in_format(self, own: Format, wide: Format) -> Expected:
        return Expected(own, self.order, wide)

    def load(self, values: Array) -> Varied:
        return Varied(values, np.zeros(values.shape))

    def constant(self, step: Constant) -> Varied:
        if isinstance(step.value, float):
            self.infinities.append(step)
        return Varied(np.full(step.shape, float(step.value)), np.zeros(step.shape))

    def move(self, step: Move, operands: Sequence[Varied]) -> Varied:
        return Varied(
            move_elements(step, [o.value for o in operands], 0),
            move_elements(step, [o.variance for o in operands], 0),
        )

    def map(self, step: Map, operands: Sequence[Varied]) -> Varied:
        function, a = FUNCTIONS[step.function], operands[0]
        with np.errstate(all="ignore"):
            if function.kind is Kind.CAST:
                numbers = np.asarray(a.value, np.float64)
                return Varied(numbers, a.variance + self.once * numbers**2)
            value = function.float64(*(o.value for o in operands))
            variance = _propagated(function, value, operands)
            if function.rounded:
                variance = variance + self.once * value**2
            if function.rounded and self.infinities:
                variance = np.where(np.isinf(value) | (value == 0), 0.0, variance)
            return Varied(value, variance)

    def reduce(self, step: Reduce, operand: Varied) -> Varied:
        value = np.asarray(operand.value, np.float64)
        total = value.sum(axis=-1)
        rounded = self._partial_sums(step, value, total)
        return self._store(total, operand.variance.sum(axis=-1) + self.wide_once * rounded)

    def contract(self, step: Contract, first: Varied, second: Varied) -> Varied:
        a, b = first.value, second.value
        total, products = a @ b, (a * a) @ (b * b)
        variance = first.variance @ (b * b) + (a * a) @ second.variance
        if self.order is None or self.order.compensation:
            n = step.leaves if step.kept is None else len(step.kept)
            rounded = self._loop(n, products, total)
        else:
            terms = a[:, :, None, :] * b.swapaxes(1, 2)[:, None, :, :]
            rounded = self._partial_sums(step, terms, total)
        exact = 2 * self.format.precision <= self.wide.precision
        fused = self.order is not None and self.order.fused
        if not exact and not fused:
            rounded = rounded + products
        return self._store(total, variance + self.wide_once * rounded)

    def _partial_sums(self, step: Reduce | Contract, terms: Array, total: Array) -> Any:
        """The sum of the squares of all partial sums over the last axis."""
        if self.order is None or self.order.compensation:
            return self._loop(terms.shape[-1], (terms**2).sum(axis=-1), total)
        tree = self.order.restricted(step.leaves, step.kept)
        flat = np.array(np.moveaxis(terms, -1, 0).reshape(terms.shape[-1], -1), np.float64)
        found = along(
            flat, np.zeros_like(flat), np.zeros_like(flat), tree, self.wide.u, self.wide.precision
        )
        return found.squares.reshape(terms.shape[:-1])

    def _loop(self, n: int, squares: Any, total: Any) -> Any:
        if self.order is not None:  # compensated
            return total**2
        if n < 2:
            return np.zeros_like(total)
        # E s_k^2 = k/n X + k(k-1)/(n(n-1)) (s^2 - X) for a random order, summed over k = 2 .. n.
        found = (n + 1) / 2 * squares - squares / n + (n + 1) / 3 * (total**2 - squares)
        return np.maximum(found, 0.0)

    def _store(self, value: Any, variance: Any) -> Varied:
        if self.wide != self.format:
            variance = variance + self.once * value**2
        return Varied(value, variance)


def _propagated(function: Function, value: Any, operands: Sequence[Varied]) -> Any:
    x, s = [o.value for o in operands], [o.variance for o in operands]
    match function.kind:
        case Kind.SUM:
            return s[0] + s[1]
        case Kind.PRODUCT:
            return s[0] * x[1] ** 2 + x[0] ** 2 * s[1]
        case Kind.QUOTIENT:
            return (s[0] + value**2 * s[1]) / x[1] ** 2
        case Kind.POWER:
            return (x[1] * value / x[0]) ** 2 * s[0] + (np.log(x[0]) * value) ** 2 * s[1]
        case Kind.ELEMENTARY:
            slopes = [slope(*x, value) for slope in function.slopes]
            parts = (np.where(v > 0, f**2 * v, 0.0) for f, v in zip(slopes, s, strict=True))
            return reduce(add, parts)
        case Kind.REFLECTION:
            return s[0]
        case Kind.SELECTION:
            return np.where(x[0], s[1], s[2])
        case Kind.EXTREME:
            return np.where(function.takes_first(*x), *s)
        case _:
            return np.zeros(np.shape(value))
