"""The elementwise functions: one record each, with everything that is known of it."""

from __future__ import annotations

import operator
from math import inf
from typing import Any

import numpy as np
from flint import arb
from mpmath import libmp
from mpmath.libmp import fone, fzero
from scipy import special

from roundoff.errors import undecided_comparison
from roundoff.numbers.formats import Format
from roundoff.trace.functions import high_precision as precise
from roundoff.trace.functions import slopes
from roundoff.trace.functions.high_precision import transcendental
from roundoff.trace.functions.record import Function, Kind, Rule

#: Ulps of the functions that torch and numpy call, checked in tests/arithmetic/test_elementwise.py against
#: torch's own.  + - * / are rounded correctly.
CORRECT = 0.5
#: SLEEF states 1.0 ulp for its vectorised ones.
SLEEF = 1.0
#: The GNU C library's table of known maximum errors has 2 ulp for those where it has the most.
GLIBC = 2.0

#: float64's own ones are within 4 ulp: what numpy's vectorised functions promise.
NUMPY = 4.0


def _sigmoid_of_ball(x: arb) -> arb:
    """Without overflow on either side."""
    if x < 0:
        small = x.exp()
        return small / (1 + small)
    return 1 / (1 + (-x).exp())


def _absolute_of_sigmoid(format: Format) -> float:
    """Where exp(-x) overflows, torch's sigmoid is 0 and the exact one a subnormal number."""
    return 2.0**-126 if format.precision <= 24 else format.smallest_normal


def _absolute_of_erf(format: Format) -> float:
    """torch's erf of 16-bit numbers comes from a polynomial for large arguments.

    3.26e-7 is the largest over all of them: tests/arithmetic/test_elementwise.py.
    """
    return 2.0**-21 if format.precision < 24 else 0.0


def _absolute_of_gelu_erf(format: Format) -> float:
    """oneDNN's GELU takes erf from a polynomial, up to float32.

    Abramowitz and Stegun, 7.1.26, errs by 1.5e-7 and its evaluation by a few u.
    """
    return 2.0**-20 if format.precision <= 24 else 0.0


def _bell(x: Any, y: Any) -> Any:
    return 2.0 / np.sqrt(np.pi) * np.exp(-x * x)


def _comparison(
    name: str, sides: str, float64: Rule, mpmath: Rule, holds: Rule, fails: Rule
) -> Function:
    """Of balls it is undecided where it neither holds nor fails."""

    def decided(x: arb, y: arb) -> bool:
        if holds(x, y):
            return True
        if fails(x, y):
            return False
        raise undecided_comparison(x.str(12), y.str(12))

    return Function(
        name, 2, Kind.COMPARISON, sides=sides, float64=float64, mpmath=mpmath, arb=decided
    )


