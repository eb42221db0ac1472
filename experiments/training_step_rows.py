"""Two ways to take a training step, compared parameter by parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from roundoff.gradients.prediction import predict
from roundoff.judging.comparison import Comparison, compare

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, eq=False)
class Step:
    """Two functions of the same inputs by name, and what to differentiate by; nothing: outputs alone."""

    name: str
    first: Callable[..., torch.Tensor]
    second: Callable[..., torch.Tensor]
    inputs: Mapping[str, Any]
    parameters: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class ComparedStep:
    """A step and what was found of it; predicted: the error of the first way, in u, by result and format."""

    step: Step
    comparison: Comparison
    predicted: Mapping[tuple[str, str], float]

    @property
    def rows(self) -> pd.DataFrame:
        """One row per parameter and format.

        depth: its place in the model; ratio: the larger of both errors over the predicted one.
        """
        table = self.comparison.table.copy()
        depths = {name: number for number, name in enumerate(self.step.parameters)}
        table.insert(0, "step", self.step.name)
        table["depth"] = [depths.get(name, len(depths)) for name in table["gradient"]]
        errors = table[["error_first", "error_second"]].astype(float).max(axis=1)
        keys = zip(table["gradient"], table["format"], strict=True)
        table["predicted"] = predicted = pd.Series([self.predicted[key] for key in keys])
        table["ratio"] = np.where(predicted > 0, errors / predicted.where(predicted > 0), np.nan)
        return table


def compared(step: Step, formats: Sequence[str], *, seed: int = 0) -> ComparedStep:
    """Compare both ways."""

    def at_once(**values: torch.Tensor) -> torch.Tensor:
        return step.first(**values)

    def the_other_way(**values: torch.Tensor) -> torch.Tensor:
        return step.second(**values)

    found = compare(
        at_once, the_other_way, step.inputs, step.parameters, formats=formats, seed=seed
    )
    predicted = {
        (name, format): each.normwise[0]
        for format in formats
        for name, each in predict(at_once, step.inputs, step.parameters, format=format).items()
    }
    return ComparedStep(step, found, predicted)
