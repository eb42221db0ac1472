"""Two sides and one set of inputs: traces, references, bounds and the verdicts that follow."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.memo import Shared
from roundoff.errors import (
    ArgumentError,
    PrecisionError,
    RoundoffError,
    UndecidedError,
    UnsupportedError,
)
from roundoff.gradients.inputs import float64_array
from roundoff.gradients.reference import Reference, is_large, spot_check
from roundoff.judging.comparison.elsewhere import Search
from roundoff.judging.comparison.equality import (
    Agreement,
    agreement_of,
    any_known,
    apart,
    chance,
    off_kinks,
)
from roundoff.judging.comparison.literals import as_data
from roundoff.judging.comparison.pairs import Pair
from roundoff.judging.comparison.points import Points
from roundoff.judging.comparison.sides import Side
from roundoff.judging.evidence import FAILURE, Evidence, evidence_of_trace, proven_reference
from roundoff.judging.power import power_of
from roundoff.judging.verdict import Judgement, Verdict, judge, normwise_errors
from roundoff.numbers.formats import Format, as_format
from roundoff.trace import UPSTREAM, Trace, Traces
from roundoff.trace.checks import OUTPUT, check_output_apart
from roundoff.trace.degree import degree

Array = npt.NDArray[np.float64]
Inputs = Mapping[str, Array]

#: What tracing raises where it meets something that is not made of ATen operations.
_UNTRACED = (
    RoundoffError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    NotImplementedError,
)


#: The traces of both sides in a format; None for an opaque one.
Both = tuple[Trace | None, Trace | None]


class Problem:
    """Two sides with their traces in every format, one problem.

    formats: those to judge in; None for that of the tensors that are given.
    """

    def __init__(
        self, sides: tuple[Side, Side], inputs: dict[str, Any], wrt: Sequence[str] | None,
        loss: Callable[..., Any] | None, upstream: Any, output: Any, device: Any, seed: int,
        formats: Any,
    ) -> None:  # fmt: skip
        from roundoff.trace.capture import as_tensor, check_wrt

        self.sides, self.device = sides, device
        self.notes: list[str] = []
        self.checked: list[Trace] = []
        self.spent: dict[str, float] = {}
        self.shared: list[Shared] = []
        self.ran: dict[tuple[str, Format], dict[str, Array]] = {}
        self.generator = np.random.default_rng([seed, 4])
        self.inputs = {name: as_tensor(name, value) for name, value in inputs.items()}
        self.wrt = check_wrt(self.inputs, wrt)
        check_output_apart(self.wrt)
        self.loss, self.output = loss, output
        self.upstream = self._upstream(upstream)
        self.names = self._compared()
        self.formats = self._formats(formats)
        self.opaque: dict[str, list[Format]] = {}
        self.literals: dict[str, list[Format]] = {}
        self.traces = self._traced()
        self.values = {name: float64_array(value) for name, value in self.inputs.items()}
        if self.upstream is not None:
            self.values[UPSTREAM] = float64_array(as_tensor(UPSTREAM, self.upstream))
        floating = {n for n in self.values if n == UPSTREAM or self.inputs[n].is_floating_point()}
        self.points = Points(self.values, floating, self.wrt, self.generator)
        self.traces = {target: self._as_data(both, target) for target, both in self.traces.items()}
        self.notes += self._by_format(self.literals)
        self._checked()

    def _upstream(self, upstream: Any) -> Any:
        """A random one where the output is no scalar and the caller gave nothing."""
        if self.loss is not None or upstream is not None:
            return upstream
        shapes = self._shapes()
        if len(set(shapes.values())) > 1:
            raise ArgumentError(
                f"the outputs differ in shape ({_shown(shapes)}); give a loss, or make them alike"
            )
        shape = next(iter(shapes.values()), ())
        if prod(shape) == 1:
            return None
        self.notes.append("upstream gradient: random, normal (no loss was given)")
        return self.generator.standard_normal(shape).astype(np.float32).astype(np.float64)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """Those of the outputs of the sides that are functions."""
        from roundoff.gradients.native import native_output

        return {
            side.name: tuple(native_output(side.function, self.inputs, output=self.output).shape)
            for side in self.sides
            if side.function is not None
        }

    def _compared(self) -> list[str]:
        """The gradients' names, and the output's unless a loss makes one number of outputs of two shapes."""
        shapes = {} if self.loss is None else self._shapes()
        if len(set(shapes.values())) < 2:
            return [OUTPUT, *self.wrt]
        self.notes.append(
            f"the outputs differ in shape ({_shown(shapes)}): gradients alone are compared"
        )
        return list(self.wrt)

    def _traced(self) -> dict[Format, Both]:
        """The traces of both sides by format; equal ones are one object."""
        found: dict[Format, Both] = {}
        sources: list[Traces | None] = [None, None]
        for target in self.formats:
            one, two = (self._trace(n, target, sources) for n in range(2))
            if one is not None and two is not None and two is not one and one.equals(two):
                two = one  # one reference, one set of bounds for both
            found[target] = one, two
        for note, where in self.opaque.items():
            among = "" if len(where) == len(self.formats) else f" in {_listed(where)}"
            self.notes.append(f"{note}{among}")
        if all(one is None and two is None for one, two in found.values()):
            reasons = "; ".join(self.opaque) or "no side is a function"
            raise UnsupportedError(f"neither side can be judged: {reasons}")
        return found

    def _as_data(self, both: Both, target: Format) -> Both:
        """Literals as the other side holds them as data, where they alone set the two apart.

        In float64 they do, and a note says so; where steps compute in float32 or less, the two are judged as
        one computation.
        """
        one, two = both
        if one is None or two is None or one is two:
            return both
        for each in as_data((one, two), target):
            if self._apart(both, target) and not self._apart(each.traces, target):
                told = "; ".join(
                    taken.words([side.name for side in self.sides]) for taken in each.taken
                )
                what = (
                    "steps in float32 or less do not tell them apart, and both are judged as that number"
                    if each.alike
                    else "that alone sets them apart"
                )
                self.literals.setdefault(f"{told}: {what}", []).append(target)
                return each.traces if each.alike else both
        return both

    def _apart(self, both: Both, target: Format) -> bool:
        """Whether exact values are apart at the given inputs."""
        try:
            first, second = _of_traces(
                both, partial(proven_reference, inputs=self.values, format=target)
            )
        except RoundoffError:
            return False
        return bool(apart(first, second, ""))

    def _trace(self, number: int, target: Format, sources: list[Traces | None]) -> Trace | None:
        side = self.sides[number]
        if side.function is None:
            return None
        try:
            source = sources[number] or self._source(side, self.inputs)
            sources[number] = source
            return source.of(target)
        except _UNTRACED as error:
            if not isinstance(error, UnsupportedError):
                self._runs(side, error)
            reason = str(error).strip().split("\n")[0]
            note = f"{side.name} is opaque, judged by the other side's reference: {reason}"
            self.opaque.setdefault(note, []).append(target)
            return None

    def _source(self, side: Side, inputs: Mapping[str, Any]) -> Traces:
        return Traces(
            cast(Callable[..., Any], side.function), inputs, self.wrt, self.loss, self.upstream,
            output=self.output, forward=OUTPUT in self.names,
        )  # fmt: skip

    def _runs(self, side: Side, error: Exception) -> None:
        """What cannot be traced is opaque only if PyTorch itself can run it."""
        from roundoff.gradients.native import native_gradients

        try:
            native_gradients(
                cast(Callable[..., Any], side.function), self.inputs, self.wrt, self.loss, self.upstream,
                output=self.output, device=self.device,
            )  # fmt: skip
        except RoundoffError:
            raise error from None

    def _formats(self, formats: Any) -> list[Format]:
        """Tensors from elsewhere are of one format, theirs."""
        found = {str(t.dtype).removeprefix("torch.") for s in self.sides for t in s.given.values()}
        if not found:
            several = isinstance(formats, list | tuple | set | frozenset)
            listed = formats if several else (formats,)
            targets = list(dict.fromkeys(as_format(each) for each in listed))
            if not targets:
                raise ArgumentError("formats is empty; give at least one")
            return targets
        if len(found) > 1:
            raise ArgumentError(
                f"the given tensors are of types {', '.join(sorted(found))}; give one type"
            )
        return [as_format(found.pop())]

    def _checked(self) -> None:
        """A function that differs between two calls is no function."""
        for side in self.sides:
            if side.function is None:
                continue
            plain = as_format("float32")
            one, two = (self._native(side, plain, self.values) for _ in range(2))
            self.ran[side.name, plain] = one
            for name, value in one.items():
                if value.shape == two[name].shape:
                    known = np.isfinite(value) & np.isfinite(two[name])
                    size = np.abs(value[known]).max(initial=0.0)
                    if (np.abs(value - two[name])[known] <= 1e-3 * size).all():
                        continue
                raise ArgumentError(
                    f"{side.name} returns something else at every call ({name}); if it draws random "
                    "numbers, draw them outside and pass them, or seed inside with "
                    "torch.manual_seed; if it writes into its inputs or keeps state, let it copy"
                )

    def _native(self, side: Side, target: Format, values: Inputs) -> dict[str, Array]:
        from roundoff.gradients.native import native_gradients
        from roundoff.trace.capture import as_tensor

        if side.function is None:
            return {name: float64_array(as_tensor(name, t)) for name, t in side.given.items()}
        tensors = {
            name: values[name] if tensor.is_floating_point() else tensor
            for name, tensor in self.inputs.items()
        }
        upstream = None if self.upstream is None else values[UPSTREAM]
        return native_gradients(
            side.function, tensors, self.wrt, self.loss, upstream, format=target,
            device=self.device, output=self.output, forward=OUTPUT in self.names,
        )  # fmt: skip

    # ----------------------------------------------------------------------------- same or not

    def elsewhere(self, points: int) -> tuple[dict[Format, dict[str, Judgement]], list[str]]:
        """DIFFERENT by the references at random points, by format and gradient; what equality there means.

        Formats in which the functions have the same traces share both.
        """
        groups: list[tuple[Both, list[Format]]] = []
        for target, both in self.traces.items():
            where = next((w for b, w in groups if all(map(operator.is_, b, both))), None)
            if where is None:
                groups.append((both, [target]))
            else:
                where.append(target)
        found: dict[Format, dict[str, Judgement]] = {}
        notes: dict[str, list[Format]] = {}
        for both, where in groups:
            judgements, said = self._elsewhere(both, points)
            found.update(dict.fromkeys(where, judgements))
            for note in said:
                notes.setdefault(note, []).extend(where)
        return found, self._by_format(notes)

    def _by_format(self, notes: Mapping[str, Sequence[Format]]) -> list[str]:
        """Notes with the formats that they are about, where those are not all."""
        return [
            note if len(where) == len(self.formats) else f"in {_listed(where)}: {note}"
            for note, where in notes.items()
        ]

    def _elsewhere(self, both: Both, points: int) -> tuple[dict[str, Judgement], list[str]]:
        one, two = both
        if one is None or two is None or not points:
            return {}, []
        if one.same_function(two):
            note = "both sides have the same trace: their exact gradients are equal everywhere"
            chosen = self.points.chosen
            return {}, [f"{note} at the given {', '.join(chosen)}" if chosen else note]
        degrees = [degree(one), degree(two)]
        most = None if None in degrees else max(d for d in degrees if d is not None)
        found: dict[str, Judgement] = {}
        agreement = Agreement.EXACT
        try:
            for number in range(points):
                where = f"at random point {number + 1} "
                values = self.points.varied() if most is None else self.points.whole()
                first, second = self._references(both, values)
                if not any_known(first, second):
                    return found, ["no check at random points: no exact value is known there"]
                agreement = min(agreement, agreement_of(first, second))
                for name, judgement in apart(first, second, where).items():
                    found.setdefault(name, judgement)
            if found:
                found = self._off_kinks(both, found, "float32")
        except RoundoffError as error:
            return found, [f"no check at random points: {error}"]
        return found, [] if found else [chance(points, most, agreement, self.points.kept)]

    def search(self, pairs: Sequence[Pair]) -> Search | None:
        """For where those gradients part elsewhere that are the same here; None where a side is opaque.

        By the traces of the finest format.
        """
        finest = min(self.formats, key=lambda target: target.u)
        one, two = self.traces[finest]
        if one is None or two is None:
            return None
        gone = {p.gradient for p in pairs if p.judgement.verdict == Verdict.DIFFERENT}
        left = [name for name in one.outputs if name not in gone]
        retrace = partial(self._retraced, finest)
        found = Search((one, two), self.points, left, retrace, finest.u)
        found.run()
        return found

    def _retraced(self, target: Format, others: Mapping[str, Array]) -> tuple[Trace, Trace]:
        """Both sides at other integers and masks, in a format.

        Raises: UnsupportedError where one cannot be traced or run there.
        """
        import torch

        tensors = {
            name: torch.from_numpy(others[name]).to(tensor.dtype) if name in others else tensor
            for name, tensor in self.inputs.items()
        }
        try:
            first, second = (self._source(side, tensors).of(target) for side in self.sides)
        except _UNTRACED as error:
            raise UnsupportedError(str(error).strip().split("\n")[0]) from error
        return first, second

    def _references(self, both: Both, values: Inputs) -> list[Reference]:
        """In float32; the smallest number of float64, a mask, comes to that of float32."""
        most = as_format("float32").max
        inside = {
            name: np.where(np.isfinite(v), np.clip(v, -most, most), v) for name, v in values.items()
        }
        return _of_traces(both, partial(proven_reference, inputs=inside, format="float32"))

    def _off_kinks(
        self, both: Both, found: Mapping[str, Judgement], format: Any
    ) -> dict[str, Judgement]:
        traces = [trace for trace in both if trace is not None]
        return off_kinks(found, traces, self.values, self.points, format)

    # ---------------------------------------------------------------------------------- formats

    def pairs(
        self, target: Format, elsewhere: Mapping[str, Judgement], accumulate: Any, seeds: int
    ) -> list[Pair]:
        both = self.traces[target]
        try:
            if both == (None, None):
                raise UnsupportedError("neither side can be traced")
            computed = [
                self.ran.get((side.name, target)) or self._native(side, target, self.values)
                for side in self.sides
            ]
            known = _of_traces(both, lambda trace: self._known(trace, target, accumulate))
        except (UndecidedError, PrecisionError, UnsupportedError, ArgumentError) as error:
            reason = Judgement(Verdict.UNDECIDED, str(error))
            return [Pair(name, target, elsewhere.get(name, reason)) for name in self.names]
        errors = self._errors_in_general(target, seeds)
        names = [n for n in self.names if n in computed[0] and n in computed[1]]
        if not names:
            raise ArgumentError(f"the given tensors name none of {', '.join(self.names)}")
        pairs = [
            self._pair(name, target, computed, known, elsewhere.get(name), errors.get(name, ()))
            for name in names
        ]
        while self.shared:
            self.shared.pop().forget()
        return pairs

    def _spend(self, on: str, seconds: float) -> None:
        self.spent[on] = self.spent.get(on, 0.0) + seconds

    def _known(self, trace: Trace, target: Format, accumulate: Any) -> Evidence:
        began = time.perf_counter()
        shared = Shared()
        wide = (
            None
            if accumulate is None or as_format(accumulate).precision < target.precision
            else accumulate
        )
        found = evidence_of_trace(
            trace, self.values, target, accumulate=wide, shared=shared, device=self.device
        )
        note = f"bounds in {target.name}: {found.kernels}"
        if found.kernels and note not in self.notes:
            self.notes.append(note)
        if (
            is_large(trace)
            and not trace.polynomial
            and OUTPUT in trace.outputs
            and not any(t is trace for t in self.checked)
        ):
            self.checked.append(trace)
            self._spot_check(trace, found.reference, target)
        self._spend("references", time.perf_counter() - began)
        self.shared.append(shared)
        return found

    def _spot_check(self, trace: Trace, reference: Reference, target: Format) -> None:
        """One output by an engine that shares no code with words, too, in the first format."""
        known = np.flatnonzero(reference[OUTPUT].known)
        if not known.size:
            return
        size, at = reference[OUTPUT].high.size, int(self.generator.choice(known))
        engine = spot_check(trace, self.values, reference, OUTPUT, [at])
        which = "the output" if size == 1 else f"one of {size} outputs, drawn at random"
        note = f"{engine} agrees with {reference.engine} on {which}, in {target.name}"
        if note not in self.notes:
            self.notes.append(note)

    def _pair(
        self, name: str, target: Format, computed: Sequence[Mapping[str, Array]],
        known: Sequence[Any], elsewhere: Judgement | None, errors: Sequence[tuple[float, float]],
    ) -> Pair:  # fmt: skip
        one, two = (
            (own if own is not None else known[1 - n]).of(
                name, side.name, values[name], traced=own is not None
            )
            for n, (own, side, values) in enumerate(zip(known, self.sides, computed, strict=True))
        )
        for judged in (one, two):
            if judged.computed.shape != judged.reference.high.shape:
                raise ArgumentError(
                    f"{name!r} of {judged.name} has shape {judged.computed.shape}, the reference "
                    f"{judged.reference.high.shape}; they must be equal"
                )
        began = time.perf_counter()
        judgement, power = judge(one, two), None
        if not (one.traced and two.traced):
            power = power_of(one.reference.high, one.reference.terms, one.bound.likely(FAILURE))
        elif judgement.verdict == Verdict.DIFFERENT and elsewhere is None:
            judgement = self._off_kinks(self.traces[target], {name: judgement}, target)[name]
        elif elsewhere is not None and (
            judgement.verdict != Verdict.DIFFERENT or elsewhere.verdict == Verdict.UNDECIDED
        ):
            judgement = elsewhere
        self._spend("bounds", time.perf_counter() - began)  # evaluated when the judge asks for them
        engine = "exact" if one.exact else "rigorous" if one.rigorous else "estimated"
        return Pair(
            name, target, judgement, (one, two), power, errors,
            f"{(known[0] or known[1]).reference.engine}, {engine}",
        )  # fmt: skip

    def _errors_in_general(
        self, target: Format, seeds: int
    ) -> dict[str, list[tuple[float, float]]]:
        """Normwise errors of both sides at further random inputs."""
        found: dict[str, list[tuple[float, float]]] = {}
        if None in self.traces[target]:
            return found
        for _ in range(seeds):
            values = self.points.varied()
            of = _of_traces(
                self.traces[target], partial(proven_reference, inputs=values, format=target)
            )
            computed = [self._native(side, target, values) for side in self.sides]
            for name in of[0]:
                both = normwise_errors(
                    [c[name] for c in computed],
                    [r[name] for r in of],
                    exact=all(r.exact for r in of),
                )
                found.setdefault(name, []).append(both)
        return found


def _of_traces(both: Both, make: Callable[[Trace], Any]) -> list[Any]:
    """What is made of the traces of the two sides, None for an opaque one; once, if they are the same."""
    first, second = both
    one = None if first is None else make(first)
    if second is first:
        return [one, one]
    return [one, None if second is None else make(second)]


def _listed(formats: Sequence[Format]) -> str:
    return ", ".join(map(str, formats))


def _shown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
