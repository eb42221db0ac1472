"""Expressions: a lowering of an elementwise operation reads as its formula."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from roundoff.trace.lowering.registry import Lowering, lowers
from roundoff.trace.lowering.values import Value, apply, as_number, as_value, exact, exact_to
from roundoff.trace.steps import Builder, Index, Shape


class Expression:
    """A value with operators, so that a lowering reads as its formula."""

    def __init__(self, build: Builder, value: Any) -> None:
        self.build, self.value = build, as_value(build, value)

    @property
    def shape(self) -> Shape:
        return self.value.shape

    def map(self, function: str, *others: Any) -> Expression:
        operands = [o.value if isinstance(o, Expression) else o for o in others]
        return Expression(self.build, apply(self.build, function, self.value, *operands))

    def constant(self, value: Any) -> Expression:
        """An exact number; doubles are what they are, so write fractions as Fraction."""
        return Expression(self.build, Value(self.build.constant(exact(value)), ()))

    def lift(self, value: Any) -> Expression:
        return value if isinstance(value, Expression) else Expression(self.build, value)

    def reshape(self, shape: Shape) -> Expression:
        return Expression(self.build, Value(self.build.reshape(self.value.step, shape), shape))

    def move(self, index: Index, *others: Expression) -> Expression:
        """Elements by number, others numbered after this one's; 0 is zero, or false of truth values."""
        steps = tuple(o.value.step for o in (self, *others))
        if not all(map(self.build.boolean, steps)):
            steps = tuple(as_number(self.build, step) for step in steps)
        return Expression(self.build, Value(self.build.move(steps, index), index.shape))

    def sum_last(self) -> Expression:
        return Expression(
            self.build,
            Value(self.build.reduce(as_number(self.build, self.value.step)), self.shape[:-1]),
        )

    def expand(self, shape: Shape) -> Expression:
        return Expression(self.build, exact_to(self.build, self.value, shape))

    def __add__(self, other: Any) -> Expression:
        return self.map("add", other)

    def __radd__(self, other: Any) -> Expression:
        return self + other

    def __sub__(self, other: Any) -> Expression:
        return self.map("sub", other)

    def __rsub__(self, other: Any) -> Expression:
        return self.lift(other).map("sub", self)

    def __mul__(self, other: Any) -> Expression:
        return self.map("mul", other)

    def __rmul__(self, other: Any) -> Expression:
        return self * other

    def __truediv__(self, other: Any) -> Expression:
        return self.map("div", other)

    def __rtruediv__(self, other: Any) -> Expression:
        return self.lift(other).map("div", self)

    def __neg__(self) -> Expression:
        return self.map("neg")

    def __abs__(self) -> Expression:
        return self.map("abs")

    def __gt__(self, other: Any) -> Expression:
        return self.map("gt", other)

    def __ge__(self, other: Any) -> Expression:
        return self.map("ge", other)

    def __lt__(self, other: Any) -> Expression:
        return self.map("lt", other)

    def __le__(self, other: Any) -> Expression:
        return self.map("le", other)

    def __and__(self, other: Any) -> Expression:
        return self.map("logical_and", other)

    def __invert__(self) -> Expression:
        return self.map("logical_not")

    def where(self, first: Any, second: Any) -> Expression:
        """first where this is true, else second."""
        first = self.lift(first)
        return self.map("where", first, second)

    def exp(self) -> Expression:
        return self.map("exp")

    def log(self) -> Expression:
        return self.map("log")

    def sqrt(self) -> Expression:
        return self.map("sqrt")

    def tanh(self) -> Expression:
        return self.map("tanh")

    def sigmoid(self) -> Expression:
        return self.map("sigmoid")


def layout(x: Expression) -> torch.memory_format | None:
    """In which order the tensor fills its memory: kernels choose their way by it; None: in none."""
    if x.value.strides is None:
        return torch.contiguous_format
    tensor = torch.empty_strided(x.shape, x.value.strides, device="meta")
    for order in (torch.contiguous_format, torch.channels_last, torch.channels_last_3d):
        if tensor.is_contiguous(memory_format=order):
            return order
    return None


def formula(*names: str) -> Callable[[Lowering], Lowering]:
    """Register a function of expressions for ATen operations; it stays one, for other formulas."""

    def register(function: Lowering) -> Lowering:
        @functools.wraps(function)
        def lowering(build: Builder, *args: Any, **kwargs: Any) -> Any:
            def wrap(x: Any) -> Any:
                floating = isinstance(x, torch.Tensor) and x.is_floating_point()
                return Expression(build, x) if isinstance(x, Value) or floating else x

            def unwrap(x: Any) -> Any:
                if isinstance(x, tuple):
                    return tuple(map(unwrap, x))
                return x.value if isinstance(x, Expression) else x

            return unwrap(function(*map(wrap, args), **{k: wrap(v) for k, v in kwargs.items()}))

        signature = inspect.signature(function)
        first = inspect.Parameter("build", inspect.Parameter.POSITIONAL_ONLY)
        lowering.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[first, *signature.parameters.values()]
        )
        lowers(*names)(lowering)
        return function

    return register
