"""The numbers that probe a format: a huge pair that swamps units, and small ones that show a rounding."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from roundoff.errors import UnsupportedError
from roundoff.numbers.formats import FLOAT32, FLOAT64, Format
from roundoff.probing.recovery import Ids, NotATree

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Masks:
    """Probing numbers of a format.

    large >= n 2^p units, p that of the widest accumulator; at most `most` units are counted at a time.
    small: (1 + small) - 1 is 0 in the format, small in a wider accumulator.  near: the square of
    1 + near is 1 + 2 near + near^2, which takes one bit too many.
    """

    large: float
    unit: float
    most: int
    small: float
    near: float
    wide: Format


# float32 sums may be kept in float64, the 16-bit ones in float32.  float16 holds numbers from 2^-24 to
# 2^16 only: 2047 units of 2^-20 together stay below half a spacing of float32 at 1.5 2^15 (at 2^15 itself
# the spacing below is half of that above).
_MASKS = {
    "float64": Masks(2.0**200, 1.0, 2**52, 2.0**-60, 2.0**-27, FLOAT64),
    "float32": Masks(2.0**100, 1.0, 2**23, 2.0**-30, 2.0**-12, FLOAT64),
    "bfloat16": Masks(2.0**60, 1.0, 2**8, 2.0**-12, 2.0**-4, FLOAT32),
    "float16": Masks(1.5 * 2.0**15, 2.0**-20, 2**11 - 1, 2.0**-13, 2.0**-6, FLOAT32),
}


def masks(format: Format) -> Masks:
    """The probing numbers of a format.  Raises: UnsupportedError for one that has none."""
    if format.name not in _MASKS:
        raise UnsupportedError(
            f"kernels in {format} cannot be probed; use one of {', '.join(_MASKS)}"
        )
    return _MASKS[format.name]


def whole(counts: Array) -> Ids:
    """Counts as integers.  Raises: NotATree for a number that is no count."""
    nearest = np.rint(counts)
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(counts - nearest) <= 0.1) | ~(nearest >= 0) | (nearest > 2.0**53)
    if wrong.any():
        raise NotATree(
            f"{counts[wrong][0]:.6g} unit terms survive a huge pair, which is no count of terms"
        )
    return nearest.astype(np.int64)


def refuse_flushing(format: Format) -> None:
    """Refuse float16 where subnormal numbers are flushed to zero: probing it needs them.

    Raises: UnsupportedError where they are.
    """
    import torch

    if format.name == "float16" and not bool((torch.full((8,), 2.0**-127) * 0.5 != 0).all()):
        raise UnsupportedError(
            "subnormal numbers are flushed to zero (torch.set_flush_denormal), and float16 cannot be probed "
            "without them; switch that off"
        )
