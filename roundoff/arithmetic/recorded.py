"""Sums carried out in a stated order: the sizes of the computed partial sums give the running bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.enclosed import Enclosed, slack
from roundoff.arithmetic.enclosed_products import blocks
from roundoff.numbers.formats import Format
from roundoff.numbers.machines import Machine, machine
from roundoff.orders import Order, dots, sums
from roundoff.trace.steps import Contract, Reduce, present

Array = npt.NDArray[np.float64]


def recorded(
    step: Reduce | Contract, operands: Sequence[Enclosed], order: Order, fused: bool, wide: Format
) -> tuple[Array, Array]:
    """Sums of |result|, and of the power of two below it, over all operations of each sum of given numbers.

    Infinite where a result is.
    Shapes: those of the step.
    """
    tree, n = order.restricted(step.leaves, step.kept), present(step)
    found = np.empty((2, *step.shape))

    def record(at: Any, x: Array, y: Array | None = None) -> None:
        recorder = Recorder(machine(wide), x.shape[1])
        on = cast(Machine, recorder)
        if y is None:
            result = sums(on.load(x, exact=True), order, tree, on)
        else:
            result = dots(x, y, order, tree, on, fused)
        finite = np.isfinite(recorder.store(result))
        # As many float64 additions of non-negative numbers as there are nodes and products.
        for total, one in zip(found, (recorder.sizes, recorder.binades), strict=True):
            total[at] = np.where(finite, one * slack(n), np.inf).reshape(total[at].shape)

    values = [np.asarray(operand.value, np.float64) for operand in operands]
    if isinstance(step, Reduce):
        record(..., np.array(np.moveaxis(values[0], -1, 0).reshape(n, -1)))
        return found[0], found[1]
    for at, left, right in blocks(step, [values[0]], [values[1]]):
        x, y = np.broadcast_arrays(left[0], right[0])
        record(at, np.array(x.reshape(n, -1)), np.array(y.reshape(n, -1)))
    return found[0], found[1]


class Recorder:
    """A machine that adds up the magnitudes of all that it rounds: the running bounds, over u.

    sizes: sum of |result|; binades: sum of ufp(|result|), the power of two below it; products: the part
    of them that comes from products.  Shapes: (sums,).
    Source: Wilkinson; Higham, 2nd ed., 3.3: fl(a o b) = (a o b)/(1 + d), |d| <= u, so the error is at
    most u |fl(a o b)|; and at most u ufp(a o b), which ufp(fl(a o b)) is not below.
    """

    def __init__(self, machine: Machine, sums: int) -> None:
        self._machine = machine
        self.sizes, self.binades = np.zeros(sums), np.zeros(sums)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._machine, name)

    def _record(self, result: Any) -> Any:
        sizes = np.abs(self._machine.store(result))
        self.sizes += _down(sizes)
        mantissa, exponent = np.frexp(sizes)
        self.binades += _down(np.where(mantissa == 0, 0.0, np.ldexp(0.5, exponent)))
        return result

    def adder(self, terms: Any) -> Any:
        add = self._machine.adder(terms)
        return lambda a, b: self._record(add(a, b))

    def add(self, a: Any, b: Any) -> Any:
        return self._record(self._machine.add(a, b))

    def multiply(self, a: Any, b: Any) -> Any:
        return self._record(self._machine.multiply(a, b))

    def fused(self, a: Any, b: Any, c: Any) -> Any:
        return self._record(self._machine.fused(a, b, c))


def _down(rows: Array) -> Array:
    """Rows of several nodes added up; one node's as it is."""
    result: Array = rows.sum(axis=0) if rows.ndim == 2 else rows
    return result
