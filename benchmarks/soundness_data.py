"""What the soundness run draws and counts: data of many kinds, exact sums, and a table of ratios."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

import roundoff as ro
from roundoff.numbers.formats import FORMATS, Format
from roundoff.numbers.machines import two_sum

OWN = Format(
    "p8e10", 8, -9, 10
)  # a format of one's own: narrow range, underflow and overflow are near
ALL = (*FORMATS, OWN)
SAMPLE = 400  # ratios kept per batch, for medians


@dataclass
class Tally:
    """Cases, violations and ratios per bound."""

    rows: dict[tuple[str, str, str, str], list[Any]] = field(default_factory=dict)

    def add(self, part: str, bound: str, kind: str, name: str, ratio: Any, exceeded: int) -> None:
        """Record measured/bound of many elements; NaN where the bound does not apply or is zero."""
        row = self.rows.setdefault((part, kind, bound, name), [0, 0, 0.0, []])
        known = ratio[~np.isnan(ratio)]
        row[0] += ratio.size
        row[1] += exceeded
        if known.size:
            row[2] = max(row[2], float(known.max()))
            row[3].append(known[:: max(1, known.size // SAMPLE)].copy())

    def merge(self, other: Tally) -> None:
        for key, (count, exceeded, best, samples) in other.rows.items():
            row = self.rows.setdefault(key, [0, 0, 0.0, []])
            row[0] += count
            row[1] += exceeded
            row[2] = max(row[2], best)
            row[3] += samples

    def frame(self) -> pd.DataFrame:
        """A row per part, bound and format; p_value: of no more failures than stated, by a binomial test."""
        rows = []
        for (part, kind, bound, name), (count, exceeded, best, samples) in self.rows.items():
            middle = float(np.median(np.concatenate(samples))) if samples else float("nan")
            p_value = float("nan")
            if kind == "probabilistic":
                rate = float(part.removeprefix("failure "))
                p_value = stats.binomtest(exceeded, count, rate, alternative="greater").pvalue
            rows.append((part, kind, bound, name, count, exceeded, middle, best, p_value))
        names = [
            "part",
            "kind",
            "bound",
            "format",
            "cases",
            "violations",
            "median",
            "best",
            "p_value",
        ]
        return pd.DataFrame(rows, columns=names)


def draw(kind: str, n: int, count: int, target: Format, rng: np.random.Generator) -> np.ndarray:
    """(count, n) numbers of the format."""
    x = rng.standard_normal((count, n))
    top, bottom = np.log2(target.max), np.log2(target.smallest_subnormal)
    if kind == "uniform":
        x = rng.random((count, n))
    elif kind == "spread":  # exponents over most of the range
        x = np.sign(x) * 2.0 ** rng.uniform(bottom, max(bottom + 1, top - np.log2(n) - 2), x.shape)
    elif kind == "subnormal":
        x = x * target.smallest_normal / 4
    elif kind == "cancelling":
        half = n // 2
        x[:, half : 2 * half] = -x[:, :half]
        x = x + 2.0 ** -(target.precision // 2) * rng.standard_normal(x.shape) * (
            rng.random(x.shape) < 0.2
        )
    elif kind == "zeros":
        x = x * (rng.random(x.shape) < 0.4)
    elif kind == "steps":  # 1 and many halves of a spacing: every addition is a tie or near one
        x = np.where(rng.random(x.shape) < 0.9, target.u, 1.0) * (
            1 + rng.integers(0, 3, x.shape) * 2 * target.u
        )
        x[:, 0] = 2.0 ** rng.integers(0, 3, count)
    elif kind == "signs":  # one magnitude, both signs
        x = np.sign(x) * (1 + target.u * 2)
    elif kind == "two scales":  # few large terms, and many that their sum swallows
        large = rng.random(x.shape) < 0.08
        x = np.where(large, rng.uniform(0.8, 1.2, x.shape), rng.uniform(0.006, 0.012, x.shape))
    elif kind == "log-uniform":
        x = 2.0 ** rng.uniform(-10, 0, x.shape)
    elif kind == "heavy-tailed":
        x = rng.standard_t(1.5, x.shape)
    elif kind == "zeros and ones":
        x = (rng.random(x.shape) < 0.5).astype(np.float64)
    elif kind == "large":
        x = x * target.max / (2 * n)
    return ro.round_to(np.clip(x, -target.max, target.max), target)


KINDS = (
    "normal",
    "uniform",
    "spread",
    "subnormal",
    "cancelling",
    "zeros",
    "steps",
    "signs",
    "large",
    "two scales",
    "log-uniform",
    "heavy-tailed",
    "zeros and ones",
)


def exact_sums(terms: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """hi + lo of sums over the last axis and a bound on what is missing: the errors of TwoSum, added up."""
    hi, lo, lost = np.zeros(terms.shape[0]), np.zeros(terms.shape[0]), np.zeros(terms.shape[0])
    for column in terms.T:
        hi, error = two_sum(hi, column)
        lo = lo + error
        lost = lost + np.abs(error)
    return hi, lo, lost * terms.shape[1] * 2.0**-52
