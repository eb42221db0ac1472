"""References with a proven radius: every element is a real ball of python-flint's arb.

Source: F. Johansson, Arb: efficient arbitrary-precision midpoint-radius interval arithmetic, 2017.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from flint import arb, arb_mat, ctx, fmpq

from roundoff.arithmetic import move_elements
from roundoff.errors import (
    RoundoffError,
    UndecidedError,
    UnsupportedError,
    infinite_sum,
    no_value,
    of_elements,
    too_large,
)
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce, Shape

Balls = npt.NDArray[np.object_]


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
        function = FUNCTIONS[step.function]
        if function.kind is Kind.CAST:
            return operands[0]
        if function.kind in (Kind.SELECTION, Kind.LOGICAL):
            return function.float64(*operands)
        flat = [operand.ravel().tolist() for operand in operands]
        results, refused = [], dict[int, RoundoffError]()
        with ctx.workprec(self.bits):
            for number, xs in enumerate(zip(*flat, strict=True)):
                try:
                    results.append(function.arb(*xs))
                except UndecidedError as error:
                    refused[number] = error
        if not function.boolean:
            for number, (result, *of) in enumerate(zip(results, *flat, strict=True)):
                if not result.is_finite() and not _given(result, of):
                    refused[number] = without_value(function, of)
        if refused:
            raise of_elements(refused)
        if function.boolean:
            return np.array(results, bool).reshape(step.shape)
        return _array(results, step.shape)

    def reduce(self, step: Reduce, operand: Balls) -> Balls:
        _check_finite(operand)
        rows = operand.reshape(int(np.prod(step.shape)), operand.shape[-1])
        ones = arb_mat(rows.shape[1], 1, [1] * rows.shape[1])
        with ctx.workprec(self.bits):
            sums = (_matrix(rows) * ones).entries()
        return _array(sums, step.shape)

    def contract(self, step: Contract, first: Balls, second: Balls) -> Balls:
        _check_finite(first, second)
        out: list[arb] = []
        with ctx.workprec(self.bits):
            for a, b in zip(first, second, strict=True):
                out.extend((_matrix(a) * _matrix(b)).entries())
        return _array(out, step.shape)


def without_value(function: Function, arguments: Sequence[arb]) -> UnsupportedError:
    """What to raise where a function of finite balls is no finite ball, or of any balls no number."""
    texts = [_text(x) for x in arguments]
    if function.value_grows and arguments[0].is_finite() and abs(arguments[0]) > 1 << 64:
        return too_large(function.name, *texts)
    error = no_value(function.name, *texts)
    error.lasting = all(x.is_exact() for x in arguments)
    return error


def _text(ball: arb) -> str:
    """Six digits as they are printed elsewhere, with the radius if there is one."""
    if not ball.is_exact():
        return str(ball.str(6))
    if not ball.is_finite():
        return "inf" if ball > 0 else "-inf"
    plain = float(ball)
    return f"{plain:.6g}" if np.isfinite(plain) and (plain or ball == 0) else str(ball.str(6))


def _given(result: arb, operands: Sequence[arb]) -> bool:
    """Whether an infinity comes of one that the function brought along; NaN is no number."""
    return not result.is_nan() and not all(x.is_finite() for x in operands)


def _check_finite(*operands: Balls) -> None:
    """Raises: UnsupportedError where an infinity would enter a sum."""
    refused = [
        {number: infinite_sum() for number, x in enumerate(of.ravel()) if not x.is_finite()}
        for of in operands
    ]
    if any(refused):
        raise of_elements(*refused)


def _matrix(balls: Balls) -> arb_mat:
    rows, columns = balls.shape
    return arb_mat(rows, columns, balls.ravel().tolist())


def _array(balls: Any, shape: Shape) -> Balls:
    return np.fromiter(balls, object, int(np.prod(shape))).reshape(shape)
