"""The error that rounding makes here, predicted: from a few walks with random roundings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from roundoff.arguments import described, instance, whole
from roundoff.arithmetic import walk
from roundoff.arithmetic.random_roundings import (
    AMPLIFIED,
    Drawing,
    Plain,
    RandomRoundings,
    is_wide,
    kinds_of_formats,
)
from roundoff.errors import ArgumentError
from roundoff.gradients.problem import Problem
from roundoff.kernels.facts import Kernels
from roundoff.numbers.formats import Format, as_format
from roundoff.orders import OneTree, Order
from roundoff.trace.steps import Contract, Map, Move, Reduce, Step, Trace
from roundoff.words import counted

Array = npt.NDArray[np.float64]

#: How many samples are drawn unless the user says otherwise.
SAMPLES = 16

#: All are kept.
MOST_SAMPLES = 10_000

#: Of the interval of the median.
CONFIDENCE = 0.95


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The predicted error of one gradient, or of the output.

    drawn: (samples, *shape), one sample of the error of every element each; value: what they are errors of,
    in float64.  Errors of one sample belong together: their correlations are those that rounding makes.
    branch: per sample, the kernel at which rounding takes another branch (a ReLU near zero, a maximum of near
    equals), or ""; tiny: a kernel with numbers below float32's smallest normal one, which it may flush to
    zero, or "".
    """

    name: str
    format: Format
    value: Array
    drawn: Array
    branch: tuple[str, ...] = ()
    tiny: str = ""

    @cached_property
    def errors(self) -> Array:
        """The samples that take the same branches everywhere; all, if most do not."""
        same = np.array([not branch for branch in self.branch], np.bool_)
        some = 2 * same.sum() > len(self.drawn) and not same.all()
        return self.drawn[same] if some else self.drawn

    @property
    def samples(self) -> int:
        """How many `errors` there are."""
        return len(self.errors)

    @cached_property
    def rms(self) -> Array:
        """Root mean square of the error, per element; infinite where a sample is not finite."""
        with np.errstate(all="ignore"):
            total = np.zeros(self.value.shape)
            for error in self.errors:
                total += np.square(error)
            size = np.sqrt(total / self.samples)
        return np.where(np.isfinite(size), size, np.inf)

    @cached_property
    def norms(self) -> Array:
        """The 2-norm of the error over all elements, per sample, in units of u times that of the value."""
        with np.errstate(all="ignore"):
            size = np.sqrt(np.square(self.value).sum())
            sums = np.array([np.square(error).sum() for error in self.errors])
            found: Array = np.sqrt(sums) / (self.format.u * size)
        return np.where(np.isnan(found), np.where(np.isfinite(size), 0.0, np.inf), found)

    @property
    def normwise(self) -> tuple[float, float, float]:
        """The median of `norms` and its distribution-free interval, 95 % or as much as the samples carry.

        Source: order statistics: between the k-th smallest and the k-th largest of n, the median lies with
        probability 1 - 2 P(Bin(n, 1/2) < k).
        """
        n, ordered = self.samples, np.sort(self.norms)
        k = int(max(1, stats.binom.ppf((1 - CONFIDENCE) / 2, n, 0.5)))
        return float(np.median(ordered)), float(ordered[k - 1]), float(ordered[n - k])

    def quantile(self, q: float) -> Array:
        """What the magnitude of each element's error exceeds with probability 1 - q.

        By Student's t with as many degrees of freedom as there are samples: exact for normal errors, their
        root mean square being estimated.

        Raises: ArgumentError unless q is in (0, 1).
        """
        if not 0 < q < 1:
            raise ArgumentError(f"q = {q!r} is no probability; take one in (0, 1)")
        factor = stats.t.ppf((1 + q) / 2, self.samples)
        return np.where(self.rms == 0, 0.0, factor * self.rms)

    def __repr__(self) -> str:
        return f"<{self}>"

    def __str__(self) -> str:
        median, low, high = self.normwise
        u = f"u of {self.format}"
        sure = 1 / np.sqrt(2 * self.samples)
        others = len(self.drawn) - self.samples
        aside = f", {others} more that take another branch set aside" if others else ""
        return (
            f"{self.name}: predicted error in the 2-norm {median:.3g} {u} (median of "
            f"{counted(self.samples, 'sample')}{aside}, between {low:.3g} and {high:.3g}); of elements "
            f"up to {np.max(self.rms, initial=0.0):.3g} root mean square, each known to about {sure:.0%}"
        )


