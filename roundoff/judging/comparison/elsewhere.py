"""Do two functions that agree here differ at other signs, zeros, magnitudes, integers or masks?

Points are screened in float64.  What parts there is confirmed by proven references, and then brought back to
the given inputs as far as it still parts, so that few elements are named.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.kinks import Seen, never_crossed
from roundoff.arithmetic.ties import first_tie
from roundoff.errors import RoundoffError
from roundoff.gradients.inputs import round_inputs
from roundoff.gradients.reference import Reference, is_large
from roundoff.judging.comparison.points import Points
from roundoff.judging.comparison.screening import Screened, TwoTraces, screened
from roundoff.judging.evidence import proven_reference
from roundoff.judging.verdict import by_literals, same_reference
from roundoff.numbers.formats import FLOAT32
from roundoff.words import listed

Array = npt.NDArray[np.float64]
Inputs = dict[str, Array]
#: TwoTraces at points where integers or masks are others.
Retrace = Callable[[Mapping[str, Array]], TwoTraces]

#: Exponents of the magnitudes: huge at both ends for exponentials, and some way there.
FAR, NEARER = 8, 4

#: How often a point is brought back in part to the given inputs to see whether it parts still.
TRIALS, LARGE_TRIALS, TRACED_TRIALS = 80, 16, 8

#: How many elements of the point a sentence names.
NAMED = 3


@dataclass(frozen=True)
class Parting:
    """Where two functions are not the same.

    changes: (input, element, its value there, the given one) of what is not as given; element, values: an
    element of the gradient, and the exact ones of the two sides there.
    """

    gradient: str
    point: str
    changes: tuple[tuple[str, tuple[int, ...], float, float], ...]
    element: tuple[int, ...]
    values: tuple[float, float]

    def __str__(self) -> str:
        return f"{self._where}: {self._what}"

    @property
    def _where(self) -> str:
        told = [_place(name, at, value) for name, at, value, _ in self.changes[:NAMED]]
        if len(self.changes) > NAMED:
            told.append(f"{len(self.changes) - NAMED} more")
        return f"not the same function elsewhere: at {', '.join(told)} ({self.point})"

    @property
    def _what(self) -> str:
        what = "outputs" if self.gradient == "output" else f"gradients by {self.gradient}"
        first, second = (f"{value:.6g}" for value in self.values)
        if first == second:
            first, second = (f"{value:.17g}" for value in self.values)
        return f"the exact {what} at element {list(self.element)} are {first} and {second}"


def told(partings: Iterable[Parting]) -> list[str]:
    """Where and how much they differ, in words; once for each place."""
    of: dict[str, list[str]] = {}
    for each in partings:
        of.setdefault(each._where, []).append(each._what)
    return [f"{where}: {', '.join(what)}" for where, what in of.items()]


def _place(name: str, at: tuple[int, ...], value: float) -> str:
    return f"{name}{list(at) if at else ''} = {value:.6g}"


class Search:
    """Other points, one after the other, until every gradient has parted or no point is left.

    traces: of both sides at the given inputs; gradients: those that are to part; u: of the finest format
    that is judged, where a difference must show.
    """

    def __init__(
        self,
        traces: TwoTraces,
        points: Points,
        gradients: Sequence[str],
        retrace: Retrace,
        u: float,
    ) -> None:
        self.traces, self.points, self.retrace, self.u = traces, points, retrace, u
        self.left = list(gradients)
        self.found: list[Parting] = []
        self.looked: list[str] = []
        self.undefined: list[str] = []
        self.seen: tuple[list[Seen], list[Seen]] = ([], [])
        self.kept = {name: {"signs", "zeros"} for name in points.floating_names}
        self.large = any(map(is_large, traces))
        self.given = {name: _single(value) for name, value in points.values.items()}
        self.decides = any(trace.guards for trace in traces)
        # Then floating-point numbers tell nothing.
        self.same = traces[0] is traces[1] and not self.decides

    def run(self) -> None:
        """Look at all points."""
        if self.left and not self.same:
            here = screened(self.traces, self.given)
            if here is not None:
                self._note(here)
        for point, exponents in () if self.same else self._floating():
            if not self.left:
                return
            values, found, whole = self._settled(exponents)
            told = point if whole or found is None else f"{point}, as far as both are defined"
            try:
                traces = self._at(values)
            except RoundoffError as error:
                self.undefined.append(f"{point} ({error})")
                continue
            self._look(told, traces, values, found, proven=not (self.looked or self.large))
        for permuted in (True, False) if self.points.chosen else ():
            if self.left and not (self.large and not permuted):
                self._look_at_others(permuted)

    def _floating(self) -> Iterator[tuple[str, Callable[[], int]]]:
        yield "fresh signs and moved zeros", lambda: 0
        if self.large:
            return
        for sign in (1, -1):
            yield f"magnitudes times 2^{sign * FAR}", partial(int, sign * FAR)
        draw = partial(self.points.generator.choice, [-FAR, -NEARER, 0, NEARER, FAR])
        for _ in range(2):
            yield f"magnitudes times 2^-{FAR} to 2^{FAR}", lambda: int(draw())

    # --------------------------------------------------------------------------------- points

    def _settled(self, exponent: Callable[[], int]) -> tuple[Inputs, Screened | None, bool]:
        """A point with as many inputs moved as leave both functions defined, what is found there (None where
        no input could be moved), and whether that is all."""
        ways = ({"signs", "zeros"}, {"zeros"}, {"signs"}, set[str]())
        exponents = {name: exponent() for name in self.points.floating_names}

        def moved(name: str, way: set[str]) -> Array:
            return self.points.elsewhere(
                name, signs="signs" in way, zeros="zeros" in way, exponent=exponents[name]
            )

        values = {**self.given, **{name: moved(name, ways[0]) for name in exponents}}
        found = self._screened(values)
        if found is not None:
            self._note_moved(dict.fromkeys(exponents, ways[0]))
            return values, found, True
        values, done = dict(self.given), dict[str, set[str]]()
        for name in exponents:
            for way in ways[: 1 if self.large else None]:
                changed = {**values, name: moved(name, way)}
                there = self._screened(changed)
                if there is not None:
                    values, found, done[name] = changed, there, way
                    break
        self._note_moved(done)
        return values, found, False

    def _at(self, values: Inputs) -> TwoTraces:
        """The traces of both for other floating-point numbers: made anew where data decide."""
        return self.retrace(values) if self.decides else self.traces

    def _screened(self, values: Inputs) -> Screened | None:
        try:
            return screened(self._at(values), values)
        except RoundoffError:
            return None

    def _note_moved(self, done: Mapping[str, set[str]]) -> None:
        for name, way in done.items():
            self.kept[name] -= way

    def _look_at_others(self, permuted: bool) -> None:
        """At integers permuted or redrawn, and masks drawn anew; the other inputs as given, and moved."""
        point = (
            "integers permuted, masks drawn anew" if permuted else "integers and masks drawn anew"
        )
        others = {
            name: self.points.rechosen(name, permuted=permuted) for name in self.points.chosen
        }
        if all(np.array_equal(v, self.given[name]) for name, v in others.items()):
            return
        beside = {n: _single(v) for n, v in self.points.varied().items() if n not in others}
        try:
            traces = self.retrace(others)
        except RoundoffError as error:
            self.undefined.append(f"{point} ({error})")
            return
        values = {**beside, **others}
        self._look(point, traces, values, screened(traces, values), proven=not self.large)

    # -------------------------------------------------------------------------------- looking

    def _note(self, found: Screened) -> None:
        """Of the traces at the given integers and masks, remember on which sides elements were."""
        for seen, outcomes in zip(self.seen, found.seen, strict=True):
            seen.append(outcomes)

    def _look(
        self, point: str, traces: TwoTraces, values: Inputs, found: Screened | None, *, proven: bool
    ) -> None:
        """found: at these values in float64, None where one is not defined; proven: by references anyway."""
        if found is None:
            self.undefined.append(point)
            return
        if traces is self.traces:
            self._note(found)
        if not (proven or any(found.apart[name] for name in self.left)):
            self.looked.append(f"{point} (in float64)")
            return
        try:
            first, second = _references(traces, values)
        except RoundoffError as error:
            self.undefined.append(f"{point} ({error})")
            return
        self.looked.append(point)
        for name in list(self.left):
            if name in self.left and self._apart(first, second, name).any():
                self._part(point, traces, values, name)

    def _part(self, point: str, traces: TwoTraces, values: Inputs, name: str) -> None:
        """Note where a gradient differs, with as few of the inputs changed as that takes."""
        few = self._brought_back(traces, values, name)
        try:
            at_few = self._traces_at(traces, few)
            if any(first_tie(trace, round_inputs(trace, few, FLOAT32)) for trace in at_few):
                few = values  # conventions may set them apart at a tie
            first, second = _references(at_few, few)
        except RoundoffError:
            few = values
        if few is values or not self._apart(first, second, name).any():
            few = values
            first, second = _references(traces, few)
        changes = tuple(
            (key, _index(at), float(few[key][tuple(at)]), float(self.points.values[key][tuple(at)]))
            for key in few
            for at in np.argwhere(few[key] != self.given[key])
        )
        for gradient in list(self.left):
            apart = self._apart(first, second, gradient)
            if apart.any():
                one, two = first[gradient], second[gradient]
                gap = np.where(apart, np.abs(one.high - two.high), -1.0)
                at = _index(np.unravel_index(int(np.argmax(gap)), gap.shape))
                pair = float(one.high[at]), float(two.high[at])
                self.found.append(Parting(gradient, point, changes, at, pair))
                self.left.remove(gradient)

    def _apart(self, first: Reference, second: Reference, name: str) -> npt.NDArray[np.bool_]:
        """Per element, whether the exact numbers are apart, and so far that the format shows it."""
        one, two = first[name], second[name]
        same = same_reference(one, two, exact=first.exact and second.exact)
        if same.all() or not (first.rigorous and second.rigorous):
            return np.zeros(same.shape, bool)
        with np.errstate(invalid="ignore"):
            gap = np.abs((one.high - two.high) + (one.low - two.low))
        shown = gap > self.u * np.maximum(one.terms, two.terms)
        return ~same & ~by_literals(one, two) & shown

    def _traces_at(self, traces: TwoTraces, values: Inputs) -> TwoTraces:
        """The given traces, or new ones where integers or masks were changed, or data decide."""
        if traces is self.traces or self.decides:
            return self._at(values)
        return self.retrace({name: values[name] for name in self.points.chosen})

    def _brought_back(self, traces: TwoTraces, values: Inputs, name: str) -> Inputs:
        """The point with inputs, then halves of inputs, put back as given wherever the two still differ."""
        trials = LARGE_TRIALS if self.large else TRIALS
        if traces is not self.traces:
            trials = TRACED_TRIALS

        def parts(candidate: Inputs) -> bool:
            nonlocal trials
            trials -= 1
            try:
                of = self._traces_at(traces, candidate)
            except RoundoffError:
                return False
            found = screened(of, candidate)
            return found is not None and found.apart[name]

        few = dict(values)
        if parts(
            self.given
        ):  # a kink there; what is farther from it parts by more than conventions
            return few
        for key, given in self.given.items():
            if trials > 0 and not np.array_equal(few[key], given):
                candidate = {**few, key: given}
                if parts(candidate):
                    few = candidate
        for key, given in self.given.items():
            places = np.flatnonzero(few[key] != given)
            while len(places) > 1 and trials > 0:
                halves = np.array_split(places, 2)
                for half in halves:
                    flat = given.ravel().copy()
                    flat[half] = values[key].ravel()[half]
                    candidate = {**few, key: flat.reshape(given.shape)}
                    if parts(candidate):
                        few, places = candidate, half
                        break
                else:
                    break
        return few

    # ---------------------------------------------------------------------------------- words

    @property
    def _who(self) -> str:
        """Those that were looked at: they are all, or some whose exact values are apart as given were not."""
        if len(self.left) == len(self.traces[0].outputs):
            return "they are"
        return f"{listed(self.left)} {'is' if len(self.left) == 1 else 'are'}"

    @property
    def notes(self) -> list[str]:
        """In words: where nothing was found, what was not moved, which kinks were not crossed."""
        notes = []
        if self.looked and not self.found:
            notes.append(f"elsewhere {self._who} the same: {'; '.join(dict.fromkeys(self.looked))}")
        elif self.undefined and not self.looked:
            notes.append(
                f"not looked at, as not defined there: {'; '.join(dict.fromkeys(self.undefined))}"
            )
        if self.large and self.looked:
            notes.append("one point elsewhere was looked at, as references of this size take long")
        kept = [f"the {what} of {name}" for name, of in self.kept.items() for what in sorted(of)
                if what == "signs" or (self.points.values[name] == 0).any()]  # fmt: skip
        if kept and not self.same and self.looked:
            notes.append(f"kept at all points: {', '.join(kept)}")
        if not self.found and self.looked:
            crossings = [
                kink
                for trace, seen in zip(self.traces, self.seen, strict=True)
                for kink in never_crossed(trace, seen)
            ]
            listed = list(dict.fromkeys(crossings))
            if listed:
                more = f" and {len(listed) - NAMED} more" if len(listed) > NAMED else ""
                notes.append(f"kinks never crossed: {'; '.join(listed[:NAMED])}{more}")
        return notes


def _index(at: Iterable[Any]) -> tuple[int, ...]:
    return tuple(int(i) for i in at)


def _single(value: Array) -> Array:
    """Rounded to float32, in which points are compared."""
    with np.errstate(over="ignore"):
        return value.astype(np.float32).astype(np.float64)


def _references(traces: TwoTraces, values: Inputs) -> tuple[Reference, Reference]:
    first, second = (proven_reference(trace, values, FLOAT32) for trace in traces)
    return first, second
