"""An error bound beside every value: what a kernel of a given format and accumulator may return.

Each value is enclosed twice: the exact one within `own` of a float64 value, and any computed one within
`error` of the exact one.  So magnitudes come from float64 values with a proven radius, never from a native
result.  All of it is rounded upward by factors that cover the roundings of its own evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import move_elements
from roundoff.arithmetic.enclosed import (
    CORRECT,
    PROPAGATED,
    SUMS,
    UNDERFLOW,
    Enclosed,
    compared,
    exact,
    extreme,
    logical,
    selected,
    settled,
    sign_of,
    slack,
    unary,
)
from roundoff.arithmetic.laws import Certain, Law, present
from roundoff.arithmetic.scale import FUNCTIONS
from roundoff.arithmetic.shared import Alone, Shared
from roundoff.arithmetic.slopes import absolute_of, ulp_of
from roundoff.bounds import theorems
from roundoff.bounds.along import along, sizes_along
from roundoff.bounds.terms import rounded_products
from roundoff.errors import InapplicableError
from roundoff.formats import FLOAT64, Format, as_format, round_to
from roundoff.orders import Order, accumulator, as_order
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce

Array = npt.NDArray[np.float64]

#: float64's own elementary functions are within 4 ulp: what numpy's vectorised ones promise.
OWN_ULP = 4.0

#: scipy's erfc rounds x x, up to 745, before it takes the exponential (33 ulp measured up to 8, 507 to 26.5).
OWN_ULP_OF = {"erfc": 1024.0}

#: Products held at a time along a stated order: several arrays of 8 MiB.
CHUNK = 1 << 20

#: Up to this height times u, the errors below the partial sums are bounded all at once.
FLAT = 2.0**-6

_COMPARISONS = frozenset("gt ge lt le eq ne".split())


@dataclass(frozen=True, eq=False)
class Terms:
    """What is known of the sums of a step, whatever their order.

    Shapes: those of the step.
    value, own: the sums; size: at least the sum of the magnitudes of the computed terms; before: the
    errors of the terms, those of products included; once: the sum of the squares of the rounded products.
    """

    value: Array
    own: Array
    size: Array
    before: Array
    once: Array | float = 0.0


class Running:
    """The arithmetic of error bounds: format of all results, accumulator and order of all sums.

    order: None for any tree of additions (products rounded or fused), else a name, an Order, as in
    `Simulated`; law: `Certain` or `Likely`.  Elementary functions err by the ulp of `slopes.ULP`.
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
    ) -> None:
        self.format = as_format(format)
        self.wide = accumulator(self.format, accumulate)
        self.order = None if order is None else as_order(order)
        self.law = law or Certain(self.wide.u)
        self.shared = shared or Alone()
        self.infinite = False

    # -------------------------------------------------------------------------- values and moves

    def load(self, values: Array) -> Enclosed:
        return Enclosed(values, 0.0, 0.0)

    def constant(self, step: Constant) -> Enclosed:
        value, shape = step.value, step.shape
        near = float(value)
        if isinstance(value, float):
            self.infinite = True
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
        if all(exact(o.own) and exact(o.error) for o in operands):
            value = self.shared.once(step, "moved", lambda: move_elements(step, values, 0))
            found: Enclosed = self.shared.once(step, "exact", lambda: Enclosed(value, 0.0, 0.0))
            return found
        return Enclosed(
            move_elements(step, values, 0),
            _moved([o.own for o in operands], step, operands),
            _moved([o.error for o in operands], step, operands),
            max(o.terms for o in operands),
        )

    # -------------------------------------------------------------------------------------- maps

    def map(self, step: Map, operands: Sequence[Enclosed]) -> Enclosed:
        name, a = step.function, operands[0]
        with np.errstate(all="ignore"):
            if name in _COMPARISONS:
                return compared(name, a, operands[1])
            if name.startswith("logical"):
                return logical(name, operands)
            if name == "where":
                return selected(*operands)
            if name == "neg":
                return Enclosed(-a.value, a.own, a.error)
            if name == "abs":
                return Enclosed(np.abs(a.value), a.own, a.error)
            if name == "sign":
                return sign_of(a)
            if name in ("maximum", "minimum"):
                return extreme(name, a, operands[1])
            if name == "cast":
                return self._cast(a, as_format(step.format or self.format))
            found = self._rounded_map(name, operands)
            return settled(name, found, operands) if self.infinite else found

    def _cast(self, a: Enclosed, target: Format) -> Enclosed:
        value = Enclosed(np.asarray(a.value, np.float64), a.own, a.error)
        if target.precision >= self.format.precision and target.max >= self.format.max:
            return value
        return self._result(value.value, value.own, value.error, target, underflows=True)

    def _rounded_map(self, name: str, operands: Sequence[Enclosed]) -> Enclosed:
        value = FUNCTIONS[name](*(o.value for o in operands))
        if name in PROPAGATED:
            own, error = PROPAGATED[name](value, *operands)
        else:
            own, error = unary(name, operands[0])
        ulp = 0.5 if name in CORRECT else ulp_of(name, self.format)
        underflow = 0.0 if name in SUMS else UNDERFLOW
        error = error + absolute_of(name, self.format)
        if not all(exact(operand.error) for operand in operands):
            error = error + underflow
        own_ulp = 0.5 if name in CORRECT else OWN_ULP_OF.get(name, OWN_ULP)
        own = (
            own + 2.0 * own_ulp * FLOAT64.u * np.abs(value) + absolute_of(name, FLOAT64) + underflow
        )
        most = None
        if name in SUMS:
            most = np.minimum(operands[0].computed, operands[1].computed)
            error = error + self._joined(operands[0], operands[1])
            error = error + self._joined(operands[1], operands[0])
        return self._result(
            value, own, error, self.format, ulp=ulp, most=most, underflows=name not in SUMS
        )

    def _joined(self, product: Enclosed, other: Enclosed) -> Any:
        """What it costs if `other` is one more term of the sums of a matrix product.

        n + 1 terms are added by n roundings, each at most u times all magnitudes: n u |other|, and u times
        the products, of which the error of the product is at least dot(n).
        """
        n = product.terms
        if not n:
            return 0.0
        again = self.wide.u * (1.0 + self.wide.u) / self.law.dot(n)
        return (n * self.wide.u * other.computed + again * product.error) * slack(1)

    def _result(
        self, value: Any, own: Any, error: Any, target: Format, *,
        ulp: float = 0.5, most: Any = None, underflows: bool = False,
    ) -> Enclosed:  # fmt: skip
        """A value whose computed form is rounded to the target, within `ulp` ulp of it.

        To nearest, half an ulp is at most u/(1+u) of the unrounded number.  most: a sum of two numbers
        of the format errs by at most the smaller one, too.
        """
        u = target.u
        computed = np.abs(value) + own + error
        relative = u / (1.0 + u) if ulp == 0.5 else 2.0 * ulp * u
        local = relative * computed
        if most is not None:
            local = np.minimum(local, most)
        if underflows:
            small = (computed > 0) & (np.abs(value) - own - error < target.smallest_normal)
            local = local + np.where(small, max(ulp * target.smallest_subnormal, 2.0**-1074), 0.0)
        error = (error + local) * slack(1)
        error = np.where(np.abs(value) + own + error < target.max, error, np.inf)
        return Enclosed(value, own * slack(1), error)

    # -------------------------------------------------------------------------------------- sums

    def reduce(self, step: Reduce, operand: Enclosed) -> Enclosed:
        n, value = present(step), np.asarray(operand.value, np.float64)
        with np.errstate(all="ignore"):
            size, before = np.sum(operand.size, axis=-1), _sum(operand.error, value)
            own = (_sum(operand.own, value) + n * FLOAT64.u * size) * slack(n)
            terms = Terms(value.sum(axis=-1), own, (size + before) * slack(n), before * slack(n))
            if self.order is None:
                error = terms.before + self.law.sum(n) * terms.size
                return self._store(terms, error * slack(1))
            radii = [np.broadcast_to(v, value.shape) for v in (operand.own, operand.error)]

            def parts() -> list[Array]:
                return [np.moveaxis(v, -1, 0).reshape(n, -1).copy() for v in (value, *radii)]

            def sizes(order: Order) -> list[Array]:
                tree = order.restricted(step.leaves, step.kept)
                return [v.reshape(step.shape) for v in sizes_along(parts()[0], tree)]

            def errors(order: Order) -> tuple[Array, Array]:
                found = self._walked(parts(), order, step, fused=False)
                return found[0].reshape(step.shape), found[1].reshape(step.shape)

            return self._store(terms, self._ordered(step, terms, self.order, sizes, errors))

    def contract(self, step: Contract, first: Enclosed, second: Enclosed) -> Enclosed:
        n = present(step)
        with np.errstate(all="ignore"):
            value, off = self.shared.once(step, "value", lambda: (first.value @ second.value, 0.0))
            own = off + self.shared.once(step, "own", lambda: _own_of_product(first, second, n))
            if self.order is not None:
                return self._contract_ordered(step, first, second, value, own, self.order)
            factor = self.law.dot(n)
            # phi A^ B^ + (A^ B^ - A B), A^ = A + e: only sums of non-negative terms.
            if exact(second.error):
                error = factor * self.shared.once(step, "sizes", lambda: first.size @ second.size)
            else:
                scaled = (
                    factor * second.computed
                )  # tiny ones, that a large factor awaits, not below 2^-1074
                scaled += np.where(second.computed > 0, 2.0**-1074, 0.0)
                error = first.size @ (scaled + second.error)
            if not exact(first.error):
                error = error + (1.0 + factor) * (first.error @ second.computed)
            lost = n * (1.0 + self.law.sum(n)) * self._underflow
            error = (error + np.where(_nonzero(error, first, second), lost, 0.0)) * slack(n)
            size = error / factor if factor else error
            found = self._store(Terms(value, own, size, error), error)
            return Enclosed(found.value, found.own, found.error, n)

    @property
    def _underflow(self) -> float:
        return max(self.wide.smallest_subnormal / 2, 2.0**-1073)

    def _contract_ordered(
        self,
        step: Contract,
        first: Enclosed,
        second: Enclosed,
        value: Array,
        own: Array,
        order: Order,
    ) -> Enclosed:
        n, unit = present(step), self.wide.u / (1.0 + self.wide.u)
        tree = order.restricted(step.leaves, step.kept)
        alone = rounded_products(tree, order.fused)
        computed = first.computed @ second.computed
        before = _product(first.size, second.error) + _product(first.error, second.computed)
        rounded: Any = computed
        if order.compensation == "sum2":  # Dot2 loses nothing in the products
            rounded = 0.0
        elif order.fused:
            rounded = first.computed[:, :, alone] @ second.computed[:, alone, :]
        lost = np.where(_nonzero(computed, first, second), n * self._underflow, 0.0)
        before = (before + unit * rounded + lost) * slack(n)
        once: Array | float = 0.0
        if not exact(rounded) and not isinstance(self.law, Certain):
            once = np.square(first.computed) @ np.square(second.computed)
        terms = Terms(value, own, (computed * (1 + unit) + lost) * slack(n), before, once)

        def sizes(order: Order) -> list[Array]:
            def one(left: Sequence[Array], right: Sequence[Array]) -> tuple[Array, ...]:
                return sizes_along((left[0] * right[0]).reshape(n, -1), tree)

            return _blocks(step, [first.value], [second.value], one)

        def errors(order: Order) -> tuple[Array, Array]:
            def one(left: Sequence[Array], right: Sequence[Array]) -> tuple[Array, ...]:
                sides = (Enclosed(v[0], v[1], v[2]) for v in (left, right))
                parts = _products(*sides)
                of = [np.array(part.reshape(n, -1)) for part in parts]
                small = np.abs(of[0]) - of[1] - of[2] < self.wide.smallest_normal * 2.0**60
                of[2] += np.where((np.abs(of[0]) + of[1] + of[2] > 0) & small, self._underflow, 0.0)
                product = unit * (np.abs(of[0]) + of[1] + of[2])
                of[2][alone] += product[alone]
                return self._walked(of, order, step, fused=order.fused)

            left, right = (
                [x.value, *(np.broadcast_to(v, x.value.shape) for v in (x.own, x.error))]
                for x in (first, second)
            )
            found = _blocks(step, left, right, one)
            return found[0], found[1]

        return self._store(terms, self._ordered(step, terms, order, sizes, errors))

    def _ordered(
        self, step: Reduce | Contract, terms: Terms, order: Order,
        sizes: Callable[[Order], Sequence[Array]],
        errors: Callable[[Order], tuple[Array, Array]],
    ) -> Array:  # fmt: skip
        """The error of sums in a stated order.

        With E the sum of all errors of terms and additions, each of them is part of at most h partial sums.
        So E <= before + unit (sum of |exact partial sums| + h E), unless h u is large: then node by node.
        """
        n, unit = present(step), self.wide.u / (1.0 + self.wide.u)
        if order.compensation:
            products = isinstance(step, Contract)
            return _compensated(order.compensation, terms, n, self.wide, products=products)
        tree = order.restricted(step.leaves, step.kept)
        height, nodes = tree.height, max(0, n - 1)
        flat = height * unit <= FLAT and bool((terms.size < self.wide.max / 2).all())
        if flat:
            partial, squares = sizes(order)
            known = np.minimum((partial + nodes * terms.own) * slack(n), nodes * terms.size)
            error = (terms.before + unit * known) / (1.0 - height * unit) * slack(4)
            if isinstance(self.law, Certain):
                return error
            # By Minkowski, with what own and errors add to every partial sum.
            norm = np.sqrt(squares) * slack(n) + np.sqrt(nodes) * (terms.own + error)
        else:
            error, norm = errors(order)
        of_products = isinstance(step, Contract) and not order.fused
        return self.law.tree(
            error, terms.before, (norm**2 + terms.once) * slack(n),
            nodes + n * of_products, height + of_products,
        )  # fmt: skip

    def _walked(
        self, parts: Sequence[Array], order: Order, step: Reduce | Contract, *, fused: bool
    ) -> tuple[Array, Array]:
        """Node by node: the error, infinite where a sum may overflow, and the norm of all partial sums."""
        tree, unit = order.restricted(step.leaves, step.kept), self.wide.u / (1.0 + self.wide.u)
        found = along(parts[0], parts[1], parts[2], tree, unit, fused=fused)
        error = np.where(found.peak < self.wide.max, found.error, np.inf)
        return error, np.sqrt(found.large_squares) * slack(1)

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


