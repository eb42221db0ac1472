"""Functions of mpmath's raw numbers at a precision, near the limits of their ranges, too.

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
    mpf_ln2,
    mpf_log,
    mpf_mul,
    mpf_mul_int,
    mpf_neg,
    mpf_perturb,
    mpf_pi,
    mpf_pow,
    mpf_shift,
    mpf_sin,
    mpf_sinh,
    mpf_sqrt,
    mpf_sub,
    mpf_tan,
    mpf_tanh,
    to_int,
    to_str,
)

from roundoff.errors import no_value, too_large

Number = tuple[int, int, int, int]  # mpmath's _mpf_: sign, mantissa, exponent, bit count

#: Bits that functions are computed with beyond those of their results.
GUARD = 20

#: Arguments from 2^LARGEST on have no sine, exponential or power here: that takes as many bits.
LARGEST = 1 << 14


def value(name: str, arguments: tuple[Number, ...], bits: int) -> Number:
    """A function of numbers, rounded to odd: within 2^(2 - bits) of it, relatively.

    name: a key of ALGEBRAIC or TRANSCENDENTAL.
    Raises: UnsupportedError where it has no value, or one beyond what can be computed.
    """
    try:
        if name in ALGEBRAIC:
            found: Number = ALGEBRAIC[name](*arguments, bits)
            return found
        (x,) = arguments
        if name in _GROWING and _top(x) > LARGEST:
            raise too_large(name, _size_of(x))
        function = TRANSCENDENTAL[name]
        if (not x[1] and x[2]) or IS_EXACT.get(name, _is_zero)(x):
            exact: Number = function(x, bits + GUARD, "n")
            return exact
        return to_odd(function(x, bits + GUARD, "d"), bits)
    except (ZeroDivisionError, ComplexResult, ValueError):
        texts = (to_str(x, 6).removeprefix("+").removesuffix(".0") for x in arguments)
        raise no_value(name, *texts) from None


def to_odd(number: Number, bits: int) -> Number:
    """A number cut off behind so many bits, the last one set; what is no number stays."""
    sign, mantissa, exponent, count = number
    if not mantissa:
        return number
    less = count - bits
    cut = mantissa >> less if less > 0 else mantissa << -less
    return sign, cut | 1, exponent + less, bits


def _root(x: Number, bits: int) -> Number:
    low: Number = mpf_sqrt(x, bits, "d")
    return low if mpf_mul(low, low) == x else to_odd(low, bits)


def _power(x: Number, y: Number, bits: int) -> Number:
    """Exact where rounding down and up agree."""
    if _top(y) > LARGEST:
        raise too_large("pow", _size_of(x), _size_of(y))
    low: Number = mpf_pow(x, y, bits, "d")
    return low if low == mpf_pow(x, y, bits, "u") else to_odd(low, bits)


def _quotient(x: Number, y: Number, bits: int) -> Number:
    """Rounded to odd by its remainder."""
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


def _is_zero(x: Number) -> bool:
    return bool(x == fzero)


def _is_one(x: Number) -> bool:
    return bool(x == fone)


def _is_power_of_two(x: Number) -> bool:
    return x[1] == 1 and not x[0]


def _is_power_of_ten(x: Number) -> bool:
    tens = x[2]  # 10^n is 5^n 2^n
    return not x[0] and 0 <= tens <= x[3] and x[1] == 5**tens


#: Where functions of numbers with finitely many bits have such values themselves: only there (Lindemann,
#: Weierstrass), as far as anybody knows of erf and erfc.  Elsewhere at 0 alone.
IS_EXACT: dict[str, Callable[[Number], bool]] = {
    "log": lambda x: _is_one(x) or _is_zero(x),
    "log2": lambda x: _is_power_of_two(x) or _is_zero(x),
    "log10": lambda x: _is_power_of_ten(x) or _is_zero(x),
    "acos": _is_one,
}


def _exp(x: Number, bits: int, mode: str) -> Number:
    """mpmath multiplies as often as x has bits, where x is whole and bits are many: we do not."""
    if _top(x) < 32:
        plain: Number = mpf_exp(x, bits, mode)
        return plain
    log2 = mpf_ln2(bits + _top(x) + GUARD)
    times = to_int(mpf_div(x, log2, _top(x) + GUARD))
    rest = mpf_sub(x, mpf_mul_int(log2, times, bits + _top(x) + GUARD), bits + GUARD)
    result: Number = mpf_shift(mpf_exp(rest, bits, mode), times)
    return result


def _expm1(x: Number, bits: int, mode: str) -> Number:
    lost = max(0, -_top(x))  # exp(x) - 1 cancels the bits above x
    if lost > bits + GUARD:  # x + x^2/2 + ...
        near: Number = mpf_perturb(x, 0, bits, mode)
        return near
    result: Number = mpf_sub(_exp(x, bits + lost + GUARD, mode), fone, bits, mode)
    return result


def _log1p(x: Number, bits: int, mode: str) -> Number:
    if -_top(x) > bits + GUARD:  # x - x^2/2 + ...
        near: Number = mpf_perturb(x, 1, bits, mode)
        return near
    exact = _top(x) <= bits + GUARD
    result: Number = mpf_log(
        mpf_add(fone, x) if exact else mpf_add(fone, x, bits + GUARD, mode), bits, mode
    )
    return result


def _log_of(base: int) -> Callable[[Number, int, str], Number]:
    def log(x: Number, bits: int, mode: str) -> Number:
        wide = bits + GUARD
        ratio: Number = mpf_div(
            mpf_log(x, wide, mode), mpf_log(from_int(base), wide, mode), bits, "n"
        )
        return ratio

    return log


def _sigmoid(x: Number, bits: int, mode: str) -> Number:
    wide = bits + GUARD
    below = mpf_add(fone, _exp(mpf_neg(x), wide, "u"), wide, "u")
    result: Number = mpf_div(fone, below, bits, mode)
    return result


def _erf(x: Number, bits: int, mode: str) -> Number:
    """Of large x it is 1 - erfc(x), which needs fewer bits than the Taylor series, whose terms are large."""
    if _top(x) < bits.bit_length():
        whole = to_int(mpf_abs(x))
        needed = bits - int(1.44 * whole * whole) + 4 * GUARD  # erfc(x) < exp(-x^2)
        if needed < bits // 2:
            below = mpf_erfc(mpf_abs(x), max(needed, GUARD), "n")
            near = mpf_sub(fone, below, bits, mode)
            return mpf_neg(near) if x[0] else near  # type: ignore[no-any-return]
    found: Number = mpf_erf(x, bits, mode)
    return found


def _erfc(x: Number, bits: int, mode: str) -> Number:
    """Of large x by the asymptotic series; its error is below its first term left out.

    Source: Abramowitz and Stegun 1964, 7.1.23 and 7.1.24.
    """
    if x[0]:
        above: Number = mpf_add(fone, _saturating(_erf)(mpf_abs(x), bits, mode), bits, mode)
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
    first = mpf_mul(_exp(mpf_neg(square), wide, mode), total, wide)
    result: Number = mpf_div(first, below, bits, mode)
    return result


def _of_exponentials(
    function: Callable[..., Any], sign: Callable[[Number], int]
) -> Callable[[Number, int, str], Number]:
    """The hyperbolic sine or cosine; where exp(-2 |x|) is below the last bit, exp |x| / 2."""

    def found(x: Number, bits: int, mode: str) -> Number:
        if _top(x) <= bits.bit_length() + 2:
            plain: Number = function(x, bits, mode)
            return plain
        half = mpf_shift(_exp(mpf_abs(x), bits, mode), -1)
        result: Number = mpf_neg(half) if sign(x) else half
        return result

    return found


def _saturating(function: Callable[..., Any]) -> Callable[[Number, int, str], Number]:
    """tanh or erf, which are 1 but for exp(-2 |x|) or less."""

    def found(x: Number, bits: int, mode: str) -> Number:
        if _top(x) <= bits.bit_length() + 2:
            plain: Number = function(x, bits, mode)
            return plain
        near: Number = mpf_perturb(fnone if x[0] else fone, 1 - x[0], bits, mode)
        return near

    return found


#: What may have a value with finitely many bits anywhere.
ALGEBRAIC: dict[str, Callable[..., Number]] = {"div": _quotient, "sqrt": _root, "pow": _power}

TRANSCENDENTAL: dict[str, Callable[..., Any]] = {
    "exp": _exp,
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
    "sinh": _of_exponentials(mpf_sinh, lambda x: x[0]),
    "cosh": _of_exponentials(mpf_cosh, lambda x: 0),
    "tanh": _saturating(mpf_tanh),
    "asinh": mpf_asinh,
    "erf": _saturating(_erf),
    "gelu_erf": _saturating(_erf),
    "erfc": _erfc,
    "sigmoid": _sigmoid,
}

#: The functions whose cost grows with the logarithm of their argument.
_GROWING = frozenset("exp expm1 sin cos tan sinh cosh erfc sigmoid".split())
