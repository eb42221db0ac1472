"""What is known of sums before a law says how far rounding moves them: accumulator, sizes, terms, tree."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.bounds.tree_errors import Walked
from roundoff.numbers.formats import Format

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Accumulator:
    """The format that sums are kept in; rounding: "nearest", "stochastic" or "toward_zero"."""

    format: Format
    rounding: str = "nearest"

    @property
    def nearest(self) -> bool:
        return self.rounding == "nearest"

    @property
    def unit(self) -> float:
        """Every rounding is a factor 1 + d with |d| at most this."""
        u = self.format.u
        return u / (1.0 + u) if self.nearest else 2.0 * u

    @property
    def step(self) -> float:
        """u, or 2u where rounding is not to nearest: what theorems take for u."""
        return self.format.u if self.nearest else 2.0 * self.format.u

    @property
    def underflow(self) -> float:
        """The most that a product loses to underflow, and float64's own underflow."""
        half = self.format.smallest_subnormal * (0.5 if self.nearest else 1.0)
        return max(half, 2.0**-1073)


def nothing(most: Array) -> tuple[Array, Array]:
    """For sums of which no error is left to chance: none small, and no drift."""
    return np.zeros(most.shape), np.zeros(most.shape)


@dataclass(frozen=True, eq=False)
class Tree:
    """What is known of sums along a stated tree.

    Shapes: those of the sums.
    walked: the partial sums, of terms with all their errors; weighted: sum of |term| times (1 + unit)^depth
    - 1; squares: sum of the squares of the products that are rounded; drift: |sum of their predicted
    errors|; lost: what underflow takes from them, in all; height, roundings: of the tree with its products.
    """

    walked: Walked
    weighted: Array
    squares: Array
    drift: Array
    lost: Array
    height: int
    roundings: int

    def reshaped(self, shape: tuple[int, ...]) -> Tree:
        """The same sums in another shape."""
        found: Tree = _each(lambda parts: parts[0].reshape(shape), [self])
        return found


def joined(shape: tuple[int, ...], parts: Sequence[tuple[Any, Tree]]) -> Tree:
    """Sums of this shape from blocks of them; parts: where each block is, and what is known of it."""

    def one(blocks: Sequence[Array]) -> Array:
        whole = np.zeros(shape)
        for (at, _), block in zip(parts, blocks, strict=True):
            whole[at] = block
        return whole

    found: Tree = _each(one, [tree for _, tree in parts])
    return found


def _each(make: Callable[[Sequence[Array]], Array], trees: Sequence[Any]) -> Any:
    """One tree from several: arrays are put together by `make`, of numbers the largest is taken."""
    found: dict[str, Any] = {}
    for name in vars(trees[0]):
        values = [getattr(tree, name) for tree in trees]
        if isinstance(values[0], Walked):
            found[name] = _each(make, values)
        else:
            found[name] = max(values) if isinstance(values[0], int) else make(values)
    return type(trees[0])(**found)


@dataclass(frozen=True, eq=False)
class Sums:
    """What is known of the sums of a step.

    Shapes: those of the sums, or numbers.
    length: terms of each, zeros included; count: those that are not zero; size: at least the sum of the
    magnitudes of the computed terms (of products before they are rounded); total: at least |sum| of them;
    before: errors of the terms, but for the roundings of products; rounded: the part of size from products
    that round; lost: what underflow takes from them, in all; products: whether terms are products; fused:
    whether these may enter additions unrounded; given: terms are known numbers, and sums carried out as
    described; exact: where all partial sums are numbers of the accumulator, in any order; by_chance:
    `random_errors.in_any_order`, given the largest partial sum; squares: at least the sum of the squares of
    the terms; compensation: of the stated order; tree: along it; recorded: the sizes, and the binades, of
    all computed partial sums added up.
    """

    accumulator: Accumulator
    length: int
    count: Any
    size: Array
    total: Array
    before: Any = 0.0
    rounded: Any = 0.0
    lost: Any = 0.0
    products: bool = False
    fused: bool = False
    given: bool = False
    exact: Any = False
    by_chance: Callable[[Array], tuple[Array, Array]] = nothing
    squares: Callable[[], Array] | None = None
    compensation: str | None = None
    tree: Callable[[], Tree] | None = None
    recorded: Callable[[], tuple[Array, Array]] | None = None

    @property
    def plain(self) -> Any:
        """Where no product is rounded."""
        return np.equal(self.rounded, 0)

    def peak(self, error: Array) -> Array:
        """An upper bound of every computed partial sum."""
        if self.compensation:  # differences of partial sums pass through the largest twice over
            most = self.size + self.lost
            return np.asarray(2.0 * most * (1.0 + 4.0 * self.length * self.accumulator.format.u))
        found: Array = self.size + self.lost + error
        return found if self.tree is None else np.fmin(found, self.tree().walked.peak)
