"""Checks of what every question about a gradient is given: a function, its inputs, wrt, a loss."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from roundoff.arguments import described, instance
from roundoff.errors import ArgumentError

#: Names of what is no input of the function's own.
UPSTREAM = "upstream gradient"
OUTPUT = "output"


def check_problem(function: Any, inputs: Any, wrt: Any = None, loss: Any = None) -> None:
    """Raise ArgumentError unless each is of its kind; what they hold is checked where it is used."""
    instance("the function", function, Callable, "a function of the inputs by name")
    check_inputs(inputs, wrt, loss)


def check_inputs(inputs: Any, wrt: Any = None, loss: Any = None) -> None:
    """The same without the function.  Raises: ArgumentError."""
    instance("inputs", inputs, Mapping, "a mapping from names to tensors")
    for name in inputs:
        instance(
            "a name among the inputs", name, str, "a word, the name of the function's argument"
        )
    if UPSTREAM in inputs:
        raise ArgumentError(
            f"an input is called {UPSTREAM!r}, as the one that upstream= gives; rename it"
        )
    if not inputs:
        raise ArgumentError("inputs is empty; give the function's tensors by name")
    if wrt is not None and not isinstance(wrt, str):
        names = wrt if isinstance(wrt, Sequence | set | frozenset) else [wrt]
        if not all(isinstance(name, str) for name in names) or isinstance(wrt, bytes):
            raise ArgumentError(
                f"wrt is {described(wrt)}; give names of inputs, as ('weight', 'x')"
            )
    if loss is not None:
        instance("the loss", loss, Callable, "a function of the output")


def check_output_apart(names: Iterable[str]) -> None:
    """Raise ArgumentError where a gradient has the name under which the output stands beside it."""
    if OUTPUT in names:
        raise ArgumentError(f"an input is called {OUTPUT!r}, as the output is; rename it")


def check_device(device: Any) -> torch.device:
    """A device that holds numbers.  Raises: ArgumentError for anything else."""
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError, ValueError, OverflowError):
        found = None
    if found is None or found.type == "meta":
        raise ArgumentError(f"device is {described(device)}; give a device of PyTorch's, as 'cpu'")
    return found
