"""Operations that torch decomposes with rounded constants, as 1 / sqrt(d), written with exact ones.

Attention's 1/sqrt(d), the 2/(n - 1) of a variance's gradient and the 2/sqrt(pi) of erf's reach the graph
as doubles, and no precision can tell them from what they stand for.  While a function
is traced these calls are replaced: constants become tensors of whole numbers, on which the graph records
the operation.  Literals keep their doubles, whatever the type of the tensor that they are put in.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from roundoff.errors import UnsupportedError
from roundoff.trace.rewritten import REWRITTEN, pi, whole_number
from roundoff.trace.sampled import SAMPLED
from roundoff.trace.settled import Settled, is_number

aten = torch.ops.aten


def attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: Any = None,
    dropout_p: float = 0.0, is_causal: bool = False, scale: Any = None, enable_gqa: bool = False,
) -> torch.Tensor:  # fmt: skip
    """scaled_dot_product_attention with the square root of d as an operation."""
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = (v.repeat_interleave(repeats, -3) for v in (key, value))
    scores = query @ key.transpose(-2, -1)
    root = whole_number(query, query.shape[-1]).sqrt()
    scores = scores / root if scale is None else scores * scale
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    weights = scores.softmax(-1)
    return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value


class _Variance(torch.autograd.Function):
    """The variance, with a gradient whose 2 / (n - correction) is a product and a quotient."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, dim: Any, correction: Any, keepdim: bool
    ) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.dim, ctx.correction, ctx.keepdim = dim, correction, keepdim
        return torch.ops.aten.var.correction(x, dim, correction=correction, keepdim=keepdim)

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        (x,) = ctx.saved_tensors
        (grad,) = upstream
        dims = ctx.dim if ctx.dim else list(range(x.dim()))
        if not ctx.keepdim and ctx.dim:
            for axis in sorted(d % x.dim() for d in dims):
                grad = grad.unsqueeze(axis)
        count, correction = math.prod(x.shape[d] for d in dims), ctx.correction
        whole = correction == int(correction)
        divisor = (
            whole_number(x, count - int(correction))
            if whole
            else whole_number(x, count) - correction
        )
        apart = x - x.mean(dims, keepdim=True)
        return (grad * 2 / divisor) * apart, None, None, None


def _variance(
    input: torch.Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, *,
    correction: Any = None,
) -> torch.Tensor:  # fmt: skip
    if isinstance(dim, bool):  # var(x, unbiased)
        dim, unbiased = None, dim
    if correction is None:
        correction = 1 if unbiased in (None, True) else 0
    dims = [dim] if isinstance(dim, int) else (list(dim) if dim is not None else None)
    found: torch.Tensor = _Variance.apply(input, dims, correction, keepdim)  # type: ignore[no-untyped-call]
    return found


def _deviation(*args: Any, **kwargs: Any) -> torch.Tensor:
    return _variance(*args, **kwargs).sqrt()


def _with_mean(spread: Callable[..., torch.Tensor]) -> Callable[..., Any]:
    def both(
        input: torch.Tensor, dim: Any = None, unbiased: Any = None, keepdim: bool = False, **correction: Any
    ) -> Any:  # fmt: skip
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        dims = list(range(input.dim())) if dim is None or dim == () or dim == [] else dim
        mean = input.mean(dims, keepdim=keepdim)
        return spread(input, dim, unbiased, keepdim, **correction), mean

    return both


def _rms_norm(
    input: torch.Tensor, normalized_shape: Any, weight: Any = None, eps: Any = None
) -> torch.Tensor:
    """In float32 or wider, and rounded at the end, as torch computes it; the default eps is that type's."""
    wide = torch.promote_types(input.dtype, torch.float32)
    x = input.to(wide)
    if eps is None:
        eps = torch.finfo(wide).eps
    dims = list(range(-len(normalized_shape), 0))
    found = x * (x.pow(2).mean(dims, keepdim=True) + eps).rsqrt()
    return (found if weight is None else found * weight).to(input.dtype)


