"""How large an error each step makes of its own: the variances that random roundings are drawn with."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.errors_of_digits import spacing_at
from roundoff.arithmetic.random_roundings import Drawing, RandomRoundings, Sampled
from roundoff.kernels.facts import Kernels
from roundoff.numbers.formats import Format, round_to
from roundoff.trace.functions import FUNCTIONS, Kind
from roundoff.trace.steps import Constant, Contract, Map, Reduce, Rounded

Array = npt.NDArray[np.float64]


class ErrorsMade(RandomRoundings):
    """The walk without errors of `RandomRoundings`, which notes what those would be.

    made: by step, the variances of the errors that its own roundings make, broadcast against its value.
    """

    def __init__(
        self,
        format: Any,
        order: Any = None,
        accumulate: Any = None,
        kernels: Kernels | None = None,
        drawing: Drawing | None = None,
        made: dict[int, Any] | None = None,
    ) -> None:
        super().__init__(format, order, accumulate, kernels, drawing)
        self.made: dict[int, Any] = {} if made is None else made

    def in_format(self, own: Format, wide: Format) -> ErrorsMade:
        return ErrorsMade(own, self.order, wide, None, self.drawing, self.made)

    def _note(self, step: Rounded, variance: Any) -> None:
        self.made[id(step)] = self.made.get(id(step), 0.0) + variance

    def constant(self, step: Constant) -> Sampled:
        if isinstance(step.value, Fraction):
            rounded = round_to(float(step.value), self.format).item()
            if np.isfinite(rounded):
                self._note(step, float(Fraction(rounded) - step.value) ** 2)
        return super().constant(step)

    def map(self, step: Map, operands: Sequence[Sampled]) -> Sampled:
        function = FUNCTIONS[step.function]
        if function.kind is not Kind.CAST and function.rounded:
            absolute = function.absolute(self.format)
            if absolute > self.format.smallest_normal:
                self._note(step, (0.5 * absolute) ** 2 / 12.0)
        return super().map(step, operands)

    def _rounded(
        self, step: Rounded, value: Array, exact: bool, whole: Any, times: float = 1.0
    ) -> Sampled:
        if whole is None or not np.all(whole):
            variance = np.square(times * spacing_at(value, self.format)) / 12.0
            self._note(step, variance if whole is None else np.where(whole, 0.0, variance))
        return super()._rounded(step, value, exact, whole, times)

    def _stored(self, step: Reduce | Contract, total: Array, exact: bool, rms: Any) -> Sampled:
        self._note(step, np.square(self.plain.rms(step, rms)))
        return super()._stored(step, total, exact, rms)
