"""References with a proven radius: every element is a real ball of python-flint's arb.

Source: F. Johansson, Arb: efficient arbitrary-precision midpoint-radius interval arithmetic, 2017.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from flint import arb, arb_mat, ctx, fmpq

from roundoff.arithmetic import move_elements
from roundoff.errors import UndecidedError, UnsupportedError, no_value, too_large
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce, Shape

Balls = npt.NDArray[np.object_]


def _compare(holds: Callable[[arb, arb], bool], fails: Callable[[arb, arb], bool]) -> Any:
    def decided(x: arb, y: arb) -> bool:
        if holds(x, y):
            return True
        if fails(x, y):
            return False
        raise UndecidedError(
            f"a comparison of {x.str(12)} with {y.str(12)} cannot be decided: they are equal to within the "
            "precision; the function has a kink there, where conventions differ: move the inputs off it"
        )

    return decided


def _sigmoid(x: arb) -> arb:
    """Without overflow on either side."""
    if x < 0:
        small = x.exp()
        return small / (1 + small)
    return 1 / (1 + (-x).exp())


#: Functions that have a value at every number, so that only its size can be in the way.
_GROWING = frozenset("exp expm1 sinh cosh".split())

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": arb.__add__,
    "sub": arb.__sub__,
    "mul": arb.__mul__,
    "div": arb.__truediv__,
    "neg": arb.__neg__,
    "abs": abs,
    "sign": arb.sgn,
    "maximum": arb.max,
    "minimum": arb.min,
    "gt": _compare(arb.__gt__, arb.__le__),
    "ge": _compare(arb.__ge__, arb.__lt__),
    "lt": _compare(arb.__lt__, arb.__ge__),
    "le": _compare(arb.__le__, arb.__gt__),
    "eq": _compare(arb.__eq__, arb.__ne__),
    "ne": _compare(arb.__ne__, arb.__eq__),
    "sigmoid": _sigmoid,
    "log2": lambda x: x.log() / arb.const_log2(),
    "log10": lambda x: x.log() / arb.const_log10(),
    "pow": lambda x, y: x**y,
    **{
        name: getattr(arb, name)
        for name in """sqrt exp expm1 log log1p sin cos tan asin acos atan sinh cosh tanh asinh
        erf erfc""".split()
    },
    "gelu_erf": arb.erf,
}


class Ball:
    """Arithmetic on arb balls with `bits` of midpoint precision; flint's precision is restored."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def load(self, values: npt.NDArray[np.float64]) -> Balls:
        return _array(map(arb, values.ravel().tolist()), values.shape)

    def constant(self, step: Constant) -> Balls:
        value, shape = step.value, step.shape
        with ctx.workprec(self.bits):
            exact = value if isinstance(value, float) else fmpq(value.numerator, value.denominator)
            ball = arb(exact)
        return _array((ball for _ in range(int(np.prod(shape)))), shape)

    def move(self, step: Move, operands: Sequence[Balls]) -> Balls:
        zero = False if operands[0].dtype == np.bool_ else arb(0)
        result: Balls = move_elements(step, operands, zero)
        return result

    def map(self, step: Map, operands: Sequence[Any]) -> Any:
        if step.function == "cast":
            return operands[0]
        if step.function == "where":
            return np.where(*operands)
        if step.function.startswith("logical"):
            return getattr(np, step.function)(*operands)
        function = FUNCTIONS[step.function]
        flat = [operand.ravel().tolist() for operand in operands]
        with ctx.workprec(self.bits):
            results = [function(*xs) for xs in zip(*flat, strict=True)]
        if step.function in ("gt", "ge", "lt", "le", "eq", "ne"):
            return np.array(results, bool).reshape(step.shape)
        for result, xs in zip(results, zip(*flat, strict=True), strict=True):
            if not result.is_finite() and all(x.is_finite() for x in xs):
                raise without_value(step.function, xs)
        return _array(results, step.shape)

    def reduce(self, step: Reduce, operand: Balls) -> Balls:
        rows = operand.reshape(int(np.prod(step.shape)), operand.shape[-1])
        ones = arb_mat(rows.shape[1], 1, [1] * rows.shape[1])
        with ctx.workprec(self.bits):
            sums = (_matrix(rows) * ones).entries()
        return _array(sums, step.shape)

    def contract(self, step: Contract, first: Balls, second: Balls) -> Balls:
        out: list[arb] = []
        with ctx.workprec(self.bits):
            for a, b in zip(first, second, strict=True):
                out.extend((_matrix(a) * _matrix(b)).entries())
        return _array(out, step.shape)


def without_value(function: str, arguments: Sequence[arb]) -> UnsupportedError:
    """What to raise where a function of finite balls is no finite ball."""
    texts = [x.str(6) for x in arguments]
    large = function in _GROWING and abs(arguments[0]) > 1 << 64
    return too_large(function, *texts) if large else no_value(function, *texts)


def _matrix(balls: Balls) -> arb_mat:
    rows, columns = balls.shape
    return arb_mat(rows, columns, balls.ravel().tolist())


def _array(balls: Any, shape: Shape) -> Balls:
    return np.fromiter(balls, object, int(np.prod(shape))).reshape(shape)
