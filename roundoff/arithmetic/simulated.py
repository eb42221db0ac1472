"""What a kernel of a given format, accumulator and reduction order would return.

Values carry a trailing axis of independent trials, and every operation is done on all elements and all
trials at once.  The numbers are those of the format, held in float64.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import walk
from roundoff.arithmetic.per_step import Rounding
from roundoff.numbers.formats import Format, round_to, rounder
from roundoff.numbers.machines import machine
from roundoff.orders import ReductionTree, accumulator, as_order, dots, sums
from roundoff.trace.functions import FUNCTIONS, Kind
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce, Trace

Array = npt.NDArray[np.float64]

#: Products formed at a time: 32 MiB of float64.
CHUNK = 1 << 22


class Simulated(Rounding):
    """The arithmetic of a declared format and one reduction order.

    Every step's result is rounded to its own format, or to `format` where it has none.  Sums and
    contractions keep products and partial sums in `accumulate` (default: the step's format; taken where it
    holds that) and add in `order`; structural zeros take their place in
    the tree and add nothing.  + - * / and square roots are rounded correctly; other functions are
    computed in float64 and rounded, which is what a good library returns nearly always.

    Raises: ArgumentError for unknown names and for an accumulator narrower than the format;
    UnsupportedError for a format that cannot be emulated.
    """

    def __init__(self, format: Any, order: Any = "sequential", accumulate: Any = None) -> None:
        super().__init__(format, accumulate)
        self.order = as_order(order)
        self.accumulate = accumulator(self.format, accumulate)
        self.narrow, self.wide = machine(self.format), machine(self.accumulate)
        self._round = rounder(self.format)

    def in_format(self, own: Format, wide: Format) -> Simulated:
        return Simulated(own, self.order, wide)

    def load(self, values: Array) -> Array:
        return values

    def constant(self, step: Constant) -> Array:
        return np.full((*step.shape, 1), round_to(float(step.value), self.format))

    def move(self, step: Move, operands: Sequence[Any]) -> Any:
        trials = max(operand.shape[-1] for operand in operands)
        if step.index is None:
            return operands[0].reshape(*step.shape, trials)
        zero = np.zeros((1, trials), operands[0].dtype)
        return np.concatenate([zero, *(_rows(operand, trials) for operand in operands)])[step.index]

    def map(self, step: Map, operands: Sequence[Any]) -> Any:
        function = FUNCTIONS[step.function]
        if function.kind is Kind.CAST:
            return round_to(operands[0], self.format)
        with np.errstate(all="ignore"):
            result = np.asarray(function.float64(*operands))
        return self._round(result) if function.rounded else result

    def reduce(self, step: Reduce, operand: Array) -> Array:
        tree = self.order.restricted(step.leaves, step.kept)
        terms = np.moveaxis(operand, -2, 0)
        flat = self.wide.load(terms.reshape(len(terms), -1), exact=True)
        return self._store(sums(flat, self.order, tree, self.wide)).reshape(terms.shape[1:])

    def contract(self, step: Contract, first: Array, second: Array) -> Array:
        tree = self.order.restricted(step.leaves, step.kept)
        trials = max(first.shape[-1], second.shape[-1])
        batch, rows, inner, _ = first.shape
        columns = second.shape[2]
        result = np.empty((batch, rows, columns, trials))
        block = max(1, CHUNK // max(1, inner * columns * trials))
        for b in range(batch):
            right = np.broadcast_to(second[b][:, None], (inner, 1, columns, second.shape[-1]))
            for start in range(0, rows, block):
                left = first[b, start : start + block].swapaxes(0, 1)[:, :, None]
                result[b, start : start + block] = self._dots(left, right, tree)
        return result

    def _dots(self, left: Array, right: Array, tree: ReductionTree) -> Array:
        left, right = np.broadcast_arrays(left, right)
        terms = len(left)
        x, y = left.reshape(terms, -1), right.reshape(terms, -1)
        return self._store(dots(x, y, self.order, tree, self.wide)).reshape(left.shape[1:])

    def _store(self, values: Any) -> Array:
        stored = self.wide.store(values)
        if self.accumulate == self.format:
            return stored
        with np.errstate(all="ignore"):
            return self.narrow.store(self.narrow.load(stored))


def simulate(trace: Trace, arithmetic: Simulated, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs of a trace for many trials.

    Shapes: inputs by name are (trials, *shape), numbers of the format; closures may leave the leading
    axis out.  Outputs are (trials, *shape).
    """
    outputs = walk(trace, arithmetic, inputs, trials=True)
    trials = max(len(values) for values in inputs.values())
    return {
        name: np.moveaxis(np.broadcast_to(v, (*v.shape[:-1], trials)), -1, 0)
        for name, v in outputs.items()
    }


def _rows(operand: Any, trials: int) -> Any:
    """An array of elements, in C order, by trials."""
    flat = operand.reshape(-1, operand.shape[-1])
    return np.broadcast_to(flat, (len(flat), trials))