def _product(a: Any, b: Any) -> Any:
    return 0.0 if exact(a) or exact(b) else a @ b


def _nonzero(sums: Array, first: Enclosed, second: Enclosed) -> Any:
    """Which sums of products may have any: those that are positive, unless float64 itself may underflow."""
    if (sums > 0).all():
        return True
    sizes = [np.where(v.computed > 0, v.computed, np.inf) for v in (first, second)]
    least = sizes[0].min(initial=np.inf) * sizes[1].min(initial=np.inf)
    if least > 2.0**-900:
        return sums > 0
    return (first.computed > 0).any(axis=-1)[..., None] & (second.computed > 0).any(axis=-2)[
        ..., None, :
    ]


def _norm(radius: Any, axis: int, n: int) -> Any:
    """Upper bounds of 2-norms; squares that underflow lose less than sqrt(n) 2^-536 in all."""
    if exact(radius):
        return 0.0
    squares = np.einsum("bmk,bmk->bm" if axis == -1 else "bkn,bkn->bn", radius, radius)
    return np.expand_dims(np.sqrt(squares) * slack(n) + np.sqrt(n) * 2.0**-536, axis)


def _own_of_product(first: Enclosed, second: Enclosed, n: int) -> Array:
    """The radius of a float64 matrix product, and of all its partial sums.

    By Cauchy and Schwarz: norms instead of products.
    """
    rows, columns = _norm(first.size, -1, n), _norm(second.size, -2, n)
    own = n * FLOAT64.u * rows * columns
    own = own + _norm(first.own, -1, n) * columns + rows * _norm(second.own, -2, n)
    result: Array = own * slack(n) + n * 2.0**-1073
    return result


