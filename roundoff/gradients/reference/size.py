"""How much work a trace is, and what is too much for slow engines."""

from __future__ import annotations

import math

from roundoff.trace.steps import Contract, Reduce, Trace

#: Products and sums of a polynomial, and of another trace, that mpmath does in some two to four seconds.
POLYNOMIAL_WORK, OTHER_WORK = 10**7, 10**6


def is_large(trace: Trace) -> bool:
    """Whether "auto" takes float64 words, mpmath being too slow."""
    return work(trace) > (POLYNOMIAL_WORK if trace.polynomial else OTHER_WORK)


def rigorous_engine(trace: Trace) -> str:
    """The engine for verdicts: one that is exact on polynomials, else one whose radii are proven."""
    return "auto" if trace.polynomial or is_large(trace) else "ball"


def work(trace: Trace) -> int:
    """Multiply-adds and sums of a trace."""
    total = 0
    for step in trace.steps:
        if isinstance(step, Reduce | Contract):
            present = step.leaves if step.kept is None else len(step.kept)
            total += math.prod(step.shape) * present
        else:
            total += math.prod(step.shape)
    return total
