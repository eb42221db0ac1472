"""Where the error comes from: the shares that the places of the user's code have in its variance.

Errors are small, so the error of an output is the sum of those that the steps make, each times the
derivative by it.  For random signs z on the elements of an output, the adjoint of an element squared times
the variance of the error made there is, on average over z, what that element adds to the mean square of the
output's error, in the 2-norm.  One sweep backwards gives it for all elements of all steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import instance, whole
from roundoff.arithmetic import walk
from roundoff.arithmetic.adjoints import adjoints, keeping_all, leading_to
from roundoff.arithmetic.errors_made import ErrorsMade
from roundoff.errors import ArgumentError
from roundoff.gradients.kept import Kept, Run, runs_kept
from roundoff.gradients.native import native_gradients
from roundoff.gradients.prediction import (
    SAMPLES,
    predictions_of_trace,
    usual_kernels,
)
from roundoff.gradients.problem import Problem
from roundoff.gradients.reference import is_large, reference_of_trace
from roundoff.numbers.accuracy import normwise
from roundoff.numbers.formats import Format, as_format
from roundoff.trace.source import Source
from roundoff.trace.steps import Rounded, Step, Trace
from roundoff.words import counted

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]

#: How many random signs each element of an output gets, unless the user says otherwise; of a large trace.
SIGNS, FEW_SIGNS = 4, 1

#: All sweeps are made.
MOST_SIGNS = 10_000

#: What sources are told by, from the coarsest.
PARTS = ("module", "line", "operation", "phase")

#: How many sources are printed.
_SHOWN = 12


@dataclass(frozen=True, order=True)
class Site:
    """A source and the ATen operation that it asks for; "rounded literal" for a constant in between."""

    source: Source
    operation: str

    @property
    def parts(self) -> tuple[str, str, str, str]:
        """In the order of PARTS."""
        return self.source.module, self.source.line, self.operation, self.source.phase

    def __str__(self) -> str:
        return f"{self.operation} ({self.source.phase}) in {self.source.place}"

    @classmethod
    def of_row(cls, row: Mapping[Any, Any]) -> Site:
        """That of a row of `Attribution.table`."""
        module, line, operation, phase = (str(row[part]) for part in PARTS)
        return cls(Source(module, line, phase == "backward"), operation)

    def named(self, name: str) -> bool:
        """Whether a name is one of the parts, or that of a module around this one's."""
        module = self.source.module
        return name in self.parts or module.startswith(name + ".")


