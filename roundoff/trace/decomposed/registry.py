"""Decompositions by their ATen names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Decomposition = Callable[..., Any]
DECOMPOSED: dict[str, Decomposition] = {}


def decomposes(*names: str) -> Callable[[Decomposition], Decomposition]:
    """Register a function of an ATen call's arguments that makes its results with other operations.

    names: of operations, or of one of their overloads ("div.Tensor_mode").  NotImplemented as a result says
    that the call needs not be taken apart.
    """

    def register(function: Decomposition) -> Decomposition:
        DECOMPOSED.update(dict.fromkeys(names, function))
        return function

    return register
