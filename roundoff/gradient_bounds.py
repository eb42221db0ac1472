"""Bounds on the error of a computed gradient: what rounding alone can do, in any order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff import bounds
from roundoff.arithmetic import walk
from roundoff.arithmetic.a_priori import APriori
from roundoff.errors import ArgumentError
from roundoff.formats import FLOAT64, Format, as_format
from roundoff.trace.steps import Trace

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GradientBound:
    """Bounds on |computed - exact| of one gradient, for every order of its sums.

    Shapes: scale and underflow have the gradient's shape.
    format: of inputs and results (sums may be kept in a wider one); roundings: the largest number L of
    roundings that one term passes through; monomials: the largest number of terms of one element.
    """

    scale: Array
    underflow: Array
    format: Format
    roundings: int
    monomials: int

    @property
    def certified(self) -> Array:
        """gamma_L S + (1 + gamma_L) T, per element: never exceeded.  Infinite where L u >= 1.

        Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., Lemma 3.1.
        """
        if self.roundings * self.format.u >= 1:
            return np.full(self.scale.shape, np.inf)
        return self._of(bounds.gamma(self.roundings, self.format.u))

    def probabilistic(self, failure: float) -> Array:
        """A bound that fails with probability at most `failure` for the whole gradient.

        Assumes rounding errors that are independent and of mean zero.
        Source: Higham and Mary 2019, Theorem 2.4 for every monomial of every element.
        """
        products = max(1, self.monomials * self.scale.size)
        relative = bounds.higham_mary(self.roundings, self.format.u, failure, outputs=products)
        return np.minimum(self._of(relative), self.certified)

    def _of(self, relative: float) -> Array:
        # S and T are float64 sums of at most L roundings per term: what they lost, twice over.
        slack = 1.0 + 4.0 * bounds.gamma(self.roundings + 1, FLOAT64.u)
        with np.errstate(over="ignore"):
            return (relative * self.scale + (1.0 + relative) * self.underflow) * slack


def bounds_of_trace(
    trace: Trace, inputs: Mapping[str, Array], format: Any
) -> dict[str, GradientBound]:
    """The bounds of every output of a pruned polynomial trace, for inputs of the format.

    Raises: UnsupportedError for a trace with other functions than + - *.
    """
    target = as_format(format)
    found = {}
    for name, terms in walk(trace, APriori(target), inputs).items():
        found[name] = GradientBound(
            terms.scale, terms.underflow, target, max(1, terms.roundings), terms.monomials
        )
    return found


def tolerance(bound: Array, scale: Array, exact: Array) -> tuple[float, float]:
    """(rtol, atol) that two results within `bound` of the exact one satisfy together.

    With b = max(bound / S), rtol = 2 b and atol = 2 b max(S - |exact|): then rtol |exact| + atol is at
    least twice the bound of every element.
    Raises: ArgumentError where the bound is not finite.
    """
    if not np.isfinite(bound).all():
        raise ArgumentError("no tolerance: the bound is infinite; use a wider format")
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = float(np.nan_to_num(bound / scale, nan=0.0, posinf=0.0).max(initial=0.0))
    lost = float(np.maximum(scale - np.abs(exact), 0.0).max(initial=0.0))
    alone = float(np.where(scale == 0, bound, 0.0).max(initial=0.0))
    return 2.0 * relative, 2.0 * (relative * lost + alone)
