"""On which side of each kink values lie: the outcomes of comparisons, maxima and signs, in float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import walk
from roundoff.arithmetic.condition_scale import Scale, Scaled
from roundoff.arithmetic.guarding import Guarding, check
from roundoff.trace.functions import FUNCTIONS, Kind
from roundoff.trace.steps import Constant, Guard, Input, Map, Move, Trace

Array = npt.NDArray[np.float64]

#: Per step, the outcomes that were seen: of which sides elements were.
Seen = dict[int, set[bool]]


class Sides(Scale, Guarding):
    """Float64 values; remembers the outcomes of what has two sides, by step."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self.numbers = {id(step): number for number, step in enumerate(trace.steps)}
        self.seen: Seen = {}

    def decided(self, guard: Guard, value: Scaled) -> None:
        check(guard, value.value)

    def map(self, step: Map, operands: Sequence[Scaled]) -> Scaled:
        function = FUNCTIONS[step.function]
        if function.sides:
            holds = function.float64 if function.kind is Kind.COMPARISON else np.greater_equal
            with np.errstate(invalid="ignore"):
                outcome = holds(*(*(of.value for of in operands), 0.0)[:2])
            self.seen[self.numbers[id(step)]] = set(np.unique(outcome).tolist())
        return super().map(step, operands)


def sides(trace: Trace, inputs: Mapping[str, Array]) -> tuple[dict[str, Scaled], Seen]:
    """The outputs in float64, and on which sides of each kink some element was.

    Raises: BrokenGuardError where a decision of the trace falls otherwise.
    """
    arithmetic = Sides(trace)
    found = walk(trace, arithmetic, inputs)
    return found, arithmetic.seen


def never_crossed(trace: Trace, points: Sequence[Seen]) -> list[str]:
    """The kinks, in words, on one side of which all elements were at all points; equalities are none."""
    found, read = [], _read(trace)
    for number, step in enumerate(trace.steps):
        if number not in read:
            continue  # a decision, which is taken anew elsewhere
        outcomes = set[bool]().union(*(seen.get(number, ()) for seen in points))
        if isinstance(step, Map) and len(outcomes) == 1:
            sides = FUNCTIONS[step.function].sides
            left, right = (*(_name(trace, operand) for operand in step.operands), "0")[:2]
            if sides in ("==", "!=") or (_is_number(left) and _is_number(right)):
                continue  # no sides, or a constant decides
            words = f"{left} {sides} {right}"
            found.append(f"{words} was {'always' if True in outcomes else 'never'} true")
    return list(dict.fromkeys(found))


def _read(trace: Trace) -> set[int]:
    """The steps that outputs depend on."""
    found = set(trace.outputs.values())
    for number in reversed(range(len(trace.steps))):
        if number in found:
            found.update(trace.steps[number].operands)
    return found


def _name(trace: Trace, number: int) -> str:
    """An input or a constant, behind moves and casts; else what made the value."""
    step = trace.steps[number]
    while step.operands and (
        (isinstance(step, Move) and len(step.operands) == 1)
        or (isinstance(step, Map) and step.function == "cast")
    ):
        step = trace.steps[step.operands[0]]
    match step:
        case Input():
            return step.name
        case Constant():
            return f"{float(step.value):.6g}"
        case Map():
            return f"a result of {step.function}"
        case _:
            return f"a result of {type(step).__name__.lower()}"


def _is_number(told: str) -> bool:
    try:
        float(told)
    except ValueError:
        return False
    return True
