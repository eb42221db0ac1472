"""Activations and their derivatives, as torch defines them."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from roundoff.trace.lowering.expressions import Expression, formula
from roundoff.trace.steps import numbered


def _slope(inside: Expression, upstream: Expression, steep: Any = 1, flat: Any = 0) -> Expression:
    """upstream times one of two slopes."""
    return inside.where(
        upstream if steep == 1 else upstream * steep, 0 if flat == 0 else upstream * flat
    )


@formula("leaky_relu")
def _leaky_relu(x: Expression, slope: Any = 0.01) -> Expression:
    return (x > 0).where(x, x * slope)


@formula("leaky_relu_backward")
def _leaky_relu_backward(
    upstream: Expression, x: Expression, slope: Any, is_result: bool
) -> Expression:
    """A result has the sign of x: torch takes no negative slope in place."""
    return _slope(x > 0, upstream, 1, slope)


@formula("_prelu_kernel")
def _prelu(x: Expression, weight: Expression) -> Expression:
    return (x > 0).where(x, x * weight)


@formula("_prelu_kernel_backward")
def _prelu_backward(upstream: Expression, x: Expression, weight: Expression) -> Any:
    positive = x > 0
    return positive.where(upstream, upstream * weight), positive.where(0, upstream * x)


@formula("elu")
def _elu(x: Expression, alpha: Any = 1, scale: Any = 1, input_scale: Any = 1) -> Expression:
    below = (x * input_scale).map("expm1") * (x.constant(alpha) * scale)
    return (x > 0).where(x * scale, below)


@formula("elu_backward")
def _elu_backward(
    upstream: Expression, alpha: Any, scale: Any, input_scale: Any, is_result: bool, x: Expression
) -> Expression:
    steep = x.constant(alpha) * scale
    if scale == 1 and alpha and input_scale == 1.0 / float(np.float32(alpha)):
        input_scale = x.constant(1) / alpha  # of celu: torch takes alpha in float32
    if is_result:
        below = upstream * input_scale * (x + steep)
    else:
        below = upstream * input_scale * steep * (x * input_scale).exp()
    return (x > 0).where(upstream * scale, below)


@formula("celu")
def _celu(x: Expression, alpha: Any = 1) -> Expression:
    return (x > 0).where(x, (x * (1 / x.constant(alpha))).map("expm1") * alpha)


@formula("silu")
def _silu(x: Expression) -> Expression:
    return x * x.sigmoid()


@formula("silu_backward")
def _silu_backward(upstream: Expression, x: Expression) -> Expression:
    y = x.sigmoid()
    return upstream * y * (1 + x * (1 - y))


def _softplus_of(x: Expression) -> Expression:
    """log(1 + exp(x)) without overflow."""
    return x.map("maximum", 0) + (-abs(x)).exp().map("log1p")


@formula("softplus")
def _softplus(x: Expression, beta: Any = 1, threshold: Any = 20) -> Expression:
    return (x * beta > threshold).where(x, _softplus_of(x * beta) / beta)


@formula("softplus_backward")
def _softplus_backward(
    upstream: Expression, x: Expression, beta: Any, threshold: Any
) -> Expression:
    power = (x * beta).map("minimum", threshold).exp()  # of what is chosen
    return (x * beta > threshold).where(upstream, upstream * power / (power + 1))


@formula("mish")
def _mish(x: Expression) -> Expression:
    return x * _softplus_of(x).tanh()


@formula("mish_backward")
def _mish_backward(upstream: Expression, x: Expression) -> Expression:
    y = _softplus_of(x).tanh()
    return upstream * (y + x * x.sigmoid() * (1 - y * y))


@formula("log_sigmoid_forward")
def _log_sigmoid(x: Expression) -> Any:
    return -_softplus_of(-x), x


@formula("log_sigmoid_backward")
def _log_sigmoid_backward(upstream: Expression, x: Expression, buffer: Any) -> Expression:
    return upstream * (-x).sigmoid()


@formula("hardtanh")
def _hardtanh(x: Expression, low: Any = -1, high: Any = 1) -> Expression:
    return x.map("maximum", low).map("minimum", high)


@formula("hardtanh_backward")
def _hardtanh_backward(upstream: Expression, x: Expression, low: Any, high: Any) -> Expression:
    return _slope((x > low) & (x < high), upstream)


def _ramp(x: Expression) -> Expression:
    return (x + 3).map("maximum", 0).map("minimum", 6)


@formula("hardsigmoid")
def _hardsigmoid(x: Expression) -> Expression:
    return _ramp(x) / 6


@formula("hardsigmoid_backward")
def _hardsigmoid_backward(upstream: Expression, x: Expression) -> Expression:
    return ((x > -3) & (x < 3)).where(upstream * Fraction(1, 6), 0)


@formula("hardswish")
def _hardswish(x: Expression) -> Expression:
    return x * _ramp(x) / 6


@formula("hardswish_backward")
def _hardswish_backward(upstream: Expression, x: Expression) -> Expression:
    between = upstream * (x / 3 + x.constant(1) / 2)
    return (x <= -3).where(0, (x < 3).where(between, upstream))


@formula("softshrink")
def _softshrink(x: Expression, width: Any = 0.5) -> Expression:
    return (x > width).where(x - width, (x < -width).where(x + width, 0))


@formula("hardshrink")
def _hardshrink(x: Expression, width: Any = 0.5) -> Expression:
    return (abs(x) <= width).where(0, x)


@formula("softshrink_backward", "hardshrink_backward")
def _shrink_backward(upstream: Expression, x: Expression, width: Any) -> Expression:
    return (abs(x) <= width).where(0, upstream)


@formula("threshold")
def _threshold(x: Expression, threshold: Any, value: Any) -> Expression:
    return (x > threshold).where(x, value)


def _halves(x: Expression, dim: int) -> tuple[Expression, Expression]:
    first, second = np.split(numbered(x.shape), 2, axis=dim)
    return x.move(first.copy()), x.move(second.copy())


@formula("glu")
def _glu(x: Expression, dim: int = -1) -> Expression:
    first, second = _halves(x, dim)
    return first * second.sigmoid()


@formula("glu_backward")
def _glu_backward(upstream: Expression, x: Expression, dim: int) -> Expression:
    first, second = _halves(x, dim)
    y = second.sigmoid()
    left, right = upstream * y, (1 - y) * y * first * upstream
    numbers = numbered(left.shape)
    return left.move(np.concatenate([numbers, numbers + numbers.size], axis=dim), right)


# --------------------------------------------------------------------------------------- GELU


def pi(x: Expression) -> Expression:
    """Pi, exact in every arithmetic."""
    return 4 * x.constant(1).map("atan")


def _tanh_argument(x: Expression) -> tuple[Expression, Expression]:
    """The argument of tanh in GELU's approximation, and its slope."""
    factor = (2 / pi(x)).sqrt()
    return factor * (x + 0.044715 * x * x * x), factor * (1 + (3 * x.constant(0.044715)) * x * x)


@formula("gelu")
def _gelu(x: Expression, approximate: str = "none") -> Expression:
    if approximate == "tanh":
        return x / 2 * (1 + _tanh_argument(x)[0].tanh())
    return x / 2 * (1 + (x / x.constant(2).sqrt()).map("gelu_erf"))


@formula("gelu_backward")
def _gelu_backward(upstream: Expression, x: Expression, approximate: str = "none") -> Expression:
    if approximate == "tanh":
        argument, slope = _tanh_argument(x)
        y = argument.tanh()
        return upstream * ((1 + y) / 2 + x / 2 * (1 - y * y) * slope)
    below = (1 + (x / x.constant(2).sqrt()).map("gelu_erf")) / 2
    density = (-(x * x) / 2).exp() / (2 * pi(x)).sqrt()
    return upstream * (below + x * density)
