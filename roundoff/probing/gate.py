"""The gate: a tree counts as the kernel's only if its replay gives the kernel's bits, every time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt
import torch

from roundoff.numbers.formats import Format, round_to
from roundoff.probing.direct_calls import Direct
from roundoff.probing.gradient_reductions import Reduction, independent
from roundoff.probing.kernel_tree import KernelTree
from roundoff.probing.recovery import Ids
from roundoff.probing.replay import replay, terms_of

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

#: Random trials of the gate, the user's own data not counted.
TRIALS = 64

#: Turns of data that cancel.
MOST_TURNS = 128

#: Numbers held at a time in a replay.
CHUNK = 1 << 24


def draw(generator: np.random.Generator, format: Format, kind: int, count: int) -> Array:
    """Random numbers of a format: normal, of widely different size, positive, or few among zeros.

    The four kinds take turns; sizes stay within what sums of many products can hold.  Few terms show
    roundings deep in a long sum, which later ones would hide.
    """
    values = generator.standard_normal(count)
    spread = 4 if format.emax < 100 else 20
    if kind % 4 == 1:
        values *= 2.0 ** generator.integers(-spread, spread // 2, count)
    elif kind % 4 == 2:
        values = np.abs(values)
    elif kind % 4 == 3:
        values[generator.random(count) > max(0.1, min(0.75, 16 / count))] = 0.0
    found: Array = round_to(values, format)
    return found


def cancelling(generator: np.random.Generator, format: Format, count: int) -> Array:
    """Numbers of widely different size that add up to almost nothing, in random order.

    What is left of their sum are the roundings of the accumulator, however wide it is: a sum in another
    order leaves something else.
    """
    third = count // 3
    low, high = {"float16": (-12, 9), "bfloat16": (-14, 14)}.get(format.name, (-24, 24))
    # Two numbers of one binade with two zero bits at the end have a sum that is one of the format.  Three
    # terms are better than a number and its negative, whose roundings would cancel as well.
    digits = 2 ** (format.precision - 3)
    first, second = generator.integers(digits, 2 * digits, (2, third)) / digits
    scale = 2.0 ** generator.integers(low, high, third) * generator.choice([-1, 1], third)
    rest = round_to(generator.standard_normal(count - 3 * third) * 2.0**low, format)
    found = np.concatenate([scale * first, scale * second, -scale * (first + second), rest])
    return generator.permutation(found)


def same(a: Array, b: Array) -> Flags:
    """Where bits are equal; NaN equals NaN, and zeros are equal whatever their sign."""
    equal: Flags = (a == b) | (np.isnan(a) & np.isnan(b))
    return equal


def direct_trials(kernel: Direct, trials: int, seed: int) -> tuple[Array, Array | None, Array]:
    """Random vectors, half as many again that cancel, and what the kernel returns for them.

    The outputs take turns in cancelling.

    Shapes: (trials, n) each, and (trials, outputs).
    """
    generator = np.random.default_rng([seed, kernel.n])
    n, format = kernel.n, kernel.format
    x = [draw(generator, format, k, n) for k in range(trials)]
    y = [draw(generator, format, k // 4, n) for k in range(trials)]
    turns = generator.permutation(kernel.outputs)
    for k in range(max(trials // 2, min(kernel.outputs, trials))):
        members = kernel.members[turns[k % len(turns)]]
        values = np.zeros(n)
        values[members] = cancelling(generator, format, len(members))
        x.append(values)
        y.append(np.ones(n))
    second = np.stack(y) if kernel.products else None
    found = [kernel.evaluate(a, b if kernel.products else None) for a, b in zip(x, y, strict=True)]
    return np.stack(x), second, np.array(found)


def replay_direct(tree: KernelTree, leaves: Ids, x: Array, y: Array | None) -> Array:
    """The replay of one output.  Shapes: (trials, n) to (trials,)."""
    first = terms_of(tree, x[:, leaves].T)
    second = None if y is None else terms_of(tree, y[:, leaves].T)
    return replay(tree, lambda k: (first[k], None if second is None else second[k]))


class GradientTrials:
    """Random inputs and upstream gradients, the user's own first, and the gradients that PyTorch returns.

    Shapes: upstream (trials, elements), inputs[name] and result likewise.
    """

    def __init__(self, reduction: Reduction, own_upstream: Array, trials: int, seed: int) -> None:
        graph, name = reduction.graph, reduction.name
        self.reduction = reduction
        generator = np.random.default_rng([seed, len(own_upstream)])
        format = graph.format
        self.upstream = [own_upstream]
        self.inputs: list[dict[str, Array]] = [graph.own]
        graph.restore()
        graph.forward()
        graph.upstream.put(own_upstream)
        self.result = [graph.backward(name)]
        for k in range(trials):
            one = partial(draw, generator, format, k // 4)
            self.inputs.append({key: buffer.draw(one) for key, buffer in graph.buffers.items()})
            graph.forward()
            self.upstream.append(graph.upstream.draw(partial(draw, generator, format, k)))
            self.result.append(graph.backward(name))
        ones = {key: buffer.draw(np.ones) for key, buffer in graph.buffers.items()}
        graph.forward()
        for numbers in _turns(reduction, trials // 3):
            values = np.zeros(len(graph.upstream.where))
            for row in numbers:
                values[row] = cancelling(generator, format, len(row))
            self.inputs.append(ones)
            self.upstream.append(values)
            graph.upstream.put(values)
            self.result.append(graph.backward(name))
        graph.restore()
        graph.forward()

    def check(
        self, tree: KernelTree, leaves: Ids, elements: Ids, count: int | None = None
    ) -> Flags:
        """Where the replay equals PyTorch's result, for the first `count` trials.

        Shapes: (trials, elements).
        """
        count = len(self.result) if count is None else count
        held = len(leaves) * len(elements) ** 0.5 + len(elements)
        step = max(1, int(CHUNK / held))
        found = []
        for begin in range(0, count, step):
            some = range(begin, min(begin + step, count))
            got = self.replayed(tree, leaves, elements, some)
            found.append(same(got, np.stack([self.result[k][elements] for k in some])))
        return np.concatenate(found)

    def replayed(
        self, tree: KernelTree, leaves: Ids, elements: Ids, trials: Sequence[int]
    ) -> Array:
        """What the tree gives for some of the trials.  Shapes: (trials, elements)."""
        terms = self.reduction.terms
        rows, row_at = np.unique(terms.rows[elements], return_inverse=True)
        columns, column_at = np.unique(terms.columns[elements], return_inverse=True)
        upstream = np.stack([self.upstream[k] for k in trials])
        # (leaves, trials, rows), (leaves, trials, columns)
        x = terms_of(tree, np.moveaxis(upstream[:, terms.upstream[rows][:, leaves] - 1], 2, 0))
        other = terms.other[columns][:, leaves]
        row, column = torch.from_numpy(row_at.ravel()), torch.from_numpy(column_at.ravel())
        if (other < 0).all():
            return replay(tree, lambda k: (x[k][:, row], None))
        flat = np.stack([self.reduction.factor_values(self.inputs[k]) for k in trials])
        y = terms_of(
            tree, np.moveaxis(np.where(other > 0, flat[:, np.maximum(other - 1, 0)], 1.0), 2, 0)
        )
        grid = row * len(columns) + column
        if len(rows) * len(columns) == len(elements) and torch.equal(
            grid, torch.arange(len(elements))
        ):
            result = replay(tree, lambda k: (x[k][:, :, None], y[k][:, None, :]))
            return result.reshape(len(trials), -1)
        return replay(tree, lambda k: (x[k][:, row], y[k][:, column]))


def _turns(reduction: Reduction, least: int) -> Iterator[Ids]:
    """Places upstream of sums that share none, until every sum had its turn: `least` turns or more.

    Shapes: (sums, leaves) each.
    """
    sets = []
    for part in reduction.alike:
        numbers = reduction.terms.upstream[:, part.leaves]
        rows = np.unique(reduction.terms.rows[part.elements])
        while len(rows):
            chosen = independent(numbers, rows)
            sets.append(numbers[chosen] - 1)
            rows = np.setdiff1d(rows, chosen)
    for k in range(max(least, min(2 * len(sets), MOST_TURNS))):
        yield sets[k % len(sets)]
