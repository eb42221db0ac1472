"""Batch, layer and group normalisation, by the steps that torch's CPU kernels take.

They scale before they subtract: x a + (b - mean a).  Bounds follow the steps, so the steps must be theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.lowering.expressions import Expression, formula, layout
from roundoff.trace.lowering.reductions import average, count_of, total, updated_mean, variance
from roundoff.trace.steps import Shape


def _per_channel(value: Expression, shape: Shape) -> Expression:
    return value.reshape((1, shape[1], *[1] * (len(shape) - 2)))


def _over(shape: Shape) -> list[int]:
    return [axis for axis in range(len(shape)) if axis != 1]


@formula("native_batch_norm")
def _batch_norm(
    x: Expression, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool,
    momentum: float, eps: float,
) -> Any:  # fmt: skip
    """Running statistics are read alone; `roundoff.trace.in_place` has the operation that updates them."""
    if training:
        spread, mean = variance(x, _over(x.shape), 0)
    else:
        spread, mean = running_var, running_mean
    scale = 1 / (spread + eps).sqrt()
    if layout(x) is None:
        out = (x - _per_channel(mean, x.shape)) * _per_channel(scale, x.shape)
        out = out if weight is None else out * _per_channel(weight, x.shape)
        out = out if bias is None else out + _per_channel(bias, x.shape)
    else:
        factor = scale if weight is None else scale * weight
        shift = -(mean * factor) if bias is None else bias - mean * factor
        out = x * _per_channel(factor, x.shape) + _per_channel(shift, x.shape)
    return out, mean, scale


@formula("_native_batch_norm_legit")
def _batch_norm_without_statistics(
    x: Expression, weight: Any, bias: Any, training: bool, momentum: float, eps: float
) -> Any:
    if not training:
        raise UnsupportedError(
            "cannot trace batch norm without running statistics where it does not train; give it some, "
            "or pass training=True"
        )
    return _batch_norm(x, weight, bias, None, None, training, momentum, eps)


@formula("_native_batch_norm_legit_no_training")
def _batch_norm_by_statistics(
    x: Expression, weight: Any, bias: Any, mean: Any, var: Any, momentum: float, eps: float
) -> Any:
    return _batch_norm(x, weight, bias, mean, var, False, momentum, eps)


@formula("_native_batch_norm_legit_functional")
def _batch_norm_updating(
    x: Expression, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool,
    momentum: float, eps: float,
) -> Any:  # fmt: skip
    """The updated statistics behind the results; the variance that they take in is the unbiased one."""
    found = _batch_norm(x, weight, bias, running_mean, running_var, training, momentum, eps)
    if not training:
        return *found, running_mean, running_var
    factor = x.constant(momentum)
    spread, mean = variance(x, _over(x.shape), 1)[0], found[1]
    return (
        *found,
        mean * factor + running_mean * (1 - factor),
        spread * factor + running_var * (1 - factor),
    )


@formula("native_batch_norm_backward")
def _batch_norm_backward(
    upstream: Expression, x: Expression, weight: Any, running_mean: Any, running_var: Any, mean: Any,
    scale: Any, training: bool, eps: Any, mask: Any,
) -> Any:  # fmt: skip
    axes, shape = _over(x.shape), x.shape
    if not training:
        mean, scale = running_mean, 1 / (running_var + eps).sqrt()
    count = count_of(x, axes)
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
    """The variance and the mean, by two passes."""
    mean = updated_mean(x, axes)
    apart = x - mean
    return average(apart * apart, axes, keepdim=True), mean


def _channels_last(x: Expression) -> bool:
    strides = x.value.strides
    apart = len(x.shape) in (4, 5) and layout(x) != torch.contiguous_format
    return apart and strides is not None and strides[1] == 1


def _moments_of_squares(x: Expression, axes: Any) -> tuple[Expression, Expression]:
    """The variance as a difference, by one pass: group norm with the channels last."""
    share = Fraction(1, count_of(x, axes))
    mean = total(x, axes, keepdim=True) * share
    spread = total(x * x, axes, keepdim=True) * share - mean * mean
    return spread.map("maximum", 0), mean


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
    scaled = upstream * scale
    terms = [upstream, upstream * x]
    if weight is not None:
        scaled, terms = scaled * weight, [term * weight for term in terms]
    sums = [total(term, axes, keepdim=True) for term in terms]
    to_input = _to_input(x, scaled, sums, mean, scale, axes)
    parts = upstream * (x * scale - mean * scale)
    if not lead:
        return to_input, parts, upstream
    return to_input, total(parts, lead), total(upstream, lead)


def _to_input(
    x: Expression, scaled: Expression, sums: Sequence[Expression], mean: Expression, scale: Expression,
    axes: Any,
) -> Expression:  # fmt: skip
    """The input gradient as g s + x b + c: what the kernels add up, cancellation included.

    scaled: g s, with the weight; sums: of the weighted g, and of the weighted g x.
    """
    whole, product = sums
    share = Fraction(1, count_of(x, axes))
    slope = (whole * mean - product) * scale * scale * scale * share
    shift = -(slope * mean) - whole * scale * share
    return scaled + x * slope + shift


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
    moments = _moments_of_squares if _channels_last(x) else _moments
    spread, mean = moments(laid, list(range(2, len(shape))))
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
    area_axes = list(range(3, len(shape)))
    products, whole = (
        total(terms, area_axes, keepdim=True) if area_axes else terms
        for terms in (grad * laid, grad)
    )
    factor, sums = scale, [whole, products]
    if weight is not None:
        given = _weight_of(weight, shape)
        factor, sums = scale * given, [each * given for each in sums]
    sums = [total(each, inner, keepdim=True) for each in sums]
    to_input = _to_input(laid, grad * factor, sums, mean, scale, inner).reshape(x.shape)
    to_weight = total((products - whole * mean) * scale, [0, *area_axes])
    return (
        to_input,
        to_weight.reshape((channels,)),
        total(whole, [0, *area_axes]).reshape((channels,)),
    )
