"""Random numbers that a function draws: the same at every call, they are constants of the trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from roundoff.errors import UnsupportedError

aten = torch.ops.aten

DRAWS = (
    "the function draws random numbers, others at every call; give roundoff.seeded(function), which draws "
    "the same ones, or draw them outside and pass them as an input"
)

#: What is drawn by these depends on shapes and Python numbers alone.
_OF_SHAPES = frozenset(
    """rand rand_like randn randn_like randint randint_like randperm bernoulli_ uniform_ normal_
    random_ exponential_ cauchy_ log_normal_ geometric_ native_dropout""".split()
)


class Draws(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Above a trace: draws are made, and what comes out is given to it as a tensor that was there before.

    states: of the generators, before each of them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.states: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        if torch.Tag.nondeterministic_seeded not in func.tags or not _draws(func, args):
            return func(*args, **kwargs)
        with _disable_current_modes():
            generator = kwargs.get("generator") or torch.default_generator
            self.states.append(generator.get_state().clone())
            if name == "native_dropout":
                _, mask = aten.native_dropout(torch.ones_like(args[0]), *args[1:])
            elif name.endswith("_"):
                drawn = func(torch.empty_like(args[0]), *args[1:], **kwargs)
            else:
                return func(*args, **kwargs)
        if name == "native_dropout":
            return _dropped(mask, *args)
        return args[0].copy_(drawn)


def _dropped(mask: torch.Tensor, x: torch.Tensor, p: float, train: bool | None) -> Any:
    if train is False:
        return x.clone(), mask
    return x * mask * (0.0 if p == 1 else 1 / (1 - p)), mask


def _draws(func: Any, args: Any) -> bool:
    """Whether an operation draws by shapes alone; `bernoulli` by a number does, by a tensor not."""
    name = func.overloadpacket.__name__
    if name == "bernoulli":
        return bool(func._overloadname == "p")
    tensors = [leaf for leaf in tree_leaves(args[1:]) if isinstance(leaf, torch.Tensor)]
    return name in _OF_SHAPES and not tensors


def check_the_same(run: Callable[[], Any], drawn: Draws) -> None:
    """Run a function again, from another state of torch's generator: its draws must begin at the same ones.

    Raises: UnsupportedError where it does not.
    """
    with torch.random.fork_rng(devices=[]), Draws() as again:
        torch.manual_seed(0x5EED)
        run()
    alike = len(again.states) == len(drawn.states)
    if not (alike and all(map(torch.equal, again.states, drawn.states))):
        raise UnsupportedError(DRAWS)
