"""Reference gradients: the numbers that every computed gradient is judged against.

A reference is the engine's own number.  hi + lo, two float64 tensors, is its rounding to twice float64,
and radius bounds |hi + lo - true| per element, that rounding included.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from mpmath.libmp import from_man_exp, mpf_abs, mpf_sub

from roundoff.arithmetic import walk
from roundoff.arithmetic.multiprecision import Multiprecision, Number
from roundoff.arithmetic.scale import Scale, Scaled
from roundoff.errors import ArgumentError, PrecisionError, UnsupportedError
from roundoff.formats import Format, as_format, rounder, spacing
from roundoff.trace.prune import prune
from roundoff.trace.steps import Contract, Input, Move, Reduce, Trace

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]

ENGINES = ("mpmath", "ball", "auto")

#: Products and sums above which "auto" takes balls: some seconds of mpmath.
MULTIPRECISION_WORK = 10**7

#: Working precision beyond which a reference is refused.
LIMIT_BITS = 1 << 14

#: Working precision up to which balls of a polynomial trace are raised to become exact.
EXACT_BITS = 1 << 11

#: Design decision 3: radius <= 2^-20 max(ulp, 2 u S).
RADIUS_FACTOR = 2.0**-20


@dataclass(frozen=True, eq=False)
class GradientReference:
    """One reference gradient.

    Shapes: high, low, error, scale, terms and numbers have the gradient's shape.
    high + low: the reference rounded to two float64; error: a bound (or, where the reference is not
    rigorous, an estimate) of |high + low - true|; scale: the condition scale S; terms: the sum of
    the |terms| of the last step alone; numbers: mpmath's raw
    tuples of the engine's own midpoint.
    """

    high: Array
    low: Array
    error: Array
    scale: Array
    terms: Array
    numbers: npt.NDArray[np.object_]

    @property
    def hi(self) -> torch.Tensor:
        """The reference rounded to float64."""
        return _tensor(self.high)

    @property
    def lo(self) -> torch.Tensor:
        """What is missing from hi, rounded to float64."""
        return _tensor(self.low)

    @property
    def radius(self) -> torch.Tensor:
        """|hi + lo - true| <= radius per element.  Units: absolute."""
        return _tensor(self.error)

    @property
    def S(self) -> torch.Tensor:
        """The condition scale: the gradient from absolute values, where the trace is polynomial."""
        return _tensor(self.scale)

    def mp(self) -> npt.NDArray[np.object_]:
        """The engine's own numbers as an object array of mpmath.mpf."""
        import mpmath

        make: Callable[[Number], Any] = mpmath.mp.make_mpf
        return np.fromiter(map(make, self.numbers.ravel()), object, self.numbers.size).reshape(
            self.numbers.shape
        )


def _tensor(values: Array) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.ascontiguousarray(values))


