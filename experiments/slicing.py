"""Slice before the convolution, or after it?  The same gradients, not the same bits."""

from __future__ import annotations

if __name__ in ("__main__", "__mp_main__"):
    from roundoff.cli import guard

    guard()

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from slicing_findings import slicing_report

from roundoff import study
from roundoff.cli import main
from roundoff.errors import ArgumentError
from roundoff.gradients import native
from roundoff.judging.explanation import Explanation, explain
from roundoff.orders import names
from roundoff.report.document import write_files
from roundoff.report.findings import Question
from roundoff.study import series
from roundoff.trace import UPSTREAM

FORMATS = ("float16", "bfloat16", "float32", "float64")
QUESTION = Question(
    title="Slicing before or after a convolution",
    text="Are the gradients of conv(x[:, :, -keep:]) and of conv(x)[:, :, -keep:] the same, and which of "
    "the two is closer to the exact gradient?",
)
SOURCES = {
    "uniform": "The series x is uniform in [0, 1), as from torch.rand",
    "ecg": "The series x is cut at random places out of a real electrocardiogram (1024 samples, as "
    "PyWavelets ships it, scaled to a largest magnitude of 1)",
}


@dataclass(frozen=True)
class Slicing:
    """Compare the gradients of slicing a tensor before and after a convolution.

    Without a shape: the thread's (N 1, CI 3, CO 3, T 10, keep 5) over 1000 seeds, a larger one
    (8, 64, 64, 1000, 5) over 16, one of real size (8, 256, 256, 512, 64) over 4 without simulated orders, a
    larger kernel with its halo kept and cut, and a sweep over the length.
    """

    N: int | None = None
    """batch size"""
    CI: int | None = None
    """input channels"""
    CO: int | None = None
    """output channels"""
    T: int | None = None
    """time points"""
    keep: int | None = None
    """output positions that are kept, the last ones"""
    kernel_size: int = 3
    """taps of the larger kernel, which is cut with and without its halo; 1 leaves these cases out"""
    dilation: int = 1
    """distance of the taps of the larger kernel"""
    stride: int = 1
    """stride of every convolution"""
    formats: tuple[str, ...] = FORMATS
    """formats that torch runs both functions in"""
    orders: tuple[str, ...] = names()
    """reduction orders to simulate: families with a whole number in brackets, kahan, neumaier, sum2, fma"""
    seeds: int | None = None
    """seeds of every shape"""
    seed: int = 0
    """the base of all random numbers"""
    threads: int = 1
    """torch threads of each worker"""
    upstream: Literal["squares", "random"] = "squares"
    """the loss: sum of squares of the output, or its product with a random upstream gradient"""
    data: str = "uniform"
    """the series: uniform (as torch.rand), ecg, or a .npy file with time last"""
    out: Path | None = None
    """folder of the report (default: reports/slicing, reports/slicing_ecg for ecg, else build/slicing)"""
    quick: bool = False
    """fewer seeds and no larger shape: for a first look, and for CI"""

    @property
    def folder(self) -> Path:
        """Where the report goes; the committed ones are those of the default study alone."""
        committed = {"uniform": "reports/slicing", "ecg": "reports/slicing_ecg"}
        default = replace(self, out=None) == Slicing(data=self.data)
        return self.out or Path(
            committed.get(self.data, "build/slicing") if default else "build/slicing"
        )


