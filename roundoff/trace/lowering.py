"""ATen operations to steps.  Add an operation here: one function, registered by its ATen name.

A value while lowering is a step number wrapped in `Value`, a tensor that depends on no float
(folded: integers, booleans), or a plain Python argument.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import torch

from roundoff.errors import UnsupportedError
from roundoff.trace import convolution as conv
from roundoff.trace.steps import Builder, Index, Shape, numbered


@dataclass(frozen=True)
class Value:
    """A step's result, with the strides that the tensor has in PyTorch."""

    step: int
    shape: Shape
    strides: tuple[int, ...] | None = None


#: Names that no user writes, left out of messages.
_INTERNAL = re.compile(
    r"^_|_backward$|_copy$|_fresh|_strided|^new_|_like$|^bitwise|^clamp_|scatter$|^l[et]$"
)

Lowering = Callable[..., Any]
LOWERINGS: dict[str, Lowering] = {}

#: Movement operations: run on element numbers, their result is the index.  Only what moves whole
#: elements belongs here; sort, convolution and accumulating scatters also run on numbers and
#: return plausible nonsense.
MOVES = frozenset(
    """alias as_strided cat clone constant_pad_nd contiguous detach diagonal expand flip gather
    index index_select lift_fresh lift_fresh_copy movedim narrow permute pixel_shuffle
    pixel_unshuffle repeat reshape roll rot90 select select_backward slice slice_backward split
    split_with_sizes squeeze stack t transpose tril triu unbind unfold unsqueeze _unsafe_view
    view slice_scatter select_scatter diagonal_backward copy _reshape_alias view_as
    expand_as as_strided_scatter diagonal_scatter""".split()
)


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Register a function (build, *args, **kwargs) for ATen operations, overloads aside."""

    def register(function: Lowering) -> Lowering:
        LOWERINGS.update(dict.fromkeys(names, function))
        return function

    return register


def lower(build: Builder, target: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """One ATen call.  out: the fake result, for its shape, strides and type.

    Raises: UnsupportedError for an operation that is not known, naming it and the known ones.
    """
    name = str(target.overloadpacket.__name__)
    if torch.Tag.nondeterministic_seeded in target.tags:
        raise UnsupportedError(
            f"cannot trace the operation aten::{name}: it draws random numbers; draw them outside the "
            "function and pass them as an input"
        )
    if not _floats(args, kwargs) and name not in LOWERINGS:
        return target(*args, **kwargs)
    if name in MOVES:
        return lower_move(build, target, args, kwargs)
    if name not in LOWERINGS:
        known = ", ".join(sorted(n for n in {*MOVES, *LOWERINGS} if not _INTERNAL.search(n)))
        raise UnsupportedError(
            f"cannot trace the operation aten::{name}; write the function with known ones: {known}"
        )
    return LOWERINGS[name](build, *args, **kwargs, **({"out": out} if name in _WANTS_OUT else {}))


def _floats(*trees: Any) -> list[Value]:
    found: list[Value] = []
    for leaf in torch.utils._pytree.tree_leaves(trees):
        if isinstance(leaf, Value):
            found.append(leaf)
    return found


# ------------------------------------------------------------------------------------- movement


def lower_move(build: Builder, target: Any, args: Any, kwargs: Any) -> Any:
    """The ATen operation itself, run on element numbers."""
    operands: list[int] = []
    start = 1

    def numbers(leaf: Any) -> Any:
        nonlocal start
        if isinstance(leaf, torch.Tensor) and leaf.is_floating_point():
            leaf = literal(build, leaf)
        if not isinstance(leaf, Value):
            return leaf
        operands.append(leaf.step)
        tensor = _with_numbers(leaf, start)
        start += prod(leaf.shape)
        return tensor

    tree_map = torch.utils._pytree.tree_map
    args, kwargs = tree_map(numbers, (args, kwargs))
    kwargs = {k: v for k, v in kwargs.items() if k not in ("dtype", "device", "layout")}
    if "constant_pad_nd" in str(target) and len(args) > 2 and args[2] != 0:
        operands.append(build.constant(_exact(args[2])))
        args = (*args[:2], start)

    def index(tensor: torch.Tensor) -> Value:
        places = tensor.numpy().astype(np.int64)
        shape = tuple(tensor.shape)
        return Value(build.move(tuple(operands), places), shape, tuple(tensor.stride()))

    return tree_map(index, target(*args, **kwargs))


def _with_numbers(value: Value, start: int) -> torch.Tensor:
    numbers = torch.arange(start, start + prod(value.shape), dtype=torch.float64)
    numbers = numbers.reshape(value.shape)
    if value.strides is None or 0 in value.strides:
        return numbers
    return torch.empty_strided(value.shape, value.strides, dtype=torch.float64).copy_(numbers)


def as_value(build: Builder, x: Any) -> Value:
    """A step's value, from a value, a number or a folded tensor."""
    if isinstance(x, Value):
        return x
    if isinstance(x, torch.Tensor):
        return literal(build, x)
    return Value(build.constant(_exact(x)), ())


