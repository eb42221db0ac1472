"""What several walks of one trace at the same inputs find out alike is made once.

The inputs carry it: within `with inputs.shared():` every walk of their trace, in an arithmetic that shares,
first looks there, and leaves there what it made.  At the end of the block all of it is freed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.numbers.formats import Format
from roundoff.trace.steps import Step, Trace

Array = npt.NDArray[np.float64]


@dataclass(eq=False)
class Findings:
    """What is known of one step, whichever arithmetic found it; None where nobody did.

    moved: the elements of a move of given numbers; enclosed: the same as the arithmetic of bounds has them;
    value: a matrix product in float64 or better, and how far it may be off; sizes, own: the sums of its
    |products|, and how far float64 may be off; sums: what bounds know of sums, by how they are added.
    """

    moved: Array | None = None
    enclosed: Any = None
    value: tuple[Array, Any] | None = None
    sizes: Array | None = None
    own: Any = None
    sums: dict[Any, Any] = field(default_factory=dict)


class RoundedInputs(dict[str, Array]):
    """The inputs of a trace by name, rounded to a format (None: to one that need not be known)."""

    def __init__(
        self, trace: Trace, values: Mapping[str, Array], format: Format | None = None
    ) -> None:
        super().__init__(values)
        self.trace, self.format = trace, format
        #: Of the steps of the trace; None where walks share nothing.
        self.findings: dict[Step, Findings] | None = None

    @classmethod
    def sharing(cls, trace: Trace, values: Mapping[str, Array]) -> RoundedInputs:
        """Inputs at which walks share: these, within `shared`, else others for as long as they exist."""
        if isinstance(values, cls) and values.findings is not None:
            return values
        found = cls(trace, values)
        found.findings = {}
        return found

    @contextmanager
    def shared(self) -> Iterator[RoundedInputs]:
        """Within the block walks share; then the memory is free."""
        self.findings = {}
        try:
            yield self
        finally:
            self.findings = None


class Sharing:
    """An arithmetic that takes from other walks at the same inputs what they have found out."""

    _findings: dict[Step, Findings] | None = None

    def share(self, trace: Trace, inputs: Mapping[str, Array]) -> None:
        """With the other walks of the trace at these inputs, if those share anything."""
        self._findings = None
        if isinstance(inputs, RoundedInputs) and inputs.trace is trace:
            self._findings = inputs.findings

    def findings(self, step: Step) -> Findings:
        """What is known of a step, to look up and to fill in; kept for others if they share."""
        if self._findings is None:
            return Findings()
        return self._findings.setdefault(step, Findings())