class Attribution:
    """The shares of sites in the errors of gradients, and of the output.

    table: one row per gradient and site: gradient, PARTS, share (of the mean square of the error's 2-norm),
    error (its root, over u times the 2-norm of the gradient).  sizes: those norms.
    """

    def __init__(
        self,
        problem: Problem,
        run: Run,
        format: Format,
        squares: Mapping[str, Mapping[Site, float]],
        sizes: Mapping[str, float],
        signs: int,
        seed: int,
    ) -> None:
        self.problem, self.run, self.format = problem, run, format
        self.signs, self.seed = signs, seed
        self._squares, self.sizes = squares, sizes

    @cached_property
    def table(self) -> pd.DataFrame:
        """See the class."""
        import pandas as pd

        rows = []
        for gradient, squares in self._squares.items():
            whole_square = sum(squares.values())
            unit = self.format.u * self.sizes[gradient]
            for site, square in sorted(squares.items(), key=lambda item: -item[1]):
                error = np.sqrt(square) / unit if unit else np.inf
                rows.append((gradient, *site.parts, square / whole_square, error))
        return pd.DataFrame(rows, columns=["gradient", *PARTS, "share", "error"])

    def by(self, *parts: str) -> pd.DataFrame:
        """The shares by fewer parts, as by("module") or by("operation", "phase"), in all gradients alike.

        Columns: the parts, share (the mean over gradients), and one per gradient with its share; the
        largest first.
        Raises: ArgumentError for what is none of PARTS.
        """
        for part in parts:
            if part not in PARTS:
                raise ArgumentError(f"by({part!r}): take some of {', '.join(PARTS)}")
        names = list(parts or PARTS)
        shares = self.table.pivot_table("share", names, "gradient", aggfunc="sum", fill_value=0.0)
        shares = shares[[name for name in self._squares if name in shares]]
        shares.insert(0, "share", shares.mean(axis=1))
        shares.columns.name = None
        return shares.sort_values("share", ascending=False).reset_index()

    @property
    def sites(self) -> list[Site]:
        """All sites, in the order of the code's parts."""
        return sorted({site for squares in self._squares.values() for site in squares})

    def elements(self, gradient: str, name: str) -> list[tuple[Site, Array]]:
        """Per step at the sites of a name, what each of its elements adds to the mean square of a gradient's
        error: for a heat map.  Shapes: those of the steps' results.

        Raises: ArgumentError where there is none.
        """
        if gradient not in self._squares:
            raise ArgumentError(
                f"no gradient {gradient!r}; there are {', '.join(map(repr, self._squares))}"
            )
        self._chosen(name)
        trace = self.problem.trace(self.format)
        found = _Contributions(trace, self.problem.rounded(self.format), self.format)
        each: dict[int, Array] = {}
        for number, squares in found.sampled(gradient, self.signs, self.seed):
            each[number] = each.get(number, 0.0) + squares / self.signs
        return [
            (site, squares)
            for number, squares in sorted(each.items())
            if (site := _site(trace.steps[number])).named(name)
        ]

    def keep(self, name: str, format: Any = "float32", *, verify: bool = False) -> Kept:
        """What the errors become if one source alone runs in a wider format, and its results stay in that.

        name: of a module (with all in it), a line, an ATen operation, or "forward" or "backward".
        Predicted; verify: also run so by PyTorch, and compared with the reference.

        Raises: ArgumentError where the name names nothing, or the format holds no more than the old one.
        """
        target = as_format(format)
        if target.precision <= self.format.precision:
            raise ArgumentError(
                f"keep {name!r} in {target}: it is no wider than {self.format}; take a wider format"
            )
        self._chosen(name)
        problem, old = self.problem, self.format
        trace = problem.trace(old)
        wider = replace(
            trace, steps=tuple(_in_format(step, name, target, old) for step in trace.steps)
        )
        predicted = {
            which: predictions_of_trace(
                of, problem.rounded(old), old, kernels=usual_kernels(of, old), samples=SAMPLES
            )
            for which, of in (("before", trace), ("after", wider))
        }
        measured = self._measured(name, target) if verify else {}
        return Kept(name, old, target, predicted["before"], predicted["after"], measured)

    def _measured(self, name: str, target: Format) -> dict[str, tuple[float, float]]:
        """By gradient the errors of PyTorch's results in u, as they are and with the source kept."""
        old = self.format
        before, after = runs_kept(
            self.run, name, lambda source, operation: Site(source, operation).named(name), target
        )
        reference = reference_of_trace(
            self.problem.trace(old), self.problem.rounded(old), format=old
        )
        found = {}
        for gradient in self._squares:
            of = reference[gradient]
            one, two = (
                normwise(np.where(of.known, each[gradient], 0.0), of.high, of.low) / old.u
                for each in (before, after)
            )
            found[gradient] = one, two
        return found

    def _chosen(self, name: str) -> list[Site]:
        instance("the source", name, str, "the name of a module, a line, an operation or a phase")
        chosen = [site for site in self.sites if site.named(name)]
        if not chosen:
            known = sorted({part for site in self.sites for part in site.parts if part})
            raise ArgumentError(f"no source is called {name!r}; there are {', '.join(known)}")
        return chosen

    def __str__(self) -> str:
        found = self.by()
        lines = [
            f"shares in the errors of {counted(len(self._squares), 'result')} in {self.format} "
            f"(mean over them; {counted(self.signs, 'random sign')})"
        ]
        for row in found.head(_SHOWN).to_dict("records"):
            lines.append(f"  {row['share']:6.1%}  {Site.of_row(row)}")
        rest = found["share"][_SHOWN:]
        if len(rest):
            lines.append(f"  {rest.sum():6.1%}  {len(rest)} others")
        return "\n".join(lines)


