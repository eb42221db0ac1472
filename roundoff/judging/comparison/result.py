"""What a comparison returns."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from roundoff.judging.comparison.measures import row
from roundoff.judging.comparison.pairs import Compared
from roundoff.judging.comparison.printed import text

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Comparison(Compared):
    """What `compare` found: print it, or take `table`, `verdict`, `reason` and `elsewhere`.

    elsewhere: by gradient, where two functions part that are the same here.
    """

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
        return text(self, self.table.to_dict("records"))
