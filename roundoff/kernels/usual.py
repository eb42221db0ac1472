"""What kernels usually do where no probe has shown it: for predictions, never for bounds.

16-bit kernels compute in float32 and round their results: torch's own convert what they load
(at::opmath_type), and so do oneDNN's and cuBLAS's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from roundoff.kernels.facts import Facts, Place
from roundoff.kernels.levels import channels_last, narrow, of_batch
from roundoff.kernels.this_machine import HALVES, ProbedKernels
from roundoff.numbers.formats import FLOAT32, FLOAT64, Format, as_format
from roundoff.orders import holds
from roundoff.trace.steps import Constant, Contract, Reduce, Rounded, Trace

#: Kernels that take the numbers which they compare with in the tensor's own type, in 16 bits, too.
_OWN_BOUNDS = frozenset(
    "clamp clamp_min clamp_max hardtanh hardtanh_backward threshold threshold_backward ge gt le lt".split()
)


class Usual(ProbedKernels):
    """The kernels of this machine: what probes have shown and, where they have not, what is usual.

    accumulate: the format of sums, where the user states it; here: whether the kernels are this machine's,
    which may be probed.
    """

    def __init__(
        self, trace: Trace, format: Format, accumulate: Any = None, *, here: bool = True
    ) -> None:
        super().__init__(trace, format)
        self.here = here
        self._places: dict[tuple[Rounded, str], Place] = {}
        self.accumulate = None if accumulate is None else as_format(accumulate)

    def facts(self, step: Rounded, format: Format) -> Facts | None:
        sums = isinstance(step, Reduce | Contract)
        if format.name not in HALVES or step.call is None or (sums and narrow(step)):
            return None
        shown = super().facts(step, format) if self.here else None
        return shown or Facts(FLOAT32, once=True)

    def place(self, step: Rounded, format: Format) -> Place:
        """Found out once: every walk asks."""
        key = step, format.name
        if key not in self._places:
            self._places[key] = self._place(step, format)
        return self._places[key]

    def _place(self, step: Rounded, format: Format) -> Place:
        if isinstance(step, Constant) and step.kernel in _OWN_BOUNDS:
            return Place(format, format, format)
        sums = isinstance(step, Reduce | Contract)
        # at::acc_type on CPUs is float64 for float32, but for channels last at::opmath_type is taken.
        if format == FLOAT32 and sums and of_batch(step) and not channels_last(step):
            return Place(format, FLOAT64, format)
        place = super().place(step, format)
        stated = self.accumulate
        if stated is None or not isinstance(step, Reduce | Contract) or not holds(stated, format):
            return place
        return replace(
            place, wide=stated, result=place.result if holds(stated, place.result) else format
        )
