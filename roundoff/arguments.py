"""Checks of what public functions are given: each returns the value, or raises one sentence about it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from roundoff.errors import ArgumentError

#: More threads than this torch does not survive everywhere.
MOST_THREADS = 1024


def described(value: Any) -> str:
    """A value as messages show it: short numbers and words as they are, everything else by its type.

    >>> described(2.5), described([1, 2]), described(None)
    ('2.5', 'a list', 'None')
    """
    if value is None or isinstance(value, str):
        found = repr(value)
    elif isinstance(value, Real) or type(value).__name__ == "dtype":
        found = str(value)
    else:
        shape = getattr(value, "shape", None)
        of = f" of shape {tuple(shape)}" if isinstance(shape, tuple) else ""
        kind = type(value).__name__
        return f"{'an' if kind[:1].lower() in 'aeiou' else 'a'} {kind}{of}"
    return found if len(found) <= 60 else f"{found[:57]}..."


def whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """A whole number, of any integer type.

    >>> whole("n", 3, least=1)
    3
    """
    fits = isinstance(value, Integral) and not isinstance(value, bool)
    if not fits or (least is not None and value < least) or (most is not None and value > most):
        limits = {
            (False, False): "",
            (True, False): f" of at least {least}",
            (False, True): f" of at most {most}",
            (True, True): f" from {least} to {most}",
        }[least is not None, most is not None]
        raise ArgumentError(f"{name} is {described(value)}; give a whole number{limits}")
    return int(value)


def number(name: str, value: Any) -> float:
    """A real number, infinities and NaN included."""
    if not isinstance(value, Real):
        raise ArgumentError(f"{name} is {described(value)}; give a number")
    return float(value)


def fraction(name: str, value: Any) -> float:
    """A number between 0 and 1, ends excluded: a probability, a level, a unit roundoff."""
    if not isinstance(value, Real) or isinstance(value, bool) or not 0.0 < float(value) < 1.0:
        raise ArgumentError(f"{name} is {described(value)}; give a number between 0 and 1")
    return float(value)


def finite(name: str, value: Any) -> float:
    """A real number that is neither infinite nor NaN."""
    if not isinstance(value, Real) or not math.isfinite(value):
        raise ArgumentError(f"{name} is {described(value)}; give a finite number")
    return float(value)


def flag(name: str, value: Any) -> bool:
    """True or false, of Python or NumPy."""
    if type(value).__name__ not in ("bool", "bool_"):
        raise ArgumentError(f"{name} is {described(value)}; give True or False")
    return bool(value)


def choice(name: str, value: Any, options: Sequence[str]) -> str:
    """One of several words."""
    if not isinstance(value, str) or value not in options:
        raise ArgumentError(
            f"unknown {name} {described(value)}; use one of: {', '.join(map(str, options))}"
        )
    return value


def instance(name: str, value: Any, kind: Any, give: str) -> Any:
    """An object of a class; give: what to pass, in words."""
    if not isinstance(value, kind):
        raise ArgumentError(f"{name} is {described(value)}; give {give}")
    return value
