"""A function, its inputs and what to differentiate by: every question about gradients is asked of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.gradients.inputs import float64_array, round_inputs
from roundoff.numbers.formats import Format, as_format
from roundoff.trace.steps import Trace

Array = npt.NDArray[np.float64]


class Problem:
    """The gradients of loss(function(**inputs)), traced once and rounded once per format.

    upstream: the output's fixed upstream gradient, in place of a loss; output: which of several outputs, an
    index or a key; forward: the output is asked for beside the gradients, as "output".

    Raises: ArgumentError for arguments that do not fit each other.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Mapping[str, Any],
        wrt: Sequence[str] | None = None,
        loss: Callable[..., Any] | None = None,
        upstream: Any = None,
        output: Any = None,
        *,
        forward: bool = False,
    ) -> None:
        from roundoff.trace.by_format import Traces

        self._traces = Traces(function, inputs, wrt, loss, upstream, output=output, forward=forward)
        self.values: dict[str, Array] = {
            name: float64_array(tensor) for name, tensor in self._traces.tensors.items()
        }
        self._rounded: dict[Format, dict[str, Array]] = {}

    def trace(self, format: Any) -> Trace:
        """The pruned trace in a format.  Raises: UnsupportedError for what cannot be traced, by name."""
        return self._traces.of(format)

    def rounded(self, format: Any) -> dict[str, Array]:
        """The inputs of that trace: rounded to the format, closures as they are.

        Raises: ArgumentError where one is not finite, or overflows the format.
        """
        target = as_format(format)
        if target not in self._rounded:
            self._rounded[target] = round_inputs(self.trace(target), self.values, target)
        return self._rounded[target]
