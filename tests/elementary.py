"""What tests over all elementwise functions share: their names, and mpmath's and torch's own versions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import mpmath
import torch

from roundoff.trace.functions import Kind
from roundoff.trace.functions.table import RECORDS

#: Elementary functions of one operand; those of `special` have tests of their own.
ELEMENTARY = [f.name for f in RECORDS if f.kind is Kind.ELEMENTARY and f.arity == 1]


def by_mpmath(name: str, context: Any = mpmath) -> Callable[..., Any]:
    """The function of that name, or what stands for it; context: of mpmath's numbers."""
    others = {
        "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
        "pow": operator.pow, "log2": lambda x: context.log(x, 2), "gelu_erf": context.erf,
        "sigmoid": lambda x: 1 / (1 + context.exp(-x)),
    }  # fmt: skip
    return others.get(name) or getattr(context, name)


def by_torch(name: str) -> Callable[..., Any]:
    """torch's own; ATen calls some of torch.special's special_NAME."""
    return getattr(torch, name, None) or getattr(torch.special, name.removeprefix("special_"))
