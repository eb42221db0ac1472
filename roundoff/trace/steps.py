"""A gradient as a list of steps: inputs, constants, moves, maps, reductions and contractions.

This file knows nothing of PyTorch.  Values are numbered by the step that makes them.

Steps that round have a format: the name of one that the function itself chose (`x.half()`, autocast), or None
for the declared one, which the trace's inputs are rounded to.  kernel: the ATen operation that a step is
part of, as "mm" or "convolution_backward"; None for what the library itself put in; call: that very call;
source: where in the user's code it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from fractions import Fraction
from functools import cached_property
from math import isinf, prod
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.trace.call import Call
from roundoff.trace.call import Shape as Shape
from roundoff.trace.functions import FUNCTIONS
from roundoff.trace.source import Source
from roundoff.trace.views import View, as_view

Index = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Input:
    """A tensor given from outside: an argument, a closure tensor or the upstream gradient.

    kept: which of its elements, in C order, are present here (None: all, in the tensor's shape).
    """

    shape: Shape
    name: str
    kept: Index | None = None
    operands: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Constant:
    """An exact rational number, or an infinity, at every element; format: that of the step that reads it."""

    shape: Shape
    value: Fraction | float  # a float only where it is infinite
    operands: tuple[int, ...] = ()
    format: str | None = None
    kernel: str | None = None
    call: Call | None = None
    source: Source | None = None


@dataclass(frozen=True, eq=False)
class Move:
    """Output element k is element index[k] of the operands laid end to end in C order and numbered from 1.

    0 is a structural zero; index None keeps all elements in C order (a reshape).
    """

    shape: Shape
    operands: tuple[int, ...]
    index: Index | None

    @cached_property
    def view(self) -> View | None:
        """The strided view of the one operand that it is, None if it is none."""
        return as_view(self.index)


@dataclass(frozen=True, eq=False)
class Map:
    """An elementwise function (a key of FUNCTIONS) of operands of the output's shape.

    A "cast" keeps its operand's numbers, rounded to the step's format.
    """

    shape: Shape
    function: str
    operands: tuple[int, ...]
    format: str | None = None
    kernel: str | None = None
    call: Call | None = None
    source: Source | None = None


@dataclass(frozen=True, eq=False)
class Reduce:
    """The sum over the last axis.

    leaves: how many terms the kernel adds; kept: which of them are present here, in order (None: all;
    the others are structural zeros).
    """

    shape: Shape
    operands: tuple[int, ...]
    leaves: int
    kept: Index | None = None
    format: str | None = None
    kernel: str | None = None
    call: Call | None = None
    source: Source | None = None


@dataclass(frozen=True, eq=False)
class Contract:
    """A batch of matrix products (B, M, K) by (B, K, N); leaves and kept as in Reduce, along K."""

    shape: Shape
    operands: tuple[int, ...]
    leaves: int
    kept: Index | None = None
    format: str | None = None
    kernel: str | None = None
    call: Call | None = None
    source: Source | None = None


Rounded = Constant | Map | Reduce | Contract
Step = Input | Constant | Move | Map | Reduce | Contract


def present(step: Reduce | Contract) -> int:
    """How many terms each sum of a step has, structural zeros excepted."""
    return step.leaves if step.kept is None else len(step.kept)


def _keeps_binary_numbers(step: Step) -> bool:
    match step:
        case Map():
            return FUNCTIONS[step.function].polynomial
        case Constant(value=Fraction() as value):
            return value.denominator.bit_count() == 1
    return True


@dataclass(frozen=True, eq=False)
class Guard:
    """A decision that depends on data: the trace holds where the elements of a boolean step are `taken`.

    what: the operation that decides, in ATen's name; source: where in the user's code it is asked for.
    """

    step: int
    taken: Mask
    what: str
    source: Source | None = None


@dataclass(frozen=True, eq=False)
class Trace:
    """The steps of one or more gradients; operands always stand before their users.

    outputs: name to step number; closures: the values of inputs that the function brought along; guards: the
    decisions that were taken on the way, at the inputs that were given.
    """

    steps: tuple[Step, ...]
    outputs: Mapping[str, int]
    closures: Mapping[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    guards: tuple[Guard, ...] = ()

    @property
    def inputs(self) -> dict[str, Shape]:
        """Name to shape of every input of an unpruned trace, closures included."""
        return {step.name: step.shape for step in self.steps if isinstance(step, Input)}

    @property
    def polynomial(self) -> bool:
        """Whether constants have finitely many bits, and every map is made of + - * on the branch taken."""
        return all(_keeps_binary_numbers(step) for step in self.steps)

    @property
    def sums(self) -> int:
        """How many sums are carried out."""
        return sum(prod(s.shape) for s in self.steps if isinstance(s, Reduce | Contract))

    def shape(self, output: str) -> Shape:
        """Shape of a named output."""
        return self.steps[self.outputs[output]].shape

    def select(self, outputs: Iterable[str]) -> Trace:
        """The same steps with fewer outputs."""
        return replace(self, outputs={name: self.outputs[name] for name in outputs})

    def equals(self, other: Trace) -> bool:
        """Whether all steps, outputs and closures are the same: one computation, written twice."""
        return self.same_function(other) and all(
            getattr(one, name, None) == getattr(two, name, None)
            for one, two in zip(self.steps, other.steps, strict=True)
            for name in _ROUNDING
        )

    def same_function(self, other: Trace) -> bool:
        """Whether exact arithmetic takes the same steps: equal but for their formats and kernels."""
        return (
            dict(self.outputs) == dict(other.outputs)
            and len(self.steps) == len(other.steps)
            and all(map(_alike, self.steps, other.steps))
            and self.closures.keys() == other.closures.keys()
            and all(np.array_equal(v, other.closures[n]) for n, v in self.closures.items())
            and len(self.guards) == len(other.guards)
            and all(map(_same_decision, self.guards, other.guards))
        )

    @cached_property
    def decisions(self) -> dict[int, list[Guard]]:
        """The guards by the number of their step."""
        found: dict[int, list[Guard]] = {}
        for guard in self.guards:
            found.setdefault(guard.step, []).append(guard)
        return found

    @cached_property
    def last_uses(self) -> list[int]:
        """Per step, the number of the last step that reads it (outputs are read at the end)."""
        last = list(range(len(self.steps)))
        for number, step in enumerate(self.steps):
            for operand in step.operands:
                last[operand] = number
        for number in self.outputs.values():
            last[number] = len(self.steps)
        return last

    def __str__(self) -> str:
        lines = []
        for number, step in enumerate(self.steps):
            reads = ", ".join(f"v{operand}" for operand in step.operands)
            own = getattr(step, "format", None)
            form = f" in {own}" if own else ""
            lines.append(f"v{number} {_name(step)}({reads}) {list(step.shape)}{form}")
        lines += [f"guard v{guard.step}: {guard.what}" for guard in self.guards]
        lines.append("return " + ", ".join(f"{k}: v{v}" for k, v in self.outputs.items()))
        return "\n".join(lines)


#: Fields that matter to roundings alone, and those that matter to words alone.
_ROUNDING, _WORDS = ("format", "kernel", "call"), ("source",)


def _alike(first: Step, second: Step) -> bool:
    if type(first) is not type(second):
        return False
    names = [f.name for f in fields(first) if f.name not in (*_ROUNDING, *_WORDS)]
    return all(_same(getattr(first, name), getattr(second, name)) for name in names)


def _same_decision(first: Guard, second: Guard) -> bool:
    return first.step == second.step and np.array_equal(first.taken, second.taken)


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        return one is two or (one is not None and two is not None and np.array_equal(one, two))
    return bool(one is two or one == two)


def _name(step: Step) -> str:
    match step:
        case Input():
            return f"input {step.name}"
        case Constant():
            return f"constant {step.value}"
        case Map():
            return f"map {step.function}"
        case Reduce() | Contract():
            return f"{type(step).__name__.lower()} {present(step)} of {step.leaves} leaves"
        case Move():
            return "move"


class Builder:
    """Collects steps; every method returns the number of the new value.

    declared: the format that the function is written down in; format, kernel, call, source: of the steps that
    follow, where they have none of their own.
    """

    def __init__(self, declared: str = "float32") -> None:
        self.declared = declared
        self.steps: list[Step] = []
        self.guards: list[Guard] = []
        self.format: str | None = None
        self.kernel: str | None = None
        self.call: Call | None = None
        self.source: Source | None = None

    def named(self, format: str | None) -> str | None:
        """A format as steps state it: None where it is the declared one."""
        return None if format == self.declared else format

    def shape(self, value: int) -> Shape:
        return self.steps[value].shape

    def put(self, step: Step) -> int:
        if isinstance(step, Rounded) and (self.format or self.kernel):
            step = replace(
                step, format=step.format or self.format, kernel=step.kernel or self.kernel,
                call=step.call or self.call, source=step.source or self.source,
            )  # fmt: skip
        self.steps.append(step)
        return len(self.steps) - 1

    def input(self, name: str, shape: Shape) -> int:
        return self.put(Input(shape, name))

    def constant(self, value: Any, shape: Shape = ()) -> int:
        infinite = isinstance(value, float) and isinf(value)
        return self.put(Constant(shape, value if infinite else Fraction(value)))

    def guard(self, value: int, taken: Mask, what: str) -> None:
        """The trace holds where a boolean step is as it is here."""
        self.guards.append(
            Guard(value, np.broadcast_to(taken, self.shape(value)), what, self.source)
        )

    def boolean(self, value: int) -> bool:
        """Whether a step's elements are true or false."""
        step = self.steps[value]
        if isinstance(step, Map):
            return FUNCTIONS[step.function].boolean
        return isinstance(step, Move) and any(self.boolean(o) for o in step.operands)

    def move(self, operands: tuple[int, ...], index: Index) -> int:
        """A move; one that leaves everything in place becomes a reshape, or nothing."""
        if not operands:
            return self.constant(0, index.shape)
        if len(operands) == 1:
            source = self.shape(operands[0])
            if index.size == prod(source) and is_identity(index):
                return self.reshape(operands[0], index.shape)
        return self.put(Move(index.shape, operands, index))

    def reshape(self, value: int, shape: Shape) -> int:
        return value if self.shape(value) == shape else self.put(Move(shape, (value,), None))

    def expand(self, value: int, shape: Shape) -> int:
        """Broadcast by the usual rules."""
        if self.shape(value) == shape:
            return value
        step = self.steps[value]
        if isinstance(step, Constant):
            return self.put(replace(step, shape=shape))
        numbers = numbered(self.shape(value))
        return self.move((value,), np.ascontiguousarray(np.broadcast_to(numbers, shape)))

    def map(self, function: str, *operands: int) -> int:
        """A map of operands that are broadcast against each other first."""
        shape = np.broadcast_shapes(*(self.shape(operand) for operand in operands))
        return self.put(Map(shape, function, tuple(self.expand(o, shape) for o in operands)))

    def reduce(self, value: int) -> int:
        *rest, leaves = self.shape(value)
        return self.put(Reduce(tuple(rest), (value,), leaves))

    def contract(self, first: int, second: int) -> int:
        batch, rows, inner = self.shape(first)
        columns = self.shape(second)[2]
        return self.put(Contract((batch, rows, columns), (first, second), inner))


def numbered(shape: Shape, start: int = 1) -> Index:
    """The element numbers of one operand, in C order."""
    return np.arange(start, start + prod(shape), dtype=np.int64).reshape(shape)


def is_identity(index: Index) -> bool:
    """Whether element numbers leave everything in place."""
    few = {0, 1, index.size // 2, index.size - 1} if index.size > 1 else ()
    if any(index.flat[k] != k + 1 for k in few):
        return False
    flat = index.ravel()
    return bool(np.array_equal(flat, np.arange(1, flat.size + 1)))
