"""How far results move if literals, the doubles that a function brings along, are off by a few roundings.

0.1, sqrt(2) / 3 or 10000 ** (2 / 6) in a function is the double next to a number that its author meant, or
some roundings off it, and another honest spelling brings another double.  How far results are apart for
that is a matter of derivatives: sin(3000 c) moves 3000 times as much as c does.  Here the derivatives by all
literals are carried through a trace, in the directions of random signs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from operator import add
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import move_elements, walk
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.steps import Constant, Contract, Input, Map, Move, Reduce, Trace

Array = npt.NDArray[np.float64]

#: How far a literal may be off the number that was meant, relatively.  One rounding is 2^-53; literals are
#: computed: in exp(-log(10000) 62 / 64) two roundings of numbers near 9 make 16 of them in the result, where
#: two sides that bring one literal each are allowed 2^-49.
ROUNDING = 2.0**-50

#: What has no more significant bits is exact: small whole numbers and their quotients, powers of two,
#: numbers of float32 or narrower.  Of the doubles nearest to other numbers, one in 2^29 has so few.
EXACT_BITS = 24

#: Directions.  One literal's derivative is the same in all of them; the mean square over directions is, on
#: average, the sum of the squares of all derivatives.
DIRECTIONS = 16


#: What is constant but for jumps.
_STEPWISE = (Kind.SIGN, Kind.COMPARISON, Kind.LOGICAL)


@dataclass(frozen=True, eq=False)
class Shifted:
    """A float64 value, and its change to first order, None where no literal reaches."""

    value: Any
    shift: Any


class Literals:
    """The arithmetic that moves every literal by ROUNDING, up or down, to first order.

    The signs are the literal's own, whoever brings it: a double and its products with powers of two go
    the same way everywhere.
    """

    def __init__(self, trace: Trace, direction: int) -> None:
        self.direction = direction
        self.captured = (s.name in trace.closures for s in trace.steps if isinstance(s, Input))

    def load(self, values: Array) -> Shifted:
        brought = next(self.captured)
        return Shifted(values, self._off(values, rounded(values)) if brought else None)

    def constant(self, step: Constant) -> Shifted:
        full = np.full(step.shape, float(step.value))
        return Shifted(full, self._off(full, np.bool_(True)) if is_literal(step.value) else None)

    def _off(self, values: Array, where: npt.NDArray[np.bool_] | np.bool_) -> Any:
        if not where.any():
            return None
        return np.where(where, ROUNDING * _signs(values, self.direction) * values, 0.0)

    def move(self, step: Move, operands: Sequence[Shifted]) -> Shifted:
        value = move_elements(step, [o.value for o in operands], 0)
        if all(o.shift is None for o in operands):
            return Shifted(value, None)
        full = [np.zeros(np.shape(o.value)) if o.shift is None else o.shift for o in operands]
        return Shifted(value, move_elements(step, full, 0))

    def map(self, step: Map, operands: Sequence[Shifted]) -> Shifted:
        function, x = FUNCTIONS[step.function], [o.value for o in operands]
        if function.kind is Kind.CAST:
            return operands[0]
        with np.errstate(all="ignore"):
            value = function.float64(*x)
            if function.kind in _STEPWISE or all(o.shift is None for o in operands):
                return Shifted(value, None)
            shifts = [0.0 if o.shift is None else o.shift for o in operands]
            return Shifted(value, _moved(function, x, shifts, value))

    def reduce(self, step: Reduce, operand: Shifted) -> Shifted:
        shift = operand.shift
        with np.errstate(all="ignore"):
            total = None if shift is None else np.sum(shift, axis=-1)
            return Shifted(operand.value.sum(axis=-1), total)

    def contract(self, step: Contract, first: Shifted, second: Shifted) -> Shifted:
        with np.errstate(all="ignore"):
            products = [
                a @ b
                for a, b in ((first.shift, second.value), (first.value, second.shift))
                if a is not None and b is not None
            ]
            return Shifted(first.value @ second.value, sum(products) if products else None)


def of_literals(trace: Trace, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Per output and element, how far literals that are off by ROUNDING may move it.

    The root of the sum of squares over the literals, estimated from `DIRECTIONS` random signs of them, to
    first order, but with the steepest slope within reach; 0 where it is not finite.
    Shapes: those of the outputs.
    """
    if not any(_literals(trace, inputs)):
        return {name: np.zeros(trace.shape(name)) for name in trace.outputs}
    norms: dict[str, Any] = {name: np.zeros(trace.shape(name)) for name in trace.outputs}
    for direction in range(DIRECTIONS):
        for name, moved in walk(trace, Literals(trace, direction), inputs).items():
            if moved.shift is not None:
                norms[name] = np.hypot(norms[name], moved.shift)  # squares may underflow
    return {n: np.where(np.isfinite(v), v, 0.0) / DIRECTIONS**0.5 for n, v in norms.items()}


