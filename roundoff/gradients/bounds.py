"""Bounds on the error of a computed gradient, and the tolerances that follow from them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from decimal import ROUND_CEILING, Decimal
from functools import cache, partial
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic import walk
from roundoff.arithmetic.condition_scale import Scale
from roundoff.arithmetic.enclosed import Enclosed
from roundoff.arithmetic.expected import Expected
from roundoff.arithmetic.running import Running
from roundoff.arithmetic.sharing import RoundedInputs
from roundoff.bounds.bound import Bound, Statement
from roundoff.bounds.sum_laws import Law, certified, likely
from roundoff.bounds.theorems import check_failure
from roundoff.errors import ArgumentError
from roundoff.gradients.problem import Problem
from roundoff.kernels.facts import Described, Kernels
from roundoff.numbers.formats import as_format
from roundoff.orders import accumulator, as_order
from roundoff.trace.functions import FUNCTIONS
from roundoff.trace.steps import Map, Trace
from roundoff.words import counted

Array = npt.NDArray[np.float64]

_STEPS = (
    "a kernel that takes the steps of the trace, each rounded once at most, to the format or wider (where "
    "the code casts, to that of its own)"
)


def gradient_bounds(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    loss: Callable[..., Any] | None = None,
    upstream: Any = None,
    *,
    format: Any = "float32",
    accumulate: Any = None,
    order: Any = None,
) -> dict[str, Bound]:
    """Bounds on the error of every element of every gradient of loss(function(**inputs)).

    The inputs are rounded to the format first; the bounds are on the error that
    comes after.  Where the function casts, steps are bounded in the type that they are computed in.

    By default the bounds are for torch's kernels on this machine, with what one probe of each has
    shown (`roundoff.contracts`): whether 16-bit sums are kept in float32, whether subnormals are flushed.
    With accumulate or order they are for the kernels so described, wherever those run, and nothing is
    probed: accumulate is the format that sums are kept in (default: the format, which covers wider ones);
    order: of all sums, None for any: then a matrix product and what is added to it are one sum.
    Elementary functions err by the ulp of their records.

    The steps are those of torch 2.13's CPU kernels.  Not covered, where they differ: prod, if some order of
    its factors underflows; layer and group norms, if the square of the mean overflows (torch returns NaN);
    products scaled by alpha= out of the format's range; float32 LSTMs by oneDNN, which adds one matrix
    product to another; attention without batch dimensions, if scaled queries or keys are subnormal; what
    overflows before a factor that is a literal zero, or a structural one, drops it (torch returns NaN).
    Means that a kernel updates (layer, group norm) are covered as measured, not proven.

    Shapes: those of the gradients, as tensors.
    Raises: ArgumentError for arguments that do not fit; UnsupportedError for what cannot be traced.
    """
    from roundoff.kernels.this_machine import of_this_machine

    problem = Problem(function, inputs, wrt, loss, upstream)
    trace, rounded = problem.trace(format), problem.rounded(format)
    described = accumulate is not None or order is not None
    kernels = None if described else of_this_machine(trace, as_format(format))
    return bounds_of_trace(
        trace, rounded, format, accumulate=accumulate, order=order, give_back=_tensor,
        kernels=kernels,
    )  # fmt: skip


def _tensor(values: Array) -> Any:
    import torch

    return torch.from_numpy(np.array(values, np.float64))


def _array(values: Array) -> Any:
    return values


def unbounded(found: Mapping[str, Enclosed]) -> dict[str, Enclosed]:
    """The same values, where rounding may turn a decision of the trace: errors of any size."""
    return {
        name: replace(each, error=np.full(np.shape(each.value), np.inf))
        for name, each in found.items()
    }


def bounds_of_trace(
    trace: Trace,
    inputs: Mapping[str, Array],
    format: Any,
    *,
    accumulate: Any = None,
    order: Any = None,
    give_back: Callable[[Array], Any] = _array,
    kernels: Kernels | None = None,
) -> dict[str, Bound]:
    """The bounds of every output of a pruned trace, for inputs that are numbers of the format.

    kernels: those of this machine, in place of accumulate.
    """
    target = as_format(format)
    wide = accumulator(target, accumulate)
    chosen = None if order is None else as_order(order)
    given = RoundedInputs.sharing(trace, inputs)

    @cache
    def walked(failure: float | None) -> dict[str, Enclosed]:
        law: Law = certified
        if failure is not None:
            law = partial(likely, failure=failure, outputs=max(1, trace.sums))
        arithmetic = Running(target, chosen, accumulate, law, kernels)
        found = walk(trace, arithmetic, given)
        return unbounded(found) if arithmetic.turned else found

    @cache
    def spread() -> dict[str, Array]:
        found = walk(trace, Expected(target, chosen, accumulate, kernels), inputs)
        return {name: np.sqrt(each.variance) for name, each in found.items()}

    @cache
    def scales() -> dict[str, Array]:
        return {name: each.scale for name, each in walk(trace, Scale(), given).items()}

    def never(name: str) -> Array:
        return _whole(walked(None)[name].error, trace.shape(name))

    def seldom(name: str, failure: float) -> Array:
        check_failure(failure)
        return _whole(walked(float(failure))[name].error, trace.shape(name))

    maps = {step.function for step in trace.steps if isinstance(step, Map)}
    words = (kernels or Described()).words()
    assumed = f"{_STEPS}; {words}" if words else _STEPS
    found = {}
    for name in trace.outputs:
        statements = (
            Statement(
                "trace", "certified", lambda name=name: never(name),  # type: ignore[misc]
                _source(chosen), assumed + _elementary(maps),
            ),
            Statement(
                "trace, sums likely", "probabilistic",
                lambda failure, name=name: seldom(name, failure),  # type: ignore[misc]
                "Hallman and Ipsen, arXiv 2107.01604, "
                + ("in every sum, in any order" if chosen is None else "along every tree"),
                "operands below 4 u |partial sum| err by the most they can, a mean of the others' errors is "
                "predicted from the terms; what remains of each error inside a sum has a mean of zero given "
                "the earlier ones; errors of earlier steps add up in the worst way; the failure is shared "
                f"by {counted(trace.sums, 'sum')}",
            ),
            Statement(
                "root mean square", "expected", lambda name=name: spread()[name],  # type: ignore[misc]
                "rms 0.42466 u per rounding, carried along the trace", "uncorrelated errors",
            ),
        )  # fmt: skip
        found[name] = Bound(
            f"the gradient {name!r}", target, wide,
            "any order" if chosen is None else f"order {chosen}", trace.shape(name), statements,
            lambda name=name: scales()[name], give_back,  # type: ignore[misc]
        )  # fmt: skip
    return found


def _whole(error: Any, shape: tuple[int, ...]) -> Array:
    """The errors in full; NaN, infinity times zero, becomes infinite: nothing is known there."""
    full = np.broadcast_to(np.asarray(error, np.float64), shape)
    return np.where(np.isnan(full), np.inf, full)


def _source(order: Any) -> str:
    if order is None:
        return "Jeannerod and Rump 2013 for every sum, in any order, errors carried along the trace"
    return "Higham, 2nd ed., 3.3: u times every partial sum, errors carried along the trace"


def _elementary(maps: set[str]) -> str:
    functions = [FUNCTIONS[name] for name in sorted(maps)]
    used = ", ".join(f"{f.name} {f.ulp:g}" for f in functions if f.rounded and f.ulp > 0.5)
    return f"; functions within so many ulp: {used}" if used else ""


def rtol_atol(bound: Array, exact: Array) -> tuple[float, float]:
    """The tightest (rtol, atol) that two results within `bound` of the exact one satisfy together.

    Of all pairs with rtol, atol >= 0 and rtol |exact| + atol >= 2 bound at every element, that with the
    smallest mean of rtol |exact| + atol.  (0, 2 max bound) is one of them, so this mean is no larger.

    A pair is a line over the points (|exact|, 2 bound), never below them, and its mean is its height at
    the mean of |exact|.  rtol >= 0 asks that it also be above (max |exact|, 2 max bound), and atol >= 0 above
    (0, 0).  The lowest line at one place above a set of points is the edge of their upper convex hull
    there.  atol is rounded upward, so that the pair covers every element in exact arithmetic.

    Shapes: both alike.
    Raises: ArgumentError where twice the bound is not finite.
    """
    size = np.abs(exact, dtype=np.float64).ravel()
    with np.errstate(over="ignore"):
        twice = 2.0 * np.asarray(bound, np.float64).ravel()
    if not np.isfinite(twice).all():
        raise ArgumentError(
            "no tolerance: the bound is infinite; scale the inputs, or use a wider format "
            "where there is one"
        )
    rtol = _slope(size, twice) * (1 + 2.0**-50)
    within = rtol * size
    # The product and the difference are rounded: by 2^-53 of either, or half the smallest subnormal.
    doubt = np.where(within > 0, 2.0**-52 * (within + twice) + 2.0**-1073, 0.0)
    atol = np.where(twice > 0, twice - within + doubt, 0.0).max(initial=0.0)
    return rtol, float(atol)


def _slope(size: Array, height: Array) -> float:
    """The slope of the upper hull of the points, (0, 0) and (max size, max height), at the mean size."""
    largest = size.max(initial=0.0)
    if largest == 0:
        return 0.0
    x, y = np.append(size, [0.0, largest]), np.append(height, [0.0, height.max()])
    order = np.lexsort((y, x))
    x, y = x[order], y[order]
    record = y >= np.maximum.accumulate(y)  # others lie below a line that does not fall
    hull: list[tuple[float, float]] = []
    for point in zip(x[record].tolist(), y[record].tolist(), strict=True):
        while hull and (hull[-1][0] == point[0] or _below(hull, point)):
            hull.pop()
        hull.append(point)
    middle = float(np.mean(size / largest)) * largest
    left, right = next(edge for edge in pairwise(hull) if edge[1][0] >= middle)
    return float((right[1] - left[1]) / (right[0] - left[0]))


def _below(hull: list[tuple[float, float]], point: tuple[float, float]) -> bool:
    """Whether the last point of the hull is not above the line from the one before it to this one."""
    if len(hull) < 2:
        return False
    (x, y), (last, top), (far, high) = hull[-2], hull[-1], point
    return (top - y) / (last - x) <= (high - top) / (far - last)


def rounded_up(value: float, digits: int = 2) -> str:
    """A tolerance in so many digits, never below it: what is printed still covers.

    >>> rounded_up(2**-20 / 3), rounded_up(0.25), rounded_up(0.0)
    ('3.2e-07', '0.25', '0')
    """
    if not math.isfinite(value) or value == 0:
        return f"{value:g}"
    exact = Decimal(value)
    unit = Decimal(1).scaleb(exact.adjusted() - digits + 1)
    return f"{float(exact.quantize(unit, ROUND_CEILING)):.{digits}g}"
