"""Reductions that are called directly: sum, mean, dot, mv, cumsum; torch's, NumPy's or one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from roundoff.errors import ArgumentError
from roundoff.numbers.formats import Format, as_format
from roundoff.probing.buffers import Buffer, encoder
from roundoff.probing.flags import Probes
from roundoff.probing.probe_values import Masks, masks, whole
from roundoff.probing.recovery import CountQuestion, Ids, NotATree
from roundoff.words import counted

Array = npt.NDArray[np.float64]


class _NumPyVector:
    """A NumPy vector with the methods of `Buffer`."""

    def __init__(self, n: int, format: Format) -> None:
        self.tensor = np.zeros(n, format.numpy_dtype)
        self.bits, self.encode = self.tensor, encoder(format.numpy_dtype)

    def put(self, values: Array) -> None:
        self.bits[:] = values


class Direct:
    """A callable of one vector of n terms, or of two whose products it adds.

    members: per output, the terms that it adds, which are those of which a unit changes it.
    """

    def __init__(self, function: Callable[..., Any], n: int, dtype: Any) -> None:
        self.function, self.n, self.format = function, n, as_format(dtype)
        self.masks: Masks = masks(self.format)
        self.numpy = not isinstance(dtype, str | Format | torch.dtype)
        self.vectors: list[Any] = [self._vector()]
        self.calls = 0
        self._blank = False  # whether the first vector is zeros, and the second ones
        self._known: dict[Any, Array] = {}
        self.vectors[0].put(np.ones(n))
        try:
            result = function(self.vectors[0].tensor)
        except TypeError:
            self.vectors.append(self._vector())
            self.vectors[1].put(np.ones(n))
            try:
                result = function(*(vector.tensor for vector in self.vectors))
            except TypeError as error:
                raise ArgumentError(
                    f"the callable takes neither one vector of {counted(n, 'term')} nor two: {error}"
                ) from error
        if not isinstance(result, float | np.ndarray | np.generic | torch.Tensor):
            raise ArgumentError(
                f"the callable returned a {type(result).__name__}; return a number, an array or a tensor"
            )
        self.shape = tuple(getattr(result, "shape", ()))
        self.outputs = int(np.prod(self.shape, dtype=int))
        self.products = len(self.vectors) == 2
        self.divisor = self._divisor()
        self.members = self._members()

    def _vector(self) -> Any:
        if self.numpy:
            return _NumPyVector(self.n, self.format)
        return Buffer(torch.empty(self.n, dtype=self.format.torch_dtype), self.format)

    def run(self) -> Array:
        """All outputs for the vectors as they are, flat."""
        self.calls += 1
        result = self.function(*[vector.tensor for vector in self.vectors])
        if self.outputs == 1:
            return np.array([float(result)])
        if isinstance(result, torch.Tensor):
            result = result.double().numpy(force=True)
        return np.asarray(result, np.float64).reshape(-1)

    def evaluate(self, x: Array, y: Array | None = None) -> Array:
        """All outputs for given vectors; without y, the second is ones."""
        for vector, values in zip(
            self.vectors, (x, np.ones(self.n) if y is None else y), strict=False
        ):
            vector.put(values)
        return self.run()

    def _divisor(self) -> int | None:
        """What a lone 1 is divided by: None for a sum, the number of terms for a mean."""
        at = np.zeros(self.n)
        at[0] = 1.0
        lone = self.evaluate(at)
        lone = lone[lone != 0]
        if not len(lone) or (lone == 1.0).all():
            return None
        # 1 / n is rounded, so that its reciprocal may be another whole number: n itself comes first.
        near = abs(lone[0] * self.n - 1.0) <= 4 * self.format.u
        divisor = self.n if near else round(1.0 / lone[0]) if lone[0] > 0 else 0
        if divisor < 2 or (np.abs(lone * divisor - 1.0) > 4 * self.format.u).any():
            raise NotATree(
                f"a lone term 1 gives {lone[0]:.6g}, neither 1 nor 1 over a number of terms"
            )
        return divisor

    def _members(self) -> list[Ids]:
        everything = np.arange(self.n)
        if self.outputs == 1:
            return [everything]
        found = np.zeros((self.n, self.outputs), bool)
        at = np.zeros(self.n)
        for k in range(self.n):
            at[k] = 1.0
            found[k] = self.evaluate(at) != 0
            at[k] = 0.0
        return [np.flatnonzero(column) for column in found.T]

    @property
    def _shift(self) -> int:
        """A mean divides and rounds once more: by how many powers of two its units are larger, and fewer."""
        return 0 if self.divisor is None else 3 + self.divisor.bit_length()

    @property
    def unit(self) -> float:
        """The number that is counted."""
        return self.masks.unit * 2.0**self._shift

    @property
    def most(self) -> int:
        """How many units can be counted.  Raises: NotATree where there are too few."""
        swamped = self.masks.large * self.masks.wide.u / self.unit - 1
        countable = 2 ** (self.format.precision - 3 * bool(self._shift))
        found = int(min(self.masks.most, swamped, countable))
        if found < 2:
            raise NotATree(
                f"a mean of {counted(self.n, 'term')} in {self.format} leaves no room to count them"
            )
        return found

    def ask(self, questions: Sequence[CountQuestion], output: int) -> list[Ids]:
        """The counts of one output."""
        scale = (self.divisor or 1) / self.unit
        return [whole(scale * self._surviving(question, output)) for question in questions]

    def _surviving(self, question: CountQuestion, output: int) -> Array:
        if self.outputs == 1:
            return np.array(
                [row[0] for row in self._rows(question.pivot, question.others, question.units)]
            )
        # Other outputs will ask the same of their own terms: what is no term of theirs adds nothing.
        units = question.units
        if len(units) >= len(self.members[output]) - 1:
            units = np.arange(self.n)[: self.most]
        key = (question.pivot, units.tobytes())
        new = [other for other in question.others.tolist() if (*key, other) not in self._known]
        for other, row in zip(
            new, self._rows(question.pivot, np.array(new, int), units), strict=True
        ):
            self._known[(*key, other)] = row
        return np.array([self._known[(*key, other)][output] for other in question.others.tolist()])

    def _rows(self, pivot: int, others: Ids, units: Ids) -> Iterator[Array]:
        """All outputs with -M at each of the others in turn."""
        first = self.vectors[0]
        if not self._blank:
            self.evaluate(np.zeros(self.n))  # sets the vectors; what it returns is no answer
        unit, large, minus, none = (
            first.encode(v)[0] for v in (self.unit, self.masks.large, -self.masks.large, 0.0)
        )
        first.bits[units] = unit
        first.bits[pivot] = large
        back = first.bits[others]
        for other, restored in zip(others.tolist(), back, strict=True):
            first.bits[other] = minus
            yield self.run()
            first.bits[other] = restored
        first.bits[units] = none
        first.bits[pivot] = none
        self._blank = True

    def probe(self, probes: Probes, output: int) -> Array:
        """One output for each of the probes."""
        found = np.empty(len(probes))
        for k, leaves in enumerate(probes.leaves):
            x, y = np.zeros(self.n), np.zeros(self.n)
            x[leaves], y[leaves] = probes.first[k], probes.second[k]
            found[k] = self.evaluate(x, y)[output]
        return found * (self.divisor or 1)
