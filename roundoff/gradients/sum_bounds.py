"""Bounds on sums, dot products and matrix products of given data: walks of a trace of one sum.

The trace has its inputs and one reduction or contraction.  Every theorem is a law under which `Running`
walks it; what is known of the sums is measured once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import choice, flag
from roundoff.arithmetic import walk
from roundoff.arithmetic.condition_scale import Scale
from roundoff.arithmetic.enclosed import slack
from roundoff.arithmetic.expected import Expected
from roundoff.arithmetic.running import Running
from roundoff.arithmetic.sharing import RoundedInputs
from roundoff.bounds.bound import Bound, Statement
from roundoff.bounds.statements import Kernel, Theorem, theorems_for
from roundoff.bounds.sum_laws import Law
from roundoff.bounds.theorems import MARGIN, check_failure
from roundoff.errors import ArgumentError, InapplicableError
from roundoff.numbers.formats import Format, as_float64, as_format, round_to
from roundoff.orders import Order, ReductionTree, accumulator, as_order
from roundoff.trace.steps import Builder, Contract, Reduce, Trace
from roundoff.words import counted

Array = npt.NDArray[np.float64]

ROUNDINGS = ("nearest", "stochastic", "toward_zero")


def sum(
    values: Any,
    format: Any,
    order: Any = None,
    *,
    accumulate: Any = None,
    rounding: str = "nearest",
) -> Bound:
    """Bounds on the error of sums over the last axis.

    values: numbers; those that the format does not hold are rounded to it, and the bounds include that.
    order: None for any order, else a name, an Order or a ReductionTree; accumulate: the format of the
    partial sums (default: the format), which is rounded to the format at the end; rounding: of the
    partial sums, "nearest", "stochastic" or "toward_zero".  Zero terms do not count.

    Shapes: (..., n) to (...); n may be 0.
    Raises: ArgumentError for NaN, infinities, numbers beyond the format and trees of another size.

    >>> b = sum([1.0, 2.0**60, 1.0, -(2.0**60)], "float32", "kahan")
    >>> float(b.certified) >= 2.0
    True
    """
    numbers, give_back = as_float64(values)
    _check_rank("sum", "values", numbers, 1)
    *shape, n = numbers.shape
    kernel = as_kernel(n, format, order, accumulate, rounding)
    build = Builder()
    result = build.reduce(build.reshape(build.input("values", numbers.shape), (prod(shape), n)))
    given, what = {"values": numbers}, f"a sum of {counted(n, 'term')}"
    return bound_on(what, build, result, given, kernel, tuple(shape), give_back)


def dot(
    x: Any,
    y: Any,
    format: Any,
    order: Any = None,
    *,
    accumulate: Any = None,
    fma: bool = False,
    rounding: str = "nearest",
) -> Bound:
    """Bounds on the error of dot products over the last axis; arguments as `sum`.

    Products and partial sums are kept in `accumulate`.  fma: products may enter their addition
    unrounded.  x and y broadcast.

    Shapes: (..., n) and (..., n) to (...).

    >>> b = dot([1.0, 2.0], [3.0, 4.0], "float16", accumulate="float32")
    >>> float(b.certified / b.S) < 1.001 * 2.0**-11
    True
    """
    (a, give_back), (b, _) = as_float64(x), as_float64(y)
    _check_rank("dot", "x", a, 1)
    _check_rank("dot", "y", b, 1)
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        shape = ()
    if not shape or a.shape[-1] != b.shape[-1]:
        raise ArgumentError(
            f"dot: x has shape {a.shape} and y {b.shape}; pass arrays that broadcast, with as many terms "
            "along the last axis"
        )
    n = shape[-1]
    kernel = as_kernel(n, format, order, accumulate, rounding, products=True, fma=fma)
    build = Builder()
    first, second = (build.expand(build.input(*v), shape) for v in (("x", a.shape), ("y", b.shape)))
    sums = prod(shape[:-1])
    result = build.contract(build.reshape(first, (sums, 1, n)), build.reshape(second, (sums, n, 1)))
    given = {"x": a, "y": b}
    what = f"a dot product of {counted(n, 'term')}"
    return bound_on(what, build, result, given, kernel, shape[:-1], give_back)


def matmul(
    a: Any,
    b: Any,
    format: Any,
    order: Any = None,
    *,
    accumulate: Any = None,
    fma: bool = False,
    rounding: str = "nearest",
) -> Bound:
    """Bounds on the error of every element of a @ b; arguments as `dot`.

    Valid for kernels that form each element as a sum of products in some order: not for Strassen's or
    Winograd's algorithm, which satisfy normwise bounds only.

    Shapes: (..., m, k) and (..., k, n) to (..., m, n).

    >>> matmul(np.ones((2, 3)), np.ones((3, 4)), "float32").certified.shape
    (2, 4)
    """
    (x, give_back), (y, _) = as_float64(a), as_float64(b)
    _check_rank("matmul", "a", x, 2)
    _check_rank("matmul", "b", y, 2)
    if x.shape[-1] != y.shape[-2]:
        raise ArgumentError(
            f"matmul: a has shape {x.shape} and b {y.shape}; the last axis of a has as many elements as "
            "the last but one of b"
        )
    (m, k), n = x.shape[-2:], y.shape[-1]
    kernel = as_kernel(k, format, order, accumulate, rounding, products=True, fma=fma)
    try:
        batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise ArgumentError(
            f"matmul: the leading axes of a {x.shape} and b {y.shape} do not broadcast"
        ) from None
    build = Builder()
    first, second = (
        build.reshape(
            build.expand(build.input(name, v.shape), (*batch, *v.shape[-2:])),
            (prod(batch), *v.shape[-2:]),
        )
        for name, v in (("a", x), ("b", y))
    )
    result, given = build.contract(first, second), {"a": x, "b": y}
    what = f"a matrix product over {counted(k, 'term')}"
    return bound_on(what, build, result, given, kernel, (*batch, m, n), give_back)


# ---------------------------------------------------------------------------------- the walks


def bound_on(
    what: str,
    build: Builder,
    result: int,
    given: Mapping[str, Array],
    kernel: Kernel,
    shape: tuple[int, ...],
    give_back: Callable[[Array], Any],
) -> Bound:
    """The bound on a trace of one sum: what it is in words, its steps, its result, its inputs by name."""
    values = {name: held(array, kernel.format, name) for name, array in given.items()}
    trace = Trace(tuple(build.steps), {"sums": result})
    one = _OneSum(trace, given, values, kernel, shape)
    size = prod(shape)
    many = what if size == 1 else f"{size} elements, each {what}"
    return Bound(
        many, kernel.format, kernel.wide, kernel.words, shape, tuple(one.statements()),
        one.scale(values), give_back,
    )  # fmt: skip


class _OneSum:
    """Walks of one trace; given: the inputs, values: those rounded to the format.

    What rounding the inputs changes is part of the bounds.
    """

    def __init__(
        self, trace: Trace, given: Mapping[str, Array], values: Mapping[str, Array], kernel: Kernel,
        shape: tuple[int, ...],
    ) -> None:  # fmt: skip
        self.trace, self.kernel, self.shape = trace, kernel, shape
        self.values = RoundedInputs.sharing(trace, values)
        self.changed = self._changed(given)

    def scale(self, values: Mapping[str, Array]) -> Array:
        """S of such inputs."""
        with np.errstate(all="ignore"):
            found = walk(self.trace, Scale(), values)["sums"].scale
        return np.asarray(found, np.float64).reshape(self.shape)

    def _changed(self, given: Mapping[str, Array]) -> Array:
        """One input after the other rounded: each change times the magnitudes of the others."""
        after = {name: np.abs(value) for name, value in self.values.items()}
        total = np.zeros(self.shape)
        n = max(s.leaves for s in self.trace.steps if isinstance(s, Reduce | Contract))
        for name, array in given.items():
            change = np.abs(array - self.values[name])
            if change.any():
                parts = {**after, name: change}
                total = total + self.scale(parts)
                if len(given) > 1:  # these products may underflow in float64
                    touched = self.scale({k: np.sign(v) for k, v in parts.items()}) > 0
                    total = total + np.where(touched, n * 2.0**-1071, 0.0)
            after[name] = np.abs(array)
        return total * slack(n)

    def error(self, law: Law) -> Array:
        """The bound on the error under a law."""
        kernel = self.kernel
        arithmetic = Running(
            kernel.format, kernel.order, kernel.wide, law,
            rounding=kernel.rounding, fused=kernel.fused,
        )  # fmt: skip
        found = walk(self.trace, arithmetic, self.values)["sums"]
        whole = np.broadcast_to(found.error, np.shape(found.value)).reshape(self.shape)
        return (whole + self.changed) * MARGIN

    def statements(self) -> Iterator[Statement]:
        """One per theorem, and the model."""
        for each in theorems_for(self.kernel):
            value: Any = None
            refused = each.refused
            if each.law is not None and each.kind == "probabilistic":
                value = partial(self._likely, each.law)
            elif each.law is not None:
                try:
                    value = self.error(each.law)
                    refused = self._words(each, value)
                except InapplicableError as error:
                    refused = str(error)
            yield Statement(each.name, each.kind, value, each.source, each.assumes, refused)
        yield self._expected()

    def _likely(self, law: Callable[..., Array], failure: float) -> Array:
        check_failure(failure)
        return self.error(partial(law, failure=failure, outputs=max(1, self.trace.sums)))

    def _words(self, theorem: Theorem, value: Array) -> str:
        """Why some elements have no bound, or no finite one."""
        missing, over = int(np.isnan(value).sum()), int(np.isinf(value).sum())
        if theorem.missing and missing:
            return f"{theorem.missing} in {missing} of {counted(value.size, 'element')}"
        if not over:
            return ""
        formats = dict.fromkeys((str(self.kernel.wide), str(self.kernel.format)))
        return (
            f"an overflow of {' or '.join(formats)} cannot be excluded for {over} of "
            f"{counted(value.size, 'element')}, which have no finite bound"
        )

    def _expected(self) -> Statement:
        """The root mean square by the model of `Expected`."""
        kernel = self.kernel
        if kernel.rounding != "nearest":
            refused = "the model is of rounding to nearest"
            return Statement("model", "expected", None, "", "", refused)
        arithmetic = Expected(kernel.format, kernel.order, kernel.wide, fused=kernel.fused)
        with np.errstate(all="ignore"):
            found = walk(self.trace, arithmetic, self.values)["sums"]
        lost = np.broadcast_to(found.stagnant, np.shape(found.value)).reshape(self.shape)
        value = np.where(lost, np.nan, np.sqrt(found.variance).reshape(self.shape))
        refused = ""
        if lost.any():
            refused = (
                f"withheld for {int(lost.sum())} of {counted(lost.size, 'element')}: in {kernel.wide} a "
                "partial sum can swallow half a term of mean size (stagnation), how many depends on the "
                "order; pass order="
            )
        if kernel.compensation:
            text = "the last addition alone"
        elif kernel.order is not None:
            text = "partial sums of this tree"
        else:
            text = "a plain loop over the terms in random order"
        return Statement(
            "root mean square", "expected", value, f"rms 0.42466 u per rounding, {text}",
            "uncorrelated errors, log-uniform significands", refused,
        )  # fmt: skip


# ------------------------------------------------------------------------------------ arguments


def as_kernel(
    n: int,
    format: Any,
    order: Any = None,
    accumulate: Any = None,
    rounding: str = "nearest",
    *,
    products: bool = False,
    fma: bool = False,
) -> Kernel:
    """The kernel of sums of n terms that a caller describes; the other arguments as in `dot`."""
    choice("rounding", rounding, ROUNDINGS)
    flag("fma", fma)
    target = as_format(format)
    wide = accumulator(target, accumulate)
    if isinstance(order, ReductionTree):
        tree = order
        if tree.n != n:
            raise ArgumentError(
                f"a tree of {counted(tree.n, 'leaf', 'leaves')} for {counted(n, 'term')}; make the tree "
                f"for {n}"
            )
        found: Order | None = Order("the given tree", lambda _: tree)
    else:
        found = None if order is None else as_order(order)
    fused = fma or bool(found and found.fused)
    if fma and found is not None and found.compensation:
        raise ArgumentError(
            f"order {found} has products of its own; leave out fma, or take order 'fma'"
        )
    if rounding != "nearest" and found is not None and found.compensation:
        raise ArgumentError(
            f"order {found} is compensated, which is analysed for rounding to nearest only; leave out "
            "rounding"
        )
    return Kernel(target, wide, found, rounding, products, fused and products)


def held(values: Array, format: Format, name: str) -> Array:
    """Values rounded to the format.  Raises: ArgumentError where they do not fit its range."""
    known = np.abs(values) < format.overflow_threshold
    if not known.all():
        at = tuple(int(i) for i in np.argwhere(~known)[0])
        remedy = "a bound needs numbers, remove it first"
        if np.isfinite(values[at]):
            remedy = f"{format} ends at {format.max:g}, use a wider format or scale the data"
        raise ArgumentError(f"{name} holds {values[at]:g} at {list(at)}; {remedy}")
    return round_to(values, format)


def _check_rank(function: str, name: str, values: Array, least: int) -> None:
    if values.ndim < least:
        hint = "; for a number of terms alone use bounds.gamma(n, u) and its neighbours"
        raise ArgumentError(
            f"{function}: {name} has shape {values.shape}; give an array of at least {least} "
            f"ax{'is' if least == 1 else 'es'}{hint if least == 1 else ''}"
        )
