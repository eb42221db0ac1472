"""In which order do the real kernels add?  The trees of common operations on this machine."""

from __future__ import annotations

if __name__ in ("__main__", "__mp_main__"):
    from roundoff.cli import guard

    guard()

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from kernels_findings import kernels_report
from kernels_rows import Operation, kernels
from torch import Tensor

from roundoff.cli import main
from roundoff.errors import ArgumentError
from roundoff.report.document import write_files
from roundoff.report.findings import Question

QUESTION = Question(
    title="In which order do kernels add?",
    text="Sums, dot products and gradients of common layers, as PyTorch and NumPy compute them here: in "
    "which reduction tree, with which roundings, and does it depend on the format or the number of threads?",
)


@dataclass(frozen=True)
class Kernels:
    """The reduction trees of common operations, proven by replay."""

    formats: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")
    """formats that the kernels run in"""
    threads: tuple[int, ...] = (1, 2)
    """numbers of torch threads"""
    seed: int = 0
    """the base of all random numbers"""
    out: Path = Path("reports/kernels")
    """folder of the report"""
    quick: bool = False
    """float32 and bfloat16, one thread, and no long sums: for a first look, and for CI"""


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A fully connected layer."""
    return F.linear(x, weight, bias)


def conv1d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A convolution with kernel 1."""
    return F.conv1d(x, weight, bias)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 3 x 3 convolution with padding."""
    return F.conv2d(x, weight, bias, padding=1)


def numpy_dtype(format: str) -> object:
    """NumPy's dtype of a format's name; bfloat16 is none of its own."""
    if format == "bfloat16":
        raise TypeError("NumPy has no bfloat16")
    return np.dtype(format).type


def row_of_ones(v: Tensor) -> Tensor:
    """A matrix of ones times a vector."""
    return torch.ones(3, len(v), dtype=v.dtype) @ v


def tensors(seed: int, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    """Normal inputs by name."""
    generator = np.random.default_rng([seed, len(shapes)])
    return {k: torch.from_numpy(generator.standard_normal(s)) for k, s in shapes.items()}


def operations(config: Kernels) -> list[Operation]:
    """What is looked into."""
    of = Operation
    found = []
    for n in (20,) if config.quick else (20, 1000):
        found += [
            of(f"torch.sum of {n}", torch.sum, n),
            of(f"torch.mean of {n}", torch.mean, n),
            of(f"torch.dot of {n}", torch.dot, n),
            of(f"matrix times vector of {n}", row_of_ones, n),
            of(f"numpy.sum of {n}", np.sum, n, dtype=numpy_dtype),
            of(f"numpy.dot of {n}", np.dot, n, dtype=numpy_dtype),
        ]
    if not config.quick:
        found.append(of("torch.sum of 5000", torch.sum, 5000))
    layers = [
        ("linear", linear, tensors(config.seed, x=(24, 16), weight=(8, 16), bias=(8,))),
        ("conv1d", conv1d, tensors(config.seed, x=(4, 6, 20), weight=(8, 6, 1), bias=(8,))),
        ("conv2d", conv2d, tensors(config.seed, x=(2, 4, 7, 7), weight=(6, 4, 3, 3), bias=(6,))),
    ]
    for name, function, inputs in layers:
        for wrt in ("weight", "bias", "x"):
            found.append(of(f"{name}, gradient by {wrt}", function, 0, inputs, wrt))
    return found


def run(config: Kernels) -> Path:
    """The trees and their report."""
    if not config.threads:
        raise ArgumentError("threads is empty; give at least one number")
    formats = ("bfloat16", "float32") if config.quick else config.formats
    counts = config.threads[:1] if config.quick else config.threads
    found = kernels(operations(config), formats, counts, config.seed)
    return write_files(kernels_report(QUESTION, config, found), config.out)


if __name__ == "__main__":
    main(Kernels, run)
