"""Whole numbers made of others, by rounding or as quotients: which they are is a decision."""

from __future__ import annotations

from typing import Any

import torch

from roundoff.trace.decomposed.plainly import decided, plainly
from roundoff.trace.decomposed.registry import decomposes

aten = torch.ops.aten


@decomposes("floor")
def _floor(x: torch.Tensor) -> torch.Tensor:
    whole: torch.Tensor = plainly(aten.floor.default, x)
    decided((x >= whole) & (x < whole + 1), "aten::floor")
    return whole


@decomposes("ceil")
def _ceil(x: torch.Tensor) -> torch.Tensor:
    whole: torch.Tensor = plainly(aten.ceil.default, x)
    decided((x <= whole) & (x > whole - 1), "aten::ceil")
    return whole


def truncated(x: torch.Tensor, what: str) -> torch.Tensor:
    """Toward zero."""
    whole: torch.Tensor = plainly(aten.trunc.default, x)
    decided((x < whole + 1) | ~plainly(torch.ge, whole, 0), what)
    decided((x > whole - 1) | ~plainly(torch.le, whole, 0), what)
    decided((x >= whole) | ~plainly(torch.gt, whole, 0), what)
    decided((x <= whole) | ~plainly(torch.lt, whole, 0), what)
    return whole


@decomposes("trunc")
def _trunc(x: torch.Tensor) -> torch.Tensor:
    return truncated(x, "aten::trunc")


@decomposes("frac")
def _frac(x: torch.Tensor) -> torch.Tensor:
    return x - truncated(x, "aten::frac")


@decomposes("round.default")
def _round(x: torch.Tensor) -> torch.Tensor:
    """To the nearest; of two, the even one."""
    whole: torch.Tensor = plainly(aten.round.default, x)
    decided(((x - whole) * 2).abs() <= 1, "aten::round")
    return whole


@decomposes("round.decimals")
def _round_decimals(x: torch.Tensor, *, decimals: int) -> torch.Tensor:
    power = 10 ** abs(decimals)
    ten = plainly(torch.full, (), float(power), dtype=x.dtype)
    found: torch.Tensor = _round(x * ten) / ten if decimals >= 0 else _round(x / ten) * ten
    return found


@decomposes("remainder.Tensor", "remainder.Scalar", "remainder.Scalar_Tensor")
def _remainder(x: Any, y: Any) -> torch.Tensor:
    """Of the sign of the divisor: x less a whole number of times y."""
    return _quotient(x, y, "floor", "aten::remainder")[1]


@decomposes("fmod")
def _fmod(x: Any, y: Any) -> torch.Tensor:
    """Of the sign of the dividend."""
    return _quotient(x, y, "trunc", "aten::fmod")[1]


@decomposes("div.Tensor_mode", "div.Scalar_mode")
def _div(x: Any, y: Any, *, rounding_mode: str | None) -> Any:
    if rounding_mode is None:
        return x / y
    return _quotient(x, y, rounding_mode, "aten::div")[0]


@decomposes("floor_divide")
def _floor_divide(x: Any, y: Any) -> torch.Tensor:
    return _quotient(x, y, "floor", "aten::floor_divide")[0]


def _quotient(x: Any, y: Any, mode: str, what: str) -> tuple[torch.Tensor, torch.Tensor]:
    """A whole number of times y, and what is left of x: from 0 towards y, or of the sign of x."""
    times = plainly(torch.div, *_tensors(x, y), rounding_mode=mode)
    rest: torch.Tensor = x - times * y
    like = x if mode == "trunc" else y
    sign = like.sign() if isinstance(like, torch.Tensor) else (like > 0) - (like < 0)
    signed = rest * sign
    decided((signed >= 0) & (signed < abs(y)), what)
    return times, rest


def _tensors(x: Any, y: Any) -> tuple[torch.Tensor, torch.Tensor]:
    first, second = (v if isinstance(v, torch.Tensor) else plainly(torch.tensor, v) for v in (x, y))
    return first, second


@decomposes("_to_copy")
def _converted(x: torch.Tensor, **kwargs: Any) -> Any:
    """Numbers to integers."""
    dtype = kwargs.get("dtype")
    if not x.is_floating_point() or dtype is None or dtype.is_floating_point or dtype.is_complex:
        return NotImplemented
    if dtype == torch.bool:
        return NotImplemented
    return plainly(truncated(x, "a cast to integers").to, dtype)
