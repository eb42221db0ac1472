"""What several walks of one trace, at the same inputs, need of the same step: made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from roundoff.trace.steps import Step


class Shared:
    """Results by step and name, kept until they are forgotten.

    Walks of one trace in several arithmetics, given the same one of these, make what they have in common
    once.  What is kept is true of the exact values at these inputs, whichever arithmetic made it.
    """

    def __init__(self) -> None:
        self._kept: dict[tuple[int, str], tuple[Step, Any]] = {}

    def put(self, step: Step, name: str, value: Any) -> None:
        """Keep a result, in place of an earlier one."""
        self._kept[id(step), name] = step, value  # with the step, or another may get its number

    def known(self, step: Step, name: str) -> Any:
        """The result of that name; None if nobody made it."""
        return self._kept.get((id(step), name), (step, None))[1]

    def once(self, step: Step, name: str, make: Callable[[], Any]) -> Any:
        """The result of that name, made if nobody did."""
        if self.known(step, name) is None:
            self.put(step, name, make())
        return self.known(step, name)

    def forget(self) -> None:
        """Free the memory; later walks make anew what they need."""
        self._kept.clear()


class Alone(Shared):
    """For a walk that shares nothing: keeps nothing."""

    def put(self, step: Step, name: str, value: Any) -> None: ...

    def once(self, step: Step, name: str, make: Callable[[], Any]) -> Any:
        return make()
