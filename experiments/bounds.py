"""How large may a rounding error be?  Every bound on sums, beside the errors they are on."""

from __future__ import annotations

if __name__ in ("__main__", "__mp_main__"):
    from roundoff.cli import guard

    guard()

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from bounds_findings import bounds_report
from bounds_rows import attained, sweep

from roundoff.cli import main
from roundoff.errors import ArgumentError
from roundoff.report.document import write_files
from roundoff.report.findings import Question

QUESTION = Question(
    title="How large may a rounding error be?",
    text="A sum of n terms in a format and an order: how wrong is it, how wrong can it be, and how far apart "
    "are the two?",
)
#: Written by benchmarks/soundness.py.
SOUNDNESS = Path("reports/bounds/soundness.csv")


@dataclass(frozen=True)
class Bounds:
    """Sums of growing length in several formats and orders, and every bound on their errors."""

    formats: tuple[str, ...] = ("bfloat16", "float16", "float32", "float64")
    """formats that the sums are kept in"""
    orders: tuple[str, ...] = ("sequential", "pairwise", "kahan")
    """reduction orders"""
    longest: int = 4096
    """terms of the longest sums; shorter ones have a quarter, a sixteenth, ... of them"""
    seeds: int = 50
    """sums per length"""
    failure: float = 1e-3
    """failure probability of the probabilistic bounds, for one sum"""
    seed: int = 0
    """the base of all random numbers"""
    out: Path = Path("reports/bounds")
    """folder of the report"""
    quick: bool = False
    """five seeds and sums of at most 256 terms: for a first look, and for CI"""


def run(config: Bounds) -> Path:
    """The sweep and its report."""
    longest, seeds = (
        (min(256, config.longest), 5) if config.quick else (config.longest, config.seeds)
    )
    if longest < 1:
        raise ArgumentError(f"longest is {longest}; give at least 1")
    if not 0.0 < config.failure < 1.0:
        raise ArgumentError(f"failure is {config.failure}; it is a probability in (0, 1)")
    lengths = sorted({max(1, longest // 4**k) for k in range(10)} - {1} | {min(2, longest)})
    rows = sweep(
        config.formats,
        config.orders,
        lengths,
        seeds=seeds,
        failure=config.failure,
        seed=config.seed,
    )
    soundness = pd.read_csv(SOUNDNESS) if SOUNDNESS.exists() else None
    report = bounds_report(QUESTION, config, rows, attained(), soundness)
    return write_files(report, config.out)


if __name__ == "__main__":
    main(Bounds, run)
