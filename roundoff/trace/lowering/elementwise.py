"""Elementwise operations, factories and casts."""

from __future__ import annotations

from typing import Any

import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.lowering.registry import (
    Expression,
    Value,
    apply,
    as_number,
    as_value,
    exact,
    formula,
    lowers,
)
from roundoff.trace.steps import Builder, Constant, Map


def _register_plain_maps() -> None:
    names = """neg abs sqrt exp expm1 log log1p log2 log10 sin cos tan asin acos atan sinh cosh tanh
    asinh erf erfc sigmoid div mul maximum minimum gt ge lt le eq ne"""
    for name in names.split():

        def function(
            build: Builder, *args: Any, _name: str = name, rounding_mode: str | None = None
        ) -> Value:
            if rounding_mode is not None:
                raise UnsupportedError(
                    f"cannot trace aten::div with rounding_mode={rounding_mode!r}; "
                    "it is not differentiable, compute it outside the function"
                )
            return apply(build, _name, *args)

        lowers(name)(function)


_register_plain_maps()


@lowers("sgn", "sign")
def _sign(build: Builder, x: Any) -> Value:
    return apply(build, "sign", x)


def _logical(name: str) -> None:
    @lowers(name, f"bitwise_{name.removeprefix('logical_')}")
    def logical(build: Builder, *operands: Any) -> Value:
        return apply(build, name, *operands)


for _name in ("logical_and", "logical_or", "logical_not"):
    _logical(_name)


@lowers("add")
def _add(build: Builder, x: Any, y: Any, alpha: Any = 1) -> Value:
    return apply(build, "add", x, scaled(build, alpha, as_value(build, y)))


@lowers("sub")
def _sub(build: Builder, x: Any, y: Any, alpha: Any = 1) -> Value:
    return apply(build, "sub", x, scaled(build, alpha, as_value(build, y)))


@lowers("rsub")
def _rsub(build: Builder, x: Any, y: Any, alpha: Any = 1) -> Value:
    return apply(build, "sub", y, scaled(build, alpha, as_value(build, x)))


def scaled(build: Builder, factor: Any, value: Value) -> Value:
    """factor times value, without a step where the factor is one."""
    return value if factor == 1 else apply(build, "mul", factor, value)


@lowers("square")
def _square(build: Builder, x: Any) -> Value:
    return apply(build, "mul", x, x)


@lowers("reciprocal")
def _reciprocal(build: Builder, x: Any) -> Value:
    return apply(build, "div", 1, x)


@lowers("rsqrt")
def _rsqrt(build: Builder, x: Any) -> Value:
    return apply(build, "div", 1, apply(build, "sqrt", x))


@lowers("pow")
def _pow(build: Builder, base: Any, exponent: Any) -> Value:
    """Integer powers are products, from the left as torch multiplies them up to the third.

    Beyond, kernels call pow, which errs by an ulp where a rounded product errs by half of one: times 1, once
    more.  That counts where the result may be subnormal; elsewhere the roundings of three products cover it.
    """
    if isinstance(exponent, int | float) and exponent == int(exponent) and abs(exponent) <= 64:
        base = as_value(build, base)
        if exponent == 0:
            return Value(build.constant(1, base.shape), base.shape)
        result = base
        for _ in range(abs(int(exponent)) - 1):
            result = apply(build, "mul", result, base)
        if abs(exponent) > 3:
            result = apply(build, "mul", result, 1)
        return result if exponent > 0 else apply(build, "div", 1, result)
    if isinstance(exponent, float) and abs(exponent) == 0.5:
        root = apply(build, "sqrt", base)
        return root if exponent > 0 else apply(build, "div", 1, root)
    return apply(build, "pow", base, exponent)


@lowers("relu")
def _relu(build: Builder, x: Any) -> Value:
    return apply(build, "where", apply(build, "gt", x, 0), x, 0)


@lowers("threshold_backward")
def _threshold_backward(build: Builder, upstream: Any, x: Any, threshold: Any) -> Value:
    """From the result of relu, by the comparison that made it: the result is often on the threshold."""
    condition = _relu_condition(build, as_value(build, x)) if threshold == 0 else None
    if condition is None:
        condition = apply(build, "gt", x, threshold)
    return apply(build, "where", condition, upstream, 0)


def _relu_condition(build: Builder, x: Value) -> Value | None:
    step = build.steps[x.step]
    if isinstance(step, Map) and step.function == "where":
        choice, _, other = (build.steps[operand] for operand in step.operands)
        zero = isinstance(other, Constant) and other.value == 0
        if zero and isinstance(choice, Map) and choice.function == "gt":
            return Value(step.operands[0], x.shape)
    return None


@lowers("sigmoid_backward")
def _sigmoid_backward(build: Builder, upstream: Any, y: Any) -> Value:
    return apply(build, "mul", apply(build, "mul", upstream, apply(build, "sub", 1, y)), y)


@lowers("tanh_backward")
def _tanh_backward(build: Builder, upstream: Any, y: Any) -> Value:
    slope = apply(build, "sub", 1, apply(build, "mul", y, y))
    return apply(build, "mul", upstream, slope)


@lowers("where")
def _where(build: Builder, condition: Any, x: Any, y: Any) -> Value:
    return apply(build, "where", condition, x, y)


