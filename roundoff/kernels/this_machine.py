"""The kernels of this machine: what they do, asked once per process of the kernel itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch

from roundoff.kernels.facts import ContractTable, Described, Entry, Facts, Kernels, Place, Stated
from roundoff.kernels.probes import ADDED, is_linear, probe_flush, probe_sums
from roundoff.locks import TORCH
from roundoff.numbers.formats import Format, as_format
from roundoff.trace.call import Call, Declared, Operand
from roundoff.trace.steps import Contract, Map, Move, Reduce, Rounded, Trace

#: Formats whose kernels may keep wider sums than their results.
HALVES = frozenset(("float16", "bfloat16"))

#: What ran outside the function's trace: any result may leave its kernel there.
_OUTSIDE = -1

_sums: dict[tuple[Any, ...], tuple[Facts | None, ...] | None] = {}
_flushes: dict[tuple[Any, ...], tuple[bool | None, ...] | None] = {}


def contracts() -> ContractTable:
    """What was probed so far in this process, on this machine: see `print(roundoff.contracts())`.

    Bounds, tolerances and verdicts probe the kernels that they meet; nothing is probed beforehand.
    """
    with TORCH:
        keys = dict.fromkeys([*_sums, *_flushes])
        entries = (Entry(k[0], k[1], k[2], _sums.get(k), _flushes.get(k)) for k in keys)
        return ContractTable(tuple(entries))


def sums_of(call: Call, terms: int) -> tuple[Facts | None, ...] | None:
    """What the results of a call do with their sums, probed once."""
    found: tuple[Facts | None, ...] | None = _once(_sums, call, lambda: probe_sums(call, terms))
    return found


def flushes_of(call: Call, terms: int) -> tuple[bool | None, ...] | None:
    """Whether the results of a call lose subnormal numbers, probed once."""
    found: tuple[bool | None, ...] | None = _once(_flushes, call, lambda: probe_flush(call, terms))
    return found


def subnormals_lost(format: Format) -> bool:
    """Whether this thread flushes subnormal numbers of float32 or float64 (torch.set_flush_denormal)."""
    if format.torch_dtype is None or format.torch_dtype.itemsize < 4:
        format = as_format("float32")
    with _plain():
        tiny = torch.full((8,), format.smallest_subnormal, dtype=torch.float64)
        small = tiny.to(format.torch_dtype) if format.name == "float64" else tiny.to(torch.float32)
        return bool(((small + small) == 0).any())


def _once(kept: dict[tuple[Any, ...], Any], call: Call, probe: Callable[[], Any]) -> Any:
    if not is_linear(call):
        return None
    with TORCH:
        key = (
            replace(call, results=()), call.operands[0].format, torch.get_num_threads(), *_flags()
        )  # fmt: skip
        if key not in kept:
            try:
                with _plain():
                    kept[key] = probe()
            except (
                RuntimeError,
                NotImplementedError,
            ):  # no such kernel in this dtype: nothing is known
                kept[key] = None
        return kept[key]


def _flags() -> tuple[Any, ...]:
    """torch's flags by which CPU kernels are chosen."""
    return (
        torch.backends.mkldnn.enabled,  # type: ignore[attr-defined,unused-ignore]
        torch.are_deterministic_algorithms_enabled(),
        torch.get_float32_matmul_precision(),
        subnormals_lost(as_format("float32")),
    )


@contextlib.contextmanager
def _plain() -> Iterator[None]:
    """On the CPU without gradients, inference mode and autocast, whatever context the caller is in."""
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast("cpu", enabled=False),
        torch.device("cpu"),
    ):
        yield


def of_this_machine(
    trace: Trace, format: Format, device: Any = "cpu", accumulate: Any = None
) -> Kernels | None:
    """The kernels that carry out a trace in a format on this CPU; None where torch has none for it.

    accumulate: the format of their sums, where the user states it.
    """
    dtype = format.torch_dtype
    if dtype is None or dtype.itemsize < 2 or torch.device(device).type != "cpu":
        return None
    machine = ProbedKernels(trace, format)
    return machine if accumulate is None else Stated(Described(as_format(accumulate)), machine)


