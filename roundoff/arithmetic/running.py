"""An error bound beside every value: what a kernel of a given format and accumulator may return.

Each value is enclosed twice: the exact one within `own` of a float64 value, and any computed one within
`error` of the exact one.  So magnitudes come from float64 values with a proven radius, never from a native
result.  All of it is rounded upward by factors that cover the roundings of its own evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import move_elements
from roundoff.arithmetic.enclosed import (
    UNDERFLOW,
    Enclosed,
    compared,
    exact,
    extreme,
    logical,
    propagated,
    selected,
    settled,
    sign_of,
    slack,
)
from roundoff.arithmetic.enclosed_products import (
    blocks,
    count_products,
    enclosed_products,
    nonzero,
    normal_products,
    own_of_product,
    product,
    rounding_part,
)
from roundoff.arithmetic.exact_operations import (
    exact_in_float64,
    given,
    held_by,
    kept,
    known_powers,
    lean,
    products_on_a_grid,
    terms_on_a_grid,
)
from roundoff.arithmetic.flushing import reach, read, taken_for_granted
from roundoff.arithmetic.memo import Alone, Shared
from roundoff.arithmetic.per_step import Rounding
from roundoff.arithmetic.sum_laws import Certain, Law, Sums, present
from roundoff.bounds import theorems
from roundoff.bounds.random_errors import in_any_order, rounding_of_products
from roundoff.bounds.terms import rounded_products
from roundoff.bounds.tree_errors import along, sizes_along
from roundoff.errors import InapplicableError
from roundoff.kernels.facts import Described, Kernels
from roundoff.numbers.formats import FLOAT64, Format, round_to
from roundoff.numbers.machines import two_product
from roundoff.orders import Order, ReductionTree, as_order
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce

Array = npt.NDArray[np.float64]

#: Up to this height times u, the errors below the partial sums are bounded all at once.
FLAT = 2.0**-6


@dataclass(frozen=True, eq=False)
class Terms:
    """What is known of the sums of a step, whatever their order.

    Shapes: those of the step.
    value, own: the sums; size: at least the sum of the magnitudes of the computed terms; before: the
    errors of the terms, those of products included; propagated: the part that comes from earlier steps.
    """

    value: Array
    own: Array
    size: Array
    before: Array
    propagated: Array

    @property
    def total(self) -> Array:
        """At least |sum| of the computed terms."""
        return (np.abs(self.value) + self.own + self.before) * slack(1)


class Running(Rounding):
    """The arithmetic of error bounds: declared format of results, accumulator and order of all sums.

    order: None for any tree of additions (products rounded or fused), else a name, an Order, as in
    `Simulated`; law: `Certain` or `Likely`.  Elementary functions err by the ulp of their records.
    A comparison whose operands may be on either side of each other is undecided, and what it selects
    is off by the whole difference of its branches.  shared: with other walks at the same inputs.

    Raises: ArgumentError for unknown names and for an accumulator narrower than the format.
    """

    def __init__(
        self,
        format: Any,
        order: Any = None,
        accumulate: Any = None,
        law: Law | None = None,
        shared: Shared | None = None,
        kernels: Kernels | None = None,
    ) -> None:
        super().__init__(format, accumulate, kernels)
        self.wide = self.place.wide
        self.order = None if order is None else as_order(order)
        self.law = law or Certain(self.wide.u)
        self.shared = shared or Alone()
        self.flushing = False

    def in_format(self, own: Format, wide: Format) -> Running:
        law: Any = self.law
        return Running(own, self.order, wide, replace(law, u=wide.u), self.shared)

    # -------------------------------------------------------------------------- values and moves

    def load(self, values: Array) -> Enclosed:
        return Enclosed(values, 0.0, 0.0)

    def constant(self, step: Constant) -> Enclosed:
        value, shape = step.value, step.shape
        near = float(value)
        if isinstance(value, float):
            self.infinities.append(step)
            return Enclosed(np.full(shape, near), 0.0, 0.0)
        own = theorems.upward(abs(Fraction(near) - value))
        rounded = float(round_to(near, self.format))
        # Rounded once as a number of the format, or computed by a quotient of two.
        error = 2.0 * self.format.u * abs(near) + self.format.smallest_subnormal
        if not np.isfinite(rounded):
            error = np.inf
        elif Fraction(rounded) == value:
            error = 0.0
        full = np.full(shape, near)
        return Enclosed(full, own and np.full(shape, own), error and np.full(shape, error))

    def move(self, step: Move, operands: Sequence[Enclosed]) -> Enclosed:
        values = [o.value for o in operands]
        if all(given(o) and not o.terms for o in operands):
            value = self.shared.once(step, "moved", lambda: move_elements(step, values, 0))
            found: Enclosed = self.shared.once(step, "exact", lambda: Enclosed(value, 0.0, 0.0))
            return found
        return Enclosed(
            move_elements(step, values, 0),
            _moved([o.own for o in operands], step, operands),
            _moved([o.error for o in operands], step, operands),
            max(o.terms for o in operands),
            _moved([o.magnitudes for o in operands], step, operands),
        )

    # -------------------------------------------------------------------------------------- maps

    def map(self, step: Map, operands: Sequence[Enclosed]) -> Enclosed:
        found = self._map(step, operands)
        if isinstance(self.kernels, Described):
            return found
        if FUNCTIONS[step.function].kind is Kind.SUM:
            loss = 2 * self.place.own.smallest_normal + self.format.smallest_normal
            granted = taken_for_granted(found, loss)
            if granted is not None:
                return granted
        return self._flushed(step, found, operands, lambda other, read: other._map(step, read))

    def _map(self, step: Map, operands: Sequence[Enclosed]) -> Enclosed:
        function, a = FUNCTIONS[step.function], operands[0]
        with np.errstate(all="ignore"):
            match function.kind:
                case Kind.COMPARISON:
                    return compared(function, a, operands[1])
                case Kind.LOGICAL:
                    return logical(function, operands)
                case Kind.SELECTION:
                    return lean(selected(*operands))
                case Kind.REFLECTION:
                    return Enclosed(function.float64(a.value), a.own, a.error)
                case Kind.SIGN:
                    return sign_of(a)
                case Kind.EXTREME:
                    return extreme(function, a, operands[1])
                case Kind.CAST:
                    numbers = np.asarray(a.value, np.float64)
                    return self._result(numbers, a.own, a.error, self.format, underflows=True)
            found = self._rounded_map(function, operands)
            return settled(function, found, operands) if self.infinities else found

    def _rounded_map(self, function: Function, operands: Sequence[Enclosed]) -> Enclosed:
        value, sums = function.float64(*(o.value for o in operands)), function.kind is Kind.SUM
        own, error = propagated(function, operands)
        from_operands: Any = error
        all_bits: Any = False
        if self.place.before is None and not self.flushing:
            all_bits = kept(function, operands, self.format)
        underflow = 0.0 if sums else UNDERFLOW
        error = error + function.absolute(self.format)
        if not all(exact(operand.error) for operand in operands):
            error = error + underflow
        lost = 2.0 * function.float64_ulp * FLOAT64.u * np.abs(value)
        lost = lost + function.absolute(FLOAT64) + underflow
        own = own + np.where(all_bits | exact_in_float64(function, value, operands), 0.0, lost)
        most = None
        if sums:
            most = np.minimum(operands[0].computed, operands[1].computed)
            error = error + self._joined(operands[0], operands[1])
            error = error + self._joined(operands[1], operands[0])
        if self.place.before is not None:  # numbers of a wider format, rounded there and then here
            error = error + self.place.before.u * (np.abs(value) + own + error)
            most = None
        found = self._result(
            value, own, error, self.format, ulp=function.ulp_in(self.format), most=most,
            underflows=not sums or self.place.before is not None,
        )  # fmt: skip
        error = np.where(all_bits & np.isfinite(found.error), from_operands * slack(1), found.error)
        return lean(Enclosed(value, found.own, error))

    def _joined(self, product: Enclosed, other: Enclosed) -> Any:
        """What it costs if `other` is one more term of the sums of a matrix product.

        n + 1 terms are added by n roundings, each at most u times all magnitudes: n u |other|, and u times
        the products more than n terms alone.  One product and another number are one addition.
        """
        n = product.terms
        if n <= 1 or not self.place.joins:
            return 0.0
        again = self.wide.u * (1.0 + self.wide.u) * product.magnitudes
        return (n * self.wide.u * other.computed + again) * slack(1)

    def _result(
        self, value: Any, own: Any, error: Any, target: Format, *,
        ulp: float = 0.5, most: Any = None, underflows: bool = False,
    ) -> Enclosed:  # fmt: skip
        """A value whose computed form is rounded to the target, within `ulp` ulp of it.

        To nearest, half an ulp is at most u/(1+u) of the unrounded number.  most: a sum of two numbers
        of the format errs by at most the smaller one, too.  A known number of the format is not rounded.
        """
        u = target.u
        computed = np.abs(value) + own + error
        relative = u / (1.0 + u) if ulp == 0.5 else 2.0 * ulp * u
        local = relative * computed
        if most is not None:
            local = np.minimum(local, most)
        if underflows or self.flushing:
            small = (computed > 0) & (np.abs(value) - own - error < target.smallest_normal)
            lost = target.smallest_normal if self.flushing else ulp * target.smallest_subnormal
            local = local + np.where(small, max(lost, 2.0**-1074), 0.0)
        if ulp == 0.5 and not self.flushing:
            local = np.where(held_by(value, own, error, target), 0.0, local)
        error = (error + local) * slack(1)
        error = np.where(np.abs(value) + own + error < target.max, error, np.inf)
        return Enclosed(value, own * slack(1), error)

    # -------------------------------------------------------------------------------------- sums

    def reduce(self, step: Reduce, operand: Enclosed) -> Enclosed:
        found = self._sum(step, operand)
        loss = self._loss(step, operand)
        if not loss:
            return found
        return taken_for_granted(found, loss) or self._flushed(
            step, found, [operand], lambda other, read: other._sum(step, *read)
        )

    def contract(self, step: Contract, first: Enclosed, second: Enclosed) -> Enclosed:
        found = self._product(step, first, second)
        loss = self._loss(step, first, second)
        if not loss:
            return found
        return taken_for_granted(found, loss) or self._flushed(
            step, found, [first, second], lambda other, read: other._product(step, *read)
        )

    def _loss(self, step: Reduce | Contract, *operands: Enclosed) -> float:
        """What sums may lose by flushed numbers, at most, if their kernel flushes any."""
        described = isinstance(self.kernels, Described)
        return 0.0 if described else reach(present(step), operands, self.place)

    def _flushed(
        self, step: Map | Reduce | Contract, found: Enclosed, operands: Sequence[Enclosed],
        again: Callable[[Running, Sequence[Enclosed]], Enclosed],
    ) -> Enclosed:  # fmt: skip
        """The same by a kernel that may take subnormals for zero; it is asked, as it matters."""
        if not self.kernels.flushes(step, self.place.own):
            return found
        other, least = copy(self), self.place.own.smallest_normal
        other.flushing = True
        return again(other, [read(each, least) for each in operands])

    def _sum(self, step: Reduce, operand: Enclosed) -> Enclosed:
        n, value = present(step), np.asarray(operand.value, np.float64)
        with np.errstate(all="ignore"):
            size, before = np.sum(operand.size, axis=-1), _sum(operand.error, value)
            count = np.count_nonzero(np.broadcast_to(operand.computed, value.shape), axis=-1)
            plain = (count <= 1) | terms_on_a_grid(operand, self.wide)
            lost = np.where(plain, 0.0, n * FLOAT64.u * size)
            own = (_sum(operand.own, value) + lost) * slack(n)
            before = (before + np.where(count > 0, n * self._flushed_sum, 0.0)) * slack(n)
            terms = Terms(value.sum(axis=-1), own, (size + before) * slack(n), before, before)
            if self.order is None:

                def by_chance(most: Array) -> tuple[Array, Array]:
                    return self._by_chance(np.moveaxis(value, -1, 0).reshape(n, -1), most)

                error = before + self.law.free(Sums(count, terms.size, 0.0, terms.total, by_chance))
            else:
                error = self._reduce_ordered(step, operand, value, terms, self.order)
            return lean(self._store(terms, np.where(plain, before, error * slack(1))))

    def _by_chance(self, terms: Array, most: Array, lost: Any = None) -> tuple[Array, Array]:
        found = in_any_order(terms, most.ravel(), self.wide.u, self.wide.precision, lost)
        return found[0].reshape(most.shape), found[1].reshape(most.shape)

    def _reduce_ordered(
        self, step: Reduce, operand: Enclosed, value: Array, terms: Terms, order: Order
    ) -> Array:
        n, tree = present(step), order.restricted(step.leaves, step.kept)
        radii = [np.broadcast_to(v, value.shape) for v in (operand.own, operand.error)]
        parts = [np.moveaxis(v, -1, 0).reshape(n, -1) for v in (value, *radii)]

        def sizes() -> Array:
            there = parts[0] != 0 if given(operand) else None
            return sizes_along(parts[0].copy(), tree, there)[0].reshape(step.shape)

        def errors() -> Array:
            before = np.broadcast_to(terms.before, step.shape).ravel()
            copies = [np.array(part) for part in parts]
            return self._walked(copies, tree, before, 0.0).reshape(step.shape)

        return self._ordered(step, terms, order, tree, sizes, errors)

    def _product(self, step: Contract, first: Enclosed, second: Enclosed) -> Enclosed:
        n = present(step)
        with np.errstate(all="ignore"):
            value, off = self.shared.once(step, "value", lambda: (first.value @ second.value, 0.0))
            own = off + self.shared.once(step, "own", lambda: own_of_product(first, second, n))
            if given(first) and given(second):
                sizes = self.shared.once(step, "sizes", lambda: first.size @ second.size)
            else:
                sizes = first.computed @ second.computed
            count, rounded = count_products(first, second, n), rounding_part(first, second, sizes)
            single = (count <= 1) & (rounded == 0) & normal_products(first, second, self.wide)
            grid = products_on_a_grid(first, second, sizes, self.wide)
            own = np.where(grid, 0.0, own)
            # A^ B^ - A B with A^ = A + e: only sums of non-negative terms.
            before = product(first.size, second.error) + product(first.error, second.computed)
            lost = np.where(nonzero(sizes, first, second), n * self._underflow, 0.0)
            propagated = (before + lost) * slack(n)
            sizes = (sizes + lost) * slack(n)
            terms = Terms(value, own, sizes, propagated, propagated)
            if self.order is None:
                by_chance = partial(self._products_by_chance, step, first, second)
                error = propagated + self.law.free(
                    Sums(count, sizes, (rounded + lost) * slack(n), terms.total, by_chance)
                ) * slack(4)
            else:
                error = self._contract_ordered(step, first, second, terms, self.order)
            certain = propagated if self.flushing else before * slack(n)
            error = np.where(single | grid, certain, error)
            found = self._store(terms, error)
            if self.order is None:
                found = replace(found, terms=int(np.max(count, initial=0)), magnitudes=sizes)
            return lean(found)

    def _products_by_chance(
        self, step: Contract, first: Enclosed, second: Enclosed, most: Array
    ) -> tuple[Array, Array]:
        found = np.empty(step.shape), np.empty(step.shape)

        def one(left: Sequence[Array], right: Sequence[Array], limit: Array) -> tuple[Array, ...]:
            x, y = np.broadcast_arrays(left[0], right[0])
            products, rest = (v.reshape(len(x), -1) for v in two_product(x, y))
            return self._by_chance(products, limit, rest)

        for at, left, right in blocks(step, [first.value], [second.value]):
            limit = most[at]
            for result, part in zip(found, one(left, right, limit), strict=True):
                result[at] = part
        return found

    @property
    def _flushed_sum(self) -> float:
        """What an addition loses whose result is flushed."""
        return self.wide.smallest_normal if self.flushing else 0.0

    @property
    def _underflow(self) -> float:
        """Per term: a product that underflows, or is flushed, as the sum may be, too."""
        if self.flushing:
            return self.wide.smallest_normal + self._flushed_sum
        return max(self.wide.smallest_subnormal / 2, 2.0**-1073)

    def _contract_ordered(
        self, step: Contract, first: Enclosed, second: Enclosed, terms: Terms, order: Order
    ) -> Array:
        n, unit = present(step), self.wide.u / (1.0 + self.wide.u)
        tree = order.restricted(step.leaves, step.kept)
        alone = rounded_products(tree, order.fused)
        if order.compensation == "sum2":  # Dot2 loses nothing in the products
            alone = np.zeros_like(alone)
        sides: list[list[Any]] = [
            [
                v.value,
                *(np.broadcast_to(r, v.value.shape) for r in (v.own, v.error)),
                ~known_powers(v),
            ]
            for v in (first, second)
        ]
        rounds = first.computed * sides[0][3] * alone, second.computed * sides[1][3]
        products = unit * (rounds[0] @ rounds[1]) * slack(n)
        terms = replace(
            terms, before=terms.propagated + products, size=(terms.size + products) * slack(1)
        )

        def sizes() -> Array:
            found = np.empty(step.shape)
            every = given(first) and given(second)
            for at, left, right in blocks(step, sides[0], sides[1]):
                x, y = np.broadcast_arrays(left[0], right[0])
                there = ((x != 0) & (y != 0)).reshape(n, -1) if every else None
                found[at] = sizes_along((x * y).reshape(n, -1), tree, there)[0].reshape(
                    found[at].shape
                )
            return found

        def errors() -> Array:
            found = np.empty(step.shape)
            for at, left, right in blocks(step, sides[0], sides[1]):
                parts = enclosed_products(Enclosed(*left[:3]), Enclosed(*right[:3]))
                of = [np.array(part.reshape(n, -1)) for part in parts]
                size = np.abs(of[0]) + of[1] + of[2]
                small = np.abs(of[0]) - of[1] - of[2] < self.wide.smallest_normal * 2.0**60
                of[2] += np.where((size > 0) & small, self._underflow, 0.0)
                rounds = (left[3] & right[3]).reshape(n, -1) & alone[:, None]
                rounding = np.where(rounds, size, 0.0)
                fused = (
                    (left[3] & right[3]).reshape(n, -1) & ~alone[:, None] if order.fused else None
                )
                signed = rounding_of_products(left[0], right[0], self.wide.precision)
                drift = np.where(rounds, signed.reshape(n, -1), 0.0).sum(axis=0)
                before = of[2].sum(axis=0) * slack(n) + np.abs(drift)
                of[2] += unit * rounding
                squares = (rounding**2).sum(axis=0) * slack(n)
                one = self._walked(of, tree, before, squares, int(alone.any()), fused)
                found[at] = one.reshape(found[at].shape)
            return found

        return self._ordered(step, terms, order, tree, sizes, errors)

    def _ordered(
        self, step: Reduce | Contract, terms: Terms, order: Order, tree: ReductionTree,
        sizes: Callable[[], Array], errors: Callable[[], Array],
    ) -> Array:  # fmt: skip
        """The error of sums in a stated order.

        With E the sum of all errors of terms and additions, each of them is part of at most h partial sums.
        So E <= before + unit (sum of |exact partial sums| + h E), unless h u is large: then node by node,
        and where chance tells nodes apart.
        """
        n, unit = present(step), self.wide.u / (1.0 + self.wide.u)
        if order.compensation:
            products = isinstance(step, Contract)
            return _compensated(order.compensation, terms, n, self.wide, products=products)
        height, nodes = tree.height, max(0, n - 1)
        flat = height * unit <= FLAT and bool((terms.size < self.wide.max / 2).all())
        if not flat or not isinstance(self.law, Certain):
            return errors()
        known = np.minimum((sizes() + nodes * terms.own) * slack(n), nodes * terms.size)
        return (terms.before + unit * known) / (1.0 - height * unit) * slack(4)

    def _walked(
        self, parts: Sequence[Array], tree: ReductionTree, before: Array, squares: Any,
        products: int = 0, fused: Any = None,
    ) -> Array:  # fmt: skip
        """Node by node; infinite where a sum may overflow."""
        unit, precision = self.wide.u / (1.0 + self.wide.u), self.wide.precision
        found = along(parts[0], parts[1], parts[2], tree, unit, precision, fused=fused)
        roundings = (tree.n - 1) + products * tree.n
        error = self.law.tree(found, before, squares, roundings, tree.height + products)
        return np.where(found.peak < self.wide.max, error, np.inf)

    def _store(self, terms: Terms, error: Array) -> Enclosed:
        """The accumulated number, rounded to the format."""
        error = np.where(terms.size + error < self.wide.max, error, np.inf)
        if self.wide == self.format:
            return Enclosed(terms.value, terms.own, error)
        return self._result(terms.value, terms.own, error, self.format, underflows=True)


# ------------------------------------------------------------------------------------- helpers


def _moved(radii: Sequence[Any], step: Move, operands: Sequence[Enclosed]) -> Any:
    if all(exact(radius) for radius in radii):
        return 0.0
    full = [
        np.broadcast_to(radius, np.shape(operand.value))
        for radius, operand in zip(radii, operands, strict=True)
    ]
    return move_elements(step, full, 0)


def _sum(radius: Any, value: Array) -> Any:
    return 0.0 if exact(radius) else np.sum(np.broadcast_to(radius, value.shape), axis=-1)


def _compensated(name: str, terms: Terms, n: int, wide: Format, *, products: bool) -> Array:
    whole = name == "sum2" and products
    try:
        on_sum, on_scale = getattr(theorems, "dot2" if whole else name)(n, wide.u)
    except InapplicableError:
        return np.full(terms.value.shape, np.inf)
    # The error term of a product in Dot2 is within half the smallest subnormal of the error, which is in
    # `before`; these halves pass through the sum of the error terms, 1 + gamma_n.
    lost = np.sqrt(on_scale) * n * wide.smallest_subnormal if whole else 0.0
    total = np.minimum(np.abs(terms.value) + terms.own + terms.before, terms.size)
    found = (terms.before + on_sum * total + on_scale * terms.size + lost) * slack(4)
    return np.where(terms.size < wide.max / 8, found, np.inf)
