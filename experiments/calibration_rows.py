"""Native errors beside predicted ones, gradient by gradient."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from roundoff.errors import RoundoffError
from roundoff.gradients.native import native_gradients, threads
from roundoff.gradients.prediction import (
    SAMPLES,
    Prediction,
    predictions_of_trace,
    usual_kernels,
)
from roundoff.gradients.problem import Problem
from roundoff.judging.evidence import FEW, WILD, proven_reference
from roundoff.judging.ordinary import Ordinary
from roundoff.numbers.formats import as_format
from roundoff.words import counted

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]

#: Edges of the bins of |error| over its predicted root mean square, in which elements are counted.
EDGES = np.concatenate([np.linspace(0.0, 6.0, 61), [8.0, 12.0, np.inf]])

#: Results of PyTorch 2.13 that are wrong, as far as their format goes, and why.
WRONG = {
    (
        "act_Hardsigmoid",
        "x0",
        "float64",
    ): "the float64 gradient of hardsigmoid multiplies by 1.0f / 6.0f"
}

#: Planted faults, in multiples of the smallest that is noticed for sure.
FAULTS = (0.125, 0.25, 0.5, 1.0, 2.0)


@dataclass(frozen=True, eq=False)
class Case:
    """A function and its inputs; wrt: names of those to differentiate by, None for all."""

    group: str
    name: str
    function: Callable[..., torch.Tensor]
    inputs: Mapping[str, Any]
    wrt: tuple[str, ...] | None
    loss: Callable[..., torch.Tensor] | None
    seed: int


@dataclass(eq=False)
class Found:
    """rows: one per gradient, format, seed and way of running; native, model: how many elements are in each
    bin of EDGES, by format, and how many there would be if errors were as drawn; faults: one row per fault;
    overflowing: results of which nothing is predicted, as samples overflow; wrong: the rows of those in
    WRONG, with the reason, which count nowhere else.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    native: dict[str, Array] = field(default_factory=dict)
    model: dict[str, Array] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    overflowing: int = 0
    wrong: list[dict[str, Any]] = field(default_factory=list)

    @property
    def table(self) -> pd.DataFrame:
        """The rows."""
        return pd.DataFrame(self.rows)


def calibrate(found: Found, case: Case, format: str) -> None:
    """Add what one function does in one format, on one thread and two, and with channels last if any."""
    _run(found, case, format, "contiguous", (1, 2))
    if any(np.ndim(value) == 4 for value in case.inputs.values()):
        laid = replace(case, function=channels_last(case.function))
        _run(found, laid, format, "channels last", (1,))


