"""The engines that make references, and which is taken: mpmath, balls, multiword."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from itertools import repeat
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from mpmath.libmp import finf, fnan, fninf, from_man_exp, fzero, mpf_abs, mpf_shift, mpf_sub

from roundoff.arithmetic import walk
from roundoff.arithmetic.condition_scale import Scale, Scaled
from roundoff.arithmetic.expansions import above, swept
from roundoff.arithmetic.literal_errors import of_literals
from roundoff.arithmetic.missing_values import walk_partly
from roundoff.arithmetic.multiprecision import Multiprecision, text_of
from roundoff.errors import (
    PrecisionError,
    RoundoffError,
    UndecidedError,
    UnsupportedError,
    infinite_value,
)
from roundoff.gradients.reference.result import GradientReference, Reference
from roundoff.gradients.reference.rounding import float_up, split
from roundoff.gradients.reference.size import is_large
from roundoff.numbers.formats import Format, spacing
from roundoff.trace.functions.high_precision import Number
from roundoff.trace.prune import prune
from roundoff.trace.steps import Trace

if TYPE_CHECKING:
    from roundoff.arithmetic.float_words import Words

Array = npt.NDArray[np.float64]

#: Working precision beyond which a reference is refused.
LIMIT_BITS = 1 << 14

#: Working precision up to which balls of a polynomial trace are raised to become exact, and those of a small
#: trace to decide a comparison or to tell a divisor from zero.
EXACT_BITS = 1 << 11

#: Multiword's precision at most, four words of float64.  Polynomials get it at once, so that their values
#: fit: then nothing is rounded.  Others get what `precise` asks and GROWTH more, which radii may lose on
#: the way through a trace, and once more what that turned out to lack.
MOST_BITS, GROWTH = 4 * 53 + 8, 64

#: Radii are at most this part: radius <= 2^-20 max(ulp, 2 u S); for S see `precise`.
RADIUS_FACTOR = 2.0**-20

#: The smallest float64.  No radius but zero is below it, and float64 numbers are multiples of it: a smaller
#: radius could not be told, nor would it tell two computed numbers apart.  So it is always small enough:
#: e^-1000 is 0 within it, and a float64 gradient beside that errs by its own size, within one such unit.
SMALLEST = 2.0**-1074


class Scales:
    """S, the sums of |terms| and what is owed to literals, of a trace's outputs, when first asked for."""

    def __init__(self, trace: Trace, inputs: dict[str, Array]) -> None:
        self.trace, self.inputs = trace, inputs

    @cached_property
    def found(self) -> dict[str, Scaled]:
        return walk(self.trace, Scale(), self.inputs)

    def of(self, name: str) -> Callable[[], Scaled]:
        return partial(self._of, name)

    def _of(self, name: str) -> Scaled:
        return self.found[name]

    @cached_property
    def owed(self) -> dict[str, Array]:
        return of_literals(self.trace, self.inputs)

    def owed_by(self, name: str) -> Callable[[], Array]:
        return partial(self._owed, name)

    def _owed(self, name: str) -> Array:
        return self.owed[name]


def multiprecision(
    trace: Trace, inputs: dict[str, Array], target: Format, scales: Scales
) -> Reference:
    """The reference of record: exact for polynomials, else recomputed at twice the bits."""
    if trace.polynomial:
        return _exactly(trace, inputs, target, scales)
    bits = 2 * target.precision + 64
    numbers, lost = walk_partly(trace, Multiprecision(bits), inputs)
    while True:
        bits *= 2
        coarse, before = numbers, lost
        numbers, lost = walk_partly(trace, Multiprecision(bits), inputs)
        gradients = {
            n: _gradient(
                v, _differences(v, coarse[n]), scales.of(n), "mpmath", before[n] | lost[n],
                exact=False,
            )
            for n, v in numbers.items()
        }  # fmt: skip
        if all(precise(g, target) for g in gradients.values()):
            return Reference(gradients, bits, rigorous=False, format=target)
        if 2 * bits > LIMIT_BITS:
            raise not_precise(gradients, target)


