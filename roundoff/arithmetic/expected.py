"""The root mean square of the error of every value, by a model: an estimate, never a bound.

Every rounding errs by 0.42466 u of its result (root mean square over log-uniform significands), and no two
errors are correlated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import move_elements
from roundoff.arithmetic.enclosed import Enclosed
from roundoff.arithmetic.enclosed_products import count_products, few, products_on_a_grid
from roundoff.arithmetic.exact_operations import terms_on_a_grid
from roundoff.arithmetic.per_step import Rounding
from roundoff.arithmetic.sum_roundings import SumRoundings
from roundoff.bounds.theorems import RMS_ROUNDING
from roundoff.kernels.facts import Kernels
from roundoff.numbers.formats import Format
from roundoff.orders import as_order
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce, present

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Varied:
    """A float64 value and the variance of its computed form.

    stagnant: where it is a sum whose additions may swallow most of their terms, how many depends on the
    order.
    """

    value: Any
    variance: Any
    stagnant: Any = False


class Expected(Rounding):
    """The arithmetic of that model; order, accumulate as in `Simulated`.

    order None or compensated: a plain loop over the terms in random order, or the last addition alone;
    fused: whether products enter additions unrounded, None for what the order says.
    """

    def __init__(
        self,
        format: Any,
        order: Any = None,
        accumulate: Any = None,
        kernels: Kernels | None = None,
        *,
        fused: bool | None = None,
    ) -> None:
        super().__init__(format, accumulate, kernels)
        self.wide = self.place.wide
        self.order = None if order is None else as_order(order)
        self.fused = bool(self.order and self.order.fused) if fused is None else fused
        self.once = (RMS_ROUNDING * self.format.u) ** 2
        self.sums = SumRoundings(self.format, self.wide, self.order, self.fused)

    def in_format(self, own: Format, wide: Format) -> Expected:
        return Expected(own, self.order, wide, fused=self.fused)

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
        total, size = value.sum(axis=-1), np.abs(value).sum(axis=-1)
        squares, count = (value**2).sum(axis=-1), np.count_nonzero(value, axis=-1)
        variance = operand.variance.sum(axis=-1)
        rounded = self.sums.of_terms(step, value, count, squares, total)
        if not np.any(operand.variance):
            known = Enclosed(value, 0.0, 0.0)
            rounded = np.where(terms_on_a_grid(known, self.wide), 0.0, rounded)
        stagnant = self._stagnant(count, total, squares, lambda: size)
        return self._store(total, variance, rounded, stagnant)

    def contract(self, step: Contract, first: Varied, second: Varied) -> Varied:
        a, b = first.value, second.value
        total, squares = a @ b, (a * a) @ (b * b)
        variance = np.zeros_like(total)
        if np.any(first.variance):
            variance = variance + first.variance @ (b * b)
        if np.any(second.variance):
            variance = variance + (a * a) @ second.variance
        one, two = Enclosed(a, 0.0, 0.0), Enclosed(b, 0.0, 0.0)
        count = count_products(one, two, present(step))
        sizes = cache(lambda: np.abs(a) @ np.abs(b))
        rounded = self.sums.of_products(step, a, b, count, squares, total)
        if not np.any(first.variance) and not np.any(second.variance):
            rounded = np.where(
                products_on_a_grid(step, one, two, sizes(), self.wide, few(step)), 0.0, rounded
            )
        return self._store(total, variance, rounded, self._stagnant(count, total, squares, sizes))

    def _stagnant(self, n: Any, total: Array, squares: Array, sizes: Callable[[], Array]) -> Any:
        """Where in any order a partial sum may swallow half a term of mean size."""
        u = self.wide.u
        if self.order is not None or 4.0 * u * np.max(n, initial=0) <= 1.0:
            return False
        return 2.0 * u * n * (np.abs(total) + np.sqrt(squares)) > sizes()

    def _store(self, value: Any, variance: Any, rounded: Any, stagnant: Any) -> Varied:
        variance = variance + rounded
        if self.wide != self.format:
            variance = variance + self.once * value**2
        return Varied(value, variance, stagnant & (variance > 0))


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
