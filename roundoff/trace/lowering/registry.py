"""Lowerings and factories by their ATen names: one function each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from roundoff.trace.lowering.values import Value

Lowering = Callable[..., Any]
LOWERINGS: dict[str, Lowering] = {}

#: What makes the numbers of a factory exactly: functions (build, how many, *the operation's arguments).
FACTORIES: dict[str, Callable[..., Value]] = {}


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Register a function (build, *args, **kwargs) for ATen operations, overloads aside."""

    def register(function: Lowering) -> Lowering:
        function.kind = function.__module__.rpartition(".")[2]  # type: ignore[attr-defined]
        LOWERINGS.update(dict.fromkeys(names, function))
        return function

    return register


def makes(*names: str) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    """Register a function of FACTORIES."""

    def register(function: Callable[..., Value]) -> Callable[..., Value]:
        FACTORIES.update(dict.fromkeys(names, function))
        return function

    return register
