"""Are errors ordinary?  Against those that rounding is predicted to make.

Of an error e, all its elements together, three sizes are looked at, each beside that of the samples:

    norm      ||e||_2 over the root mean square of ||sample||_2
    one       |e_i| over the root mean square of sample_i, at the worst element
    along     the part of e along the exact result x, <e, x> / <x, x>: a factor on all elements
    aside     the mean of e_i over the root mean square of sample_i: errors to one side, as truncation makes

Errors of honest kernels exceeded the predicted ones up to 5.2 times in the norm, 5.5 times along and 5.7
times aside, among 5688 gradients of 157 operations (three sets of inputs, four formats); none of 16 686
results of `experiments/calibration.py` is beyond a limit; `TIMES` is beyond all.  A single element may
exceed it by Student's t, as its root mean square is of few samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import numpy.typing as npt
from scipy import stats

from roundoff.gradients.prediction import Prediction
from roundoff.judging.power import Power, power_of
from roundoff.numbers.formats import Format

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: So many times the predicted error is no longer ordinary.
TIMES = 8.0

#: Samples that take another branch (a ReLU near zero) err by what that makes, somewhere: so many times the
#: largest of them is ordinary anywhere, as a kernel may take another branch elsewhere.
BRANCHED = 4.0

#: How often the worst of all elements of an ordinary error is beyond, if errors are normal.
FAILURE = 1e-9

#: The root mean square of one rounding to nearest, in u of its result at least.
ONE_ROUNDING = 0.29

#: Roundings that all elements may have in common, of a factor that the trace lacks (a reciprocal), in u.
COMMON = 2.0


@dataclass(frozen=True, eq=False)
class Ordinary:
    """What is ordinary of one output: exact values, sums of |terms|, where they are known, what samples say.

    Kernels may round where the trace has nothing to round: one rounding of each result is always ordinary.
    rms: per element; parts: per sample, along the exact result; asides: per sample, likewise; branched: the
    largest of the four sizes (one: of any element) among samples that take another branch, 0 if none does;
    median: of the 2-norms, in u, where anybody asks; tiny: as in `Prediction`.
    """

    format: Format
    exact: Array
    terms: Array
    known: Mask
    rms: Array
    parts: Array
    asides: Array
    branched: Array
    median: float = np.nan
    tiny: str = ""

    @classmethod
    def of(cls, prediction: Prediction, exact: Array, terms: Array, known: Mask) -> Ordinary:
        """What the samples of a prediction say."""
        x, format = np.where(known, exact, 0.0), prediction.format
        with np.errstate(invalid="ignore"):  # samples may overflow
            some = not known.all()
            errors = [np.where(known, e, 0.0) if some else e for e in prediction.errors]
            weights = _weights(format, x, terms, known, prediction.rms)
            parts, asides = (
                np.array([f(e) for e in errors])
                for f in (partial(_along, exact=x), partial(_aside, weights=weights))
            )
            others = [e for e, b in zip(prediction.drawn, prediction.branch, strict=False) if b]
            sizes = [_sizes(np.where(known, e, 0.0), x, weights) for e in others]
        branched = np.max(sizes, axis=0, initial=0.0) if sizes else np.zeros(4)
        return cls(
            format, exact, terms, known, prediction.rms, parts, asides, branched,
            prediction.normwise[0], prediction.tiny,
        )  # fmt: skip

    @property
    def overflows(self) -> bool:
        """Whether samples are not finite, so that nothing is predicted."""
        return not bool(np.isfinite(self.rms[self.known]).all())

    @cached_property
    def _x(self) -> Array:
        return self.exact if self.known.all() else np.where(self.known, self.exact, 0.0)

    @cached_property
    def norm(self) -> float:
        """The limit of the 2-norm."""
        rms = np.where(self.known, self.rms, 0.0)
        least = ONE_ROUNDING * self.format.u * np.linalg.norm(self._x)
        return max(
            TIMES * float(max(np.linalg.norm(rms), least)), BRANCHED * float(self.branched[0])
        )

    @cached_property
    def one(self) -> Array:
        """The limit of each element."""
        factor = stats.t.isf(FAILURE / (2 * max(1, int(self.known.sum()))), len(self.parts))
        least = self.format.u * np.where(self.known, np.maximum(self.terms, np.abs(self._x)), 0.0)
        limit = factor * np.maximum(np.where(self.known, self.rms, 0.0), least)
        return np.asarray(np.maximum(limit, BRANCHED * self.branched[1]))

    @property
    def each(self) -> Array:
        """The limit of each element, the norm's included."""
        return np.minimum(self.one, self.norm)

    @cached_property
    def along(self) -> float:
        """The limit of a factor beyond 1."""
        rms = float(np.sqrt(np.mean(np.square(self.parts))))
        return max(TIMES * rms, COMMON * self.format.u, BRANCHED * float(self.branched[2]))

    @cached_property
    def _weights(self) -> Array:
        return _weights(self.format, self._x, self.terms, self.known, self.rms)

    @cached_property
    def aside(self) -> float:
        """The limit of the mean error, each in units of its usual size."""
        rms = float(np.sqrt(np.mean(np.square(self.asides))))
        common = COMMON * self.format.u * np.abs(self._x)
        return max(TIMES * rms, _aside(common, self._weights), BRANCHED * float(self.branched[3]))

    def beyond(self, error: Array, radius: Array) -> str:
        """How an error (not a number where nothing is known) is no longer ordinary, in words; "" if it is.

        radius: of the exact values.
        """
        error = np.where(self.known & np.isfinite(error), error, 0.0)
        doubt = float(np.linalg.norm(np.where(self.known, radius, 0.0)))
        size = float(np.linalg.norm(error))
        if size > self.norm + doubt:
            return f"in the 2-norm {_times(size * TIMES, self.norm)} the error that rounding makes here"
        excess = np.abs(error) - np.where(self.known, radius, 0.0) - self.one
        if (excess > 0).any():
            at = tuple(int(k) for k in np.unravel_index(int(np.argmax(excess)), error.shape))
            return (
                f"at element {list(at)} by {abs(error[at]):.3g}, where rounding makes errors of "
                f"{self.rms[at]:.3g} (root mean square)"
            )
        along = abs(_along(error, self._x))
        if size and along > self.along + doubt / max(float(np.linalg.norm(self._x)), 1e-300):
            return (
                f"by a factor of {1 + _along(error, self._x):.8g} on all elements, "
                f"{_times(along * TIMES, self.along)} what rounding makes here"
            )
        aside = abs(_aside(error, self._weights))
        if aside > self.aside + _aside(np.where(self.known, radius, 0.0), self._weights):
            return (
                f"to one side: by {aside:.2g} of an element's usual error in the mean, "
                f"{_times(aside * TIMES, self.aside)} what rounding makes here"
            )
        return ""

    @cached_property
    def power(self) -> Power:
        """The faults that are noticed for sure in any result whose own error is ordinary."""
        of = power_of(self._x[self.known], self.terms[self.known], self.each[self.known])
        size = float(np.linalg.norm(self._x))
        whole = [(size, self.norm), (1.0, self.along)] if size else []
        factors = [(x + limit) / (x - limit) for x, limit in whole if x > limit]
        return Power(min([of.factor, *factors]), of.term, of.swaps)


