"""An ATen call as it can be made again on other numbers: the operation, shapes, strides, other arguments.

This file knows nothing of PyTorch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Operand:
    """A floating-point tensor: shape and strides; format: None for the declared one."""

    shape: Shape
    strides: tuple[int, ...]
    format: str | None = None

    def __str__(self) -> str:
        size = "x".join(map(str, self.shape)) or "scalar"
        if self.strides == contiguous(self.shape):
            return size
        return f"{size} ({','.join(map(str, self.strides))})"


@dataclass(frozen=True)
class Declared:
    """The declared type, given as an argument (dtype=x.dtype): it is another one in every format."""


@dataclass(frozen=True)
class Given:
    """A tensor of integers or booleans, with its numbers: indices decide what is added to what."""

    shape: Shape
    type: str
    numbers: bytes = field(repr=False)


@dataclass(frozen=True)
class Call:
    """An operation by ATen's full name, as "aten.mm.default", and what it was given.

    arguments, keywords: nested tuples, tensors as Operand or Given.
    results: those of the call's results that a step is part of; number: which call of its trace it is,
    no part of what makes two calls equal.
    """

    operation: str
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...] = ()
    results: tuple[int, ...] = (0,)
    number: int = field(default=0, compare=False)

    @property
    def name(self) -> str:
        """Without the overload: "mm"."""
        return self.operation.split(".")[1]

    @property
    def operands(self) -> list[Operand]:
        """The floating-point tensors, in order."""
        return list(_operands((self.arguments, tuple(value for _, value in self.keywords))))


def contiguous(shape: Shape) -> tuple[int, ...]:
    """Strides of a tensor in C order."""
    strides, step = list[int](), 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def _operands(tree: Any) -> Iterator[Operand]:
    if isinstance(tree, Operand):
        yield tree
    elif isinstance(tree, tuple):
        for each in tree:
            yield from _operands(each)
