"""The reference of record: every element is an mpmath number.

Additions, subtractions and products are exact, whatever the precision: a polynomial trace has no
rounding at all.  Other functions are rounded once to `bits`.
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import mpmath
import numpy as np
import numpy.typing as npt
from mpmath.libmp import (
    MPZ,
    fnan,
    fone,
    from_float,
    from_int,
    from_man_exp,
    fzero,
    mpf_abs,
    mpf_acos,
    mpf_add,
    mpf_asin,
    mpf_asinh,
    mpf_atan,
    mpf_cos,
    mpf_cosh,
    mpf_div,
    mpf_erf,
    mpf_erfc,
    mpf_exp,
    mpf_ge,
    mpf_gt,
    mpf_le,
    mpf_log,
    mpf_lt,
    mpf_mul,
    mpf_neg,
    mpf_pos,
    mpf_pow,
    mpf_sign,
    mpf_sin,
    mpf_sinh,
    mpf_sqrt,
    mpf_sub,
    mpf_tan,
    mpf_tanh,
    to_str,
)

from roundoff.arithmetic import move_elements
from roundoff.errors import UnsupportedError, no_value
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce, Shape

Number = tuple[int, int, int, int]  # mpmath's _mpf_: sign, mantissa, exponent, bit count
Numbers = npt.NDArray[np.object_]

_NOT_FINITE = "the reference has no value: an infinity or NaN enters a sum; check the inputs' range"

_EXACT: dict[str, Callable[..., Any]] = {
    "add": mpf_add,
    "sub": mpf_sub,
    "mul": mpf_mul,
    "neg": mpf_neg,
    "abs": mpf_abs,
    "sign": lambda x: from_int(mpf_sign(x)),
    "maximum": lambda x, y: x if mpf_ge(x, y) else y,
    "minimum": lambda x, y: x if mpf_le(x, y) else y,
    "gt": mpf_gt,
    "ge": mpf_ge,
    "lt": mpf_lt,
    "le": mpf_le,
    "eq": operator.eq,
    "ne": operator.ne,
}

#: What would hide a NaN.
_COMPARING = frozenset("sign maximum minimum gt ge lt le eq ne".split())


def _log_of(base: int) -> Callable[[Number, int, str], Number]:
    def log(x: Number, bits: int, mode: str) -> Number:
        wide = bits + 20
        ratio: Number = mpf_div(
            mpf_log(x, wide, mode), mpf_log(from_int(base), wide, mode), bits, mode
        )
        return ratio

    return log


def _expm1(x: Number, bits: int, mode: str) -> Number:
    if x == fzero:
        return x
    lost = max(0, -(x[2] + x[3]))  # exp(x) - 1 cancels the bits above x
    result: Number = mpf_sub(mpf_exp(x, bits + lost + 10, mode), fone, bits, mode)
    return result


def _log1p(x: Number, bits: int, mode: str) -> Number:
    result: Number = mpf_log(mpf_add(fone, x), bits, mode)  # 1 + x is exact
    return result


def _sigmoid(x: Number, bits: int, mode: str) -> Number:
    wide = bits + 10
    result: Number = mpf_div(
        fone, mpf_add(fone, mpf_exp(mpf_neg(x), wide, mode), wide, mode), bits, mode
    )
    return result


_ROUNDED: dict[str, Callable[..., Any]] = {
    "div": mpf_div,
    "sqrt": mpf_sqrt,
    "exp": mpf_exp,
    "expm1": _expm1,
    "log": mpf_log,
    "log1p": _log1p,
    "log2": _log_of(2),
    "log10": _log_of(10),
    "sin": mpf_sin,
    "cos": mpf_cos,
    "tan": mpf_tan,
    "asin": mpf_asin,
    "acos": mpf_acos,
    "atan": mpf_atan,
    "sinh": mpf_sinh,
    "cosh": mpf_cosh,
    "tanh": mpf_tanh,
    "asinh": mpf_asinh,
    "erf": mpf_erf,
    "gelu_erf": mpf_erf,
    "erfc": mpf_erfc,
    "sigmoid": _sigmoid,
    "pow": mpf_pow,
}


class Multiprecision:
    """Arithmetic on mpmath's raw numbers, rounded to `bits` where it is not exact.

    bits: precision of division, roots and elementary functions (round to nearest).
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def load(self, values: npt.NDArray[np.float64]) -> Numbers:
        return _array(_from_floats(values), values.shape)

    def constant(self, step: Constant) -> Numbers:
        value, shape = step.value, step.shape
        if isinstance(value, float):
            return _array((from_float(value) for _ in range(int(np.prod(shape)))), shape)
        numerator, denominator = from_int(value.numerator), from_int(value.denominator)
        number = mpf_div(numerator, denominator, max(self.bits, 64), "n")
        if value.denominator & (value.denominator - 1) == 0:
            number = from_man_exp(value.numerator, 1 - value.denominator.bit_length())
        return _array((number for _ in range(int(np.prod(shape)))), shape)

    def move(self, step: Move, operands: Sequence[Numbers]) -> Numbers:
        zero = False if operands[0].dtype == np.bool_ else fzero
        result: Numbers = move_elements(step, operands, zero)
        return result

    def map(self, step: Map, operands: Sequence[Any]) -> Any:
        flat = [operand.ravel().tolist() for operand in operands]
        if step.function == "where":
            return _array((a if c else b for c, a, b in zip(*flat, strict=True)), step.shape)
        if step.function == "cast":
            return operands[0]
        if step.function.startswith("logical"):
            return getattr(np, step.function)(*operands)
        if step.function in _EXACT:
            if step.function in _COMPARING and any(fnan in values for values in flat):
                raise no_value(step.function, "nan")
            results = map(_EXACT[step.function], *flat)
            if step.function in ("gt", "ge", "lt", "le", "eq", "ne"):
                return np.fromiter(results, bool, len(flat[0])).reshape(step.shape)
            return _array(results, step.shape)
        function, bits = _ROUNDED[step.function], self.bits

        def value(*xs: Number) -> Number:
            try:
                found: Number = function(*xs, bits, "n")
            except (ZeroDivisionError, mpmath.libmp.ComplexResult, ValueError):
                raise no_value(step.function, *(to_str(x, 6) for x in xs)) from None
            return found

        return _array(itertools.starmap(value, zip(*flat, strict=True)), step.shape)

    def reduce(self, step: Reduce, operand: Numbers) -> Numbers:
        rows = operand.reshape(int(np.prod(step.shape)), operand.shape[-1])
        sums = ((sum(integers), exponent) for integers, exponent in map(_aligned, rows.tolist()))
        return _array((from_man_exp(total, exponent) for total, exponent in sums), step.shape)

    def contract(self, step: Contract, first: Numbers, second: Numbers) -> Numbers:
        return _array(_products(first, second), step.shape)


