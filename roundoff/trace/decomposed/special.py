"""Special functions by others: reflections, polygamma functions, normal distributions, logarithms of sums."""

from __future__ import annotations

from typing import Any

import torch

from roundoff.trace.decomposed.plainly import decided, plainly
from roundoff.trace.decomposed.registry import decomposes
from roundoff.trace.decomposed.whole_numbers import truncated
from roundoff.trace.rewritten import pi, whole_number

aten = torch.ops.aten


def _negative(x: torch.Tensor, below: float, what: str) -> torch.Tensor | None:
    """Where numbers are below a limit, which is decided; None where none is."""
    mask: torch.Tensor = plainly(torch.lt, x, below)
    decided((x < below) == mask, what)
    return mask if bool(plainly(torch.any, mask)) else None


@decomposes("digamma")
def _digamma(x: torch.Tensor) -> Any:
    """Of negative numbers by reflection, as the kernel does."""
    negative = _negative(x, 0.0, "aten::digamma")
    if negative is None:
        return NotImplemented
    rest = torch.where(negative, x - truncated(x, "aten::digamma"), 0.25)
    found = aten.digamma(torch.where(negative, 1 - x, x))
    return torch.where(negative, found - pi(x) / (pi(x) * rest).tan(), found)


@decomposes("polygamma")
def polygamma(n: int, x: torch.Tensor) -> Any:
    """The derivatives of digamma, by the series that kernels add up."""
    if n == 0:
        return aten.digamma(x)
    if n == 1:
        low = _negative(x, 0.5, "aten::polygamma")
        if low is None:
            return NotImplemented
        found = aten.polygamma(1, torch.where(low, 1 - x, x))
        sine = (pi(x) * torch.where(low, x, 0.25)).sin()
        return torch.where(low, pi(x) * pi(x) / (sine * sine) - found, found)
    return _by_zeta(n, x)


def _by_zeta(n: int, x: torch.Tensor) -> torch.Tensor:
    order = x.new_full((), float(n + 1))
    factor = order.lgamma().exp() * (1 if n % 2 else -1)
    total = None
    while (negative := _negative(x, 0.0, "aten::polygamma")) is not None:
        term = torch.where(negative, 1 / torch.where(negative, x, 1).pow(n + 1), 0)
        total = term if total is None else total + term
        x = torch.where(negative, x + 1, x)
    found = torch.special.zeta(order, x)
    return factor * (found if total is None else total + found)


@decomposes("mvlgamma")
def _mvlgamma(x: torch.Tensor, p: int) -> torch.Tensor:
    halves = plainly(lambda: torch.arange(-p + 1, 1).to(x.dtype))
    total = (x.unsqueeze(-1) + halves / 2).lgamma().sum(-1)
    return total + pi(x).log() * whole_number(x, p * (p - 1)) / 4


@decomposes("special_log_ndtr")
def _log_ndtr(x: torch.Tensor) -> torch.Tensor:
    low: torch.Tensor = plainly(torch.lt, x, -1.0)
    decided((x < -1) == low, "aten::special_log_ndtr")
    t = x / whole_number(x, 2).sqrt()
    left = torch.where(low, t, -1.0)
    far = (torch.special.erfcx(-left) / 2).log() - left * left
    near = (-torch.where(low, 0.0, t).erfc() / 2).log1p()
    return torch.where(low, far, near)


@decomposes("special_xlog1py.default", "special_xlog1py")
def _xlog1py(x: Any, y: Any) -> torch.Tensor:
    """x log(1 + y), and 0 where x is 0."""
    x = x if isinstance(x, torch.Tensor) else y.new_full((), float(x))
    zero = x == 0
    return torch.where(zero, 0, x * torch.where(zero, 0, y).log1p())


@decomposes("xlogy.Scalar_Self")
def _xlogy(x: Any, y: torch.Tensor) -> torch.Tensor:
    return aten.xlogy(y.new_full((), float(x)), y)


@decomposes("logaddexp2")
def _logaddexp2(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    power = (-(x - y).abs()).exp2()
    return torch.maximum(x, y) + power.log1p() / whole_number(x, 2).log()


@decomposes("logcumsumexp")
def _logcumsumexp(x: torch.Tensor, dim: int) -> torch.Tensor:
    """One after another."""
    if not x.dim():
        return x.clone()
    first, *rest = x.split(1, dim)  # type: ignore[no-untyped-call]
    found = [first]
    for part in rest:
        found.append(torch.logaddexp(found[-1], part))
    return torch.cat(found, dim)


@decomposes("atan2")
def _atan2(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """By the arc tangent of the smaller one over the larger one; the octant is decided."""
    y, x = torch.broadcast_tensors(y, x)  # type: ignore[no-untyped-call]
    steep, left, down = (
        plainly(lambda: y.abs() > x.abs()), plainly(torch.lt, x, 0), plainly(torch.signbit, y),
    )  # fmt: skip
    decided((y.abs() > x.abs()) == steep, "aten::atan2")
    decided(((x < 0) == left) | steep, "aten::atan2")
    decided(((y < 0) == down) | (y == 0), "aten::atan2")
    both = plainly(lambda: (x == 0) & (y == 0))
    decided(((x == 0) & (y == 0)) == both, "aten::atan2")
    divisor = torch.where(both, 1, torch.where(steep, y, x))
    arc = (torch.where(steep, x, y) / divisor).atan()
    half, sign = pi(x) / 2, plainly(lambda: torch.where(down, -1.0, 1.0).to(x.dtype))
    turned = torch.where(left, arc + sign * pi(x), arc)
    return torch.where(steep, sign * half - arc, turned)


@decomposes("copysign")
def _copysign(x: torch.Tensor, y: Any) -> torch.Tensor:
    y = y if isinstance(y, torch.Tensor) else x.new_full((), float(y))
    down: torch.Tensor = plainly(torch.signbit, y)
    decided(((y < 0) == down) | (y == 0), "aten::copysign")
    return torch.where(down, -x.abs(), x.abs())


@decomposes("ldexp.Tensor", "ldexp")
def _ldexp(x: torch.Tensor, power: torch.Tensor) -> torch.Tensor:
    return x * power.exp2()


@decomposes("deg2rad")
def _deg2rad(x: torch.Tensor) -> torch.Tensor:
    return x * (pi(x) / 180)


@decomposes("rad2deg")
def _rad2deg(x: torch.Tensor) -> torch.Tensor:
    return x * (180 / pi(x))
