"""What does not round: products by powers of two, and terms that are multiples of one grid.

Numbers that are multiples of a power of two, the grid, and whose magnitudes add up to at most 2^p grids have
all their partial sums, in any order, among the numbers of p bits: nothing is rounded, fused or not.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.numbers.formats import FLOAT64, Format

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_FRACTION = np.int64((1 << 52) - 1)


def powers_of_two(values: Any) -> Mask:
    """Whether numbers are 0 or +-2^k: a product by one keeps all bits, underflow aside.

    Float64's own subnormal numbers count as none.

    >>> powers_of_two([0.0, -1.0, 0.25, 3.0]).tolist()
    [True, True, True, False]
    """
    numbers = np.asarray(values, np.float64)
    fraction: Mask = (numbers.view(np.int64) & _FRACTION) == 0
    return fraction & np.isfinite(numbers)


def lowest_bits(values: Any) -> Array:
    """The largest power of two that each number is a multiple of; infinite for 0.

    >>> lowest_bits([12.0, 0.75, 0.0]).tolist()
    [4.0, 0.25, inf]
    """
    fraction, exponent = np.frexp(np.abs(np.asarray(values, np.float64)))
    whole = np.ldexp(fraction, FLOAT64.precision).astype(np.int64)
    lowest = np.ldexp((whole & -whole).astype(np.float64), exponent - FLOAT64.precision)
    return np.where(whole == 0, np.inf, lowest)


def without_rounding(size: Any, grid: Any, target: Format) -> Mask:
    """Whether terms on a grid, of magnitudes that add up to size in float64, are summed without error.

    Within 2^52 grids that float64 sum is exact as well.  Products are multiples of the product of the
    grids of their factors, and must not lose that to underflow.
    """
    most = min(2.0**target.precision, 2.0 ** (FLOAT64.precision - 1))
    with np.errstate(all="ignore"):
        fits: Mask = np.asarray(
            (size <= most * grid) & (size < target.max) & (grid >= target.smallest_subnormal)
        )
    return fits
