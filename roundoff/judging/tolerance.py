"""How far a gradient may be from the exact one: tolerances per element, and as (rtol, atol)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import choice
from roundoff.bounds.theorems import check_failure
from roundoff.errors import ArgumentError
from roundoff.gradients.bounds import rounded_up, rtol_atol
from roundoff.gradients.native import native_gradients
from roundoff.gradients.problem import Problem
from roundoff.judging import ordinary
from roundoff.judging.power import LEAST, Power, factor_in_words, power_of
from roundoff.judging.reference_cache import Known, remembered
from roundoff.numbers.formats import Format, as_format, spacing

Array = npt.NDArray[np.float64]

#: An empirical tolerance is this many times the baseline's largest error, and at least this many ulp.
TIMES, FLOOR = 3.0, 4.0


KINDS = ("certified", "probabilistic", "predicted", "empirical")


@dataclass(frozen=True, eq=False, repr=False)
class Tolerance:
    """Tolerances on |computed - exact| of one gradient in one format.  Units: absolute, per element.

    certified: never exceeded by a kernel of the traced algorithm; probabilistic: exceeded with probability
    `failure` at most; predicted: several times what rounding usually makes (`judging.ordinary`); empirical:
    TIMES the error of PyTorch's own result relative to the sum of |terms|, and at least FLOOR ulp, so that
    it does not break where the baseline improves; infinite where PyTorch's own result is no number.  Print it
    for all four; its repr is one line.
    """

    name: str
    format: Format
    failure: float
    certified: Array
    probabilistic: Array
    predicted: Array
    empirical: Array
    exact: Array
    terms: Array

    @property
    def kind(self) -> str:
        """What to judge by: the probabilistic one, or the predicted one where that notices too little."""
        wide = self.power("probabilistic").factor > LEAST
        return "predicted" if wide and np.isfinite(self.predicted).all() else "probabilistic"

    def pair(self, kind: str | None = None) -> tuple[float, float]:
        """(rtol, atol) for `assert_close` between two results that both keep this tolerance; kind: by default
        `self.kind`.

        rtol |exact| + atol is at least twice the tolerance of every element that has an exact value, and its
        mean is the smallest of all such pairs: see `gradients.bounds.tolerance`.
        Raises: ArgumentError where the tolerance is not finite, and for an unknown kind.
        """
        kind = self.kind if kind is None else choice("kind", kind, KINDS)
        known = ~np.isnan(self.exact)
        return rtol_atol(getattr(self, kind)[known], self.exact[known])

    def power(self, kind: str | None = None) -> Power:
        """The faults that a check by this tolerance notices for sure; kind: by default `self.kind`."""
        kind = self.kind if kind is None else choice("kind", kind, KINDS)
        return power_of(self.exact, self.terms, getattr(self, kind))

    @property
    def rtol(self) -> float:
        """Of the pair of `self.kind`."""
        return self.pair()[0]

    @property
    def atol(self) -> float:
        """Of the pair of `self.kind`."""
        return self.pair()[1]

    def __str__(self) -> str:
        lines = [
            f"Tolerances for {self.name!r} in {self.format} (u = {self.format.u:.3g}), absolute:"
        ]
        notes = {
            "certified": "errors carried along the trace, any order of sums",
            "probabilistic": f"independent rounding errors inside sums, failure {self.failure:g}",
            "predicted": f"at least {ordinary.TIMES:g} times the error that rounding usually makes",
            "empirical": f"{TIMES:g} times PyTorch's own error per sum of |terms|, at least {FLOOR:g} ulp",
        }
        for kind, note in notes.items():
            values = getattr(self, kind)[~np.isnan(self.exact)]
            middle, most = np.median(values) if values.size else 0.0, np.max(values, initial=0.0)
            lines.append(
                f"  {kind:<14} median {middle:.3g}, largest {most:.3g}; {self._printed(kind)}"
            )
            lines.append(f"  {'':<14} {note}; notices {self.power(kind)}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        factor = self.power().factor
        told = f"; too wide, it notices {factor_in_words(factor)}" if factor > LEAST else ""
        how = " (predicted)" if self.kind == "predicted" else ""
        return f"{self.name}, {self.format}: {self._printed(self.kind)}{how}{told}"

    def _printed(self, kind: str) -> str:
        """The pair, rounded upward: it covers as printed."""
        try:
            rtol, atol = self.pair(kind)
        except ArgumentError:
            return f"no pair: the {kind} tolerance is infinite"
        return f"rtol={rounded_up(rtol)}, atol={rounded_up(atol)}"


class Tolerances(dict[str, Tolerance]):
    """Tolerances by name.  Printed, a line for each gradient: its pair."""

    def __str__(self) -> str:
        return "\n".join(map(repr, self.values()))

    __repr__ = __str__


@np.errstate(all="ignore")
def tolerance(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    loss: Callable[..., Any] | None = None,
    upstream: Any = None,
    *,
    format: Any = "float32",
    failure: float = 1e-9,
    accumulate: Any = None,
    output: Any = None,
) -> Tolerances:
    """The tolerances of every gradient of loss(function(**inputs)), and of the output, by name.

    failure: of the probabilistic ones, per gradient; accumulate: the format of sums, where known.

    Shapes: those of the gradients.
    Raises: ArgumentError for arguments that do not fit; UnsupportedError for what cannot be traced.
    """
    check_failure(failure)
    target = as_format(format)
    problem = Problem(function, inputs, wrt, loss, upstream, output, forward=True)
    trace, rounded = problem.trace(target), problem.rounded(target)
    of = remembered(trace, rounded, target, failure, accumulate, predicted=True)
    computed = native_gradients(
        function, inputs, wrt, loss, upstream, format=target, output=output, forward=True
    )
    return Tolerances(
        (name, _tolerance(name, each, computed[name], target, failure)) for name, each in of.items()
    )


def _tolerance(name: str, of: Known, computed: Array, target: Format, failure: float) -> Tolerance:
    error = np.abs((computed - of.high) - of.low)
    relative = np.where(of.terms > 0, error / of.terms, 0.0)
    # A NaN or an overflow of the baseline is the largest error.
    far = np.where(np.isfinite(computed), relative, np.inf)
    baseline = float(np.max(far, initial=0.0, where=~np.isnan(of.high)))
    least = FLOOR * np.nan_to_num(spacing(of.high, of.low, target), nan=np.inf)
    empirical = np.maximum(np.where(of.terms > 0, TIMES * baseline * of.terms, 0.0), least)
    predicted = np.where(np.isnan(of.high), np.nan, of.ordinary(target).each)
    return Tolerance(
        name, target, failure, of.certain, of.likely, predicted, empirical, of.high, of.terms
    )


__all__ = ["FLOOR", "TIMES", "Tolerance", "Tolerances", "tolerance"]
