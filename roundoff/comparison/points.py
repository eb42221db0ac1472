"""Random points at which references are compared besides."""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Random factors 1 + j 2^-20, and random numbers, take this many values.
VALUES = 1 << 20


class Points:
    """Other values of inputs; floating: the names of those that may change, the others are indices."""

    def __init__(
        self, values: Mapping[str, Array], floating: Container[str], wrt: Container[str],
        generator: np.random.Generator,
    ) -> None:  # fmt: skip
        self.values, self.floating, self.wrt, self.generator = values, floating, wrt, generator

    def varied(self, *, zeros: bool = True) -> dict[str, Array]:
        """The inputs times 1 + j 2^-20, |j| <= 2^19: signs, zeros and infinities stay.

        zeros: whether they stay, or become j 2^-30.
        """
        found = {}
        for name, value in self.values.items():
            j = self.generator.integers(-(VALUES // 2), VALUES // 2, value.shape)
            if name in self.floating:
                moved = value * (1.0 + j / VALUES)
                value = moved if zeros else np.where(value == 0, j * 2.0**-30, moved)
            found[name] = value
        return found

    def whole(self) -> dict[str, Array]:
        """Random j 2^-19, -2^19 <= j < 2^19, in place of all numbers but the zeros of `masks`.

        For polynomials any numbers are as good as others, and exact arithmetic is fast with few bits.
        """
        found = {}
        for name, value in self.values.items():
            j = self.generator.integers(-(VALUES // 2), VALUES // 2, value.shape)
            drawn = np.where((value == 0) & (name in self.masks), 0.0, 2.0 * j / VALUES)
            found[name] = drawn if name in self.floating else value
        return found

    @property
    def masks(self) -> list[str]:
        """Floating-point inputs without gradient that hold zeros: those may be there to choose elements."""
        return [
            name
            for name, value in self.values.items()
            if name not in self.wrt and name in self.floating and (value == 0).any()
        ]
