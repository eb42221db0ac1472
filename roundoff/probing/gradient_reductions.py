"""Gradients as sums to be probed: numbers are put into the user's own autograd graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from roundoff.errors import ArgumentError, RoundoffError, UnsupportedError
from roundoff.gradients.inputs import float64_array
from roundoff.numbers.formats import as_format, round_to
from roundoff.probing.buffers import Buffer
from roundoff.probing.flags import Probes
from roundoff.probing.gradient_terms import Terms, gradient_terms
from roundoff.probing.probe_values import masks, whole
from roundoff.probing.recovery import CountQuestion, Ids
from roundoff.trace import trace_gradients
from roundoff.trace.checks import check_device, check_problem
from roundoff.trace.users_function import as_tensor, call, check_wrt

Array = npt.NDArray[np.float64]


class Gradients:
    """The graph of a function whose inputs and upstream gradient can be set; layouts are the user's.

    calls: how often its backward pass ran.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        inputs: Mapping[str, Any],
        wrt: Sequence[str] | None,
        format: Any,
        device: Any = "cpu",
        output: Any = None,
    ) -> None:
        check_problem(function, inputs, wrt)
        check_device(device)
        self.function, self.format, self.output = function, as_format(format), output
        tensors = {name: as_tensor(name, value) for name, value in inputs.items()}
        self.wrt = check_wrt(tensors, wrt)
        floating = {name: t for name, t in tensors.items() if t.is_floating_point()}
        try:
            self.buffers = {n: Buffer(t, self.format, device) for n, t in floating.items()}
            self.others = {n: t.to(device) for n, t in tensors.items() if n not in floating}
        except RoundoffError:
            raise
        except (AssertionError, RuntimeError) as error:
            first = str(error).strip().split("\n")[0]
            raise ArgumentError(
                f"cannot put the inputs on device {device!r}: {first}; use 'cpu'"
            ) from None
        self.own = {
            n: round_to(float64_array(tensors[n]).ravel(), self.format) for n in self.buffers
        }
        self.calls = 0
        self.restore()
        self.forward()
        self.upstream = Buffer(torch.empty_like(self.out), self.format, device)
        example = torch.zeros(self.out.shape)
        self.trace = trace_gradients(
            function, inputs, self.wrt, None, example, output=output, format=self.format
        )

    def restore(self) -> None:
        """The user's own inputs."""
        for name, buffer in self.buffers.items():
            buffer.put(self.own[name])

    def forward(self) -> torch.Tensor:
        """Build the graph for the inputs as they are; returns the output."""
        with torch.enable_grad():
            self.leaves = {name: b.tensor.detach() for name, b in self.buffers.items()}
            for name in self.wrt:
                self.leaves[name].requires_grad_()
            self.out = call(self.function, {**self.leaves, **self.others}, self.output)
        return self.out

    def backward(self, name: str) -> Array:
        """One gradient for the upstream gradient as it is, flat; all of wrt are computed."""
        self.calls += 1
        found = torch.autograd.grad(
            self.out, [self.leaves[n] for n in self.wrt], self.upstream.tensor,
            retain_graph=True, allow_unused=True,
        )  # fmt: skip
        one = found[self.wrt.index(name)]
        if one is None:
            return np.zeros(self.leaves[name].numel())
        return np.asarray(one.double().numpy(force=True), np.float64).reshape(-1)

    def terms(self, name: str) -> tuple[Terms, dict[str, int]]:
        """Which terms a gradient adds."""
        return gradient_terms(self.trace, name, {n: len(b.where) for n, b in self.buffers.items()})


@dataclass(frozen=True, eq=False)
class Alike:
    """Elements of a gradient with the same structural zeros: leaf k of each stands for the same place.

    leaves: the places that are present.
    """

    elements: Ids
    leaves: Ids


