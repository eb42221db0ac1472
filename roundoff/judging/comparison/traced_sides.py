"""Two sides at the same inputs: their traces in every format, and the gradients that PyTorch computes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import prod
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from roundoff.errors import (
    ArgumentError,
    RoundoffError,
    UnsupportedError,
)
from roundoff.gradients.inputs import float64_array
from roundoff.gradients.problem import Problem
from roundoff.judging.comparison.equality import (
    apart,
)
from roundoff.judging.comparison.literals_as_data import as_data
from roundoff.judging.comparison.points import Points
from roundoff.judging.comparison.sides import Side
from roundoff.judging.evidence import proven_reference
from roundoff.numbers.formats import Format, as_format
from roundoff.trace import UPSTREAM, Trace
from roundoff.trace.checks import OUTPUT, check_output_apart
from roundoff.words import called

Array = npt.NDArray[np.float64]
Inputs = Mapping[str, Array]

#: What tracing raises where it meets something that is not made of ATen operations.
UNTRACED = (
    RoundoffError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    NotImplementedError,
)


#: The traces of both sides in a format; None for an opaque one.
Both = tuple[Trace | None, Trace | None]


class TracedSides:
    """Two sides with their traces in every format, one problem.

    formats: those to judge in; None for that of the tensors that are given.  like: a third that can be
    traced, where neither of the two can; measures: its traces by format.
    """

    def __init__(
        self, sides: tuple[Side, Side], inputs: dict[str, Any], wrt: Sequence[str] | None,
        loss: Callable[..., Any] | None, upstream: Any, output: Any, device: Any, seed: int,
        formats: Any, like: Callable[..., Any] | None = None,
    ) -> None:  # fmt: skip
        from roundoff.trace.users_function import as_tensor, check_elements, check_wrt

        self.sides, self.device = sides, device
        self.notes: list[str] = []
        self.checked = False
        self.spent: dict[str, float] = {}
        self.ran: dict[tuple[str, Format], dict[str, Array]] = {}
        self.along: set[Format] = set()  # in which what sides bring along is cast
        self.generator = np.random.default_rng([seed, 4])
        self.inputs = {name: as_tensor(name, value) for name, value in inputs.items()}
        check_elements(self.inputs)
        self.wrt = check_wrt(self.inputs, wrt, outputs=True)
        check_output_apart(self.wrt)
        self.loss, self.output = loss, output
        self.upstream = self._upstream(upstream)
        self.names = self._compared()
        self.formats = self._formats(formats)
        self.opaque: dict[tuple[str, str], list[Format]] = {}
        self.like = None if like is None else Side(called(like, "like"), like)
        self.measures: dict[Format, Trace] = {}
        self.literals: dict[str, list[Format]] = {}
        self.traces = self._traced()
        self.values = {name: float64_array(value) for name, value in self.inputs.items()}
        if self.upstream is not None:
            self.values[UPSTREAM] = float64_array(as_tensor(UPSTREAM, self.upstream))
        floating = {n for n in self.values if n == UPSTREAM or self.inputs[n].is_floating_point()}
        self.points = Points(self.values, floating, self.wrt, self.generator)
        self.traces = {target: self._as_data(both, target) for target, both in self.traces.items()}
        self.notes += self.by_format(self.literals)
        self._checked()

    def _upstream(self, upstream: Any) -> Any:
        """The upstream gradient: random where the output is not a scalar and the caller gave none."""
        if self.loss is not None or upstream is not None or not self.wrt:
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
        """The shapes of the outputs, of the sides that are functions."""
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
        sources: list[Problem | None] = [None, None]
        for target in self.formats:
            one, two = (self._trace(n, target, sources) for n in range(2))
            if one is not None and two is not None and two is not one and one.equals(two):
                two = one  # one reference, one set of bounds for both
            found[target] = one, two
        for (name, reason), where in self.opaque.items():
            among = "" if len(where) == len(self.formats) else f" in {listed_formats(where)}"
            neither = all(found[target] == (None, None) for target in where)
            whose = "the other side" if not neither else self.like.name if self.like else ""
            judged = f", judged by {whose}'s reference" if whose else ""
            self.notes.append(f"{name} is opaque{judged}: {reason}{among}")
        if self.like is not None:
            lone = [target for target, both in found.items() if both == (None, None)]
            problem = self.problem_of(self.like, self.inputs)
            self.measures = {target: problem.trace(target) for target in lone}
            if not lone:
                self.notes.append("like= is not needed: a side has a trace")
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
            first, second = of_both(
                both, partial(proven_reference, inputs=self.values, format=target)
            )
        except RoundoffError:
            return False
        return bool(apart(first, second, ""))

    def _trace(self, number: int, target: Format, sources: list[Problem | None]) -> Trace | None:
        side = self.sides[number]
        if side.function is None:
            return None
        try:
            source = sources[number] or self.problem_of(side, self.inputs)
            sources[number] = source
            return source.trace(target)
        except UNTRACED as error:
            if not isinstance(error, UnsupportedError):
                self._runs(side, error)
            reason = str(error).strip().split("\n")[0]
            self.opaque.setdefault((side.name, reason), []).append(target)
            return None

    def problem_of(self, side: Side, inputs: Mapping[str, Any]) -> Problem:
        return Problem(
            cast(Callable[..., Any], side.function), inputs, self.wrt, self.loss, self.upstream,
            output=self.output, forward=OUTPUT in self.names,
        )  # fmt: skip

    def _runs(self, side: Side, error: Exception) -> None:
        """Raise the error of tracing unless PyTorch itself can run the function, which is then opaque."""
        from roundoff.gradients.native import native_gradients

        try:
            native_gradients(
                cast(Callable[..., Any], side.function), self.inputs, self.wrt, self.loss, self.upstream,
                output=self.output, device=self.device,
            )  # fmt: skip
        except RoundoffError:
            raise error from None

    def _formats(self, formats: Any) -> list[Format]:
        """The formats to judge in; where tensors are given, the one that they are in."""
        several = isinstance(formats, list | tuple | set | frozenset)
        targets = list(dict.fromkeys(map(as_format, formats if several else (formats,))))
        if not targets:
            raise ArgumentError("formats is empty; give at least one")
        found = {str(t.dtype).removeprefix("torch.") for s in self.sides for t in s.given.values()}
        if not found:
            return targets
        if len(found) > 1:
            raise ArgumentError(
                f"the given tensors are of types {', '.join(sorted(found))}; give one type"
            )
        own = as_format(found.pop())
        if own not in targets:
            raise ArgumentError(
                f"the given tensors are {own} and formats names {listed_formats(targets)}; give tensors of "
                "such a type, or leave formats out"
            )
        return [own]

    def _checked(self) -> None:
        """Raise ArgumentError for a side that returns something else at a second call."""
        for side in self.sides:
            if side.function is None:
                continue
            plain = as_format("float32")
            one, two = (self.native(side, plain, self.values) for _ in range(2))
            self.ran[side.name, plain] = one
            for name, value in one.items():
                if value.shape == two[name].shape:
                    known = np.isfinite(value) & np.isfinite(two[name])
                    size = np.abs(value[known]).max(initial=0.0)
                    if (np.abs(value - two[name])[known] <= 1e-3 * size).all():
                        continue
                raise ArgumentError(
                    f"{side.name} returns something else at every call ({name}); if it draws random "
                    "numbers, give roundoff.seeded(function), or draw them outside and pass them; if it "
                    "keeps state, let it copy"
                )

    def native(self, side: Side, target: Format, values: Inputs) -> dict[str, Array]:
        from roundoff.gradients.native import native_gradients
        from roundoff.trace.users_function import as_tensor

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
            along=target in self.along,
        )  # fmt: skip

    def natives(self, target: Format) -> list[dict[str, Array]]:
        """Both sides' results.  What they bring along is cast to the format where neither runs without.

        Raises: UnsupportedError where one does not run in the format; ArgumentError.
        """
        found, failed = [], []
        for side in self.sides:
            known = self.ran.get((side.name, target))
            try:
                found.append(known or self.native(side, target, self.values))
            except UnsupportedError as error:
                failed.append(error)
        if not failed:
            return found
        if len(failed) < len(self.sides) or target in self.along:
            raise failed[0]
        self.along.add(target)
        return self.natives(target)

    def by_format(self, notes: Mapping[str, Sequence[Format]]) -> list[str]:
        """Notes with the formats that they are about, where those are not all."""
        return [
            note if len(where) == len(self.formats) else f"in {listed_formats(where)}: {note}"
            for note, where in notes.items()
        ]


def of_both(both: Both, make: Callable[[Trace], Any]) -> list[Any]:
    """What is made of the traces of the two sides, None for an opaque one; once, if they are the same."""
    first, second = both
    one = None if first is None else make(first)
    if second is first:
        return [one, one]
    return [one, None if second is None else make(second)]


def listed_formats(formats: Sequence[Format]) -> str:
    """Formats in a row."""
    return ", ".join(map(str, formats))


def _shown(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items())
