"""Arithmetics that round take each step in the format in which its kernel keeps the numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Self

from roundoff.kernels.facts import Described, Kernels, Place
from roundoff.numbers.formats import Format, as_format
from roundoff.orders import accumulator
from roundoff.trace.steps import Constant, Rounded


class Rounding(ABC):
    """An arithmetic of the declared format; `of` gives its sibling for the steps of another one.

    accumulate: the format of sums, None for that of the step; it is taken where it holds the step's;
    kernels: what is known of them, in place of accumulate.
    infinities: constants met on the way that are infinite, by any of the siblings.
    """

    def __init__(self, format: Any, accumulate: Any, kernels: Kernels | None = None) -> None:
        self.format = as_format(format)
        wide = accumulator(self.format, accumulate)
        self.kernels = kernels or Described(None if accumulate is None else wide)
        self.place = Place(self.format, wide, self.format)
        self._siblings: dict[Place, Self] = {}
        self.infinities: list[Constant] = []

    def of(self, step: Rounded) -> Self:
        """The same arithmetic where the step's numbers are kept."""
        own = self.format if step.format is None else as_format(step.format)
        place = self.kernels.place(step, own)
        if place == self.place:
            return self
        if place not in self._siblings:
            sibling = self.in_format(place.result, place.wide)
            sibling.infinities, sibling.kernels, sibling.place = (
                self.infinities,
                self.kernels,
                place,
            )
            self._siblings[place] = sibling
        return self._siblings[place]

    @abstractmethod
    def in_format(self, own: Format, wide: Format) -> Self:
        """The same arithmetic in a format, with sums in another."""