class Reduction:
    """One gradient as a family of sums, one per element."""

    def __init__(self, graph: Gradients, name: str) -> None:
        self.graph, self.name, self.masks = graph, name, masks(graph.format)
        self.terms, self.starts = graph.terms(name)
        rows = self.terms.upstream[np.unique(self.terms.rows[self.terms.rows >= 0])]
        for row in rows:
            present = row[row != 0]
            if len(np.unique(present)) != len(present):
                raise UnsupportedError(
                    f"an element of the upstream gradient enters one element of the gradient by {name!r} "
                    "twice; explain a function in which it enters once"
                )

    @cached_property
    def alike(self) -> list[Alike]:
        """The elements in groups of equal structural zeros; those without terms are left out."""
        terms = self.terms
        zero_rows, row_kind = np.unique(terms.upstream == 0, axis=0, return_inverse=True)
        zero_columns, column_kind = np.unique(terms.other == 0, axis=0, return_inverse=True)
        groups: dict[bytes, list[Ids]] = {}
        elements = np.flatnonzero(terms.rows >= 0)
        kinds = np.stack(
            [row_kind.ravel()[terms.rows[elements]], column_kind.ravel()[terms.columns[elements]]]
        )
        pairs, inverse = np.unique(kinds, axis=1, return_inverse=True)
        for k, (row, column) in enumerate(pairs.T):
            present = ~(zero_rows[row] | zero_columns[column])
            if present.any():
                groups.setdefault(np.packbits(present).tobytes(), []).append(
                    elements[inverse.ravel() == k]
                )
        leaves = terms.upstream.shape[1]
        return [
            Alike(
                np.sort(np.concatenate(parts)),
                np.flatnonzero(np.unpackbits(np.frombuffer(key, np.uint8), count=leaves)),
            )
            for key, parts in groups.items()
        ]

    def probing(self, part: Alike) -> Probing:
        """Questions to the elements of one group."""
        return Probing(self, part)

    def factor_values(self, values: Mapping[str, Array]) -> Array:
        """All inputs' numbers, in the order of the terms' `other`, which counts from 1.

        Shapes: values (..., elements) by input, laid end to end along the last axis.
        """
        return np.concatenate([values[name] for name in self.starts], axis=-1)

    def keys(self, elements: Ids, leaves: Ids) -> tuple[Ids, Ids]:
        """The two factors' numbers of every term.  Shapes: (elements, leaves) each."""
        terms = self.terms
        return (
            terms.upstream[terms.rows[elements]][:, leaves],
            terms.other[terms.columns[elements]][:, leaves],
        )


