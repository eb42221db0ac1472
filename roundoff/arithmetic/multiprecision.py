"""The reference of record: every element is an mpmath number.

Additions, subtractions and products are exact, whatever the precision, unless exponents lie too far
apart: a polynomial trace has no rounding at all.  Other functions are rounded once to `bits`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mpmath.libmp import (
    MPZ,
    fnan,
    from_float,
    from_int,
    from_man_exp,
    fzero,
    mpf_add,
    mpf_mul,
    mpf_neg,
    to_str,
)

from roundoff.arithmetic import move_elements
from roundoff.errors import (
    PrecisionError,
    UnsupportedError,
    infinite_sum,
    no_value,
    of_elements,
)
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.functions.high_precision import Number, quotient, to_odd, value
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce, Shape

Numbers = npt.NDArray[np.object_]

#: Bits from the top of the largest to the end of the smallest product of two float64 numbers.
OF_PRODUCTS = 4200

#: Numbers of exact arithmetic have at most so many bits: products of some ten float64 numbers of any sizes.
MOST_BITS = 1 << 16


class Multiprecision:
    """Arithmetic on mpmath's raw numbers, rounded to odd where it is not exact.

    See `trace.functions.high_precision`.
    bits: precision of division, roots and elementary functions; 0: there are none, and all is exact.
    Sums and products are exact as long as they have no more than `reach` bits; the rest is rounded to odd.

    Raises: PrecisionError where exact arithmetic needs more than MOST_BITS.
    """

    def __init__(self, bits: int) -> None:
        self.bits = bits
        self.reach = bits + OF_PRODUCTS if bits else MOST_BITS
        self.sums = {"add": self._add, "sub": self._subtract, "mul": self._multiply}

    def load(self, values: npt.NDArray[np.float64]) -> Numbers:
        return _array(_from_floats(values), values.shape)

    def constant(self, step: Constant) -> Numbers:
        exact, shape = step.value, step.shape
        if isinstance(exact, float):
            return _array((from_float(exact) for _ in range(int(np.prod(shape)))), shape)
        numerator, denominator = from_int(exact.numerator), from_int(exact.denominator)
        number = quotient(numerator, denominator, max(self.bits, 64))
        if exact.denominator & (exact.denominator - 1) == 0:
            number = from_man_exp(exact.numerator, 1 - exact.denominator.bit_length())
        return _array((number for _ in range(int(np.prod(shape)))), shape)

    def move(self, step: Move, operands: Sequence[Numbers]) -> Numbers:
        zero = False if operands[0].dtype == np.bool_ else fzero
        result: Numbers = move_elements(step, operands, zero)
        return result

    def map(self, step: Map, operands: Sequence[Any]) -> Any:
        function = FUNCTIONS[step.function]
        if function.kind is Kind.CAST:
            return operands[0]
        if function.kind is Kind.LOGICAL:
            return function.float64(*operands)
        flat = [operand.ravel().tolist() for operand in operands]
        if function.kind is Kind.SELECTION:
            return _array((a if c else b for c, a, b in zip(*flat, strict=True)), step.shape)
        if function.kind is Kind.COMPARISON:
            decided = map(function.mpmath, *flat)
            return np.fromiter(decided, bool, len(flat[0])).reshape(step.shape)
        return _array(self._values(function, flat), step.shape)

    def _values(self, function: Function, flat: Sequence[Sequence[Number]]) -> list[Number]:
        """A function of all elements.  Raises: UnsupportedError for those that have no value."""
        exact = self.sums.get(function.name) or (function.mpmath if function.polynomial else None)
        results, refused = [], dict[int, UnsupportedError]()
        for number, xs in enumerate(zip(*flat, strict=True)):
            try:
                found = exact(*xs) if exact else value(function, xs, self.bits)
            except UnsupportedError as error:
                refused[number] = error
                continue
            if _special(found) and not _given(found, xs):
                refused[number] = no_value(function.name, *map(text_of, xs))
            results.append(found)
        if refused:
            raise of_elements(refused)
        return results

    def reduce(self, step: Reduce, operand: Numbers) -> Numbers:
        _check_finite(operand)
        rows = operand.reshape(int(np.prod(step.shape)), operand.shape[-1])
        return _array(map(self._total, rows.tolist()), step.shape)

    def contract(self, step: Contract, first: Numbers, second: Numbers) -> Numbers:
        _check_finite(first, second)
        return _array(self._products(first, second), step.shape)

    def _add(self, x: Number, y: Number) -> Number:
        near = abs(x[2] - y[2]) + x[3] + y[3] <= self.reach or not (x[1] and y[1])
        total: Number = mpf_add(x, y) if near else self._total((x, y))
        return total

    def _subtract(self, x: Number, y: Number) -> Number:
        return self._add(x, mpf_neg(y))

    def _multiply(self, x: Number, y: Number) -> Number:
        product: Number = mpf_mul(x, y)
        return product if product[3] <= self.reach else self._kept(product)

    def _products(self, first: Numbers, second: Numbers) -> Iterator[Number]:
        for rows, columns in zip(first.tolist(), second.swapaxes(1, 2).tolist(), strict=True):
            left, right = ([(of, self._aligned(of)) for of in side] for side in (rows, columns))
            for row, a in left:
                for column, b in right:
                    if a is None or b is None:
                        yield self._total(list(map(mpf_mul, row, column)))
                    else:
                        whole = sum(map(operator.mul, a[0], b[0]))
                        yield self._kept(from_man_exp(whole, a[1] + b[1]))

    def _aligned(self, numbers: list[Number]) -> tuple[list[int], int] | None:
        """The numbers as integers times one power of two, None where these would have too many bits."""
        present = _present(numbers)
        lowest, top = _ends(present) if present else (0, 0)
        return None if top - lowest > self.reach else (_integers(numbers, lowest), lowest)

    def _total(self, numbers: Sequence[Number]) -> Number:
        """The sum; where it needs more than `reach` bits, off by less than one of these per number cut off.

        Each number is cut off downward, and half a unit for each stands for what was lost: of one
        number that is rounding to odd.
        """
        present = _present(numbers)
        if not present:
            return fzero  # type: ignore[no-any-return]
        lowest, top = _ends(present)
        if top - lowest <= self.reach:
            exact: Number = from_man_exp(sum(_integers(present, lowest)), lowest)
            return exact
        self._refuse_if_exact(top - lowest)
        last, total, lost = top - self.reach, 0, 0
        for sign, mantissa, exponent, count in present:
            if exponent >= last:
                total += (-mantissa if sign else mantissa) << (exponent - last)
            else:
                total += (-mantissa if sign else mantissa) >> min(last - exponent, count + 1)
                lost += 1
        rounded: Number = from_man_exp(2 * total + lost, last - 1)
        return rounded

    def _kept(self, number: Number) -> Number:
        if number[3] <= self.reach:
            return number
        self._refuse_if_exact(number[3])
        return to_odd(number, self.reach)

    def _refuse_if_exact(self, bits: int) -> None:
        if not self.bits:
            raise PrecisionError(
                f"exact sums and products have {bits} bits here, more than {MOST_BITS}; take engine='ball', "
                "which rounds them with a proven radius, or numbers of more similar sizes"
            )


def _present(numbers: Sequence[Number]) -> list[Number]:
    """All but the zeros."""
    return [number for number in numbers if number[1]]


def text_of(number: Number) -> str:
    """Six digits, as they are printed elsewhere."""
    return str(to_str(number, 6)).removeprefix("+").removesuffix(".0")


def _special(number: Number) -> bool:
    """Whether it is an infinity or NaN."""
    return bool(number[2] and not number[1])


def _given(value: Number, operands: Sequence[Number]) -> bool:
    """Whether an infinity comes of one that the function brought along; NaN is no number."""
    return value != fnan and any(map(_special, operands))


def _check_finite(*operands: Numbers) -> None:
    """Raises: UnsupportedError where an infinity would enter a sum."""
    refused = [
        {number: infinite_sum() for number, x in enumerate(of.ravel()) if _special(x)}
        for of in operands
    ]
    if any(refused):
        raise of_elements(*refused)


def _ends(numbers: Sequence[Number]) -> tuple[int, int]:
    """The exponents of the last bit of all, and above the first."""
    exponents = [number[2] for number in numbers]
    return min(exponents), max(map(operator.add, exponents, [number[3] for number in numbers]))


def _integers(numbers: Sequence[Number], lowest: int) -> list[int]:
    """The numbers in units of 2^lowest: exact, like everything in a dot product."""
    return [
        (-mantissa if sign else mantissa) << (exponent - lowest) if mantissa else 0
        for sign, mantissa, exponent, _ in numbers
    ]


def _array(numbers: Any, shape: Shape) -> Numbers:
    return np.fromiter(numbers, object, int(np.prod(shape))).reshape(shape)


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
