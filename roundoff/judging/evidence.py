"""What computed gradients are judged by: references of a proven engine, bounds, and tolerances made of both.

Every verdict and every tolerance takes its evidence from here, so that no two questions are answered from
different references or bounds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.bounds import Bound
from roundoff.gradients.bounds import bounds_of_trace, rtol_atol
from roundoff.gradients.inputs import round_inputs
from roundoff.gradients.prediction import SAMPLES, Prediction, predictions_of_trace, usual_kernels
from roundoff.gradients.reference import (
    GradientReference,
    Reference,
    is_large,
    reference_of_trace,
    rigorous_engine,
)
from roundoff.judging.ordinary import Ordinary, Tipped
from roundoff.judging.power import Power, power_of
from roundoff.numbers.formats import Format, as_format
from roundoff.trace.steps import Trace

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: Failure probability of the probabilistic bound per comparison.
FAILURE = 1e-9

#: A probabilistic bound above this part of the terms cannot tell rounding from a bug.
VAGUE = 1 / 8

#: How many times larger errors are drawn to see whether rounding may take another branch, and how often.
WILD, FEW = 8.0, 4


@dataclass(frozen=True, eq=False)
class Evidence:
    """Of one trace at one set of inputs in one format: the exact outputs and the bounds on their errors.

    ordinary, tipped: by output, what the errors that rounding usually makes say, and those of WILD times the
    size; drawn when they are first asked for.  bounded: whether bounds are worth their time; kernels: what
    was probed of those that the bounds are for, in words.
    """

    reference: Reference
    bounds: Mapping[str, Bound]
    ordinary: Callable[[], Mapping[str, Ordinary]]
    tipped: Callable[[], Mapping[str, Tipped]]
    bounded: bool = True
    kernels: str = ""

    def of(self, output: str, side: str, computed: Array, *, traced: bool = True) -> Judged:
        """One computed output of a side, with what it is judged by; traced: whether by its own trace."""
        return Judged(
            side, computed, self.reference[output], self.bounds[output], self.reference.exact,
            self.reference.rigorous, traced, "output" if output == "output" else "gradient",
            lambda: self.ordinary()[output], lambda: self.tipped()[output], self.bounded,
        )  # fmt: skip


def _unpredicted() -> None:
    return None


@dataclass(frozen=True, eq=False)
class Judged:
    """One computed gradient (or output: `what`) of a side, and what it is judged by.

    Shapes: computed, the reference and the bound are alike.
    exact: the references of all outputs have no error; rigorous: their radii are proven; traced: the
    reference and the bound are the side's own, not those of the other side; usually, tipped, bounded: as in
    `Evidence`, None where nothing is predicted.
    """

    name: str
    computed: Array
    reference: GradientReference
    bound: Bound
    exact: bool
    rigorous: bool
    traced: bool = True
    what: str = "gradient"
    usually: Callable[[], Ordinary | None] = _unpredicted
    tipped: Callable[[], Tipped | None] = _unpredicted
    bounded: bool = True

    @cached_property
    def ordinary(self) -> Ordinary | None:
        """What errors are ordinary; None where nothing is predicted."""
        found = self.usually()
        return None if found is None or found.overflows else found

    @property
    def decides(self) -> bool:
        """Whether the probabilistic bound does."""
        of = self.reference
        return self.bounded and not vague(self.likely, of.scale, of.terms, of.known)

    @cached_property
    def certain(self) -> Array:
        """The certified bound; infinite where it is not worth its time."""
        return self.bound.certain if self.bounded else self._none

    @cached_property
    def likely(self) -> Array:
        """The probabilistic bound; infinite where it is not worth its time."""
        return self.bound.likely(FAILURE) if self.bounded else self._none

    @property
    def _none(self) -> Array:
        return np.broadcast_to(np.inf, self.computed.shape)

    @property
    def power(self) -> Power:
        """The faults that a check by what decides notices for sure."""
        if not self.decides and self.ordinary is not None:
            return self.ordinary.power
        return power_of(self.reference.high, self.reference.terms, self.likely)

    @property
    def tolerance(self) -> Array:
        """How far the computed result may be from the exact one: by the bound or, where that decides
        nothing, by the prediction."""
        ordinary = None if self.decides else self.ordinary
        if ordinary is None:
            return self.likely
        return ordinary.each


def proven_reference(trace: Trace, inputs: Mapping[str, Array], format: Any) -> Reference:
    """The reference that a verdict may rest on: exact, or with a proven radius."""
    engine = rigorous_engine(trace)
    return reference_of_trace(trace, inputs, format=format, engine=engine)


def evidence_of_trace(
    trace: Trace,
    inputs: Mapping[str, Array],
    format: Any,
    *,
    accumulate: Any = None,
    device: Any = "cpu",
) -> Evidence:
    """The evidence of a pruned trace, for inputs that are rounded to the format here.

    The bounds are for torch's kernels on this machine, as far as probes have shown what those do.
    accumulate: the format of their sums, where the caller states it; device: kernels are probed on
    the CPU alone.
    """
    from roundoff.kernels.this_machine import of_this_machine

    target = as_format(format)
    reference = proven_reference(trace, inputs, target)
    rounded = round_inputs(trace, inputs, target)
    kernels = of_this_machine(trace, target, device, accumulate)
    bounds = bounds_of_trace(trace, rounded, target, accumulate=accumulate, kernels=kernels)
    drawn = partial(_drawn, trace, rounded, target, accumulate, device)

    @cache
    def ordinary() -> dict[str, Ordinary]:
        found = {}
        for name, prediction in drawn(SAMPLES, 1.0).items():
            of = reference[name]
            found[name] = Ordinary.of(prediction, of.high, of.terms, of.known)
        return found

    @cache
    def tipped() -> dict[str, Tipped]:
        return {n: Tipped.of(each, reference[n].known) for n, each in drawn(FEW, WILD).items()}

    # A worst case carried through a long function takes most of the time, and decides nothing.
    bounded = trace.polynomial or not is_large(trace)
    told = kernels.words() if kernels else ""
    return Evidence(reference, bounds, ordinary, tipped, bounded, told)


def _drawn(
    trace: Trace, inputs: Mapping[str, Array], target: Format, accumulate: Any, device: Any,
    samples: int, times: float,
) -> Mapping[str, Prediction]:  # fmt: skip
    """Kernels of this machine are probed, others taken as they usually are."""
    kernels = usual_kernels(trace, target, accumulate, device)
    return predictions_of_trace(
        trace, inputs, target, kernels=kernels, samples=samples, times=times
    )


def tolerance_pair(first: Judged, second: Judged) -> tuple[float, float]:
    """(rtol, atol) for `assert_close` between both, by the wider tolerance; infinite where that is."""
    reference = first.reference
    known = reference.known & second.reference.known
    most = np.maximum(first.tolerance, second.tolerance)[known]
    if not np.isfinite(most).all():
        return np.inf, np.inf
    return rtol_atol(most, reference.high[known])


def vague(likely: Array, scale: Array, terms: Array, known: Mask) -> bool:
    """Whether a probabilistic bound allows more than VAGUE of the terms, so that it decides nothing."""
    whole = terms.max(initial=0.0, where=known)
    each = (likely > VAGUE * scale) & (scale > 0) & known
    most = likely.max(initial=0.0, where=known)
    return bool(each.any()) or bool(whole > 0 and most > VAGUE * whole)
