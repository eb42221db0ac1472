"""Which operations lose no bits: x 2^k, x / 2^k, x + 0, sums on a grid, results that the format holds.

An operand counts as a power of two or as zero only where it is known: where its own radius and its error are
zero, so that every computed value is that number.  The other operand may be any number of the format.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.enclosed import Enclosed, exact
from roundoff.bounds.exactness import lowest_bits, powers_of_two, without_rounding
from roundoff.numbers.formats import FLOAT64, Format, round_to
from roundoff.numbers.machines import two_product, two_sum
from roundoff.trace.functions import Function, Kind

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

#: + - * /
_ARITHMETIC = (Kind.SUM, Kind.PRODUCT, Kind.QUOTIENT)


def known(a: Enclosed) -> Any:
    """Where every computed value is `value`."""
    return np.equal(a.own, 0) & np.equal(a.error, 0)


def given(a: Enclosed) -> bool:
    """Whether all elements are known exactly, as inputs are and moves of inputs."""
    return exact(a.own) and exact(a.error)


def known_powers(a: Enclosed) -> Any:
    """Where every computed value is the same power of two, or zero."""
    return powers_of_two(a.value) & known(a)


def kept(function: Function, operands: Sequence[Enclosed], target: Format) -> Any:
    """Where a map returns an operand's bits, scaled by a power of two at most, if it does not overflow.

    What is scaled must stay among the normal numbers, of the format and of float64: a scaling by 1 that may
    be subnormal counts as rounded, for it stands for the ulp of a power (`trace.lowering.elementwise`).
    """
    if function.kind not in _ARITHMETIC:
        return False
    a, b = operands
    if function.kind is Kind.SUM:
        return np.equal(a.computed, 0) | np.equal(b.computed, 0)
    if function.kind is Kind.QUOTIENT:
        factor = 1.0 / np.abs(b.value)
        found = known_powers(b) & np.isfinite(factor) & _stays(a, factor, target)
        return found | np.equal(a.computed, 0) & (np.abs(b.value) > b.own + b.error)
    found = known_powers(b) & _stays(a, np.abs(b.value), target)
    return found | known_powers(a) & _stays(b, np.abs(a.value), target)


def _stays(a: Enclosed, factor: Any, target: Format) -> Any:
    least = (np.abs(a.value) - a.own - a.error) * factor * (1.0 - 2.0**-50)
    normal = max(target.smallest_normal, FLOAT64.smallest_normal)
    return (least >= normal) | np.equal(factor, 0) | np.equal(a.computed, 0)


def exact_in_float64(function: Function, value: Any, operands: Sequence[Enclosed]) -> Any:
    """Where + - * / of known operands is without error in float64, by its remainder."""
    if function.kind not in _ARITHMETIC or not all(map(given, operands)):
        return False
    x, y = (np.asarray(o.value, np.float64) for o in operands)
    if function.kind is Kind.SUM:
        return np.equal(two_sum(x, y if function.name == "add" else -y)[1], 0)
    # A remainder is exact where nothing overflows or underflows on its way.
    safe = np.logical_and.reduce([(np.abs(v) > 2.0**-400) & (np.abs(v) < 2.0**400) for v in (x, y)])
    if function.kind is Kind.PRODUCT:
        return safe & np.equal(two_product(x, y)[1], 0)
    back, rest = two_product(value, y)
    return safe & np.equal(back, x) & np.equal(rest, 0)


def held_by(value: Any, own: Any, error: Any, target: Format) -> Any:
    """Where a number that is known before its rounding is one of the format."""
    sure = np.equal(own, 0) & np.equal(error, 0)
    return sure & np.equal(round_to(value, target), value) if np.any(sure) else False


def terms_on_a_grid(a: Enclosed, target: Format) -> Any:
    """Which sums over the last axis add known terms without error, in any order."""
    if not given(a):
        return False
    return without_rounding(
        a.size.sum(axis=-1), lowest_bits(a.value).min(axis=-1, initial=np.inf), target
    )


def lean(a: Enclosed) -> Enclosed:
    """0.0 in place of radii that are zero everywhere."""
    own, error = (0.0 if not np.any(radius) else radius for radius in (a.own, a.error))
    return replace(a, own=own, error=error)
