"""What tests of gradient bounds share."""

from fractions import Fraction

import numpy as np

from roundoff.numbers.formats import Format

NARROW = Format("narrow", 8, -9, 12)


def squares(out):
    return (out**2).sum()


def holds(computed, reference, limit) -> None:
    """|computed - exact| <= limit in exact arithmetic, the reference's radius included."""
    for at in np.ndindex(limit.shape):
        if np.isfinite(limit[at]):
            assert np.isfinite(computed[at])
            error = abs(
                Fraction(float(computed[at])) - Fraction(float(reference.high[at]))
                - Fraction(float(reference.low[at]))
            )  # fmt: skip
            assert error <= Fraction(float(limit[at])) + Fraction(float(reference.error[at]))
