"""Elementary functions of complex numbers, by the formulas of C libraries, on their parts."""

from __future__ import annotations

import functools
from typing import Any

import torch

from roundoff.trace.decomposed.complex_numbers import (
    angle_of,
    as_tensor,
    conjugate,
    difference,
    negative,
    polar,
    quotient,
    size_of,
    total,
)
from roundoff.trace.decomposed.pairs import Pair, as_pair, nothing, of_pairs, product


@of_pairs("exp")
def _exp(z: Pair) -> Pair:
    return polar(z.re.exp(), z.im)


@of_pairs("log")
def _log(z: Pair) -> Pair:
    return Pair(size_of(z).log(), angle_of(z))


@of_pairs("sqrt")
def _sqrt(z: Pair) -> Pair:
    """By the root of half of size and real part together, as C libraries do: nothing cancels."""
    half = (size_of(z) + z.re.abs()) / 2
    zero = half == 0
    root = torch.where(zero, 1, half).sqrt()
    other = z.im.abs() / (2 * root)
    right, sign = z.re >= 0, torch.where(z.im < 0, -1, 1)
    re, im = torch.where(right, root, other), torch.where(right, other, root)
    return Pair(torch.where(zero, 0, re), torch.where(zero, 0, im * sign))


@of_pairs("rsqrt")
def _rsqrt(z: Pair) -> Pair:
    return quotient(1, _sqrt(z))


@of_pairs("sin")
def _sin(z: Pair) -> Pair:
    return Pair(z.re.sin() * z.im.cosh(), z.re.cos() * z.im.sinh())


@of_pairs("cos")
def _cos(z: Pair) -> Pair:
    return Pair(z.re.cos() * z.im.cosh(), -(z.re.sin() * z.im.sinh()))


@of_pairs("sinh")
def _sinh(z: Pair) -> Pair:
    return Pair(z.re.sinh() * z.im.cos(), z.re.cosh() * z.im.sin())


@of_pairs("cosh")
def _cosh(z: Pair) -> Pair:
    return Pair(z.re.cosh() * z.im.cos(), z.re.sinh() * z.im.sin())


@of_pairs("tanh")
def _tanh(z: Pair) -> Pair:
    """(sinh a cosh a + i sin b cos b) / (sinh^2 a + cos^2 b), as C libraries do."""
    rise, turn = z.re.sinh(), z.im.cos()
    below = rise * rise + turn * turn
    return Pair(rise * z.re.cosh() / below, z.im.sin() * turn / below)


@of_pairs("tan")
def _tan(z: Pair) -> Pair:
    """-i _tanh(i z)."""
    found = _tanh(Pair(-z.im, z.re))
    return Pair(found.im, -found.re)


@of_pairs("sigmoid")
def _sigmoid(z: Pair) -> Pair:
    return quotient(1, total(1, _exp(negative(z))))


@of_pairs("sigmoid_backward")
def _sigmoid_backward(upstream: Any, y: Pair) -> Pair:
    return product(upstream, conjugate(product(difference(1, y), y)))


@of_pairs("tanh_backward")
def _tanh_backward(upstream: Any, y: Pair) -> Pair:
    return product(upstream, conjugate(difference(1, product(y, y))))


@of_pairs("pow")
def power(x: Any, exponent: Any) -> Pair:
    """Small whole powers are products; all others are exp(exponent * log x)."""
    if isinstance(exponent, int | float) and exponent == int(exponent) and abs(exponent) <= 16:
        count = abs(int(exponent))
        if count == 0:
            return Pair(torch.ones_like(as_pair(x).re), torch.zeros_like(as_pair(x).re))
        found = functools.reduce(product, [as_pair(x)] * count)
        return found if exponent > 0 else quotient(1, found)
    if isinstance(exponent, float) and abs(exponent) == 0.5:
        found = _sqrt(as_pair(x))
        return found if exponent > 0 else quotient(1, found)
    base = as_pair(x)
    if isinstance(base.re, torch.Tensor) and not nothing(base.im):
        return _exp(product(exponent, _log(base)))
    like = as_pair(exponent).re
    tensors = Pair(as_tensor(base.re, like), as_tensor(base.im, like))
    return _exp(product(exponent, _log(tensors)))
