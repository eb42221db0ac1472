"""Arithmetics: each says how to carry out the five kinds of steps; `walk` is the same for all.

To add one, write a class with these methods in a file of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.guarding import Guarding
from roundoff.arithmetic.per_step import Rounding
from roundoff.arithmetic.sharing import Sharing
from roundoff.arithmetic.views import viewed
from roundoff.trace.steps import Constant, Contract, Input, Map, Move, Reduce, Step, Trace

A = TypeVar("A")
Array = npt.NDArray[np.float64]


class Arithmetic(Protocol[A]):
    """Values of type A stand for tensors; shapes are those of the steps."""

    def load(self, values: Array) -> A:
        """An input, whose float64 numbers are exact."""
        ...

    def constant(self, step: Constant) -> A:
        """A rational number at every element."""
        ...

    def move(self, step: Move, operands: Sequence[A]) -> A:
        """Elements of the operands by number from 1, 0 being zero; None keeps C order."""
        ...

    def map(self, step: Map, operands: Sequence[A]) -> A:
        """An elementwise function."""
        ...

    def reduce(self, step: Reduce, operand: A) -> A:
        """The sum over the last axis."""
        ...

    def contract(self, step: Contract, first: A, second: A) -> A:
        """A batch of matrix products."""
        ...


def walk(
    trace: Trace, arithmetic: Arithmetic[A], inputs: Mapping[str, Array], *, trials: bool = False
) -> dict[str, A]:
    """Carry out a trace in an arithmetic, one that rounds in the format of every step; returns its outputs.

    inputs: float64 arrays by name, closures excepted (the trace brings their values); trials: they have
    a leading axis of independent trials, which the arithmetic gets as a trailing one.  Values are
    dropped after their last use.  Decisions that the trace has taken are checked by what is `Guarding`.
    """
    if isinstance(arithmetic, Sharing):
        arithmetic.share(trace, inputs)
    closures = {n: v[None] for n, v in trace.closures.items()} if trials else trace.closures
    given = {**closures, **inputs}
    present = _trials if trials else _elements
    last = trace.last_uses
    values: dict[int, A] = {}
    for number, step in enumerate(trace.steps):
        of = [values[operand] for operand in step.operands]
        match step:
            case Input():
                values[number] = arithmetic.load(present(step, given[step.name]))
            case Move():
                values[number] = arithmetic.move(step, of)
            case _:
                own = arithmetic.of(step) if isinstance(arithmetic, Rounding) else arithmetic
                values[number] = _computed(own, step, of)
        if isinstance(arithmetic, Guarding):
            for guard in trace.decisions.get(number, ()):
                arithmetic.decided(guard, values[number])
        for operand in {*step.operands, number}:
            if last[operand] <= number and operand in values:
                del values[operand]
    return {name: values[number] for name, number in trace.outputs.items()}


def _computed(arithmetic: Arithmetic[A], step: Step, of: Sequence[A]) -> A:
    match step:
        case Constant():
            return arithmetic.constant(step)
        case Map():
            return arithmetic.map(step, of)
        case Reduce():
            return arithmetic.reduce(step, of[0])
        case Contract():
            return arithmetic.contract(step, of[0], of[1])
    raise AssertionError(step)


def _elements(step: Input, values: Array) -> Array:
    values = np.asarray(values, np.float64)
    return values.reshape(step.shape) if step.kept is None else values.ravel()[step.kept]


def _trials(step: Input, values: Array) -> Array:
    flat = np.asarray(values, np.float64).reshape(len(values), -1)
    present = flat if step.kept is None else flat[:, step.kept]
    return np.ascontiguousarray(present.T).reshape(*step.shape, len(values))


def move_elements(step: Move, operands: Sequence[Any], zero: Any) -> Any:
    """Move for arithmetics whose values are numpy arrays, of any element type; a view is read-only."""
    if step.index is None:
        return operands[0].reshape(step.shape)
    if len(operands) == 1 and step.view is not None:
        return viewed(step, operands[0])
    ends = np.empty(1, operands[0].dtype)
    ends[0] = zero
    flat = np.concatenate([ends, *(operand.ravel() for operand in operands)])
    return flat[step.index.ravel()].reshape(step.shape)  # an array, even of one element