def attribute(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    loss: Callable[..., Any] | None = None,
    upstream: Any = None,
    *,
    format: Any = "float32",
    signs: int | None = None,
    seed: int = 0,
    output: Any = None,
) -> Attribution:
    """Where the errors of the gradients of loss(function(**inputs)), and of the output, come from.

    Shares are by module, line, ATen operation and phase (forward or backward), as `predict` models the
    roundings, at first order; signs: with how many random signs per element of a result they are estimated
    (those of single elements need many, those of tensors few: default 4, of a large trace 1).

    Raises: ArgumentError for arguments that do not fit; UnsupportedError for what cannot be traced.
    """
    if signs is not None:
        whole("signs", signs, 1, MOST_SIGNS)
    whole("seed", seed, 0)
    problem = Problem(function, inputs, wrt, loss, upstream, output, forward=True)
    target = as_format(format)
    trace = problem.trace(target)
    signs = signs or (FEW_SIGNS if is_large(trace) else SIGNS)
    contributions = _Contributions(trace, problem.rounded(target), target)
    squares: dict[str, dict[Site, float]] = {}
    for name in trace.outputs:
        found: dict[Site, float] = {}
        for number, each in contributions.sampled(name, signs, seed):
            site = _site(trace.steps[number])
            found[site] = found.get(site, 0.0) + float(each.sum()) / signs
        squares[name] = {site: square for site, square in found.items() if square}
    run = partial(
        native_gradients,
        function,
        inputs,
        wrt,
        loss,
        upstream,
        format=target,
        output=output,
        forward=True,
    )
    return Attribution(problem, run, target, squares, contributions.sizes, signs, seed)


class _Contributions:
    """What the elements of steps add to the mean square of outputs' errors."""

    def __init__(self, trace: Trace, inputs: Mapping[str, Array], format: Format) -> None:
        self.trace, self.made = trace, dict[int, Any]()
        arithmetic = ErrorsMade(format, kernels=usual_kernels(trace, format), made=self.made)
        found = walk(keeping_all(trace), arithmetic, inputs)
        self.values = [np.asarray(each.value) for each in found.values()]
        self.wanted = leading_to(trace, lambda step: id(step) in self.made)
        self.sizes = {
            name: float(np.linalg.norm(self.values[number]))
            for name, number in trace.outputs.items()
        }

    def sampled(self, output: str, signs: int, seed: int) -> Iterable[tuple[int, Array]]:
        """Step numbers with the squares of one sample, every step `signs` times."""
        chosen = np.random.default_rng([seed, list(self.trace.outputs).index(output)])
        shape = self.trace.shape(output)
        for _ in range(signs):
            signs_of = np.asarray(chosen.integers(0, 2, shape) * 2.0 - 1.0, np.float64)
            weights = {output: signs_of}
            for number, g in adjoints(self.trace, self.values, weights, self.wanted):
                variance = self.made.get(id(self.trace.steps[number]))
                if variance is not None:
                    yield number, self._squares(number, g, variance)

    def _squares(self, number: int, g: Array, variance: Any) -> Array:
        """Elements that are all one number have one error: what they add is that of their sum."""
        value = self.values[number]
        if value.size > 1 and value.flat[0] == value.flat[-1] and np.all(value == value.flat[0]):
            g = np.full(g.shape, g.sum() / np.sqrt(g.size))
        squares: Array = g * g * variance
        return squares


def _site(step: Step) -> Site:
    assert isinstance(step, Rounded)
    return Site(step.source or Source(), step.kernel or "rounded literal")


def _in_format(step: Step, name: str, target: Format, old: Format) -> Step:
    """A step in a wider format, if it has the name and is computed in the old one or a narrower."""
    if not isinstance(step, Rounded) or not _site(step).named(name):
        return step
    own = old if step.format is None else as_format(step.format)
    return replace(step, format=target.name) if own.precision < target.precision else step
