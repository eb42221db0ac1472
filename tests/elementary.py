"""What tests over all elementwise functions share: their names, and mpmath's own versions."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import mpmath

from roundoff.trace.functions import FUNCTIONS, Kind

#: Elementary functions of one operand.
ELEMENTARY = [n for n, f in FUNCTIONS.items() if f.kind is Kind.ELEMENTARY and f.arity == 1]


def by_mpmath(name: str) -> Callable[..., Any]:
    """The function of that name, or what stands for it."""
    others = {
        "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
        "pow": operator.pow, "log2": lambda x: mpmath.log(x, 2), "gelu_erf": mpmath.erf,
        "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)),
    }  # fmt: skip
    return others.get(name) or getattr(mpmath, name)
