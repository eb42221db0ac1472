"""Special functions: records of the gamma function's family, inverse error functions and Bessel functions.

Errors of torch's kernels were measured against 60 digits over their domains, 3000 arguments in each type; the
records state about twice the largest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mpmath
import numpy as np
from flint import arb
from mpmath.libmp import fone, from_int, fzero
from scipy import special

from roundoff.numbers.formats import Format
from roundoff.trace.functions import slopes
from roundoff.trace.functions.high_precision import Number, to_odd, transcendental
from roundoff.trace.functions.record import Function, Kind

#: Of its own, as mpmath's is not ours; references are made one at a time.
_CONTEXT = mpmath.MPContext()

#: Bits beyond those asked for, and of a value so small that its terms have cancelled.
_GUARD, _SMALL = 40, 20


def _by_mpmath(function: Callable[..., Any]) -> Callable[..., Number]:
    """A function of mpmath's numbers (and context) in the manner of libmp."""

    def found(*arguments: Any) -> Number:
        *numbers, bits, _ = arguments
        prec = bits + _GUARD
        for _ in range(2):
            _CONTEXT.prec = prec
            value = function(*map(_CONTEXT.make_mpf, numbers))
            number: Number = value._mpf_
            lost = -(number[2] + number[3]) if number[1] else 0
            if lost < _SMALL:
                break
            prec = bits + _GUARD + lost
        return number

    return found


def _lgamma(x: Any) -> Any:
    found = _CONTEXT.loggamma(x)
    return found.real if isinstance(found, _CONTEXT.mpc) else found


def _lgamma_of_ball(x: arb) -> arb:
    if x > 0:
        return x.lgamma()
    return (arb.pi() / (arb.pi() * x).sin()).__abs__().log() - (1 - x).lgamma()


def _ndtri(p: Any) -> Any:
    """Of a small probability it needs the bits above it."""
    if p <= 0 or p >= 1:
        raise ValueError
    _CONTEXT.prec += max(0, -int(_CONTEXT.mag(p)), -int(_CONTEXT.mag(1 - p)))
    return _CONTEXT.sqrt(2) * _CONTEXT.erfinv(2 * p - 1)


def _erfinv(x: Any) -> Any:
    if abs(x) >= 1:
        raise ValueError
    _CONTEXT.prec += max(0, -int(_CONTEXT.mag(1 - abs(x))))
    return _CONTEXT.erfinv(x)


def _small_of_gamma(format: Format) -> float:
    """Near its zeros lgamma's terms cancel; they are of the size of 1."""
    return 8.0 * format.u


def _small_of_digamma(format: Format) -> float:
    """Its terms, up to log 10, cancel near the zero at 1.4616; float32's kernel adds up 10 of them."""
    return 64.0 * format.u if format.precision >= 24 else 2.0**-17


def _growing(slope: Any) -> Any:
    """A slope whose size falls or grows on the positive numbers: the larger one at the ends."""

    def steepest(low: Any, high: Any) -> Any:
        with np.errstate(all="ignore"):
            found = np.maximum(np.abs(slope(low)), np.abs(slope(high))) * (1 + 2.0**-40)
            return np.where((low > 0) & np.isfinite(found), found, np.inf)

    return steepest


def _even_growing(slope: Any) -> Any:
    """A slope whose size grows with |x|."""

    def steepest(low: Any, high: Any) -> Any:
        with np.errstate(all="ignore"):
            return np.abs(slope(slopes.far(low, high))) * (1 + 2.0**-40)

    return steepest


def _of_scaled(slope: Any, most: float) -> Any:
    """A slope that changes by at most 3/2 of the distance on either side of 0, and is `most` at most."""

    def steepest(low: Any, high: Any) -> Any:
        middle = low + (high - low) / 2
        found = np.abs(slope(middle)) + 1.5 * np.maximum(high - middle, middle - low) + 2.0**-50
        return np.where((low < 0) & (high > 0), most, np.fmin(most, found))

    return steepest


def _d_lgamma(x: Any, y: Any = None) -> Any:
    return special.digamma(x)


