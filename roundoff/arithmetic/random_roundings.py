"""What rounding makes of a computation: each rounding replaced by a random error of its size.

One walk is one sample, of a key.  Errors are functions of the numbers that are rounded, as those of rounding
are: equal numbers have equal errors, so that a tensor of equal numbers has one error and not many that
cancel.  Sums are not added in an order: the error of each is drawn from a normal distribution with the root
mean square that its partial sums have.  Samples are float64 throughout; what they are subtracted from is the
same walk without errors.

Errors of narrow formats are far above float64's own.  Those of float64 are drawn AMPLIFIED times as large,
and the difference is divided by that again: at first order errors are linear in their sources.  Steps of
both kinds are walked twice: once the narrow ones err, and once the wide ones do.

Source: the idea of random rounding in place of deterministic, from D. S. Parker, Monte Carlo Arithmetic, 1997
(there with the operands' digits as the sizes).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import move_elements
from roundoff.arithmetic.enclosed import Enclosed
from roundoff.arithmetic.enclosed_products import few, products_on_a_grid
from roundoff.arithmetic.errors_of_digits import centred, normal_errors, rounding_errors
from roundoff.arithmetic.exact_operations import exact_in_float64, terms_on_a_grid
from roundoff.arithmetic.per_step import Rounding
from roundoff.arithmetic.sum_roundings import SumRoundings
from roundoff.arithmetic.views import for_products
from roundoff.bounds.exactness import powers_of_two
from roundoff.kernels.facts import Kernels
from roundoff.kernels.levels import levels as kernel_levels
from roundoff.kernels.levels import narrow
from roundoff.numbers.formats import Format, as_format, round_to
from roundoff.orders import Order, as_order
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.steps import (
    Constant,
    Contract,
    Map,
    Move,
    Reduce,
    Rounded,
    Step,
    Trace,
    present,
)

Array = npt.NDArray[np.float64]

#: From this precision on, formats are wide; how much larger the errors of those are drawn.
WIDE, AMPLIFIED = 33, 2.0**20

#: The most bits of a 16-bit format.
HALF = 11

#: The smallest normal number of bfloat16 and float32: kernels may flush what is below.
FLUSHED = 2.0**-126

#: Kernels that subtract the largest number, whichever that is: the result does not depend on it.
_SHIFTED = ("_softmax", "_log_softmax", "_safe_softmax", "logsumexp")

#: Kinds of maps that float64 carries out with a remainder that tells whether they round.
_ARITHMETIC = (Kind.SUM, Kind.PRODUCT, Kind.QUOTIENT)


@dataclass(frozen=True, eq=False)
class Sampled:
    """A value with the errors so far; exact: whether it has none, so that it is the same in every sample.

    precision: of the format that the kernel keeps its numbers in.
    """

    value: Any
    exact: bool
    precision: int


class Plain:
    """What all walks of a trace share: kept by step from the walk without errors, which comes first.

    tiny: the steps of that walk with numbers below FLUSHED, which kernels may flush to zero.
    """

    def __init__(self) -> None:
        self.tiny: list[Rounded] = []
        self._rms: dict[int, tuple[Step, Array]] = {}
        self._sides: dict[int, tuple[Step, Array]] = {}

    def rms(self, step: Step, make: Callable[[], Array]) -> Array:
        """Of the error that the additions of a step make, per sum."""
        return _kept(self._rms, step, make)

    def same_sides(self, step: Map, sides: Array) -> bool:
        """Whether they are those of the walk without errors."""
        return np.array_equal(_kept(self._sides, step, lambda: sides), sides)


def _kept(store: dict[int, tuple[Step, Array]], step: Step, make: Callable[[], Array]) -> Array:
    """The step is kept, too, so that no other has its id."""
    if id(step) not in store:
        store[id(step)] = step, make()
    return store[id(step)][1]


@dataclass(frozen=True, eq=False)
class Drawing:
    """What the steps of one walk share, whatever their format.

    key: of the sample; None: without errors, the walk that comes first.  plain: shared by all walks of a
    trace; larger: how many times larger errors are drawn; errs: whether steps of a format err at all;
    orders: in which the sums of a step are added, where that is known, by the step's id; branches: the steps
    at which some element is on another side than in the first walk.
    """

    key: np.uint64 | None = None
    plain: Plain = field(default_factory=Plain)
    larger: float = 1.0
    errs: Callable[[Format], bool] = lambda format: True
    orders: Mapping[int, Order] = field(default_factory=dict)
    branches: list[Map] = field(default_factory=list)


class RandomRoundings(Rounding):
    """The arithmetic of one sample.  order, accumulate: as in `Expected`; order None: kernels' usual one."""

    def __init__(
        self,
        format: Any,
        order: Any = None,
        accumulate: Any = None,
        kernels: Kernels | None = None,
        drawing: Drawing | None = None,
    ) -> None:
        super().__init__(format, accumulate, kernels)
        self.drawing = drawing or Drawing()
        self.key = self.drawing.key if self.drawing.errs(self.format) else None
        self.plain, self.larger = self.drawing.plain, self.drawing.larger
        self.wide = self.place.wide
        self.order = None if order is None else as_order(order)
        # Matrix units multiply and add at once, unless an order is stated that does not.
        self.additions = SumRoundings(
            self.format, self.wide, self.order, not self.order or self.order.fused
        )

    def in_format(self, own: Format, wide: Format) -> RandomRoundings:
        return RandomRoundings(own, self.order, wide, None, self.drawing)

    def load(self, values: Array) -> Sampled:
        return Sampled(values, True, self.format.precision)

    def constant(self, step: Constant) -> Sampled:
        value = float(step.value)
        if self.key is not None and isinstance(step.value, Fraction):
            rounded = round_to(value, self.format).item()
            if np.isfinite(rounded):
                value += float(Fraction(rounded) - step.value) * self.larger
        return Sampled(np.broadcast_to(value, step.shape), True, self.format.precision)

    def move(self, step: Move, operands: Sequence[Sampled]) -> Sampled:
        exact = all(operand.exact for operand in operands)
        values = move_elements(step, [operand.value for operand in operands], 0.0)
        return Sampled(values, exact, max(operand.precision for operand in operands))

    def map(self, step: Map, operands: Sequence[Sampled]) -> Sampled:
        function = FUNCTIONS[step.function]
        exact = all(operand.exact for operand in operands)
        if function.kind is Kind.CAST:
            value = np.asarray(operands[0].value, np.float64)
            fits = operands[0].precision <= self.format.precision
            return self._rounded(step, value, exact, self._held(value) if exact else fits)
        with np.errstate(all="ignore"):
            value = np.asarray(function.float64(*(operand.value for operand in operands)))
        if function.sides is not None and not exact and step.kernel not in _SHIFTED:
            x = operands[0].value
            sides = x >= (operands[1].value if function.arity == 2 else 0)
            if not self.plain.same_sides(step, sides):
                self.drawing.branches.append(step)
        if not function.rounded:
            return self._chosen(step, function, value, operands)
        if exact and function.kind in _ARITHMETIC:
            return self._rounded(step, value, exact, self._exactly(function, value, operands))
        if function.kind is Kind.PRODUCT:
            for one, known in zip(operands, reversed(operands), strict=True):
                if known.exact and one.precision <= self.format.precision and _scales(known.value):
                    return Sampled(value, False, one.precision)  # its own digits
        whole = self._whole(function, operands)
        return self._rounded(
            step, self._approximated(function, value), exact, whole, function.usual
        )

    def _approximated(self, function: Function, value: Array) -> Array:
        """With the absolute error of a kernel's approximation: the record has its largest, four times the
        usual."""
        absolute = function.absolute(self.format)
        if absolute <= self.format.smallest_normal or self.key is None:
            return value
        return value + centred(value, self._own_key) * (0.5 * absolute * self.larger)

    def _chosen(
        self, step: Map, function: Function, value: Array, operands: Sequence[Sampled]
    ) -> Sampled:
        """An operand's own number, rounded only where it was kept wider inside a kernel that ends here."""
        exact = all(operand.exact for operand in operands)
        precision = max(operand.precision for operand in operands)
        if function.boolean or precision <= self.format.precision:
            return Sampled(value, exact, min(precision, self.format.precision))
        if exact:
            return self._rounded(step, value, exact, self._held(value))
        kept: Any = False
        for one in operands[-2:]:
            if one.exact or one.precision <= self.format.precision:
                kept = kept | (np.equal(value, one.value) & (not one.exact or self._held(value)))
        return self._rounded(step, value, exact, kept)

    def _whole(self, function: Function, operands: Sequence[Sampled]) -> Any:
        """Where an operand that is known is 0 or a power of two and leaves the other one's digits alone."""
        pairs = [
            (one, known)
            for one, known in zip(operands, reversed(operands), strict=True)
            if known.exact and one.precision <= self.format.precision
        ]
        if function.kind is Kind.PRODUCT:
            return _any(powers_of_two(known.value) for _, known in pairs)
        if function.kind is Kind.QUOTIENT:
            return _any(powers_of_two(k.value) for _, k in pairs if k is operands[1])
        if function.kind is Kind.SUM:
            zero = _any(np.equal(known.value, 0) for _, known in pairs)
            fits = max(o.precision for o in operands) <= self.format.precision
            return zero | np.equal(*(o.value for o in operands)) if fits else zero  # x + x
        return False

    def _exactly(self, function: Function, value: Array, operands: Sequence[Sampled]) -> Any:
        """Where the result of known operands is a number of the format, before it is rounded."""
        known = [Enclosed(np.asarray(o.value, np.float64), 0.0, 0.0) for o in operands]
        with np.errstate(all="ignore"):
            whole = self._held(value) & exact_in_float64(function, value, known)
        return whole | np.equal(value, 0)

    def _held(self, value: Array) -> Any:
        return np.equal(round_to(value, self.format), value)

    def _rounded(
        self, step: Rounded, value: Array, exact: bool, whole: Any, times: float = 1.0
    ) -> Sampled:
        """With a rounding to the format, or an error so many times as large, where that does not keep the
        value."""
        precision = self.format.precision
        every = whole is not None and bool(np.all(whole))
        if self.key is None:
            self._note_tiny(step, value)
        if every or self.key is None:
            return Sampled(value, exact and every, precision)
        error = rounding_errors(value, self._own_key, self.format, times * self.larger)
        if whole is not None and np.any(whole):
            error = np.where(whole, 0.0, error)
        return Sampled(value + error, False, precision)

    def _note_tiny(self, step: Rounded, value: Array) -> None:
        if self.format.precision < WIDE and _least(value) < FLUSHED:
            self.plain.tiny.append(step)

    @property
    def _own_key(self) -> np.uint64:
        """Of a sample with errors: another one in each format."""
        return self.key + np.uint64(self.format.precision)  # type: ignore[operator]

    def reduce(self, step: Reduce, operand: Sampled) -> Sampled:
        terms = operand.value
        with np.errstate(all="ignore"):
            total = terms.sum(axis=-1)
            stated = self.order is not None or id(step) in self.drawing.orders
            if self.key is not None and not stated and narrow(step) and self._few_bits:
                # So few bits that terms are swallowed, to one side: nothing random is like it.
                return Sampled(_in_turn(terms, self.wide), False, self.format.precision)
        return self._stored(
            step, total, operand.exact, lambda: self._of_terms(step, terms, total, operand.exact)
        )

    @property
    def _few_bits(self) -> bool:
        return self.wide.precision <= HALF

    def contract(self, step: Contract, first: Sampled, second: Sampled) -> Sampled:
        a, b = for_products(first.value), for_products(second.value)
        with np.errstate(all="ignore"):
            total = a @ b
        exact = first.exact and second.exact
        return self._stored(step, total, exact, lambda: self._of_products(step, a, b, total, exact))

    def _stored(self, step: Reduce | Contract, total: Array, exact: bool, rms: Any) -> Sampled:
        error = self.plain.rms(step, rms)
        none = exact and not np.any(error)
        narrow = self.wide != self.format
        if self.key is not None and not none:
            total = total + normal_errors(total, self._own_key, error * self.larger)
        if narrow:
            return self._rounded(step, total, none, self._held(total) if none else None)
        return Sampled(total, none, self.format.precision)

    def _additions(self, step: Reduce | Contract) -> SumRoundings:
        order = self.drawing.orders.get(id(step))
        if order is None:
            return self.additions
        return SumRoundings(self.format, self.wide, order, order.fused)

    def _of_terms(self, step: Reduce, terms: Array, total: Array, exact: bool) -> Array:
        with np.errstate(all="ignore"):
            squares, count = (terms * terms).sum(axis=-1), np.count_nonzero(terms, axis=-1)
            levels = kernel_levels(step, self.wide)
            added = self._additions(step).of_terms(step, terms, count, squares, total, levels)
        if exact:
            known = Enclosed(np.asarray(terms, np.float64), 0.0, 0.0)
            added = np.where(terms_on_a_grid(known, self.wide), 0.0, added)
        return np.asarray(np.sqrt(added))

    def _of_products(self, step: Contract, a: Array, b: Array, total: Array, exact: bool) -> Array:
        n = present(step)
        with np.errstate(all="ignore"):
            if _least(a) * _least(b) < FLUSHED and self.format.precision < WIDE:
                self.plain.tiny.append(step)
            squares = np.square(a) @ np.square(b)
            full = a.all() and b.all()
            count = n if full else (a != 0).astype(np.float64) @ (b != 0).astype(np.float64)
            levels = kernel_levels(step, self.wide)
            added = self._additions(step).of_products(step, a, b, count, squares, total, levels)
        alone = n == 1 and step.kernel != "fft"
        if alone and self.additions.fused and 2 * self.format.precision > self.wide.precision:
            added = self.additions.once * squares  # nothing is added to the product: it is rounded
        if exact:
            known = [Enclosed(np.asarray(v, np.float64), 0.0, 0.0) for v in (a, b)]
            sizes = np.abs(a) @ np.abs(b)
            grid = products_on_a_grid(step, known[0], known[1], sizes, self.wide, few(step))
            added = np.where(grid, 0.0, added)
        return np.asarray(np.sqrt(added))


def _in_turn(terms: Array, format: Format) -> Array:
    """The sums over the last axis in a loop that rounds to a format."""
    total = np.zeros(terms.shape[:-1])
    for k in range(terms.shape[-1]):
        total = round_to(total + terms[..., k], format)
    return total


def _least(values: Array) -> float:
    """The smallest magnitude but zero."""
    size = np.abs(values)
    return float(np.min(size, initial=np.inf, where=size > 0))


def is_wide(format: Format) -> bool:
    """Whether errors of the format are near float64's own, and drawn larger."""
    return format.precision >= WIDE


def kinds_of_formats(trace: Trace, format: Format) -> list[bool]:
    """Of the formats that steps of a trace have: whether they are wide."""
    own = {step.format for step in trace.steps if isinstance(step, Rounded) and step.format}
    return sorted({is_wide(each) for each in (format, *map(as_format, own))})


def _scales(factors: Any) -> bool:
    """Whether all are powers of two."""
    return bool(np.all(powers_of_two(factors)))


def _any(masks: Any) -> Any:
    found: Any = False
    for mask in masks:
        found = found | mask
    return found
