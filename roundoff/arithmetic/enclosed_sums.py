"""What is known of sums of values with radii, before a law says how far rounding moves them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.enclosed import Enclosed, exact, slack
from roundoff.arithmetic.enclosed_products import (
    blocks,
    count_products,
    enclosed_products,
    few,
    nonzero,
    own_of_product,
    product,
    products_on_a_grid,
    rounding_part,
    tiny_products,
)
from roundoff.arithmetic.exact_operations import (
    exact_in_float64,
    given,
    known_powers,
    terms_on_a_grid,
)
from roundoff.arithmetic.products_by_chance import ProductsByChance
from roundoff.arithmetic.recorded import recorded
from roundoff.arithmetic.sharing import Findings
from roundoff.bounds import theorems
from roundoff.bounds.known_sums import Accumulator, Sums, Tree, joined
from roundoff.bounds.random_errors import in_any_order, rounding_of_products
from roundoff.bounds.tree_errors import along, rounded_products
from roundoff.numbers.formats import FLOAT64, Format
from roundoff.orders import Order, ReductionTree
from roundoff.trace.functions import FUNCTIONS
from roundoff.trace.steps import Contract, Reduce, present

Array = npt.NDArray[np.float64]

#: Sums in float64, their own radius, and what is known of them.
KnownSums = tuple[Array, Any, Sums]


@dataclass(frozen=True)
class Adding:
    """How the sums of a step are carried out.

    own: the format of the tensors; order: None for any; fused: products may enter additions unrounded;
    described: the kernel does just this, which nobody knows of a real one; flushing: subnormal numbers may be
    taken for zero.
    """

    accumulator: Accumulator
    own: Format
    order: Order | None
    fused: bool
    described: bool = True
    flushing: bool = False

    @property
    def wide(self) -> Format:
        """The format of the sums."""
        return self.accumulator.format

    def terms(self, step: Reduce, operand: Enclosed) -> KnownSums:
        """The sums of a reduction."""
        n, value = present(step), np.asarray(operand.value, np.float64)
        size, before = np.sum(operand.size, axis=-1), _sum(operand.error, value)
        count = np.count_nonzero(np.broadcast_to(operand.computed, value.shape), axis=-1)
        exact = terms_on_a_grid(operand, self.wide)
        lost = np.where((count <= 1) | exact, 0.0, n * FLOAT64.u * size)
        own = (_sum(operand.own, value) + lost) * slack(n)
        before = (before + np.where(count > 0, n * self._flushed_sum, 0.0)) * slack(n)
        total = value.sum(axis=-1)

        @cache
        def tree() -> Tree:
            return self._along(step, operand, value, before)

        def by_chance(most: Array) -> tuple[Array, Array]:
            return self._by_chance(np.moveaxis(value, -1, 0).reshape(n, most.size), most)

        sums = Sums(
            self.accumulator, n, count, (size + before) * slack(n),
            (np.abs(total) + own + before) * slack(1), before, given=self._known(operand),
            exact=exact, by_chance=by_chance, **self._of_order(n, tree),
            recorded=self._recorded(step, operand),
        )  # fmt: skip
        return total, own, sums

    def _known(self, *operands: Enclosed) -> bool:
        """Whether terms are just these numbers, and nothing else happens to them."""
        return all(map(given, operands)) and self.described

    def _of_order(self, n: int, tree: Callable[[], Tree]) -> dict[str, Any]:
        """What a stated order adds to what is known of sums."""
        if self.order is None or n == 0:
            return {}
        if self.order.compensation:
            return {"compensation": self.order.compensation}
        return {"tree": tree}

    def _by_chance(self, terms: Array, most: Array) -> tuple[Array, Array]:
        found = in_any_order(terms, most.ravel(), self.wide.u, self.wide.precision)
        return found[0].reshape(most.shape), found[1].reshape(most.shape)

    def _along(self, step: Reduce, operand: Enclosed, value: Array, before: Array) -> Tree:
        tree = self.order.restricted(step.leaves, step.kept)  # type: ignore[union-attr]
        radii = [np.broadcast_to(v, value.shape) for v in (operand.own, operand.error)]
        parts = [np.moveaxis(v, -1, 0).reshape(len(tree.depths), -1) for v in (value, *radii)]
        return _walked([np.array(part) for part in parts], tree, self.accumulator).reshaped(
            np.shape(before)
        )

    def products(
        self, step: Contract, first: Enclosed, second: Enclosed, known: Findings
    ) -> KnownSums:
        """The sums of products of a contraction; known: what walks at these inputs share."""
        n = present(step)
        if known.value is None:
            known.value = first.value @ second.value, 0.0
        value, off = known.value
        if not (given(first) and given(second)):
            sizes = first.computed @ second.computed
        else:
            if known.sizes is None:
                known.sizes = first.size @ second.size
            sizes = known.sizes
        if known.own is None:
            known.own = own_of_product(first, second, sizes, n)
        own = off + known.own
        each = self.order is not None or few(step)
        exact = products_on_a_grid(step, first, second, sizes, self.wide, each)
        own = np.where(exact, 0.0, own)
        # A^ B^ - A B with A^ = A + e: only sums of non-negative terms.
        before = product(first.size, second.error) + product(first.error, second.computed)
        before = np.broadcast_to(before * slack(n), np.shape(sizes))
        whole = self._known(first, second) and self._exact_products
        # Products of numbers of at most 26 bits are numbers of float64.
        held = 2 * self.own.precision <= FLOAT64.precision
        chance = ProductsByChance(self.wide, held=held, whole=whole)
        rounded = 0.0 if whole else rounding_part(first, second, sizes) * slack(n)
        if self.flushing:  # of products and of sums
            least = 2.0 * self.wide.smallest_normal
            lost = np.where(nonzero(sizes, first, second), n * least, 0.0)
        else:
            limits = self._limit, self.wide.smallest_normal
            tiny = tiny_products(step, first, second, rounded, *limits, each)
            lost = np.where(exact, 0.0, tiny * self.accumulator.underflow * slack(n))
        sizes = sizes * slack(n)
        squares = first.computed, second.computed

        @cache
        def tree() -> Tree:
            return self._along_products(step, first, second, whole)

        sums = Sums(
            self.accumulator, n, count_products(first, second, n), sizes,
            np.minimum((np.abs(value) + own + before) * slack(1), sizes), before, rounded, lost,
            True, self.fused, self._known(first, second), exact,
            partial(chance, first.value, second.value),
            lambda: ((squares[0] ** 2) @ (squares[1] ** 2)) * slack(n), **self._of_order(n, tree),
            recorded=self._recorded(step, first, second),
        )  # fmt: skip
        return value, own, sums

    @property
    def _exact_products(self) -> bool:
        """Whether products of two numbers of the step's format fit the accumulator, underflow aside."""
        return 2 * self.own.precision <= self.wide.precision

    @property
    def _limit(self) -> float:
        """Below it a product may lose bits to underflow.

        Rounded products lose none above the smallest normal number; what is rounded later, by a fused
        addition or as the error term of Dot2, must be a multiple of the smallest subnormal itself.
        """
        later = self.fused or (self.order is not None and self.order.compensation == "sum2")
        return self.wide.smallest_normal * (2.0 ** (self.wide.precision + 1) if later else 1.0)

    @property
    def _flushed_sum(self) -> float:
        """What an addition loses whose result is flushed."""
        return self.wide.smallest_normal if self.flushing else 0.0

    def _along_products(
        self, step: Contract, first: Enclosed, second: Enclosed, whole: bool
    ) -> Tree:
        """Block by block; whole: no product of computed operands has more bits than the accumulator."""
        tree = self.order.restricted(step.leaves, step.kept)  # type: ignore[union-attr]
        alone = rounded_products(tree, self.fused)[:, None]
        sides: list[list[Any]] = [
            [v.value, *(np.broadcast_to(r, v.value.shape) for r in (v.own, v.error)), ~known_powers(v)]
            for v in (first, second)
        ]  # fmt: skip
        found, every = [], given(first) and given(second)
        for at, left, right in blocks(step, sides[0], sides[1]):
            parts = enclosed_products(Enclosed(*left[:3]), Enclosed(*right[:3]))
            of = [np.array(part.reshape(tree.n, -1)) for part in parts]
            if every:
                factors = [Enclosed(v, 0.0, 0.0) for v in np.broadcast_arrays(left[0], right[0])]
                of[1] = np.where(
                    exact_in_float64(FUNCTIONS["mul"], parts[0], factors).reshape(tree.n, -1),
                    0.0,
                    of[1],
                )
            size = np.abs(of[0]) + of[1] + of[2]
            bits = (left[3] & right[3]).reshape(tree.n, -1) & (not whole)
            limit = np.where(bits, self._limit, self.wide.smallest_normal) * (1.0 + 2.0**-50)
            tiny = (size > 0) & (np.abs(of[0]) - of[1] - of[2] < limit)
            lost = np.where(tiny, self.accumulator.underflow, 0.0)
            fused = bits & ~alone if self.fused else None
            signed = rounding_of_products(left[0], right[0], self.wide.precision)
            one = _walked(
                of, tree, self.accumulator, lost, bits & alone, fused, signed.reshape(tree.n, -1)
            )
            found.append((at, one.reshaped(parts[0].shape[1:])))
        return joined(step.shape, found)

    def _recorded(
        self, step: Reduce | Contract, *operands: Enclosed
    ) -> Callable[[], tuple[Array, Array]] | None:
        order = self.order
        known = all(map(given, operands)) and self.accumulator.nearest and not self.flushing
        if order is None or order.compensation or not known or not present(step):
            return None
        return cache(partial(recorded, step, operands, order, self.fused, self.wide))


