"""Reference gradients: the numbers that every computed gradient is judged against.

A reference is the engine's own number.  hi + lo, two float64 tensors, is its rounding to twice float64,
and radius bounds |hi + lo - true| per element, that rounding included.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import choice
from roundoff.errors import PrecisionError
from roundoff.gradients.inputs import round_inputs
from roundoff.gradients.problem import Problem
from roundoff.gradients.reference import engines
from roundoff.gradients.reference.result import GradientReference, Reference
from roundoff.gradients.reference.rounding import split
from roundoff.gradients.reference.size import is_large, rigorous_engine, work
from roundoff.locks import NUMBERS
from roundoff.numbers.formats import as_format
from roundoff.trace.prune import prune
from roundoff.trace.steps import Move, Trace

__all__ = [
    "ENGINES",
    "GradientReference",
    "Reference",
    "is_large",
    "reference_gradients",
    "reference_of_trace",
    "rigorous_engine",
    "spot_check",
    "work",
]

Array = npt.NDArray[np.float64]

ENGINES = (*engines.MAKERS, "auto")


def reference_gradients(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    loss: Callable[..., Any] | None = None,
    upstream: Any = None,
    *,
    format: Any = "float32",
    engine: str = "auto",
    output: Any = None,
) -> Reference:
    """The gradients of loss(function(**inputs)) in arbitrary precision.

    The inputs are rounded to the format first, and the function is traced in its type;
    tensors that it brings along are taken as they are, and casts inside it as exact.

    engine: "mpmath" is the reference
    of record; "ball" and the much faster "multiword" have a proven radius; "auto" takes mpmath for
    small work, multiword for large, and balls for what that cannot certify.  output: which of several
    outputs, an index or a key.

    Elements without an exact value, or with none that can be decided, are NaN; `unknown` says why.
    Raises: ArgumentError for arguments that do not fit; UnsupportedError for what cannot be traced;
    the first of those reasons where no element is known; PrecisionError when LIMIT_BITS do not suffice.
    """
    problem = Problem(function, inputs, wrt, loss, upstream, output)
    found = reference_of_trace(
        problem.trace(format), problem.rounded(format), format=format, engine=engine
    )
    lost = [error for gradient in found.values() for error in gradient.unknown.values()]
    if lost and not any(gradient.known.any() for gradient in found.values()):
        raise lost[0]
    return found


@NUMBERS
def reference_of_trace(
    trace: Trace,
    inputs: Mapping[str, Array],
    *,
    format: Any = "float32",
    engine: str = "auto",
) -> Reference:
    """The outputs of a pruned trace, for inputs that are rounded to the format here."""
    target = as_format(format)
    choice("engine", engine, ENGINES)
    rounded = round_inputs(trace, inputs, target)
    scales = engines.Scales(trace, rounded)
    make = engines.automatic if engine == "auto" else engines.MAKERS[engine]
    found = make(trace, rounded, target, scales)
    if not all(engines.precise(gradient, target) for gradient in found.gradients.values()):
        raise engines.not_precise(found.gradients, target)
    gradients = {n: replace(g, owed=scales.owed_by(n)) for n, g in found.gradients.items()}
    return replace(found, gradients=gradients)


@NUMBERS
def spot_check(
    trace: Trace,
    inputs: Mapping[str, Array],
    reference: Reference,
    name: str,
    elements: Sequence[int],
) -> str:
    """Recompute elements of one output at twice the bits, by mpmath or, where that is slow, by balls.

    They must lie within the reference's radius.  elements: by number, in C order.  Returns the engine.
    Raises: PrecisionError where one does not: one of the two engines is wrong then.
    """
    places = np.asarray(elements, np.int64) + 1
    sample = Move(places.shape, (trace.outputs[name],), places)
    steps = (*trace.steps, sample)
    chosen = prune(replace(trace, steps=steps, outputs={name: len(steps) - 1}))
    rounded = round_inputs(trace, inputs, reference.format)
    engine = "ball" if is_large(chosen) else "mpmath"
    numbers = engines.at_bits(engine, chosen, 2 * max(reference.bits, 64), rounded)[name]
    found = reference[name]
    for element, (number, radius) in zip(elements, numbers, strict=True):
        high, low, rest = split(number)
        gap = abs((high - found.high.flat[element]) + (low - found.low.flat[element]))
        allowed = (found.error.flat[element] + radius + rest) * (1 + 2.0**-50)
        if not gap <= allowed + 2.0**-100 * abs(high):
            raise PrecisionError(
                f"{engine} and {reference.engine} disagree on element {element} of {name!r} by {gap:g}; "
                "this is an error of roundoff, please report it"
            )
    return engine