@dataclass(frozen=True)
class Tipped:
    """What errors drawn larger do: the branch that one of them takes, "" if none does; and how large the
    largest is, in the 2-norm."""

    branch: str
    norm: float

    @classmethod
    def of(cls, wild: Prediction, known: Mask) -> Tipped:
        """What the samples say, where exact values are known."""
        sizes = [float(np.linalg.norm(np.where(known, drawn, 0.0))) for drawn in wild.drawn]
        return cls(next((branch for branch in wild.branch if branch), ""), max(sizes))


def _along(error: Array, exact: Array) -> float:
    """<e, x> / <x, x>; 0 where x is zero."""
    size = np.linalg.norm(exact)
    return float((error * (exact / size)).sum() / size) if size else 0.0


def _sizes(error: Array, x: Array, weights: Array) -> Array:
    """The four sizes of an error."""
    one = np.abs(error).max(initial=0.0)
    return np.abs([np.linalg.norm(error), one, _along(error, x), _aside(error, weights)])


def _weights(format: Format, x: Array, terms: Array, known: Mask, rms: Array) -> Array:
    """1 over the usual size of each element's error, one rounding of its terms at least; 0 where unknown."""
    size = np.maximum(rms, format.u * np.maximum(terms, np.abs(x)))
    with np.errstate(divide="ignore", over="ignore"):
        weights = np.where(known & (size > 0) & np.isfinite(size), 1.0 / size, 0.0)
    return np.where(np.isfinite(weights), weights, 0.0)


def _aside(error: Array, weights: Array) -> float:
    """The mean of errors in units of their usual size."""
    count = np.count_nonzero(weights)
    return float((error * weights).sum() / count) if count else 0.0


def _times(size: float, limit: float) -> str:
    return f"{size / limit:.3g} times" if limit else "infinitely many times"
