"""Which products each element of a gradient adds: a walk over its trace in which numbers are names.

The trace is walked on element numbers instead of values.  A contraction or a sum is then the list of its
terms, each a product of one element of the upstream gradient and at most one of an input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import move_elements, walk
from roundoff.errors import UnsupportedError
from roundoff.trace.checks import UPSTREAM
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce, Shape, Trace

Array = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]

#: Names of what is no element of an input: a structural zero, a one, anything that is computed.
ZERO, ONE, COMPUTED = 0, -1, -2


@dataclass(frozen=True, eq=False)
class Names:
    """Elements by name; second: the other factor of a product, or None."""

    first: Ids
    second: Ids | None = None


@dataclass(frozen=True, eq=False)
class SumsOfProducts:
    """Elements that are sums of products: number k from 1 is row (k - 1) // columns of a matrix product.

    Shapes: first (B, M, K), second (B, K, N); at any shape, numbers of B M N elements, 0 being zero.
    """

    first: Ids
    second: Ids
    at: Ids


@dataclass(frozen=True, eq=False)
class Refused:
    """What cannot be named, and why; an error only where an answer needs it."""

    error: UnsupportedError


Value = Names | SumsOfProducts | Refused


class Naming:
    """The arithmetic of names."""

    def load(self, values: Array) -> Value:
        return Names(np.asarray(values).astype(np.int64))

    def constant(self, step: Constant) -> Value:
        name = {0: ZERO, 1: ONE}.get(step.value, COMPUTED)  # type: ignore[call-overload]
        return Names(np.full(step.shape, name, np.int64))

    def move(self, step: Move, operands: Sequence[Any]) -> Value:
        refused = _refused(operands)
        if refused:
            return refused
        summed = [value for value in operands if isinstance(value, SumsOfProducts)]
        if not summed:
            names = [value for value in operands if isinstance(value, Names)]
            second = None
            if any(value.second is not None for value in names):
                second = move_elements(step, [_second(value) for value in names], 0)
            return Names(move_elements(step, [value.first for value in names], 0), second)
        others = [value for value in operands if isinstance(value, Names)]
        if len(summed) > 1 or any((value.first != ZERO).any() for value in others):
            return _several()
        numbers = [
            v.at if isinstance(v, SumsOfProducts) else np.zeros_like(v.first) for v in operands
        ]
        return SumsOfProducts(summed[0].first, summed[0].second, move_elements(step, numbers, 0))

    def map(self, step: Map, operands: Sequence[Any]) -> Value:
        one: Value = operands[0]
        refused = _refused(operands)
        if refused:
            return refused
        if step.function == "cast":
            return one
        if step.function == "add":  # an accumulation into zeros
            terms = [
                v for v in operands if isinstance(v, SumsOfProducts) or (v.first != ZERO).any()
            ]
            if len(terms) == 1:
                return terms[0]  # type: ignore[no-any-return]
        if any(isinstance(value, SumsOfProducts) for value in operands):
            return _several()
        if step.function == "mul" and all(
            isinstance(v, Names) and v.second is None for v in operands
        ):
            first, second = (np.asarray(value.first) for value in operands)
            zero = (first == ZERO) | (second == ZERO)
            return Names(np.where(zero, ZERO, first), np.where(zero, ZERO, second))
        return Names(np.full(step.shape, COMPUTED, np.int64))

    def reduce(self, step: Reduce, operand: Value) -> Value:
        if isinstance(operand, Refused):
            return operand
        if isinstance(operand, SumsOfProducts):
            return _several()
        leaves = operand.first.shape[-1]
        first = operand.first.reshape(-1, 1, leaves)
        second = _second(operand).reshape(-1, leaves, 1)
        return SumsOfProducts(first, second, _numbered(step.shape))

    def contract(self, step: Contract, first: Any, second: Any) -> Value:
        refused = _refused((first, second))
        if refused:
            return refused
        if isinstance(first, SumsOfProducts) or isinstance(second, SumsOfProducts):
            return _several()
        if first.second is not None or second.second is not None:
            return _computed()
        return SumsOfProducts(first.first, second.first, _numbered(step.shape))


def _refused(operands: Sequence[Any]) -> Refused | None:
    return next((value for value in operands if isinstance(value, Refused)), None)


def _second(value: Names) -> Ids:
    if value.second is not None:
        return value.second
    return np.where(value.first == ZERO, ZERO, ONE)


def _numbered(shape: Shape) -> Ids:
    return np.arange(1, prod(shape) + 1).reshape(shape)


def _several() -> Refused:
    return Refused(
        UnsupportedError(
            "this gradient is more than one reduction of its upstream gradient: a sum enters another "
            "operation; explain the parts of the function one by one"
        )
    )


def _computed() -> Refused:
    return Refused(
        UnsupportedError(
            "this gradient multiplies its upstream gradient by numbers that are no input (constants, or "
            "what the function computes); explain a function that takes them as an input"
        )
    )


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of every element of a gradient.

    upstream, other: element numbers from 1 of the upstream gradient and of all inputs laid end to end, 0
    where the term is a structural zero; other is -1 for a factor one.  Element e adds the terms
    (upstream[rows[e], k], other[columns[e], k]); a row of -1 is an element without terms.

    Shapes: upstream (rows, K), other (columns, K).
    """

    upstream: Ids
    other: Ids
    rows: Ids
    columns: Ids
    shape: Shape


def gradient_terms(
    trace: Trace, name: str, sizes: Mapping[str, int]
) -> tuple[Terms, dict[str, int]]:
    """The terms of one gradient, and where each input's numbers begin.

    sizes: elements per input, the upstream gradient apart, whose numbers are its own.

    Raises: UnsupportedError for a gradient that is not one sum of products of the upstream gradient and
    an input per element.
    """
    starts, total = {}, 1
    for key, size in sizes.items():
        starts[key], total = total, total + size
    chosen = trace.select([name])
    shapes = chosen.inputs
    # The upstream gradient's numbers come after all others, so that one test tells them apart.
    numbers: dict[str, Array] = {}
    for key, shape in shapes.items():
        begin = total if key == UPSTREAM else starts.get(key, 0)
        ids = np.arange(begin, begin + prod(shape), dtype=np.float64)
        numbers[key] = ids.reshape(shape) if begin else np.full(shape, float(COMPUTED))
    value: Any = walk(chosen, Naming(), numbers)[name]
    if isinstance(value, Refused):
        raise value.error
    if isinstance(value, Names):
        first = value.first.reshape(-1, 1, 1)
        second = _second(value).reshape(-1, 1, 1)
        value = SumsOfProducts(first, second, _numbered(value.first.shape))
    a, b = value.first, np.swapaxes(value.second, 1, 2)
    swapped = not (a >= total).any() or bool(((a < total) & (a != ZERO)).any())
    if swapped:
        a, b = b, a
    if ((a < total) & (a != ZERO)).any() or (b >= total).any() or (b == COMPUTED).any():
        raise _computed().error
    _, m, leaves = value.first.shape
    n = value.second.shape[2]
    at = value.at.ravel() - 1
    b_at, m_at, n_at = at // (m * n), (at // n) % m, at % n
    rows = b_at * n + n_at if swapped else b_at * m + m_at
    columns = b_at * m + m_at if swapped else b_at * n + n_at
    upstream = np.where(a >= total, a - total + 1, 0).reshape(-1, leaves)
    missing = at < 0
    return Terms(
        upstream, b.reshape(-1, leaves), np.where(missing, -1, rows), np.where(missing, -1, columns),
        value.at.shape,
    ), starts  # fmt: skip