def _exactly(trace: Trace, inputs: dict[str, Array], target: Format, scales: Scales) -> Reference:
    numbers, lost = walk_partly(trace, Multiprecision(0), inputs)
    gradients = {
        n: _gradient(v, repeat(fzero), scales.of(n), "mpmath", lost[n], exact=True)
        for n, v in numbers.items()
    }
    return Reference(gradients, 0, rigorous=True, format=target)


def _ball(trace: Trace, inputs: dict[str, Array], target: Format, scales: Scales) -> Reference:
    from roundoff.arithmetic.ball import Ball

    bits = 2 * target.precision + 64
    while True:
        balls, lost = walk_partly(trace, Ball(bits), inputs)
        # Cancellation leaves balls that hold zero, and smaller ones may not; a tie stays one.
        if not (_lasting(lost) or is_large(trace) or 2 * bits > EXACT_BITS):
            bits *= 2
            continue
        gradients = {n: _from_balls(v, scales.of(n), lost[n]) for n, v in balls.items()}
        if all(precise(g, target) for g in gradients.values()):
            exact = all(g.exact for g in gradients.values())
            if trace.polynomial and not exact and 2 * bits <= EXACT_BITS:
                bits *= 2  # polynomials have finitely many bits: soon nothing is rounded
                continue
            return Reference(gradients, bits, rigorous=True, format=target)
        bits *= 2
        if bits > LIMIT_BITS:
            raise not_precise(gradients, target)


def _multiword(trace: Trace, inputs: dict[str, Array], target: Format, scales: Scales) -> Reference:
    from roundoff.arithmetic.multiword import Multiword, fastest_product

    bits = MOST_BITS if trace.polynomial else min(target.precision + 20 + GROWTH, MOST_BITS)
    while True:
        arithmetic = Multiword.of_bits(bits, fastest_product())
        found, lost = walk_partly(trace, arithmetic, inputs)
        gradients = {n: _from_words(v, scales.of(n), lost[n]) for n, v in found.items()}
        missing = max((_shortfall(g, target) for g in gradients.values()), default=0)
        if not missing or bits == MOST_BITS:
            return Reference(gradients, bits, rigorous=True, format=target)
        bits = min(bits + missing + 8, MOST_BITS)


def at_bits(
    engine: str, trace: Trace, bits: int, inputs: dict[str, Array]
) -> dict[str, list[tuple[Number, float]]]:
    """Numbers with radii (0.0 for mpmath's, which has none) in C order, by one walk at so many bits."""
    if engine == "mpmath":
        exact, _ = walk_partly(trace, Multiprecision(bits), inputs)
        return {name: [(number, 0.0) for number in v.ravel()] for name, v in exact.items()}
    from roundoff.arithmetic.ball import Ball

    balls, _ = walk_partly(trace, Ball(bits), inputs)
    return {
        name: [(_raw(b.mid()), float_up(_raw(b.rad()))) for b in v.ravel()]
        for name, v in balls.items()
    }


def fast(trace: Trace, inputs: dict[str, Array], target: Format, scales: Scales) -> Reference:
    """Multiword, and balls for the gradients that it cannot certify."""
    try:
        found = _multiword(trace, inputs, target, scales)
    except (UnsupportedError, UndecidedError):
        return _ball(trace, inputs, target, scales)
    missing = [
        name
        for name, gradient in found.items()
        if not (precise(gradient, target) and _lasting({name: gradient.unknown}))
    ]
    if not missing:
        return found
    rest = _ball(prune(trace.select(missing)), inputs, target, scales)
    return Reference({**found.gradients, **rest.gradients}, rest.bits, rigorous=True, format=target)