class _Elementwise(torch.autograd.Function):
    """An ATen function with a gradient of its own: gradient(x, upstream)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, function: Any, gradient: Any) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.gradient = gradient
        found: torch.Tensor = function(x)
        return found

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return ctx.gradient(x, upstream[0]), None, None


def _with_gradient(function: Any, gradient: Any) -> Callable[..., torch.Tensor]:
    def replaced(input: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = _Elementwise.apply(input, function, gradient)  # type: ignore[no-untyped-call]
        return found

    return replaced


def _error_function(function: Any, sign: int) -> Callable[..., torch.Tensor]:
    """erf or erfc; the 2 / sqrt(pi) of the gradient is a quotient and a square root."""

    def gradient(x: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
        return whole_number(x, 2 * sign) / pi(x).sqrt() * torch.exp(-(x * x)) * upstream

    return _with_gradient(function, gradient)


def _of_erfinv(x: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    y = aten.erfinv(x)
    return pi(x).sqrt() / 2 * (y * y).exp() * upstream


def _of_ndtri(x: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    y = aten.special_ndtri(x)
    return (2 * pi(x)).sqrt() * (y * y / 2).exp() * upstream


def _of_log_ndtr(x: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    two = whole_number(x, 2)
    return upstream / torch.special.erfcx(-x / two.sqrt()) * (two / pi(x)).sqrt()


def _of_erfcx(x: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    return (2 * x * aten.special_erfcx(x) - 2 / pi(x).sqrt()) * upstream


def _log_to(function: Any, base: int) -> Callable[..., torch.Tensor]:
    """A logarithm; the log(base) of the gradient is one, too."""
    of_real = _with_gradient(
        function, lambda x, upstream: upstream / (x * whole_number(x, base).log())
    )

    def replaced(input: torch.Tensor) -> torch.Tensor:
        if not input.is_complex():
            return of_real(input)
        return input.log() / whole_number(input.real, base).log()

    return replaced


def _exp2(input: torch.Tensor) -> torch.Tensor:
    return (input * whole_number(input, 2).log()).exp()


class _Prod(torch.autograd.Function):
    """A product, whose gradient is a quotient where it can be; a trace would see the other way only."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        found = torch.ops.aten.prod.dim_int(x, -1, True)
        ctx.save_for_backward(x, found)
        return found

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> torch.Tensor:
        x, found = ctx.saved_tensors
        one = torch.ones_like(x[..., :1])
        before = torch.cat([one, x[..., :-1]], -1).cumprod(-1)
        behind = torch.cat([one, x[..., 1:].flip(-1)], -1).cumprod(-1).flip(-1)
        zero = x.abs().amin() == 0  # one anywhere, and all elements take the other way
        others = torch.where(zero, before * behind, found / torch.where(x == 0, 1, x))
        return upstream[0] * others.conj()


def _prod(input: torch.Tensor, dim: Any = None, keepdim: bool = False, **kwargs: Any) -> Any:
    if not input.dim() or kwargs:
        return torch.ops.aten.prod(input, *(() if dim is None else (dim, keepdim)), **kwargs)
    if dim is None:
        return _Prod.apply(input.reshape(-1))[0]  # type: ignore[no-untyped-call]
    found = _Prod.apply(input.movedim(dim, -1)).movedim(-1, dim)  # type: ignore[no-untyped-call]
    return found if keepdim else found.squeeze(dim)


