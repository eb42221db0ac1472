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
from roundoff.arithmetic.enclosed_products import blocks, count_products, few, products_on_a_grid
from roundoff.arithmetic.exact_operations import terms_on_a_grid
from roundoff.arithmetic.per_step import Rounding
from roundoff.bounds.exactness import powers_of_two
from roundoff.bounds.theorems import RMS_ROUNDING
from roundoff.bounds.tree_errors import along, rounded_products
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
        self.wide_once = (RMS_ROUNDING * self.wide.u) ** 2

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
        if self._stated and value.shape[-1]:
            terms = np.array(np.moveaxis(value, -1, 0).reshape(value.shape[-1], -1))
            rounded = self._along(step, terms).reshape(total.shape)
        else:
            rounded = self.wide_once * self._loop(count, squares, total)
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
        if self._stated and present(step):
            rounded = np.empty(step.shape)
            for at, left, right in blocks(step, [a], [b]):
                terms = (left[0] * right[0]).reshape(present(step), -1)
                rounded[at] = self._along(step, terms).reshape(rounded[at].shape)
        else:
            rounded = self.wide_once * self._loop(count, squares, total)
        rounded = rounded + self.wide_once * self._products(step, a, b, squares)
        if not np.any(first.variance) and not np.any(second.variance):
            rounded = np.where(
                products_on_a_grid(step, one, two, sizes(), self.wide, few(step)), 0.0, rounded
            )
        return self._store(total, variance, rounded, self._stagnant(count, total, squares, sizes))

    @property
    def _stated(self) -> bool:
        return self.order is not None and not self.order.compensation

    def _along(self, step: Reduce | Contract, terms: Array) -> Array:
        """The variance that the additions of a tree make; what is swallowed is known.  Terms are
        overwritten."""
        tree = self.order.restricted(step.leaves, step.kept)  # type: ignore[union-attr]
        nothing = np.zeros_like(terms)
        unit = self.wide.u / (1.0 + self.wide.u)
        found = along(terms, nothing, nothing.copy(), tree, unit, self.wide.precision)
        result: Array = self.wide_once * found.squares + found.swallowed**2
        return result

    def _products(self, step: Contract, a: Array, b: Array, squares: Array) -> Any:
        """The sum of the squares of the products that are rounded: not those by powers of two."""
        exact = 2 * self.format.precision <= self.wide.precision
        whole = self.order is not None and self.order.compensation == "sum2"
        if exact or whole or (self.fused and not self._stated):
            return 0.0
        powers = powers_of_two(a), powers_of_two(b)
        if not (self.fused or powers[0].any() or powers[1].any()):
            return squares
        kept = [np.where(power, 0.0, v * v) for power, v in zip(powers, (a, b), strict=True)]
        if self.fused:
            tree = self.order.restricted(step.leaves, step.kept)  # type: ignore[union-attr]
            kept[0] = kept[0] * rounded_products(tree, True)
        return kept[0] @ kept[1]

    def _loop(self, n: Any, squares: Any, total: Any) -> Any:
        """The mean sum of the squares of all partial sums, for n terms in random order; or the last one's."""
        if self.order is not None:  # compensated
            return total**2
        # E s_k^2 = k/n X + k(k-1)/(n(n-1)) (s^2 - X) for a random order, summed over k = 2 .. n.
        found = (n + 1) / 2 * squares - squares / np.maximum(n, 1)
        found = found + (n + 1) / 3 * (total**2 - squares)
        return np.where(np.greater(n, 1), np.maximum(found, 0.0), 0.0)

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
