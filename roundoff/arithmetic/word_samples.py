"""A sample of the sums that are made of slices, recomputed by mpmath: it must lie within the radius."""

from __future__ import annotations

from dataclasses import replace

import mpmath
import numpy as np
from mpmath.libmp import from_float, mpf_abs, mpf_gt, mpf_sub

from roundoff.arithmetic.float_words import (
    Words,
)
from roundoff.arithmetic.multiprecision import Multiprecision, Numbers, from_words
from roundoff.errors import (
    PrecisionError,
)
from roundoff.trace.steps import Contract, Reduce

#: Outputs of every contraction and reduction that mpmath recomputes.
SAMPLE = 2


class Samples:
    """Checks of contractions and reductions, on random outputs."""

    def __init__(self) -> None:
        self.checked = 0

    def check_products(self, step: Contract, first: Words, second: Words, found: Words) -> None:
        one = replace(step, shape=(1, 1, 1))
        for at in self._sample(found):
            batch, row, column = np.unravel_index(at, found.shape)
            left = from_words([word[batch, row] for word in first.words])
            right = from_words([word[batch, :, column] for word in second.words])
            exact = Multiprecision(0).contract(one, left[None, None], right[None, :, None])
            _agree(found, at, exact[0])

    def check_sums(self, step: Reduce, operand: Words, found: Words) -> None:
        one = replace(step, shape=(1,))
        rows = [word.reshape(found.words[0].size, operand.shape[-1]) for word in operand.words]
        for at in self._sample(found):
            _agree(
                found,
                at,
                Multiprecision(0).reduce(one, from_words([row[at] for row in rows])[None]),
            )

    def _sample(self, found: Words) -> list[int]:
        """Random numbers of outputs: other ones for other data."""
        size = found.words[0].size
        self.checked += 1
        bits = int(np.abs(found.words[0]).sum().view(np.int64)) if size else 0
        generator = np.random.default_rng([self.checked, bits])
        return [int(at) for at in generator.integers(0, size, SAMPLE if size else 0)]


def _agree(found: Words, at: int, exact: Numbers) -> None:
    """Source of truth: mpmath's exact sum of the same operands."""
    words = from_words([np.atleast_1d(word.ravel()[at]) for word in found.words])
    radius = np.broadcast_to(found.radius, found.shape).ravel()[at]
    gap = mpf_abs(mpf_sub(exact.ravel()[0], words[0]))
    if np.isfinite(radius) and mpf_gt(gap, from_float(float(radius))):
        raise PrecisionError(
            f"mpmath and multiword disagree on element {at} of a sum by {mpmath.libmp.to_str(gap, 6)}, more "
            f"than the proven {radius:g}; an error of roundoff or of the matrix product, please report it"
        )
