"""What computed gradients are judged by: references of a proven engine, bounds, and tolerances made of both.

Every verdict and every tolerance takes its evidence from here, so that no two questions are answered from
different references or bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import walk
from roundoff.arithmetic.condition_scale import Scale, Scaled
from roundoff.arithmetic.memo import Shared
from roundoff.bounds import Bound
from roundoff.errors import RoundoffError
from roundoff.gradients.bounds import bounds_of_trace, tolerance
from roundoff.gradients.inputs import round_inputs
from roundoff.gradients.reference import (
    GradientReference,
    Reference,
    is_large,
    reference_of_trace,
    rigorous_engine,
)
from roundoff.numbers.formats import FLOAT32, FLOAT64, Format, as_format
from roundoff.trace.steps import Trace

Array = npt.NDArray[np.float64]

#: Failure probability of the probabilistic bound per comparison (design decision 10).
FAILURE = 1e-9


#: How many times smaller inputs are tried where the given ones cannot be judged.
SMALLER = 16


@dataclass(frozen=True, eq=False)
class Way:
    """Another way to judge one output: what to do, in words, and the bound, S and |terms| that it has."""

    words: str
    bound: Bound
    size: Scaled


@dataclass(frozen=True, eq=False)
class Evidence:
    """Of one trace at one set of inputs in one format: the exact outputs and the bounds on their errors.

    kernels: what was probed of those that the bounds are for, in words; ways: other ways to judge, each
    made when it is first asked for.
    """

    reference: Reference
    bounds: Mapping[str, Bound]
    kernels: str = ""
    ways: Sequence[Callable[[], Mapping[str, Way]]] = ()

    def of(self, output: str, side: str, computed: Array, *, traced: bool = True) -> Judged:
        """One computed output of a side, with what it is judged by; traced: whether by its own trace."""
        return Judged(
            side, computed, self.reference[output], self.bounds[output], self.reference.exact,
            self.reference.rigorous, traced, "output" if output == "output" else "gradient",
            [partial(_way_of, output, way) for way in self.ways],
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Judged:
    """One computed gradient (or output: `what`) of a side, and what it is judged by.

    Shapes: computed, the reference and the bound are alike.
    exact: the references of all outputs have no error; rigorous: their radii are proven; traced: the
    reference and the bound are the side's own, not those of the other side; ways: other ways to judge it.
    """

    name: str
    computed: Array
    reference: GradientReference
    bound: Bound
    exact: bool
    rigorous: bool
    traced: bool = True
    what: str = "gradient"
    ways: Sequence[Callable[[], Way | None]] = ()


def proven_reference(
    trace: Trace, inputs: Mapping[str, Array], format: Any, shared: Shared | None = None
) -> Reference:
    """The reference that a verdict may rest on: exact, or with a proven radius."""
    engine = rigorous_engine(trace)
    return reference_of_trace(trace, inputs, format=format, engine=engine, shared=shared)


def evidence_of_trace(
    trace: Trace,
    inputs: Mapping[str, Array],
    format: Any,
    *,
    accumulate: Any = None,
    shared: Shared | None = None,
    device: Any = "cpu",
) -> Evidence:
    """The evidence of a pruned trace, for inputs that are rounded to the format here.

    The bounds are for torch's kernels on this machine, as far as probes have shown what those do.
    accumulate: the format of their sums, where the caller states it; shared: with other walks
    of this trace at these inputs; device: kernels are probed on the CPU alone.
    """
    from roundoff.kernels.this_machine import of_this_machine

    target = as_format(format)
    reference = proven_reference(trace, inputs, target, shared)
    rounded = round_inputs(trace, inputs, target)
    kernels = of_this_machine(trace, target, device, accumulate)
    bounds = bounds_of_trace(
        trace, rounded, target, accumulate=accumulate, shared=shared, kernels=kernels
    )
    ways = _ways(trace, rounded, target, accumulate, device)
    return Evidence(reference, bounds, kernels.words() if kernels else "", ways)


def _ways(
    trace: Trace, inputs: Mapping[str, Array], target: Format, accumulate: Any, device: Any
) -> list[Callable[[], Mapping[str, Way]]]:
    """Sums kept in float32, where that may be; wider formats; smaller inputs.  None of a large function:
    trying them takes as long as judging it, each.
    """
    if is_large(trace):
        return []
    way = partial(_way, trace, device)
    found = []
    wide = target if accumulate is None else as_format(accumulate)
    if max(wide, target, key=lambda each: each.precision).precision < FLOAT32.precision:
        words = 'give accumulate="float32" if the kernels keep their sums in it'
        found.append(partial(way, words, inputs, target, FLOAT32))
    for other in (FLOAT32, FLOAT64):
        if other.precision > target.precision:
            sums = wide if wide.precision > other.precision else None
            found.append(partial(way, f"judge in {other}", inputs, other, sums))
    smaller = {name: value / SMALLER for name, value in inputs.items()}
    words = f"take inputs {SMALLER} times smaller"
    return [cache(each) for each in (*found, partial(way, words, smaller, target, accumulate))]


def _way(
    trace: Trace,
    device: Any,
    words: str,
    inputs: Mapping[str, Array],
    target: Format,
    accumulate: Any,
) -> Mapping[str, Way]:
    from roundoff.kernels.this_machine import of_this_machine

    shared = Shared()
    kernels = of_this_machine(trace, target, device, accumulate)
    try:
        rounded = round_inputs(trace, inputs, target)
        bounds = bounds_of_trace(
            trace, rounded, target, accumulate=accumulate, shared=shared, kernels=kernels
        )
        sizes = walk(trace, Scale(shared), rounded)
    except RoundoffError:
        return {}
    return {name: Way(words, bound, sizes[name]) for name, bound in bounds.items()}


def _way_of(output: str, way: Callable[[], Mapping[str, Way]]) -> Way | None:
    return way().get(output)


def tolerance_pair(first: Judged, second: Judged) -> tuple[float, float]:
    """(rtol, atol) for `assert_close` between both, by the wider bound; infinite where that says nothing."""
    reference = first.reference
    known = reference.known & second.reference.known
    likely = np.maximum(first.bound.likely(FAILURE), second.bound.likely(FAILURE))[known]
    if not np.isfinite(likely).all():
        return np.inf, np.inf
    return tolerance(likely, reference.high[known])
