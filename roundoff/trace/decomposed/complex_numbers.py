"""Operations of complex numbers, by the steps of PyTorch's kernels on their real and imaginary parts.

Products round four products and two sums; quotients are taken of what has been divided by the larger part of
the divisor, as vectorised kernels do (those of C divide by a part, with fewer roundings).
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import torch

from roundoff.trace.decomposed.pairs import (
    Pair,
    as_pair,
    minus,
    nothing,
    of_pairs,
    plus,
    product,
    real_type,
    times,
)
from roundoff.trace.decomposed.registry import decomposes

aten = torch.ops.aten

# ----------------------------------------------------------------------------- parts and pairs


@of_pairs("view_as_complex")
def _view_as_complex(x: torch.Tensor) -> Pair:
    return Pair(x.select(-1, 0), x.select(-1, 1))


@of_pairs("view_as_real")
def _view_as_real(z: Pair) -> torch.Tensor:
    return torch.stack((z.re, z.im), -1)


@of_pairs("complex")
def _complex(re: torch.Tensor, im: torch.Tensor) -> Pair:
    return Pair(re, im)


@of_pairs("polar")
def polar(size: torch.Tensor, angle: torch.Tensor) -> Pair:
    """By size and angle."""
    return Pair(size * angle.cos(), size * angle.sin())


@of_pairs("real")
def _real(z: Pair) -> torch.Tensor:
    return z.re.clone()  # type: ignore[no-any-return]


@of_pairs("imag")
def _imag(z: Pair) -> torch.Tensor:
    return z.im.clone()  # type: ignore[no-any-return]


@of_pairs("_conj", "conj", "conj_physical", "_conj_physical", "_conj_copy")
def conjugate(z: Pair) -> Pair:
    """With the other imaginary part."""
    return Pair(z.re, -z.im)


@of_pairs(
    "resolve_conj", "resolve_neg", "alias", "detach", "lift_fresh", "lift", "positive", "clone"
)
def _same(z: Pair, **form: Any) -> Pair:
    return z


@of_pairs("neg", "_neg_view")
def negative(z: Pair) -> Pair:
    """Of both parts."""
    return z.map(torch.neg)


@of_pairs("_to_copy")
def _converted(x: Any, *, dtype: torch.dtype | None = None, **form: Any) -> Any:
    """To real numbers, the real part alone."""
    x = as_pair(x)
    if dtype is None:
        return x
    if not dtype.is_complex:
        return x.re.to(dtype)
    return Pair(*(p if nothing(p) else p.to(real_type(dtype)) for p in (x.re, x.im)))


@of_pairs("copy")
def _copied(into: Any, x: Any, non_blocking: bool = False) -> Any:
    x = as_pair(x)
    if isinstance(into, Pair):
        return x
    return aten.copy.default(into, x.re)


def _like(name: str) -> None:
    @of_pairs(name)
    def zeros(*args: Any, dtype: Any = None, **kwargs: Any) -> Any:
        """Or whatever is in memory: zeros, in traces."""
        dtype = None if dtype is None else real_type(dtype)
        parts = [each.re if isinstance(each, Pair) else each for each in args]
        found = getattr(aten, name).default(*parts, dtype=dtype)
        return Pair(found, 0) if name not in _ONES else Pair(found, torch.zeros_like(found))


_ONES = ("ones", "ones_like", "new_ones")

for _name in (*_ONES, *"zeros zeros_like new_zeros empty empty_like new_empty".split()):
    _like(_name)


@of_pairs("full", "new_full", "full_like", "fill.Scalar", "fill.Tensor", "scalar_tensor")
def _filled(*args: Any, **form: Any) -> Pair:
    """Numbers, or one tensor; broadcast with the result."""
    given = [each for each in args if not isinstance(each, tuple | list | torch.Size)]
    return as_pair(given[-1])


@of_pairs("zero")
def _zero(z: Pair) -> Pair:
    return Pair(0, 0)


# ------------------------------------------------------------------------------------ arithmetic


@of_pairs("add")
def total(x: Any, y: Any, alpha: Any = 1) -> Pair:
    """x + alpha y."""
    x, y = as_pair(x), as_pair(y)
    if alpha != 1:
        y = product(y, alpha)
    return Pair(plus(x.re, y.re), plus(x.im, y.im))


@of_pairs("sub")
def difference(x: Any, y: Any, alpha: Any = 1) -> Pair:
    """x - alpha y."""
    return total(x, as_pair(y).map(minus), alpha)


@of_pairs("rsub")
def _rsub(x: Any, y: Any, alpha: Any = 1) -> Pair:
    return difference(y, x, alpha)


of_pairs("mul")(product)


@of_pairs("addcmul")
def _addcmul(x: Any, y: Any, z: Any, value: Any = 1) -> Pair:
    return total(x, product(product(y, value), z))


@of_pairs("addcdiv")
def _addcdiv(x: Any, y: Any, z: Any, value: Any = 1) -> Pair:
    return total(x, quotient(product(y, value), z))


@of_pairs("lerp")
def _lerp(x: Any, y: Any, weight: Any) -> Pair:
    return total(x, product(weight, difference(y, x)))


def as_tensor(part: Any, like: torch.Tensor) -> torch.Tensor:
    """Numbers in the shape of another part."""
    return part if isinstance(part, torch.Tensor) else torch.full_like(like, float(part))


@of_pairs("div.Tensor", "div.Scalar", "true_divide")
def quotient(x: Any, y: Any) -> Pair:
    """Of both, divided by the larger part of the divisor."""
    x, y = as_pair(x), as_pair(y)
    like = next(p for p in (x.re, x.im, y.re, y.im) if isinstance(p, torch.Tensor))
    c, d = (as_tensor(part, like) for part in (y.re, y.im))
    largest = torch.maximum(c.abs(), d.abs())
    a, b = (part if nothing(part) else part / largest for part in (x.re, x.im))
    c, other = c / largest, 0 if nothing(y.im) else d / largest
    size = plus(c * c, times(other, other))

    def over(part: Any) -> Any:
        return part if nothing(part) else part / size

    return Pair(
        over(plus(times(a, c), times(b, other))), over(plus(times(b, c), minus(times(a, other))))
    )


@of_pairs("reciprocal")
def _reciprocal(z: Pair) -> Pair:
    return quotient(1, z)


@of_pairs("abs")
def size_of(z: Pair) -> torch.Tensor:
    """The root of the sum of two squares."""
    return torch.hypot(z.re, z.im)


@decomposes("_neg_view")
def _negative(x: torch.Tensor) -> torch.Tensor:
    return -x


@decomposes("atan2")
def _angle(y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """The arc tangent of the smaller number by the larger one, and a multiple of a quarter turn; 0 at 0."""
    steep = y.abs() > x.abs()
    below, above = torch.where(steep, y, x), torch.where(steep, x, y)
    ratio = above / torch.where(below == 0, 1, below)
    quarter = 2 * torch.full((), 1.0, dtype=ratio.dtype).atan()
    turn = torch.where(y < 0, -quarter, quarter)
    flat = torch.where(x < 0, 2 * turn, 0) + ratio.atan()
    return torch.where(steep, turn - ratio.atan(), flat)


@of_pairs("angle")
def angle_of(z: Pair) -> torch.Tensor:
    """From the positive real axis, in (-pi, pi]."""
    return torch.atan2(z.im, z.re)


@of_pairs("sgn")
def _sgn(z: Pair) -> Pair:
    """By the size; 0 of 0."""
    size = size_of(z)
    zero = size == 0
    safe = torch.where(zero, 1, size)
    return z.map(lambda part: torch.where(zero, 0, part / safe))


def _both(compare: Any, join: Any) -> Any:
    def compared(x: Any, y: Any) -> torch.Tensor:
        x, y = as_pair(x), as_pair(y)
        found: torch.Tensor = join(compare(x.re, y.re), compare(x.im, y.im))
        return found

    return compared


of_pairs("eq")(_both(lambda x, y: x == y, torch.logical_and))
of_pairs("ne")(_both(lambda x, y: x != y, torch.logical_or))


@of_pairs("isnan", "isinf")
def _never(z: Pair) -> torch.Tensor:
    """Of numbers: neither is an input."""
    return z.re != z.re  # type: ignore[no-any-return]


@of_pairs("isfinite")
def _ever(z: Pair) -> torch.Tensor:
    return z.re == z.re  # type: ignore[no-any-return]


# -------------------------------------------------------------------------- sums and products


@of_pairs("mean")
def _mean(z: Pair, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Pair:
    """A sum, divided as complex numbers are."""
    dims = list(range(z.re.dim())) if dim is None or dim == [] else dim
    summed = z.map(lambda part: part.sum(dims, keepdim))
    count = z.re.numel() // max(summed.re.numel(), 1)
    return quotient(summed, count)


@of_pairs("prod")
def _prod(z: Pair, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Pair:
    """One after another."""
    laid = z.map(lambda part: part.reshape(-1) if dim is None else part.movedim(dim, -1))
    found = functools.reduce(product, _factors(laid))
    return found.map(lambda part: part.unsqueeze(dim)) if keepdim and dim is not None else found


@of_pairs("cumprod")
def _cumprod(z: Pair, dim: int, *, dtype: Any = None) -> Pair:
    """One after another."""
    laid = z.map(lambda part: part.movedim(dim, -1))
    found = list(itertools.accumulate(_factors(laid), product))
    return Pair(*(torch.stack(parts, dim) for parts in zip(*map(_both_parts, found), strict=True)))


def _both_parts(z: Pair) -> tuple[torch.Tensor, torch.Tensor]:
    return z.re, z.im


def _factors(laid: Pair) -> list[Pair]:
    """Along the last axis."""
    return [Pair(laid.re[..., k], laid.im[..., k]) for k in range(laid.re.shape[-1])]


@of_pairs("var")
def _var(z: Pair, dim: Any = None, *, correction: Any = 1, keepdim: bool = False) -> torch.Tensor:
    re, im = (
        aten.var.correction(part, dim, correction=correction, keepdim=keepdim)
        for part in (z.re, z.im)
    )
    return re + im  # type: ignore[no-any-return]


@of_pairs("std")
def _std(*args: Any, **kwargs: Any) -> torch.Tensor:
    return _var(*args, **kwargs).sqrt()


@of_pairs("linalg_vector_norm")
def _norm(
    z: Pair, order: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> torch.Tensor:
    return aten.linalg_vector_norm.default(size_of(z), order, dim, keepdim)  # type: ignore[no-any-return]


def _multiplied(multiply: Any, x: Any, y: Any) -> Pair:
    """Sums of twice as many products each: of (a, b) with (c, -d), and with (d, c); factors at the end."""
    if not isinstance(x, Pair):
        return y.map(lambda part: multiply(x, part))  # type: ignore[no-any-return]
    if not isinstance(y, Pair):
        return x.map(lambda part: multiply(part, y))
    row = torch.cat((x.re, x.im), -1)
    axis = -1 if y.re.dim() == 1 else -2
    return Pair(
        multiply(row, torch.cat((y.re, -y.im), axis)), multiply(row, torch.cat((y.im, y.re), axis))
    )


def _product_of_matrices(name: str) -> None:
    multiply = getattr(aten, name).default

    @of_pairs(name)
    def multiplied(x: Any, y: Any) -> Pair:
        return _multiplied(multiply, x, y)


for _name in ("mm", "bmm", "mv", "dot"):
    _product_of_matrices(_name)


@of_pairs("vdot")
def _vdot(x: Any, y: Any) -> Pair:
    return _multiplied(aten.dot.default, conjugate(x) if isinstance(x, Pair) else x, y)


def _added_product(name: str, of: Any) -> None:
    @of_pairs(name)
    def added(start: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> Pair:
        found = _multiplied(of, x, y)
        found = found if alpha == 1 else product(found, alpha)
        return found if beta == 0 else total(start if beta == 1 else product(start, beta), found)


_added_product("addmm", aten.mm.default)
_added_product("addmv", aten.mv.default)
_added_product("baddbmm", aten.bmm.default)
