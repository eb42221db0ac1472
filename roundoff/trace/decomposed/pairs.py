"""Complex tensors as pairs of real ones: what operations of pairs are made of, and their table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch.utils._pytree import tree_leaves, tree_map

from roundoff.trace.decomposed.registry import Decomposition

Made = TypeVar("Made", bound=Decomposition)


@dataclass(frozen=True)
class Pair:
    """The real and the imaginary part of a complex tensor: tensors of its shape, or numbers."""

    re: Any
    im: Any

    def map(self, function: Callable[[Any], Any]) -> Pair:
        """The same function of both parts."""
        return Pair(function(self.re), function(self.im))


#: Functions of an ATen call's arguments, complex ones as pairs; results that are complex are pairs.
OF_PAIRS: dict[str, Decomposition] = {}


def of_pairs(*names: str) -> Callable[[Made], Made]:
    """Register a function of OF_PAIRS by the ATen names, or by those of overloads ("pow.Tensor_Scalar")."""

    def register(function: Made) -> Made:
        OF_PAIRS.update(dict.fromkeys(names, function))
        return function

    return register


def is_complex(leaf: Any) -> bool:
    """Whether an argument or a result is a complex tensor, number or type."""
    if isinstance(leaf, torch.Tensor):
        return leaf.is_complex()
    return isinstance(leaf, complex) or (isinstance(leaf, torch.dtype) and leaf.is_complex)


def real_type(dtype: torch.dtype) -> torch.dtype:
    """Of the parts of complex numbers; any other type as it is."""
    return dtype.to_real() if dtype.is_complex else dtype


def as_pair(x: Any) -> Pair:
    """A real tensor or number with the imaginary part 0, a number."""
    if isinstance(x, complex):
        return Pair(x.real, x.imag)
    return x if isinstance(x, Pair) else Pair(x, 0)


def nothing(x: Any) -> bool:
    """Whether this is the number 0."""
    return not isinstance(x, torch.Tensor) and x == 0


def plus(x: Any, y: Any) -> Any:
    """A sum, without a step where one number is 0."""
    if nothing(x) or nothing(y):
        return x if nothing(y) else y
    return x + y


def times(x: Any, y: Any) -> Any:
    """A product, without a step where one number is 0."""
    return 0 if nothing(x) or nothing(y) else x * y


def minus(x: Any) -> Any:
    """The negative."""
    return 0 if nothing(x) else -x


def product(x: Any, y: Any) -> Pair:
    """Four products, and a sum and a difference of them."""
    x, y = as_pair(x), as_pair(y)
    return Pair(
        plus(times(x.re, y.re), minus(times(x.im, y.im))),
        plus(times(x.re, y.im), times(x.im, y.re)),
    )


def whole(part: Any, like: torch.Tensor) -> torch.Tensor:
    """A part as a tensor of a shape and a type: numbers are filled in, all others are broadcast."""
    if not isinstance(part, torch.Tensor):
        return torch.full(like.shape, float(part), dtype=real_type(like.dtype))
    if part.dtype != real_type(like.dtype):
        part = part.to(real_type(like.dtype))
    return part if part.shape == like.shape else part.expand(like.shape)  # type: ignore[no-any-return]


def separately(func: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """A call that is linear: of the real parts, and of the imaginary ones.

    out: its complex results; real numbers among the operands have the imaginary part 0.
    """
    dtype = next(leaf.dtype for leaf in tree_leaves(out) if is_complex(leaf)).to_real()
    scalars = [each.name for each in func._schema.arguments if "Scalar" in str(each.real_type)]
    numbers = [each.name in scalars for each in func._schema.arguments]

    def part(which: int) -> Any:
        def of(leaf: Any) -> Any:
            if isinstance(leaf, Pair):
                found = (leaf.re, leaf.im)[which]
                return found if found.dtype == dtype else found.to(dtype)
            if isinstance(leaf, torch.dtype):
                return real_type(leaf)
            if isinstance(leaf, complex):
                return (leaf.real, leaf.imag)[which]
            if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
                return torch.zeros_like(leaf, dtype=dtype) if which else leaf.to(dtype)
            return leaf

        def argument(value: Any, is_number: bool) -> Any:
            number = is_number and isinstance(value, int | float)
            return 0 if which and number else tree_map(of, value, is_leaf=_is_pair)

        given = [
            argument(value, number)
            for value, number in zip(args, numbers[: len(args)], strict=True)
        ]
        named = {name: argument(value, name in scalars) for name, value in kwargs.items()}
        return func(*given, **named)

    re, im = part(0), part(1)
    if isinstance(re, torch.Tensor):
        return Pair(re, im)
    return type(out)(Pair(*both) for both in zip(re, im, strict=True))


def _is_pair(tree: Any) -> bool:
    return isinstance(tree, Pair)
