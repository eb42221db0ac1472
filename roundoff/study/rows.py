"""The rows of one problem in one format: errors, pairs of methods, elements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from roundoff.arithmetic.simulated import Simulated, simulate
from roundoff.bounds import Bound
from roundoff.gradients.bounds import bounds_of_trace
from roundoff.gradients.inputs import round_inputs
from roundoff.gradients.native import as_native, native_gradients
from roundoff.gradients.reference import Reference
from roundoff.judging.comparison.equality import off_kinks
from roundoff.judging.comparison.points import Points
from roundoff.judging.evidence import FAILURE, evidence_of_trace, tolerance_pair
from roundoff.judging.verdict import Judgement, Verdict, equal_bits, judge, normwise_errors
from roundoff.numbers import accuracy, statistics
from roundoff.numbers.formats import FLOAT32, Format, round_to, spacing
from roundoff.study.two_methods import Inputs, TwoMethods
from roundoff.trace import UPSTREAM, Input

Array = npt.NDArray[np.float64]
Tables = dict[str, pd.DataFrame]

TABLES = ("errors", "pairs", "elements", "reads")


class CellRows:
    """References, native and simulated gradients of a cell, and the rows made of them."""

    def __init__(
        self, problem: TwoMethods, format: Format, seeds: range, orders: Sequence[str], base: int
    ) -> None:
        self.problem, self.format, self.orders, self.base = problem, format, orders, base
        self.names = problem.names
        self.seeds = np.array(seeds)
        self.inputs = [problem.inputs(base, seed) for seed in self.seeds.tolist()]
        traces = problem.traces(format)
        self.evidence = {
            name: [evidence_of_trace(trace, each, format) for each in self.inputs]
            for name, trace in traces.items()
        }
        second = traces[self.names[1]]
        rounded = [round_inputs(second, each, format) for each in self.inputs]
        self.stated = [bounds_of_trace(second, r, format, order="sequential") for r in rounded]
        # What simulated kernels, which sum in the format, cannot exceed in any order.
        self.described = [bounds_of_trace(second, r, format) for r in rounded]
        self._stacks: dict[tuple[str, str], list[Array]] = {}
        self.native = {name: self._native(name, self.inputs) for name in self.names}

    @np.errstate(invalid="ignore", divide="ignore", over="ignore")  # infinities are counted
    def tables(self) -> Tables:
        errors = [*self._native_rows(), *self._permuted_rows(), *self._simulated_rows()]
        return {
            "errors": self._frame(**_stacked(errors, len(self.seeds))),
            "pairs": pd.concat(self._pair_rows(), ignore_index=True),
            "elements": self._element_rows(),
            "reads": self._read_rows(),
        }

    def _native(self, method: str, inputs: Sequence[Inputs]) -> dict[str, Array]:
        """Gradients by name; shapes (seeds, *shape)."""
        problem, found = self.problem, []
        for each in inputs:
            arguments = {name: v for name, v in each.items() if name != UPSTREAM}
            found.append(
                native_gradients(
                    problem.methods[method], arguments, problem.wrt, problem.loss,
                    each.get(UPSTREAM), format=self.format,
                )
            )  # fmt: skip
        return {name: np.stack([each[name] for each in found]) for name in problem.wrt}

    def _native_rows(self) -> Iterator[dict[str, Any]]:
        for method in self.names:
            yield from self._errors(method, "native", "", self.native[method])

    def _permuted_rows(self) -> Iterator[dict[str, Any]]:
        problem, base = self.problem, self.base
        for stream, (order, permute) in enumerate(problem.permutations.items(), 1):
            shuffled = [
                permute(each, problem.generator(base, seed, stream))
                for each, seed in zip(self.inputs, self.seeds.tolist(), strict=True)
            ]
            for method in self.names:
                yield from self._errors(method, order, "", self._native(method, shuffled))

    def _simulated_rows(self) -> Iterator[dict[str, Any]]:
        stacked = {
            name: np.stack([round_to(each[name], self.format) for each in self.inputs])
            for name in self.inputs[0]
        }
        traces = self.problem.traces(self.format)
        for wide in accumulators(self.format):
            for order in self.orders:
                arithmetic = Simulated(self.format, order, wide)
                for method in self.names:
                    found = simulate(traces[method], arithmetic, stacked)
                    yield from self._errors(method, order, str(wide), found)

    def _errors(
        self, method: str, order: str, accumulate: str, computed: Mapping[str, Array]
    ) -> Iterator[dict[str, Any]]:
        """Columns of the rows of one order, a value per seed or one for all."""
        for gradient, values in computed.items():
            high, low, scale = self._reference(method, gradient)
            found = accuracy.errors(values, high, low, scale, self.format)
            flat = {
                name: getattr(found, name).reshape(len(values), -1)
                for name in ("ulp", "relative", "scaled", "overflow", "nan")
            }
            ulp, scaled = statistics.summarise(np.abs(flat["ulp"])), flat["scaled"]
            size = statistics.summarise(np.abs(scaled))
            yield {
                "gradient": gradient,
                "method": method,
                "order": order,
                "accumulate": accumulate,
                "seed": self.seeds,
                "size": scaled.shape[1],
                "max_ulp": ulp.maximum,
                "median_ulp": ulp.median,
                "max_relative": statistics.summarise(np.abs(flat["relative"])).maximum,
                "max_scaled": size.maximum,
                "rms_scaled": size.rms,
                "mean_scaled": statistics.summarise(scaled).mean,
                "normwise": accuracy.normwise_rows(values, high, low),
                "overflow": flat["overflow"].sum(axis=1),
                "nan": flat["nan"].sum(axis=1),
            }

    def _frame(self, **columns: Any) -> pd.DataFrame:
        problem = self.problem
        labels = {"case": problem.case, "shape": problem.shape, "n": problem.n}
        return pd.DataFrame({**labels, "format": str(self.format), **columns})

    def _reference(self, method: str, gradient: str) -> list[Array]:
        """high, low and scale of all seeds."""
        if (method, gradient) not in self._stacks:
            found = [each.reference[gradient] for each in self.evidence[method]]
            parts = ("high", "low", "scale")
            self._stacks[method, gradient] = [
                np.stack([getattr(g, p) for g in found]) for p in parts
            ]
        return self._stacks[method, gradient]

    def _pair_rows(self) -> list[pd.DataFrame]:
        frames = []
        for gradient in self.problem.wrt:
            rows = [self._pair(gradient, k) for k in range(len(self.seeds))]
            frames.append(self._frame(gradient=gradient, seed=self.seeds, **_columns(rows)))
        return frames

    def _pair(self, gradient: str, k: int) -> dict[str, Any]:
        of = {name: self.evidence[name][k] for name in self.names}
        one, two = (of[name].of(gradient, name, self.native[name][gradient][k]) for name in of)
        a, b, first, second = one.computed, two.computed, one.reference, two.reference
        bounds, equal = [one.bound, two.bound], equal_bits(a, b)
        known = first.known & second.known
        judgement = judge(one, two)
        if judgement.verdict == Verdict.DIFFERENT:
            judgement = self._off_kinks(gradient, judgement, k)
        rtol, atol = tolerance_pair(one, two)
        normwise = normwise_errors((a, b), (first, second), exact=one.exact and two.exact)
        apart = accuracy.ulp_between(a, b, self.format)
        errors = [
            accuracy.errors(v, r.high, r.low, r.scale, self.format)
            for v, r in ((a, first), (b, second))
        ]
        return {
            "verdict": str(judgement.verdict),
            "reason": judgement.reason,
            "bitwise_equal": bool(equal.all()),
            "fraction_equal": float(equal.mean()),
            "max_ulp_between": _largest(apart),
            "max_scaled_between": _largest(np.abs(errors[0].scaled - errors[1].scaled)),
            **passes(a, b, self.format),
            **dict(zip(("normwise_first", "normwise_second"), normwise, strict=True)),
            "rms_first": float(statistics.summarise(errors[0].scaled.ravel()).rms),
            "rms_second": float(statistics.summarise(errors[1].scaled.ravel()).rms),
            "reference_engine": _engine(of[one.name].reference),
            "reference_radius": _radius(of[one.name].reference, gradient, self.format),
            "reference_gap": _largest(np.abs(first.high - second.high) / first.scale),
            **_bound_columns(bounds, np.where(known, first.scale, np.nan)),
            **_described_columns(self.described[k][gradient], second.scale),
            "rtol": rtol,
            "atol": atol,
            "bound_loop": _largest(
                self.stated[k][gradient].certain / _unit(self.format, second.scale)
            ),
            **_ratios(bounds, errors),
        }

    def _off_kinks(self, gradient: str, judgement: Judgement, k: int) -> Judgement:
        values, problem = self.inputs[k], self.problem
        stream = 1 + len(problem.permutations)
        generator = problem.generator(self.base, int(self.seeds[k]), stream)
        points = Points(values, values, problem.wrt, generator)
        traces = list(problem.traces(self.format).values())
        return off_kinks({gradient: judgement}, traces, values, points, self.format)[gradient]

    def _element_rows(self) -> pd.DataFrame:
        """The elements of the first seed of all."""
        frames = []
        if self.seeds[0] == 0:
            for method in self.names:
                for gradient in self.problem.wrt:
                    frames.append(self._elements(method, gradient))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def _read_rows(self) -> pd.DataFrame:
        """Which positions along the last axis of each input the exact gradients depend on, by structure."""
        if self.seeds[0] != 0:
            return pd.DataFrame()
        rows = []
        for method, trace in self.problem.traces(self.format).items():
            for step in trace.steps:
                if isinstance(step, Input):
                    length = np.shape(self.inputs[0][step.name])[-1]
                    kept = np.arange(length) if step.kept is None else np.unique(step.kept % length)
                    rows.append((method, step.name, length, len(kept), ranges(kept.tolist())))
        columns = dict(
            zip(
                ("method", "input", "length", "count", "positions"),
                zip(*rows, strict=True),
                strict=True,
            )
        )
        return self._frame(**columns)

    def _elements(self, method: str, gradient: str) -> pd.DataFrame:
        reference = self.evidence[method][0].reference[gradient]
        values = self.native[method][gradient][0]
        found = accuracy.errors(values, reference.high, reference.low, reference.scale, self.format)
        number = np.arange(values.size)
        columns = values.size // max(1, values.shape[0]) if values.ndim else 1
        return self._frame(
            gradient=gradient,
            seed=0,
            method=method,
            element=number,
            i=number // columns,
            j=number % columns,
            exact=reference.high.ravel(),
            scale=reference.scale.ravel(),
            error_ulp=found.ulp.ravel(),
            error_scaled=found.scaled.ravel(),
        )


def ranges(numbers: Sequence[int]) -> str:
    """Ascending numbers as runs.

    >>> ranges([0, 1, 2, 5, 7, 8])
    '0 to 2, 5, 7 to 8'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)


