"""Two PyTorch computations, their gradients side by side, and a verdict on each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from math import prod
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from roundoff import accuracy, statistics
from roundoff.arithmetic.ties import first_tie
from roundoff.bounding import bounds_of_trace, tolerance
from roundoff.bounds import Bound
from roundoff.errors import (
    ArgumentError,
    PrecisionError,
    RoundoffError,
    UndecidedError,
    UnsupportedError,
)
from roundoff.formats import Format, as_format
from roundoff.reference import (
    MULTIPRECISION_WORK,
    GradientReference,
    Reference,
    float64_array,
    reference_of_trace,
    round_inputs,
    spot_check,
    work,
)
from roundoff.trace import UPSTREAM, Trace, prune
from roundoff.trace.degree import degree
from roundoff.verdict import FAILURE, Judgement, Verdict, judge, judge_opaque

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]
Inputs = Mapping[str, Array]

#: The name of the function's output among the gradients.
OUTPUT = "output"

FORMATS = ("float16", "bfloat16", "float32", "float64")

#: What tracing raises where it meets something that is not made of ATen operations.
_UNTRACED = (
    RoundoffError,
    RuntimeError,
    TypeError,
    ValueError,
    AttributeError,
    NotImplementedError,
)

#: Random factors 1 + j 2^-20 take this many values.
VALUES = 1 << 20


@dataclass(frozen=True, eq=False)
class Power:
    """The smallest planted faults that a bound would have flagged in an opaque side.

    factor: 1 + 2^-k on all elements is flagged up to this k; term: a dropped term of this part of the
    sum of |terms|; swaps: of all swaps of neighbouring elements, the fraction that is flagged.
    A fault counts as flagged where it is twice the bound, so that no honest error hides it.
    """

    factor: int | None
    term: float
    swaps: float

    def __str__(self) -> str:
        factor = (
            f"a factor 1 + 2^-{self.factor}" if self.factor is not None else "no factor below 2"
        )
        return (
            f"{factor}, a dropped term of {self.term:.2g} of the sum of |terms|, "
            f"{100 * self.swaps:.0f} % of swaps of neighbours"
        )


@dataclass(frozen=True, eq=False)
class Pair:
    """One gradient in one format: what both sides returned, and what is known of it.

    references, computed, bounds: of the first and the second side; an opaque side has the other's reference
    and bound.  ratios: per seed, the normwise errors of both sides.
    """

    gradient: str
    format: Format
    judgement: Judgement
    computed: tuple[Array, Array] | None = None
    references: tuple[GradientReference, GradientReference] | None = None
    bounds: tuple[Bound, Bound] | None = None
    power: Power | None = None
    seeds: Sequence[tuple[float, float]] = ()
    engine: str = ""


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found: print it, or take `table`, `verdict` and `reason`."""

    names: tuple[str, str]
    pairs: Mapping[tuple[str, str], Pair]
    notes: tuple[str, ...]
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __getitem__(self, key: tuple[str, Any]) -> Pair:
        gradient, format = key[0], str(as_format(key[1]))
        try:
            return self.pairs[gradient, format]
        except KeyError:
            gradients = dict.fromkeys(g for g, _ in self.pairs)
            formats = dict.fromkeys(f for _, f in self.pairs)
            raise ArgumentError(
                f"no comparison of {gradient!r} in {format}; there are {', '.join(gradients)} in "
                f"{', '.join(formats)}"
            ) from None

    def verdict(self, gradient: str, format: Any) -> Verdict:
        """The verdict on one gradient (or "output") in one format."""
        return self[gradient, format].judgement.verdict

    def reason(self, gradient: str, format: Any) -> str:
        """Its reason in words."""
        return self[gradient, format].judgement.reason

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per gradient and format.

        Units: ulp_between of the format; scaled_between, bound_* in u S, S the sum of |terms| of the last
        step; error_first, error_second normwise relative, in u; ratio: the farther error over the closer.
        """
        import pandas as pd

        return pd.DataFrame([_row(pair, self.names) for pair in self.pairs.values()])

    def __str__(self) -> str:
        return _text(self)


@np.errstate(all="ignore")  # infinities are judged
def compare(
    first: Any,
    second: Any,
    inputs: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    loss: Callable[..., Any] | None = None,
    upstream: Any = None,
    *,
    formats: Sequence[Any] = FORMATS,
    output: Any = None,
    rename: Mapping[str, str] | None = None,
    accumulate: Any = None,
    device: Any = "cpu",
    points: int = 1,
    seeds: int = 0,
    seed: int = 0,
) -> Comparison:
    """Whether two computations are the same function, and whether their difference is rounding.

    first, second: functions of the inputs by name, modules (matched by parameter name; rename maps the
    first's names to the second's; both run with the first's parameters), or an opaque side: a
    function that cannot be traced, or gradients by name ("output" among them) as tensors.  loss, upstream,
    wrt as in `reference_gradients`; with neither loss nor upstream, an output that is no scalar gets a random
    upstream gradient.  output: which of several outputs, an index or a key.

    accumulate: the format of sums, where known; points: random points at which the references are
    compared besides; seeds: further random inputs, for who is closer in general; seed: of all these.

    Raises: ArgumentError for arguments that do not fit; UnsupportedError where neither side can be traced.
    """
    started = time.perf_counter()
    sides, values = _sides(first, second, dict(inputs), rename)
    problem = _Problem(sides, values, wrt, loss, upstream, output, device, seed)
    if points < 0 or seeds < 0:
        raise ArgumentError(f"points is {points} and seeds {seeds}; give counts of at least 0")
    targets = [as_format(f) for f in formats] if problem.formats is None else problem.formats
    if not targets:
        raise ArgumentError("formats is empty; give at least one")
    traced = time.perf_counter()
    elsewhere, notes = problem.elsewhere(points)
    checked = time.perf_counter()
    pairs = {}
    for target in targets:
        for pair in problem.pairs(target, elsewhere, accumulate, seeds):
            pairs[pair.gradient, str(target)] = pair
    done = time.perf_counter()
    spent = {
        "tracing": traced - started,
        "random points": checked - traced,
        "formats": done - checked,
    }
    return Comparison(
        (sides[0].name, sides[1].name), pairs, (*problem.notes, *notes), {**spent, **problem.spent}
    )


# ---------------------------------------------------------------------------------- arguments


@dataclass(frozen=True, eq=False)
class _Side:
    """function: None for tensors from elsewhere; given: those."""

    name: str
    function: Callable[..., Any] | None
    given: Mapping[str, Any] = field(default_factory=dict)


def _sides(
    first: Any, second: Any, inputs: dict[str, Any], rename: Mapping[str, str] | None
) -> tuple[tuple[_Side, _Side], dict[str, Any]]:
    import torch

    from roundoff.modules import functional

    names = {str(new): old for old, new in (rename or {}).items()}
    sides: list[_Side] = []
    parameters: dict[str, Any] = {}
    for number, each in enumerate((first, second)):
        if isinstance(each, torch.nn.Module):
            function, own = functional(each)
            if number and isinstance(first, torch.nn.Module):
                function = _renamed(function, own, parameters, names)
            else:
                parameters = own
            sides.append(_Side(type(each).__name__, function))
        elif isinstance(each, torch.Tensor):
            sides.append(_Side("tensors", None, {OUTPUT: each}))
        elif isinstance(each, Mapping):
            sides.append(_Side("tensors", None, each))
        elif callable(each):
            sides.append(_Side(_name(each), each))
        else:
            raise ArgumentError(
                f"compare got a {type(each).__name__}; give functions, modules, or tensors by name"
            )
    one, two = sides
    if one.name == two.name:
        one, two = (_Side(f"{s.name} {n}", s.function, s.given) for s, n in ((one, 1), (two, 2)))
    clash = sorted(set(parameters) & set(inputs))
    if clash:
        inputs = {**parameters, **inputs}  # the caller's own values for the parameters
    return (one, two), {**parameters, **inputs}


def _name(function: Any) -> str:
    found = getattr(function, "__name__", type(function).__name__)
    return "function" if found == "<lambda>" else str(found)


def _renamed(
    function: Callable[..., Any], own: Mapping[str, Any], first: Mapping[str, Any],
    names: Mapping[str, str],
) -> Callable[..., Any]:  # fmt: skip
    """The second module's function by the first one's parameter names."""
    source = {name: names.get(name, name) for name in own}
    for name, other in source.items():
        if other not in first or first[other].shape != own[name].shape:
            what = (
                "no such parameter" if other not in first else f"shape {tuple(first[other].shape)}"
            )
            raise ArgumentError(
                f"the second module's parameter {name!r} of shape {tuple(own[name].shape)} has no partner: "
                f"the first has {what} {other!r}; give rename={{first name: second name}}"
            )
    unused = sorted(set(first) - set(source.values()))
    if unused:
        raise ArgumentError(
            f"the first module's parameter {unused[0]!r} has no partner in the second; give "
            "rename={first name: second name}"
        )

    def renamed(**values: Any) -> Any:
        held = {name: values[other] for name, other in source.items()}
        rest = {name: value for name, value in values.items() if name not in first}
        return function(**held, **rest)

    return renamed


# --------------------------------------------------------------------------------- the problem


class _Problem:
    """Two sides with their traces, one problem."""

    def __init__(
        self, sides: tuple[_Side, _Side], inputs: dict[str, Any], wrt: Sequence[str] | None,
        loss: Callable[..., Any] | None, upstream: Any, output: Any, device: Any, seed: int,
    ) -> None:  # fmt: skip
        from roundoff.trace.capture import as_tensor, check_wrt

        self.sides, self.device = sides, device
        self.notes: list[str] = []
        self.checked: list[Trace] = []
        self.spent: dict[str, float] = {}
        self.generator = np.random.default_rng([seed, 4])
        self.inputs = {name: as_tensor(name, value) for name, value in inputs.items()}
        self.wrt = check_wrt(self.inputs, wrt)
        if OUTPUT in self.wrt:
            raise ArgumentError(f"an input is called {OUTPUT!r}, as the output is; rename it")
        self.loss, self.output = loss, output
        self.upstream = self._upstream(upstream)
        self.opaque: list[str] = []
        self.traces = [self._trace(side) for side in sides]
        if all(trace is None for trace in self.traces):
            reasons = "; ".join(self.opaque) or "no side is a function"
            raise UnsupportedError(f"neither side can be judged: {reasons}")
        self.notes += self.opaque
        first, second = self.traces
        if first is not None and second is not None and first.equals(second):
            self.traces[1] = first  # one reference, one set of bounds for both
        self.values = {name: float64_array(value) for name, value in self.inputs.items()}
        if self.upstream is not None:
            self.values[UPSTREAM] = float64_array(as_tensor(UPSTREAM, self.upstream))
        self.formats = self._formats()
        self._checked()

    def _upstream(self, upstream: Any) -> Any:
        """A random one where the output is no scalar and the caller gave nothing."""
        if self.loss is not None or upstream is not None:
            return upstream
        from roundoff.native import native_output

        shapes = {
            side.name: tuple(native_output(side.function, self.inputs, output=self.output).shape)
            for side in self.sides
            if side.function is not None
        }
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            raise ArgumentError(
                f"the outputs differ in shape ({listed}); give a loss, or make them alike"
            )
        shape = next(iter(shapes.values()), ())
        if prod(shape) == 1:
            return None
        self.notes.append("upstream gradient: random, normal (no loss was given)")
        return self.generator.standard_normal(shape).astype(np.float32).astype(np.float64)

    def _trace(self, side: _Side) -> Trace | None:
        from roundoff.trace.capture import trace_gradients

        if side.function is None:
            return None
        try:
            return prune(
                trace_gradients(
                    side.function, self.inputs, self.wrt, self.loss, self.upstream,
                    output=self.output, forward=True,
                )
            )  # fmt: skip
        except _UNTRACED as error:
            if not isinstance(error, UnsupportedError):
                self._runs(side, error)
            reason = str(error).strip().split("\n")[0]
            self.opaque.append(
                f"{side.name} is opaque, judged by the other side's reference: {reason}"
            )
            return None

    def _runs(self, side: _Side, error: Exception) -> None:
        """What cannot be traced is opaque only if PyTorch itself can run it."""
        from roundoff.native import native_gradients

        try:
            native_gradients(
                cast(Callable[..., Any], side.function), self.inputs, self.wrt, self.loss, self.upstream,
                output=self.output, device=self.device,
            )  # fmt: skip
        except RoundoffError:
            raise error from None

    def _formats(self) -> list[Format] | None:
        """Tensors from elsewhere are of one format."""
        found = {str(t.dtype).removeprefix("torch.") for s in self.sides for t in s.given.values()}
        if not found:
            return None
        if len(found) > 1:
            raise ArgumentError(
                f"the given tensors are of types {', '.join(sorted(found))}; give one type"
            )
        return [as_format(found.pop())]

    def _checked(self) -> None:
        """A function that differs between two calls is no function."""
        for side in self.sides:
            if side.function is None:
                continue
            one, two = (self._native(side, as_format("float32"), self.values) for _ in range(2))
            for name, value in one.items():
                if value.shape == two[name].shape:
                    known = np.isfinite(value) & np.isfinite(two[name])
                    size = np.abs(value[known]).max(initial=0.0)
                    if (np.abs(value - two[name])[known] <= 1e-3 * size).all():
                        continue
                raise ArgumentError(
                    f"{side.name} returns something else at every call ({name}); if it draws random "
                    "numbers, draw them outside and pass them, or seed inside with "
                    "torch.manual_seed; if it writes into its inputs or keeps state, let it copy"
                )

    def _native(self, side: _Side, target: Format, values: Inputs) -> dict[str, Array]:
        from roundoff.native import native_gradients
        from roundoff.trace.capture import as_tensor

        if side.function is None:
            return {name: float64_array(as_tensor(name, t)) for name, t in side.given.items()}
        tensors = {
            name: values[name] if tensor.is_floating_point() else tensor
            for name, tensor in self.inputs.items()
        }
        upstream = None if self.upstream is None else values[UPSTREAM]
        return native_gradients(
            side.function, tensors, self.wrt, self.loss, upstream, format=target,
            device=self.device, output=self.output, forward=True,
        )  # fmt: skip

    def varied(self, *, zeros: bool = True) -> dict[str, Array]:
        """The inputs times 1 + j 2^-20, |j| <= 2^19: signs, zeros and infinities stay.

        zeros: whether they stay, or become j 2^-30.
        """
        found = {}
        for name, value in self.values.items():
            j = self.generator.integers(-(VALUES // 2), VALUES // 2, value.shape)
            floating = name == UPSTREAM or self.inputs[name].is_floating_point()
            if floating:
                moved = value * (1.0 + j / VALUES)
                value = moved if zeros else np.where(value == 0, j * 2.0**-30, moved)
            found[name] = value
        return found

    # ----------------------------------------------------------------------------- same or not

    def elsewhere(self, points: int) -> tuple[dict[str, Judgement], list[str]]:
        """DIFFERENT by the references at random points, per gradient; and what equality there means."""
        one, two = self.traces
        if one is None or two is None or not points:
            return {}, []
        if one is two:
            return {}, [
                "both sides have the same trace: their exact gradients are equal everywhere"
            ]
        found: dict[str, Judgement] = {}
        try:
            for number in range(points):
                where = f"at random point {number + 1} "
                for name, judgement in self._apart(self.varied(), "float32", where).items():
                    found.setdefault(name, judgement)
            if found:
                found = self._off_kinks(found, self.values)
        except RoundoffError as error:
            return found, [f"no check at random points: {error}"]
        return found, self._chance(points, found)

    def _apart(self, values: Inputs, format: Any, where: str) -> dict[str, Judgement]:
        of = self._of_traces(partial(_reference, values=values, format=format))
        found = {name: _different(name, of[0], of[1], where) for name in of[0]}
        return {name: judgement for name, judgement in found.items() if judgement is not None}

    def _off_kinks(self, found: Mapping[str, Judgement], values: Inputs) -> dict[str, Judgement]:
        """UNDECIDED in place of DIFFERENT where a tie decides, and the functions agree off it."""
        ties = [
            first_tie(t, round_inputs(t, values, as_format("float64"))) for t in self.traces if t
        ]
        if not any(ties):
            return dict(found)
        apart = self._apart(self.varied(zeros=False), "float32", "")
        tie = next(tie for tie in ties if tie)
        reason = Judgement(
            Verdict.UNDECIDED,
            f"the inputs lie on a kink ({tie}), where conventions differ: the exact gradients differ there "
            "and agree at a random point beside it; move the inputs",
        )
        return {name: each if name in apart else reason for name, each in found.items()}

    def _chance(self, points: int, found: Mapping[str, Judgement]) -> list[str]:
        one, two = self.traces
        assert one is not None and two is not None
        if found:
            return []
        degrees = [degree(one), degree(two)]
        count = f"{points} random point{'s' if points > 1 else ''}"
        if any(d is None for d in degrees):
            return [f"the references agree at {count}, too"]
        most = max(d for d in degrees if d is not None)
        chance = (most / VALUES) ** points
        return [
            f"the references agree at {count}, too: two different polynomials of degree {most} do so "
            f"with probability at most {chance:.1e} (Schwartz and Zippel, {VALUES} values of each input)"
        ]

    # ---------------------------------------------------------------------------------- formats

    def pairs(
        self, target: Format, elsewhere: Mapping[str, Judgement], accumulate: Any, seeds: int
    ) -> list[Pair]:
        try:
            computed = [self._native(side, target, self.values) for side in self.sides]
            known = self._of_traces(lambda trace: self._known(trace, target, accumulate))
        except (UndecidedError, PrecisionError, UnsupportedError, ArgumentError) as error:
            reason = Judgement(Verdict.UNDECIDED, str(error))
            names = [OUTPUT, *self.wrt]
            return [Pair(name, target, elsewhere.get(name, reason)) for name in names]
        errors = self._errors_in_general(target, seeds)
        names = [n for n in (OUTPUT, *self.wrt) if n in computed[0] and n in computed[1]]
        if not names:
            raise ArgumentError(f"the given tensors name none of {OUTPUT}, {', '.join(self.wrt)}")
        return [
            self._pair(name, target, computed, known, elsewhere.get(name), errors.get(name, ()))
            for name in names
        ]

    def _of_traces(self, make: Callable[[Trace], Any]) -> list[Any]:
        """What is made of the traces of the two sides, None for an opaque one; once, if they are the same."""
        first, second = self.traces
        one = None if first is None else make(first)
        if second is first:
            return [one, one]
        return [one, None if second is None else make(second)]

    def _known(
        self, trace: Trace, target: Format, accumulate: Any
    ) -> tuple[Reference, dict[str, Bound]]:
        began = time.perf_counter()
        reference = _reference(trace, self.values, target)
        large = not trace.polynomial and work(trace) > MULTIPRECISION_WORK
        if large and OUTPUT in trace.outputs and not any(t is trace for t in self.checked):
            self.checked.append(trace)
            self._spot_check(trace, reference, target)
        middle = time.perf_counter()
        rounded = round_inputs(trace, self.values, target)
        wide = (
            None
            if accumulate is None or as_format(accumulate).precision < target.precision
            else accumulate
        )
        bounds = bounds_of_trace(trace, rounded, target, accumulate=wide)
        self.spent["references"] = self.spent.get("references", 0.0) + middle - began
        return reference, bounds

    def _spot_check(self, trace: Trace, reference: Reference, target: Format) -> None:
        """Two outputs by mpmath, too, in the first format: it is the reference of record."""
        size = reference[OUTPUT].high.size
        count = spot_check(trace, self.values, reference, OUTPUT, [0, size - 1][: min(size, 2)])
        note = (
            f"mpmath agrees with {reference.engine} on {count} of {size} outputs, the first and the "
            f"last, in {target.name}"
        )
        if note not in self.notes:
            self.notes.append(note)

    def _pair(
        self, name: str, target: Format, computed: Sequence[Mapping[str, Array]],
        known: Sequence[Any], elsewhere: Judgement | None, errors: Sequence[tuple[float, float]],
    ) -> Pair:  # fmt: skip
        one, two = (k if k is not None else known[1 - n] for n, k in enumerate(known))
        references = one[0][name], two[0][name]
        bounds = one[1][name], two[1][name]
        values = computed[0][name], computed[1][name]
        for side, value in zip(self.sides, values, strict=True):
            if value.shape != references[0].high.shape:
                raise ArgumentError(
                    f"{name!r} of {side.name} has shape {value.shape}, the reference "
                    f"{references[0].high.shape}; they must be equal"
                )
        began = time.perf_counter()
        power = None
        names = self.sides[0].name, self.sides[1].name
        if known[0] is None or known[1] is None:
            judgement = judge_opaque(references[0], *values, bounds[0], names=names)
            power = _power(references[0], bounds[0])
        else:
            judgement = judge(
                *references, *values, *bounds, names=names,
                exact=one[0].exact and two[0].exact, rigorous=one[0].rigorous and two[0].rigorous,
            )  # fmt: skip
            if judgement.verdict == Verdict.DIFFERENT and elsewhere is None:
                judgement = self._off_kinks({name: judgement}, self.values)[name]
            elif elsewhere is not None and (
                judgement.verdict != Verdict.DIFFERENT or elsewhere.verdict == Verdict.UNDECIDED
            ):
                judgement = elsewhere
        self.spent["bounds"] = self.spent.get("bounds", 0.0) + time.perf_counter() - began
        return Pair(
            name, target, judgement, values, references, bounds, power, errors,
            f"{one[0].engine}, {'exact' if one[0].exact else 'rigorous' if one[0].rigorous else 'estimated'}",
        )  # fmt: skip

    def _errors_in_general(
        self, target: Format, seeds: int
    ) -> dict[str, list[tuple[float, float]]]:
        """Normwise errors of both sides at further random inputs."""
        found: dict[str, list[tuple[float, float]]] = {}
        if any(trace is None for trace in self.traces):
            return found
        for _ in range(seeds):
            values = self.varied()
            of = self._of_traces(partial(_reference, values=values, format=target))
            computed = [self._native(side, target, values) for side in self.sides]
            for name in of[0]:
                both = [
                    accuracy.normwise(c[name], r[name].high, r[name].low)
                    for c, r in zip(computed, of, strict=True)
                ]
                found.setdefault(name, []).append((both[0], both[1]))
        return found


def _reference(trace: Trace, values: Inputs, format: Any) -> Reference:
    """A rigorous one: exact where it is a polynomial, enclosed where not."""
    engine = "auto" if trace.polynomial or work(trace) > MULTIPRECISION_WORK else "ball"
    return reference_of_trace(trace, values, format=format, engine=engine)


def _different(name: str, first: Reference, second: Reference, where: str) -> Judgement | None:
    from roundoff.verdict import different

    return different(
        first[name], second[name], exact=first.exact and second.exact,
        rigorous=first.rigorous and second.rigorous, where=where,
    )  # fmt: skip


def _power(reference: GradientReference, bound: Bound) -> Power:
    likely = 2.0 * bound.likely(FAILURE)
    with np.errstate(all="ignore"):
        relative = np.nanmin(
            np.where(reference.high != 0, likely / np.abs(reference.high), np.inf), initial=np.inf
        )
        term = np.nanmin(
            np.where(reference.terms > 0, likely / reference.terms, np.inf), initial=np.inf
        )
        factor = int(np.floor(-np.log2(max(relative, 2.0**-1000)))) if relative < 1 else None
        flat, limit = reference.high.ravel(), likely.ravel()
        swaps = np.abs(np.diff(flat)) > np.maximum(limit[1:], limit[:-1])
    return Power(factor, float(term), float(swaps.mean()) if swaps.size else 0.0)


# ------------------------------------------------------------------------------------- output


def _row(pair: Pair, names: tuple[str, str]) -> dict[str, Any]:
    row: dict[str, Any] = {
        "gradient": pair.gradient,
        "format": str(pair.format),
        "verdict": str(pair.judgement.verdict),
    }
    if pair.computed is not None and pair.references is not None and pair.bounds is not None:
        row |= _measures(pair.computed, pair.references, pair.bounds, pair.format, names)
    if pair.seeds:
        row |= _in_general(pair.seeds, names)
    return {**row, "engine": pair.engine, "reason": pair.judgement.reason}


def _measures(
    computed: tuple[Array, Array], references: tuple[GradientReference, GradientReference],
    bounds: tuple[Bound, Bound], format: Format, names: tuple[str, str],
) -> dict[str, Any]:  # fmt: skip
    (a, b), (one, two), u = computed, references, format.u
    with np.errstate(all="ignore"):
        unit = u * np.where(one.terms > 0, one.terms, np.nan)
        likely = np.maximum(*(bound.likely(FAILURE) for bound in bounds))
        certain = np.maximum(*(bound.certain for bound in bounds))
        gap = np.abs(a - b)
        errors = [accuracy.normwise(v, r.high, r.low) / u for v, r in ((a, one), (b, two))]
        closer, ratio = _closer(errors, names)
        known = np.isfinite(likely).all()
        rtol, atol = (
            tolerance(likely, np.maximum(one.terms, np.abs(one.high)), one.high)
            if known
            else (np.inf, np.inf)
        )
        return {
            "bitwise_equal": bool(accuracy.bitwise_equal(a, b).all()),
            "fraction_equal": float(accuracy.bitwise_equal(a, b).mean()),
            "ulp_between": _largest(accuracy.ulp_between(a, b, format)),
            "relative_between": _largest(gap / np.where(one.high != 0, np.abs(one.high), np.nan)),
            "scaled_between": _largest(gap / unit),
            "normwise_between": accuracy.normwise(a, b, 0.0) / u,
            "error_first": errors[0],
            "error_second": errors[1],
            "closer": closer,
            "ratio": ratio,
            "bound_certified": _largest(certain / unit),
            "bound_probabilistic": _largest(likely / unit),
            "rtol": rtol,
            "atol": atol,
        }


def _closer(errors: Sequence[float], names: tuple[str, str]) -> tuple[str, float]:
    one, two = errors
    if not (np.isfinite(one) and np.isfinite(two)) or one == two:
        return "neither", 1.0
    small, large = min(one, two), max(one, two)
    return names[0] if one < two else names[1], large / small if small else float("inf")


def _in_general(seeds: Sequence[tuple[float, float]], names: tuple[str, str]) -> dict[str, Any]:
    errors = np.array(seeds)
    test = statistics.paired(errors[:, 0], errors[:, 1], 0)
    who = {"first": names[0], "second": names[1], "neither": "neither"}[
        test.closer(test.p_value, 0.01)
    ]
    low, high = test.interval
    ratio = test.ratio
    if ratio < 1:
        ratio, low, high = 1 / ratio, 1 / high, 1 / low
    return {
        "in_general": who, "seeds": len(seeds), "ratio_in_general": ratio, "ratio_low": low,
        "ratio_high": high,
    }  # fmt: skip


def _largest(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.max()) if known.size else float("nan")


_HEAD = (
    "gradient",
    "format",
    "verdict",
    "equal",
    "max ulp",
    "error 1",
    "error 2",
    "closer",
    "bound",
)


def _text(result: Comparison) -> str:
    table = result.table.to_dict("records")
    one, two = result.names
    rows = [_HEAD, *(_cells(row, one, two) for row in table)]
    widths = [max(len(cells[k]) for cells in rows) for k in range(len(_HEAD))]
    numbered = one.endswith("1") and two.endswith("2") and one[:-1] == two[:-1]
    lines = [f"{one} against {two}" if numbered else f"{one} (1) against {two} (2)", ""]
    for cells in rows:
        left = [f"{c:<{w}}" for c, w in zip(cells[:3], widths[:3], strict=True)]
        right = [f"{c:>{w}}" for c, w in zip(cells[3:], widths[3:], strict=True)]
        lines.append("  ".join([*left, *right]))
    lines += [
        "",
        "errors: normwise relative, in u; closer: on these inputs; bound: probabilistic "
        f"({FAILURE:g} per comparison), the largest, in u times the sum of |terms|",
        *_reasons(result),
    ]
    for row in table:
        where = f"{row['gradient']}, {row['format']}"
        if row["verdict"] == Verdict.ROUNDOFF and np.isfinite(row["rtol"]):
            lines.append(f"assert_close({where}): rtol={row['rtol']:.2g}, atol={row['atol']:.2g}")
        if row.get("seeds", 0) > 0:
            lines.append(
                f"in general ({where}, {row['seeds']:.0f} seeds): closer is {row['in_general']}, ratio "
                f"{row['ratio_in_general']:.3g} (95 %: {row['ratio_low']:.3g} to {row['ratio_high']:.3g})"
            )
    return "\n".join([*lines, *(f"note: {note}" for note in result.notes)])


def _cells(row: Mapping[Any, Any], one: str, two: str) -> tuple[str, ...]:
    first = (row["gradient"], row["format"], row["verdict"])
    if np.isnan(row.get("error_first", np.nan)):
        return (*first, *["–"] * 6)
    closer, ratio = {one: "1", two: "2"}.get(row["closer"], "neither"), f"{row['ratio']:.3g}"
    return (
        *first,
        f"{100 * row['fraction_equal']:.0f} %",
        *(f"{row[name]:.3g}" for name in ("ulp_between", "error_first", "error_second")),
        "neither" if closer == "neither" or ratio == "1" else f"{closer} by {ratio}",
        f"{row['bound_probabilistic']:.3g}",
    )


def _reasons(result: Comparison) -> list[str]:
    """Each reason once, with what it is about; then the power of opaque checks."""
    of: dict[tuple[str, str], list[str]] = {}
    for (gradient, format), pair in result.pairs.items():
        key = str(pair.judgement.verdict), pair.judgement.reason
        of.setdefault(key, []).append(f"{gradient} {format}")
    lines = [f"{verdict}: {reason} [{', '.join(where)}]" for (verdict, reason), where in of.items()]
    for (gradient, format), pair in result.pairs.items():
        if pair.power is not None:
            lines.append(f"power ({gradient}, {format}): would have flagged {pair.power}")
    return lines
