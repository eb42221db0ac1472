"""Bounds on the gradients of a matrix product, a linear layer and a convolution, with the right n.

Each gradient of these is a matrix product of given data (the forward pass and its errors are not part of
it): the shortcuts say which one, in the steps of the trace's own lowering.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import instance, whole
from roundoff.bounds.bound import Bound
from roundoff.errors import ArgumentError, InapplicableError
from roundoff.gradients import sum_bounds
from roundoff.numbers.formats import as_float64
from roundoff.trace.lowering import geometry
from roundoff.trace.steps import Builder, Contract, Reduce
from roundoff.words import counted

Array = npt.NDArray[np.float64]

#: Strides, paddings and dilations beyond this are no convolution that fits into memory.
MOST = 1 << 31


def matmul_gradients(a: Any, b: Any, upstream: Any, format: Any, **kernel: Any) -> dict[str, Bound]:
    """The gradients "a" (upstream b^T, over the columns of b) and "b" (a^T upstream, over the rows of a).

    kernel: order, accumulate, fma and rounding as for `matmul`.

    Shapes: a (..., m, k), b (..., k, n), upstream (..., m, n), with the same leading axes.
    Raises: ArgumentError for shapes that do not fit, and as `matmul`.
    """
    (x, _), (y, _), (g, give_back) = as_float64(a), as_float64(b), as_float64(upstream)
    if (
        min(x.ndim, y.ndim) < 2
        or g.shape != (*x.shape[:-1], *y.shape[-1:])
        or x.shape[-1] != y.shape[-2]
    ):
        raise ArgumentError(
            f"matmul_gradients: a {x.shape}, b {y.shape} and upstream {g.shape} do not fit; upstream has "
            "the shape of a @ b"
        )
    t = [np.swapaxes(v, -1, -2) for v in (x, y)]
    return {
        "a": _named("the gradient of a", sum_bounds.matmul(give_back(g), t[1], format, **kernel)),
        "b": _named("the gradient of b", sum_bounds.matmul(give_back(t[0]), g, format, **kernel)),
    }


def linear_gradients(
    x: Any, weight: Any, upstream: Any, format: Any, **kernel: Any
) -> dict[str, Bound]:
    """The gradients of x weight^T + bias: "weight" and "bias" over the batch, "input" over the outputs.

    kernel: order, accumulate, fma and rounding as for `matmul`.

    Shapes: x (..., in), weight (out, in), upstream (..., out).
    Raises: ArgumentError for shapes that do not fit, and as `matmul`.

    >>> found = linear_gradients(np.ones((8, 3)), np.ones((2, 3)), np.ones((8, 2)), "float32")
    >>> [found[name].certified.shape for name in ("weight", "bias", "input")]
    [(2, 3), (2,), (8, 3)]
    """
    (values, _), (w, _), (g, give_back) = as_float64(x), as_float64(weight), as_float64(upstream)
    fits = w.ndim == 2 and values.ndim > 0 and values.shape[-1] == w.shape[1]
    if not fits or g.shape != (*values.shape[:-1], w.shape[0]):
        raise ArgumentError(
            f"linear_gradients: x {values.shape}, weight {w.shape} and upstream {g.shape} do not fit; they "
            "are (..., in), (out, in) and (..., out)"
        )
    rows, up = values.reshape(-1, w.shape[1]), g.reshape(-1, w.shape[0])
    found = {
        "weight": sum_bounds.matmul(give_back(up.T), rows, format, **kernel),
        "bias": sum_bounds.sum(give_back(up.T), format, **_of_sums(kernel)),
        "input": sum_bounds.matmul(give_back(g), w, format, **kernel),
    }
    return {name: _named(f"the {name} gradient", bound) for name, bound in found.items()}


def conv_gradients(
    x: Any,
    weight: Any,
    upstream: Any,
    format: Any,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    algorithm: str = "direct",
    **kernel: Any,
) -> dict[str, Bound]:
    """The gradients of a convolution in any number of dimensions.

    "weight" and "bias" sum over batch and output positions, "input" over the output channels of a group
    and the taps; zeros of padding and stride do not count.  kernel: order, accumulate, fma and
    rounding as for `matmul`.  algorithm: only "direct" (with im2col and implicit GEMM) has
    componentwise bounds.

    Shapes: x (N, C_in, *size), weight (C_out, C_in / groups, *taps), upstream (N, C_out, *outputs).
    Raises: ArgumentError for shapes that do not fit; InapplicableError for Winograd, FFT and others.
    Source: the sums are those of Goodfellow, Bengio and Courville 2016, Deep Learning, (9.11) to (9.13).
    """
    instance("algorithm", algorithm, str, "a word")
    if algorithm != "direct":
        raise InapplicableError(
            f"conv_gradients: {algorithm} transforms its operands, so an element's error is bounded only "
            "relative to the norm of all of them; there is no bound per element, use the direct algorithm"
        )
    (values, _), (w, _), (g, give_back) = as_float64(x), as_float64(weight), as_float64(upstream)
    whole("conv_gradients: groups", groups, 1)
    dims = w.ndim - 2
    if dims < 1 or values.ndim != w.ndim or g.ndim != w.ndim:
        raise ArgumentError(
            f"conv_gradients: x {values.shape}, weight {w.shape}, upstream {g.shape} and groups {groups}; "
            "give arrays of one number of axes, at least 3"
        )
    steps, pads, holes = (
        _each(name, value, dims, least)
        for name, value, least in (
            ("stride", stride, 1), ("padding", padding, 0), ("dilation", dilation, 1),
        )
    )  # fmt: skip
    taps, size = w.shape[2:], values.shape[2:]
    outputs = tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, p, d, k, s in zip(size, pads, holes, taps, steps, strict=False)
    )
    fits = min(outputs) >= 1 and groups >= 1 and w.shape[0] % max(1, groups) == 0
    if (
        not fits
        or values.shape[1] != w.shape[1] * groups
        or g.shape != (len(values), len(w), *outputs)
    ):
        raise ArgumentError(
            f"conv_gradients: x {values.shape}, weight {w.shape} and upstream {g.shape} do not fit with "
            f"groups {groups}; upstream is (N, C_out, *outputs) with outputs {outputs}"
        )
    form = geometry.Geometry(steps, pads, holes, groups)

    def to_weight(build: Builder, source: int, up: int) -> int:
        return geometry.weight_gradient(build, source, up, form, w.shape)

    def to_input(build: Builder, taps: int, up: int) -> int:
        return geometry.correlate_transposed(build, up, taps, form, values.shape)

    made: dict[str, tuple[Callable[..., int], dict[str, Array]]] = {
        "weight": (to_weight, {"x": values, "upstream": g}),
        "bias": (geometry.bias_gradient, {"upstream": g}),
        "input": (to_input, {"weight": w, "upstream": g}),
    }
    return {
        name: _gradient(name, format, kernel, to_gradient, given, give_back)
        for name, (to_gradient, given) in made.items()
    }


def _gradient(
    name: str, format: Any, options: Mapping[str, Any], steps: Callable[..., int],
    given: Mapping[str, Array], give_back: Callable[[Array], Any],
) -> Bound:  # fmt: skip
    """The bound on a gradient, by the steps that make it of given inputs."""
    build, products = Builder(), len(given) > 1
    result = steps(build, *(build.input(key, value.shape) for key, value in given.items()))
    n = next(step.leaves for step in build.steps if isinstance(step, Reduce | Contract))
    kernel = sum_bounds.as_kernel(
        n, format, **(options if products else _of_sums(options)), products=products
    )
    what = f"a {'matrix product over' if products else 'sum of'} {counted(n, 'term')}"
    found = sum_bounds.bound_on(what, build, result, given, kernel, build.shape(result), give_back)
    return _named(f"the {name} gradient", found)


def _of_sums(kernel: Mapping[str, Any]) -> dict[str, Any]:
    """The options that a plain sum has as well."""
    return {name: value for name, value in kernel.items() if name != "fma"}


def _named(what: str, bound: Bound, shape: tuple[int, ...] | None = None) -> Bound:
    named = f"{what}, {bound.what.rpartition('each ')[2]}"
    return bound.reshaped(named, bound.shape if shape is None else shape)


def _each(name: str, value: int | Sequence[int], dims: int, least: int) -> tuple[int, ...]:
    many = isinstance(value, Sequence) and not isinstance(value, str)
    found: tuple[Any, ...] = tuple(value) if many else (value,) * dims  # type: ignore[arg-type]
    if len(found) != dims:
        raise ArgumentError(
            f"conv_gradients: {name} has {counted(len(found), 'number')}; give one, or {dims}"
        )
    return tuple(whole(f"conv_gradients: {name}", v, least, MOST) for v in found)
