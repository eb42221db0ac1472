"""Values while lowering, and maps of them.

A value is a step number wrapped in `Value`, a tensor that depends on no float (folded: integers, booleans),
a `Selection` (indices that depend on floats), or a plain Python argument.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.functions import FUNCTIONS, Kind
from roundoff.trace.steps import Builder, Index, Shape, numbered


@dataclass(frozen=True)
class Value:
    """A step's result, with the strides and the type that the tensor has in PyTorch.

    None inside a lowering, where there is no tensor.
    """

    step: int
    shape: Shape
    strides: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None


@dataclass(frozen=True)
class Selection:
    """Indices that depend on floats: the result of an arg-max.

    masks: a boolean step per candidate, exactly one of them true per element; candidates: the index
    that each stands for.  Shapes: masks (*shape), candidates (*shape, number of masks).
    """

    masks: tuple[int, ...]
    candidates: Index

    def moved(self, build: Builder, places: Index) -> Selection:
        """The same indices at other places; places: element numbers from 1."""
        masks = tuple(build.move((mask,), places) for mask in self.masks)
        flat = self.candidates.reshape(-1, len(self.masks))
        return Selection(masks, flat[places.ravel() - 1].reshape(*places.shape, -1))


def as_value(build: Builder, x: Any) -> Value:
    """A step's value, from a value, a number or a folded tensor."""
    if isinstance(x, Value):
        return x
    if isinstance(x, torch.Tensor):
        found = literal(build, x)
        if x.dtype != torch.bool:
            return found
        return Value(build.map("ne", found.step, build.constant(0)), found.shape)
    return Value(build.constant(exact(x)), ())


def literal(build: Builder, tensor: torch.Tensor) -> Value:
    """A folded tensor as exact constants: one Constant per distinct value, and a move."""
    made = made_exactly(tensor)
    if made is not None:
        return made(build)
    values = tensor.to(torch.float64).numpy(force=True)
    distinct, inverse = np.unique(values, return_inverse=True)
    shape = tuple(tensor.shape)
    if len(distinct) == 1:
        return Value(build.constant(exact(distinct[0]), shape), shape)
    constants = tuple(build.constant(exact(v)) for v in distinct)
    index = (inverse.reshape(shape) + 1).astype(np.int64)
    return Value(build.move(constants, index), shape)


def made_exactly(leaf: Any) -> Callable[[Builder], Value] | None:
    """How to make a folded tensor's numbers exactly, where they are not the doubles that it holds."""
    return getattr(leaf, "made", None)


def exact(x: Any) -> Fraction | float:
    """Infinities stay what they are: masks put them in, exponentials and maxima take them out."""
    if isinstance(x, Fraction):
        return x
    if isinstance(x, float | np.floating):
        if np.isnan(x):
            raise UnsupportedError(
                "cannot trace the constant nan, which the function puts in (by aten::full, aten::where); "
                "put in a number"
            )
        return float(x) if np.isinf(x) else Fraction(float(x))
    return Fraction(int(x))


def apply(build: Builder, function: str, *operands: Any) -> Value:
    """A map of values, numbers and folded tensors, broadcast; booleans count as 0 and 1."""
    if function == "where" and isinstance(operands[0], torch.Tensor):
        return _picked(build, *operands)
    steps = [as_value(build, operand).step for operand in operands]
    kind = FUNCTIONS[function].kind
    if kind is Kind.SELECTION:
        steps = [steps[0], *(as_number(build, step) for step in steps[1:])]
    elif kind is not Kind.LOGICAL:
        steps = [as_number(build, step) for step in steps]
    result = build.map(function, *steps)
    return Value(result, build.shape(result))


def _picked(build: Builder, condition: torch.Tensor, first: Any, second: Any) -> Value:
    """A choice that does not depend on floats is a move."""
    steps = [as_number(build, as_value(build, x).step) for x in (first, second)]
    shape = np.broadcast_shapes(tuple(condition.shape), *(build.shape(step) for step in steps))
    one, two = (
        np.broadcast_to(numbered(build.shape(step), start), shape)
        for step, start in zip(steps, (1, 1 + prod(build.shape(steps[0]))), strict=True)
    )
    index = np.where(np.broadcast_to(condition.numpy(), shape), one, two)
    return Value(build.move(tuple(steps), index), tuple(shape))


def as_number(build: Builder, step: int) -> int:
    """0 and 1 for a boolean step."""
    if not build.boolean(step):
        return step
    return build.map("where", step, build.constant(1), build.constant(0))


def exact_to(build: Builder, value: Any, shape: Shape) -> Value:
    """Any value, number or folded tensor, broadcast to a shape."""
    return Value(build.expand(as_value(build, value).step, shape), shape)
