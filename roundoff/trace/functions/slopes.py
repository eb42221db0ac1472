"""Steepest slopes: the largest |f'| on an interval [low, high], infinite where that leaves the domain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.trace.functions.record import Rule

Array = npt.NDArray[np.float64]


def near(low: Array, high: Array) -> Array:
    """The smallest magnitude in an interval."""
    found: Array = np.where((low <= 0) & (high >= 0), 0.0, np.minimum(np.abs(low), np.abs(high)))
    return found


def far(low: Array, high: Array) -> Array:
    """The largest magnitude in an interval."""
    found: Array = np.maximum(np.abs(low), np.abs(high))
    return found


def above(limit: float, slope: Rule) -> Rule:
    """A slope that falls with x, of a function of the numbers above a limit."""
    return lambda low, high: np.where(low > limit, slope(low), np.inf)


def of_arcs(low: Array, high: Array) -> Any:
    """The arc sine and cosine."""
    most = far(low, high)
    return np.where(most < 1.0, 1.0 / np.sqrt((1.0 - most) * (1.0 + most)), np.inf)


def of_sigmoid(low: Array, high: Array) -> Any:
    """The logistic function; without overflow."""
    small = np.exp(-near(low, high))
    return small / (1.0 + small) ** 2


def of_tangent(low: Array, high: Array) -> Any:
    """Between poles a tangent grows; across one, less than pi wide, it falls."""
    first, last = np.tan(low), np.tan(high)
    inside = (high - low < 3.0) & (first <= last + 2.0**-50 * np.abs(last))
    return np.where(inside, 1.0 + np.maximum(first**2, last**2), np.inf)


def of_wave(slope: Rule) -> Rule:
    """A sine or cosine: the slope is at most 1, and changes by at most the distance."""

    def steepest(low: Array, high: Array) -> Array:
        middle = low + (high - low) / 2
        distance = np.maximum(high - middle, middle - low)
        found: Array = np.abs(slope(middle)) + distance + 2.0**-50
        return np.fmin(1.0, found)  # also where an end is infinite, and the middle no number

    return steepest


def of_bell(low: Array, high: Array) -> Any:
    """The error function and its complement."""
    return 2.0 / np.sqrt(np.pi) * np.exp(-(near(low, high) ** 2))
