"""Forward errors in several units, backward errors, condition numbers, and comparison of bits.

Arrays are float64 carriers: every number of every format of `roundoff.numbers.formats` is one.  The exact
value is the unevaluated sum hi + lo of two of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import number
from roundoff.errors import ArgumentError
from roundoff.numbers.formats import alike, as_float64, as_format, spacing

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

__all__ = [
    "Backward",
    "Errors",
    "bitwise_equal",
    "dot_backward",
    "dot_condition",
    "dot_condition_normwise",
    "errors",
    "normwise",
    "normwise_rows",
    "sum_backward",
    "sum_condition",
    "sum_condition_normwise",
    "ulp_between",
]


@dataclass(frozen=True, eq=False)
class Errors:
    """Signed errors per element, positive where computed > exact.

    Units: absolute as computed; relative of |exact|; ulp the format's spacing at the exact value;
    scaled u S, with S the condition scale (sum of the |terms|).  relative and scaled are 0 where
    there is no error on a zero, and infinite where there is one.
    An infinity or a NaN that was computed where the exact value is a number is an infinite error in
    every unit, the largest there is (of a NaN, +inf).  A finite number has no ulp where |exact| is
    above the largest finite number of the format: NaN.
    overflow: computed is infinite or |exact| is above the largest finite number; nan: computed or exact is
    NaN.  Neither is removed from the arrays.
    """

    absolute: Array
    relative: Array
    ulp: Array
    scaled: Array
    overflow: Mask
    nan: Mask


def errors(
    computed: npt.ArrayLike,
    hi: npt.ArrayLike,
    lo: npt.ArrayLike,
    scale: npt.ArrayLike,
    format: Any,
) -> Errors:
    """The errors of `computed` against hi + lo, in every unit.

    The absolute error (computed - hi) - lo is right to about two roundings of float64 wherever
    |lo| is at most half a float64 ulp of hi: computed - hi is either exact, or large beside lo.
    Exact values outside 2^-1003 .. 2^1023 have no such lo; form their errors from `mp()`.

    Shapes: hi is exact, computed (..., *exact); lo and scale broadcast against them.
    Raises: ArgumentError for shapes that do not fit and for a negative scale.
    Source: Muller et al., Handbook of Floating-Point Arithmetic, 2nd ed., 2.3.2 (ulp).

    >>> errors(1.0, 1.0, -(2.0**-60), 1.0, "float32").ulp == 2.0**-36
    np.True_
    """
    target = as_format(format)
    _check_measured(computed, hi)
    value, high, low, size = alike(computed=computed, hi=hi, lo=lo, scale=scale)
    if np.any(size < 0):
        raise ArgumentError(
            f"errors: scale is {float(size.min())}; S sums absolute values, so it is never negative"
        )
    with np.errstate(all="ignore"):
        ulp = spacing(high, low, target)
        absolute = (value - high) - low
        # Divided by S and then by u: u S may be below the smallest float64.
        scaled = np.ldexp(_quotient(absolute, size), target.precision)
        scaled = np.where(np.isinf(size), np.nan, scaled)
        relative = _quotient(absolute, np.abs(high + low))
        lost = _lost(value, high, low)
        infinite = np.where(np.isnan(value), np.inf, value)
        absolute, relative, scaled, in_ulp = (
            np.where(lost, infinite, each) for each in (absolute, relative, scaled, absolute / ulp)
        )
        return Errors(
            absolute=absolute,
            relative=relative,
            ulp=in_ulp,
            scaled=scaled,
            overflow=np.isinf(value) | (np.isnan(ulp) & ~np.isnan(high)),
            nan=np.isnan(value) | np.isnan(high),
        )


def normwise(computed: npt.ArrayLike, hi: npt.ArrayLike, lo: npt.ArrayLike) -> float:
    """The relative error of a whole array in the 2-norm, |computed - exact| / |exact|.

    0 where there is no error on a zero array, infinite where there is one and where an infinity or a NaN was
    computed; NaN where an exact value is not finite.  Powers of two are taken out first, so nothing
    overflows or underflows on the way.

    Shapes: computed and hi alike; lo broadcasts against them.
    Raises: ArgumentError for shapes that do not fit.

    >>> normwise([3.0, 4.5], [3.0, 4.0], 0.0)
    0.1
    """
    _check_measured(computed, hi, rows=False)
    return float(normwise_rows(*(as_float64(v)[0][None] for v in (computed, hi, lo)))[0])


def normwise_rows(computed: npt.ArrayLike, hi: npt.ArrayLike, lo: npt.ArrayLike) -> Array:
    """`normwise` of many arrays at once.

    Shapes: (arrays, ...) each, to (arrays,); lo broadcasts against the others.
    Raises: ArgumentError for shapes that do not fit.
    """
    _check_measured(computed, hi)
    found = alike(computed=computed, hi=hi, lo=lo)
    value, high, low = (each.reshape(len(each), -1) for each in found)
    known = (np.isfinite(high) & np.isfinite(low)).all(axis=1)
    lost = _lost(value, high, low).any(axis=1)
    largest = np.maximum(np.abs(value), np.abs(high)).max(axis=1, initial=0.0)
    shift = -np.frexp(np.where(np.isfinite(largest), largest, 0.0))[1][:, None]
    with np.errstate(all="ignore"):
        value, high, low = (np.ldexp(each, shift) for each in (value, high, low))
        error, error_exponent = _norms((value - high) - low)
        size, size_exponent = _norms(high + low)
        ratio = np.ldexp(error / size, error_exponent - size_exponent)
    ratio = np.where(error == 0.0, 0.0, np.where(size == 0.0, np.inf, ratio))
    return np.where(known, np.where(lost, np.inf, ratio), np.nan)


def _check_measured(computed: npt.ArrayLike, hi: npt.ArrayLike, *, rows: bool = True) -> None:
    """Raise ArgumentError unless computed is (..., *exact), where hi is exact: nothing is stretched.

    rows: whether there may be leading axes at all.
    """
    shape, exact = as_float64(computed)[0].shape, as_float64(hi)[0].shape
    if (shape[max(0, len(shape) - len(exact)) :] if rows else shape) != exact:
        raise ArgumentError(
            f"the shapes do not fit each other (computed {shape}, hi {exact}); make them alike"
        )


def ulp_between(a: npt.ArrayLike, b: npt.ArrayLike, format: Any) -> Array:
    """|a - b| in units of the format's spacing at the larger of |a| and |b|.

    Units: ulp of the format.  0 for equal numbers (-0 and +0, two infinities of one sign),
    infinite where just one is infinite or a NaN, or the signs of two infinities differ; NaN where both are
    NaN, or both are finite and one is above the largest finite number of the format.

    >>> float(ulp_between(1.0, 1.0 + 2.0**-23, "float32"))
    1.0
    """
    first, second = alike(a=a, b=b)
    with np.errstate(all="ignore"):
        ulp = spacing(np.maximum(np.abs(first), np.abs(second)), 0.0, as_format(format))
        # Divided one by one: a - b may overflow, a / ulp is below 2^54 and exact.
        apart = np.abs(first / ulp - second / ulp)
    infinite = ~(np.isfinite(first) & np.isfinite(second)) & ~(np.isnan(first) & np.isnan(second))
    return np.where(first == second, 0.0, np.where(infinite, np.inf, apart))


def bitwise_equal(a: npt.ArrayLike, b: npt.ArrayLike) -> Mask:
    """Where the float64 carriers have the same bits: -0 differs from +0, a NaN equals itself.

    >>> bitwise_equal([0.0, 1.0], [-0.0, 1.0]).tolist()
    [False, True]
    """
    first, second = alike(a=a, b=b)
    same = np.ascontiguousarray(first).view(np.int64) == np.ascontiguousarray(second).view(np.int64)
    return np.asarray(same).reshape(first.shape)


@dataclass(frozen=True, eq=False)
class Backward:
    """The smallest relative change of the data that makes the computed number the exact answer.

    componentwise: the largest change of any term, of its own size; normwise: the 2-norm of the
    change of x, of that of x.  Infinite if no change does, as where computed is infinite or NaN.
    """

    componentwise: float
    normwise: float


def sum_condition(values: npt.ArrayLike) -> float:
    """The condition number of a sum, sum |x_i| / |sum x_i|, correctly rounded from exact integers.

    1 for a sum of zeros; infinite for one that cancels to zero.
    Raises: ArgumentError for values that are not finite.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 4.2.

    >>> sum_condition([1.0, 2.0, -2.0])
    5.0
    """
    return dot_condition(values, np.ones(as_float64(values)[0].shape))


def dot_condition(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """The condition number of a dot product, |x|.|y| / |x.y|, correctly rounded; see sum_condition.

    Products and sums are exact integers.  (Ogita, Rump and Oishi 2005 define twice this number.)
    Raises: ArgumentError for values that are not finite.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.1.

    >>> dot_condition([1.0, 2.0], [3.0, -1.0])
    5.0
    """
    exact, scale = _exact_dot(x, y)
    return 1.0 if scale == 0 else _ratio(scale, abs(exact))


def sum_condition_normwise(values: npt.ArrayLike) -> float:
    """The condition number of a sum in the 2-norm, |x|_2 sqrt(n) / |sum x_i|; see dot_condition_normwise.

    >>> sum_condition_normwise([3.0, -4.0, 0.0, 0.0])
    10.0
    """
    return dot_condition_normwise(values, np.ones(as_float64(values)[0].shape))


def dot_condition_normwise(x: npt.ArrayLike, y: npt.ArrayLike) -> float:
    """The condition number of a dot product in the 2-norm, |x|_2 |y|_2 / |x.y|, within an ulp.

    It bounds the relative change of x.y by that of x in norm; never below the componentwise one.
    1 for a dot product of zeros; infinite for one that cancels to zero.
    Raises: ArgumentError for values that are not finite.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.1 and 7.1.
    """
    exact, scale = _exact_dot(x, y)
    if scale == 0:
        return 1.0
    return _root_ratio(_exact_dot(x, x)[1] * _exact_dot(y, y)[1], exact * exact)


def sum_backward(computed: float, values: npt.ArrayLike) -> Backward:
    """The backward errors of a computed sum: |error| over sum |x_i|, and over |x|_2 sqrt(n).

    >>> sum_backward(3.5, [1.0, 2.0, -1.0]).componentwise
    0.375
    """
    return dot_backward(computed, values, np.ones(as_float64(values)[0].shape))


def dot_backward(computed: float, x: npt.ArrayLike, y: npt.ArrayLike) -> Backward:
    """The backward errors of a computed dot product: |error| over |x|.|y|, and over |x|_2 |y|_2.

    Formed in exact rational arithmetic; componentwise is correctly rounded, normwise within an ulp.
    Raises: ArgumentError for x or y that are not finite.
    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 3.1 and 7.1.
    """
    exact, scale = _exact_dot(x, y)
    if not math.isfinite(number("computed", computed)):
        return Backward(math.inf, math.inf)
    error = abs(Fraction(computed) - exact)
    squares = _exact_dot(x, x)[1] * _exact_dot(y, y)[1]
    return Backward(_ratio(error, scale), _root_ratio(error * error, squares))


def _lost(value: Array, high: Array, low: Array) -> Mask:
    """Where an infinity or a NaN was computed although the exact value is a number."""
    return ~np.isfinite(value) & np.isfinite(high) & np.isfinite(low)


def _quotient(error: Array, size: Array) -> Array:
    return np.where((error == 0) & (size == 0), 0.0, error / size)


def _norms(values: Array) -> tuple[Array, npt.NDArray[np.int32]]:
    """m and e with 2-norm m 2^e per row, from squares that neither overflow nor lose what matters."""
    exponent = np.frexp(np.abs(values).max(axis=1, initial=0.0))[1]
    scaled = np.ldexp(values, -exponent[:, None])
    return np.sqrt(np.sum(scaled * scaled, axis=1)), exponent


def _ldexp(value: float, exponent: int) -> float:
    try:
        return math.ldexp(value, exponent)
    except OverflowError:
        return math.copysign(math.inf, value)


def _integers(values: npt.ArrayLike, name: str) -> tuple[list[int], int]:
    """Whole numbers m and one exponent e with values = m 2^e, exactly."""
    flat = as_float64(values)[0].ravel()
    if not np.isfinite(flat).all():
        bad = flat[~np.isfinite(flat)][0]
        raise ArgumentError(
            f"{name} contains {bad}; a sum has no exact value then, remove it first"
        )
    fraction, exponent = np.frexp(flat)
    lowest = int(exponent.min(initial=0))
    whole = np.ldexp(fraction, 53).astype(np.int64).tolist()
    shifts = (exponent - lowest).tolist()
    return [m << s for m, s in zip(whole, shifts, strict=True)], lowest - 53


def _exact_dot(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Fraction, Fraction]:
    """x.y and |x|.|y|, exactly."""
    x, y = as_float64(x)[0], as_float64(y)[0]
    if x.shape != y.shape:
        raise ArgumentError(
            f"dot: x has shape {x.shape} and y {y.shape}; pass two arrays of one shape"
        )
    (first, first_exponent), (second, second_exponent) = _integers(x, "x"), _integers(y, "y")
    terms = [a * b for a, b in zip(first, second, strict=True)]
    unit = Fraction(2) ** (first_exponent + second_exponent)
    return sum(terms) * unit, sum(map(abs, terms)) * unit


def _ratio(numerator: Fraction, denominator: Fraction) -> float:
    if denominator == 0:
        return 0.0 if numerator == 0 else math.inf
    try:
        return float(numerator / denominator)
    except OverflowError:
        return math.inf


def _root_ratio(numerator: Fraction, denominator: Fraction) -> float:
    """sqrt(numerator / denominator), with a power of 4 taken out to stay in the range of floats."""
    if numerator == 0 or denominator == 0:
        return _ratio(numerator, denominator)
    square = numerator / denominator
    half = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    return _ldexp(math.sqrt(square / Fraction(4) ** half), half)
