"""Arithmetics that round: one of a format each, and for every step the one of the step's own format."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

from roundoff.formats import Format, as_format
from roundoff.orders import holds
from roundoff.trace.steps import Constant, Rounded


class Rounding(ABC):
    """An arithmetic of the declared format; `of` gives its sibling for the steps of another one.

    accumulate: the format of sums, None for that of the step; it is taken where it holds the step's.
    infinities: constants met on the way that are infinite, by any of the siblings.
    """

    def __init__(self, format: Any, accumulate: Any) -> None:
        self.format = as_format(format)
        self._accumulate = None if accumulate is None else as_format(accumulate)
        self._siblings: dict[str, Self] = {}
        self.infinities: list[Constant] = []

    def of(self, step: Rounded) -> Self:
        """The same arithmetic in the step's format."""
        if step.format is None:
            return self
        if step.format not in self._siblings:
            own, wide = as_format(step.format), self._accumulate
            sibling = self.in_format(own, wide if wide and holds(wide, own) else own)
            sibling.infinities = self.infinities
            self._siblings[step.format] = sibling
        return self._siblings[step.format]

    @abstractmethod
    def in_format(self, own: Format, wide: Format) -> Self:
        """The same arithmetic in a format, with sums in another."""
