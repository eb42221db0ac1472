"""All arguments of an ATen call, as its schema has them: defaults are the schema's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from roundoff.errors import UnsupportedError

#: Where and how a result is stored.  Of its type the result itself tells.
STORAGE = frozenset(
    """dtype layout device pin_memory memory_format non_blocking implicit half_to_float input_dtype
    sparse_grad sparse""".split()
)


def arguments_of(
    target: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[list[Any], dict[str, Any]]:
    """The positional ones and those by name, with the schema's defaults and without STORAGE."""
    positional, named = [], {}
    for place, argument in enumerate(target._schema.arguments):
        otherwise = kwargs.get(argument.name, argument.default_value)
        value = args[place] if place < len(args) else otherwise
        if argument.name in STORAGE:
            continue
        if argument.kwarg_only:
            named[argument.name] = value
        else:
            positional.append(value)
    return positional, named


def check_form(
    target: Any, lowering: Callable[..., Any], positional: Sequence[Any], named: Mapping[str, Any]
) -> None:
    """Raises: UnsupportedError where the lowering does not take an argument of this overload."""
    try:
        inspect.signature(lowering).bind(None, *positional, **named)
    except TypeError:
        raise UnsupportedError(
            f"cannot trace this form of aten::{target.overloadpacket.__name__} ({target}); its arguments are "
            f"{', '.join(a.name for a in target._schema.arguments)}: use a simpler one"
        ) from None