def _run(found: Found, case: Case, format: str, layout: str, counts: Sequence[int]) -> None:
    target = as_format(format)
    try:
        problem = Problem(case.function, case.inputs, case.wrt, case.loss, forward=True)
        trace, given = problem.trace(target), problem.rounded(target)
        reference = proven_reference(trace, given, target)
        drawn, wild = (
            predictions_of_trace(
                trace,
                given,
                target,
                kernels=usual_kernels(trace, target),
                samples=samples,
                times=times,
            )
            for samples, times in ((SAMPLES + 1, 1.0), (FEW, WILD))
        )
        natives = {count: _native(case, format, count) for count in counts}
    except RoundoffError as refusal:
        found.refused.append(f"{case.name} in {format}: {refusal}")
        return
    for name, whole in drawn.items():
        of = reference[name]
        shape = whole.value.shape
        exact, low, terms, radius = (
            each.reshape(shape) for each in (of.high, of.low, of.terms, of.error)
        )
        known = of.known.reshape(shape)
        # The last sample stands for an error as it is modelled: it is measured by the others.
        kept = Prediction(
            name, target, whole.value, whole.drawn[:-1], whole.branch[:-1], whole.tiny
        )
        ordinary = Ordinary.of(kept, exact, terms, known)
        if ordinary.overflows:
            found.overflowing += len(natives)
            continue
        why = WRONG.get((case.name, name, format))
        if not (whole.branch[-1] or why):
            _count(found.model, format, whole.drawn[-1], kept.rms, known)
        size = float(np.sqrt(np.square(np.where(known, kept.rms, 0.0)).sum()))
        for count, results in natives.items():
            computed = results[name].reshape(shape)
            with np.errstate(invalid="ignore", over="ignore"):
                error = (computed - exact) - low
            error = np.where(known & np.isfinite(error), error, 0.0)
            ordinary_numbers = known & (np.abs(exact) < target.overflow_threshold)
            lost = int((ordinary_numbers & ~np.isfinite(computed)).sum())
            beyond = (
                f"at {counted(lost, 'element')} by not being finite"
                if lost
                else ordinary.beyond(error, radius)
            )
            norm = float(np.linalg.norm(error))
            row = {
                "group": case.group, "function": case.name, "gradient": name, "format": format,
                "seed": case.seed, "threads": count, "layout": layout, "size": int(known.sum()),
                "ratio": norm / size if size else 1.0 if norm == 0 else np.inf,
                "branches": any(wild[name].branch), "tiny": whole.tiny,
                "beyond": beyond,
            }  # fmt: skip
            if why:
                found.wrong.append({**row, "why": why})
                continue
            found.rows.append(row)
            _count(found.native, format, error, kept.rms, known)
        if not why:
            _plant(found, case, format, ordinary, error, radius)


def _native(case: Case, format: str, count: int) -> Mapping[str, Array]:
    with threads(count):
        return native_gradients(
            case.function, case.inputs, case.wrt, case.loss, format=format, forward=True
        )


def channels_last(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The function of inputs of four dimensions laid out with channels last."""
    import torch

    def laid(**values: torch.Tensor) -> torch.Tensor:
        return function(
            **{
                name: v.contiguous(memory_format=torch.channels_last) if v.dim() == 4 else v
                for name, v in values.items()
            }
        )

    return laid


def _count(
    counts: dict[str, Array], format: str, error: Array, rms: Array, known: npt.NDArray[np.bool_]
) -> None:
    """Add one gradient's elements, all together as one: large tensors do not outvote small ones."""
    errs = known & (rms > 0)
    if errs.any():
        bins = np.histogram(np.abs(error[errs]) / rms[errs], EDGES)[0]
        counts[format] = counts.get(format, np.zeros(len(EDGES) - 1)) + bins / bins.sum()


def _plant(
    found: Found, case: Case, format: str, ordinary: Ordinary, error: Array, radius: Array
) -> None:
    """A factor on all elements, and a shift of the one that may err most."""
    power = ordinary.power.factor
    largest = int(np.argmax(ordinary.each))
    for times in FAULTS:
        faults = {}
        if ordinary.each.flat[largest]:
            faults["one element"] = error.copy()
            faults["one element"].flat[largest] += 2.0 * times * ordinary.each.flat[largest]
        if np.isfinite(power) and power > 1:
            faults["all elements"] = error + (power - 1.0) * times * (ordinary.exact + error)
        for kind, wrong in faults.items():
            found.faults.append(
                {
                    "group": case.group, "format": format, "fault": kind, "times": times,
                    "noticed": bool(ordinary.beyond(wrong, radius)),
                }
            )  # fmt: skip


def survival(counts: Array) -> Array:
    """Which share of elements is above each edge but the last."""
    whole = counts.sum()
    above: Array = 1.0 - np.concatenate([[0.0], np.cumsum(counts)[:-1]]) / (whole or 1.0)
    return above


def quantile(counts: Array, q: float) -> float:
    """Where a share q of elements is below, interpolated in its bin."""
    sums = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    edges = np.where(np.isfinite(EDGES), EDGES, 2 * EDGES[-2])
    return float(np.interp(q, sums, edges))
