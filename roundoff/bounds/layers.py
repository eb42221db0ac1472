"""Bounds on the gradients of a matrix product, a linear layer and a convolution, with the right n.

Each gradient of these is a matrix product of given data (the forward pass and its errors are not part of
it): the shortcuts say which one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import instance, whole
from roundoff.bounds import sums
from roundoff.bounds.bound import Bound
from roundoff.errors import ArgumentError, InapplicableError
from roundoff.formats import as_float64
from roundoff.words import counted

Array = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]

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
            f"matmul_gradients: a {x.shape}, b {y.shape} and upstream {g.shape} are not those of a @ b"
        )
    t = [np.swapaxes(v, -1, -2) for v in (x, y)]
    return {
        "a": _named("the gradient of a", sums.matmul(give_back(g), t[1], format, **kernel)),
        "b": _named("the gradient of b", sums.matmul(give_back(t[0]), g, format, **kernel)),
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
        "weight": sums.matmul(give_back(up.T), rows, format, **kernel),
        "bias": sums.sum(give_back(up.T), format, **_of_sums(kernel)),
        "input": sums.matmul(give_back(g), w, format, **kernel),
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
    batch, of_out, of_in = len(values), len(w) // groups, w.shape[1]
    up = g.reshape(batch, groups, of_out, -1)
    # weight: for each group (C_out, N P) times (N P, C_in taps).
    axes = list(zip(size, outputs, taps, steps, pads, holes, strict=True))
    reads = [_inputs_of(*axis) for axis in axes]
    patches = _gather(values.reshape(batch, groups, of_in, -1), reads, size)  # ..., P, taps
    left = np.moveaxis(up, 0, 2).reshape(groups, of_out, -1)
    # patches are (N, G, C_in, P, taps); the rows are N P, the columns C_in taps.
    right = patches.transpose(1, 0, 3, 2, 4).reshape(groups, batch * up.shape[-1], -1)
    # input: for each sample and group (C_in, C_out taps) times (C_out taps, positions).
    arriving = _gather(up, [_outputs_of(*axis) for axis in axes], outputs)  # ..., positions, taps
    columns = arriving.transpose(0, 1, 2, 4, 3).reshape(batch, groups, -1, arriving.shape[3])
    filters = w.reshape(groups, of_out, of_in, -1).transpose(0, 2, 1, 3).reshape(groups, of_in, -1)
    found = {
        "weight": sums.matmul(give_back(left), right, format, **kernel),
        "bias": sums.sum(give_back(left.reshape(len(w), -1)), format, **_of_sums(kernel)),
        "input": sums.matmul(give_back(filters[None]), columns, format, **kernel),
    }
    shapes = {"weight": w.shape, "bias": (len(w),), "input": values.shape}
    return {name: _named(f"the {name} gradient", b, shapes[name]) for name, b in found.items()}


def _of_sums(kernel: dict[str, Any]) -> dict[str, Any]:
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


def _inputs_of(size: int, outputs: int, taps: int, stride: int, pad: int, hole: int) -> Index:
    """Which input each output reads through each tap, -1 for the padding; (outputs, taps)."""
    found = np.arange(outputs)[:, None] * stride + np.arange(taps) * hole - pad
    return np.where((found >= 0) & (found < size), found, -1)


def _outputs_of(size: int, outputs: int, taps: int, stride: int, pad: int, hole: int) -> Index:
    """Which output reads each input through each tap, -1 for none; (size, taps)."""
    ahead = np.arange(size)[:, None] + pad - np.arange(taps) * hole
    found = ahead // stride
    return np.where((ahead % stride == 0) & (found >= 0) & (found < outputs), found, -1)


def _gather(values: Array, axes: Sequence[Index], size: Sequence[int]) -> Array:
    """values (..., positions) read at the product of the axes: (..., positions, taps), 0 where -1."""
    flat: Any = np.zeros((1, 1), np.int64)
    valid: Any = np.ones((1, 1), bool)
    for index, length in zip(axes, size, strict=True):
        flat = flat[:, None, :, None] * length + np.maximum(index, 0)[None, :, None, :]
        valid = valid[:, None, :, None] & (index >= 0)[None, :, None, :]
        shape = (flat.shape[0] * flat.shape[1], flat.shape[2] * flat.shape[3])
        flat, valid = flat.reshape(shape), valid.reshape(shape)
    return np.where(valid, values[..., flat], 0.0)
