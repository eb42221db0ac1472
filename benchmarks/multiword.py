"""Certified references against float64 gradients, balls and mpmath, at a residual network's convolution.

256 to 256 channels, 3 x 3, 14 x 14, batch 8: weight and bias gradients of the sum of squares.  Balls and
mpmath are timed on a part of it, PART, and extrapolated by the number of multiply-adds.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
import torch
import torch.nn.functional as F
import tyro
from timing import seconds

import roundoff as ro
from roundoff.arithmetic import walk
from roundoff.arithmetic.multiword import Multiword
from roundoff.gradients.inputs import round_inputs
from roundoff.gradients.reference import reference_of_trace, work
from roundoff.gradients.reference.engines import MOST_BITS
from roundoff.trace import prune, trace_gradients

ROUNDS = 5
FULL, PART = (8, 256, 14), (1, 16, 8)


def conv(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(x, weight, bias, padding=1)


def padded(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return F.conv2d(F.pad(x, (1, 1, 1, 1)), weight, bias)


def halves(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([conv(weight, bias, part) for part in x.chunk(2)])


def squares(out: torch.Tensor) -> torch.Tensor:
    return (out**2).sum()


def drawn(batch: int, channels: int, size: int) -> dict[str, np.ndarray]:
    """Normal float64 numbers."""
    rng = np.random.default_rng(0)
    return {
        "weight": rng.standard_normal((channels, channels, 3, 3)) / (3 * channels**0.5),
        "bias": rng.standard_normal(channels),
        "x": rng.standard_normal((batch, channels, size, size)),
    }


def plain(inputs: dict[str, np.ndarray]) -> Any:
    """torch's own float64 gradients."""
    given = {n: torch.from_numpy(v).requires_grad_(n != "x") for n, v in inputs.items()}
    return torch.autograd.grad(squares(conv(**given)), (given["weight"], given["bias"]))


def reference(inputs: dict[str, np.ndarray], format: str) -> Any:
    """All of it, tracing included."""
    return ro.reference_gradients(
        conv, inputs, ("weight", "bias"), squares, format=format, engine="multiword"
    )


def ratio(ours: Callable[[], Any], baseline: Callable[[], Any]) -> tuple[float, float, float]:
    """Medians in seconds, and of the ratios of neighbouring runs."""
    ours(), baseline()
    pairs = [(seconds(ours), min(seconds(baseline) for _ in range(3))) for _ in range(ROUNDS)]
    return (
        *map(statistics.median, zip(*pairs, strict=True)),
        statistics.median(a / b for a, b in pairs),
    )