@dataclass(frozen=True)
class Shape:
    """One convolution: x is (N, CI, T), weight (CO, CI, taps); the last `keep` outputs are kept."""

    N: int = 1
    CI: int = 3
    CO: int = 3
    T: int = 10
    keep: int = 5
    taps: int = 1
    dilation: int = 1
    stride: int = 1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise ArgumentError(f"{name} is {value}; give at least 1")
        if self.keep > self.outputs:
            raise ArgumentError(
                f"keep is {self.keep}, but {self.T} time points at stride {self.stride} give "
                f"{self.outputs} outputs; keep at most {self.outputs}"
            )

    @classmethod
    def of(cls, problem: study.TwoMethods) -> Shape:
        """The shape that a problem was made of."""
        return cls(**{name: problem.parameters[name] for name in cls.__dataclass_fields__})

    @property
    def halo(self) -> int:
        """How far an output looks back."""
        return (self.taps - 1) * self.dilation

    @property
    def outputs(self) -> int:
        """Output positions of the whole series, with `halo` zeros before it."""
        return (self.T - 1) // self.stride + 1

    @property
    def start(self) -> int:
        """The time point at which the first kept output ends."""
        return (self.outputs - self.keep) * self.stride

    def __str__(self) -> str:
        kernel = f", kernel {self.taps}" if self.taps > 1 else ""
        return f"N {self.N}, CI {self.CI}, CO {self.CO}, T {self.T}, keep {self.keep}{kernel}"


def _convolve(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, s: Shape) -> torch.Tensor:
    return F.conv1d(x, weight, bias, stride=s.stride, dilation=s.dilation)


