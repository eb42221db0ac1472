"""PyTorch functions and their gradients as lists of move, map, reduce and contract."""

from roundoff.trace.by_format import Traces
from roundoff.trace.capture import trace_gradients
from roundoff.trace.checks import UPSTREAM
from roundoff.trace.functions import FUNCTIONS
from roundoff.trace.lowering import LOWERINGS
from roundoff.trace.prune import needed, prune, reads, structural_zeros
from roundoff.trace.steps import (
    Builder,
    Constant,
    Contract,
    Input,
    Map,
    Move,
    Reduce,
    Step,
    Trace,
)

__all__ = [
    "FUNCTIONS",
    "LOWERINGS",
    "UPSTREAM",
    "Builder",
    "Constant",
    "Contract",
    "Input",
    "Map",
    "Move",
    "Reduce",
    "Step",
    "Trace",
    "Traces",
    "needed",
    "prune",
    "reads",
    "structural_zeros",
    "trace_gradients",
]
