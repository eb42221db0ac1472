"""An error bound beside every value: what a kernel of a given format and accumulator may return.

Each value is enclosed twice: the exact one within `own` of a float64 value, and any computed one within
`error` of the exact one.  So magnitudes come from float64 values with a proven radius, never from a native
result.  All of it is rounded upward by factors that cover the roundings of its own evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import move_elements
from roundoff.arithmetic.scale import FUNCTIONS
from roundoff.arithmetic.slopes import STEEPEST, absolute_of, ulp_of
from roundoff.bounds import theorems
from roundoff.bounds.along import along
from roundoff.errors import InapplicableError
from roundoff.formats import FLOAT64, Format, as_format, round_to
from roundoff.orders import Order, ReductionTree, accumulator, as_order
from roundoff.trace.steps import Contract, Index, Map, Reduce, Shape, Trace

Array = npt.NDArray[np.float64]

#: float64's own elementary functions are within 4 ulp: what numpy's vectorised ones promise.
OWN_ULP = 4.0

#: Products held at a time along a stated order: several arrays of 8 MiB.
CHUNK = 1 << 20

_COMPARISONS = frozenset("gt ge lt le eq ne".split())


@dataclass(frozen=True, eq=False)
class Enclosed:
    """A float64 (or boolean) value and two radii.

    own: |value - exact| is at most this; error: |computed - exact| is at most this; 0.0 in place of an
    array: exact everywhere.  For booleans 1 marks the undecided ones.
    """

    value: Any
    own: Any
    error: Any

    @cached_property
    def size(self) -> Any:
        """At least |exact|."""
        return np.abs(self.value) + self.own

    @cached_property
    def computed(self) -> Any:
        """At least |computed|."""
        return self.size + self.error


class Law(Protocol):
    """How far rounding can move sums; relative to the sum of the magnitudes of their terms."""

    def sum(self, n: int) -> float:
        """Factor for a sum of n terms in any order."""
        ...

    def dot(self, n: int) -> float:
        """Factor for a dot product of n terms in any order, products rounded or fused."""
        ...

    def tree(
        self, certain: Array, before: Array, squares: Array, roundings: int, height: int
    ) -> Array:
        """An absolute error along a tree.

        certain: the certain one; before: the errors of the terms; squares: sum of (partial sums)^2.
        """
        ...


@dataclass(frozen=True)
class Certain:
    """Never exceeded.  Source: Jeannerod and Rump 2013, Lange and Rump 2019, in any order."""

    u: float

    def sum(self, n: int) -> float:
        sharp = 2 * (n - 1) * self.u <= 1
        return (theorems.lange_rump if sharp else theorems.jeannerod_rump)(max(n - 1, 0), self.u)

    def dot(self, n: int) -> float:
        return theorems.dot(n, self.u)

    def tree(
        self, certain: Array, before: Array, squares: Array, roundings: int, height: int
    ) -> Array:
        return certain


@dataclass(frozen=True)
class Likely:
    """Exceeded with probability at most `failure` by any of all sums of a trace.

    The rounding errors inside each sum are taken as independent and of mean zero; errors of
    earlier steps are propagated by absolute values, so nothing is assumed of how they combine.  Where
    stagnation is possible (2 n u > 1: a partial sum may swallow half a typical term), the certain
    factor is used.

    sums: how many of them share the failure probability.
    Source: Hallman and Ipsen, arXiv 2107.01604, Theorem 2.6, with the partial sums of the tree; in any
    order with the sum of the magnitudes in place of each.
    """

    u: float
    failure: float
    sums: int

    def _factor(self, n: int, certain: float) -> float:
        if n == 0 or 2 * n * self.u > 1:
            return certain
        # No partial sum exceeds the sum of the magnitudes; n of them, the products together as one.
        found = theorems.hallman_ipsen(float(n), 2 * n, n, self.u, self.failure, max(1, self.sums))
        return min(certain, float(found))

    def sum(self, n: int) -> float:
        return self._factor(n, Certain(self.u).sum(n))

    def dot(self, n: int) -> float:
        return self._factor(n, Certain(self.u).dot(n))

    def tree(
        self, certain: Array, before: Array, squares: Array, roundings: int, height: int
    ) -> Array:
        if 2 * (roundings + 1) * self.u > 1:
            return certain
        found = theorems.hallman_ipsen(
            squares, max(1, roundings), height, self.u, self.failure, max(1, self.sums)
        )
        result: Array = np.fmin(certain, before + found)
        return result


def count_sums(trace: Trace) -> int:
    """How many sums a trace carries out."""
    return sum(int(np.prod(s.shape)) for s in trace.steps if isinstance(s, Reduce | Contract))


class Running:
    """The arithmetic of error bounds: format of all results, accumulator and order of all sums.

    order: None for any tree of additions (products rounded or fused), else a name, an Order, as in
    `Simulated`; law: `Certain` or `Likely`.  Elementary functions err by the ulp of `slopes.ULP`.
    A comparison whose operands may be on either side of each other is undecided, and what it selects
    is off by the whole difference of its branches.

    Raises: ArgumentError for unknown names and for an accumulator narrower than the format.
    """

    def __init__(
        self, format: Any, order: Any = None, accumulate: Any = None, law: Law | None = None
    ) -> None:
        self.format = as_format(format)
        self.wide = accumulator(self.format, accumulate)
        self.order = None if order is None else as_order(order)
        self.law = law or Certain(self.wide.u)

    # -------------------------------------------------------------------------- values and moves

    def load(self, values: Array) -> Enclosed:
        return Enclosed(values, 0.0, 0.0)

    def constant(self, value: Fraction, shape: Shape) -> Enclosed:
        near = float(value)
        own = theorems.upward(abs(Fraction(near) - value))
        held = Fraction(float(round_to(near, self.format))) == value
        # Rounded once as a number of the format, or computed by a quotient of two.
        error = 0.0 if held else 2.0 * self.format.u * abs(near) + self.format.smallest_subnormal
        full = np.full(shape, near)
        return Enclosed(full, own and np.full(shape, own), error and np.full(shape, error))

    def move(self, operands: Sequence[Enclosed], index: Index | None, shape: Shape) -> Enclosed:
        return Enclosed(
            move_elements([o.value for o in operands], index, shape, 0),
            _moved([o.own for o in operands], operands, index, shape),
            _moved([o.error for o in operands], operands, index, shape),
        )

    # -------------------------------------------------------------------------------------- maps

    def map(self, step: Map, operands: Sequence[Enclosed]) -> Enclosed:
        name, a = step.function, operands[0]
        with np.errstate(all="ignore"):
            if name in _COMPARISONS:
                return _compared(name, a, operands[1])
            if name.startswith("logical"):
                return _logical(name, operands)
            if name == "where":
                return _selected(*operands)
            if name == "neg":
                return Enclosed(-a.value, a.own, a.error)
            if name == "abs":
                return Enclosed(np.abs(a.value), a.own, a.error)
            if name == "sign":
                return _sign(a)
            if name in ("maximum", "minimum"):
                return _extreme(name, a, operands[1])
            if name == "cast":
                return self._cast(a, as_format(step.format))
            return self._rounded_map(name, operands)

    def _cast(self, a: Enclosed, target: Format) -> Enclosed:
        value = Enclosed(np.asarray(a.value, np.float64), a.own, a.error)
        if target.precision >= self.format.precision and target.max >= self.format.max:
            return value
        return self._result(value.value, value.own, value.error, target, underflows=True)

    def _rounded_map(self, name: str, operands: Sequence[Enclosed]) -> Enclosed:
        value = FUNCTIONS[name](*(o.value for o in operands))
        if name in _PROPAGATED:
            own, error = _PROPAGATED[name](value, *operands)
        else:
            own, error = _unary(name, operands[0])
        ulp = 0.5 if name in _CORRECT else ulp_of(name, self.format)
        error = error + absolute_of(name, self.format)
        own_ulp = 0.5 if name in _CORRECT else OWN_ULP
        own = (
            own
            + 2.0 * own_ulp * FLOAT64.u * np.abs(value)
            + (2.0**-1070 if name not in _SUMS else 0.0)
        )
        most = None
        if name in _SUMS:
            most = np.minimum(operands[0].computed, operands[1].computed)
        return self._result(
            value, own, error, self.format, ulp=ulp, most=most, underflows=name not in _SUMS
        )

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
        error = (error + local) * _slack(1)
        error = np.where(np.abs(value) + own + error < target.max, error, np.inf)
        return Enclosed(value, own * _slack(1), error)

    # -------------------------------------------------------------------------------------- sums

    def reduce(self, step: Reduce, operand: Enclosed) -> Enclosed:
        n = _present(step)
        value = np.asarray(operand.value, np.float64)
        if self.order is not None:
            shape = step.shape
            flat = [
                np.moveaxis(np.broadcast_to(v, value.shape), -1, 0).reshape(n, -1)
                for v in (value, operand.own, operand.error)
            ]
            found = self._along(flat, self.order, step, products=False)
            return self._store(*(v.reshape(shape) for v in found))
        with np.errstate(all="ignore"):
            size, factor = np.sum(operand.size, axis=-1), self.law.sum(n)
            own = _sum(operand.own, value) + n * FLOAT64.u * size
            before = _sum(operand.error, value)
            error = (before + factor * (size + before)) * _slack(n)
            error = np.where(size + error < self.wide.max, error, np.inf)
            return self._store(value.sum(axis=-1), own * _slack(n), error)

    def contract(self, step: Contract, first: Enclosed, second: Enclosed) -> Enclosed:
        n = _present(step)
        with np.errstate(all="ignore"):
            if self.order is not None:
                return self._store(*self._contract_along(step, first, second, self.order))
            value = first.value @ second.value
            own = _own_of_product(first, second, n)
            factor = self.law.dot(n)
            # phi A^ B^ + (A^ B^ - A B), A^ = A + e: only sums of non-negative terms.
            error = first.size @ (factor * second.computed + second.error)
            if not _exact(first.error):
                error = error + first.error @ ((1.0 + factor) * second.computed)
            lost = n * (1.0 + self.law.sum(n)) * max(self.wide.smallest_subnormal / 2, 2.0**-1073)
            error = (error + np.where(error > 0, lost, 0.0)) * _slack(n)
            largest = error / factor + error if factor else error
            error = np.where(largest < self.wide.max, error, np.inf)
            return self._store(value, own, error)

    def _contract_along(
        self, step: Contract, first: Enclosed, second: Enclosed, order: Order
    ) -> tuple[Array, Array, Array]:
        batch, rows, columns = step.shape
        n = _present(step)
        results = tuple(np.empty(step.shape) for _ in range(3))
        block = max(1, CHUNK // max(1, n * columns))
        of = [
            Enclosed(x.value, *(np.broadcast_to(v, x.value.shape) for v in (x.own, x.error)))
            for x in (first, second)
        ]
        for b in range(batch):
            right = [v[b][:, None, :] for v in (of[1].value, of[1].own, of[1].error)]
            for start in range(0, rows, block):
                left = [
                    v[b, start : start + block].T[:, :, None]
                    for v in (of[0].value, of[0].own, of[0].error)
                ]
                parts = _products(Enclosed(*left), Enclosed(*right))
                found = self._along([p.reshape(n, -1) for p in parts], order, step, products=True)
                for result, part in zip(results, found, strict=True):
                    result[b, start : start + block] = part.reshape(-1, columns)
        return results[0], results[1], results[2]

    def _along(
        self, parts: Sequence[Array], order: Order, step: Reduce | Contract, *, products: bool
    ) -> tuple[Array, Array, Array]:
        """Sums over axis 0 in a stated order, before the final rounding."""
        value, own, error = (np.array(p, np.float64) for p in parts)
        n, u = len(value), self.wide.u
        tree = order.restricted(step.leaves, step.kept)
        unit = u / (1.0 + u)
        fused = order.fused and products
        whole = order.compensation == "sum2" and products  # Dot2 loses nothing in the products
        before = error.sum(axis=0) * _slack(n)
        squares = np.zeros_like(before)
        if products:
            computed = np.abs(value) + own + error
            limit = self.wide.smallest_normal * (2.0 ** (self.wide.precision + 1) if fused else 1.0)
            small = (computed > 0) & (np.abs(value) - own - error < limit)
            lost = np.where(small, max(self.wide.smallest_subnormal / 2, 2.0**-1074), 0.0)
            if not fused and not whole:
                lost = lost + unit * computed
                squares = (computed * computed).sum(axis=0) * _slack(n)
            elif fused:
                lost[_first_leaf(tree)] += (unit * computed)[_first_leaf(tree)]
            error = error + lost
        if order.compensation:
            name = "dot2" if whole else order.compensation
            return _compensated(name, value, own, error, self.wide)
        walked = along(value, own, error, tree, unit, fused=fused)
        found = self.law.tree(
            walked.error, before, squares + walked.large_squares,
            n - 1 + n * products, tree.height + products,
        )  # fmt: skip
        return walked.value, walked.own, np.where(walked.peak < self.wide.max, found, np.inf)

    def _store(self, value: Array, own: Any, error: Any) -> Enclosed:
        """The accumulated number rounded to the format."""
        if self.wide == self.format:
            return Enclosed(value, own, error)
        with np.errstate(all="ignore"):
            return self._result(value, own, error, self.format, underflows=True)


# ------------------------------------------------------------------------------------- helpers


def _slack(n: int) -> float:
    """Covers the roundings, each below 2^-53, of a sum of n products of non-negative numbers."""
    return 1.0 + (2 * n + 64) * 2.0**-52


def _exact(radius: Any) -> bool:
    return isinstance(radius, float) and radius == 0.0


def _present(step: Reduce | Contract) -> int:
    return step.leaves if step.kept is None else len(step.kept)


def _moved(
    radii: Sequence[Any], operands: Sequence[Enclosed], index: Index | None, shape: Shape
) -> Any:
    if all(_exact(radius) for radius in radii):
        return 0.0
    full = [
        np.broadcast_to(radius, np.shape(operand.value))
        for radius, operand in zip(radii, operands, strict=True)
    ]
    return move_elements(full, index, shape, 0)


def _sum(radius: Any, value: Array) -> Any:
    return 0.0 if _exact(radius) else np.sum(np.broadcast_to(radius, value.shape), axis=-1)


def _norm(radius: Any, axis: int, n: int) -> Any:
    """Upper bounds of 2-norms; squares that underflow lose less than sqrt(n) 2^-536 in all."""
    if _exact(radius):
        return 0.0
    squares = np.sum(np.square(radius), axis=axis, keepdims=True)
    return np.sqrt(squares) * _slack(n) + np.sqrt(n) * 2.0**-536


def _own_of_product(first: Enclosed, second: Enclosed, n: int) -> Array:
    """The radius of a float64 matrix product, by Cauchy and Schwarz: norms instead of products."""
    rows, columns = _norm(first.size, -1, n), _norm(second.size, -2, n)
    own = n * FLOAT64.u * rows * columns
    own = own + _norm(first.own, -1, n) * columns + rows * _norm(second.own, -2, n)
    result: Array = own * _slack(n) + n * 2.0**-1073
    return result


def _products(a: Enclosed, b: Enclosed) -> tuple[Array, Array, Array]:
    """Enclosures of exact products; errors of the operands alone."""
    value = a.value * b.value
    own = np.abs(a.value) * b.own + a.own * b.size + FLOAT64.u * np.abs(value)
    own = np.where((a.size > 0) & (b.size > 0), own + 2.0**-1074, own) * _slack(1)
    error = (a.size * b.error + a.error * b.computed) * _slack(1)
    found = np.broadcast_arrays(value, own, error)
    return found[0], found[1], found[2]


def _compensated(
    name: str, value: Array, own: Array, error: Array, wide: Format
) -> tuple[Array, Array, Array]:
    n = len(value)
    size = (np.abs(value) + own + error).sum(axis=0) * _slack(n)
    total, before = value.sum(axis=0), error.sum(axis=0) * _slack(n)
    spread = (own.sum(axis=0) + n * FLOAT64.u * size) * _slack(n)
    try:
        on_sum, on_scale = getattr(theorems, name)(n, wide.u)
    except InapplicableError:
        return total, spread, np.full(total.shape, np.inf)
    # Underflowing error terms of Dot2 are lost as well: 5 n eta in Ogita, Rump and Oishi 2005.
    lost = 5.0 * n * wide.smallest_subnormal if name == "dot2" else 0.0
    found = before + on_sum * (np.abs(total) + spread + before) + on_scale * size + lost
    return total, spread, np.where(size < wide.max / 8, found * _slack(4), np.inf)


def _first_leaf(tree: ReductionTree) -> Any:
    """The product of a plain loop that is rounded although the others are fused."""
    return tree.children[0, 0] if tree.n > 1 else 0


def _compared(name: str, a: Enclosed, b: Enclosed) -> Enclosed:
    gap = np.abs(a.value - b.value)
    own, error = a.own + b.own, a.error + b.error
    undecided = (gap <= own + error) & (own + error > 0)
    return Enclosed(
        FUNCTIONS[name](a.value, b.value),
        np.where((gap <= own) & (own > 0), 1.0, 0.0),
        np.where(undecided, 1.0, 0.0),
    )


def _logical(name: str, operands: Sequence[Enclosed]) -> Enclosed:
    own, error = operands[0].own, operands[0].error
    for other in operands[1:]:
        own, error = np.maximum(own, other.own), np.maximum(error, other.error)
    return Enclosed(FUNCTIONS[name](*(o.value for o in operands)), own, error)


def _selected(condition: Enclosed, a: Enclosed, b: Enclosed) -> Enclosed:
    taken = np.asarray(condition.value, bool)
    apart = np.abs(a.value - b.value) + a.own + b.own
    own = np.where(np.greater(condition.own, 0), apart, np.where(taken, a.own, b.own))
    either = apart + np.maximum(a.error, b.error)
    error = np.where(np.greater(condition.error, 0), either, np.where(taken, a.error, b.error))
    return Enclosed(np.where(taken, a.value, b.value), own * _slack(1), error * _slack(1))


def _sign(a: Enclosed) -> Enclosed:
    own = np.where((np.abs(a.value) <= a.own) & np.greater(a.own, 0), 2.0, 0.0)
    radius = a.own + a.error
    error = np.where((np.abs(a.value) <= radius) & np.greater(radius, 0), 2.0, 0.0)
    return Enclosed(np.sign(a.value), own, error)


def _extreme(name: str, a: Enclosed, b: Enclosed) -> Enclosed:
    value = FUNCTIONS[name](a.value, b.value)
    first = (a.value >= b.value) == (name == "maximum")
    clear = np.abs(a.value - b.value) > a.own + b.own + a.error + b.error
    own, error = (
        np.where(clear, np.where(first, x, y), np.maximum(x, y))
        for x, y in ((a.own, b.own), (a.error, b.error))
    )
    return Enclosed(value, own, error)


def _times(value: Any, a: Enclosed, b: Enclosed) -> tuple[Any, Any]:
    return (
        np.abs(a.value) * b.own + a.own * b.size,
        a.size * b.error + a.error * b.computed,
    )


def _over(value: Any, a: Enclosed, b: Enclosed) -> tuple[Any, Any]:
    """|a/b - a^/b^| = |(a - a^) - a/b (b - b^)| / |b^|."""
    least = np.abs(b.value) - b.own
    ratio = a.size / least
    own = (a.own + ratio * b.own) / np.abs(b.value)
    error = (a.error + ratio * b.error) / (least - b.error)
    fails = ~(least - b.error > 0)
    return np.where(fails, np.inf, own), np.where(fails, np.inf, error)


def _power(value: Any, a: Enclosed, b: Enclosed) -> tuple[Any, Any]:
    """By the largest partial derivatives over the box, which lie at its corners for positive bases."""
    spread = a.own + a.error, b.own + b.error
    lows, highs = (
        (a.value - spread[0], b.value - spread[1]),
        (a.value + spread[0], b.value + spread[1]),
    )
    corners = [(x, y) for x in (lows[0], highs[0]) for y in (lows[1], highs[1])]
    powers = np.maximum.reduce([np.abs(x**y) for x, y in corners])
    by_base = np.maximum.reduce([np.abs(y) * np.abs(x ** (y - 1.0)) for x, y in corners])
    by_exponent = powers * np.maximum(np.abs(np.log(lows[0])), np.abs(np.log(highs[0])))
    outside = ~(lows[0] > 0)

    def total(x: Any, y: Any) -> Any:
        found = _zero_times(by_base, x) + _zero_times(by_exponent, y)
        return np.where(outside & (np.greater(x, 0) | np.greater(y, 0)), np.inf, found) * (
            1 + 2.0**-40
        )

    return total(a.own, b.own), total(a.error, b.error)


def _zero_times(slope: Any, radius: Any) -> Any:
    return np.where(np.equal(radius, 0), 0.0, slope * radius)


def _unary(name: str, a: Enclosed) -> tuple[Any, Any]:
    """The mean value theorem on an interval that holds the exact and every computed operand."""
    spread = a.own + a.error
    slope = STEEPEST[name](a.value - spread, a.value + spread) * (1 + 2.0**-40)
    own, error = _zero_times(slope, a.own), _zero_times(slope, a.error)
    if name == "sqrt":  # |sqrt(x) - sqrt(y)| <= sqrt(|x - y|)
        inside = a.value - spread >= 0
        own, error = (
            np.where(inside, np.fmin(found, np.sqrt(radius) * (1 + 2.0**-50)), found)
            for found, radius in ((own, a.own), (error, a.error))
        )
    return own, error


_PROPAGATED: dict[str, Callable[..., tuple[Any, Any]]] = {
    "add": lambda value, a, b: (a.own + b.own, a.error + b.error),
    "sub": lambda value, a, b: (a.own + b.own, a.error + b.error),
    "mul": _times,
    "div": _over,
    "pow": _power,
}
_SUMS = frozenset(("add", "sub"))
_CORRECT = frozenset(("add", "sub", "mul", "div", "sqrt"))
