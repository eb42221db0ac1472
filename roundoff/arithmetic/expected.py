"""The root mean square of the error of every value, by a model: an estimate, never a bound.

Every rounding errs by 0.42466 u of its result (root mean square over log-uniform significands), and no two
errors are correlated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import move_elements
from roundoff.arithmetic.condition_scale import FUNCTIONS, SLOPES
from roundoff.arithmetic.per_step import Rounding
from roundoff.bounds.theorems import RMS_ROUNDING
from roundoff.bounds.tree_errors import along
from roundoff.kernels.facts import Kernels
from roundoff.numbers.formats import Format
from roundoff.orders import as_order
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce

Array = npt.NDArray[np.float64]

_EXACT = frozenset("neg abs sign gt ge lt le eq ne logical_and logical_or logical_not".split())


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
        name, a = step.function, operands[0]
        with np.errstate(all="ignore"):
            if name == "cast":
                numbers = np.asarray(a.value, np.float64)
                return Varied(numbers, a.variance + self.once * numbers**2)
            value = FUNCTIONS[name](*(o.value for o in operands))
            if name in _EXACT:
                kept = a.variance if name in ("neg", "abs") else np.zeros(step.shape)
                return Varied(value, kept)
            if name == "where":
                return Varied(value, np.where(a.value, operands[1].variance, operands[2].variance))
            if name in ("maximum", "minimum"):
                first = value == a.value
                return Varied(value, np.where(first, a.variance, operands[1].variance))
            variance = _propagated(name, value, operands) + self.once * value**2
            if self.infinities:
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


def _propagated(name: str, value: Any, operands: Sequence[Varied]) -> Any:
    x, s = [o.value for o in operands], [o.variance for o in operands]
    match name:
        case "add" | "sub":
            return s[0] + s[1]
        case "mul":
            return s[0] * x[1] ** 2 + x[0] ** 2 * s[1]
        case "div":
            return (s[0] + value**2 * s[1]) / x[1] ** 2
        case "pow":
            return (x[1] * value / x[0]) ** 2 * s[0] + (np.log(x[0]) * value) ** 2 * s[1]
        case _:
            slope = SLOPES[name](x[0], value)
            return np.where(s[0] > 0, slope**2 * s[0], 0.0)
