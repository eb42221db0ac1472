"""Are the references of two sides equal, and what does equality at random points prove?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.ties import first_tie
from roundoff.gradients.inputs import round_inputs
from roundoff.gradients.reference import Reference
from roundoff.judging.comparison.points import VALUES, Points
from roundoff.judging.comparison.screening import NEAR
from roundoff.judging.evidence import proven_reference
from roundoff.judging.verdict import Judgement, Verdict, different, same_reference
from roundoff.numbers.formats import as_format
from roundoff.trace import Trace
from roundoff.words import counted

Array = npt.NDArray[np.float64]


class Agreement(IntEnum):
    """How far two functions agree at a point: in float64; by references, but for literals rounded to double,
    within radii, or exactly."""

    CLOSE = 0
    NEARLY = 1
    WITHIN = 2
    EXACT = 3


def agreement_of(first: Reference, second: Reference) -> Agreement:
    """The agreement of the gradients that agree least."""
    exact = first.exact and second.exact
    same = (same_reference(first[name], second[name], exact=exact).all() for name in first)
    if not all(same):
        return Agreement.NEARLY
    return Agreement.EXACT if exact else Agreement.WITHIN


def any_known(first: Reference, second: Reference) -> bool:
    """Whether both have a value at any element."""
    return any((first[name].known & second[name].known).any() for name in first)


def chance(points: int, degree: int | None, agreement: Agreement, kept: Sequence[str]) -> str:
    """What it means that references agree at random points.

    degree: of both, as polynomials in the numbers that were varied; kept: which were not, in words.
    """
    count = counted(points, "random point")
    if agreement == Agreement.CLOSE:
        return f"float64 values agree at {count}, to 2^{np.log2(NEAR):.0f} of the sums of |terms|"
    if agreement == Agreement.NEARLY:
        return f"the references agree at {count}, but for literals rounded to double"
    if degree is None or agreement == Agreement.WITHIN:
        return f"the references agree at {count}"
    at_most = (degree / VALUES) ** points
    told = f", as functions of all but {', '.join(kept)}, which stayed" if kept else ""
    return (
        f"the references agree at {count}: two different polynomials of degree {degree} do so "
        f"with probability at most {at_most:.1e} (Schwartz and Zippel, {VALUES} values of each number){told}"
    )


def apart(first: Reference, second: Reference, where: str) -> dict[str, Judgement]:
    """DIFFERENT, by name, for the gradients that are; where: for the reason."""
    found = {name: _different(name, first, second, where) for name in first}
    return {name: judgement for name, judgement in found.items() if judgement is not None}


def _different(name: str, first: Reference, second: Reference, where: str) -> Judgement | None:
    return different(
        first[name], second[name], exact=first.exact and second.exact,
        rigorous=first.rigorous and second.rigorous, where=where,
        what="output" if name == "output" else "gradient",
    )  # fmt: skip


def off_kinks(
    found: Mapping[str, Judgement], traces: Sequence[Trace], values: Mapping[str, Array],
    points: Points, format: Any,
) -> dict[str, Judgement]:  # fmt: skip
    """UNDECIDED in place of DIFFERENT where a tie decides, and the functions agree off it.

    traces: of both sides; values: their inputs.
    The tie may be there in float64, or in the format that the inputs are rounded to.
    """
    ties = [
        first_tie(trace, round_inputs(trace, values, as_format(target)))
        for target in ("float64", format)
        for trace in traces
    ]
    if not any(ties):
        return dict(found)
    moved = points.varied(zeros=False)
    first, second = (proven_reference(trace, moved, "float32") for trace in traces)
    beside = apart(first, second, "")
    tie = next(tie for tie in ties if tie)
    reason = Judgement(
        Verdict.UNDECIDED,
        f"the inputs lie on a kink ({tie}), where conventions differ: the exact values differ there "
        "and agree at a random point beside it; move the inputs",
    )
    return {name: each if name in beside else reason for name, each in found.items()}
