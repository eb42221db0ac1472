"""The data of a comparison: pairs of gradients, each with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.bounds import Bound
from roundoff.errors import ArgumentError
from roundoff.gradients.reference import GradientReference
from roundoff.judging.comparison.elsewhere import Parting
from roundoff.judging.evidence import Judged
from roundoff.judging.power import Power
from roundoff.judging.verdict import Judgement, Verdict
from roundoff.numbers.formats import Format, as_format

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Pair:
    """One gradient in one format: what both sides returned, and what is known of it.

    sides: the first and the second, None where there is no reference; an opaque side has the other's
    reference and bound.  seeds: per seed, the normwise errors of both sides.
    """

    gradient: str
    format: Format
    judgement: Judgement
    sides: tuple[Judged, Judged] | None = None
    power: Power | None = None
    seeds: Sequence[tuple[float, float]] = ()
    engine: str = ""

    @property
    def computed(self) -> tuple[Array, Array] | None:
        """What both sides returned."""
        return None if self.sides is None else (self.sides[0].computed, self.sides[1].computed)

    @property
    def references(self) -> tuple[GradientReference, GradientReference] | None:
        """What each was measured against."""
        return None if self.sides is None else (self.sides[0].reference, self.sides[1].reference)

    @property
    def bounds(self) -> tuple[Bound, Bound] | None:
        """The bounds on the error of each."""
        return None if self.sides is None else (self.sides[0].bound, self.sides[1].bound)


@dataclass(frozen=True, eq=False)
class Compared:
    """What was found of two computations.

    elsewhere: by gradient, where two functions part that are the same here.
    """

    names: tuple[str, str]
    pairs: Mapping[tuple[str, str], Pair]
    notes: tuple[str, ...]
    elsewhere: Mapping[str, Parting] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __getitem__(self, key: tuple[str, Any]) -> Pair:
        gradient, format = key[0], str(as_format(key[1]))
        try:
            return self.pairs[gradient, format]
        except KeyError:
            gradients = dict.fromkeys(g for g, _ in self.pairs)
            formats = dict.fromkeys(f for _, f in self.pairs)
            raise ArgumentError(
                f"no comparison of {gradient!r} in {format}; there are {', '.join(gradients)} in "
                f"{', '.join(formats)}"
            ) from None

    def verdict(self, gradient: str, format: Any) -> Verdict:
        """The verdict on one gradient (or "output") in one format."""
        return self[gradient, format].judgement.verdict

    def evidence(self, gradient: str, format: Any) -> str:
        """What decides it, the strongest of `verdict.EVIDENCE` that does; "" where nothing does."""
        return self[gradient, format].judgement.evidence

    def reason(self, gradient: str, format: Any) -> str:
        """Its reason in words."""
        return self[gradient, format].judgement.reason
