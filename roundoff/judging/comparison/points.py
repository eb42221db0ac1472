"""Random points beside the given inputs, at which functions are compared as well."""

from __future__ import annotations

from collections.abc import Container, Mapping

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

#: Random factors 1 + j 2^-20, and random numbers, take this many values.
VALUES = 1 << 20

#: Numbers from here on only shrink: the smallest number of a format is a usual mask, and none is beyond it.
LARGE = 2.0**15


class Points:
    """Other values of inputs; floating: the names of those that hold no indices and masks."""

    def __init__(
        self, values: Mapping[str, Array], floating: Container[str], wrt: Container[str],
        generator: np.random.Generator,
    ) -> None:  # fmt: skip
        self.values, self.floating, self.wrt, self.generator = values, floating, wrt, generator

    def varied(self, *, zeros: bool = True) -> dict[str, Array]:
        """The inputs times 1 + j 2^-20, |j| <= 2^19 (j <= 0 from LARGE on): signs, zeros and infinities stay.

        zeros: whether they stay, or become j 2^-30.
        """
        found = {}
        for name, value in self.values.items():
            j = self._integers(value)
            if name in self.floating:
                moved = value * (1.0 + np.where(np.abs(value) < LARGE, j, -np.abs(j)) / VALUES)
                value = moved if zeros else np.where(value == 0, j * 2.0**-30, moved)
            found[name] = value
        return found

    def whole(self, *, masks: bool = True) -> dict[str, Array]:
        """Random j 2^-19, -2^19 <= j < 2^19, in place of all numbers, but the zeros of `masks` may stay.

        For polynomials any numbers are as good as others, and exact arithmetic is fast with few bits.
        """
        found = {}
        for name, value in self.values.items():
            kept = (value == 0) & (masks and name in self.masks)
            drawn = np.where(kept, 0.0, 2.0 * self._integers(value) / VALUES)
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

    @property
    def kept(self) -> list[str]:
        """What no `whole` point moves, in words."""
        zeros = [f"the zeros of {name}" for name in self.masks]
        return zeros + [f"the integers of {name}" for name in self.chosen]

    @property
    def floating_names(self) -> list[str]:
        """The inputs that are floating-point numbers."""
        return [name for name in self.values if name in self.floating]

    @property
    def chosen(self) -> list[str]:
        """The inputs that are integers or booleans, which a trace has folded."""
        return [name for name in self.values if name not in self.floating]

    def elsewhere(
        self, name: str, *, signs: bool = True, zeros: bool = True, exponent: int = 0
    ) -> Array:
        """A floating-point input elsewhere: float32 numbers, times 2^exponent.

        signs: at least half of them change; zeros: those become numbers of up to the root mean square of
        the others.
        """
        value = self.values[name]
        j = self._integers(value) / VALUES
        moved = value * (1.0 + j)
        if signs:
            drawn = self.generator.choice([-1.0, 1.0], value.shape)
            moved = moved * (drawn if np.mean(drawn) <= 0 else -drawn)
        if zeros:
            size = np.sqrt(np.square(value).mean(where=value != 0)) if value.any() else 1.0
            moved = np.where(value == 0, 2.0 * j * size, moved)
        most = float(np.finfo(np.float32).max)  # masks may hold it
        return np.clip(moved * 2.0**exponent, -most, most).astype(np.float32).astype(np.float64)

    def rechosen(self, name: str, *, permuted: bool) -> Array:
        """An integer input permuted, or redrawn between 0 and its extremes; booleans drawn anew.

        One of several is 0: the first index is often another one (padding, the end of a text).
        """
        value = self.values[name]
        if set(np.unique(value)) <= {0.0, 1.0}:
            return self.generator.integers(0, 2, value.shape).astype(np.float64)
        if permuted:
            return self.generator.permutation(value.ravel()).reshape(value.shape)
        low, high = min(int(value.min()), 0), max(int(value.max()), 0)
        drawn = self.generator.integers(low, high + 1, value.shape).astype(np.float64)
        if drawn.size > 1:
            drawn.flat[self.generator.integers(drawn.size)] = 0.0
        return drawn

    def _integers(self, value: Array) -> npt.NDArray[np.int64]:
        return self.generator.integers(-(VALUES // 2), VALUES // 2, value.shape)