@lowers("masked_fill")
def _masked_fill(build: Builder, x: Any, mask: Any, value: Any) -> Value:
    return apply(build, "where", mask, value, x)


@lowers("clamp")
def _clamp(build: Builder, x: Any, low: Any = None, high: Any = None) -> Any:
    for bound, function in ((low, "maximum"), (high, "minimum")):
        x = x if bound is None else apply(build, function, x, bound)
    return x


@lowers("clamp_min")
def _clamp_min(build: Builder, x: Any, low: Any) -> Any:
    return _clamp(build, x, low)


@lowers("clamp_max")
def _clamp_max(build: Builder, x: Any, high: Any) -> Any:
    return _clamp(build, x, None, high)


def _filled(build: Builder, shape: Any, value: Any) -> Value:
    shape = tuple(shape)
    return Value(build.constant(exact(value), shape), shape)


def _like(build: Builder, out: torch.Tensor, value: int) -> Any:
    """out is fake: only its shape and type count."""
    if out.is_floating_point():
        return _filled(build, out.shape, value)
    return torch.full(out.shape, value, dtype=out.dtype)


@lowers("ones_like", "new_ones")
def _ones_like(build: Builder, x: Any, *rest: Any, out: Any, **ignored: Any) -> Any:
    return _like(build, out, 1)


@lowers("zeros_like", "new_zeros", "empty_like", "new_empty", "new_empty_strided")
def _zeros_like(build: Builder, x: Any, *rest: Any, out: Any, **ignored: Any) -> Any:
    return _like(build, out, 0)


@lowers("full_like", "new_full", "fill")
def _full_like(build: Builder, x: Any, *rest: Any, out: Any, **ignored: Any) -> Any:
    if isinstance(rest[-1], Value):
        return Value(build.expand(rest[-1].step, tuple(out.shape)), tuple(out.shape))
    return _filled(build, out.shape, rest[-1])


@lowers("_to_copy")
def _to_copy(build: Builder, x: Any, *, out: Any, **ignored: Any) -> Any:
    """A cast to a type that holds all numbers of the former one is no step; any other may round."""
    if isinstance(x, torch.Tensor):
        return x.to(torch.float64 if out.dtype == torch.float32 else out.dtype)
    if not out.is_floating_point():
        raise UnsupportedError(
            f"cannot trace a cast to {out.dtype}: the result would depend on rounding; "
            "compute integers from integers"
        )
    number = as_number(build, x.step)
    former = x.dtype if x.dtype is not None and x.dtype.is_floating_point else out.dtype
    if torch.promote_types(former, out.dtype) == out.dtype:
        return Value(number, x.shape)
    return Value(build.map("cast", number), x.shape)


@formula("addcmul")
def _addcmul(x: Expression, y: Any, z: Any, value: Any = 1) -> Expression:
    factor = x.lift(y) if value == 1 else x.lift(y) * value
    return x + factor * z


@formula("addcdiv")
def _addcdiv(x: Expression, y: Any, z: Any, value: Any = 1) -> Expression:
    factor = x.lift(y) if value == 1 else x.lift(y) * value
    return x + factor / z


@formula("lerp")
def _lerp(start: Expression, end: Any, weight: Any) -> Expression:
    """From the nearer end, as the kernels do."""
    end, share = start.lift(end), start.lift(weight)
    step = end - start
    near, far = start + share * step, end - step * (1 - share)
    if isinstance(weight, int | float):
        return near if abs(weight) < 0.5 else far
    return (share.map("abs") < 0.5).where(near, far)


@formula("exp2")
def _exp2(x: Expression) -> Expression:
    return (x * x.constant(2).log()).exp()


@formula("acosh")
def _acosh(x: Expression) -> Expression:
    return (x + (x * x - 1).sqrt()).log()


@formula("atanh")
def _atanh(x: Expression) -> Expression:
    return (2 * x / (1 - x)).map("log1p") / 2


@formula("logit")
def _logit(x: Expression, eps: Any = None) -> Expression:
    if eps is not None:
        x = x.map("maximum", eps).map("minimum", 1 - x.constant(eps))
    return (x / (1 - x)).log()


@formula("logit_backward")
def _logit_backward(upstream: Expression, x: Expression, eps: Any = None) -> Expression:
    slope = upstream / (x * (1 - x))
    if eps is None:
        return slope
    return ((x >= eps) & (x <= 1 - x.constant(eps))).where(slope, 0)


@formula("hypot")
def _hypot(x: Expression, y: Any) -> Expression:
    return (x * x + x.lift(y) * y).sqrt()


@formula("logaddexp")
def _logaddexp(x: Expression, y: Any) -> Expression:
    return x.map("maximum", y) + (-abs(x - y)).exp().map("log1p")


@formula("xlogy")
def _xlogy(x: Expression, y: Any) -> Expression:
    """x log y, and 0 where x is 0."""
    zero = x.map("eq", 0)
    return zero.where(0, x * zero.where(1, y).log())


@formula("isnan", "isinf")
def _isnan(x: Expression) -> Expression:
    """Never: a reference is a number."""
    return x.constant(0).map("ne", 0).expand(x.shape)


@formula("nan_to_num")
def _nan_to_num(x: Expression, *ignored: Any) -> Expression:
    return x
