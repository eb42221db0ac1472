"""Two functions at a point in float64: may their exact values be apart there?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.kinks import Seen, sides
from roundoff.errors import RoundoffError
from roundoff.gradients.inputs import round_inputs
from roundoff.numbers.formats import FLOAT32
from roundoff.trace import Trace

Array = npt.NDArray[np.float64]
TwoTraces = tuple[Trace, Trace]

#: In float64, what is farther apart than this part of the terms of the last sum may be apart.
NEAR = 2.0**-40


@dataclass(frozen=True)
class Screened:
    """apart: by gradient, whether it may be; seen: on which sides of kinks some element was, of both."""

    apart: Mapping[str, bool]
    seen: tuple[Seen, Seen]


def screened(traces: TwoTraces, values: Mapping[str, Array]) -> Screened | None:
    """Of inputs rounded to float32; None where a gradient is not defined."""
    try:
        first, second = (sides(trace, round_inputs(trace, values, FLOAT32)) for trace in traces)
    except RoundoffError:
        return None
    apart = {}
    for name, one in first[0].items():
        two = second[0][name]
        if not (np.isfinite(one.value).all() and np.isfinite(two.value).all()):
            return None
        terms = np.maximum(np.minimum(one.terms, two.terms), np.abs(one.value))
        apart[name] = bool((np.abs(one.value - two.value) > NEAR * terms).any())
    return Screened(apart, (first[1], second[1]))
