"""Ratios of two computations, measured in one process, interleaved: absolute times mean little."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any


def seconds(work: Callable[[], Any]) -> float:
    """One run."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(
    ours: Callable[[], Any], baseline: Callable[[], Any], rounds: int = 15
) -> tuple[float, float, float]:
    """Medians of both, in seconds, and the median of the ratios of neighbouring runs."""
    ours(), baseline()
    pairs = [(seconds(ours), seconds(baseline)) for _ in range(rounds)]
    ratio = statistics.median(a / b for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio


def show(name: str, limit: str, found: tuple[float, float, float]) -> None:
    """A line of the table."""
    ours, baseline, ratio = found
    print(f"{name:<58} {ours * 1e3:10.3f} ms {baseline * 1e3:10.3f} ms {ratio:8.2f}   {limit}")


def head(title: str) -> None:
    """The head of a table."""
    print(f"\n{title}\n{'':<58} {'ours':>13} {'baseline':>13} {'ratio':>8}   asked")
