"""Elementwise functions of mpmath's raw numbers at any precision, right up to the ends of their ranges.

Every result is rounded to odd: toward zero, and where that is not exact its last bit is 1.  So a result
that is not exact never looks exact (1 - 2^-bits stands for erf(1000), not 1), it lies on the true side of all
numbers with fewer bits, and at any other precision it is another number: recomputing tells its error.

Source: Boldo and Melquiond 2008, Emulation of FMA and correctly rounded sums: proved algorithms using
rounding to odd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from mpmath.libmp import (
    ComplexResult,
    fnone,
    fone,
    from_int,
    from_man_exp,
    fzero,
    mpf_abs,
    mpf_add,
    mpf_div,
    mpf_erf,
    mpf_erfc,
    mpf_exp,
    mpf_ln2,
    mpf_log,
    mpf_mul,
    mpf_mul_int,
    mpf_neg,
    mpf_perturb,
    mpf_pi,
    mpf_pow,
    mpf_shift,
    mpf_sqrt,
    mpf_sub,
    to_int,
    to_str,
)

from roundoff.errors import no_value, too_large
from roundoff.trace.functions.record import Function

Number = tuple[int, int, int, int]  # mpmath's _mpf_: sign, mantissa, exponent, bit count

#: Bits that functions are computed with beyond those of their results.
GUARD = 20

#: Arguments from 2^LARGEST on have no sine, exponential or power here: that takes as many bits.
LARGEST = 1 << 14


def value(function: Function, arguments: tuple[Number, ...], bits: int) -> Number:
    """A function of numbers that is not exact, rounded to odd: within 2^(2 - bits) of it, relatively.

    Raises: UnsupportedError where it has no value, or one beyond what can be computed.
    """
    if function.work_grows and _top(arguments[-1]) > LARGEST:
        raise too_large(function.name, *map(_size_of, arguments))
    try:
        found: Number = function.mpmath(*arguments, bits)
        return found
    except (ZeroDivisionError, ComplexResult, ValueError, OverflowError):
        texts = (to_str(x, 6).removeprefix("+").removesuffix(".0") for x in arguments)
        raise no_value(function.name, *texts) from None


def is_zero(x: Number) -> bool:
    """Where most functions have a value with finitely many bits, and only there."""
    return bool(x == fzero)


def transcendental(
    function: Callable[[Number, int, str], Any], exact_at: Callable[[Number], bool] = is_zero
) -> Callable[[Number, int], Number]:
    """A function in mpmath's manner, of a number, bits and a direction, rounded to odd.

    exact_at: where a number with finitely many bits has such a value: only there (Lindemann, Weierstrass),
    as far as anybody knows of erf and erfc.
    """

    def rounded(x: Number, bits: int) -> Number:
        if (not x[1] and x[2]) or exact_at(x):
            exact: Number = function(x, bits + GUARD, "n")
            return exact
        return to_odd(function(x, bits + GUARD, "d"), bits)

    return rounded


def to_odd(number: Number, bits: int) -> Number:
    """A number cut off behind so many bits, the last one set; what is no number stays."""
    sign, mantissa, exponent, count = number
    if not mantissa:
        return number
    less = count - bits
    cut = mantissa >> less if less > 0 else mantissa << -less
    return sign, cut | 1, exponent + less, bits


def root(x: Number, bits: int) -> Number:
    """The square root, exact where it has so few bits."""
    low: Number = mpf_sqrt(x, bits, "d")
    return low if mpf_mul(low, low) == x else to_odd(low, bits)


def power(x: Number, y: Number, bits: int) -> Number:
    """x to the y, exact where rounding down and up agree."""
    low: Number = mpf_pow(x, y, bits, "d")
    return low if low == mpf_pow(x, y, bits, "u") else to_odd(low, bits)


def quotient(x: Number, y: Number, bits: int) -> Number:
    """x / y, rounded to odd by its remainder."""
    if not (x[1] and y[1]):
        special: Number = mpf_div(x, y, bits, "n")
        return special
    more = max(0, bits + 1 - x[3] + y[3])
    whole, rest = divmod(x[1] << more, y[1])
    exact: Number = from_man_exp(-whole if x[0] ^ y[0] else whole, x[2] - y[2] - more)
    if not rest and exact[3] <= bits:
        return exact
    return to_odd((x[0] ^ y[0], whole, x[2] - y[2] - more, whole.bit_length()), bits)


def _top(x: Number) -> int:
    """|x| < 2^top."""
    return x[2] + x[3] if x[1] else 0


def _size_of(x: Number) -> str:
    """A number that may be too large to be written down."""
    if abs(_top(x)) <= LARGEST:
        text: str = to_str(x, 6)
        return text
    return (
        f"{'-' if x[0] else ''}2^{_top(x):.3g}"
        if _top(x) < 1 << 1000
        else "a number above 2^2^1000"
    )


def is_power_of_two_or_zero(x: Number) -> bool:
    """Where the binary logarithm is exact, or an infinity."""
    return bool(x == fzero) or (x[1] == 1 and not x[0])


def is_power_of_ten_or_zero(x: Number) -> bool:
    """Where the decimal logarithm is exact, or an infinity."""
    tens = x[2]  # 10^n is 5^n 2^n
    return bool(x == fzero) or (not x[0] and 0 <= tens <= x[3] and x[1] == 5**tens)


def exp(x: Number, bits: int, mode: str) -> Number:
    """The exponential.

    mpmath multiplies as often as x has bits, where x is whole and bits are many: we do not.
    """
    if _top(x) < 32:
        plain: Number = mpf_exp(x, bits, mode)
        return plain
    log2 = mpf_ln2(bits + _top(x) + GUARD)
    times = to_int(mpf_div(x, log2, _top(x) + GUARD))
    rest = mpf_sub(x, mpf_mul_int(log2, times, bits + _top(x) + GUARD), bits + GUARD)
    result: Number = mpf_shift(mpf_exp(rest, bits, mode), times)
    return result


def expm1(x: Number, bits: int, mode: str) -> Number:
    """exp(x) - 1."""
    lost = max(0, -_top(x))  # exp(x) - 1 cancels the bits above x
    if lost > bits + GUARD:  # x + x^2/2 + ...
        near: Number = mpf_perturb(x, 0, bits, mode)
        return near
    result: Number = mpf_sub(exp(x, bits + lost + GUARD, mode), fone, bits, mode)
    return result


def log1p(x: Number, bits: int, mode: str) -> Number:
    """log(1 + x)."""
    if -_top(x) > bits + GUARD:  # x - x^2/2 + ...
        near: Number = mpf_perturb(x, 1, bits, mode)
        return near
    exact = _top(x) <= bits + GUARD
    result: Number = mpf_log(
        mpf_add(fone, x) if exact else mpf_add(fone, x, bits + GUARD, mode), bits, mode
    )
    return result


def log_of(base: int) -> Callable[[Number, int, str], Number]:
    """The logarithm to a base."""

    def log(x: Number, bits: int, mode: str) -> Number:
        wide = bits + GUARD
        ratio: Number = mpf_div(
            mpf_log(x, wide, mode), mpf_log(from_int(base), wide, mode), bits, "n"
        )
        return ratio

    return log


def sigmoid(x: Number, bits: int, mode: str) -> Number:
    """1 / (1 + exp(-x))."""
    wide = bits + GUARD
    below = mpf_add(fone, exp(mpf_neg(x), wide, "u"), wide, "u")
    result: Number = mpf_div(fone, below, bits, mode)
    return result


def erf(x: Number, bits: int, mode: str) -> Number:
    """The error function.

    Of large x it is 1 - erfc(x), which needs fewer bits than the Taylor series, whose terms are large.
    """
    if _top(x) < bits.bit_length():
        whole = to_int(mpf_abs(x))
        needed = bits - int(1.44 * whole * whole) + 4 * GUARD  # erfc(x) < exp(-x^2)
        if needed < bits // 2:
            below = mpf_erfc(mpf_abs(x), max(needed, GUARD), "n")
            near = mpf_sub(fone, below, bits, mode)
            return mpf_neg(near) if x[0] else near  # type: ignore[no-any-return]
    found: Number = mpf_erf(x, bits, mode)
    return found


def erfc(x: Number, bits: int, mode: str) -> Number:
    """Its complement.  Of large x by the asymptotic series; its error is below its first term left out.

    Source: Abramowitz and Stegun 1964, 7.1.23 and 7.1.24.
    """
    if x[0]:
        above: Number = mpf_add(fone, saturating(erf)(mpf_abs(x), bits, mode), bits, mode)
        return above
    if _top(x) < 100:
        plain: Number = mpf_erfc(x, bits, mode)
        return plain
    wide, square = bits + GUARD, mpf_mul(x, x)
    total, term, k = fone, fone, 0
    while _top(term) > -wide:
        k += 1
        term = mpf_div(mpf_mul_int(term, 1 - 2 * k, wide), mpf_shift(square, 1), wide)
        total = mpf_add(total, term, wide)
    below = mpf_mul(x, mpf_sqrt(mpf_pi(wide), wide), wide)
    first = mpf_mul(exp(mpf_neg(square), wide, mode), total, wide)
    result: Number = mpf_div(first, below, bits, mode)
    return result


def of_exponentials(
    function: Callable[..., Any], sign: Callable[[Number], int]
) -> Callable[[Number, int, str], Number]:
    """The hyperbolic sine or cosine; where exp(-2 |x|) is below the last bit, exp |x| / 2."""

    def found(x: Number, bits: int, mode: str) -> Number:
        if _top(x) <= bits.bit_length() + 2:
            plain: Number = function(x, bits, mode)
            return plain
        half = mpf_shift(exp(mpf_abs(x), bits, mode), -1)
        result: Number = mpf_neg(half) if sign(x) else half
        return result

    return found


def saturating(function: Callable[..., Any]) -> Callable[[Number, int, str], Number]:
    """tanh or erf, which are 1 but for exp(-2 |x|) or less."""

    def found(x: Number, bits: int, mode: str) -> Number:
        if _top(x) <= bits.bit_length() + 2:
            plain: Number = function(x, bits, mode)
            return plain
        near: Number = mpf_perturb(fnone if x[0] else fone, 1 - x[0], bits, mode)
        return near

    return found