def automatic(trace: Trace, inputs: dict[str, Array], target: Format, scales: Scales) -> Reference:
    """mpmath for small work, multiword for large, and balls for what these cannot hold."""
    if is_large(trace):
        return fast(trace, inputs, target, scales)
    if not trace.polynomial:
        return multiprecision(trace, inputs, target, scales)
    try:
        return _exactly(trace, inputs, target, scales)
    except PrecisionError:  # too many bits
        return _ball(trace, inputs, target, scales)


MAKERS = {"mpmath": multiprecision, "ball": _ball, "multiword": _multiword}


def precise(gradient: GradientReference, target: Format) -> bool:
    """Whether the radius is small enough to judge the format by.

    S compounds over a deep trace until it allows anything; the terms of the last sum stand for it there.
    """
    return not bool(_imprecise(gradient, target).any())


def _imprecise(gradient: GradientReference, target: Format) -> npt.NDArray[np.bool_]:
    """Per element.  Exact numbers are precise, even those that underflow as two float64: `own` has them.

    What is not known is not imprecise.
    """
    if gradient.exact:
        return ~np.isfinite(gradient.error) & gradient.known
    found = np.zeros(gradient.high.shape, np.bool_)
    # An ulp is larger than u times the number.
    small = gradient.error <= RADIUS_FACTOR * target.u * np.abs(gradient.high)
    doubtful = ~(small & np.isfinite(gradient.error))
    if doubtful.any():
        error = gradient.error[doubtful]
        small = error <= _allowed(gradient, target, doubtful)
        # An infinite S would allow anything.
        found[doubtful] = ~(small & np.isfinite(error)) & gradient.known[doubtful]
    return found


def _allowed(gradient: GradientReference, target: Format, at: npt.NDArray[np.bool_]) -> Array:
    """The largest radius of some elements: by the ulp, or by the terms of the last sum (S where these are
    zero).

    What overflowed on the way to them says nothing.
    """
    scale, terms = gradient.scale[at], gradient.terms[at]
    last = np.where(terms > 0, np.fmin(scale, terms), scale)
    last = np.where(last < np.finfo(np.float64).max, last, 0.0)
    ulp = _ulp(gradient.high[at], gradient.low[at], target)
    found = RADIUS_FACTOR * np.maximum(ulp, 2.0 * target.u * last)
    return np.maximum(found, SMALLEST)


def _ulp(high: Array, low: Array, target: Format) -> Array:
    return np.nan_to_num(spacing(high, low, target), nan=0.0)


def _shortfall(gradient: GradientReference, target: Format) -> int:
    """How many bits the radius lacks to be precise."""
    failing = _imprecise(gradient, target)
    if not failing.any():
        return 0
    with np.errstate(all="ignore"):
        ratio = np.nanmax(gradient.error[failing] / _allowed(gradient, target, failing))
    return max(1, math.ceil(math.log2(ratio))) if 0 < ratio < math.inf else MOST_BITS


def not_precise(gradients: Mapping[str, GradientReference], target: Format) -> PrecisionError:
    """What to raise where `precise` fails, naming the worst of the elements that fail."""
    name = next(name for name, gradient in gradients.items() if not precise(gradient, target))
    gradient = gradients[name]
    failing = np.where(_imprecise(gradient, target), gradient.error, -1.0)
    worst = np.unravel_index(int(np.argmax(failing)), failing.shape)
    what = f"the {gradient.engine} reference of {name!r} at element {[int(i) for i in worst]}"
    high, error = gradient.high[worst], gradient.error[worst]
    if np.isinf(high):
        why = "is beyond float64's range, in which references are kept; scale the inputs"
    elif gradient.engine == "multiword":
        why = f"still has radius {error:g}, too much for this format; use engine='auto'"
    else:
        why = (
            f"still has radius {error:g} at {LIMIT_BITS} bits; the function is too ill-conditioned "
            "there, change the inputs"
        )
    return PrecisionError(f"{what} {why}")