def literal(build: Builder, tensor: torch.Tensor) -> Value:
    """A folded tensor as exact constants: one Constant per distinct value, and a move."""
    values = tensor.detach().to(torch.float64).numpy()
    distinct, inverse = np.unique(values, return_inverse=True)
    shape = tuple(tensor.shape)
    if len(distinct) == 1:
        return Value(build.constant(_exact(distinct[0]), shape), shape)
    constants = tuple(build.constant(_exact(v)) for v in distinct)
    index = (inverse.reshape(shape) + 1).astype(np.int64)
    return Value(build.move(constants, index), shape)


def _exact(x: Any) -> Fraction:
    try:
        return Fraction(float(x)) if isinstance(x, float | np.floating) else Fraction(int(x))
    except (OverflowError, ValueError):
        raise UnsupportedError(
            f"cannot trace the constant {x}: it has no exact value; replace it by a finite number"
        ) from None


# ---------------------------------------------------------------------------------- elementwise


def apply(build: Builder, function: str, *operands: Any) -> Value:
    """A map of values, numbers and folded tensors, broadcast."""
    steps = [as_value(build, operand).step for operand in operands]
    result = build.map(function, *steps)
    return Value(result, build.shape(result))


def _register_plain_maps() -> None:
    names = """neg abs sqrt exp expm1 log log1p log2 log10 sin cos tan asin acos atan sinh cosh tanh
    asinh erf sigmoid div mul maximum minimum gt ge lt le eq ne logical_and logical_or logical_not"""
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

        LOWERINGS[name] = function
    LOWERINGS["sgn"] = LOWERINGS["sign"] = lambda build, x: apply(build, "sign", x)
    LOWERINGS["bitwise_and"] = LOWERINGS["logical_and"]
    LOWERINGS["bitwise_or"] = LOWERINGS["logical_or"]
    LOWERINGS["bitwise_not"] = LOWERINGS["logical_not"]


_register_plain_maps()


@lowers("add")
def _add(build: Builder, x: Any, y: Any, alpha: Any = 1) -> Value:
    return apply(build, "add", x, _scaled(build, alpha, as_value(build, y)))


@lowers("sub")
def _sub(build: Builder, x: Any, y: Any, alpha: Any = 1) -> Value:
    return apply(build, "sub", x, _scaled(build, alpha, as_value(build, y)))


@lowers("rsub")
def _rsub(build: Builder, x: Any, y: Any, alpha: Any = 1) -> Value:
    return apply(build, "sub", y, _scaled(build, alpha, as_value(build, x)))


def _scaled(build: Builder, factor: Any, value: Value) -> Value:
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
    """Integer powers are products, from the left as torch multiplies them."""
    if isinstance(exponent, int | float) and exponent == int(exponent) and abs(exponent) <= 64:
        base = as_value(build, base)
        if exponent == 0:
            return Value(build.constant(1, base.shape), base.shape)
        result = base
        for _ in range(abs(int(exponent)) - 1):
            result = apply(build, "mul", result, base)
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
    return apply(build, "where", apply(build, "gt", x, threshold), upstream, 0)


@lowers("sigmoid_backward")
def _sigmoid_backward(build: Builder, upstream: Any, y: Any) -> Value:
    slope = apply(build, "mul", apply(build, "sub", 1, y), y)
    return apply(build, "mul", upstream, slope)


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


# ------------------------------------------------------------------------- factories and casts


def _filled(build: Builder, shape: Any, value: Any) -> Value:
    shape = tuple(shape)
    return Value(build.constant(_exact(value), shape), shape)


@lowers("ones_like", "new_ones")
def _ones_like(build: Builder, x: Any, *rest: Any, out: Any, **ignored: Any) -> Any:
    return _filled(build, out.shape, 1) if out.is_floating_point() else torch.ones_like(out)


@lowers("zeros_like", "new_zeros", "empty_like", "new_empty", "new_empty_strided")
def _zeros_like(build: Builder, x: Any, *rest: Any, out: Any, **ignored: Any) -> Any:
    return _filled(build, out.shape, 0) if out.is_floating_point() else torch.zeros_like(out)


@lowers("full_like", "new_full", "fill")
def _full_like(build: Builder, x: Any, *rest: Any, out: Any, **ignored: Any) -> Any:
    if isinstance(rest[-1], Value):
        return Value(build.expand(rest[-1].step, tuple(out.shape)), tuple(out.shape))
    return _filled(build, out.shape, rest[-1])


