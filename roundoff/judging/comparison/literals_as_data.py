"""Literals of one side, as 0.1, that the other side holds as a tensor of a narrower type.

In x * 0.1 the literal is a double, in x * torch.tensor([0.1]) the number is rounded to float32 when the
tensor is made.  Those are two functions, apart by one part in 2^26; but where a step computes in float32 or
less, its kernel takes the literal in float32, too, so that there the two are one computation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.literal_errors import is_literal
from roundoff.numbers.formats import BFLOAT16, FLOAT16, FLOAT32, Format, as_format, round_to
from roundoff.trace import Trace
from roundoff.trace.steps import Constant

Array = npt.NDArray[np.float64]
TwoTraces = tuple[Trace, Trace]

#: The types that data is made in; float32 is the default.
DATA = (FLOAT32, BFLOAT16, FLOAT16)


@dataclass(frozen=True)
class Taken:
    """A literal of a side (0 or 1), and the number that the other side holds in its place."""

    side: int
    literal: float
    number: float
    narrow: Format

    def words(self, names: Sequence[str]) -> str:
        mine, other = names[self.side], names[1 - self.side]
        gap = abs(Fraction(self.number) - Fraction(self.literal))
        return (
            f"{self.literal!r} is a literal in {mine}, the double {self.literal:.19g}, and {self.narrow} "
            f"data in {other}, {self.number:.15g}, which differs by {float(gap):.3g}"
        )


@dataclass(frozen=True)
class AsData:
    """Both traces with such literals rounded; alike: whether kernels take them so rounded, too."""

    traces: TwoTraces
    taken: tuple[Taken, ...]
    alike: bool


def as_data(traces: TwoTraces, target: Format) -> Iterator[AsData]:
    """Both sides with the literals rounded that the other side holds as data of a type, for each type.

    target: the declared format.  None where there is no such literal.
    """
    for narrow in DATA:
        first, second = (_rounded(n, traces[n], traces[1 - n], narrow) for n in range(2))
        steps = {**first[1], **second[1]}
        if steps:
            taken = tuple(dict.fromkeys((*first[1], *second[1])))
            formats = {as_format(each or target) for of in steps.values() for each in of}
            alike = narrow == FLOAT32 and all(f.precision <= FLOAT32.precision for f in formats)
            yield AsData((first[0], second[0]), taken, alike)


def _rounded(
    side: int, trace: Trace, other: Trace, narrow: Format
) -> tuple[Trace, dict[Taken, set[str | None]]]:
    """A trace with its literals rounded that the other one holds as data, with the formats of their steps."""
    steps = list(trace.steps)
    taken: dict[Taken, set[str | None]] = {}
    for at, step in enumerate(trace.steps):
        if not (isinstance(step, Constant) and is_literal(step.value)):
            continue
        literal = float(step.value)
        number = float(round_to(literal, narrow))
        if Fraction(literal) == step.value and _is_data(number, literal, other, narrow):
            steps[at] = replace(step, value=Fraction(number))
            taken.setdefault(Taken(side, literal, number, narrow), set()).add(step.format)
    return (replace(trace, steps=tuple(steps)) if taken else trace), taken


def _is_data(number: float, literal: float, other: Trace, narrow: Format) -> bool:
    """Whether the other trace holds a rounded literal as data.

    What has few bits (1 for 1.0000001) is no trace of a rounding: one in 2^(p / 2) of all numbers has as few.
    """
    if not np.isfinite(number) or abs(number - literal) > narrow.u * abs(literal):
        return False
    few = np.ldexp(np.frexp(number)[0], narrow.precision // 2)
    held = any((np.abs(values) == abs(number)).any() for values in other.closures.values())
    return held and float(few) != np.rint(few)
