"""Which roundings set two results apart, where no proven trees tell: by the model of errors, per side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.errors import RoundoffError
from roundoff.gradients.attribution import Attribution, Site, attribute
from roundoff.judging.ordinary import TIMES
from roundoff.numbers.formats import Format

Array = npt.NDArray[np.float64]

#: So many sources are named, of at least that share.
_MOST, _LEAST = 3, 0.05


@dataclass(frozen=True)
class Sources:
    """How far apart two results are, and what rounding makes in each.

    apart: the 2-norm of their difference, over u times that of the first; errors: the same of the predicted
    error of each; mostly: the largest sources of each, as (share, words).
    """

    apart: float
    errors: tuple[float, float]
    mostly: tuple[tuple[tuple[float, str], ...], tuple[tuple[float, str], ...]]

    @property
    def ordinary(self) -> bool:
        """Whether the two are no further apart than the two errors, with the allowance of verdicts."""
        return self.apart <= TIMES * float(np.hypot(*self.errors))

    def words(self, names: tuple[str, str]) -> str:
        """In a sentence without its end."""
        told = [", ".join(f"{share:.0%} {text}" for share, text in side) for side in self.mostly]
        where = (
            f"both mostly from {told[0]}"
            if told[0] == told[1]
            else f"{names[0]}'s mostly from {told[0]}; {names[1]}'s mostly from {told[1]}"
        )
        one, two = self.errors
        return (
            f"they are {self.apart:.2g} u apart in the 2-norm, where errors of {one:.2g} and {two:.2g} u are "
            f"predicted, {where}"
        )


def sources_of(
    functions: Sequence[Callable[..., Any]],
    results: Mapping[str, tuple[Array, Array]],
    inputs: Mapping[str, Any],
    wrt: Sequence[str],
    upstream: Array,
    format: Format,
    output: Any,
) -> dict[str, Sources]:
    """Of the results by name ("output" among them), of both functions under one upstream gradient; nothing
    where one of them cannot be traced."""
    try:
        one, two = (
            attribute(f, inputs, wrt, None, upstream, format=format, output=output)
            for f in functions
        )
    except RoundoffError:
        return {}
    return {
        name: Sources(
            _apart(*pair, format),
            (_error(one, name), _error(two, name)),
            (_largest(one, name), _largest(two, name)),
        )
        for name, pair in results.items()
    }


def _apart(first: Array, second: Array, format: Format) -> float:
    with np.errstate(all="ignore"):
        size = format.u * np.linalg.norm(first)
        return float(np.linalg.norm(first - second) / size) if size else np.inf


def _error(of: Attribution, name: str) -> float:
    rows = of.table[of.table["gradient"] == name]
    return float(np.sqrt(np.square(rows["error"]).sum()))


def _largest(of: Attribution, name: str) -> tuple[tuple[float, str], ...]:
    rows = of.table[of.table["gradient"] == name].head(_MOST)
    large = rows[rows["share"] >= _LEAST].to_dict("records")
    return tuple((float(row["share"]), str(Site.of_row(row))) for row in large)
