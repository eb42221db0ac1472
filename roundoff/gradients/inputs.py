"""Inputs as numbers of a format: they are rounded to it first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.sharing import RoundedInputs
from roundoff.errors import ArgumentError
from roundoff.numbers.formats import Format, rounder
from roundoff.trace.steps import Input, Trace

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]


def float64_array(tensor: torch.Tensor) -> Array:
    """The numbers of a tensor, exactly; of any device, layout and floating-point type."""
    import torch

    values: Array = tensor.detach().to(device="cpu", dtype=torch.float64).numpy(force=True)
    return values


def round_inputs(trace: Trace, inputs: Mapping[str, Array], target: Format) -> RoundedInputs:
    """The trace's inputs rounded to a format, and its closures, which have a type of their own, as they are.

    Raises: ArgumentError where one is missing, not finite, or overflows the format.
    """
    if isinstance(inputs, RoundedInputs) and inputs.trace is trace and inputs.format == target:
        return inputs
    given = {**trace.closures, **inputs}
    to_format = rounder(target)
    rounded = {}
    for step in trace.steps:
        if isinstance(step, Input):
            values = np.array(given[step.name], np.float64, order="C")
            if step.name in trace.closures:
                if not np.isfinite(values).all():
                    raise _unusable(step.name, values, target)
                rounded[step.name] = values
                continue
            if not np.abs(values).max(initial=0.0) < target.overflow_threshold:
                raise _unusable(step.name, values, target)
            rounded[step.name] = to_format(np.atleast_1d(values)).reshape(values.shape)
    return RoundedInputs(trace, rounded, target)


def _unusable(name: str, values: Array, target: Format) -> ArgumentError:
    wild = np.argwhere(~np.isfinite(values))
    if len(wild):
        at = tuple(int(i) for i in wild[0])
        return ArgumentError(
            f"input {name!r} holds {values[at]} at {list(at)}; a reference needs finite numbers"
        )
    worst = values.flat[int(np.argmax(np.abs(values)))]
    return ArgumentError(
        f"input {name!r} holds {worst:g}, beyond the largest {target} number {target.max:g}; "
        "scale it, or take a format with a wider range"
    )
