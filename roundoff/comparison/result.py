"""What a comparison returns: pairs of gradients, each with a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from roundoff.bounds import Bound
from roundoff.comparison.elsewhere import Parting
from roundoff.comparison.measures import row
from roundoff.comparison.printed import text
from roundoff.errors import ArgumentError
from roundoff.evidence import Judged
from roundoff.formats import Format, as_format
from roundoff.power import Power
from roundoff.reference import GradientReference
from roundoff.verdict import Judgement, Verdict

if TYPE_CHECKING:
    import pandas as pd

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
class Comparison:
    """What `compare` found: print it, or take `table`, `verdict`, `reason` and `elsewhere`.

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

    def reason(self, gradient: str, format: Any) -> str:
        """Its reason in words."""
        return self[gradient, format].judgement.reason

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per gradient and format.

        Units: ulp_between of the format; scaled_between, bound_* in u S, S the sum of |terms| of the last
        step; error_first, error_second normwise relative, in u; ratio: the farther error over the
        closer, which is "neither" where three digits do not tell them apart, and "no question" where
        the errors are not against the same exact gradient.  Where one side's exact value is not known, that
        of the other side is the measure; elements without either (without_value: how many) are left out of
        errors and bounds.  not_finite_first, not_finite_second: how many elements are NaN or infinite; where
        an exact value is known, those are infinite errors.  elsewhere: where the two part that
        are the same here, in words.
        """
        import pandas as pd

        rows = [row(pair, self.names) for pair in self.pairs.values()]
        return pd.DataFrame(
            [{**each, "elsewhere": str(self.elsewhere.get(each["gradient"], ""))} for each in rows]
        )

    def __str__(self) -> str:
        return text(self)
