"""Losses and their gradients.  1/N is an exact number here, as a factor where kernels have it as one."""

from __future__ import annotations

from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import torch

from roundoff.trace.lowering.accumulation import adjoint
from roundoff.trace.lowering.expressions import Expression, formula
from roundoff.trace.lowering.reductions import average, total
from roundoff.trace.lowering.registry import lowers
from roundoff.trace.lowering.values import Value, exact_to
from roundoff.trace.steps import Builder, numbered

NONE, MEAN, SUM = 0, 1, 2


def _reduced(terms: Expression, reduction: int) -> Expression:
    if reduction == NONE:
        return terms
    return average(terms) if reduction == MEAN else total(terms)


def _spread(upstream: Expression, slope: Expression, reduction: int, times: int = 1) -> Expression:
    """As the kernels do it: first times 1/N, a rounded number, then times the upstream gradient."""
    norm = Fraction(times, prod(slope.shape) if reduction == MEAN else 1)
    return (slope if norm == 1 else slope * norm) * upstream


@formula("mse_loss")
def _mse(x: Expression, y: Expression, reduction: int = MEAN) -> Expression:
    return _reduced((x - y) * (x - y), reduction)


@formula("mse_loss_backward")
def _mse_backward(upstream: Expression, x: Expression, y: Expression, reduction: int) -> Expression:
    return _spread(upstream, x - y, reduction, 2)


@formula("smooth_l1_loss")
def _smooth_l1(x: Expression, y: Expression, reduction: int = MEAN, beta: Any = 1) -> Expression:
    size = abs(x - y)
    terms = (size < beta).where(size / 2 * size / beta, size - size.constant(beta) / 2)
    return _reduced(terms, reduction)


@formula("smooth_l1_loss_backward")
def _smooth_l1_backward(
    upstream: Expression, x: Expression, y: Expression, reduction: int, beta: Any
) -> Expression:
    gap = x - y
    return _spread(upstream, (abs(gap) < beta).where(gap / beta, gap.map("sign")), reduction)


@formula("huber_loss")
def _huber(x: Expression, y: Expression, reduction: int = MEAN, delta: Any = 1) -> Expression:
    size = abs(x - y)
    far = (size - size.constant(delta) / 2) * delta
    return _reduced((size <= delta).where(size * size / 2, far), reduction)


@formula("huber_loss_backward")
def _huber_backward(
    upstream: Expression, x: Expression, y: Expression, reduction: int, delta: Any
) -> Expression:
    gap = x - y
    return _spread(upstream, gap.map("maximum", -delta).map("minimum", delta), reduction)


@formula("binary_cross_entropy")
def _binary(x: Expression, y: Expression, weight: Any = None, reduction: int = MEAN) -> Expression:
    """Logarithms below -100 are -100, as torch has it."""
    low = [value.log().map("maximum", -100) for value in (x, 1 - x)]
    terms = (y - 1) * low[1] - y * low[0]
    return _reduced(terms if weight is None else terms * weight, reduction)


#: torch's own guard against a division by zero, a float32 constant in every format.
BCE_LEAST = float(np.float32(1e-12))


@formula("binary_cross_entropy_backward")
def _binary_backward(
    upstream: Expression, x: Expression, y: Expression, weight: Any = None, reduction: int = MEAN
) -> Expression:
    found = upstream * (x - y) / ((1 - x) * x).map("maximum", BCE_LEAST)
    found = found if weight is None else found * weight
    return found / prod(found.shape) if reduction == MEAN else found


# -------------------------------------------------------------------------- negative likelihood


def _picked(shape: Any, target: torch.Tensor, ignore: int) -> tuple[Any, Any]:
    """Element numbers of the targets' classes (0 where ignored), and the classes."""
    classes = target.numpy()
    kept = classes != ignore
    safe = np.where(kept, classes, 0)
    numbers = numbered(shape)
    axis = 1 if len(shape) > 1 else 0
    places = np.take_along_axis(numbers, np.expand_dims(safe, axis), axis).squeeze(axis)
    return np.where(kept, places, 0), np.where(kept, safe + 1, 0)


def _weights(build: Builder, weight: Any, places: Any, classes: Any) -> Expression:
    if weight is None:
        mask = torch.from_numpy(np.ascontiguousarray(places > 0).astype(np.float64))
        return Expression(build, mask)
    return Expression(build, weight).move(classes)


@lowers("nll_loss_forward", "nll_loss2d_forward")
def _nll(
    build: Builder, x: Any, target: torch.Tensor, weight: Any, reduction: int, ignore: int
) -> tuple[Value, Value]:
    logs = Expression(build, x)
    places, classes = _picked(logs.shape, target, ignore)
    weights = _weights(build, weight, places, classes)
    terms, whole = -(logs.move(places) * weights), total(weights)
    if reduction == NONE:
        return terms.value, whole.value
    return (total(terms) / whole if reduction == MEAN else total(terms)).value, whole.value


@lowers("nll_loss_backward", "nll_loss2d_backward")
def _nll_backward(
    build: Builder, upstream: Any, x: Any, target: torch.Tensor, weight: Any, reduction: int, ignore: int,
    whole: Any,
) -> Value:  # fmt: skip
    shape = Expression(build, x).shape
    places, classes = _picked(shape, target, ignore)
    grad = Expression(build, exact_to(build, upstream, places.shape))
    if reduction == MEAN:
        grad = grad / Expression(build, whole)
    found = -(grad * _weights(build, weight, places, classes))
    return adjoint(build, found.value, shape, places)
