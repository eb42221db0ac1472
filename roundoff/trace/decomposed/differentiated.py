"""Gradients of decompositions, by autograd."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import enable_reentrant_dispatch


def gradients(
    function: Callable[..., torch.Tensor], operands: Sequence[torch.Tensor], upstream: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """The gradients of a function of operands, with the operations that autograd makes of it."""
    with enable_reentrant_dispatch(), torch.enable_grad():
        leaves = [operand.detach().requires_grad_() for operand in operands]
        found: Any = torch.autograd.grad(function(*leaves), leaves, upstream)
    return tuple(each.detach() for each in found)
