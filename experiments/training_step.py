"""A training step of whole models: whose gradients err most, and is accumulation the same step?"""

from __future__ import annotations

if __name__ in ("__main__", "__mp_main__"):
    from roundoff.cli import guard

    guard()

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from models import Model, models
from torch import Tensor
from training_step_findings import training_step_report
from training_step_rows import Step, compared

from roundoff.cli import main
from roundoff.report.document import write_files
from roundoff.report.findings import Question

QUESTION = Question(
    title="A training step",
    text="In whole models with their losses: is a batch at once the same step as its halves accumulated, how "
    "far is each parameter's gradient from the exact one and from what rounding is predicted to make, and "
    "are two ways to write Adam's update the same?",
)


@dataclass(frozen=True)
class TrainingStep:
    """Gradients of small models, the batch at once against two halves; optimisers written in two ways."""

    formats: tuple[str, ...] = ("bfloat16", "float32")
    """formats that torch runs the models in"""
    seed: int = 0
    """the base of all random numbers"""
    out: Path = Path("reports/training_step")
    """folder of the report"""
    quick: bool = False
    """tiny models: for a first look, and for CI"""


def accumulated(model: Model, given: str, targets: Tensor, **values: Tensor) -> Tensor:
    """The mean of the losses of both halves of the batch."""
    size = len(values[given]) // 2
    rows = len(targets) // 2
    losses = [
        model.loss.func(  # type: ignore[attr-defined]
            targets[k * rows : (k + 1) * rows],
            model.function(**{**values, given: values[given][k * size : (k + 1) * size]}),
        )
        for k in range(2)
    ]
    mean: Tensor = (losses[0] + losses[1]) / 2
    return mean


def at_once(model: Model, **values: Tensor) -> Tensor:
    """The loss of the whole batch."""
    return model.loss(model.function(**values))


def steps(config: TrainingStep) -> Iterator[Step]:
    """Models whose loss is a mean over the batch; batch norm is not, so the residual network is left out."""
    for model in models(config.seed, quick=config.quick):
        if model.name == "residual network":
            continue
        given = next(name for name in model.inputs if name not in model.parameters)
        targets = model.loss.args[0]  # type: ignore[attr-defined]
        yield Step(
            model.name, partial(at_once, model), partial(accumulated, model, given, targets),
            model.inputs, model.parameters,
        )  # fmt: skip
    torch.manual_seed(config.seed)
    shape = (8, 8) if config.quick else (256, 256)
    names = ("weight", "gradient", "first", "second")
    numbers = {name: torch.randn(shape) for name in names}
    numbers["second"] = 1e-2 * numbers["second"] ** 2
    yield Step("Adam, two ways", adam_in_the_paper, adam_folded, numbers, ())
    yield Step(
        "SGD, two ways", sgd, sgd_in_one_product,
        {name: numbers[name] for name in ("weight", "gradient", "first")}, (),
    )  # fmt: skip


RATE, BETA1, BETA2, EPSILON, NUMBER = 2.0**-10, 0.875, 0.9990234375, 2.0**-20, 10


def adam_in_the_paper(weight: Tensor, gradient: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Kingma and Ba 2015, algorithm 1: moments corrected for their bias."""
    first = BETA1 * first + (1 - BETA1) * gradient
    second = BETA2 * second + (1 - BETA2) * gradient**2
    mean, square = first / (1 - BETA1**NUMBER), second / (1 - BETA2**NUMBER)
    return weight - RATE * mean / (square.sqrt() + EPSILON)


def adam_folded(weight: Tensor, gradient: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """The corrections folded into the rate and the root, as optimisers compute it."""
    first = first + (gradient - first) * (1 - BETA1)
    second = second * BETA2 + gradient * gradient * (1 - BETA2)
    root = second.sqrt() / (torch.full((), 1 - BETA2**NUMBER, dtype=weight.dtype).sqrt()) + EPSILON
    return weight - (first / root) * RATE / (1 - BETA1**NUMBER)


def sgd(weight: Tensor, gradient: Tensor, first: Tensor) -> Tensor:
    """Momentum and weight decay."""
    velocity = BETA1 * first + (gradient + 2.0**-7 * weight)
    return weight - RATE * velocity


def sgd_in_one_product(weight: Tensor, gradient: Tensor, first: Tensor) -> Tensor:
    """The decay taken out of the sum."""
    return weight * (1 - RATE * 2.0**-7) - RATE * (BETA1 * first + gradient)


def run(config: TrainingStep) -> Path:
    """The comparisons and their report."""
    found = [compared(step, config.formats, seed=config.seed) for step in steps(config)]
    return write_files(training_step_report(QUESTION, config, found), config.out)


if __name__ == "__main__":
    main(TrainingStep, run)
