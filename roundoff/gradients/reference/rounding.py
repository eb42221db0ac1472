"""mpmath's raw numbers as float64: the nearest, the two-term rounding, an upper bound."""

from __future__ import annotations

import math

from mpmath.libmp import from_man_exp, fzero, mpf_add

from roundoff.trace.functions.high_precision import Number


def split(number: Number, error: Number = fzero) -> tuple[float, float, float]:
    """hi, lo and an upper bound of |number - hi - lo| + error; hi is the float64 nearest to the number.

    number: finite; error: not negative.  Beyond float64's range hi and the bound are infinite, lo is zero.
    """
    mantissa, exponent = _whole(number)
    high = _nearest(mantissa, exponent)
    if math.isinf(high):
        return high, 0.0, math.inf
    mantissa, exponent = _less(mantissa, exponent, high)
    low = _nearest(mantissa, exponent)
    rest, exponent = _less(mantissa, exponent, low)
    if not error[1]:
        return high, low, _upward(abs(rest), exponent)
    return high, low, float_up(mpf_add(from_man_exp(abs(rest), exponent), error, 64, "u"))


def nearest(number: Number) -> float:
    """The float64 nearest to a raw number, subnormals and overflow included."""
    return _nearest(*_whole(number))


def float_up(number: Number) -> float:
    """A float64 not below a non-negative raw number."""
    return _upward(*_whole(number))


def _whole(number: Number) -> tuple[int, int]:
    """A raw number as an integer times a power of two."""
    sign, mantissa, exponent, _ = number
    return (-int(mantissa) if sign else int(mantissa)), exponent


def _nearest(mantissa: int, exponent: int) -> float:
    """Python's division of integers is correctly rounded."""
    size = exponent + mantissa.bit_length()
    if size > 1024:
        return math.inf if mantissa > 0 else -math.inf
    if size < -1100 or not mantissa:
        return -0.0 if mantissa < 0 else 0.0
    try:
        return float(mantissa << exponent) if exponent >= 0 else mantissa / (1 << -exponent)
    except OverflowError:
        return math.inf if mantissa > 0 else -math.inf


def _less(mantissa: int, exponent: int, value: float) -> tuple[int, int]:
    """mantissa 2^exponent - value, exactly; a value of zero may be far away."""
    if not value:
        return mantissa, exponent
    fraction, size = math.frexp(value)
    other, last = int(fraction * 2.0**53), size - 53
    lowest = min(exponent, last)
    return (mantissa << (exponent - lowest)) - (other << (last - lowest)), lowest


def _upward(mantissa: int, exponent: int) -> float:
    value = _nearest(mantissa, exponent)
    if math.isinf(value):
        return value
    return math.nextafter(value, math.inf) if _less(mantissa, exponent, value)[0] > 0 else value
