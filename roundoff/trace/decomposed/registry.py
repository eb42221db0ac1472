"""Decompositions by their ATen names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Decomposition = Callable[..., Any]
DECOMPOSED: dict[str, Decomposition] = {}


def decomposes(*names: str) -> Callable[[Decomposition], Decomposition]:
    """Register a function of an ATen call's arguments that makes its results with other operations."""

    def register(function: Decomposition) -> Decomposition:
        DECOMPOSED.update(dict.fromkeys(names, function))
        return function

    return register