def conv_then_slice(
    s: Shape, weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """Method 2 of the thread: convolve everything, keep the last outputs."""
    return _convolve(F.pad(x, (s.halo, 0)) if s.halo else x, weight, bias, s)[:, :, -s.keep :]


def slice_then_conv(
    s: Shape, weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor
) -> torch.Tensor:
    """Method 1: cut first, with the halo that the first kept output looks back to."""
    before = max(0, s.halo - s.start)  # outputs that reach before the series see zeros
    cut = x[:, :, max(0, s.start - s.halo) :]
    return _convolve(F.pad(cut, (before, 0)) if before else cut, weight, bias, s)


def cut_halo(s: Shape, weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Method 1 as one writes it for kernel size 1: the first outputs lose their left neighbours."""
    return _convolve(F.pad(x[:, :, s.start :], (s.halo, 0)), weight, bias, s)


def squares(out: torch.Tensor) -> torch.Tensor:
    """The thread's loss."""
    return (out**2).sum()


def draw(s: Shape, source: str, upstream: str, generator: np.random.Generator) -> study.Inputs:
    """Weights as torch initialises them, x from the series; no other input depends on T."""
    reach = 1.0 / np.sqrt(s.CI * s.taps)
    inputs = {
        "weight": generator.uniform(-reach, reach, (s.CO, s.CI, s.taps)),
        "bias": generator.uniform(-reach, reach, s.CO),
    }
    shape = (s.N, s.CI, s.T)
    uniform = source == "uniform"
    inputs["x"] = (
        generator.random(shape)
        if uniform
        else series.windows(series.series(source), shape, generator)
    )
    if upstream == "random":
        inputs[UPSTREAM] = generator.standard_normal((s.N, s.CO, s.keep))
    return inputs


def permute(
    s: Shape, axis: int, inputs: study.Inputs, generator: np.random.Generator
) -> study.Inputs:
    """The samples of the batch (axis 0) or the kept time points (axis 2) in another order."""
    count = s.N if axis == 0 else s.keep
    order = generator.permutation(count)
    moved = dict(inputs)
    for name in {"x", UPSTREAM} & set(inputs):
        size = inputs[name].shape[axis]
        whole = np.concatenate([np.arange(size - count), size - count + order])
        moved[name] = np.take(inputs[name], whole, axis=axis)
    return moved


def problem(config: Slicing, s: Shape, case: str, seeds: int) -> study.TwoMethods:
    """One case of one shape."""
    permutations = {"batch permuted": partial(permute, s, 0)} if s.N > 1 else {}
    if s.taps == 1 and s.stride == 1 and s.keep > 1:
        permutations["time permuted"] = partial(permute, s, 2)
    return study.TwoMethods(
        case=case,
        shape=str(s),
        n=s.N * s.keep,
        methods={
            "slice_then_conv": partial(cut_halo if case == "halo cut" else slice_then_conv, s),
            "conv_then_slice": partial(conv_then_slice, s),
        },
        draw=partial(draw, s, config.data, config.upstream),
        wrt=("weight", "bias"),
        loss=squares if config.upstream == "squares" else None,
        seeds=config.seeds or seeds,
        parameters=vars(s) | {"upstream": config.upstream, "data": source_digest(config.data)},
        permutations=permutations,
    )


def source_digest(source: str) -> str:
    """What the series is: its name where it is drawn, else a hash of its values."""
    return source if source == "uniform" else series.digest(series.series(source))


def problems(config: Slicing) -> Iterator[study.TwoMethods]:
    """All cases of the study."""
    for name, least in (
        ("kernel_size", 1),
        ("dilation", 1),
        ("stride", 1),
        ("seeds", 1),
        ("seed", 0),
    ):
        if (value := getattr(config, name)) is not None and value < least:
            raise ArgumentError(f"{name} is {value}; give at least {least}")
    given = {
        k: getattr(config, k)
        for k in ("N", "CI", "CO", "T", "keep")
        if getattr(config, k) is not None
    }
    shape = replace(Shape(stride=config.stride), **given)
    yield problem(config, shape, "kernel 1", 40 if config.quick else 1000)
    if not given and not config.quick:
        large = Shape(8, 64, 64, 1000, 5, stride=config.stride)
        yield problem(config, large, "kernel 1", 16)
    if config.kernel_size != 1 and shape.start > 0:  # there is something to cut
        wide = replace(shape, taps=config.kernel_size, dilation=config.dilation)
        for case in ("halo kept", "halo cut"):
            yield problem(config, wide, case, 5 if config.quick else 100)
    if not given:
        for keep in (5, 20, 80) if config.quick else (5, 16, 64, 256, 1000):
            long = replace(shape, T=keep * config.stride + 5, keep=keep)
            yield problem(config, long, "length sweep", 5 if config.quick else 30)


def real_size(config: Slicing) -> Iterator[study.TwoMethods]:
    """A layer as in practice: too many sums to simulate their orders, too long to draw their trees."""
    if config == replace(Slicing(), data=config.data, out=config.out):
        yield problem(config, Shape(8, 256, 256, 512, 64), "real size", 4)


def explanations(
    config: Slicing, found: Sequence[study.TwoMethods]
) -> dict[tuple[str, str], Explanation]:
    """Why the bits of seed 0 differ: the real kernels' trees, for the problems with kernel 1."""
    reasons = {}
    for problem in found:
        if problem.case == "kernel 1":
            inputs = problem.inputs(config.seed, 0)
            upstream = inputs.pop(UPSTREAM, None)
            for name in config.formats:
                with native.threads(config.threads):
                    reasons[problem.shape, name] = explain(
                        *problem.methods.values(), inputs=inputs, wrt=problem.wrt, loss=problem.loss,
                        upstream=upstream, format=name, names=problem.names,
                    )  # fmt: skip
    return reasons


def run(config: Slicing) -> Path:
    """The study and its report."""
    found = list(problems(config))
    given = {"seed": config.seed, "threads": config.threads}
    grid = study.cells(found, config.formats, config.orders, **given)
    if real := list(real_size(config)):
        grid += study.cells(real, config.formats, (), **given)
        found += real
    tables = study.run(grid, config.folder)
    source = SOURCES.get(
        config.data, "The series x is cut at random places out of the given one, scaled to 1"
    )
    text = f"{source}; weight and bias are drawn as torch initialises them."
    if Shape.of(found[0]).start == 0:
        text += (
            " Keep is the number of outputs: nothing is cut, both methods convolve the same series."
        )
    question = replace(QUESTION, data=text)
    why = explanations(config, found)
    return write_files(slicing_report(question, config, found, tables, why), config.folder)


if __name__ == "__main__":
    main(Slicing, run)