def where_time_goes(inputs: dict[str, np.ndarray], format: str) -> str:
    """One reference, part by part."""
    started = time.perf_counter()
    whole = trace_gradients(conv, inputs, ("weight", "bias"), squares)
    traced = time.perf_counter()
    trace = prune(whole)
    pruned = time.perf_counter()
    given = round_inputs(trace, inputs, ro.as_format(format))
    rounded = time.perf_counter()
    spent, count = 0.0, 0

    def product(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        nonlocal spent, count
        began = time.perf_counter()
        found = np.matmul(first, second)
        spent, count = spent + time.perf_counter() - began, count + 1
        return found

    arithmetic = Multiword.of_bits(MOST_BITS, product)
    walk(trace, arithmetic, given)
    ended = time.perf_counter()
    return (
        f"tracing {traced - started:.2f} s, pruning {pruned - traced:.2f} s, {count} exact products of "
        f"arrays {spent:.2f} s; slicing, sparse products, adding, moving and checking "
        f"{ended - rounded - spent:.2f} s"
    )


def beside(
    base: Callable[[], Any], scale: float, inputs: dict[str, np.ndarray]
) -> tuple[float, float]:
    """Seconds of a part, times `scale`, and how many times a reference in float32 run right after it."""
    base()
    pairs = [
        (scale * seconds(base), seconds(lambda: reference(inputs, "float32")))
        for _ in range(ROUNDS)
    ]
    return statistics.median(a for a, _ in pairs), statistics.median(a / b for a, b in pairs)


def by_engine(engine: str) -> tuple[Callable[[], Any], float]:
    """A part of the problem by another engine, and how many times its work the full problem has."""
    trace, full = (
        prune(trace_gradients(conv, drawn(*shape), ("weight", "bias"), squares))
        for shape in (PART, FULL)
    )
    inputs = drawn(*PART)
    run = lambda: reference_of_trace(trace, inputs, format="float32", engine=engine)
    return run, work(full) / work(trace)


def plain_mpmath() -> tuple[Callable[[], Any], float]:
    """Some of as many products by `mpmath.fdot`, at the bits that mpmath's references start from."""
    rng = np.random.default_rng(0)
    terms, rows = 1568, 20
    pairs = [[mpmath.mpf(float(v)) for v in rng.standard_normal(terms)] for _ in range(2 * rows)]

    def run() -> None:
        with mpmath.workprec(2 * 24 + 64):
            for k in range(rows):
                mpmath.fdot(pairs[k], pairs[k + rows])

    full = prune(trace_gradients(conv, drawn(*FULL), ("weight", "bias"), squares))
    return run, work(full) / (terms * rows)


def peak(which: str, pipe: Any) -> None:
    """How much the resident memory grows, in MiB, in a process of its own."""
    inputs = drawn(*FULL)
    small = drawn(*PART)
    run = plain if which == "plain" else lambda given: reference(given, which)
    run(small)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the peak so far
    before = _status("VmRSS")
    run(inputs)
    pipe.send((_status("VmHWM") - before) / 1024)


def _status(field: str) -> int:
    """KiB, as Linux counts them."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def memory(which: str) -> float:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=peak, args=(which, theirs))
    process.start()
    found: float = ours.recv()
    process.join()
    return found


def told(met: bool, asked: str) -> str:
    return f"(asked: {asked}{'' if met else '; MISSED'})"


def main() -> None:
    """Certified references against float64 gradients, balls and mpmath; a few minutes."""
    print("\nconvolution, 256 to 256, 3 x 3, 14 x 14, batch 8; baseline: torch's float64 gradients")
    inputs = drawn(*FULL)
    both = ("float32", "float64")
    for format, most, asked in (
        ("float32", 25, "at most 25"),
        ("float64", 60, "stated, aim at 60"),
    ):
        found = reference(inputs, format)
        ours, baseline, times = ratio(lambda f=format: reference(inputs, f), lambda: plain(inputs))
        kind = "exact" if found.exact else "rigorous"
        print(
            f"multiword, {format} ({kind}): {ours:.2f} s, {times:.1f} times {baseline:.3f} s "
            f"{told(times <= most, asked)}"
        )
        print(f"  {where_time_goes(inputs, format)}")
    others = (
        ("the engine ball", by_engine("ball"), 5),
        ("mpmath.fdot over as many products", plain_mpmath(), 2000),
        ("the engine mpmath, which adds whole numbers", by_engine("mpmath"), None),
    )
    for what, (run, scale), least in others:
        full, times = beside(run, scale, inputs)
        asked = f" {told(times >= least, f'at least {least}')}" if least else ""
        print(
            f"{what}, float32, extrapolated {scale:.0f} times: {full:.0f} s, {times:.0f} times "
            f"multiword{asked}"
        )
    base = memory("plain")
    for format in both:
        own = memory(format)
        asked = told(own <= 20 * base, "at most 20")
        print(f"memory, {format}: {own:.0f} MiB, {own / base:.1f} times {base:.0f} MiB {asked}")
    for name, other in (("padded by hand", padded), ("half the batch at a time", halves)):
        for formats in (("float32", "bfloat16"), ("float32", "float64")):
            ours, _, times = ratio(
                lambda other=other, formats=formats: ro.compare(
                    conv, other, inputs, ("weight", "bias"), squares, formats=formats
                ),
                lambda: plain(inputs),
            )
            print(
                f"compare with {name}, {' and '.join(formats)}: {ours:.1f} s, {times:.0f} times "
                f"{told(times <= 60, 'under 60')}"
            )


if __name__ == "__main__":
    tyro.cli(main)
