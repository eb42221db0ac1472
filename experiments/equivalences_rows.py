"""Pairs of functions that ought to be the same, each with a twin that is not: verdicts over many seeds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tqdm import tqdm

from roundoff.judging.comparison import Comparison, Pair, compare
from roundoff.judging.evidence import FAILURE
from roundoff.judging.verdict import SEVERITY, Verdict

Array = npt.NDArray[np.float64]

#: Verdicts that flag a pair.
FLAGS = (Verdict.DIFFERENT, Verdict.SUSPICIOUS)


@dataclass(frozen=True, eq=False)
class Equivalence:
    """A function, the same in another form, and a twin with a bug; draw makes their inputs.

    bug: the twin's in words; draw_twin: other inputs for the twin, where it takes them to show the bug.
    """

    name: str
    first: Callable[..., Any]
    second: Callable[..., Any]
    twin: Callable[..., Any]
    bug: str
    draw: Callable[[np.random.Generator], Mapping[str, Any]]
    wrt: tuple[str, ...] | None = None
    draw_twin: Callable[[np.random.Generator], Mapping[str, Any]] | None = None


def equivalences(
    pairs: Sequence[Equivalence],
    formats: Sequence[str],
    seeds: int,
    seed: int = 0,
    executor: Executor | None = None,
) -> pd.DataFrame:
    """A row per pair, honest or twin, seed and format.

    verdict: the gravest of all gradients and the output; apart: the largest difference of the two sides,
    in u times the sum of |terms|; bound: the largest probabilistic bound in the same unit.
    """
    cells = [(pair, honest, k) for pair in pairs for honest in (True, False) for k in range(seeds)]
    work = partial(_rows, formats=tuple(formats), seed=seed)
    found = map(work, cells) if executor is None else executor.map(work, cells, chunksize=4)
    rows = [row for part in tqdm(found, total=len(cells), leave=False) for row in part]
    return pd.DataFrame(rows)


def _rows(
    cell: tuple[Equivalence, bool, int], *, formats: Sequence[str], seed: int
) -> list[dict[str, Any]]:
    pair, honest, number = cell
    generator = np.random.default_rng([seed, number, *pair.name.encode()])
    draw = pair.draw if honest or pair.draw_twin is None else pair.draw_twin
    inputs = draw(generator)
    found = compare(
        pair.first,
        pair.second if honest else pair.twin,
        inputs,
        pair.wrt,
        formats=formats,
        seed=number,
    )
    return [
        {
            "pair": pair.name,
            "honest": honest,
            "seed": number,
            "format": name,
            **_summary(found, name),
        }
        for name in formats
    ]


def _summary(found: Comparison, format: str) -> dict[str, Any]:
    chosen = [pair for (_, name), pair in found.pairs.items() if name == format]
    worst = max(chosen, key=lambda pair: SEVERITY.index(pair.judgement.verdict))
    sizes = [size for pair in chosen for size in _sizes(pair)]
    return {
        "verdict": str(worst.judgement.verdict),
        "gradient": worst.gradient,
        "reason": worst.judgement.reason,
        "apart": max((apart for apart, _ in sizes), default=float("nan")),
        "bound": max((bound for _, bound in sizes), default=float("nan")),
    }


def _sizes(pair: Pair) -> Iterator[tuple[float, float]]:
    if pair.computed is None or pair.references is None or pair.bounds is None:
        return
    terms = pair.references[0].terms
    with np.errstate(all="ignore"):
        unit = pair.format.u * np.where(terms > 0, terms, np.nan)
        apart = np.abs(pair.computed[0] - pair.computed[1]) / unit
        bound = np.maximum(*(b.likely(FAILURE) for b in pair.bounds)) / unit
    one, two = (np.isfinite(side) for side in pair.computed)
    apart = np.where(one != two, np.inf, apart)  # a side that is no number is as far as can be
    known = ~np.isnan(apart) & np.isfinite(bound)
    if known.any():
        yield float(apart[known].max()), float(bound[known].max())


__all__ = ["FLAGS", "Equivalence", "equivalences"]