@dataclass(frozen=True, eq=False)
class Reference(Mapping[str, GradientReference]):
    """Reference gradients by name, and how they were made.

    engine: "mpmath" or "ball"; bits: its precision; exact: mp() has no error at all; rigorous: the
    radius is proven, not estimated; format: what the inputs were rounded to first.
    """

    gradients: Mapping[str, GradientReference]
    engine: str
    bits: int
    exact: bool
    rigorous: bool
    format: Format

    def __getitem__(self, name: str) -> GradientReference:
        try:
            return self.gradients[name]
        except KeyError:
            known = ", ".join(self.gradients)
            raise ArgumentError(f"no gradient {name!r}; this reference has {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.gradients)

    def __len__(self) -> int:
        return len(self.gradients)

    def __str__(self) -> str:
        kind = (
            "exact" if self.exact else "rigorous" if self.rigorous else "checked at twice the bits"
        )
        names = ", ".join(self.gradients)
        return (
            f"reference of {names} for {self.format} by {self.engine} at {self.bits} bits ({kind})"
        )


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

    The inputs are rounded to the format first (design decision 1).  engine: "mpmath" is the reference
    of record; "ball" has a proven radius; "auto" takes mpmath for small work, balls for large.  output:
    which of several outputs, an index or a key.

    Raises: ArgumentError for arguments that do not fit; UnsupportedError for what cannot be traced
    or has no value; PrecisionError when LIMIT_BITS do not suffice.
    """
    from roundoff.trace.capture import UPSTREAM, as_tensor, trace_gradients

    trace = trace_gradients(function, inputs, wrt, loss, upstream, output=output)
    values = dict(inputs) if upstream is None else {**inputs, UPSTREAM: upstream}
    arrays = {name: float64_array(as_tensor(name, value)) for name, value in values.items()}
    return reference_of_trace(prune(trace), arrays, format=format, engine=engine)


def reference_of_trace(
    trace: Trace, inputs: Mapping[str, Array], *, format: Any = "float32", engine: str = "auto"
) -> Reference:
    """The outputs of a pruned trace, for inputs that are rounded to the format here."""
    target = as_format(format)
    if engine not in ENGINES:
        raise ArgumentError(f"unknown engine {engine!r}; use one of: {', '.join(ENGINES)}")
    rounded = round_inputs(trace, inputs, target)
    scales = walk(trace, Scale(), rounded)
    if engine == "auto":
        engine = "mpmath" if work(trace) <= MULTIPRECISION_WORK else "ball"
    make = _multiprecision if engine == "mpmath" else _ball
    return make(trace, rounded, target, scales)


def spot_check(
    trace: Trace,
    inputs: Mapping[str, Array],
    reference: Reference,
    name: str,
    elements: Sequence[int],
) -> int:
    """Recompute elements of one output by mpmath at twice the bits; returns how many.

    They must lie within the reference's radius.  elements: by number, in C order.
    Raises: PrecisionError where one does not: one of the two engines is wrong then.
    """
    places = np.asarray(elements, np.int64) + 1
    sample = Move(places.shape, (trace.outputs[name],), places)
    steps = (*trace.steps, sample)
    chosen = prune(Trace(steps, {name: len(steps) - 1}, trace.closures))
    rounded = round_inputs(trace, inputs, reference.format)
    numbers = walk(chosen, Multiprecision(2 * max(reference.bits, 64)), rounded)
    found = reference[name]
    for element, number in zip(elements, numbers[name].ravel(), strict=True):
        high, low, rest = split(number)
        gap = abs((high - found.high.flat[element]) + (low - found.low.flat[element]))
        if not gap <= (found.error.flat[element] + rest) * (1 + 2.0**-50) + 2.0**-100 * abs(high):
            raise PrecisionError(
                f"mpmath and {reference.engine} disagree on element {element} of {name!r} by {gap:g}; "
                "this is an error of roundoff, please report it"
            )
    return len(elements)


def float64_array(tensor: torch.Tensor) -> Array:
    """The numbers of a tensor, exactly; of any device, layout and floating-point type."""
    import torch

    values: Array = tensor.detach().to(device="cpu", dtype=torch.float64).numpy()
    return values


def round_inputs(trace: Trace, inputs: Mapping[str, Array], target: Format) -> dict[str, Array]:
    """The trace's inputs and closures rounded to a format.

    Raises: ArgumentError where one is missing, not finite, or overflows the format.
    """
    given = {**trace.closures, **inputs}
    to_format = rounder(target)
    rounded = {}
    for step in trace.steps:
        if isinstance(step, Input):
            values = np.array(given[step.name], np.float64, order="C")
            if not np.abs(values).max(initial=0.0) < target.overflow_threshold:
                raise _unusable(step.name, values, target)
            rounded[step.name] = to_format(np.atleast_1d(values)).reshape(values.shape)
    return rounded


def _unusable(name: str, values: Array, target: Format) -> ArgumentError:
    wild = values[~np.isfinite(values)]
    if wild.size:
        return ArgumentError(
            f"input {name!r} holds {wild.flat[0]}; a reference needs finite numbers"
        )
    worst = values.flat[int(np.argmax(np.abs(values)))]
    return ArgumentError(
        f"input {name!r} holds {worst:g}, beyond the largest {target} number {target.max:g}; "
        "scale it, or take a format with a wider range"
    )


def work(trace: Trace) -> int:
    """Multiply-adds and sums of a trace."""
    total = 0
    for step in trace.steps:
        if isinstance(step, Reduce | Contract):
            present = step.leaves if step.kept is None else len(step.kept)
            total += math.prod(step.shape) * present
        else:
            total += math.prod(step.shape)
    return total


# -------------------------------------------------------------------------------------- engines


def _multiprecision(
    trace: Trace, inputs: dict[str, Array], target: Format, scales: dict[str, Scaled]
) -> Reference:
    if trace.polynomial:
        numbers = walk(trace, Multiprecision(0), inputs)
        gradients = {n: _gradient(v, _zeros(v), scales[n]) for n, v in numbers.items()}
        return Reference(gradients, "mpmath", 0, exact=True, rigorous=True, format=target)
    bits = 2 * target.precision + 64
    numbers = walk(trace, Multiprecision(bits), inputs)
    while True:
        bits *= 2
        coarse, numbers = numbers, walk(trace, Multiprecision(bits), inputs)
        gradients = {
            n: _gradient(v, _differences(v, coarse[n]), scales[n]) for n, v in numbers.items()
        }
        if all(_precise(g, target) for g in gradients.values()):
            return Reference(gradients, "mpmath", bits, exact=False, rigorous=False, format=target)
        if 2 * bits > LIMIT_BITS:
            raise _not_precise("mpmath", gradients, target)


def _ball(
    trace: Trace, inputs: dict[str, Array], target: Format, scales: dict[str, Scaled]
) -> Reference:
    from roundoff.arithmetic.ball import Ball

    bits = 2 * target.precision + 64
    while True:
        balls = walk(trace, Ball(bits), inputs)
        gradients = {n: _from_balls(v, scales[n]) for n, v in balls.items()}
        if all(_precise(g, target) for g in gradients.values()):
            exact = all(b.is_exact() for v in balls.values() for b in v.ravel())
            if trace.polynomial and not exact and 2 * bits <= EXACT_BITS:
                bits *= 2  # polynomials have finitely many bits: soon nothing is rounded
                continue
            return Reference(gradients, "ball", bits, exact=exact, rigorous=True, format=target)
        bits *= 2
        if bits > LIMIT_BITS:
            raise _not_precise("ball", gradients, target)


def _precise(gradient: GradientReference, target: Format) -> bool:
    ulp = np.nan_to_num(spacing(gradient.high, gradient.low, target), nan=0.0)
    allowed = np.maximum(ulp, 2.0 * target.u * gradient.scale)
    return bool(np.all(gradient.error <= RADIUS_FACTOR * allowed))


def _not_precise(
    engine: str, gradients: dict[str, GradientReference], target: Format
) -> PrecisionError:
    for name, gradient in gradients.items():
        if not _precise(gradient, target):
            worst = np.unravel_index(int(np.argmax(gradient.error)), gradient.error.shape)
            at = [int(i) for i in worst]
            return PrecisionError(
                f"the {engine} reference of {name!r} at element {at} still has radius "
                f"{gradient.error[worst]:g} at {LIMIT_BITS} bits; the function is too ill-conditioned "
                "there, change the inputs"
            )
    return PrecisionError("unreachable")


def _zeros(numbers: npt.NDArray[np.object_]) -> Array:
    return np.zeros(numbers.shape)


def _differences(fine: npt.NDArray[np.object_], coarse: npt.NDArray[np.object_]) -> Array:
    """Twice the change between two precisions: an estimate of the coarse one's error."""
    changes = (
        2.0 * float_up(mpf_abs(mpf_sub(a, b)))
        for a, b in zip(fine.ravel(), coarse.ravel(), strict=True)
    )
    return np.fromiter(changes, np.float64, fine.size).reshape(fine.shape)


def _from_balls(balls: npt.NDArray[np.object_], scale: Scaled) -> GradientReference:
    def raw(x: Any) -> Number:
        if not x.is_finite():
            raise UnsupportedError(
                "the reference has no value: a gradient is not finite; check the inputs' range"
            )
        mantissa, exponent = x.man_exp()
        number: Number = from_man_exp(int(mantissa), int(exponent))
        return number

    flat = balls.ravel()
    numbers = np.fromiter((raw(b.mid()) for b in flat), object, flat.size)
    radii = np.fromiter((float_up(raw(b.rad())) for b in flat), np.float64, flat.size)
    return _gradient(numbers.reshape(balls.shape), radii.reshape(balls.shape), scale)


def _gradient(numbers: npt.NDArray[np.object_], error: Array, scale: Scaled) -> GradientReference:
    """hi, lo and the whole radius of raw numbers with an error of their own."""
    shape, flat = numbers.shape, numbers.ravel()
    parts = np.array([split(number) for number in flat], np.float64).reshape(-1, 3)
    high, low, rest = (parts[:, k].reshape(shape) for k in range(3))
    total = np.where(
        rest == 0, error, np.where(error == 0, rest, np.nextafter(error + rest, np.inf))
    )
    sizes = np.asarray(scale.scale), np.asarray(scale.terms)
    return GradientReference(high, low, total, *sizes, numbers)


def split(number: Number) -> tuple[float, float, float]:
    """hi, lo and an upper bound of |number - hi - lo|; hi is the float64 nearest to the number.

    Beyond float64's range hi is infinite, lo zero and the bound infinite.
    """
    mantissa, exponent = _whole(number)
    high = _nearest(mantissa, exponent)
    if math.isinf(high):
        return high, 0.0, math.inf
    mantissa, exponent = _less(mantissa, exponent, high)
    if not mantissa:
        return high, 0.0, 0.0
    low = _nearest(mantissa, exponent)
    rest, exponent = _less(mantissa, exponent, low)
    return high, low, _upward(abs(rest), exponent)


def nearest(number: Number) -> float:
    """The float64 nearest to a raw number, subnormals and overflow included."""
    return _nearest(*_whole(number))


def float_up(number: Number) -> float:
    """A float64 not below a non-negative raw number."""
    return _upward(*_whole(number))


def _whole(number: Number) -> tuple[int, int]:
    """A raw number as an integer times a power of two."""
    sign, mantissa, exponent, _ = number
    return (-int(mantissa) if sign else int(mantissa)), exponent


def _nearest(mantissa: int, exponent: int) -> float:
    """Python's division of integers is correctly rounded."""
    size = exponent + mantissa.bit_length()
    if size > 1024:
        return math.inf if mantissa > 0 else -math.inf
    if size < -1100 or not mantissa:
        return -0.0 if mantissa < 0 else 0.0
    try:
        return float(mantissa << exponent) if exponent >= 0 else mantissa / (1 << -exponent)
    except OverflowError:
        return math.inf if mantissa > 0 else -math.inf


def _less(mantissa: int, exponent: int, value: float) -> tuple[int, int]:
    """mantissa 2^exponent - value, exactly."""
    fraction, size = math.frexp(value)
    other, last = int(fraction * 2.0**53), size - 53
    lowest = min(exponent, last)
    return (mantissa << (exponent - lowest)) - (other << (last - lowest)), lowest


def _upward(mantissa: int, exponent: int) -> float:
    value = _nearest(mantissa, exponent)
    if not mantissa or math.isinf(value):
        return value
    return math.nextafter(value, math.inf) if _less(mantissa, exponent, value)[0] > 0 else value