def predict(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    loss: Callable[..., Any] | None = None,
    upstream: Any = None,
    *,
    format: Any = "float32",
    accumulate: Any = None,
    order: Any = None,
    samples: int = SAMPLES,
    seed: int = 0,
    output: Any = None,
    trees: Mapping[str, Any] | None = None,
) -> dict[str, Prediction]:
    """The error that rounding makes of every gradient of loss(function(**inputs)), and of the output.

    The trace is walked `samples` times in float64 with every rounding replaced by a random error of its
    size: an estimate, not a bound.  16-bit kernels compute in float32 and round once, unless a probe showed
    otherwise; sums err by the partial sums of their kernel's usual shape.  With accumulate or order, kernels
    are those so described, as in `gradient_bounds`: every step rounds.  trees: by gradient, what
    `reveal_gradient` recovered of its sum, in place of the usual shape.  What overflows in the format is
    predicted as if it did not.

    Shapes: per gradient those of the input; the output's is called "output".
    Raises: ArgumentError for arguments that do not fit; UnsupportedError for what cannot be traced.
    """
    whole("samples", samples, 2, MOST_SAMPLES)
    whole("seed", seed, 0)
    problem = Problem(function, inputs, wrt, loss, upstream, output, forward=True)
    if trees is not None:
        instance("trees", trees, Mapping, "what reveal_gradient recovered, by gradient")
    trace, target = problem.trace(format), as_format(format)
    orders = {
        id(_sum_of(trace, name)): _as_order(name, tree) for name, tree in (trees or {}).items()
    }
    described = accumulate is not None or order is not None
    return predictions_of_trace(
        trace, problem.rounded(target), target, accumulate=accumulate, order=order,
        kernels=None if described else usual_kernels(trace, target), samples=samples, seed=seed,
        orders=orders,
    )  # fmt: skip


def _sum_of(trace: Trace, name: str) -> Step:
    """The sum that a gradient is, up to moves.  Raises: ArgumentError where it is none."""
    if name not in trace.outputs:
        raise ArgumentError(f"trees names {name!r}; the results are {', '.join(trace.outputs)}")
    step = trace.steps[trace.outputs[name]]
    while isinstance(step, Move) and len(step.operands) == 1:
        step = trace.steps[step.operands[0]]
    if not isinstance(step, Reduce | Contract):
        raise ArgumentError(f"the gradient by {name} is no single sum; leave it out of trees")
    return step


def _as_order(name: str, tree: Any) -> OneTree:
    """Of what was recovered, or of a tree with its roundings.

    Raises: ArgumentError where it is neither; UndecidedError where several trees were recovered.
    """
    kernel = getattr(tree, "kernel", tree)
    if not (hasattr(kernel, "tree") and hasattr(kernel, "fused")):
        raise ArgumentError(
            f"the tree of {name} is {described(tree)}; give what ro.reveal_gradient returned"
        )
    return OneTree(f"the tree of {name}", lambda n: kernel.tree, bool(np.any(kernel.fused)))


def usual_kernels(
    trace: Trace, format: Format, accumulate: Any = None, device: Any = "cpu"
) -> Kernels | None:
    """The kernels that carry out a trace here, as they usually are where no probe has shown it; None where
    torch has none.

    accumulate: the format of their sums, where the user states it.
    """
    import torch

    from roundoff.kernels.usual import Usual

    dtype = format.torch_dtype
    if dtype is None or dtype.itemsize < 2:
        return None
    return Usual(trace, format, accumulate, here=torch.device(device).type == "cpu")


def predictions_of_trace(
    trace: Trace,
    inputs: Mapping[str, Array],
    format: Format,
    *,
    accumulate: Any = None,
    order: Any = None,
    kernels: Kernels | None = None,
    samples: int = SAMPLES,
    seed: int = 0,
    times: float = 1.0,
    orders: Mapping[int, Order] | None = None,
) -> dict[str, Prediction]:
    """The predictions of every output of a pruned trace, for inputs that are numbers of the format.

    times: of errors so many times as large; orders: of the sums of steps, by the step's id.
    """
    plain, kinds = Plain(), kinds_of_formats(trace, format)

    def one(drawing: Drawing) -> dict[str, Array]:
        arithmetic = RandomRoundings(format, order, accumulate, kernels, drawing)
        found = walk(trace, arithmetic, inputs)
        return {name: np.asarray(each.value, np.float64) for name, each in found.items()}

    exact = one(Drawing(None, plain, orders=orders or {}))
    errors = {name: np.zeros((samples, *trace.shape(name))) for name in exact}
    branch: list[str] = []
    for k in range(samples):
        key = np.random.default_rng([seed, k]).integers(1 << 62, dtype=np.uint64)
        branches: list[Map] = []
        for wide in kinds:
            amplified = AMPLIFIED if wide else 1.0
            errs = partial(_is_of_kind, wide)
            drawing = Drawing(key, plain, times * amplified, errs, orders or {}, branches)
            for name, drawn in one(drawing).items():
                errors[name][k] += _apart(drawn, exact[name]) / amplified
        branch.append(branches[0].kernel or "a comparison" if branches else "")
    tiny = (plain.tiny[0].kernel or "a step") if plain.tiny else ""
    return {n: Prediction(n, format, exact[n], errors[n], tuple(branch), tiny) for n in exact}


def _apart(drawn: Array, exact: Array) -> Array:
    """The difference; none of equal infinities."""
    with np.errstate(invalid="ignore"):
        gap: Array = drawn - exact
    if not np.isfinite(gap).all():
        gap = np.where(drawn == exact, 0.0, gap)
    return gap


def _is_of_kind(wide: bool, format: Format) -> bool:
    return is_wide(format) == wide
