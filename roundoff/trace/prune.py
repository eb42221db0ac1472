"""Drop what cannot matter: elements that nobody reads, and terms that are zero by structure.

The pruned trace computes the same outputs.  A tree over all leaves is unchanged by it, because adding
a structural zero is exact: Reduce and Contract remember which leaves are present.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from roundoff.trace.functions import FUNCTIONS
from roundoff.trace.steps import (
    Builder,
    Constant,
    Contract,
    Index,
    Input,
    Map,
    Mask,
    Move,
    Reduce,
    Step,
    Trace,
    is_identity,
    numbered,
)


def structural_zeros(trace: Trace) -> list[Mask]:
    """Per step, which elements are zero whatever the inputs are."""
    zeros: list[Mask] = []
    for step in trace.steps:
        zeros.append(_zeros(step, [zeros[operand] for operand in step.operands]))
    return zeros


def _zeros(step: Step, of: list[Mask]) -> Any:
    match step:
        case Input():
            return np.zeros(step.shape, bool)
        case Constant():
            return np.full(step.shape, step.value == 0)
        case Move():
            if step.index is None:
                return of[0].reshape(step.shape)
            return np.concatenate([[True], *(mask.ravel() for mask in of)])[step.index]
        case Map():
            return _zeros_of_map(step, of)
        case Reduce():
            return np.all(of[0], axis=-1)
        case Contract():
            return ~_any_product(~of[0], ~of[1])


def _zeros_of_map(step: Map, of: list[Mask]) -> Any:
    match FUNCTIONS[step.function].zero:
        case "all":
            return np.logical_and.reduce(of)
        case "any":
            return np.logical_or.reduce(of)
        case "first":
            return of[0]
        case "branches":
            return of[1] & of[2]
        case _:
            return np.zeros(step.shape, bool)


def _any_product(first: Mask, second: Mask) -> Mask:
    """Boolean matrix product: counts below 2^24 are exact in float32."""
    shape = (*first.shape[:-1], second.shape[-1])
    if first.shape[-1] and second.all():
        return np.broadcast_to(first.any(axis=-1, keepdims=True), shape)
    if first.shape[-1] and first.all():
        return np.broadcast_to(second.any(axis=-2, keepdims=True), shape)
    return np.asarray(first.astype(np.float32) @ second.astype(np.float32) > 0)


def needed(trace: Trace, zeros: list[Mask] | None = None) -> list[Mask]:
    """Per step, which elements the outputs depend on and are not structural zeros."""
    if zeros is None:
        zeros = structural_zeros(trace)
    need = [np.zeros(step.shape, bool) for step in trace.steps]
    for number in trace.outputs.values():
        need[number] = ~zeros[number]
    for guard in trace.guards:
        need[guard.step] = ~zeros[guard.step]
    for number in reversed(range(len(trace.steps))):
        step = trace.steps[number]
        for operand, wanted in zip(step.operands, _reads(step, need[number], zeros), strict=True):
            need[operand] |= wanted & ~zeros[operand]
    return need


def _reads(step: Step, need: Mask, zeros: list[Mask]) -> list[Mask]:
    shapes = [zeros[operand].shape for operand in step.operands]
    match step:
        case Move():
            if step.index is None:
                return [need.reshape(shapes[0])]
            sizes = [prod(shape) for shape in shapes]
            marks = np.zeros(1 + sum(sizes), bool)
            marks[_only(step.index, need)] = True
            parts = np.split(marks[1:], np.cumsum(sizes)[:-1])
            return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]
        case Map():
            return [need] * len(shapes)
        case Reduce():
            return [np.broadcast_to(need[..., None], shapes[0])]
        case Contract():
            first, second = (~zeros[operand] for operand in step.operands)
            return [
                _any_product(need, second.swapaxes(1, 2)),
                _any_product(first.swapaxes(1, 2), need),
            ]
        case _:
            return []


def prune(trace: Trace) -> Trace:
    """The same outputs from as few elements as rectangles allow."""
    zeros = structural_zeros(trace)
    need = needed(trace, zeros)
    return _Pruner(trace, zeros, need).run()


def reads(trace: Trace, name: str) -> Mask:
    """Which elements of an input the outputs depend on, by structure.

    An element outside this mask cannot influence any output, whatever its value.
    """
    need = needed(trace)
    for number, step in enumerate(trace.steps):
        if isinstance(step, Input) and step.name == name:
            return need[number]
    raise KeyError(name)


class _Pruner:
    """Rewrites step by step; where[i] maps old element numbers to new ones (0: absent).

    whole[i]: whether all elements keep their numbers.
    """

    def __init__(self, trace: Trace, zeros: list[Mask], need: list[Mask]) -> None:
        self.trace, self.zeros, self.need = trace, zeros, need
        self.build = Builder()
        self.new: list[int] = []
        self.where: list[Index] = []
        self.whole: list[bool] = []

    def run(self) -> Trace:
        for number, step in enumerate(self.trace.steps):
            value, where = self.rewrite(number, step)
            self.new.append(value)
            self.where.append(where)
            kept = where.size == prod(self.build.shape(value))
            self.whole.append(kept and is_identity(where))
        outputs = {
            name: self.build.move((self.new[number],), self.where[number])
            for name, number in self.trace.outputs.items()
        }
        guards = tuple(
            replace(guard, step=self.build.move((self.new[guard.step],), self.where[guard.step]))
            for guard in self.trace.guards
        )
        return _without_dead(
            replace(self.trace, steps=tuple(self.build.steps), outputs=outputs, guards=guards)
        )

    def rewrite(self, number: int, step: Step) -> tuple[int, Index]:
        need = self.need[number]
        match step:
            case Input():
                if need.all():
                    return self.build.put(step), _places(need)
                kept = np.flatnonzero(need)
                present = kept if step.kept is None else step.kept[kept]
                value = self.build.put(replace(step, shape=(len(kept),), kept=present))
                return value, _places(need)
            case Constant():
                value = self.build.put(step)
                return value, numbered(step.shape)
            case Move():
                return self.moved(step, need)
            case Map():
                chosen = ... if need.all() else need
                operands = tuple(self.gather(o, self.where[o][chosen]) for o in step.operands)
                shape = self.build.shape(operands[0])
                value = self.build.put(replace(step, shape=shape, operands=operands))
                return value, _places(need)
            case Reduce() | Contract() if not need.any():  # no sums, maybe of no terms
                return self.build.constant(0, (0,)), np.zeros(step.shape, np.int64)
            case Reduce():
                return self.reduced(step, need)
            case Contract():
                return self.contracted(step, need)

    def gather(self, old: int, places: Index) -> int:
        return self.build.move((self.new[old],), places)

    def moved(self, step: Move, need: Mask) -> tuple[int, Index]:
        places = numbered(step.shape) if step.index is None else step.index
        if not all(self.whole[o] for o in step.operands):
            sizes = [prod(self.build.shape(self.new[o])) for o in step.operands]
            starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
            tables = [
                np.where(self.where[o].ravel() > 0, self.where[o].ravel() + start, 0)
                for o, start in zip(step.operands, starts, strict=True)
            ]
            places = np.concatenate([[0], *tables])[places]
        if len(step.operands) == 1:  # no step at all: the new places are the old value's
            return self.new[step.operands[0]], _only(places, need)
        value = self.build.move(tuple(self.new[o] for o in step.operands), places[need])
        return value, _places(need)

    def reduced(self, step: Reduce, need: Mask) -> tuple[int, Index]:
        (operand,) = step.operands
        present = self.where[operand].shape[-1]  # fewer than the leaves, if it was pruned before
        places = self.where[operand].reshape(need.size, present)[need.ravel()]
        kept = np.flatnonzero(places.any(axis=0))
        value = self.gather(operand, places[:, kept])
        shape = self.build.shape(value)[:-1]
        summed = replace(step, shape=shape, operands=(value,), kept=_kept(kept, step))
        return self.build.put(summed), _places(need)

    def contracted(self, step: Contract, need: Mask) -> tuple[int, Index]:
        first, second = (self.where[operand] for operand in step.operands)
        batch = np.flatnonzero(need.any(axis=(1, 2)))
        rows = np.flatnonzero(need.any(axis=(0, 2)))
        columns = np.flatnonzero(need.any(axis=(0, 1)))
        first = _taken(_taken(first, 0, batch), 1, rows)
        second = _taken(_taken(second, 0, batch), 2, columns)
        one, two = (self.need[operand] for operand in step.operands)
        kept = np.flatnonzero(one.any(axis=(0, 1)) & two.any(axis=(0, 2)))
        a = self.gather(step.operands[0], _taken(first, 2, kept))
        b = self.gather(step.operands[1], _taken(second, 1, kept))
        shape = (len(batch), len(rows), len(columns))
        value = self.build.put(replace(step, shape=shape, operands=(a, b), kept=_kept(kept, step)))
        where = np.zeros(step.shape, np.int64)
        where[np.ix_(batch, rows, columns)] = np.arange(1, prod(shape) + 1).reshape(shape)
        return value, where


def _only(places: Index, need: Mask) -> Index:
    """The places that are needed, 0 for all others; most often they are 0 already."""
    return np.where(need, places, 0) if (places.astype(bool) & ~need).any() else places


def _taken(numbers: Index, axis: int, chosen: Index) -> Index:
    """Some rows along an axis, without a copy where it is all of them."""
    return numbers if len(chosen) == numbers.shape[axis] else numbers.take(chosen, axis)


def _places(need: Mask) -> Index:
    if need.all():
        return numbered(need.shape)
    where = np.zeros(need.shape, np.int64)
    where[need] = np.arange(1, np.count_nonzero(need) + 1)
    return where


def _kept(kept: Index, step: Reduce | Contract) -> Index | None:
    """Numbers of the leaves present, in the numbering of the unpruned step."""
    if step.kept is not None:
        return step.kept[kept]
    return None if len(kept) == step.leaves else kept


def _without_dead(trace: Trace) -> Trace:
    alive = {*trace.outputs.values(), *trace.decisions}
    for number in reversed(range(len(trace.steps))):
        if number in alive:
            alive.update(trace.steps[number].operands)
        elif isinstance(trace.steps[number], Input):
            alive.add(number)
    renumber = {old: new for new, old in enumerate(sorted(alive))}
    steps = tuple(
        replace(trace.steps[old], operands=tuple(renumber[o] for o in trace.steps[old].operands))
        for old in sorted(alive)
    )
    outputs = {name: renumber[number] for name, number in trace.outputs.items()}
    guards = tuple(replace(guard, step=renumber[guard.step]) for guard in trace.guards)
    return replace(trace, steps=steps, outputs=outputs, guards=guards)