@lowers("_to_copy")
def _to_copy(build: Builder, x: Any, *, out: Any, **ignored: Any) -> Any:
    """A cast between floating-point types is exact in references and one rounding elsewhere."""
    if isinstance(x, torch.Tensor):
        return x.to(out.dtype)
    if not out.is_floating_point():
        raise UnsupportedError(
            f"cannot trace a cast to {out.dtype}: the result would depend on rounding; "
            "compute integers from integers"
        )
    if out.dtype in (torch.float32, torch.float64):
        return x
    name = str(out.dtype).removeprefix("torch.")
    return Value(build.map("cast", x.step, format=name), x.shape)


_WANTS_OUT = frozenset(
    """ones_like new_ones zeros_like new_zeros empty_like new_empty new_empty_strided full_like new_full
    fill _to_copy""".split()
)


# -------------------------------------------------------------------------- accumulating movement


def _accumulated(build: Builder, base: Value, places: Index, values: Value) -> Value:
    """base with values added at element numbers `places` of it: padded terms and a reduce."""
    order = np.argsort(places.ravel(), kind="stable")
    targets, counts = np.unique(places, return_counts=True)
    starts = np.cumsum(counts) - counts
    rank = np.arange(places.size) - np.repeat(starts, counts)
    terms = np.zeros((prod(base.shape), counts.max(initial=0)), np.int64)
    terms[np.repeat(targets, counts) - 1, rank] = order + 1
    laid = build.move((values.step,), terms.reshape(*base.shape, -1))
    return apply(build, "add", base, Value(build.reduce(laid), base.shape))


def _replaced(build: Builder, base: Value, places: Index, values: Value) -> Value:
    """base with values put at element numbers `places` of it."""
    if np.unique(places).size < places.size:
        raise UnsupportedError(
            "cannot trace index_put without accumulate at an index that occurs twice: which value "
            "stays is not defined; use accumulate=True, or distinct indices"
        )
    index = numbered(base.shape).ravel()
    index[places.ravel() - 1] = prod(base.shape) + np.arange(1, places.size + 1)
    step = build.move((base.step, values.step), index.reshape(base.shape))
    return Value(step, base.shape)


def _whole(build: Builder, values: Any, shape: Shape) -> Value:
    return Value(build.expand(as_value(build, values).step, shape), shape)


@lowers("index_put", "_unsafe_index_put")
def _index_put(
    build: Builder, x: Any, indices: Any, values: Any, accumulate: bool = False
) -> Value:
    base = as_value(build, x)
    numbers = torch.from_numpy(numbered(base.shape))
    places = numbers[tuple(slice(None) if i is None else i for i in indices)].numpy()
    put = _accumulated if accumulate else _replaced
    return put(build, base, places, _whole(build, values, places.shape))


@lowers("scatter_add")
def _scatter_add(build: Builder, x: Any, dim: int, index: Any, values: Any) -> Value:
    base, source = as_value(build, x), as_value(build, values)
    places = torch.gather(torch.from_numpy(numbered(base.shape)), dim, index).numpy()
    inside = tuple(slice(0, size) for size in index.shape)
    chosen = Value(build.move((source.step,), numbered(source.shape)[inside]), tuple(index.shape))
    return _accumulated(build, base, places, chosen)


@lowers("index_add")
def _index_add(build: Builder, x: Any, dim: int, index: Any, values: Any, alpha: Any = 1) -> Value:
    base, source = as_value(build, x), as_value(build, values)
    places = torch.index_select(torch.from_numpy(numbered(base.shape)), dim, index).numpy()
    return _accumulated(build, base, places, _scaled(build, alpha, source))


# ------------------------------------------------------------------- reductions and contractions


def _axes(shape: Shape, dims: Any) -> list[int]:
    if dims is None or (isinstance(dims, Sequence) and not dims):
        return list(range(len(shape)))
    dims = [dims] if isinstance(dims, int) else dims
    return sorted(d % len(shape) for d in dims) if shape else []


@lowers("sum")
def _sum(build: Builder, x: Any, dim: Any = None, keepdim: bool = False, **cast: Any) -> Value:
    """Leaves in C order of the summed axes."""
    value = as_value(build, x)
    axes = _axes(value.shape, dim)
    rest = [axis for axis in range(len(value.shape)) if axis not in axes]
    lead = tuple(value.shape[axis] for axis in rest)
    terms: Index = numbered(value.shape).transpose([*rest, *axes])
    leaves = prod(value.shape[axis] for axis in axes)
    laid = build.move((value.step,), np.ascontiguousarray(terms).reshape(*lead, leaves))
    shape = tuple(1 if a in axes else s for a, s in enumerate(value.shape)) if keepdim else lead
    return Value(build.reshape(build.reduce(laid), shape), shape)