def _literals(trace: Trace, inputs: Mapping[str, Array]) -> Iterator[bool]:
    for step in trace.steps:
        if isinstance(step, Input) and step.name in trace.closures:
            yield bool(rounded(np.asarray({**trace.closures, **inputs}[step.name])).any())
        elif isinstance(step, Constant):
            yield is_literal(step.value)


def is_literal(value: Fraction | float) -> bool:
    """Whether a constant comes from a double that was rounded: numerator or denominator are long.

    >>> [is_literal(Fraction(x)) for x in (0.1, 0.5, 3, 1e9)], is_literal(Fraction(1, 3))
    ([True, False, False, False], False)
    """
    if isinstance(value, float):  # an infinity
        return False
    return any(_significant_bits(n) > EXACT_BITS for n in (value.numerator, value.denominator))


def _significant_bits(number: int) -> int:
    return abs(number).bit_length() - ((number & -number).bit_length() - 1 if number else 0)


def rounded(values: Array) -> npt.NDArray[np.bool_]:
    """Which doubles have more than EXACT_BITS significant bits."""
    mantissa = np.frexp(values)[0] * 2.0**EXACT_BITS
    return np.asarray(np.isfinite(values) & (np.rint(mantissa) != mantissa))


def _signs(values: Array, direction: int) -> Array:
    """+-1 from the bits of each significand (the finaliser of splitmix64, Steele, Lea and Flood 2014)."""
    bits: Any = np.asarray(np.frexp(np.abs(values))[0], np.float64).view(np.uint64)
    with np.errstate(over="ignore"):
        bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    found: Array = np.where((bits >> np.uint64(63 - direction)) & np.uint64(1), -1.0, 1.0)
    return found


def _times(shift: Any, factor: Any) -> Any:
    """The slope times the shift; None, for no shift, stays None."""
    return np.where(np.equal(shift, 0), 0.0, shift * factor)


def _moved(function: Function, x: Sequence[Any], shifts: Sequence[Any], value: Any) -> Any:
    match function.kind:
        case Kind.SUM:
            return function.float64(*shifts)
        case Kind.PRODUCT:
            return _times(shifts[0], x[1]) + _times(shifts[1], x[0])
        case Kind.QUOTIENT:
            return _times(shifts[0], 1.0 / x[1]) - _times(shifts[1], value / x[1])
        case Kind.REFLECTION:
            return function.slopes[0](x[0], value) * shifts[0]
        case Kind.SELECTION:
            return np.where(x[0], shifts[1], shifts[2])
        case Kind.EXTREME:
            return np.where(function.takes_first(*x), *shifts)
        case Kind.POWER:
            by_base = _times(shifts[0], x[1] * np.power(x[0], x[1] - 1.0))
            return by_base + _times(shifts[1], np.log(x[0]) * value)
        case _:
            reaches = map(np.abs, shifts)
            ends = [end for at, by in zip(x, reaches, strict=True) for end in (at - by, at + by)]
            signed = (
                np.copysign(steepest(*ends), slope(*x, value))
                for steepest, slope in zip(function.steepest, function.slopes, strict=True)
            )
            return reduce(add, map(_times, shifts, signed))
