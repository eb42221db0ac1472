"""What tests of gradient bounds share."""

from fractions import Fraction

import numpy as np

from roundoff.gradients.bounds import bounds_of_trace
from roundoff.gradients.problem import Problem
from roundoff.gradients.reference import reference_of_trace
from roundoff.kernels.this_machine import of_this_machine
from roundoff.numbers.formats import Format, as_format

NARROW = Format("narrow", 8, -9, 12)


def squares(out):
    return (out**2).sum()


def reference_and_bounds(problem: Problem, format="float32", engine="auto"):
    """What `reference_gradients` and `gradient_bounds` give, from one trace, as arrays."""
    target = as_format(format)
    trace, rounded = problem.trace(target), problem.rounded(target)
    kernels = of_this_machine(trace, target)
    return (
        reference_of_trace(trace, rounded, format=target, engine=engine),
        bounds_of_trace(trace, rounded, target, kernels=kernels),
    )


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