@lowers("mean")
def _mean(build: Builder, x: Any, dim: Any = None, keepdim: bool = False, **cast: Any) -> Value:
    value = as_value(build, x)
    count = prod(value.shape[axis] for axis in _axes(value.shape, dim))
    if count == 0:
        raise UnsupportedError("cannot trace the mean of no elements; it is not a number")
    return apply(build, "div", _sum(build, value, dim, keepdim), count)


@lowers("bmm")
def _bmm(build: Builder, x: Any, y: Any) -> Value:
    first, second = as_value(build, x), as_value(build, y)
    result = build.contract(first.step, second.step)
    return Value(result, build.shape(result))


@lowers("mm")
def _mm(build: Builder, x: Any, y: Any) -> Value:
    first, second = as_value(build, x), as_value(build, y)
    a = build.reshape(first.step, (1, *first.shape))
    b = build.reshape(second.step, (1, *second.shape))
    shape = (first.shape[0], second.shape[1])
    return Value(build.reshape(build.contract(a, b), shape), shape)


@lowers("mv")
def _mv(build: Builder, x: Any, y: Any) -> Value:
    column = as_value(build, y)
    wide = Value(build.reshape(column.step, (*column.shape, 1)), (*column.shape, 1))
    product = _mm(build, x, wide)
    return Value(build.reshape(product.step, product.shape[:1]), product.shape[:1])


@lowers("dot", "vdot")
def _dot(build: Builder, x: Any, y: Any) -> Value:
    row = as_value(build, x)
    product = _mv(build, Value(build.reshape(row.step, (1, *row.shape)), (1, *row.shape)), y)
    return Value(build.reshape(product.step, ()), ())


@lowers("addmm", "addmv", "baddbmm")
def _addmm(build: Builder, start: Any, x: Any, y: Any, *, beta: Any = 1, alpha: Any = 1) -> Value:
    rank = len(as_value(build, x).shape), len(as_value(build, y).shape)
    multiply = {(2, 2): _mm, (2, 1): _mv, (3, 3): _bmm}[rank]
    product = _scaled(build, alpha, multiply(build, x, y))
    if beta == 0:
        return product
    return apply(build, "add", _scaled(build, beta, as_value(build, start)), product)


# --------------------------------------------------------------------------------- convolution


@lowers("convolution")
def _convolution(
    build: Builder, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
    transposed: bool, output_padding: Any, groups: int,
) -> Value:  # fmt: skip
    geometry = conv.Geometry(tuple(stride), tuple(padding), tuple(dilation), groups)
    source, kernel = as_value(build, x), as_value(build, weight)
    placeholder, taps = (torch.empty(v.shape, device="meta") for v in (source, kernel))
    shape = tuple(
        torch.convolution(
            placeholder, taps, None, stride, padding, dilation, transposed, output_padding, groups
        ).shape
    )
    product = conv.correlate_transposed if transposed else conv.correlate
    result = Value(product(build, source.step, kernel.step, geometry, shape), shape)
    if bias is None:
        return result
    start = as_value(build, bias)
    wide = (*start.shape, *[1] * (len(shape) - 2))
    return apply(build, "add", result, Value(build.reshape(start.step, wide), wide))


@lowers("convolution_backward")
def _convolution_backward(
    build: Builder, upstream: Any, x: Any, weight: Any, bias_sizes: Any, stride: Any, padding: Any,
    dilation: Any, transposed: bool, output_padding: Any, groups: int, mask: Sequence[bool],
) -> tuple[Value | None, Value | None, Value | None]:  # fmt: skip
    geometry = conv.Geometry(tuple(stride), tuple(padding), tuple(dilation), groups)
    grad, source, kernel = (as_value(build, v) for v in (upstream, x, weight))
    to_input: Value | None = None
    to_weight: Value | None = None
    if mask[0]:
        product = conv.correlate if transposed else conv.correlate_transposed
        step = product(build, grad.step, kernel.step, geometry, source.shape)
        to_input = Value(step, source.shape)
    if mask[1]:
        # A transposed convolution is the input gradient of a plain one: the two exchange roles.
        wide, narrow = (grad, source) if transposed else (source, grad)
        step = conv.weight_gradient(build, wide.step, narrow.step, geometry, kernel.shape)
        to_weight = Value(step, kernel.shape)
    to_bias = None
    if mask[2]:
        step = conv.bias_gradient(build, grad.step)
        to_bias = Value(step, build.shape(step))
    return to_input, to_weight, to_bias
