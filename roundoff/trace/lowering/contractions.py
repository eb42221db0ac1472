"""Matrix products and convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from roundoff.trace.lowering import geometry as conv
from roundoff.trace.lowering.elementwise import scaled
from roundoff.trace.lowering.registry import lowers
from roundoff.trace.lowering.values import Value, apply, as_value
from roundoff.trace.steps import Builder, Shape


@lowers("bmm")
def _bmm(build: Builder, x: Any, y: Any) -> Value:
    first, second = as_value(build, x), as_value(build, y)
    result = build.contract(first.step, second.step)
    return Value(result, build.shape(result))


@lowers("mm")
def _mm(build: Builder, x: Any, y: Any) -> Value:
    first, second = as_value(build, x), as_value(build, y)
    a = build.reshape(first.step, (1, *first.shape))
    b = build.reshape(second.step, (1, *second.shape))
    shape = (first.shape[0], second.shape[1])
    return Value(build.reshape(build.contract(a, b), shape), shape)


@lowers("fft")
def _fft(build: Builder, x: Any, weights: Any, lengths: Sequence[int]) -> Value:
    """One axis of a discrete Fourier transform, as a product."""
    return _mm(build, x, weights)


@lowers("mv")
def _mv(build: Builder, x: Any, y: Any) -> Value:
    column = as_value(build, y)
    wide = Value(build.reshape(column.step, (*column.shape, 1)), (*column.shape, 1))
    product = _mm(build, x, wide)
    return Value(build.reshape(product.step, product.shape[:1]), product.shape[:1])


@lowers("dot", "vdot")
def _dot(build: Builder, x: Any, y: Any) -> Value:
    row = as_value(build, x)
    product = _mv(build, Value(build.reshape(row.step, (1, *row.shape)), (1, *row.shape)), y)
    return Value(build.reshape(product.step, ()), ())


@lowers("addmm", "addmv", "baddbmm")
def _addmm(build: Builder, start: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> Value:
    rank = len(as_value(build, x).shape), len(as_value(build, y).shape)
    multiply = {(2, 2): _mm, (2, 1): _mv, (3, 3): _bmm}[rank]
    product = multiply(build, scaled(build, alpha, as_value(build, x)), y)
    if beta == 0:
        return product
    return apply(build, "add", scaled(build, beta, as_value(build, start)), product)


def _geometry(
    kernel: Shape, stride: Any, padding: Any, dilation: Any, groups: int
) -> conv.Geometry:
    axes = len(kernel) - 2
    stride, padding, dilation = (
        list(values) * (axes if len(values) == 1 else 1) for values in (stride, padding, dilation)
    )
    return conv.Geometry(stride, padding, dilation, groups)


@lowers("convolution")
def _convolution(
    build: Builder, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Value:  # fmt: skip
    source, kernel = as_value(build, x), as_value(build, weight)
    geometry = _geometry(kernel.shape, stride, padding, dilation, groups)
    placeholder, taps = (torch.empty(v.shape, device="meta") for v in (source, kernel))
    shape = tuple(
        torch.convolution(
            placeholder, taps, None, stride, padding, dilation, transposed, output_padding, groups
        ).shape
    )
    product = conv.correlate_transposed if transposed else conv.correlate
    result = Value(product(build, source.step, kernel.step, geometry, shape), shape)
    if bias is None:
        return result
    start = as_value(build, bias)
    wide = (*start.shape, *[1] * (len(shape) - 2))
    return apply(build, "add", result, Value(build.reshape(start.step, wide), wide))


@lowers("convolution_backward")
def _convolution_backward(
    build: Builder, upstream: Any, x: Any, weight: Any, bias_sizes: Any, stride: Any, padding: Any,
    dilation: Any, transposed: bool, output_padding: Any, groups: int, mask: Sequence[bool],
) -> tuple[Value | None, Value | None, Value | None]:  # fmt: skip
    grad, source, kernel = (as_value(build, v) for v in (upstream, x, weight))
    geometry = _geometry(kernel.shape, stride, padding, dilation, groups)
    to_input: Value | None = None
    to_weight: Value | None = None
    if mask[0]:
        product = conv.correlate if transposed else conv.correlate_transposed
        step = product(build, grad.step, kernel.step, geometry, source.shape)
        to_input = Value(step, source.shape)
    if mask[1]:
        # A transposed convolution is the input gradient of a plain one: the two exchange roles.
        wide, narrow = (grad, source) if transposed else (source, grad)
        step = conv.weight_gradient(build, wide.step, narrow.step, geometry, kernel.shape)
        to_weight = Value(step, kernel.shape)
    to_bias = None
    if mask[2]:
        step = conv.bias_gradient(build, grad.step)
        to_bias = Value(step, build.shape(step))
    return to_input, to_weight, to_bias