def accumulators(format: Format) -> tuple[Format, ...]:
    """The accumulators that a study simulates: the format itself, and float32 for narrower ones."""
    return (format, FLOAT32) if format.precision < FLOAT32.precision else (format,)


def passes(a: Array, b: Array, format: Format) -> dict[str, Any]:
    """What torch's own checks say, by default tolerances, on tensors of the format's dtype."""
    import torch

    first, second = as_native(a, format), as_native(b, format)
    close = torch.isclose(first, second)
    try:
        torch.testing.assert_close(first, second, equal_nan=False)
        asserted = True
    except AssertionError:
        asserted = False
    return {
        "allclose": bool(close.all()),
        "fraction_allclose": float(close.double().mean()),
        "assert_close": asserted,
    }


def _bound_columns(bounds: Sequence[Bound], scale: Array) -> dict[str, float]:
    likely = np.maximum(*(bound.likely(FAILURE) for bound in bounds))
    certain = np.maximum(*(bound.certain for bound in bounds))
    unit = _unit(bounds[0].format, scale)
    return {
        "bound_probabilistic": _largest(likely / unit),
        "bound_certified": _largest(certain / unit),
        "bound_expected": _largest(np.maximum(*(np.asarray(b.expected) for b in bounds)) / unit),
    }


def _described_columns(bound: Bound, scale: Array) -> dict[str, float]:
    """For kernels that sum in the format, in any order."""
    unit = _unit(bound.format, scale)
    return {
        "described_probabilistic": _largest(bound.likely(FAILURE) / unit),
        "described_certified": _largest(bound.certain / unit),
        "described_expected": _largest(np.asarray(bound.expected) / unit),
    }


