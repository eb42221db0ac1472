"""How far a gradient may be from the exact one: tolerances per element, and as (rtol, atol)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.bounding import tolerance as pair_of
from roundoff.bounds.theorems import check_failure
from roundoff.formats import Format, as_format, spacing
from roundoff.known import Known, known
from roundoff.native import native_gradients
from roundoff.reference import float64_array
from roundoff.trace.capture import UPSTREAM, as_tensor, trace_gradients
from roundoff.trace.prune import prune

Array = npt.NDArray[np.float64]

#: An empirical tolerance is this many times the baseline's largest error, and at least this many ulp.
TIMES, FLOOR = 3.0, 4.0


@dataclass(frozen=True, eq=False)
class Tolerance:
    """Tolerances on |computed - exact| of one gradient in one format.  Units: absolute, per element.

    certified: never exceeded by a kernel of the traced algorithm; probabilistic: exceeded with probability
    `failure` at most; empirical: TIMES the error of PyTorch's own result relative to the sum of |terms|, and
    at least FLOOR ulp, so that it does not break where the baseline improves.
    """

    name: str
    format: Format
    failure: float
    certified: Array
    probabilistic: Array
    empirical: Array
    exact: Array
    terms: Array

    def pair(self, kind: str = "probabilistic") -> tuple[float, float]:
        """(rtol, atol) for `assert_close` between two results that both keep this tolerance.

        With T the sum of |terms| and b = max(tolerance / T): rtol = 2 b, atol = 2 b max(T - |exact|), so that
        rtol |exact| + atol is at least twice the tolerance of every element.
        Raises: ArgumentError where the tolerance is not finite.
        """
        size = np.maximum(self.terms, np.abs(self.exact))
        return pair_of(getattr(self, kind), size, self.exact)

    @property
    def rtol(self) -> float:
        """Of the probabilistic pair."""
        return self.pair()[0]

    @property
    def atol(self) -> float:
        """Of the probabilistic pair."""
        return self.pair()[1]

    def __str__(self) -> str:
        lines = [
            f"Tolerances for {self.name!r} in {self.format} (u = {self.format.u:.3g}), absolute:"
        ]
        notes = {
            "certified": "errors carried along the trace, any order of sums",
            "probabilistic": f"independent rounding errors inside sums, failure {self.failure:g}",
            "empirical": f"{TIMES:g} times PyTorch's own error per sum of |terms|, at least {FLOOR:g} ulp",
        }
        for kind, note in notes.items():
            values = getattr(self, kind)
            with np.errstate(all="ignore"):
                finite = np.isfinite(values).all()
                text = (
                    "no pair: infinite"
                    if not finite
                    else "rtol={:.2g}, atol={:.2g}".format(*self.pair(kind))
                )
            middle, most = np.median(values), np.max(values, initial=0.0)
            lines.append(f"  {kind:<14} median {middle:.3g}, largest {most:.3g}; {text}")
            lines.append(f"  {'':<14} {note}")
        return "\n".join(lines)


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
) -> dict[str, Tolerance]:
    """The tolerances of every gradient of loss(function(**inputs)), and of the output, by name.

    failure: of the probabilistic ones, per gradient; accumulate: the format of sums, where known.

    Shapes: those of the gradients.
    Raises: ArgumentError for arguments that do not fit; UnsupportedError for what cannot be traced.
    """
    check_failure(failure)
    target = as_format(format)
    of = traced(function, inputs, wrt, loss, upstream, target, failure, accumulate, output)
    computed = native_gradients(
        function, inputs, wrt, loss, upstream, format=target, output=output, forward=True
    )
    return {
        name: _tolerance(name, each, computed[name], target, failure) for name, each in of.items()
    }


def traced(
    function: Callable[..., Any], inputs: Mapping[str, Any], wrt: Sequence[str] | None,
    loss: Callable[..., Any] | None, upstream: Any, target: Format, failure: float, accumulate: Any,
    output: Any,
) -> dict[str, Known]:  # fmt: skip
    """References and bounds of a function's gradients and output, from disk where they are known."""
    trace = prune(
        trace_gradients(function, inputs, wrt, loss, upstream, output=output, forward=True)
    )
    values = dict(inputs) if upstream is None else {**inputs, UPSTREAM: upstream}
    arrays = {name: float64_array(as_tensor(name, value)) for name, value in values.items()}
    return known(trace, arrays, target, failure, accumulate)


def _tolerance(name: str, of: Known, computed: Array, target: Format, failure: float) -> Tolerance:
    error = np.abs((computed - of.high) - of.low)
    relative = np.where(of.terms > 0, error / of.terms, 0.0)
    baseline = float(np.max(relative[np.isfinite(relative)], initial=0.0))
    least = FLOOR * np.nan_to_num(spacing(of.high, of.low, target), nan=np.inf)
    empirical = np.maximum(TIMES * baseline * of.terms, least)
    return Tolerance(name, target, failure, of.certain, of.likely, empirical, of.high, of.terms)


__all__ = ["FLOOR", "TIMES", "Tolerance", "tolerance", "traced"]
