"""Derivatives of the elementwise functions, and how many ulp a library's version of each errs by."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.numbers.formats import Format

Array = npt.NDArray[np.float64]

#: Largest error of the elementary functions that torch and numpy call, in ulp of the format.  SLEEF's
#: vectorised ones state 1.0, and 1.5 for erfc; the GNU C library's table of known maximum errors has 2 for
#: those with a 2 here, and its erfc was within 4.5 in 10^10 samples of [-5, 5] (commit acaad9ab, which
#: replaces it); sigmoid is an exponential, a sum and a quotient (1.97 measured in float32).
#: sqrt of arrays is MKL's vectorised one, below 1 and not always the nearest; with a quotient it stands
#: for rsqrt, for which CUDA states 2.  Checked in tests/arithmetic/test_elementwise.py against torch's own.
#: Everything else, + - * /, is rounded correctly.
ULP: dict[str, float] = {
    **dict.fromkeys("exp expm1 log log1p log2 sin cos tan asin acos atan erf pow".split(), 1.0),
    **dict.fromkeys("log10 sinh cosh tanh asinh".split(), 2.0),
    "sqrt": 1.5, "gelu_erf": 2.0, "sigmoid": 2.5, "erfc": 5.0,
}  # fmt: skip

#: Absolute errors beside.  torch's erf of 16-bit numbers comes from a polynomial for large arguments
#: (3.26e-7 is the largest over all of them: tests/arithmetic/test_elementwise.py).  oneDNN's GELU takes
#: erf from a polynomial, up to float32: Abramowitz and Stegun, 7.1.26, errs by 1.5e-7 and its evaluation
#: by a few u.
ABSOLUTE_16 = {"erf": 2.0**-21}
ABSOLUTE_32 = {"gelu_erf": 2.0**-20}


def ulp_of(function: str, format: Format) -> float:
    """How many ulp of the format the function errs by.

    Formats narrower than float32 are computed in float32 and rounded: half an ulp and little more.
    """
    lost = ULP[function]
    return lost if format.precision >= 24 else 0.5 + lost * 2.0 ** (format.precision - 24)


def absolute_of(function: str, format: Format) -> float:
    """What the function errs by besides.

    Where exp(-x) overflows, torch's sigmoid is 0 and the exact one a subnormal number.
    """
    if function == "sigmoid":
        return 2.0**-126 if format.precision <= 24 else format.smallest_normal
    if format.precision > 24:
        return 0.0
    return ABSOLUTE_32.get(
        function, ABSOLUTE_16.get(function, 0.0) if format.precision < 24 else 0.0
    )


def _near(low: Array, high: Array) -> Array:
    """The smallest magnitude in an interval."""
    found: Array = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
    return found


def _far(low: Array, high: Array) -> Array:
    found: Array = np.maximum(np.abs(low), np.abs(high))
    return found


def _above(low: Array, limit: float, value: Callable[[], Any]) -> Any:
    return np.where(low > limit, value(), np.inf)


def _arc_slope(far: Array) -> Any:
    return np.where(far < 1.0, 1.0 / np.sqrt((1.0 - far) * (1.0 + far)), np.inf)


def _sigmoid_slope(x: Array) -> Array:
    small = np.exp(-x)
    result: Array = small / (1.0 + small) ** 2
    return result


def _tan_slope(low: Array, high: Array) -> Array:
    # Between poles a tangent grows; across one, less than pi wide, it falls.
    first, last = np.tan(low), np.tan(high)
    inside = (high - low < 3.0) & (first <= last + 2.0**-50 * np.abs(last))
    result: Array = np.where(inside, 1.0 + np.maximum(first**2, last**2), np.inf)
    return result


def _wave(shape: Callable[[Any], Any]) -> Callable[[Array, Array], Array]:
    # The slope of a sine is at most 1, and changes by at most the distance.
    def slope(low: Array, high: Array) -> Array:
        middle = low + (high - low) / 2
        distance = np.maximum(high - middle, middle - low)
        found: Array = np.abs(shape(middle)) + distance + 2.0**-50
        return np.fmin(1.0, found)  # also where an end is infinite, and the middle no number

    return slope


def _bell(low: Array, high: Array) -> Array:
    found: Array = 2.0 / np.sqrt(np.pi) * np.exp(-(_near(low, high) ** 2))
    return found


#: The largest |f'| on an interval [low, high]; infinite where the interval leaves the domain.
STEEPEST: dict[str, Callable[[Array, Array], Any]] = {
    "exp": lambda low, high: np.exp(high),
    "expm1": lambda low, high: np.exp(high),
    "log": lambda low, high: _above(low, 0.0, lambda: 1.0 / low),
    "log1p": lambda low, high: _above(low, -1.0, lambda: 1.0 / (1.0 + low)),
    "log2": lambda low, high: _above(low, 0.0, lambda: 1.0 / low / np.log(2.0)),
    "log10": lambda low, high: _above(low, 0.0, lambda: 1.0 / low / np.log(10.0)),
    "sqrt": lambda low, high: _above(low, 0.0, lambda: 0.5 / np.sqrt(low)),
    "sin": _wave(np.cos),
    "cos": _wave(np.sin),
    "tan": _tan_slope,
    "asin": lambda low, high: _arc_slope(_far(low, high)),
    "acos": lambda low, high: _arc_slope(_far(low, high)),
    "atan": lambda low, high: 1.0 / (1.0 + _near(low, high) ** 2),
    "sinh": lambda low, high: np.cosh(_far(low, high)),
    "cosh": lambda low, high: np.sinh(_far(low, high)),
    "tanh": lambda low, high: 1.0 / np.cosh(np.minimum(_near(low, high), 700.0)) ** 2,
    "asinh": lambda low, high: 1.0 / np.hypot(1.0, _near(low, high)),
    **dict.fromkeys(("erf", "gelu_erf", "erfc"), _bell),
    "sigmoid": lambda low, high: _sigmoid_slope(_near(low, high)),
}  # fmt: skip