class Probing:
    """Probes some elements of a gradient; independent ones at once."""

    def __init__(self, reduction: Reduction, part: Alike) -> None:
        self.reduction, self.part = reduction, part
        self.graph, self.masks = reduction.graph, reduction.masks
        terms, leaves = reduction.terms, part.leaves
        self.rows = independent(terms.upstream[:, leaves], terms.rows[part.elements])
        chosen = [np.flatnonzero(terms.rows[part.elements] == row)[0] for row in self.rows]
        self.elements = part.elements[np.array(chosen)]
        self.numbers = terms.upstream[self.rows][:, leaves] - 1
        self.flat = self.graph.upstream.where[self.numbers]

    def _ones(self) -> None:
        for buffer in self.graph.buffers.values():
            buffer.fill(1.0)
        self.graph.forward()

    def _results(self, elements: Ids) -> Array:
        return self.graph.backward(self.reduction.name)[elements]

    def ask(self, questions: Sequence[CountQuestion]) -> list[Ids]:
        """Counts, as many questions at a time as there are independent rows."""
        self._ones()
        m, n, width = self.masks, int(self.part.leaves.size), len(self.rows)
        bits, encode = self.graph.upstream.bits, self.graph.upstream.encode
        self.graph.upstream.fill(0.0)
        minus = encode(-m.large)[0]
        jobs = [(k, other) for k, q in enumerate(questions) for other in q.others.tolist()]
        templates: dict[int, Any] = {}
        state: list[tuple[int, int]] = [(-1, 0)] * width  # per row, the question and the leaf of -M
        counts = np.empty(len(jobs))
        for start in range(0, len(jobs), width):
            batch = jobs[start : start + width]
            for r, (k, other) in enumerate(batch):
                if k not in templates:
                    row = np.zeros(n)
                    row[questions[k].units] = m.unit
                    row[questions[k].pivot] = m.large
                    templates[k] = encode(row)
                before, last = state[r]
                if before != k:
                    bits[self.flat[r]] = templates[k]
                else:
                    bits[self.flat[r, last]] = templates[k][last]
                bits[self.flat[r, other]] = minus
                state[r] = (k, other)
            counts[start : start + len(batch)] = self._results(self.elements[: len(batch)])
        sizes = np.cumsum([len(q.others) for q in questions])[:-1]
        return list(np.split(whole(counts / m.unit), sizes))

    def plain(self, probes: Probes) -> Array:
        """Results of probes whose second factors are all ones, one probe to a row."""
        self._ones()
        upstream, width, found = self.graph.upstream, len(self.rows), np.empty(len(probes))
        for start in range(0, len(probes), width):
            some = slice(start, start + width)
            leaves = probes.leaves[some]
            rows = np.arange(len(leaves))
            upstream.fill(0.0)
            places = self.flat[rows[:, None], leaves]
            upstream.bits[places] = upstream.encode(probes.first[some].ravel()).reshape(
                places.shape
            )
            found[some] = self._results(self.elements[rows])
        return found

    @cached_property
    def grid(self) -> tuple[Ids, Ids, Ids] | None:
        """Rows and columns all of whose pairs are elements, and these; None where there are no factors."""
        terms, part = self.reduction.terms, self.part
        other = terms.other[:, part.leaves]
        row_of, column_of = terms.rows[part.elements], terms.columns[part.elements]
        if (other[column_of] < 0).any() or not all(b.distinct for b in self.graph.buffers.values()):
            return None
        columns = independent(other, column_of)
        at = np.full((len(terms.upstream), len(terms.other)), -1, np.int64)
        at[row_of, column_of] = part.elements
        elements = at[np.ix_(self.rows, columns)]
        full = (elements >= 0).all(axis=1)
        if not full.any():
            return row_of[:1], column_of[:1], part.elements[:1].reshape(1, 1)
        return self.rows[full], columns, elements[full]

    def products(self, probes: Probes) -> Array:
        """Results of probes with second factors: probes that share no leaf, one to an element of a grid.

        Row r holds the first factors of its probes, column c the second ones of its own; a product is not
        zero only where both have the leaf, which is in the probe at (r, c) alone.
        """
        assert self.grid is not None
        rows, columns, elements = self.grid
        terms, leaves, graph = self.reduction.terms, self.part.leaves, self.graph
        found = np.empty(len(probes))
        for batch in _disjoint(probes.leaves, elements.size):
            at = probes.leaves[batch]
            r, c = np.divmod(np.arange(len(batch)), len(columns))
            flat = np.zeros(sum(len(b.where) for b in graph.buffers.values()))
            flat[terms.other[columns[c][:, None], leaves[at]] - 1] = probes.second[batch]
            for name, buffer in graph.buffers.items():
                begin = self.reduction.starts[name] - 1
                buffer.put(flat[begin : begin + len(buffer.where)])
            graph.forward()
            upstream = graph.upstream
            upstream.fill(0.0)
            places = upstream.where[terms.upstream[rows[r][:, None], leaves[at]] - 1]
            upstream.bits[places] = upstream.encode(probes.first[batch].ravel()).reshape(
                places.shape
            )
            found[batch] = self._results(elements[r, c])
        return found


def _disjoint(leaves: Ids, most: int) -> Iterator[Ids]:
    """Batches of rows of which no two share a number, greedily."""
    waiting = list(enumerate(leaves.tolist()))
    while waiting:
        used: set[int] = set()
        batch: list[int] = []
        later = []
        for k, ids in waiting:
            if len(batch) < most and used.isdisjoint(ids):
                batch.append(k)
                used.update(ids)
            else:
                later.append((k, ids))
        waiting = later
        yield np.array(batch)


def independent(numbers: Ids, chosen: Ids) -> Ids:
    """Rows among the chosen ones of which no two have a number in common, greedily."""
    used = np.zeros(int(numbers.max()) + 1, bool)
    found: list[int] = []
    for row in np.unique(chosen).tolist():
        ids = numbers[row][numbers[row] > 0]
        if not found or not used[ids].any():
            used[ids] = True
            found.append(row)
    return np.array(found)
