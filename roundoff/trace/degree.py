"""The degree of a polynomial trace, for the probability of missing a difference."""

from __future__ import annotations

from roundoff.trace.functions import FUNCTIONS, Kind
from roundoff.trace.steps import Constant, Contract, Input, Map, Move, Reduce, Trace


def degree(trace: Trace) -> int | None:
    """The largest degree of the outputs as polynomials of the inputs; None where they are none.

    Maxima, choices and comparisons are no polynomials.
    """
    degrees: list[int | None] = []
    for step in trace.steps:
        of = [degrees[operand] for operand in step.operands]
        if any(d is None for d in of):
            degrees.append(None)
            continue
        known = [d for d in of if d is not None]
        match step:
            case Input():
                degrees.append(1)
            case Constant():
                degrees.append(0)
            case Move() | Reduce():
                degrees.append(max(known))
            case Contract():
                degrees.append(sum(known))
            case Map():
                degrees.append(_of_map(step.function, known))
    found = [degrees[number] for number in trace.outputs.values()]
    return None if any(d is None for d in found) else max(d for d in found if d is not None)


def _of_map(function: str, degrees: list[int]) -> int | None:
    match FUNCTIONS[function].kind:
        case Kind.SUM | Kind.CAST:
            return max(degrees)
        case Kind.REFLECTION if function != "abs":
            return degrees[0]
        case Kind.PRODUCT:
            return sum(degrees)
        case Kind.QUOTIENT if degrees[1] == 0:
            return degrees[0]
    return 0 if max(degrees) == 0 else None
