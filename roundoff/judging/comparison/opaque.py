"""Two sides of which neither can be traced: by a third that can, or by what they are alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from roundoff.judging.evidence import Judged
from roundoff.judging.verdict import SEVERITY, Judgement, Verdict, equal_bits, judge
from roundoff.numbers.accuracy import normwise
from roundoff.numbers.formats import Format

Array = npt.NDArray[np.float64]


def judge_by_third(first: Judged, second: Judged, third: Judged) -> Judgement:
    """The graver of the verdicts on each side beside the third; IDENTICAL if their bits are equal.

    The third has a trace; the first two have its reference and prediction.
    """
    if equal_bits(first.computed, second.computed).all() and first.computed.size:
        return Judgement(Verdict.IDENTICAL, "all bits are equal", "bits")
    found = [judge(side, third) for side in (first, second)]
    graver = max(found, key=lambda each: SEVERITY.index(each.verdict))
    if graver.verdict in (Verdict.IDENTICAL, Verdict.ROUNDOFF):
        how = " (predicted)" if graver.evidence == "predicted" else ""
        reason = f"both errors are what rounding does in {third.name}{how}"
        return Judgement(Verdict.ROUNDOFF, reason, graver.evidence)
    return graver


def judge_alone(one: Array, two: Array, names: tuple[str, str], format: Format) -> Judgement:
    """How far apart two results are, of which no exact value is known: IDENTICAL or UNDECIDED."""
    if one.shape != two.shape:
        return Judgement(
            Verdict.UNDECIDED,
            f"neither side can be traced, and their shapes are {one.shape} and {two.shape}",
        )
    equal = equal_bits(one, two)
    if equal.all() and one.size:
        return Judgement(Verdict.IDENTICAL, "all bits are equal", "bits")
    with np.errstate(all="ignore"):
        gap = np.where(equal, 0.0, np.abs(one - two))
    gap = np.where(np.isnan(gap), np.inf, gap)
    at = tuple(int(k) for k in np.unravel_index(int(np.argmax(gap)), gap.shape))
    apart = normwise(one, two, 0.0) / format.u
    return Judgement(
        Verdict.UNDECIDED,
        f"neither side can be traced; {int((~equal).sum())} of {equal.size} elements differ, by {apart:.3g} "
        f"u of {format} in the 2-norm; most at element {list(at)}: {names[0]} is {one[at]:.6g} and "
        f"{names[1]} {two[at]:.6g}; give like=, a function with a trace, to learn what rounding would do",
    )
