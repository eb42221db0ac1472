"""An error bound beside every value: what a kernel of a given format and accumulator may return.

Each value is enclosed twice: the exact one within `own` of a float64 value, and any computed one within
`error` of the exact one.  So magnitudes come from float64 values with a proven radius, never from a native
result.  All of it is rounded upward by factors that cover the roundings of its own evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import replace
from fractions import Fraction
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
from roundoff.arithmetic.enclosed_sums import Adding, KnownSums
from roundoff.arithmetic.exact_operations import exact_in_float64, given, held_by, kept, lean
from roundoff.arithmetic.flushing import reach, read, taken_for_granted
from roundoff.arithmetic.guarding import Guarding
from roundoff.arithmetic.per_step import Rounding
from roundoff.arithmetic.sharing import Sharing
from roundoff.bounds import theorems
from roundoff.bounds.known_sums import Accumulator, Sums
from roundoff.bounds.sum_laws import Law, certified
from roundoff.kernels.facts import Described, Kernels
from roundoff.numbers.formats import FLOAT64, Format, round_to
from roundoff.orders import as_order
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.steps import Constant, Contract, Guard, Map, Move, Reduce, present

Array = npt.NDArray[np.float64]


class Running(Rounding, Sharing, Guarding):
    """The arithmetic of error bounds: declared format of results, accumulator and order of all sums.

    order: None for any tree of additions, else a name, an Order, as in `Simulated`; law: how far rounding
    moves sums, of `bounds.sum_laws`; rounding: of sums, "nearest", "stochastic" or "toward_zero"; fused:
    whether products may enter additions unrounded, None for what the order says (any tree: they may).
    Elementary functions err by the ulp of their records.  A comparison whose operands may be on either side
    of each other is undecided, and what it selects is off by the whole difference of its branches.
    turned: the decisions of the trace that rounding may turn; then nothing is bounded.

    Raises: ArgumentError for unknown names and for an accumulator narrower than the format.
    """

    def __init__(
        self,
        format: Any,
        order: Any = None,
        accumulate: Any = None,
        law: Law = certified,
        kernels: Kernels | None = None,
        *,
        rounding: str = "nearest",
        fused: bool | None = None,
    ) -> None:
        super().__init__(format, accumulate, kernels)
        self.wide = self.place.wide
        self.accumulator = Accumulator(self.wide, rounding)
        self.order = None if order is None else as_order(order)
        self.fused = (self.order is None or self.order.fused) if fused is None else fused
        self.law = law
        self.flushing = False
        self.turned: list[Guard] = []

    def decided(self, guard: Guard, value: Enclosed) -> None:
        """Note a decision that is not sure for all computed values."""
        if (np.greater(value.own + value.error, 0) | (value.value != guard.taken)).any():
            self.turned.append(guard)

    def in_format(self, own: Format, wide: Format) -> Running:
        other = Running(
            own, self.order, wide, self.law, rounding=self.accumulator.rounding, fused=self.fused
        )
        other._findings = self._findings
        return other

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
            found = self.findings(step)
            if found.moved is None:
                found.moved = move_elements(step, values, 0)
            if found.enclosed is None:
                found.enclosed = Enclosed(found.moved, 0.0, 0.0)
            enclosed: Enclosed = found.enclosed
            return enclosed
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
                    error = a.error if function.bounded else np.full(np.shape(a.value), np.inf)
                    return Enclosed(function.float64(a.value), a.own, error)
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
        with np.errstate(all="ignore"):
            return self._added(*self._measured(step, operand))

    def _product(self, step: Contract, first: Enclosed, second: Enclosed) -> Enclosed:
        with np.errstate(all="ignore"):
            measured = self._measured(step, first, second)
            if step.kernel == "fft":
                return self._transformed(step, measured, first)
            found, sums = self._added(*measured), measured[2]
        if self.order is None:
            count = int(np.max(sums.count, initial=0))
            found = replace(found, terms=count, magnitudes=sums.size + sums.lost)
        return found

    def _transformed(self, step: Contract, measured: KnownSums, first: Enclosed) -> Enclosed:
        """A part of a Fourier transform: errors are relative to all that is transformed, in every order.

        What is transformed is read with weights of magnitude 1 at most, its errors, too.
        """
        value, own, _ = measured
        lengths = step.call.arguments[2]  # type: ignore[union-attr]
        size, error = (
            np.sum(np.broadcast_to(each, first.value.shape), axis=-1, keepdims=True)
            for each in (first.computed, first.error)
        )
        factor = theorems.fourier(lengths, self.accumulator.step)
        tiny = np.where(size > 0, step.leaves * self.wide.smallest_normal, 0.0)
        error = (error + factor * size + tiny) * slack(present(step) + 8)
        error = np.broadcast_to(error, np.shape(value))
        return (
            self._result(value, own, error, self.format)
            if self.wide != self.format
            else lean(
                Enclosed(
                    value, own, np.where(np.abs(value) + own + error < self.wide.max, error, np.inf)
                )
            )
        )

    def _measured(self, step: Reduce | Contract, *operands: Enclosed) -> KnownSums:
        """What is known of the sums of a step: of given numbers, it is the same under every law."""
        adding, found = self.adding, self.findings(step)
        lasting = not self.flushing and all(map(given, operands))
        if lasting and adding in found.sums:
            known: KnownSums = found.sums[adding]
            return known
        if isinstance(step, Reduce):
            made = adding.terms(step, *operands)
        else:
            made = adding.products(step, operands[0], operands[1], found)
        if lasting:
            found.sums[adding] = made
        return made

    @property
    def adding(self) -> Adding:
        """How sums are carried out."""
        return Adding(
            self.accumulator, self.place.own, self.order, self.fused,
            isinstance(self.kernels, Described), self.flushing,
        )  # fmt: skip

    def _added(self, value: Array, own: Any, sums: Sums) -> Enclosed:
        """Sums under the law, kept in the accumulator and rounded to the format.

        The final rounding errs by at most u/(1+u) of the accumulated number, or half the smallest subnormal.
        """
        error = self.law(sums) * slack(4)
        none = np.isnan(error) | np.equal(
            sums.count, 0
        )  # the law does not apply, or nothing is added
        error = np.where(error > 0, error + UNDERFLOW, error)  # float64's own
        error = np.where(none | (sums.peak(error) < self.wide.max), error, np.inf)
        if self.wide == self.format:
            return lean(Enclosed(value, own, error))
        target = self.format
        computed = np.abs(value) + own + error
        local = target.u / (1.0 + target.u) * computed
        small = (computed > 0) & (np.abs(value) - own - error < target.smallest_normal)
        if self.flushing:
            local = local + np.where(small, target.smallest_normal, 0.0)
        else:
            least = max(target.smallest_subnormal / 2, 2.0**-1074)
            local = np.where(small, np.maximum(local, least), local)
            local = np.where(held_by(value, own, error, target), 0.0, local)
        error = (error + local) * slack(1)
        error = np.where(none | (computed < target.overflow_threshold), error, np.inf)
        return lean(Enclosed(value, own * slack(1), error))


# ------------------------------------------------------------------------------------- helpers


def _moved(radii: Sequence[Any], step: Move, operands: Sequence[Enclosed]) -> Any:
    if all(exact(radius) for radius in radii):
        return 0.0
    full = [
        np.broadcast_to(radius, np.shape(operand.value))
        for radius, operand in zip(radii, operands, strict=True)
    ]
    return move_elements(step, full, 0)
