"""Modules as functions of their parameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from roundoff.errors import ArgumentError


def functional(
    module: torch.nn.Module,
) -> tuple[Callable[..., Any], dict[str, torch.Tensor]]:
    """A module's function of its parameters and inputs, and its parameters by name.

    The function takes all of them by name: parameters as in `module.named_parameters()`, inputs as the
    arguments of `forward` are called.  Buffers take the parameters' type; running statistics that a call
    updates are copies, so every call sees the same ones and the module itself does not change.  A module that
    `torch.compile` or `torch.jit.script` has made has the names of its original.

    Raises: ArgumentError for what is no module, for a lazy one that was never called, and where a
    parameter and an input share a name.

    >>> linear = torch.nn.Linear(2, 1)
    >>> function, parameters = functional(linear)
    >>> sorted(parameters)
    ['bias', 'weight']
    """
    if not isinstance(module, torch.nn.Module):
        raise ArgumentError(f"functional: got a {type(module).__name__}; give a torch.nn.Module")
    held = (*module.named_parameters(), *module.named_buffers())
    lazy = [name for name, value in held if torch.nn.parameter.is_lazy(value)]
    if lazy:
        raise ArgumentError(
            f"functional: {lazy[0]!r} has no shape yet, as a lazy module gets it from its first input; call "
            "the module once before"
        )
    own = {_plain(name): name for name, _ in held}
    parameters = {_plain(name): value.detach() for name, value in module.named_parameters()}
    buffers = {_plain(name): value.detach() for name, value in module.named_buffers()}

    def function(**values: Any) -> Any:
        missing = [name for name in parameters if name not in values]
        if missing:
            raise ArgumentError(
                f"the module's parameter {missing[0]!r} is not among the inputs; pass the parameters that "
                "functional returned"
            )
        held = {name: values.pop(name) for name in parameters}
        floating = [v for v in (*held.values(), *values.values()) if _floats(v)]
        copies = {
            name: value.to(floating[0]) if _floats(value) and floating else value.clone()
            for name, value in buffers.items()
        }
        copies = {name: value.clone() for name, value in copies.items()}
        tensors = {own[name]: value for name, value in {**copies, **held}.items()}
        if isinstance(module, torch.jit.ScriptModule):
            return _call_scripted(module, tensors, values)
        return torch.func.functional_call(module, tensors, (), values)

    function.__name__ = type(module).__name__
    return function, parameters


def _plain(name: str) -> str:
    """A parameter's name in the module that was compiled."""
    return name.replace("_orig_mod.", "")


def _call_scripted(
    module: Any, tensors: Mapping[str, torch.Tensor], values: Mapping[str, Any]
) -> Any:
    """Call a scripted module with other tensors, and put its own back."""
    homes = {"": module, **dict(module.named_modules())}
    before = {}
    try:
        for name, value in tensors.items():
            home, _, attribute = name.rpartition(".")
            before[name] = getattr(homes[home], attribute)
            homes[home]._c.setattr(attribute, value)
        return module(**values)
    finally:
        for name, value in before.items():
            home, _, attribute = name.rpartition(".")
            homes[home]._c.setattr(attribute, value)


def _floats(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()
