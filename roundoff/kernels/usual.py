"""What kernels usually do where no probe has shown it: for predictions, never for bounds.

16-bit kernels compute in float32 and round their results: torch's own convert what they load
(at::opmath_type), and so do oneDNN's and cuBLAS's.
"""

from __future__ import annotations

from roundoff.kernels.facts import Facts, Place
from roundoff.kernels.levels import narrow, of_batch
from roundoff.kernels.this_machine import HALVES, Machine
from roundoff.numbers.formats import FLOAT32, FLOAT64, Format
from roundoff.trace.steps import Contract, Reduce, Rounded


class Usual(Machine):
    """The kernels of this machine: what probes have shown and, where they have not, what is usual."""

    def facts(self, step: Rounded, format: Format) -> Facts | None:
        sums = isinstance(step, Reduce | Contract)
        if format.name not in HALVES or step.call is None or (sums and narrow(step)):
            return None
        return super().facts(step, format) or Facts(FLOAT32, once=True)

    def place(self, step: Rounded, format: Format) -> Place:
        if format == FLOAT32 and isinstance(step, Reduce | Contract) and of_batch(step):
            return Place(format, FLOAT64, format)
        return super().place(step, format)