def _unit(format: Format, scale: Array) -> Array:
    return format.u * np.where(scale > 0, scale, np.nan)


def _ratios(bounds: Sequence[Bound], errors: Sequence[accuracy.Errors]) -> dict[str, float]:
    """The largest |error| / bound of both sides; NaN where there is no finite bound, or none but 0."""
    found = {}
    for name, of in (
        ("certified", [b.certain for b in bounds]),
        ("probabilistic", [b.likely(FAILURE) for b in bounds]),
        ("expected", [np.asarray(b.expected) for b in bounds]),
    ):
        parts = [
            np.abs(e.absolute) / np.where((v > 0) & np.isfinite(v), v, np.nan)
            for e, v in zip(errors, of, strict=True)
        ]
        found[f"ratio_{name}"] = _largest(np.concatenate([part.ravel() for part in parts]))
    return found


def _stacked(parts: Sequence[Mapping[str, Any]], length: int) -> dict[str, Array]:
    """Columns of many blocks of rows, one after the other."""
    return {
        name: np.concatenate([np.broadcast_to(np.asarray(part[name]), length) for part in parts])
        for name in parts[0]
    }


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


def _largest(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.max()) if known.size else float("nan")


def _engine(reference: Reference) -> str:
    kind = "exact" if reference.exact else "rigorous" if reference.rigorous else "estimated"
    return f"{reference.engine}, {kind}"


def _radius(reference: Reference, gradient: str, format: Format) -> float:
    found = reference[gradient]
    with np.errstate(invalid="ignore"):
        return _largest(found.error / spacing(found.high, found.low, format))
