"""Elementwise operations, factories and casts."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.functions import FUNCTIONS, Kind
from roundoff.trace.lowering.dtypes import narrows
from roundoff.trace.lowering.expressions import Expression, formula
from roundoff.trace.lowering.registry import Lowering, lowers
from roundoff.trace.lowering.values import Value, apply, as_number, as_value, exact, exact_to
from roundoff.trace.steps import Builder, Constant, Map, numbered


def _map(name: str, arity: int) -> Lowering:
    if arity == 1:
        return lambda build, x: apply(build, name, x)
    return lambda build, x, y: apply(build, name, x, y)


def _register_plain_maps() -> None:
    """Elementary functions that ATen calls the same, and others that are one map."""
    elementary = [name for name, record in FUNCTIONS.items() if record.kind is Kind.ELEMENTARY]
    names = "neg abs reference_only maximum minimum gt ge lt le eq ne".split()
    for name in (*names, *(name for name in elementary if hasattr(torch.ops.aten, name))):
        lowers(name)(_map(name, FUNCTIONS[name].arity))


_register_plain_maps()


@lowers("mul")
def _mul(build: Builder, x: Any, y: Any) -> Value:
    """Of truth values it is whether both are true."""
    steps = [as_value(build, operand).step for operand in (x, y)]
    return apply(build, "logical_and" if all(map(build.boolean, steps)) else "mul", x, y)


@lowers("polygamma")
def _polygamma(build: Builder, n: int, x: Any) -> Value:
    """The first derivative of digamma, from 1/2 on; all others are taken apart."""
    assert n == 1
    return apply(build, "trigamma", x)


@lowers("div")
def _div(build: Builder, x: Any, y: Any, *, rounding_mode: str | None = None) -> Value:
    if rounding_mode is not None:
        raise UnsupportedError(
            f"cannot trace aten::div with rounding_mode={rounding_mode!r}; "
            "it is not differentiable, compute it outside the function"
        )
    return apply(build, "div", x, y)


@lowers("sgn", "sign")
def _sign(build: Builder, x: Any) -> Value:
    return apply(build, "sign", x)


def truth(build: Builder, x: Any) -> Value:
    """Whether numbers are not zero."""
    value = as_value(build, x)
    return value if build.boolean(value.step) else apply(build, "ne", value, 0)


@lowers("logical_and")
def _and(build: Builder, x: Any, y: Any) -> Value:
    return apply(build, "logical_and", truth(build, x), truth(build, y))


@lowers("logical_or")
def _or(build: Builder, x: Any, y: Any) -> Value:
    return apply(build, "logical_or", truth(build, x), truth(build, y))


@lowers("logical_xor")
def _xor(build: Builder, x: Any, y: Any) -> Value:
    return apply(build, "ne", truth(build, x), truth(build, y))


@lowers("logical_not")
def _not(build: Builder, x: Any) -> Value:
    return apply(build, "logical_not", truth(build, x))


def _bitwise(name: str, function: Lowering) -> None:
    @lowers(f"bitwise_{name}", f"__{name}__")
    @functools.wraps(function)
    def bitwise(build: Builder, *operands: Any) -> Value:
        for operand in operands:
            if not build.boolean(as_value(build, operand).step):
                raise UnsupportedError(
                    f"cannot trace aten::bitwise_{name} of whole numbers that depend on floats; only masks "
                    "may depend on them"
                )
        return function(build, *operands)


for _name, _function in (("and", _and), ("or", _or), ("xor", _xor), ("not", _not)):
    _bitwise(_name, _function)


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
def _ones_like(build: Builder, x: Any, size: Any = None, *, out: Any) -> Any:
    return _like(build, out, 1)


@lowers("zeros_like", "zero", "new_zeros", "empty_like", "new_empty", "new_empty_strided")
def _zeros_like(build: Builder, x: Any, size: Any = None, stride: Any = None, *, out: Any) -> Any:
    return _like(build, out, 0)


@lowers("full_like", "fill")
def _full_like(build: Builder, x: Any, value: Any, *, out: Any) -> Any:
    if isinstance(value, Value | torch.Tensor):
        return exact_to(build, value, tuple(out.shape))
    return _filled(build, out.shape, value)


@lowers("new_full")
def _new_full(build: Builder, x: Any, size: Any, value: Any, *, out: Any) -> Any:
    return _full_like(build, x, value, out=out)


@lowers("_to_copy")
def _to_copy(build: Builder, x: Any, *, out: Any) -> Any:
    """A cast to a type that holds all numbers of the former one is no step; any other may round."""
    if isinstance(x, torch.Tensor):
        return x.to(torch.float64 if out.is_floating_point() else out.dtype)
    if out.dtype == torch.bool:
        return truth(build, x)
    number = as_number(build, x.step)
    return Value(build.map("cast", number) if narrows(x.dtype, out.dtype) else number, x.shape)


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


@lowers("exp2")
def _exp2(build: Builder, x: Any) -> Any:
    if isinstance(x, torch.Tensor) and not x.is_floating_point():
        return x.to(torch.float64).exp2()  # exact
    power = Expression(build, x)
    return (power * power.constant(2).log()).exp().value


@formula("acosh")
def _acosh(x: Expression) -> Expression:
    return (x + (x * x - 1).sqrt()).log()


@formula("atanh")
def _atanh(x: Expression) -> Expression:
    return (2 * x / (1 - x)).map("log1p") / 2


@formula("logit")
def _logit(x: Expression, eps: Any = None) -> Expression:
    if eps is not None and eps >= 0:  # torch takes a negative one for none
        x = x.map("maximum", eps).map("minimum", 1 - x.constant(eps))
    return (x / (1 - x)).log()


@formula("logit_backward")
def _logit_backward(upstream: Expression, x: Expression, eps: Any = None) -> Expression:
    slope = upstream / (x * (1 - x))
    if eps is None or eps < 0:
        return slope
    return ((x >= eps) & (x <= 1 - x.constant(eps))).where(slope, 0)


@formula("hypot")
def _hypot(x: Expression, y: Any) -> Expression:
    return (x * x + x.lift(y) * y).sqrt()


@formula("linalg_cross")
def _cross(x: Expression, y: Any, *, dim: int = -1) -> Expression:
    """Along an axis of three, the products of both others, one less the other."""
    y = x.lift(y)
    shape = np.broadcast_shapes(x.shape, y.shape)
    x, y, numbers = x.expand(shape), y.expand(shape), numbered(shape)
    one, two = (np.roll(numbers, -step, dim) for step in (1, 2))
    return x.move(one) * y.move(two) - x.move(two) * y.move(one)


@formula("logaddexp")
def _logaddexp(x: Expression, y: Any) -> Expression:
    return x.map("maximum", y) + (-abs(x - y)).exp().map("log1p")


@formula("xlogy")
def _xlogy(x: Expression, y: Any) -> Expression:
    """x log y, and 0 where x is 0."""
    zero = x.map("eq", 0)
    return zero.where(0, x * zero.where(1, y).log())


@formula("isnan")
def _isnan(x: Expression) -> Expression:
    """Never: a reference is a number."""
    return x.constant(0).map("ne", 0).expand(x.shape)


@formula("isinf")
def _isinf(x: Expression) -> Expression:
    """Of the infinities that masks put in."""
    return abs(x).map("eq", float("inf"))


@formula("nan_to_num")
def _nan_to_num(
    x: Expression, nan: float | None = None, high: float | None = None, low: float | None = None
) -> Expression:
    """A reference is never nan; infinities are what masks put in, by default as the type's largest number."""
    assert x.value.dtype is not None
    largest, infinite = torch.finfo(x.value.dtype).max, float("inf")
    high, low = largest if high is None else high, -largest if low is None else low
    return x.map("eq", infinite).where(high, x.map("eq", -infinite).where(low, x))
