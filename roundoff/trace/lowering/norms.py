"""Batch, layer and group normalisation, by the steps that torch's CPU kernels take.

They scale before they subtract: x a + (b - mean a).  Bounds follow the steps, so the steps must be theirs.
"""

from __future__ import annotations

from math import prod
from typing import Any

from roundoff.trace.lowering.reductions import average, total, variance
from roundoff.trace.lowering.registry import Expression, formula
from roundoff.trace.steps import Shape


def _per_channel(value: Expression, shape: Shape) -> Expression:
    return value.reshape((1, shape[1], *[1] * (len(shape) - 2)))


def _over(shape: Shape) -> list[int]:
    return [axis for axis in range(len(shape)) if axis != 1]


@formula(
    "native_batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_no_training",
    "_native_batch_norm_legit_functional",
)  # fmt: skip
def _batch_norm(
    x: Expression, weight: Any, bias: Any, running_mean: Any, running_var: Any, *rest: Any
) -> Any:
    training, eps = (False, rest[-1]) if len(rest) == 2 else (rest[0], rest[2])
    if training:
        spread, mean = variance(x, _over(x.shape), 0)
    else:
        spread, mean = running_var, running_mean
    scale = 1 / (spread + eps).sqrt()
    factor = scale if weight is None else scale * weight
    shift = -(mean * factor) if bias is None else bias - mean * factor
    out = x * _per_channel(factor, x.shape) + _per_channel(shift, x.shape)
    return out, mean, scale, running_mean, running_var


@formula("native_batch_norm_backward")
def _batch_norm_backward(
    upstream: Expression, x: Expression, weight: Any, running_mean: Any, running_var: Any, mean: Any,
    scale: Any, training: bool, eps: Any, mask: Any,
) -> Any:  # fmt: skip
    axes, shape = _over(x.shape), x.shape
    if not training:
        mean, scale = running_mean, 1 / (running_var + eps).sqrt()
    count = prod(shape[axis] for axis in axes)
    apart = x - _per_channel(mean, shape)
    whole, product = total(upstream, axes), total(upstream * apart, axes)
    found = upstream
    if training:
        found = found - _per_channel(whole / count, shape)
        found = found - apart * _per_channel(product * scale * scale / count, shape)
    found = found * _per_channel(scale, shape)
    if weight is not None:
        found = found * _per_channel(weight, shape)
    return found, product * scale, whole


def _moments(x: Expression, axes: Any) -> tuple[Expression, Expression]:
    """The variance and the mean.  Kernels average as they go, so that every quotient may underflow."""
    mean = total(x / prod(x.shape[axis] for axis in axes), axes, keepdim=True)
    apart = x - mean
    return average(apart * apart, axes, keepdim=True), mean


@formula("native_layer_norm")
def _layer_norm(x: Expression, normalized: Any, weight: Any, bias: Any, eps: Any) -> Any:
    axes = list(range(len(x.shape) - len(normalized), len(x.shape)))
    spread, mean = _moments(x, axes)
    scale = 1 / (spread + eps).sqrt()
    out = x * scale - mean * scale
    out = out if weight is None else out * weight
    return (out if bias is None else out + bias), mean, scale


@formula("native_layer_norm_backward")
def _layer_norm_backward(
    upstream: Expression, x: Expression, normalized: Any, mean: Expression, scale: Expression,
    weight: Any, bias: Any, mask: Any,
) -> Any:  # fmt: skip
    first = len(x.shape) - len(normalized)
    axes, lead = list(range(first, len(x.shape))), list(range(first))
    weighted = upstream if weight is None else upstream * weight
    to_input = _to_input(
        x, upstream, weighted, mean, scale, axes, None if weight is None else weight
    )
    parts = upstream * (x * scale - mean * scale)
    if not lead:
        return to_input, parts, upstream
    return to_input, total(parts, lead), total(upstream, lead)


def _to_input(
    x: Expression, upstream: Expression, weighted: Expression, mean: Expression, scale: Expression,
    axes: Any, weight: Any,
) -> Expression:  # fmt: skip
    """The input gradient as g s + x b + c: what the kernels add up, cancellation included."""
    count = prod(x.shape[axis] for axis in axes)
    whole = total(weighted, axes, keepdim=True)
    product = total(weighted * x, axes, keepdim=True)
    slope = (whole * mean - product) * scale * scale * scale / count
    shift = -(slope * mean) - whole * scale / count
    return weighted * scale + x * slope + shift


def _grouped(x: Expression, groups: int) -> Shape:
    batch, channels, *rest = x.shape
    return (batch, groups, channels // groups, *rest)


def _weight_of(weight: Any, shape: Shape) -> Any:
    if weight is None:
        return None
    return weight.reshape((1, shape[1], shape[2], *[1] * (len(shape) - 3)))


@formula("native_group_norm")
def _group_norm(
    x: Expression,
    weight: Any,
    bias: Any,
    batch: int,
    channels: int,
    area: int,
    groups: int,
    eps: Any,
) -> Any:
    shape = _grouped(x, groups)
    laid = x.reshape(shape)
    spread, mean = _moments(laid, list(range(2, len(shape))))
    scale = 1 / (spread + eps).sqrt()
    factor = scale if weight is None else scale * _weight_of(weight, shape)
    shift = -(factor * mean)
    if bias is not None:
        shift = shift + _weight_of(bias, shape)
    out = laid * factor + shift
    return out.reshape(x.shape), mean.reshape((batch, groups)), scale.reshape((batch, groups))


@formula("native_group_norm_backward")
def _group_norm_backward(
    upstream: Expression, x: Expression, mean: Expression, scale: Expression, weight: Any, batch: int,
    channels: int, area: int, groups: int, mask: Any,
) -> Any:  # fmt: skip
    shape = _grouped(x, groups)
    inner = list(range(2, len(shape)))
    ones = (batch, groups, *[1] * len(inner))
    laid, grad = x.reshape(shape), upstream.reshape(shape)
    mean, scale = mean.reshape(ones), scale.reshape(ones)
    weighted = grad if weight is None else grad * _weight_of(weight, shape)
    to_input = _to_input(laid, grad, weighted, mean, scale, inner, weight).reshape(x.shape)
    area_axes = list(range(3, len(shape)))
    products = total(grad * laid, area_axes, keepdim=True) if area_axes else grad * laid
    whole = total(grad, area_axes, keepdim=True) if area_axes else grad
    to_weight = total((products - whole * mean) * scale, [0, *area_axes])
    return (
        to_input,
        to_weight.reshape((channels,)),
        total(whole, [0, *area_axes]).reshape((channels,)),
    )