# fmt: off
RECORDS = (
    Function("add", 2, Kind.SUM, "all", float64=np.add, float64_ulp=0.5, ulp=CORRECT, arb=arb.__add__),
    Function("sub", 2, Kind.SUM, "all", float64=np.subtract, float64_ulp=0.5, ulp=CORRECT, arb=arb.__sub__),
    Function(
        "mul", 2, Kind.PRODUCT, "any", float64=np.multiply, float64_ulp=0.5, ulp=CORRECT, arb=arb.__mul__,
    ),
    Function(
        "div", 2, Kind.QUOTIENT, "first", float64=np.divide, float64_ulp=0.5, ulp=CORRECT,
        mpmath=precise.quotient, arb=arb.__truediv__,
    ),
    Function(
        "pow", 2, Kind.POWER, float64=np.power, float64_ulp=NUMPY, ulp=SLEEF, limits=False,
        mpmath=precise.power, work_grows=True, arb=lambda x, y: x**y, domain=(0.0, inf),
        slopes=(lambda x, y, z: y * z / x, lambda x, y, z: np.log(x) * z),
    ),
    Function("cast", 1, Kind.CAST, "all"),
    Function(
        "neg", 1, Kind.REFLECTION, "all", float64=np.negative, mpmath=libmp.mpf_neg, arb=arb.__neg__,
        slopes=(lambda x, y: -1.0,),
    ),
    # x itself, of steps that kernels may take otherwise.
    Function(
        "reference_only", 1, Kind.REFLECTION, "all", float64=np.positive, mpmath=lambda x: x, arb=arb.__pos__,
        slopes=(lambda x, y: 1.0,), bounded=False,
    ),
    Function(
        "abs", 1, Kind.REFLECTION, "all", float64=np.abs, mpmath=libmp.mpf_abs, arb=abs,
        slopes=(lambda x, y: np.sign(x),), sides=">=",
    ),
    Function(
        "sign", 1, Kind.SIGN, "all", float64=np.sign, mpmath=lambda x: libmp.from_int(libmp.mpf_sign(x)),
        arb=arb.sgn, sides=">=",
    ),
    Function(
        "maximum", 2, Kind.EXTREME, "all", float64=np.maximum, takes_first=np.greater_equal,
        mpmath=lambda x, y: x if libmp.mpf_ge(x, y) else y, arb=arb.max, sides=">=",
    ),
    Function(
        "minimum", 2, Kind.EXTREME, "all", float64=np.minimum, takes_first=np.less_equal,
        mpmath=lambda x, y: x if libmp.mpf_le(x, y) else y, arb=arb.min, sides=">=",
    ),
    Function("where", 3, Kind.SELECTION, "branches", float64=np.where),
    _comparison("gt", ">", np.greater, libmp.mpf_gt, arb.__gt__, arb.__le__),
    _comparison("ge", ">=", np.greater_equal, libmp.mpf_ge, arb.__ge__, arb.__lt__),
    _comparison("lt", "<", np.less, libmp.mpf_lt, arb.__lt__, arb.__ge__),
    _comparison("le", "<=", np.less_equal, libmp.mpf_le, arb.__le__, arb.__gt__),
    _comparison("eq", "==", np.equal, operator.eq, arb.__eq__, arb.__ne__),
    _comparison("ne", "!=", np.not_equal, operator.ne, arb.__ne__, arb.__eq__),
    Function("logical_and", 2, Kind.LOGICAL, float64=np.logical_and, absorbing=False),
    Function("logical_or", 2, Kind.LOGICAL, float64=np.logical_or, absorbing=True),
    Function("logical_not", 1, Kind.LOGICAL, float64=np.logical_not),
    # Of arrays it is MKL's vectorised one, below 1 ulp and not always the nearest; with a quotient it
    # stands for rsqrt, for which CUDA states 2.
    Function(
        "sqrt", 1, Kind.ELEMENTARY, "all", float64=np.sqrt, float64_ulp=NUMPY, ulp=1.5, limits=True,
        mpmath=precise.root, arb=arb.sqrt, domain=(0.0, inf), slopes=(lambda x, y: 0.5 / y,),
        steepest=(slopes.above(0.0, lambda low: 0.5 / np.sqrt(low)),), modulus=np.sqrt,
    ),
    Function(
        "exp", 1, Kind.ELEMENTARY, float64=np.exp, float64_ulp=NUMPY, ulp=SLEEF, limits=True,
        mpmath=transcendental(precise.exp), work_grows=True, arb=arb.exp, value_grows=True,
        slopes=(lambda x, y: y,), steepest=(lambda low, high: np.exp(high),),
    ),
    Function(
        "expm1", 1, Kind.ELEMENTARY, "all", float64=np.expm1, float64_ulp=NUMPY, ulp=SLEEF, limits=True,
        mpmath=transcendental(precise.expm1), work_grows=True, arb=arb.expm1, value_grows=True,
        slopes=(lambda x, y: y + 1.0,), steepest=(lambda low, high: np.exp(high),),
    ),
    Function(
        "log", 1, Kind.ELEMENTARY, float64=np.log, float64_ulp=NUMPY, ulp=SLEEF, limits=True,
        mpmath=transcendental(libmp.mpf_log, lambda x: x in (fone, fzero)), arb=arb.log, domain=(0.0, inf),
        slopes=(lambda x, y: 1.0 / x,), steepest=(slopes.above(0.0, lambda low: 1.0 / low),),
    ),
    Function(
        "log1p", 1, Kind.ELEMENTARY, "all", float64=np.log1p, float64_ulp=NUMPY, ulp=SLEEF, limits=True,
        mpmath=transcendental(precise.log1p), arb=arb.log1p, domain=(-1.0, inf),
        slopes=(lambda x, y: 1.0 / (1.0 + x),),
        steepest=(slopes.above(-1.0, lambda low: 1.0 / (1.0 + low)),),
    ),
    Function(
        "log2", 1, Kind.ELEMENTARY, float64=np.log2, float64_ulp=NUMPY, ulp=SLEEF, limits=True,
        mpmath=transcendental(precise.log_of(2), precise.is_power_of_two_or_zero),
        arb=lambda x: x.log() / arb.const_log2(), domain=(0.0, inf),
        slopes=(lambda x, y: 1.0 / (x * np.log(2.0)),),
        steepest=(slopes.above(0.0, lambda low: 1.0 / low / np.log(2.0)),),
    ),
    Function(
        "log10", 1, Kind.ELEMENTARY, float64=np.log10, float64_ulp=NUMPY, ulp=GLIBC, limits=True,
        mpmath=transcendental(precise.log_of(10), precise.is_power_of_ten_or_zero),
        arb=lambda x: x.log() / arb.const_log10(), domain=(0.0, inf),
        slopes=(lambda x, y: 1.0 / (x * np.log(10.0)),),
        steepest=(slopes.above(0.0, lambda low: 1.0 / low / np.log(10.0)),),
    ),
    Function(
        "sin", 1, Kind.ELEMENTARY, "all", float64=np.sin, float64_ulp=NUMPY, ulp=SLEEF, limits=True,
        mpmath=transcendental(libmp.mpf_sin), work_grows=True, arb=arb.sin,
        slopes=(lambda x, y: np.cos(x),), steepest=(slopes.of_wave(np.cos),),
    ),
    Function(
        "cos", 1, Kind.ELEMENTARY, float64=np.cos, float64_ulp=NUMPY, ulp=SLEEF, limits=True,
        mpmath=transcendental(libmp.mpf_cos), work_grows=True, arb=arb.cos,
        slopes=(lambda x, y: -np.sin(x),), steepest=(slopes.of_wave(np.sin),),
    ),
    Function(
        "tan", 1, Kind.ELEMENTARY, "all", float64=np.tan, float64_ulp=NUMPY, ulp=SLEEF, limits=True,
        mpmath=transcendental(libmp.mpf_tan), work_grows=True, arb=arb.tan,
        slopes=(lambda x, y: 1.0 + y * y,), steepest=(slopes.of_tangent,),
    ),
    Function(
        "asin", 1, Kind.ELEMENTARY, "all", float64=np.arcsin, float64_ulp=NUMPY, ulp=SLEEF, limits=True,
        mpmath=transcendental(libmp.mpf_asin), arb=arb.asin, domain=(-1.0, 1.0),
        slopes=(lambda x, y: 1.0 / np.sqrt(1.0 - x * x),), steepest=(slopes.of_arcs,),
    ),
    Function(
        "acos", 1, Kind.ELEMENTARY, float64=np.arccos, float64_ulp=NUMPY, ulp=SLEEF, limits=True,
        mpmath=transcendental(libmp.mpf_acos, lambda x: x == fone), arb=arb.acos, domain=(-1.0, 1.0),
        slopes=(lambda x, y: -1.0 / np.sqrt(1.0 - x * x),), steepest=(slopes.of_arcs,),
    ),
    Function(
        "atan", 1, Kind.ELEMENTARY, "all", float64=np.arctan, float64_ulp=NUMPY, ulp=SLEEF,
        limits=False,  # pi / 2
        mpmath=transcendental(libmp.mpf_atan), arb=arb.atan, slopes=(lambda x, y: 1.0 / (1.0 + x * x),),
        steepest=(lambda low, high: 1.0 / (1.0 + slopes.near(low, high) ** 2),),
    ),
    Function(
        "sinh", 1, Kind.ELEMENTARY, "all", float64=np.sinh, float64_ulp=NUMPY, ulp=GLIBC, limits=True,
        mpmath=transcendental(precise.of_exponentials(libmp.mpf_sinh, lambda x: x[0])), work_grows=True,
        arb=arb.sinh, value_grows=True, slopes=(lambda x, y: np.cosh(x),),
        steepest=(lambda low, high: np.cosh(slopes.far(low, high)),),
    ),
    Function(
        "cosh", 1, Kind.ELEMENTARY, float64=np.cosh, float64_ulp=NUMPY, ulp=GLIBC, limits=True,
        mpmath=transcendental(precise.of_exponentials(libmp.mpf_cosh, lambda x: 0)), work_grows=True,
        arb=arb.cosh, value_grows=True, slopes=(lambda x, y: np.sinh(x),),
        steepest=(lambda low, high: np.sinh(slopes.far(low, high)),),
    ),
    Function(
        "tanh", 1, Kind.ELEMENTARY, "all", float64=np.tanh, float64_ulp=NUMPY, ulp=GLIBC, limits=True,
        mpmath=transcendental(precise.saturating(libmp.mpf_tanh)), arb=arb.tanh,
        slopes=(lambda x, y: 1.0 - y * y,),
        steepest=(lambda low, high: 1.0 / np.cosh(np.minimum(slopes.near(low, high), 700.0)) ** 2,),
    ),
    Function(
        "asinh", 1, Kind.ELEMENTARY, "all", float64=np.arcsinh, float64_ulp=NUMPY, ulp=GLIBC, limits=True,
        mpmath=transcendental(libmp.mpf_asinh), arb=arb.asinh,
        slopes=(lambda x, y: 1.0 / np.sqrt(1.0 + x * x),),
        steepest=(lambda low, high: 1.0 / np.hypot(1.0, slopes.near(low, high)),),
    ),
    Function(
        "erf", 1, Kind.ELEMENTARY, "all", float64=special.erf, float64_ulp=NUMPY, ulp=SLEEF,
        absolute=_absolute_of_erf, limits=True,
        mpmath=transcendental(precise.saturating(precise.erf)), arb=arb.erf,
        slopes=(_bell,), steepest=(slopes.of_bell,),
    ),
    # erf, as GELU's kernels approximate it.
    Function(
        "gelu_erf", 1, Kind.ELEMENTARY, "all", float64=special.erf, float64_ulp=NUMPY, ulp=2.0,
        absolute=_absolute_of_gelu_erf, limits=True,
        mpmath=transcendental(precise.saturating(precise.erf)), arb=arb.erf,
        slopes=(_bell,), steepest=(slopes.of_bell,),
    ),
    # SLEEF states 1.5; the GNU C library's was within 4.5 in 10^10 samples of [-5, 5] (commit acaad9ab, which
    # replaces it).  scipy's rounds x x, up to 745, before it takes the exponential (33 ulp measured up to 8,
    # 507 to 26.5).
    Function(
        "erfc", 1, Kind.ELEMENTARY, float64=special.erfc, float64_ulp=1024.0, ulp=5.0, limits=True,
        mpmath=transcendental(precise.erfc), work_grows=True, arb=arb.erfc,
        slopes=(lambda x, y: -_bell(x, y),), steepest=(slopes.of_bell,),
    ),
    # An exponential, a sum and a quotient: 1.97 measured in float32.
    Function(
        "sigmoid", 1, Kind.ELEMENTARY, float64=special.expit, float64_ulp=NUMPY, ulp=2.5,
        absolute=_absolute_of_sigmoid, usual=1.65, limits=True,  # 1 / (1 + exp(-x)), rounded thrice
        mpmath=transcendental(precise.sigmoid), work_grows=True, arb=_sigmoid_of_ball,
        slopes=(lambda x, y: y * (1.0 - y),), steepest=(slopes.of_sigmoid,),
    ),
)
# fmt: on
