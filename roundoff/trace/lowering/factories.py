"""Tensors made by formulas: their numbers are exact, not the doubles nearest to them."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from roundoff.trace.lowering.activations import pi
from roundoff.trace.lowering.expressions import Expression
from roundoff.trace.lowering.registry import makes
from roundoff.trace.lowering.values import Value
from roundoff.trace.steps import Builder


def _listed(build: Builder, values: Sequence[Fraction]) -> Expression:
    """A vector of exact numbers."""
    steps = tuple(build.constant(value) for value in values)
    step = build.move(steps, np.arange(1, 1 + len(steps), dtype=np.int64))
    return Expression(build, Value(step, (len(steps),)))


@makes("arange", "range")
def _arange(build: Builder, count: int, *ends_and_step: Any) -> Value:
    """start + k step, from 0 where there is one number, by 1 where there are two.

    What is not whole is rounded as the kernels compute it.
    """
    start, step = Fraction(0), Fraction(1)
    if len(ends_and_step) > 1:
        start = Fraction(ends_and_step[0])
    if len(ends_and_step) > 2:
        step = Fraction(ends_and_step[2])
    if start.denominator == step.denominator == 1:
        return _listed(build, [start + k * step for k in range(count)]).value
    places = _listed(build, [Fraction(k) for k in range(count)])
    return (places * step + start).value


def _spaced(start: Any, end: Any, count: int) -> list[Fraction]:
    first, last = Fraction(float(start)), Fraction(float(end))
    return [first + (last - first) * Fraction(k, max(count - 1, 1)) for k in range(count)]


@makes("linspace")
def _linspace(build: Builder, count: int, start: Any, end: Any, steps: int) -> Value:
    """start + k (end - start) / (n - 1); the kernels count from the nearer end, with smaller errors."""
    places = _listed(build, [Fraction(k) for k in range(count)])
    first = places.constant(float(start))
    step = (places.constant(float(end)) - first) * Fraction(1, max(count - 1, 1))
    return (places * step + first).value


@makes("logspace")
def _logspace(build: Builder, count: int, start: Any, end: Any, steps: int, base: Any) -> Value:
    powers = _listed(build, _spaced(start, end, count))
    return powers.constant(float(base)).map("pow", powers).value


def _cosines(build: Builder, count: int, periodic: bool, factors: Sequence[float]) -> Value:
    """The sum of (-1)^j factor_j cos(2 pi j k / n); a periodic window is without its last place."""
    if count == 1:
        return _listed(build, [Fraction(1)]).value
    places = _listed(build, [Fraction(k) for k in range(count)])
    turn = pi(places) * Fraction(2, count if periodic else count - 1)
    found = places.constant(factors[0])
    for j, factor in enumerate(factors[1:], 1):
        wave = (places * (turn * j)).map("cos") * factor
        found = found - wave if j % 2 else found + wave
    return found.value


@makes("hann_window")
def _hann(build: Builder, count: int, length: int, periodic: bool = True) -> Value:
    return _cosines(build, count, periodic, (0.5, 0.5))


@makes("hamming_window")
def _hamming(
    build: Builder, count: int, length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46
) -> Value:  # fmt: skip
    return _cosines(build, count, periodic, (alpha, beta))


@makes("blackman_window")
def _blackman(build: Builder, count: int, length: int, periodic: bool = True) -> Value:
    return _cosines(build, count, periodic, (0.42, 0.5, 0.08))


@makes("bartlett_window")
def _bartlett(build: Builder, count: int, length: int, periodic: bool = True) -> Value:
    if count == 1:
        return _listed(build, [Fraction(1)]).value
    rising = [Fraction(2 * k, count if periodic else count - 1) for k in range(count)]
    return _listed(build, [min(value, 2 - value) for value in rising]).value