class ProbedKernels:
    """The kernels that carry out a trace here, where `format` is the declared one.

    What no probe has shown is assumed: sums in the step's format, a rounding after every step, and numbers
    below bfloat16's smallest normal one lost.
    """

    def __init__(self, trace: Trace, format: Format) -> None:
        self.format = format
        self.trace = trace
        self._terms: dict[int, int] = {}
        for step in trace.steps:
            if isinstance(step, Reduce | Contract) and step.call is not None:
                number = step.call.number
                self._terms[number] = max(step.leaves, self._terms.get(number, 0))
        self._inner = _inner(trace)
        self._calls: dict[int, Call] = {}
        self._lost = {name: subnormals_lost(as_format(name)) for name in ("float32", "float64")}

    def place(self, step: Rounded, format: Format) -> Place:
        facts = self.facts(step, format)
        joins = step.kernel in ADDED
        if facts is None:
            return Place(format, format, format, joins=joins)
        wide = facts.accumulate
        if not facts.once:
            return Place(format, wide, format, joins=joins)
        if id(step) in self._inner:
            return Place(format, wide, wide, joins=joins)
        return Place(format, wide, format, wide if isinstance(step, Map) else None, joins)

    def flushes(self, step: Rounded, format: Format) -> bool:
        if self._lost["float64" if format.name == "float64" else "float32"]:
            return True
        call = self._call(step)
        sums = isinstance(step, Reduce | Contract)
        if format.name == "float64" or not (sums or (call and call.number in self._terms)):
            return False
        found = None if call is None else flushes_of(call, self._terms[call.number])
        if call is None or found is None:
            # A float16 number is a normal one of float32, and casts between the two lose none.
            return format.name == "bfloat16"
        return any(found[result] is not False for result in call.results)

    def facts(self, step: Rounded, format: Format) -> Facts | None:
        """What the step's kernel does with its sums; None where nothing was shown."""
        if format.name not in HALVES:
            return None
        call = self._call(step)
        if call is None or call.number not in self._terms:
            return None
        found = sums_of(call, self._terms[call.number])
        facts = [None if found is None else found[result] for result in call.results]
        known = [each for each in facts if each is not None]
        if not known or len(known) < len(facts):
            return None
        return functools.reduce(Facts.weaker, known)

    def key(self) -> list[tuple[str | None, Place, bool]]:
        """Everything that the bounds of this trace depend on, as a key."""
        found = []
        for step in self.trace.steps:
            if isinstance(step, Rounded):
                own = _own(step, self.format)
                found.append((step.kernel, self.place(step, own), self.flushes(step, own)))
        return found

    def words(self) -> str:
        """In words: the formats in which kernels keep their sums; nothing of those that no probe is for."""
        of: dict[str, set[str]] = {}
        for step in self.trace.steps:
            if not isinstance(step, Reduce | Contract):
                continue
            own = _own(step, self.format)
            if own.name in HALVES:
                facts = self.facts(step, own)
                known = own.name if facts is None else facts.accumulate.name
                shown = "not probed" if facts is None else "probed on this machine"
                of.setdefault(f"sums in {known} ({shown})", set()).add(step.kernel or "sums")
        return "; ".join(f"{fact}: {', '.join(sorted(names))}" for fact, names in of.items())

    def _call(self, step: Rounded) -> Call | None:
        """The step's call with the format of every operand."""
        call = step.call
        if call is None or not call.operands:
            return None
        if id(call) not in self._calls:
            self._calls[id(call)] = replace(
                call,
                arguments=_named(call.arguments, self.format.name),
                keywords=_named(call.keywords, self.format.name),
            )
        return self._calls[id(call)]


def _own(step: Rounded, declared: Format) -> Format:
    return declared if step.format is None else as_format(step.format)


def _named(tree: Any, declared: str) -> Any:
    if isinstance(tree, Operand):
        return replace(tree, format=tree.format or declared)
    if isinstance(tree, Declared):
        return as_format(declared).torch_dtype
    return tuple(_named(each, declared) for each in tree) if isinstance(tree, tuple) else tree


def _inner(trace: Trace) -> set[int]:
    """Steps (by id) whose results are read by steps of their own call alone, moves looked through."""
    readers: list[set[int]] = [set() for _ in trace.steps]
    for number in trace.outputs.values():
        readers[number].add(_OUTSIDE)
    for number in reversed(range(len(trace.steps))):
        step = trace.steps[number]
        call = getattr(step, "call", None)
        seen = readers[number] if isinstance(step, Move) else {call.number if call else _OUTSIDE}
        for operand in step.operands:
            readers[operand] |= seen
    return {
        id(step)
        for step, seen in zip(trace.steps, readers, strict=True)
        if isinstance(step, Rounded) and step.call is not None and seen == {step.call.number}
    }
