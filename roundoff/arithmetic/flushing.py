"""What is lost in kernels that flush subnormals: they read, keep or return them as zero.

Instructions that do so (VDPBF16PS, or all of them under set_flush_denormal) lose at most the smallest normal
number in each operand and in each result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from roundoff.arithmetic.enclosed import Enclosed, exact
from roundoff.kernels.facts import Place

#: A loss below this part of all errors is taken for granted; no kernel is asked.
NEGLIGIBLE = 2.0**-20


def read(operand: Enclosed, least: float) -> Enclosed:
    """An operand of which numbers below `least` may be read as zero."""
    low = np.abs(operand.value) - operand.own - operand.error
    small = (low < least) & (np.asarray(operand.computed) > 0)
    if not small.any():
        return operand
    lost = np.where(small, np.minimum(operand.computed, least), 0.0)
    return replace(operand, error=operand.error + lost)


def reach(n: int, operands: Sequence[Enclosed], place: Place) -> float:
    """An upper bound of what a sum of n terms or products can lose by flushing; 0.0 if nothing."""
    least = place.own.smallest_normal
    floors = [_floor(operand) for operand in operands]
    unit = 1.0
    for floor in floors:
        unit *= floor * 2.0**-place.wide.precision
    if min(floors) >= least and unit >= max(least, place.wide.smallest_normal):
        return 0.0  # all numbers are whole multiples of `unit`, and so are their sums
    with np.errstate(all="ignore"):
        sizes = [float(np.max(o.computed, initial=0.0)) for o in operands]
    others = sum(sizes) + 2.0 * least if len(operands) > 1 else 1.0
    lost = 2.0 * n * (place.wide.smallest_normal + least * others)
    return lost * (1.0 + n * place.wide.u) + place.result.smallest_normal


def _floor(operand: Enclosed) -> float:
    """The smallest of the numbers that are not zero, 0.0 where it is not known."""
    if not exact(operand.own) or not exact(operand.error):
        return 0.0
    sizes = np.abs(np.asarray(operand.value, np.float64))
    return float(np.min(sizes, where=sizes > 0, initial=np.inf))


def taken_for_granted(found: Enclosed, loss: float) -> Enclosed | None:
    """The result with this loss added, if that is negligible beside its errors; else None."""
    errors: Any = np.broadcast_to(found.error, np.shape(found.value))
    if not errors.size or loss > NEGLIGIBLE * float(errors.min()):
        return None
    return replace(found, error=errors + loss)