class _Cumprod(torch.autograd.Function):
    """Products of the first elements; the gradient is a quotient, but by an element that is zero."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        found = torch.ops.aten.cumprod(x, -1)
        ctx.save_for_backward(x, found)
        return found

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> torch.Tensor:
        x, found = (saved.conj() for saved in ctx.saved_tensors)
        (grad,) = upstream
        zero = x == 0
        later = (found * grad).flip(-1).cumsum(-1).flip(-1)
        behind = torch.ones(x.shape[-1], x.shape[-1], dtype=torch.bool).triu(1)
        between = torch.where(behind, x.unsqueeze(-2), 1).cumprod(-1)
        reached = torch.where(behind.T, 0, grad.unsqueeze(-2))
        before = torch.cat([torch.ones_like(x[..., :1]), found[..., :-1]], -1)
        return torch.where(
            zero, (between * reached).sum(-1) * before, later / torch.where(zero, 1, x)
        )


def _cumprod(input: torch.Tensor, dim: int, dtype: torch.dtype | None = None) -> Any:
    input = input if dtype is None else input.to(dtype)
    if not input.dim() or not is_number(input):
        return torch.ops.aten.cumprod(input, dim)
    return _Cumprod.apply(input.movedim(dim, -1)).movedim(-1, dim)  # type: ignore[no-untyped-call]


def _vander(input: torch.Tensor, *, N: int | None = None) -> torch.Tensor:
    """Powers from the 0th on, each a product with the one before."""
    count = input.shape[-1] if N is None else N
    ones = torch.ones_like(input).unsqueeze(-1)
    if count < 2:
        return ones[..., :count]
    return torch.cat([ones, _cumprod(input.unsqueeze(-1).expand(*input.shape, count - 1), -1)], -1)


def _tensor(data: Any, **kwargs: Any) -> torch.Tensor:
    """A number is a literal; arrays are inputs, cast to the type that they are told."""
    if isinstance(data, int | float):
        return torch.full((), data, **kwargs)
    told = kwargs.get("dtype")
    if told is None or not told.is_floating_point:
        return torch.tensor(data, **kwargs)
    found = torch.tensor(data, **{**kwargs, "dtype": torch.float64}).to(told)
    return found.requires_grad_() if kwargs.get("requires_grad") else found


def _new_tensor(like: torch.Tensor, data: Any, **kwargs: Any) -> torch.Tensor:
    return _tensor(data, **{"dtype": like.dtype, "device": like.device, **kwargs})


_REPLACED: dict[Any, Callable[..., torch.Tensor]] = {
    F.scaled_dot_product_attention: attention,
    F.rms_norm: _rms_norm,
    torch.rms_norm: _rms_norm,
    torch.var: _variance,
    torch.Tensor.var: _variance,
    torch.std: _deviation,
    torch.Tensor.std: _deviation,
    torch.var_mean: _with_mean(_variance),
    torch.std_mean: _with_mean(_deviation),
    **dict.fromkeys(
        (torch.erf, torch.Tensor.erf, torch.special.erf), _error_function(aten.erf.default, 1)
    ),
    **dict.fromkeys(
        (torch.erfc, torch.Tensor.erfc, torch.special.erfc), _error_function(aten.erfc.default, -1)
    ),
    **dict.fromkeys((torch.exp2, torch.Tensor.exp2, torch.special.exp2), _exp2),
    **dict.fromkeys(
        (torch.erfinv, torch.Tensor.erfinv, torch.special.erfinv),
        _with_gradient(aten.erfinv.default, _of_erfinv),
    ),
    torch.special.ndtri: _with_gradient(aten.special_ndtri.default, _of_ndtri),
    torch.special.log_ndtr: _with_gradient(aten.special_log_ndtr.default, _of_log_ndtr),
    torch.special.erfcx: _with_gradient(aten.special_erfcx.default, _of_erfcx),
    **dict.fromkeys(
        (torch.deg2rad, torch.Tensor.deg2rad),
        _with_gradient(aten.deg2rad.default, lambda x, upstream: upstream * (pi(x) / 180)),
    ),
    **dict.fromkeys(
        (torch.rad2deg, torch.Tensor.rad2deg),
        _with_gradient(aten.rad2deg.default, lambda x, upstream: upstream * (180 / pi(x))),
    ),
    **dict.fromkeys((torch.log2, torch.Tensor.log2), _log_to(aten.log2.default, 2)),
    **dict.fromkeys((torch.log10, torch.Tensor.log10), _log_to(aten.log10.default, 10)),
    torch.linalg.vander: _vander,
    torch.tensor: _tensor,
    torch.Tensor.new_tensor: _new_tensor,
    **dict.fromkeys((torch.prod, torch.Tensor.prod), _prod),
    **dict.fromkeys((torch.cumprod, torch.Tensor.cumprod), _cumprod),
    **REWRITTEN,
    **SAMPLED,
}

#: Other names by which PyTorch takes an argument, as numpy calls it.
_ALSO = {"x": "input", "a": "input", "x1": "input", "axis": "dim", "keepdims": "keepdim"}

#: By these, values leave PyTorch: a trace cannot follow them, and would take them for constants.
_LEAVING = (
    torch.Tensor.numpy, torch.Tensor.__array__, torch.Tensor.tolist, torch.Tensor.data_ptr,
    torch.Tensor.__dlpack__,
)  # fmt: skip

_DIFFERENTIATING = (torch.autograd.grad, torch.autograd.backward)

_PRODUCTS = (torch.Tensor.mul, torch.Tensor.__mul__, torch.mul)


class ExactConstants(TorchFunctionMode):
    """Replaces those calls; inside multi-head attention also the product with sqrt(1 / d)."""

    def __init__(self, settled: Settled) -> None:
        super().__init__()
        self.settled = settled
        self.inside = 0

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if function in _LEAVING and not is_number(args[0]):
            self.settled.decide(args[0])
        elif function in _LEAVING:
            raise UnsupportedError(
                f"the function's values leave PyTorch (Tensor.{function.__name__}), where no trace follows; "
                "write it with PyTorch's operations"
            )
        if function in _REPLACED and kwargs.get("out") is None:
            named = {_ALSO.get(name, name): v for name, v in kwargs.items() if name != "out"}
            return _REPLACED[function](*args, **named)
        if function is F.multi_head_attention_forward:
            self.inside += 1
            try:
                return self._within(F, function, args, kwargs)
            finally:
                self.inside -= 1
        if function in _DIFFERENTIATING:  # a backward that the user wrote is looked at, too
            return self._within(torch.autograd, function, args, kwargs)
        if self.inside and function in _PRODUCTS and isinstance(args[1], float):
            size = args[0].shape[-1]
            if args[1] == math.sqrt(1.0 / float(size)):
                return args[0] / whole_number(args[0], size).sqrt()
        return function(*args, **kwargs)

    def _within(self, module: Any, function: Any, args: Any, kwargs: Any) -> Any:
        """Run a function's own Python code; calls inside it are replaced, the function itself is not."""
        with mock.patch.object(module, "has_torch_function", return_value=False), self:
            return function(*args, **kwargs)
