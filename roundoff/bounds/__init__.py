"""Bounds on rounding errors of sums, dot products and matrix products, and the theorems behind them.

`sum`, `dot`, `matmul` and the gradients of single layers return a `Bound`; the theorems are plain functions
of n, u, trees and failure probabilities.

This room is the theorems alone.  The bounds are walks of a trace, from `roundoff.gradients`, which imports
this room: they are fetched when they are asked for.  `__init__.pyi` tells type checkers the same.
"""

from __future__ import annotations

import importlib
from typing import Any

from roundoff.bounds.bound import Bound, Statement
from roundoff.bounds.theorems import (
    depth_weighted,
    dot2,
    gamma,
    hallman_ipsen,
    higham_mary,
    higham_mary_lambda,
    jeannerod_rump,
    kahan,
    lange_rump,
    neumaier,
    stochastic_rounding,
    sum2,
)

__all__ = [
    "Bound",
    "Statement",
    "conv_gradients",
    "depth_weighted",
    "dot",
    "dot2",
    "gamma",
    "hallman_ipsen",
    "higham_mary",
    "higham_mary_lambda",
    "jeannerod_rump",
    "kahan",
    "lange_rump",
    "linear_gradients",
    "matmul",
    "matmul_gradients",
    "neumaier",
    "stochastic_rounding",
    "sum",
    "sum2",
]

_WALKS = {
    "sum": "sum_bounds", "dot": "sum_bounds", "matmul": "sum_bounds",
    "matmul_gradients": "layer_bounds", "linear_gradients": "layer_bounds", "conv_gradients": "layer_bounds",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _WALKS:
        return getattr(importlib.import_module(f"roundoff.gradients.{_WALKS[name]}"), name)
    raise AttributeError(f"module 'roundoff.bounds' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