def _products(first: Numbers, second: Numbers) -> Iterator[Number]:
    for rows, columns in zip(first.tolist(), second.swapaxes(1, 2).tolist(), strict=True):
        left, right = [_aligned(row) for row in rows], [_aligned(column) for column in columns]
        for integers, exponent in left:
            for others, other in right:
                yield from_man_exp(sum(map(operator.mul, integers, others)), exponent + other)


def _aligned(numbers: list[Number]) -> tuple[list[int], int]:
    """The numbers as integers times one power of two: exact, like everything in a dot product."""
    if not all(bits or not mantissa for _, mantissa, _, bits in numbers):
        raise UnsupportedError(_NOT_FINITE)
    lowest = min((exponent for _, mantissa, exponent, _ in numbers if mantissa), default=0)
    return [
        (-mantissa if sign else mantissa) << (exponent - lowest) if mantissa else 0
        for sign, mantissa, exponent, _ in numbers
    ], lowest


def _array(numbers: Any, shape: Shape) -> Numbers:
    return np.fromiter(numbers, object, int(np.prod(shape))).reshape(shape)


def round_bits(number: Number, bits: int) -> Number:
    """A number rounded to nearest at a precision."""
    result: Number = mpf_pos(number, bits, "n")
    return result


def from_words(words: Sequence[npt.NDArray[np.float64]]) -> Numbers:
    """The exact sums of float64 arrays."""
    columns = [_from_floats(word) for word in words]
    numbers = (functools.reduce(mpf_add, parts) for parts in zip(*columns, strict=True))
    return _array(numbers if len(words) > 1 else columns[0], words[0].shape)


def _from_floats(values: npt.NDArray[np.float64]) -> Iterator[Number]:
    """`mpmath.libmp.from_float` of every element, all at once: mantissas are odd, zero has exponent 0."""
    flat = values.ravel()
    if not np.isfinite(flat).all():
        return map(from_float, flat.tolist())
    fraction, exponent = np.frexp(flat)
    whole = np.abs(fraction * 2.0**53).astype(np.int64)
    zeros = np.frexp((whole & -whole).astype(np.float64))[1].astype(np.int64) - 1
    shift = np.where(whole > 0, zeros, 0)
    mantissa = (whole >> shift).tolist()
    return zip(
        (flat < 0).astype(np.int64).tolist(),
        mantissa if MPZ is int else map(MPZ, mantissa),
        np.where(whole > 0, exponent - 53 + shift, 0).tolist(),
        np.where(whole > 0, 53 - shift, 0).tolist(),
        strict=True,
    )