def _differences(
    fine: npt.NDArray[np.object_], coarse: npt.NDArray[np.object_]
) -> Iterable[Number]:
    """Twice the change between two precisions: an estimate of the coarse one's error."""
    for a, b in zip(fine.ravel(), coarse.ravel(), strict=True):
        yield mpf_shift(mpf_abs(mpf_sub(a, b, 64, "u")), 1)


def _lasting(lost: Mapping[str, Mapping[int, RoundoffError]]) -> bool:
    """Whether the elements without value would have none at any precision."""
    return all(error.lasting for errors in lost.values() for error in errors.values())


def _from_balls(
    balls: npt.NDArray[np.object_], sizes: Callable[[], Scaled], lost: Mapping[int, RoundoffError]
) -> GradientReference:
    flat = balls.ravel()
    numbers = np.fromiter((_raw(b.mid()) for b in flat), object, flat.size)
    exact = all(b.is_exact() for b in flat)
    radii = (_raw(b.rad()) for b in flat)
    return _gradient(numbers.reshape(balls.shape), radii, sizes, "ball", lost, exact=exact)


def _raw(x: Any) -> Number:
    """The number of an arb without radius; infinities and NaN are mpmath's."""
    if not x.is_finite():
        special: Number = finf if x > 0 else fninf if x < 0 else fnan
        return special
    mantissa, exponent = x.man_exp()
    number: Number = from_man_exp(int(mantissa), int(exponent))
    return number


def _from_words(
    found: Words, sizes: Callable[[], Scaled], lost: Mapping[int, RoundoffError]
) -> GradientReference:
    high, *others = found.words
    odd = np.flatnonzero(np.isinf(high)).tolist()
    infinite = {at: infinite_value(f"{high.flat[at]:g}") for at in odd}
    low, *rest = swept(others or [np.zeros(high.shape)])
    exact = not np.any(found.radius)
    error = np.zeros(high.shape) + above([found.radius, *(np.abs(word) for word in rest)])
    made = GradientReference(high, low, error, found.words, "multiword", exact, sizes)
    return _without(made, {**infinite, **lost})


def _gradient(
    numbers: npt.NDArray[np.object_],
    errors: Iterable[Number],
    sizes: Callable[[], Scaled],
    engine: str,
    lost: Mapping[int, RoundoffError],
    *,
    exact: bool,
) -> GradientReference:
    """hi, lo and the whole radius of raw numbers with errors of their own, in C order.

    lost: elements without value, with the reason.
    """
    shape, flat = numbers.shape, numbers.ravel()
    infinite = {
        at: infinite_value(text_of(number))
        for at, number in enumerate(flat)
        if number[2] and not number[1]  # mpmath's inf and nan
    }
    parts = np.array(list(map(split, flat, errors)), np.float64).reshape(-1, 3)
    high, low, error = (parts[:, k].reshape(shape) for k in range(3))
    made = GradientReference(high, low, error, numbers, engine, exact, sizes)
    return _without(made, {**infinite, **lost})


def _without(made: GradientReference, lost: Mapping[int, RoundoffError]) -> GradientReference:
    """The reference with some elements unknown."""
    if not lost:
        return made
    mask = np.zeros(made.high.shape, bool)
    mask.ravel()[list(lost)] = True
    own: npt.NDArray[np.object_] | tuple[Array, ...]
    if isinstance(made.own, tuple):
        own = (np.where(mask, np.nan, made.own[0]), *(np.where(mask, 0.0, w) for w in made.own[1:]))
    else:
        own = made.own.copy()
        for at in lost:
            own.ravel()[at] = fnan
    return replace(
        made, high=np.where(mask, np.nan, made.high), low=np.where(mask, 0.0, made.low),
        error=np.where(mask, np.inf, made.error), own=own, unknown=dict(lost),
    )  # fmt: skip
