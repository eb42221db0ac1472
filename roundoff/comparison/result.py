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
from roundoff.evidence import FAILURE, Judged
from roundoff.formats import Format, as_format
from roundoff.reference import GradientReference
from roundoff.verdict import Judgement, Verdict

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]


#: The power of a bound that is zero: any factor is flagged.
ANY = 1000


@dataclass(frozen=True, eq=False)
class Power:
    """The smallest planted faults that a bound would have flagged in an opaque side.

    factor: 1 + 2^-k on all elements is flagged up to this k; term: a dropped term of this part of the
    sum of |terms|; swaps: of all swaps of neighbouring elements, the fraction that is flagged.
    A fault counts as flagged where it is twice the bound, so that no honest error hides it.
    """

    factor: int | None
    term: float
    swaps: float

    def __str__(self) -> str:
        factor = "no factor below 2"
        if self.factor is not None:
            factor = f"a factor 1 + 2^-{self.factor}" if self.factor < ANY else "any factor"
        term = (
            f"a dropped term of {self.term:.2g} of the sum of |terms|" if self.term else "any term"
        )
        return f"{factor}, {term}, {100 * self.swaps:.0f} % of swaps of neighbours"


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
        the errors are not against the same exact gradient.  Elements of which no exact value is known are
        left out of errors and bounds.  elsewhere: where the two part that are the same here, in words.
        """
        import pandas as pd

        rows = [row(pair, self.names) for pair in self.pairs.values()]
        return pd.DataFrame(
            [{**each, "elsewhere": str(self.elsewhere.get(each["gradient"], ""))} for each in rows]
        )

    def __str__(self) -> str:
        return text(self)


def power_of(reference: GradientReference, bound: Bound) -> Power:
    """Of a check of an opaque side, by the other side's reference and bound."""
    likely = 2.0 * bound.likely(FAILURE)
    with np.errstate(all="ignore"):
        relative = np.nanmin(
            np.where(reference.high != 0, likely / np.abs(reference.high), np.inf), initial=np.inf
        )
        term = np.nanmin(
            np.where(reference.terms > 0, likely / reference.terms, np.inf), initial=np.inf
        )
        factor = int(np.floor(-np.log2(max(relative, 2.0**-ANY)))) if relative < 1 else None
        flat, limit = reference.high.ravel(), likely.ravel()
        swaps = np.abs(np.diff(flat)) > np.maximum(limit[1:], limit[:-1])
    return Power(factor, float(term), float(swaps.mean()) if swaps.size else 0.0)