def _d_digamma(x: Any, y: Any = None) -> Any:
    return special.zeta(2.0, x)


def _d_trigamma(x: Any, y: Any = None) -> Any:
    return -2.0 * special.zeta(3.0, x)


def _cut_off(format: Format) -> float:
    """torch's kernel leaves out what follows 1 / (42 x^7), from x = 6.5 on, in all types: 1 / (30 x^9)."""
    return 2.0**-29 if format.precision > 24 else 0.0


def _d_erfinv(x: Any, y: Any = None) -> Any:
    return np.sqrt(np.pi) / 2 * np.exp(special.erfinv(x) ** 2)


def _d_ndtri(p: Any, y: Any = None) -> Any:
    return np.sqrt(2 * np.pi) * np.exp(special.ndtri(p) ** 2 / 2)


def _d_i0e(x: Any, y: Any = None) -> Any:
    return special.i1e(x) - np.sign(x) * special.i0e(x)


def _over(f: Any, x: Any) -> Any:
    """f / x, 1/2 at 0."""
    return np.where(x == 0, 0.5, f / np.where(x == 0, 1.0, x))


def _d_i1(x: Any, y: Any = None) -> Any:
    return special.i0(x) - _over(special.i1(x), x)


def _d_i1e(x: Any, y: Any = None) -> Any:
    return special.i0e(x) - _over(special.i1e(x), x) - np.sign(x) * special.i1e(x)


def _d_erfcx(x: Any, y: Any = None) -> Any:
    return 2 * x * special.erfcx(x) - 2 / np.sqrt(np.pi)


def _at_ends(slope: Any, least: float, most: float) -> Any:
    """A slope that is steepest at the ends of a box, inside an open domain."""

    def steepest(low: Any, high: Any) -> Any:
        with np.errstate(all="ignore"):
            found = np.maximum(np.abs(slope(low)), np.abs(slope(high))) * (1 + 2.0**-30)
            return np.where((low > least) & (high < most) & np.isfinite(found), found, np.inf)

    return steepest


def _of(function: Any, exact_at: Any = None) -> Any:
    by = _by_mpmath(function)
    return transcendental(by) if exact_at is None else transcendental(by, exact_at)


def _never(x: Number) -> bool:
    return False


def _odd(x: arb, size: arb) -> arb:
    return x.sgn() * size


def _zeta(s: Number, q: Number, bits: int) -> Number:
    """Hurwitz's, of a whole number s; never exact, as far as anybody knows."""
    if q == fzero or q[0]:
        raise ValueError
    found = _by_mpmath(lambda a, b: _CONTEXT.zeta(int(a), b))
    return to_odd(found(s, q, bits, "d"), bits)


