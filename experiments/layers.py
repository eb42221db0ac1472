"""Layers of real size: how large are their gradients' errors, and does splitting the batch change more?"""

from __future__ import annotations

if __name__ in ("__main__", "__mp_main__"):
    from roundoff.cli import guard

    guard()

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from layers_findings import layers_report
from layers_rows import Layer, measured
from torch import Tensor, nn

import roundoff as ro
from roundoff.cli import main
from roundoff.report.document import write_files
from roundoff.report.findings import Question

QUESTION = Question(
    title="Layers of real size",
    text="How far are the gradients of a convolution, a transformer layer and an LSTM from the exact ones in "
    "four formats, and is a batch at once the same as its two halves?",
)


@dataclass(frozen=True)
class Layers:
    """Errors of, and verdicts on, three layers of real size: the whole batch against its two halves."""

    formats: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")
    """formats that torch runs the layers in"""
    seed: int = 0
    """the base of all random numbers"""
    out: Path = Path("reports/layers")
    """folder of the report"""
    quick: bool = False
    """small layers: for a first look, and for CI"""


Function = Callable[..., Tensor]


def convolution(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """A 3 x 3 convolution of a residual network."""
    return F.conv2d(x, weight, bias, padding=1)


def of_module(module: Function, x: Tensor, **parameters: Tensor) -> Tensor:
    """The first output of a module whose batch comes first."""
    out: Any = module(**parameters, **{"src" if "norm1.weight" in parameters else "input": x})
    return out if isinstance(out, Tensor) else out[0]


def halves(function: Function, x: Tensor, **parameters: Tensor) -> Tensor:
    """The same, half of the batch at a time."""
    first, second = x.chunk(2)
    return torch.cat([function(x=first, **parameters), function(x=second, **parameters)])


def layers(config: Layers) -> Iterator[Layer]:
    """Name, function, inputs."""
    torch.manual_seed(config.seed)
    channels, size, batch = (8, 5, 2) if config.quick else (256, 14, 8)
    weight = torch.randn(channels, channels, 3, 3) / (3 * channels**0.5)
    yield Layer(
        f"convolution 3 x 3, {channels} to {channels}, {size} x {size}, batch {batch}",
        convolution,
        {"weight": weight, "bias": torch.randn(channels), "x": torch.randn(batch, channels, size, size)},
        ("weight", "bias"),
    )  # fmt: skip
    width, heads, length = (8, 2, 4) if config.quick else (512, 8, 128)
    module: nn.Module = nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, batch_first=True)
    function, parameters = ro.functional(module)
    yield Layer(
        f"transformer layer, d {width}, {heads} heads, sequence {length}, batch 2",
        partial(of_module, function),
        {**parameters, "x": torch.randn(2, length, width)},
        tuple(parameters),
    )
    width, length = (4, 3) if config.quick else (64, 16)
    function, parameters = ro.functional(nn.LSTM(width, width, batch_first=True))
    yield Layer(
        f"LSTM, {width} to {width}, sequence {length}, batch 4",
        partial(of_module, function),
        {**parameters, "x": torch.randn(4, length, width)},
        tuple(parameters),
    )


def run(config: Layers) -> Path:
    """The comparisons and their report."""
    found = [
        measured(each, partial(halves, each.function), config.formats, seed=config.seed)
        for each in layers(config)
    ]
    return write_files(layers_report(QUESTION, config, found), config.out)


if __name__ == "__main__":
    main(Layers, run)
