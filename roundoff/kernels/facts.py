"""What is known of a kernel: the facts that bounds use, and the table of those that were probed.

This file knows nothing of PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from roundoff.numbers.formats import Format
from roundoff.orders import holds
from roundoff.trace.call import Call
from roundoff.trace.steps import Rounded


@dataclass(frozen=True)
class Facts:
    """A contract: what one result of an ATen call does with its sums.

    accumulate: the format that they are kept in; once: nothing but the result is rounded to the format of
    the call, what is added to a matrix product (a bias) included.
    """

    accumulate: Format
    once: bool = False

    def weaker(self, other: Facts) -> Facts:
        """The facts that hold of both."""
        narrow = min(self.accumulate, other.accumulate, key=lambda each: each.precision)
        return Facts(narrow, self.once and other.once)


@dataclass(frozen=True)
class Place:
    """Where the numbers of a step are kept.

    own: the format of the tensors that its kernel reads and writes; wide: that of its sums; result: of
    the step's result, wider than own inside a kernel that rounds once; before: a wider one that it had
    before it was rounded to own; joins: what is added to a matrix product may be one more term of its sums.
    """

    own: Format
    wide: Format
    result: Format
    before: Format | None = None
    joins: bool = True


class Kernels(Protocol):
    """What bounds ask of the kernel that carries out a step."""

    def place(self, step: Rounded, format: Format) -> Place:
        """Where the numbers are kept, for a step of that format."""
        ...

    def flushes(self, step: Rounded, format: Format) -> bool:
        """Whether numbers below the smallest normal one may be read, kept or returned as zero."""
        ...

    def key(self) -> Any:
        """Everything that the bounds of a trace depend on, as a key."""
        ...

    def words(self) -> str:
        """What they do with sums, for people."""
        ...


@dataclass(frozen=True)
class Described:
    """A kernel of the user's description: every step rounds, sums are kept in one format, subnormals stay.

    wide: of the sums, None for the step's own format; it is taken where it holds that.
    """

    wide: Format | None = None

    def place(self, step: Rounded, format: Format) -> Place:
        wide = self.wide if self.wide and holds(self.wide, format) else format
        return Place(format, wide, format)

    def flushes(self, step: Rounded, format: Format) -> bool:
        return False

    def key(self) -> Any:
        return str(self.wide)

    def words(self) -> str:
        return "sums in the accumulator or wider, without flush to zero"


@dataclass(frozen=True)
class Stated:
    """Sums as the user states them; whether subnormals are flushed is what probes of a machine show."""

    sums: Described
    machine: Kernels

    def place(self, step: Rounded, format: Format) -> Place:
        return self.sums.place(step, format)

    def flushes(self, step: Rounded, format: Format) -> bool:
        return self.machine.flushes(step, format)

    def key(self) -> Any:
        return self.sums.key(), self.machine.key()

    def words(self) -> str:
        return f"sums in {self.sums.wide} (as stated)"


@dataclass(frozen=True)
class Entry:
    """A probed call: its format, number of threads, and what was found, per result.

    facts: None where nothing holds but the weaker assumption; flushes: None where nobody asked.
    """

    call: Call
    format: str
    threads: int
    facts: tuple[Facts | None, ...] | None
    flushes: tuple[bool | None, ...] | None


@dataclass(frozen=True)
class ContractTable:
    """What was probed in this process, on this machine; print it."""

    entries: tuple[Entry, ...]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """One per result: kernel, operands, format, threads, format of sums, rounds once, flushes."""
        found: list[tuple[str, ...]] = []
        for entry in self.entries:
            count = max(len(entry.facts or ()), len(entry.flushes or ()))
            for result in range(count):
                facts = entry.facts[result] if entry.facts else None
                flushes = entry.flushes[result] if entry.flushes else None
                if facts is not None or flushes is not None:
                    where = _kernel(entry.call, result, count), _operands(entry.call), entry.format
                    found.append((*where, str(entry.threads), *_words(facts), _yes(flushes)))
        return found

    def __str__(self) -> str:
        rows = self.rows
        if not rows:
            return (
                "Contracts: no kernel was probed in this process; bounds probe those that they meet"
            )
        rows = [_HEAD, *rows]
        widths = [max(len(row[k]) for row in rows) for k in range(len(_HEAD))]
        table = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([_TITLE, *table, *_HOW])


_HEAD = ("kernel", "operands", "format", "threads", "sums in", "rounds once", "flushes")
_TITLE = "Contracts of the kernels that were probed in this process, on this machine"
_HOW = (
    "sums in, rounds once: the very call, against float64, on whole numbers that float32 adds without error",
    "  in any order; mixed outcomes count as the weaker.  flushes: the same on subnormals; ?: nobody asked",
)

_RESULTS = {"convolution_backward": ("input", "weight", "bias")}


def _kernel(call: Call, result: int, count: int) -> str:
    if count == 1:
        return call.name
    names = _RESULTS.get(call.name)
    return f"{call.name} ({names[result] if names else result + 1})"


def _operands(call: Call) -> str:
    return " ".join(str(operand) for operand in call.operands)


def _words(facts: Facts | None) -> tuple[str, str]:
    return ("?", "?") if facts is None else (facts.accumulate.name, _yes(facts.once))


def _yes(fact: Any) -> str:
    return "?" if fact is None else "yes" if fact else "no"
