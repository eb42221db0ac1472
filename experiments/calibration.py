"""Are predicted errors right?  Native errors beside them, in operations, layers and small models."""

from __future__ import annotations

if __name__ in ("__main__", "__mp_main__"):
    from roundoff.cli import guard

    guard()

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import zoo
from calibration_findings import calibration_report
from calibration_rows import Case, Found, calibrate
from layers import Layers, layers
from models import models
from tqdm import tqdm

from roundoff.cli import main
from roundoff.report.document import write_files
from roundoff.report.findings import Question

QUESTION = Question(
    title="Are predicted errors right?",
    text="How large are the errors of PyTorch's gradients beside those that ro.predict says rounding makes, "
    "how often would an honest gradient be flagged, and which faults are?",
)


@dataclass(frozen=True)
class Calibration:
    """Native errors against predicted ones, over functions, seeds, threads and layouts."""

    formats: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")
    """formats that torch runs the functions in"""
    seeds: int = 3
    """inputs of each operation and each model; layers of real size have one"""
    seed: int = 0
    """the base of all random numbers"""
    out: Path = Path("reports/calibration")
    """folder of the report"""
    quick: bool = False
    """a few small functions: for a first look, and for CI"""


def cases(config: Calibration) -> Iterator[Case]:
    """Operations, layers of real size (small ones if quick), models."""
    count = 1 if config.quick else config.seeds
    names = list(zoo.Z)[:: 12 if config.quick else 1]
    for seed in range(config.seed, config.seed + count):
        generator = np.random.default_rng(seed)
        for name in names:
            function, inputs = zoo.Z[name]
            yield Case(
                "operations", name, function, _moved(inputs, generator), None, zoo.loss, seed
            )
        for model in models(seed, quick=config.quick):
            yield Case(
                "models",
                model.name,
                model.function,
                model.inputs,
                model.parameters,
                model.loss,
                seed,
            )
    for layer in layers(Layers(seed=config.seed, quick=config.quick)):
        name = layer.name.split(",")[0]
        yield Case("layers", name, layer.function, layer.inputs, layer.wrt, squares, config.seed)


def squares(out: torch.Tensor) -> torch.Tensor:
    """A loss whose upstream gradients are of all sizes."""
    return (out * out).sum()


def _moved(
    inputs: dict[str, torch.Tensor], generator: np.random.Generator
) -> dict[str, torch.Tensor]:
    """The same inputs, other numbers: times 1 + 0.3 z, z normal."""
    found = {}
    for name, value in inputs.items():
        factors = torch.from_numpy(1 + 0.3 * generator.standard_normal(value.shape))
        found[name] = value * factors.to(value.dtype) if value.is_floating_point() else value
    return found


def run(config: Calibration) -> Path:
    """The comparisons and their report."""
    found = Found()
    for case in tqdm(list(cases(config)), desc="functions", disable=None):
        for format in config.formats:
            calibrate(found, case, format)
    return write_files(calibration_report(QUESTION, config, found), config.out)


if __name__ == "__main__":
    main(Calibration, run)
