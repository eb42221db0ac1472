"""ATen operations to steps, by kind.  Add an operation in one of these files: one registered function."""

from roundoff.trace.lowering import (
    accumulation,
    activations,
    contractions,
    elementwise,
    factories,
    losses,
    norms,
    pooling,
    reductions,
)
from roundoff.trace.lowering.registry import LOWERINGS, MOVES, Value, literal, lower

__all__ = [
    "LOWERINGS",
    "MOVES",
    "Value",
    "accumulation",
    "activations",
    "contractions",
    "elementwise",
    "factories",
    "literal",
    "losses",
    "lower",
    "norms",
    "pooling",
    "reductions",
]
