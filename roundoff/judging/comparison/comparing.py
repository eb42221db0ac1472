"""Judges two traced sides: references, bounds, and a verdict on every gradient in every format."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.errors import (
    ArgumentError,
    PrecisionError,
    RoundoffError,
    UndecidedError,
    UnsupportedError,
)
from roundoff.gradients.inputs import round_inputs
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
from roundoff.judging.comparison.opaque import judge_alone, judge_by_third
from roundoff.judging.comparison.pairs import Pair
from roundoff.judging.comparison.screening import screened
from roundoff.judging.comparison.traced_sides import UNTRACED, Both, Inputs, TracedSides, of_both
from roundoff.judging.evidence import Evidence, Judged, evidence_of_trace, proven_reference
from roundoff.judging.verdict import Judgement, Verdict, judge, normwise_errors
from roundoff.numbers.formats import Format, as_format
from roundoff.trace import Trace
from roundoff.trace.checks import OUTPUT
from roundoff.trace.degree import degree

Array = npt.NDArray[np.float64]


class Comparing(TracedSides):
    """Compares two sides at the given inputs, at random points, and elsewhere."""

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
        return found, self.by_format(notes)

    def _elsewhere(self, both: Both, points: int) -> tuple[dict[str, Judgement], list[str]]:
        one, two = both
        if one is None or two is None or not points:
            return {}, []
        decides = bool(one.guards or two.guards)
        if one.same_function(two) and not decides:
            note = "both sides have the same trace: their exact gradients are equal everywhere"
            chosen = self.points.chosen
            return {}, [f"{note} at the given {', '.join(chosen)}" if chosen else note]
        traces = one, two
        degrees = [degree(one), degree(two)]
        most = None if None in degrees else max(d for d in degrees if d is not None)
        if decides:
            most = None  # polynomials in pieces
        found: dict[str, Judgement] = {}
        agreement = Agreement.EXACT
        try:
            for number in range(points):
                where = f"at random point {number + 1} "
                values = self.points.varied() if most is None else self.points.whole()
                if decides:  # other data, other decisions
                    traces = both = self._retraced(as_format("float32"), inside_float32(values))
                if most is None and any(map(is_large, traces)):
                    near = screened(traces, inside_float32(values))
                    if near is not None and not any(near.apart.values()):
                        agreement = Agreement.CLOSE
                        continue  # references of this size take long
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
        """Searches other points at which gradients that agree here differ; None where a side is opaque.

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
        """Both sides at other integers and masks, or at data that decide otherwise, in a format.

        Raises: UnsupportedError where one cannot be traced or run there.
        """
        import torch

        tensors = {
            name: torch.from_numpy(others[name]).to(tensor.dtype) if name in others else tensor
            for name, tensor in self.inputs.items()
        }
        try:
            first, second = (self.problem_of(side, tensors).trace(target) for side in self.sides)
        except UNTRACED as error:
            raise UnsupportedError(str(error).strip().split("\n")[0]) from error
        return first, second

    def _references(self, both: Both, values: Inputs) -> list[Reference]:
        """References in float32."""
        inside = inside_float32(values)
        return of_both(both, partial(proven_reference, inputs=inside, format="float32"))

    def _off_kinks(
        self, both: Both, found: Mapping[str, Judgement], format: Any
    ) -> dict[str, Judgement]:
        traces = [trace for trace in both if trace is not None]
        return off_kinks(found, traces, self.values, self.points, format)

    # ---------------------------------------------------------------------------------- formats

    def pairs(
        self, target: Format, elsewhere: Mapping[str, Judgement], accumulate: Any, seeds: int
    ) -> list[Pair]:
        with ExitStack() as walks:  # what they share is freed with it
            evidence = partial(self._known, target, accumulate, walks)
            return self._pairs(target, evidence, elsewhere, seeds)

    def _pairs(
        self, target: Format, evidence: Callable[[Trace], Evidence],
        elsewhere: Mapping[str, Judgement], seeds: int,
    ) -> list[Pair]:  # fmt: skip
        both = self.traces[target]
        try:
            computed = self.natives(target)
        except (UnsupportedError, ArgumentError) as error:
            # There is nothing to judge, whatever the trace of another format says elsewhere.
            reason = Judgement(Verdict.UNDECIDED, str(error))
            return [Pair(name, target, reason) for name in self.names]
        try:
            if both == (None, None) and target not in self.measures:
                return self._alone(target, computed)
            known = of_both(both, evidence)
            third = evidence(self.measures[target]) if target in self.measures else None
        except (UndecidedError, PrecisionError, UnsupportedError, ArgumentError) as error:
            reason = Judgement(Verdict.UNDECIDED, str(error))
            return [Pair(name, target, elsewhere.get(name, reason)) for name in self.names]
        errors = self._errors_in_general(target, seeds)
        names = self._named(computed)
        if third is not None:
            return self._by_third(target, computed, third)
        return [
            self._pair(name, target, computed, known, elsewhere.get(name), errors.get(name, ()))
            for name in names
        ]

    def _named(self, computed: Sequence[Mapping[str, Array]]) -> list[str]:
        """What both sides have.  Raises: ArgumentError where that is nothing."""
        names = [n for n in self.names if n in computed[0] and n in computed[1]]
        if not names:
            raise ArgumentError(
                f"the given tensors name none of {', '.join(self.names)}; name them so"
            )
        return names

    def _alone(self, target: Format, computed: Sequence[Mapping[str, Array]]) -> list[Pair]:
        one, two = self.sides
        return [
            Pair(
                name,
                target,
                judge_alone(computed[0][name], computed[1][name], (one.name, two.name), target),
            )
            for name in self._named(computed)
        ]

    def _by_third(
        self, target: Format, computed: Sequence[Mapping[str, Array]], third: Evidence
    ) -> list[Pair]:
        """Both sides by the reference of the function that is like them."""
        assert self.like is not None
        like, pairs = self.native(self.like, target, self.values), []
        for name in self._named(computed):
            one, two = (
                third.of(name, side.name, values[name], traced=False)
                for side, values in zip(self.sides, computed, strict=True)
            )
            for judged in (one, two):
                self._check_shape(name, judged)
            judgement = judge_by_third(one, two, third.of(name, self.like.name, like[name]))
            engine = f"{third.reference.engine}, of {self.like.name}"
            pairs.append(Pair(name, target, judgement, (one, two), one.power, engine=engine))
        return pairs

    def _check_shape(self, name: str, judged: Judged) -> None:
        if judged.computed.shape != judged.reference.high.shape:
            raise ArgumentError(
                f"{name!r} of {judged.name} has shape {judged.computed.shape}, the reference "
                f"{judged.reference.high.shape}; they must be equal"
            )

    def _spend(self, on: str, seconds: float) -> None:
        self.spent[on] = self.spent.get(on, 0.0) + seconds

    def _known(self, target: Format, accumulate: Any, walks: ExitStack, trace: Trace) -> Evidence:
        began = time.perf_counter()
        wide = (
            None
            if accumulate is None or as_format(accumulate).precision < target.precision
            else accumulate
        )
        inputs = walks.enter_context(round_inputs(trace, self.values, target).shared())
        found = evidence_of_trace(trace, inputs, target, accumulate=wide, device=self.device)
        note = f"bounds in {target.name}: {found.kernels}"
        if found.kernels and note not in self.notes:
            self.notes.append(note)
        if not (self.checked or trace.polynomial) and is_large(trace) and OUTPUT in trace.outputs:
            self.checked = True  # the other reference agrees with this one, or is said to be apart
            self._spot_check(trace, found.reference, target)
        self._spend("references", time.perf_counter() - began)
        return found

    def _spot_check(self, trace: Trace, reference: Reference, target: Format) -> None:
        """Recompute one output, in the first format, by an engine that shares no code with multiword."""
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
            self._check_shape(name, judged)
        began = time.perf_counter()
        judgement, power = judge(one, two), None
        if not (one.traced and two.traced):
            power = one.power
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
            traces = self.traces[target]
            if any(trace is not None and trace.guards for trace in traces):
                traces = self._retraced(target, values)
            of = of_both(traces, partial(proven_reference, inputs=values, format=target))
            computed = [self.native(side, target, values) for side in self.sides]
            for name in of[0]:
                both = normwise_errors(
                    [c[name] for c in computed],
                    [r[name] for r in of],
                    exact=all(r.exact for r in of),
                )
                found.setdefault(name, []).append(both)
        return found


def inside_float32(values: Inputs) -> dict[str, Array]:
    """Inputs beyond its range, as masks are, clipped to it."""
    most = as_format("float32").max
    return {
        name: np.where(np.isfinite(v), np.clip(v, -most, most), v) for name, v in values.items()
    }
