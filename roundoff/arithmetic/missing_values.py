"""Elements that an engine cannot evaluate are marked, and matter only where an output reads them.

An engine that meets 0/0, the root of a negative number, an infinity in a sum or a comparison that it cannot
decide says at which elements.  Those are marked here, carried along with a harmless number in their place,
and dropped where a selection or a move does not read them.  What is left in an output is known to have no
value, and why; all other elements have theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import Arithmetic, move_elements, walk
from roundoff.arithmetic.guarding import Guarding, check
from roundoff.arithmetic.sharing import Sharing
from roundoff.errors import RoundoffError, UndecidedError, UnsupportedError
from roundoff.trace.functions import FUNCTIONS, Kind
from roundoff.trace.steps import Constant, Contract, Guard, Map, Move, Reduce, Shape, Trace

Array = npt.NDArray[np.float64]
Marks = npt.NDArray[np.int32]

#: For how many reasons, one after the other, an engine may refuse elements of one step.
REASONS = 4


@dataclass(frozen=True, eq=False)
class Marked:
    """An engine's value, and per element the number of the reason why it has none; None: all are known."""

    value: Any
    marks: Marks | None = None


class Partly(Sharing, Guarding):
    """Wraps an engine that refuses elements without value: these are marked, and the walk goes on."""

    def __init__(self, engine: Arithmetic[Any]) -> None:
        self.engine = engine
        self.said: list[RoundoffError] = []
        self._numbers: dict[str, int] = {}

    def share(self, trace: Trace, inputs: Mapping[str, Array]) -> None:
        if isinstance(self.engine, Sharing):
            self.engine.share(trace, inputs)

    def why(self, marks: Marks | None) -> dict[int, RoundoffError]:
        """Why elements of an output have no value, by number in C order."""
        if marks is None:
            return {}
        flat = marks.ravel()
        return {int(at): self.said[flat[at] - 1] for at in np.flatnonzero(flat)}

    def decided(self, guard: Guard, value: Marked) -> None:
        """An element without value decides nothing."""
        for error in self.why(value.marks).values():
            raise error
        check(guard, value.value)

    def load(self, values: Array) -> Marked:
        return Marked(self.engine.load(values))

    def constant(self, step: Constant) -> Marked:
        return Marked(self.engine.constant(step))

    def move(self, step: Move, operands: Sequence[Marked]) -> Marked:
        value = self.engine.move(step, [o.value for o in operands])
        if all(o.marks is None for o in operands):
            return Marked(value)
        return Marked(value, _any_left(move_elements(step, [_full(o) for o in operands], 0)))

    def map(self, step: Map, operands: Sequence[Marked]) -> Marked:
        value, parts = self._carried(lambda values: self.engine.map(step, values), operands)
        if all(part.marks is None for part in parts):
            return Marked(value)
        marks = [_full(part) for part in parts]
        function = FUNCTIONS[step.function]
        if function.kind is Kind.SELECTION:
            chosen = np.where(parts[0].value, marks[1], marks[2])
            return Marked(value, _any_left(_first([marks[0], chosen])))
        alone = function.absorbing
        if alone is not None:  # one operand may decide alone
            decided = [
                (m == 0) & (np.asarray(p.value) == alone) for m, p in zip(marks, parts, strict=True)
            ]
            settled = decided[0] | decided[1]
            return Marked(
                np.where(settled, alone, value), _any_left(np.where(settled, 0, _first(marks)))
            )
        return Marked(value, _any_left(_first(marks)))

    def reduce(self, step: Reduce, operand: Marked) -> Marked:
        value, (part,) = self._carried(lambda values: self.engine.reduce(step, *values), [operand])
        if part.marks is None:
            return Marked(value)
        return Marked(value, part.marks.max(axis=-1, initial=0))

    def contract(self, step: Contract, first: Marked, second: Marked) -> Marked:
        value, parts = self._carried(
            lambda values: self.engine.contract(step, *values), [first, second]
        )
        if all(part.marks is None for part in parts):
            return Marked(value)
        rows = _full(parts[0]).max(axis=2, initial=0)[:, :, None]
        columns = _full(parts[1]).max(axis=1, initial=0)[:, None, :]
        return Marked(value, _any_left(_first(np.broadcast_arrays(rows, columns))))

    def _carried(
        self, carry: Callable[[list[Any]], Any], operands: Sequence[Marked]
    ) -> tuple[Any, list[Marked]]:
        """What the engine makes of the operands, with a 1 in place of every element that it refuses."""
        parts = list(operands)
        for _ in range(REASONS):
            try:
                return carry([part.value for part in parts]), parts
            except (UnsupportedError, UndecidedError) as error:
                refused = error.elements
                if not refused:
                    raise
                if len(refused) < len(
                    parts
                ):  # of an elementwise function: the same for all operands
                    refused = (refused[0],) * len(parts)
                parts = [self._marked(p, r) for p, r in zip(parts, refused, strict=True)]
        return carry([part.value for part in parts]), parts

    def _marked(self, part: Marked, refused: Mapping[int, RoundoffError]) -> Marked:
        """With a 1 where it is refused, and a mark where there was none."""
        if not refused:
            return part
        marks = _full(part).copy()
        at = np.fromiter(refused, np.int64, len(refused))
        number = np.fromiter(map(self._number, refused.values()), np.int32, len(refused))
        mask = np.zeros(marks.shape, bool)
        mask.ravel()[at] = True
        ones = self.engine.constant(Constant(mask.shape, Fraction(1)))
        select = Map(mask.shape, "where", (0, 0, 0))
        value = self.engine.map(select, [mask, ones, part.value])
        flat = marks.ravel()
        flat[at] = np.where(flat[at] > 0, flat[at], number)
        return Marked(value, flat.reshape(mask.shape))

    def _number(self, error: RoundoffError) -> int:
        text = str(error)
        if text not in self._numbers:
            self.said.append(error)
            self._numbers[text] = len(self.said)
        return self._numbers[text]


def walk_partly(
    trace: Trace, engine: Arithmetic[Any], inputs: Mapping[str, Array]
) -> tuple[dict[str, Any], dict[str, dict[int, RoundoffError]]]:
    """The outputs of a trace by name, and of each the elements that have no value, with the reason.

    In their place stands an arbitrary number.
    """
    arithmetic = Partly(engine)
    found = walk(trace, arithmetic, inputs)
    values = {name: part.value for name, part in found.items()}
    return values, {name: arithmetic.why(part.marks) for name, part in found.items()}


def _shape(value: Any) -> Shape:
    return tuple(value.shape)


def _full(part: Marked) -> Marks:
    return np.zeros(_shape(part.value), np.int32) if part.marks is None else part.marks


def _first(marks: Sequence[Marks]) -> Marks:
    """Per element the mark of the first that has one."""
    found = marks[0]
    for other in marks[1:]:
        found = np.where(found > 0, found, other)
    return found


def _any_left(marks: Marks) -> Marks | None:
    return marks if marks.any() else None
