"""Assertions for test suites: a result is within round-off, two functions are the same.

    from roundoff.testing import assert_within_roundoff

    assert_within_roundoff({"weight": layer.weight.grad}, function, inputs, loss=loss)

References are kept on disk (`roundoff.judging.reference_cache`), so a suite pays for them once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import choice
from roundoff.errors import ArgumentError, RoundoffError, UndecidedError
from roundoff.judging.power import LEAST
from roundoff.words import counted

if TYPE_CHECKING:
    from roundoff.judging.power import Power
    from roundoff.judging.reference_cache import Known
    from roundoff.numbers.formats import Format

Array = npt.NDArray[np.float64]

KINDS = ("probabilistic", "certified", "predicted")

#: Weaker evidence, from the strongest on: it tells more.
_WEAKER = {
    "certified": ("probabilistic", "predicted"),
    "probabilistic": ("predicted",),
    "predicted": (),
}


@dataclass(frozen=True)
class Usage:
    """How much of its tolerance an assertion used, and what it would have noticed.

    share: the largest |error| / tolerance; factor: larger ones on all elements would have been noticed.
    """

    name: str
    format: str
    share: float
    factor: float


#: What assertions used since the pytest plugin last took it.
usages: list[Usage] = []


def assert_within_roundoff(
    actual: Any,
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    loss: Callable[..., Any] | None = None,
    upstream: Any = None,
    *,
    kind: str | None = None,
    failure: float = 1e-9,
    accumulate: Any = None,
    output: Any = None,
) -> None:
    """Fail unless `actual` differs from the exact results of a function by no more than rounding.

    actual: gradients by name ("output" is the function's output), or one tensor, the output.  Its type is the
    format; inputs are rounded to it.  kind: the evidence, "probabilistic" (failure per tensor), "certified"
    or "predicted" (several times the error that rounding usually makes: see `judging.ordinary`, which states
    how often honest results are beyond); by default probabilistic, predicted where that would not notice a
    factor of LEAST.

    Raises: AssertionError with the worst element; UndecidedError where the tolerance is so near the exact
    values that a factor of LEAST, or zeros, might pass.  That is no AssertionError: nothing is known to be
    wrong, and a test that expects a bug to be caught must not take it for that.  ArgumentError and
    UnsupportedError as `tolerance`.
    """
    from roundoff.gradients.inputs import float64_array
    from roundoff.gradients.problem import Problem
    from roundoff.judging.reference_cache import remembered
    from roundoff.numbers.formats import as_format
    from roundoff.trace.checks import OUTPUT
    from roundoff.trace.users_function import as_tensor

    if kind is not None:
        choice("kind", kind, KINDS)
    given = dict(actual) if isinstance(actual, Mapping) else {OUTPUT: actual}
    none = [name for name, value in given.items() if value is None]
    if not given or none:
        what = f"has None for {none[0]!r}" if none else "is empty"
        raise ArgumentError(f"actual {what}; give tensors by name, or the output's")
    tensors = {name: as_tensor(name, value) for name, value in given.items()}
    types = {str(t.dtype).removeprefix("torch.") for t in tensors.values()}
    if len(types) != 1:
        raise ArgumentError(
            f"actual holds types {', '.join(sorted(types))}; give tensors of one type"
        )
    if not all(tensor.is_floating_point() for tensor in tensors.values()):
        raise ArgumentError(
            f"actual is of type {types.pop()}, which is not rounded; give floating-point tensors"
        )
    target = as_format(types.pop())
    if loss is None and upstream is None and set(tensors) == {OUTPUT}:
        loss = _total  # its gradients are not asked for
    with np.errstate(all="ignore"):
        problem = Problem(function, inputs, wrt, loss, upstream, output, forward=True)

        def otherwise(
            target: Format, accumulate: Any, *, predicted: bool = False
        ) -> Mapping[str, Known]:
            return remembered(
                problem.trace(target), problem.rounded(target), target, failure, accumulate,
                predicted=predicted, bounded=kind in ("probabilistic", "certified"),
            )  # fmt: skip

        of = otherwise(target, accumulate, predicted=kind == "predicted")

        for name, tensor in tensors.items():
            if name not in of:
                raise ArgumentError(f"actual names {name!r}; there are {', '.join(of)}")
            known, how, result = of[name], kind or "probabilistic", float64_array(tensor)
            if kind is None and not _tells(known, how, target):
                known, how = otherwise(target, accumulate, predicted=True)[name], "predicted"
            if not _check(name, result, known, how, target):
                remedies = _remedies(name, known, how, target, accumulate, otherwise)
                raise UndecidedError(_powerless(name, known, how, target, remedies))


def _total(out: Any) -> Any:
    return out.sum()


def assert_same_function(
    first: Any,
    second: Any,
    inputs: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    loss: Callable[..., Any] | None = None,
    upstream: Any = None,
    *,
    formats: Sequence[Any] = ("float32",),
    elsewhere: bool = True,
    **options: Any,
) -> None:
    """Fail unless `compare` says IDENTICAL or ROUNDOFF of every gradient, and finds them the same elsewhere.

    elsewhere: whether functions that part at other points (other signs, zeros, magnitudes, integers, masks)
    fail, too; False for those that are to be the same at inputs like the given ones alone, say on positive
    numbers.  options: those of `compare`.
    Raises: AssertionError with the verdicts and their reasons; UNDECIDED fails, too, as it decides nothing.
    """
    from roundoff.judging.comparison import compare
    from roundoff.judging.verdict import Verdict

    found = compare(first, second, inputs, wrt, loss, upstream, formats=formats, **options)
    for row in found.table.to_dict("records"):
        name, format = str(row["gradient"]), str(row["format"])
        sides = found[name, format].sides
        if sides and row["bound_probabilistic"] > 0:
            share = max(row["error_first"], row["error_second"]) / row["bound_probabilistic"]
            factor = max(side.power.factor for side in sides)
            usages.append(Usage(name, format, float(share), factor))
    good = (Verdict.IDENTICAL, Verdict.ROUNDOFF)
    if not all(pair.judgement.verdict in good for pair in found.pairs.values()):
        raise AssertionError(f"not shown to be the same function to within rounding\n\n{found}")
    if elsewhere and found.elsewhere:
        first = next(iter(found.elsewhere.values()))
        raise AssertionError(
            f"{first}; elsewhere=False compares at inputs like the given ones alone\n\n{found}"
        )


def _check(name: str, actual: Array, of: Known, kind: str, target: Format) -> bool:
    """Whether the check has power.  Raises: AssertionError where it fails."""

    if actual.shape != of.high.shape:
        raise AssertionError(
            f"{name!r} has shape {actual.shape}, the exact one {of.high.shape}; they must be equal"
        )
    bound = _bound(of, kind, target)
    error = of.distance(actual)
    share = np.where(
        bound > 0, error / np.where(bound > 0, bound, 1.0), np.where(error > of.error, np.inf, 0.0)
    )
    share = np.where(np.isnan(share), np.inf, share)
    worst = float(np.max(share, initial=0.0))
    power = _power(of, kind, target)
    usages.append(Usage(name, str(target), worst, power.factor))
    if not (np.isfinite(error) & (error <= bound + of.error)).all():
        raise AssertionError(_message(name, actual, of, bound, share, kind, target, power))
    if kind == "predicted":
        how = of.ordinary(target).beyond((actual - of.high) - of.low, of.error)
        if how:
            raise AssertionError(
                f"{name!r} is not within round-off in {target}: it errs {how} (predicted)\n"
                f"  suspected      {suspect(actual, of, bound, target)}\n  power          notices {power}"
            )
    return power.factor <= LEAST or not (np.abs(of.high) > of.error).any()


def _bound(of: Known, kind: str, target: Format) -> Array:
    """The tolerance of each element."""
    if kind == "predicted":
        return of.ordinary(target).each
    return of.likely if kind == "probabilistic" else of.certain


def _tells(of: Known, kind: str, target: Format) -> bool:
    """Whether a factor of LEAST on all elements would be noticed."""
    return _power(of, kind, target).factor <= LEAST


def _power(of: Known, kind: str, target: Format) -> Power:
    from roundoff.judging.power import power_of

    if kind == "predicted":
        return of.ordinary(target).power
    bound = _bound(of, kind, target)
    known = ~np.isnan(of.high)
    return power_of(of.high[known], of.terms[known], (bound + of.error)[known])


def _remedies(
    name: str, of: Known, kind: str, target: Format, accumulate: Any,
    otherwise: Callable[..., Mapping[str, Known]],
) -> list[str]:  # fmt: skip
    """What gives the check power, as tried: another kind of bound, sums in float32, the next wider format."""
    from roundoff.numbers.formats import FLOAT32, FLOAT64, as_format

    def tells(target: Format, accumulate: Any, kind: str = kind) -> bool:
        try:
            found = otherwise(target, accumulate, predicted=kind == "predicted")[name]
        except RoundoffError:
            return False
        return _tells(found, kind, target)

    found = [f'kind="{each}"' for each in _WEAKER[kind] if tells(target, accumulate, each)][:1]
    wide = max(target.precision, 0 if accumulate is None else as_format(accumulate).precision)
    if wide < FLOAT32.precision and tells(target, "float32"):
        found.append('accumulate="float32" if the sums are kept in it')
    for other in (FLOAT32, FLOAT64):
        if other.precision > target.precision and tells(other, None):
            return [*found, f"{other}"]
    return found


def _powerless(name: str, of: Known, kind: str, target: Format, remedies: Sequence[str]) -> str:
    """Why a check says nothing, and what to do."""
    bound = _bound(of, kind, target)
    part = bound / np.abs(of.high)
    at = tuple(int(i) for i in np.unravel_index(int(np.nanargmin(part)), part.shape))
    passes = "zeros would pass" if part[at] >= 1 else f"a factor of {LEAST:g} on all might pass"
    use = f"use {', or '.join(remedies)}, or " if remedies else "check a part of the function, or "
    return (
        f"{name!r} cannot be judged in {target}: at every element the {kind} tolerance is at least "
        f"{part[at]:.2g} of the exact value (at {list(at)} {bound[at]:.3g} of {of.high[at]:.3g}), so that "
        f"{passes}; {use}leave {name!r} out"
    )


def _message(
    name: str, actual: Array, of: Known, bound: Array, share: Array, kind: str, target: Format,
    power: Power,
) -> str:  # fmt: skip
    from roundoff.numbers.formats import spacing

    at = tuple(int(i) for i in np.unravel_index(int(np.argmax(share)), share.shape))
    error, none = of.distance(actual)[at], bool(np.isnan(of.high[at]))
    ulp = error / float(np.asarray(spacing(of.high[at], of.low[at], target)))
    count = int((share > 1).sum())
    lines = [
        f"{name!r} is not within round-off in {target}: {count} of "
        f"{counted(share.size, 'element')} beyond the "
        f"{kind} bound",
        f"  worst element  {list(at)}",
        f"  exact          {'none: the function has no value there' if none else float(of.high[at])}",
        f"  actual         {float(actual[at])}",
        f"  error          {error:.4g}" + ("" if none else f" = {ulp:.4g} ulp"),
        f"  bound          {bound[at]:.4g} ({share[at]:.3g} times exceeded)",
        f"  suspected      {suspect(actual, of, bound, target)}",
        f"  power          notices {power}",
    ]
    return "\n".join(lines)


def suspect(actual: Array, of: Known, bound: Array, target: Format) -> str:
    """A guess at the cause, in words: each is checked on all elements."""
    from roundoff.numbers.formats import BFLOAT16, FLOAT16, FLOAT32, round_to

    none = np.isnan(of.high)
    lost = ~np.isfinite(actual) & ~none
    if lost.any():
        return f"overflow or an undefined operation: not finite at {counted(int(lost.sum()), 'element')}"
    made = none & ~np.isnan(actual)
    if made.any():
        return f"a number where the function has no value: at {counted(int(made.sum()), 'element')}"
    exact = of.high
    if not actual.any() and np.nan_to_num(exact).any():
        return "zeros everywhere: a result that is not computed, or lost on the way"
    slack = 2.0 * bound + target.u * np.abs(
        exact
    )  # a bound may be 0, and a factor is found by rounding
    if (
        exact.ndim == 2
        and exact.shape[0] == exact.shape[1]
        and (np.abs(actual - exact.T) <= slack + slack.T).all()
    ):
        return "a transposition"
    flat, other = np.sort(actual.ravel()), np.sort(exact.ravel())
    if (np.abs(flat - other) <= np.max(slack, initial=0.0)).all():
        return "elements in other places (a swapped index or permutation)"
    size = float(np.sum(exact * exact))
    factor = float(np.sum(actual * exact)) / size if size else 0.0
    if size and factor and (np.abs(actual / factor - exact) <= slack / min(1.0, abs(factor))).all():
        return f"a factor of {factor:.6g} on all elements"
    shift = float(np.mean(actual - exact))
    if (np.abs(actual - shift - exact) <= slack).all():
        return f"a constant {shift:.6g} added to all elements"
    for narrow in (BFLOAT16, FLOAT16, FLOAT32):
        near = np.abs(actual - exact) <= slack + 2.0 * narrow.u * np.abs(exact)
        held = round_to(actual, narrow) == actual
        if narrow.precision < target.precision and (held & near).all():
            return f"a result rounded to {narrow}, a narrower format"
    relative = np.abs(actual - exact).max() / max(np.abs(exact).max(), np.finfo(float).tiny)
    if relative < 2.0**-8:
        return "a step in a narrower format (TF32, bfloat16, a fast approximation), or another algorithm"
    bad = np.abs(actual - exact) > slack
    if bad.mean() < 0.5:
        return (
            f"{int(bad.sum())} of {counted(bad.size, 'element')} alone: an edge or an index, "
            "or terms left out there"
        )
    return "another function: terms left out, or a wrong operand"