def _products(a: Enclosed, b: Enclosed) -> tuple[Array, Array, Array]:
    """Enclosures of exact products; errors of the operands alone."""
    value = a.value * b.value
    own = np.abs(a.value) * b.own + a.own * b.size + FLOAT64.u * np.abs(value)
    own = np.where((a.size > 0) & (b.size > 0), own + 2.0**-1074, own) * slack(1)
    error = (a.size * b.error + a.error * b.computed) * slack(1)
    found = np.broadcast_arrays(value, own, error)
    return found[0], found[1], found[2]


def _blocks(
    step: Contract,
    first: Sequence[Array],
    second: Sequence[Array],
    one: Callable[[Sequence[Array], Sequence[Array]], tuple[Array, ...]],
) -> list[Array]:
    """Two results per element of a matrix product, from blocks of (terms, rows, columns) products."""
    batch, rows, columns = step.shape
    results = [np.empty(step.shape) for _ in range(2)]
    block = max(1, CHUNK // max(1, present(step) * columns))
    for b in range(batch):
        right = [v[b][:, None, :] for v in second]
        for start in range(0, rows, block):
            left = [v[b, start : start + block].T[:, :, None] for v in first]
            for result, part in zip(results, one(left, right), strict=True):
                result[b, start : start + block] = part.reshape(-1, columns)
    return results


def _compensated(name: str, terms: Terms, n: int, wide: Format, *, products: bool) -> Array:
    whole = name == "sum2" and products
    try:
        on_sum, on_scale = getattr(theorems, "dot2" if whole else name)(n, wide.u)
    except InapplicableError:
        return np.full(terms.value.shape, np.inf)
    # Underflowing error terms of Dot2 are lost as well: 5 n eta in Ogita, Rump and Oishi 2005.
    lost = 5.0 * n * wide.smallest_subnormal if whole else 0.0
    total = np.minimum(np.abs(terms.value) + terms.own + terms.before, terms.size)
    found = (terms.before + on_sum * total + on_scale * terms.size + lost) * slack(4)
    return np.where(terms.size < wide.max / 8, found, np.inf)