def _sum(radius: Any, value: Array) -> Any:
    return 0.0 if exact(radius) else np.sum(np.broadcast_to(radius, value.shape), axis=-1)


def _walked(
    parts: Sequence[Array], tree: ReductionTree, accumulator: Accumulator,
    lost: Any = 0.0, rounds: Any = None, fused: Any = None, signed: Any = 0.0,
) -> Tree:  # fmt: skip
    """Walk a tree.  parts: value, own radius and error of the terms, which are overwritten.

    lost: what underflow takes from each; rounds: which are products that are rounded first, with the
    predicted error `signed`; fused: which are products that are not, though they have more bits than the
    accumulator.
    Shapes: (terms, sums).
    """
    value, own, error = parts
    unit, n = accumulator.unit, tree.n
    sizes = np.abs(value) + own + error
    depths: Any = tree.depths[:, None]
    weights = theorems.compounded(depths, unit)
    squares, drift, some = np.zeros(value.shape[1:]), np.zeros(value.shape[1:]), 0
    error += lost
    if rounds is not None and rounds.any():
        squares = np.where(rounds, sizes**2, 0.0).sum(axis=0) * slack(n)
        drift = np.abs(np.where(rounds, signed, 0.0).sum(axis=0))
        error += np.where(rounds, unit * sizes, 0.0)
        weights = np.where(rounds, theorems.compounded(depths + 1, unit), weights)
        some = int(rounds.any(axis=1).sum())
    weighted = (sizes * weights).sum(axis=0) * slack(n)
    lost = np.broadcast_to(lost, value.shape).sum(axis=0) * slack(n)
    found = along(
        value, own, error, tree, unit, accumulator.format.precision,
        nearest=accumulator.nearest, fused=fused,
    )  # fmt: skip
    height, roundings = tree.height + (some > 0), max(1, n - 1 + some)
    return Tree(found, weighted, squares, drift, lost, height, roundings)
