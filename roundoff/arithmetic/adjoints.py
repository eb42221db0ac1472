"""Adjoints: how a number made of the outputs changes with every element of every step.

For outputs y and weights z it is g = J^T z, J being the derivatives of y by the elements of a step: reverse
mode differentiation of the trace, in float64.  Comparisons stay on the side that they are on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.views import for_products, moved_back
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.steps import Contract, Map, Move, Reduce, Step, Trace

Array = npt.NDArray[np.float64]


def keeping_all(trace: Trace) -> Trace:
    """The same steps, with all their values as outputs, called by number."""
    return replace(trace, outputs={str(number): number for number in range(len(trace.steps))})


def adjoints(
    trace: Trace,
    values: Sequence[Array],
    weights: Mapping[str, Array],
    wanted: Sequence[bool],
) -> Iterator[tuple[int, Array]]:
    """From the last step to the first, its number and the adjoint of its value; steps that outputs with
    weights do not depend on are left out.

    values: of all steps; weights: by output, in its shape; wanted: whether the adjoint of a step is, or that
    of a step before it (see `leading_to`).
    """
    waiting: dict[int, Array] = {}

    def add(number: int, adjoint: Any) -> None:
        waiting[number] = waiting[number] + adjoint if number in waiting else adjoint

    for name, weight in weights.items():
        add(trace.outputs[name], weight)
    for number in reversed(range(len(trace.steps))):
        if number not in waiting:
            continue
        g, step = waiting.pop(number), trace.steps[number]
        yield number, g
        of = [values[operand] for operand in step.operands]
        asked = [wanted[operand] for operand in step.operands]
        if not any(asked):
            continue
        match step:
            case Move():
                found: Sequence[Any] = _of_move(step, g, of)
            case Reduce():
                found = [np.broadcast_to(g[..., None], of[0].shape)]
            case Contract():
                first = g @ _turned(of[1]) if asked[0] else None
                found = [first, _turned(of[0]) @ g if asked[1] else None]
            case Map():
                found = _of_map(step, g, of, values[number], asked)
        for operand, adjoint, is_asked in zip(step.operands, found, asked, strict=True):
            if adjoint is not None and is_asked:
                add(operand, adjoint)


def leading_to(trace: Trace, chosen: Callable[[Step], bool]) -> list[bool]:
    """By step, whether it is chosen or depends on one that is."""
    found: list[bool] = []
    for step in trace.steps:
        found.append(chosen(step) or any(found[operand] for operand in step.operands))
    return found


def _turned(matrices: Array) -> Array:
    return for_products(np.swapaxes(matrices, -1, -2))


def _of_move(step: Move, g: Array, of: Sequence[Array]) -> list[Array]:
    """What goes to several places is summed over them."""
    if step.index is None:
        return [g.reshape(of[0].shape)]
    sizes = [prod(each.shape) for each in of]
    back = moved_back(step, g, sizes[0]) if len(of) == 1 else None
    if back is None:
        back = np.asarray(
            np.bincount(step.index.ravel(), g.ravel(), 1 + sum(sizes))[1:], np.float64
        )
    ends = np.cumsum(sizes)[:-1]
    parts = np.split(back, ends)
    return [part.reshape(each.shape) for part, each in zip(parts, of, strict=True)]


def _of_map(
    step: Map, g: Array, x: Sequence[Array], value: Array, asked: Sequence[bool]
) -> Sequence[Any]:
    with np.errstate(all="ignore"):
        slopes = _slopes(FUNCTIONS[step.function], x, value)
        return [
            _times(g, slope) if one and slope is not None else None
            for slope, one in zip(slopes, asked, strict=True)
        ]


def _times(g: Array, slope: Any) -> Any:
    """What does not matter stays so, whatever the slope."""
    if isinstance(slope, float):
        return g if slope == 1.0 else g * slope
    product = g * slope
    return product if np.isfinite(slope).all() else np.where(np.equal(g, 0), 0.0, product)


def _slopes(function: Function, x: Sequence[Array], value: Array) -> Sequence[Any]:
    """The derivative by each operand; None where there is none."""
    match function.kind:
        case Kind.SUM:
            return [1.0, float(function.float64(0.0, 1.0))]
        case Kind.PRODUCT:
            return [x[1], x[0]]
        case Kind.QUOTIENT:
            return [1.0 / x[1], -value / x[1]]
        case Kind.SELECTION:
            return [None, np.where(x[0], 1.0, 0.0), np.where(x[0], 0.0, 1.0)]
        case Kind.EXTREME:
            first = np.where(function.takes_first(*x), 1.0, 0.0)
            return [first, 1.0 - first]
        case Kind.POWER:
            by_base = x[1] * np.power(x[0], x[1] - 1.0)
            return [by_base, np.where(x[0] > 0, np.log(x[0]) * value, 0.0)]
        case Kind.CAST:
            return [1.0]
        case Kind.REFLECTION | Kind.ELEMENTARY:
            return [slope(*x, value) for slope in function.slopes]
    return [None] * function.arity
