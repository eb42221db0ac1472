"""The two sides of a comparison as functions of the same inputs by name, or as given tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from roundoff.errors import ArgumentError
from roundoff.trace.checks import OUTPUT
from roundoff.words import called, told_apart


@dataclass(frozen=True, eq=False)
class Side:
    """One side: a function or, where that is None, the tensors given in its place."""

    name: str
    function: Callable[..., Any] | None
    given: Mapping[str, Any] = field(default_factory=dict)


def two_sides(
    first: Any, second: Any, inputs: dict[str, Any], rename: Mapping[str, str] | None
) -> tuple[tuple[Side, Side], dict[str, Any]]:
    """Both sides, and the inputs with the first module's parameters.

    Raises: ArgumentError for what is no side, and for parameters that do not match.
    """
    import torch

    from roundoff.gradients.modules import functional

    names = {str(new): old for old, new in (rename or {}).items()}
    sides: list[Side] = []
    parameters: dict[str, Any] = {}
    for number, each in enumerate((first, second)):
        if isinstance(each, torch.nn.Module):
            function, own = functional(each)
            if number and isinstance(first, torch.nn.Module):
                function = _renamed(function, own, parameters, names)
            else:
                parameters = own
            sides.append(Side(type(each).__name__, function))
        elif isinstance(each, torch.Tensor):
            sides.append(Side("tensors", None, {OUTPUT: each}))
        elif isinstance(each, Mapping):
            sides.append(Side("tensors", None, each))
        elif callable(each):
            sides.append(Side(called(each, "function"), each))
        else:
            raise ArgumentError(
                f"compare got a {type(each).__name__}; give functions, modules, or tensors by name"
            )
    one, two = sides
    names_apart = told_apart(one.name, two.name)
    one, two = (replace(side, name=name) for side, name in zip(sides, names_apart, strict=True))
    return (one, two), {**parameters, **inputs}  # the caller's own values win


def _renamed(
    function: Callable[..., Any], own: Mapping[str, Any], first: Mapping[str, Any],
    names: Mapping[str, str],
) -> Callable[..., Any]:  # fmt: skip
    """The second module's function by the first one's parameter names."""
    source = {name: names.get(name, name) for name in own}
    for name, other in source.items():
        if other not in first or first[other].shape != own[name].shape:
            what = (
                "no such parameter" if other not in first else f"shape {tuple(first[other].shape)}"
            )
            raise ArgumentError(
                f"the second module's parameter {name!r} of shape {tuple(own[name].shape)} has no partner: "
                f"the first has {what} {other!r}; give rename={{first name: second name}}"
            )
    unused = sorted(set(first) - set(source.values()))
    if unused:
        raise ArgumentError(
            f"the first module's parameter {unused[0]!r} has no partner in the second; give "
            "rename={first name: second name}"
        )

    def renamed(**values: Any) -> Any:
        held = {name: values[other] for name, other in source.items()}
        rest = {name: value for name, value in values.items() if name not in first}
        return function(**held, **rest)

    return renamed