# fmt: off
SPECIAL = (
    Function(
        "lgamma", 1, Kind.ELEMENTARY, float64=special.gammaln, float64_ulp=64.0, ulp=4.0,
        absolute=_small_of_gamma, limits=False,
        mpmath=_of(_lgamma, lambda x: x in (fone, from_int(2))), arb=_lgamma_of_ball,
        slopes=(_d_lgamma,), steepest=(_growing(_d_lgamma),),
    ),
    Function(
        "digamma", 1, Kind.ELEMENTARY, float64=special.digamma, float64_ulp=64.0, ulp=64.0,
        absolute=_small_of_digamma, limits=False, mpmath=_of(lambda x: _CONTEXT.psi(0, x), _never),
        arb=arb.digamma, domain=(0.0, np.inf), slopes=(_d_digamma,), steepest=(_growing(_d_digamma),),
    ),
    Function(
        "trigamma", 1, Kind.ELEMENTARY, float64=lambda x: special.zeta(2.0, x), float64_ulp=64.0, ulp=16.0,
        absolute=_cut_off, limits=False, mpmath=_of(lambda x: _CONTEXT.psi(1, x), _never),
        arb=lambda x: arb(2).zeta(x), domain=(0.0, np.inf), slopes=(_d_trigamma,),
        steepest=(_growing(_d_trigamma),),
    ),
    # The first operand is a whole number, which nothing rounds: there is no slope by it.
    Function(
        "special_zeta", 2, Kind.ELEMENTARY, float64=special.zeta, float64_ulp=64.0, ulp=32.0, limits=False,
        mpmath=_zeta, arb=lambda s, q: s.zeta(q), domain=(0.0, np.inf),
        slopes=(lambda s, q, y: 0.0 * q, lambda s, q, y: -s * special.zeta(s + 1, q)),
        steepest=(
            lambda s, s_high, q, q_high: 0.0 * q,
            lambda s, s_high, q, q_high: np.where(q > 0, s_high * special.zeta(s + 1, q), np.inf),
        ),
    ),
    Function(
        "erfinv", 1, Kind.ELEMENTARY, "all", float64=special.erfinv, float64_ulp=16.0, ulp=2.0,
        limits=False, mpmath=_of(_erfinv), arb=arb.erfinv, domain=(-1.0, 1.0),
        slopes=(_d_erfinv,), steepest=(_at_ends(_d_erfinv, -1.0, 1.0),),
    ),
    Function(
        "special_ndtri", 1, Kind.ELEMENTARY, float64=special.ndtri, float64_ulp=32.0, ulp=8.0,
        absolute=lambda f: 8.0 * f.u, limits=False,
        mpmath=_of(_ndtri, lambda x: x == (0, 1, -1, 1)),
        arb=lambda p: -arb(2).sqrt() * (2 * p).erfcinv(), domain=(0.0, 1.0),
        slopes=(_d_ndtri,), steepest=(_at_ends(_d_ndtri, 0.0, 1.0),),
    ),
    Function(
        "i0", 1, Kind.ELEMENTARY, float64=special.i0, float64_ulp=32.0, ulp=12.0, limits=False,
        mpmath=_of(lambda x: _CONTEXT.besseli(0, x)), work_grows=True, arb=lambda x: x.bessel_i(0),
        value_grows=True, slopes=(lambda x, y: special.i1(x),), steepest=(_even_growing(special.i1),),
    ),
    Function(
        "special_i0e", 1, Kind.ELEMENTARY, float64=special.i0e, float64_ulp=32.0, ulp=16.0, limits=False,
        absolute=lambda f: 16 * f.u if f.precision < 24 else 0.0,  # of single elements, all in 16 bits
        mpmath=_of(lambda x: _CONTEXT.besseli(0, x) * _CONTEXT.exp(-abs(x))), work_grows=True,
        arb=lambda x: abs(x).bessel_i(0, scaled=True), slopes=(_d_i0e,), steepest=(_of_scaled(_d_i0e, 1.0),),
    ),
    Function(
        "special_i1", 1, Kind.ELEMENTARY, "all", float64=special.i1, float64_ulp=32.0, ulp=32.0, limits=False,
        mpmath=_of(lambda x: _CONTEXT.besseli(1, x)), work_grows=True, arb=lambda x: x.bessel_i(1),
        value_grows=True, slopes=(_d_i1,), steepest=(_even_growing(_d_i1),),
    ),
    Function(
        "special_i1e", 1, Kind.ELEMENTARY, "all", float64=special.i1e, float64_ulp=32.0, ulp=24.0,
        limits=False, mpmath=_of(lambda x: _CONTEXT.besseli(1, x) * _CONTEXT.exp(-abs(x))), work_grows=True,
        arb=lambda x: _odd(x, abs(x).bessel_i(1, scaled=True)), slopes=(_d_i1e,),
        steepest=(_of_scaled(_d_i1e, 0.5),),
    ),
    Function(
        # Of negative numbers it is made of exp(x x), whose argument is rounded, up to 708.
        "special_erfcx", 1, Kind.ELEMENTARY, float64=special.erfcx, float64_ulp=1024.0, ulp=1024.0,
        limits=False,
        mpmath=_of(lambda x: _CONTEXT.exp(x * x) * _CONTEXT.erfc(x)), work_grows=True,
        arb=lambda x: (x * x).exp() * x.erfc(), slopes=(_d_erfcx,),
        steepest=(lambda low, high: np.abs(_d_erfcx(low)) * (1 + 2.0**-30),),
    ),
)
# fmt: on
