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
from roundoff.trace.lowering.decisions import take
from roundoff.trace.lowering.dispatch import lower
from roundoff.trace.lowering.dtypes import computed_in, format_name, narrows
from roundoff.trace.lowering.movement import MOVES
from roundoff.trace.lowering.registry import LOWERINGS
from roundoff.trace.lowering.values import Value, literal

__all__ = [
    "LOWERINGS",
    "MOVES",
    "Value",
    "accumulation",
    "activations",
    "computed_in",
    "contractions",
    "elementwise",
    "factories",
    "format_name",
    "literal",
    "losses",
    "lower",
    "narrows",
    "norms",
    "pooling",
    "reductions",
    "take",
]
