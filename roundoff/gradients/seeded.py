"""Functions that draw random numbers, the same at every call."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from roundoff.arguments import instance, whole

F = TypeVar("F", bound=Callable[..., Any])


def seeded(function: F, seed: int = 0) -> F:
    """The function, or module, with torch's generator seeded at every call, and put back behind it.

    What it draws (dropout, noise, samples) is then the same at every call, so that its gradients have a
    reference.  A module is copied; both have the same parameters.

    >>> import torch
    >>> draw = seeded(lambda: torch.rand(2), 3)
    >>> torch.equal(draw(), draw())
    True

    Raises: ArgumentError for what is no function, or no seed.
    """
    import torch

    instance("the function", function, Callable, "a function or a module")
    whole("seed", seed, 0, 2**63 - 1)
    called = function.forward if isinstance(function, torch.nn.Module) else function

    @functools.wraps(called)
    def run(*args: Any, **kwargs: Any) -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            return called(*args, **kwargs)

    if not isinstance(function, torch.nn.Module):
        return run  # type: ignore[return-value]
    twin = copy.copy(function)
    twin.__dict__["forward"] = run
    return twin
