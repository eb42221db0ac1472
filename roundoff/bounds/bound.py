"""One object that holds every bound on the error of one computation, each with its conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.bounds.theorems import check_failure
from roundoff.errors import InapplicableError
from roundoff.numbers.formats import Format
from roundoff.words import counted

Array = npt.NDArray[np.float64]

KINDS = ("certified", "running", "probabilistic", "expected")


@dataclass(frozen=True, eq=False)
class Statement:
    """One theorem applied: its value per element, or why it has none.

    kind: "certified" (never exceeded), "running" (never exceeded by sums in the stated order, from the
    computed partial sums), "probabilistic" (a function of the failure probability) or "expected" (root
    mean square, a model).  value: an array, a function that makes it, or None; NaN where the theorem
    does not apply to an element, infinite where an overflow cannot be excluded.
    source, assumes: in words; refused: why it does not apply, to some elements or to any.
    """

    name: str
    kind: str
    value: Array | Callable[..., Array] | None
    source: str
    assumes: str = ""
    refused: str = ""


def _same(values: Array) -> Any:
    return values


@dataclass(frozen=True, eq=False)
class Bound:
    """Bounds on |computed - exact| per element.  Units: absolute.

    what: the computation in words; format: of inputs and results; accumulate: of the sums; order: in
    words; size: of all elements together, which share a failure probability; size_of_S: the condition
    scale (or a function that makes it); give_back: turns arrays into the caller's kind.

    >>> import roundoff as ro
    >>> b = ro.bounds.sum([1.0, 2.0, 3.0], "float16")
    >>> float(b.certified / b.S) <= 2 * 2.0**-11
    True
    """

    what: str
    format: Format
    accumulate: Format
    order: str
    shape: tuple[int, ...]
    statements: tuple[Statement, ...]
    size_of_S: Array | Callable[[], Array]
    give_back: Callable[[Array], Any] = field(default=_same, repr=False)

    def __repr__(self) -> str:
        return f"<Bound on {self.what} in {self.format}, {self.order}; print it for the theorems>"

    @property
    def size(self) -> int:
        """How many elements share a failure probability."""
        return int(np.prod(self.shape))

    @cached_property
    def scale(self) -> Array:
        """S per element as an array: the sum of the absolute values of the terms."""
        found = self.size_of_S() if callable(self.size_of_S) else self.size_of_S
        return np.asarray(found).reshape(self.shape)

    @property
    def S(self) -> Any:
        """S per element: the sum of the absolute values of the terms."""
        return self.give_back(self.scale)

    @property
    def certified(self) -> Any:
        """The smallest certified bound that applies; infinite where an overflow cannot be excluded.

        Raises: InapplicableError where none applies, with the reasons.
        """
        return self.give_back(self.certain)

    @cached_property
    def certain(self) -> Array:
        """`certified` as an array."""
        return self._least("certified")

    @property
    def running(self) -> Any:
        """The smallest bound from the computed partial sums, for sums in the stated order.

        Raises: InapplicableError where there are none: no order was given, or it is compensated.
        """
        return self.give_back(self._least("running"))

    def probabilistic(self, failure: float) -> Any:
        """A bound that some element exceeds with probability at most `failure`.

        The probability is for all elements together.  What the data show to be no chance (operands that
        are swallowed, errors of terms that repeat) counts in full.  Never above `certified`.

        Raises: ArgumentError for a failure outside (0, 1); InapplicableError where no element has one.
        """
        return self.give_back(self.likely(failure))

    def likely(self, failure: float) -> Array:
        """`probabilistic` as an array."""
        check_failure(failure)
        found = self._least("probabilistic", failure)
        with np.errstate(invalid="ignore"):
            return np.where(np.isnan(found), np.nan, np.fmin(found, self.certain))

    @property
    def expected(self) -> Any:
        """The root mean square of the error, by a model of rounding errors: no bound.

        Raises: InapplicableError where the model does not apply.
        """
        return self.give_back(self._least("expected"))

    @cached_property
    def named(self) -> Mapping[str, Statement]:
        """The statements by name."""
        return {statement.name: statement for statement in self.statements}

    def reshaped(self, what: str, shape: tuple[int, ...]) -> Bound:
        """The same bounds under another name, in another shape of as many elements."""

        def shaped(value: Any) -> Any:
            if callable(value):
                return lambda *arguments: np.reshape(value(*arguments), shape)
            return None if value is None else np.reshape(value, shape)

        statements = tuple(replace(s, value=shaped(s.value)) for s in self.statements)
        return replace(self, what=what, shape=shape, statements=statements)

    def _least(self, kind: str, *arguments: Any) -> Array:
        chosen = [s for s in self.statements if s.kind == kind]
        values = [_evaluate(s, arguments) for s in chosen if s.value is not None]
        if values:
            least = np.fmin.reduce([np.broadcast_to(v, self.shape) for v in values])
            if not (least.size and np.isnan(least).all()):
                return np.asarray(least)
        text = "; ".join(_reasons(chosen)) or "none is known for this computation"
        raise InapplicableError(f"no {kind} bound on {self.what}: {text}")

    def __str__(self) -> str:
        return describe(self)


def _reasons(statements: Iterable[Statement]) -> list[str]:
    """Why statements do not apply; those with the same reason are named together."""
    names: dict[str, list[str]] = {}
    for statement in statements:
        if statement.refused:
            names.setdefault(statement.refused, []).append(statement.name)
    return [f"{', '.join(of)}: {reason}" for reason, of in names.items()]


def _evaluate(statement: Statement, arguments: tuple[Any, ...]) -> Array:
    value = statement.value
    return np.asarray(value(*arguments) if callable(value) else value, np.float64)


#: At which failure probability `print` shows the probabilistic bounds.
SHOWN = 1e-3


def describe(bound: Bound) -> str:
    """The text that `print` shows: every bound, its value, and what it takes for granted."""
    sums = "" if bound.accumulate == bound.format else f", sums kept in {bound.accumulate}"
    lines = [
        f"Bounds on the error of {bound.what} in {bound.format}{sums}, {bound.order}; "
        f"u = {bound.format.u:.3g}, {_elements(bound)}",
        f"  {'':<19} {'':<25} {'median':>10} {'largest':>10} {'median/uS':>10}",
    ]
    with np.errstate(all="ignore"):
        unit = bound.format.u * bound.scale
    notes = []
    for kind in KINDS:
        for statement in (s for s in bound.statements if s.kind == kind):
            if statement.value is None:
                continue
            values = _evaluate(statement, (SHOWN,) if kind == "probabilistic" else ())
            if values.size and np.isnan(values).all():
                continue
            label = f"{kind}" + (f" {SHOWN:g}" if kind == "probabilistic" else "")
            lines.append(f"  {label:<19} {statement.name:<25} {_figures(values, unit)}")
            assumes = f"; assumes {statement.assumes}" if statement.assumes else ""
            notes.append(f"  {statement.name}: {statement.source}{assumes}")
    notes += [f"  does not apply: {reason}" for reason in _reasons(bound.statements)]
    if any(s.kind == "probabilistic" and s.value is not None for s in bound.statements):
        shared = (
            ""
            if any("shared by" in note for note in notes)
            else f" is shared by {_elements(bound)}, and"
        )
        notes.append(
            f"  A failure probability{shared} is for the smaller of that bound and the certified one."
        )
    return "\n".join([*lines, *notes])


def _elements(bound: Bound) -> str:
    return counted(bound.size, "element")


def _figures(values: Array, unit: Array) -> str:
    known = values[~np.isnan(values)]
    if not known.size:
        return f"{'–':>10} {'–':>10} {'–':>10}"
    with np.errstate(all="ignore"):
        relative = (values / unit)[~np.isnan(values / unit)]
    middle = f"{np.median(relative):>10.3g}" if relative.size else f"{'–':>10}"
    return f"{np.median(known):>10.3g} {known.max():>10.3g} {middle}"
