"""How ATen operations become steps: one function each, registered by its ATen name.

A value while lowering is a step number wrapped in `Value`, a tensor that depends on no float
(folded: integers, booleans), a `Selection` (indices that depend on floats), or a plain Python argument.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import Any

import numpy as np
import torch

from roundoff.errors import RoundoffError, UnsupportedError
from roundoff.numbers.formats import as_format
from roundoff.orders import holds
from roundoff.trace.functions import FUNCTIONS, Kind
from roundoff.trace.lowering.arguments import arguments_of, check_form
from roundoff.trace.lowering.calls import call_of
from roundoff.trace.steps import Builder, Index, Rounded, Shape, numbered


@dataclass(frozen=True)
class Value:
    """A step's result, with the strides and the type that the tensor has in PyTorch.

    None inside a lowering, where there is no tensor.
    """

    step: int
    shape: Shape
    strides: tuple[int, ...] | None = None
    dtype: torch.dtype | None = None


#: Names that no user writes, left out of messages.
INTERNAL = re.compile(
    r"^_|_data$|^native_batch_norm_legit|^safe_|^unsafe_|_backward$|_copy$|_fresh|_strided|^new_|_like$|^bitwise|^clamp_|scatter$|^l[et]$"
)


@dataclass(frozen=True)
class Selection:
    """Indices that depend on floats: the result of an arg-max.

    masks: a boolean step per candidate, exactly one of them true per element; candidates: the index
    that each stands for.  Shapes: masks (*shape), candidates (*shape, number of masks).
    """

    masks: tuple[int, ...]
    candidates: Index

    def moved(self, build: Builder, places: Index) -> Selection:
        """The same indices at other places; places: element numbers from 1."""
        masks = tuple(build.move((mask,), places) for mask in self.masks)
        flat = self.candidates.reshape(-1, len(self.masks))
        return Selection(masks, flat[places.ravel() - 1].reshape(*places.shape, -1))


Lowering = Callable[..., Any]
LOWERINGS: dict[str, Lowering] = {}

#: What makes the numbers of a factory exactly: functions (build, how many, *the operation's arguments).
FACTORIES: dict[str, Callable[..., Value]] = {}

#: Factories of numbers that the code states.  Those are literals: the doubles that they are, in any type.
LITERALS = frozenset(("full", "scalar_tensor"))

#: Movement operations: run on element numbers, their result is the index.  Only what moves whole
#: elements belongs here; sort, convolution and accumulating scatters also run on numbers and
#: return plausible nonsense.
MOVES = frozenset(
    """alias as_strided cat clone constant_pad_nd contiguous detach diagonal expand flip
    index index_select lift_fresh lift_fresh_copy movedim narrow permute pixel_shuffle
    pixel_unshuffle repeat reshape roll rot90 select select_backward slice slice_backward split
    split_with_sizes squeeze stack t transpose tril triu unbind unfold unsqueeze _unsafe_view
    view slice_scatter select_scatter diagonal_backward copy _reshape_alias view_as
    expand_as as_strided_scatter diagonal_scatter unsafe_split unsafe_chunk reflection_pad1d
    reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d im2col diag_embed
    upsample_nearest1d upsample_nearest2d upsample_nearest3d""".split()
)


#: Moves whose further arguments are indices; all tensors that others take are moved.
INDEXING = frozenset(("index", "index_select", "narrow"))


#: Factories and casts, which are told what the result looks like.
WANTS_OUT = frozenset(
    """ones_like new_ones zeros_like new_zeros empty_like new_empty new_empty_strided full_like new_full
    fill zero _to_copy""".split()
)


#: What indices that depend on floats may be given to.
SELECTING = frozenset(
    """gather scatter scatter_add max_pool2d_with_indices_backward max_pool3d_with_indices_backward
    adaptive_max_pool2d_backward adaptive_max_pool3d_backward""".split()
)


def lowers(*names: str) -> Callable[[Lowering], Lowering]:
    """Register a function (build, *args, **kwargs) for ATen operations, overloads aside."""

    def register(function: Lowering) -> Lowering:
        function.kind = function.__module__.rpartition(".")[2]  # type: ignore[attr-defined]
        LOWERINGS.update(dict.fromkeys(names, function))
        return function

    return register


def makes(*names: str) -> Callable[[Callable[..., Value]], Callable[..., Value]]:
    """Register a function of FACTORIES."""

    def register(function: Callable[..., Value]) -> Callable[..., Value]:
        FACTORIES.update(dict.fromkeys(names, function))
        return function

    return register


def lower(build: Builder, target: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """One ATen call as steps.  out: a result without numbers, for its shape, strides and type.

    Raises: UnsupportedError naming the operation, whatever goes wrong; the cause is chained.
    """
    try:
        return _lowered(build, target, args, kwargs, out)
    except RoundoffError:
        raise
    except Exception as error:
        why = f"{type(error).__name__}: {str(error).strip()}".split("\n")[0]
        raise UnsupportedError(
            f"cannot trace this call of aten::{target.overloadpacket.__name__} ({why}); write it with other "
            "operations"
        ) from error


def _lowered(build: Builder, target: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """One ATen call.  out: a result without numbers, for its shape, strides and type.

    Raises: UnsupportedError for an operation that is not known, naming it and where the known ones are.
    """
    name = str(target.overloadpacket.__name__)
    found = _floats(args, kwargs)
    if (
        found
        and torch.Tag.dynamic_output_shape in target.tags
        and name not in ("index", "masked_select")
    ):
        raise UnsupportedError(
            f"the shape of a result depends on numbers (aten::{name} of floats), which no trace can follow; "
            "keep the shape, with torch.where"
        )
    if torch.Tag.nondeterministic_seeded in target.tags:
        raise UnsupportedError(
            f"cannot trace the operation aten::{name}: it draws random numbers; draw them outside the "
            "function and pass them as an input"
        )
    if target._schema.is_mutable:
        raise UnsupportedError(
            f"cannot trace the operation aten::{name}: it writes into its arguments in a way that cannot "
            "be followed; use one that returns its result"
        )
    own = computed_in(out, found)
    build.kernel, build.format = name, build.named(None if own is None else format_name(own))
    if not found and (name not in LOWERINGS or not _floating(out)):
        return _folded(target, name, args, kwargs, out, stated=build.format is not None)
    if name in (*MOVES, *LOWERINGS):
        _refuse_whole(name, found, out)
    asked = args, kwargs
    if _floating(out) and name != "_to_copy":
        args, kwargs = torch.utils._pytree.tree_map(
            lambda leaf: _converted(build, leaf, own), (args, kwargs)
        )
    if name in MOVES:
        if isinstance(args[0], Selection):
            return _move_selection(build, target, args, kwargs)
        return _laid(lower_move(build, target, args, kwargs, out), out, own)
    if any(isinstance(each, Selection) for each in found) and name not in SELECTING:
        raise UnsupportedError(
            f"cannot trace aten::{name} of indices that depend on floats (an arg-max); they may only choose "
            "elements, by gather or in the gradient of a maximum"
        )
    if name not in LOWERINGS:
        known = sorted(n for n in {*MOVES, *LOWERINGS} if not INTERNAL.search(n))
        near = ", ".join(difflib.get_close_matches(name, known, 5, 0.3))
        raise UnsupportedError(
            f"cannot trace the operation aten::{name}; write the function with known ones"
            f"{f' (the nearest by name: {near})' if near else ''}: docs/operations.md lists all {len(known)}"
        )
    positional, named = arguments_of(target, args, kwargs)
    if name in WANTS_OUT:
        named["out"] = out
    check_form(target, LOWERINGS[name], positional, named)
    first = len(build.steps)
    build.call = call_of(target, *asked, build.declared, number=first)
    try:
        result = LOWERINGS[name](build, *positional, **named)
    finally:
        build.call = None
    if isinstance(result, tuple):
        _name_results(build, first, result)
    return _laid(result, out, own)


def _name_results(build: Builder, first: int, results: tuple[Any, ...]) -> None:
    """Which of a call's results its steps are part of."""
    of: dict[int, set[int]] = {}
    for number, result in enumerate(results):
        pending = [result.step] if isinstance(result, Value) else []
        while pending:
            at = pending.pop()
            if at >= first and number not in of.setdefault(at, set()):
                of[at].add(number)
                pending += build.steps[at].operands
    for at, parts in of.items():
        step = build.steps[at]
        if isinstance(step, Rounded) and step.call is not None:
            call = replace(step.call, results=tuple(sorted(parts)))
            build.steps[at] = replace(step, call=call)


def computed_in(out: Any, operands: Sequence[Any] = ()) -> torch.dtype | None:
    """The type that a call computes in: the narrowest floating-point one of its results.

    Where no result is floating-point (a comparison), the type that the operands are promoted to.
    """
    results = _types(torch.utils._pytree.tree_leaves(out))
    if results:
        return max(results, key=lambda dtype: torch.finfo(dtype).eps)
    given = _types([v for v in operands if isinstance(v, Value) and v.shape]) or _types(operands)
    return functools.reduce(torch.promote_types, given) if given else None


def _types(leaves: Sequence[Any]) -> list[torch.dtype]:
    types = [getattr(leaf, "dtype", None) for leaf in leaves]
    return [dtype for dtype in types if dtype is not None and dtype.is_floating_point]


def narrows(source: torch.dtype | None, target: torch.dtype | None) -> bool:
    """Whether a conversion between floating-point types may round."""
    if source is None or target in (None, source) or not source.is_floating_point:
        return False
    return not holds(as_format(target), as_format(source))


def _converted(build: Builder, leaf: Any, own: torch.dtype | None) -> Any:
    """An operand as the call reads it: in the type that the call computes in."""
    if not isinstance(leaf, Value) or not narrows(leaf.dtype, own):
        return leaf
    return replace(leaf, step=build.map("cast", leaf.step), dtype=own)


def format_name(dtype: Any) -> str:
    """Of a floating-point type: float16, bfloat16, float32, float64."""
    return str(dtype).removeprefix("torch.")


def _laid(result: Any, out: Any, own: torch.dtype | None) -> Any:
    """Results with their strides in PyTorch, on which a later view depends, and the call's type."""
    if isinstance(result, tuple | list) and isinstance(out, tuple | list):
        return type(result)(_laid(r, o, own) for r, o in zip(result, out, strict=False))
    if isinstance(result, Value) and isinstance(out, torch.Tensor):
        strides = tuple(out.stride()) if result.strides is None else result.strides
        return replace(result, strides=strides, dtype=own if out.is_floating_point() else out.dtype)
    return result


def _folded(target: Any, name: str, args: Any, kwargs: Any, out: Any, *, stated: bool) -> Any:
    """A call that depends on no float: a plain result, for masks and indices that are made of it.

    What a factory makes by a formula, and views of it, know how to make their numbers exactly.  stated: in
    another type than the declared one; then the numbers are those that PyTorch makes in that type.
    """
    if name in FACTORIES and stated and _floating(out):
        return target(*args, **kwargs).to(torch.float64)
    if (name in FACTORIES or name in LITERALS) and _floating(out):
        result = target(*args, **{**kwargs, "dtype": torch.float64})
        if name in FACTORIES:
            positional, named = arguments_of(target, args, kwargs)
            result.made = lambda build: FACTORIES[name](build, len(result), *positional, **named)
        return result
    result = target(*args, **kwargs)
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    if name in MOVES and isinstance(result, torch.Tensor) and any(map(_made, leaves)):
        result.made = lambda build: lower_move(build, target, args, kwargs, out)  # type: ignore[attr-defined]
    return result


def _made(leaf: Any) -> Callable[[Builder], Value] | None:
    """How to make a folded tensor's numbers exactly, where they are not the doubles that it holds."""
    return getattr(leaf, "made", None)


def _refuse_whole(name: str, operands: Sequence[Any], out: Any) -> None:
    """Raises: UnsupportedError where floats would become whole numbers."""
    results = [
        leaf.dtype for leaf in torch.utils._pytree.tree_leaves(out) if hasattr(leaf, "dtype")
    ]
    given = [each.dtype for each in operands if isinstance(each, Value) and each.dtype is not None]
    whole = all(not dtype.is_floating_point and dtype != torch.bool for dtype in results)
    if results and whole and any(dtype.is_floating_point for dtype in given):
        raise UnsupportedError(
            f"cannot trace aten::{name} from floats to {results[0]}: the result would depend on rounding; "
            "compute integers from integers"
        )


def _floats(*trees: Any) -> list[Any]:
    leaves = torch.utils._pytree.tree_leaves(trees)
    return [leaf for leaf in leaves if isinstance(leaf, Value | Selection)]


def _floating(out: Any) -> bool:
    leaves = torch.utils._pytree.tree_leaves(out)
    return any(isinstance(leaf, torch.Tensor) and leaf.is_floating_point() for leaf in leaves)


# ------------------------------------------------------------------------------------- movement


def lower_move(build: Builder, target: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """The ATen operation itself, run on element numbers."""
    operands: list[int] = []
    start = 1
    name = target.overloadpacket.__name__
    if any(isinstance(argument, torch.dtype) for argument in args):
        raise UnsupportedError(
            f"cannot trace aten::{name} to another dtype, which reads the bits of numbers; convert them "
            "with .to()"
        )
    first = 1 if name in INDEXING else len(args)
    if any(isinstance(leaf, Value) for leaf in torch.utils._pytree.tree_leaves(args[first:])):
        raise UnsupportedError(
            f"cannot trace aten::{name} by a mask or by indices that depend on floats; choose by torch.where"
        )
    boolean = all(leaf.dtype == torch.bool for leaf in torch.utils._pytree.tree_leaves(out))

    def numbers(leaf: Any) -> Any:
        nonlocal start
        if not isinstance(leaf, torch.Tensor | Value):
            return leaf
        leaf = as_value(build, leaf)
        operands.append(leaf.step if boolean else as_number(build, leaf.step))
        tensor = _with_numbers(leaf, start)
        start += prod(leaf.shape)
        return tensor

    tree_map = torch.utils._pytree.tree_map
    args = (*tree_map(numbers, tuple(args[:first])), *args[first:])
    kwargs = {k: v for k, v in kwargs.items() if k not in ("dtype", "device", "layout")}
    if "constant_pad_nd" in str(target) and len(args) > 2 and args[2] != 0:
        operands.append(build.constant(exact(args[2])))
        args = (*args[:2], start)

    def index(tensor: torch.Tensor) -> Value:
        places = tensor.numpy().astype(np.int64)
        shape = tuple(tensor.shape)
        return Value(build.move(tuple(operands), places), shape, tuple(tensor.stride()))

    if name in ("view", "_unsafe_view"):  # of an expanded tensor, whose numbers lie in C order
        target = torch.ops.aten.reshape.default
    return tree_map(index, target(*args, **kwargs))


def _move_selection(build: Builder, target: Any, args: Any, kwargs: Any) -> Selection:
    chosen = args[0]
    numbers = torch.arange(1, 1 + len(chosen.candidates.reshape(-1, len(chosen.masks))))
    moved = target(numbers.reshape(chosen.candidates.shape[:-1]), *args[1:], **kwargs)
    return chosen.moved(build, moved.numpy())


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
        found = literal(build, x)
        if x.dtype != torch.bool:
            return found
        return Value(build.map("ne", found.step, build.constant(0)), found.shape)
    return Value(build.constant(exact(x)), ())


def literal(build: Builder, tensor: torch.Tensor) -> Value:
    """A folded tensor as exact constants: one Constant per distinct value, and a move."""
    made = _made(tensor)
    if made is not None:
        return made(build)
    values = tensor.to(torch.float64).numpy(force=True)
    distinct, inverse = np.unique(values, return_inverse=True)
    shape = tuple(tensor.shape)
    if len(distinct) == 1:
        return Value(build.constant(exact(distinct[0]), shape), shape)
    constants = tuple(build.constant(exact(v)) for v in distinct)
    index = (inverse.reshape(shape) + 1).astype(np.int64)
    return Value(build.move(constants, index), shape)


def exact(x: Any) -> Fraction | float:
    """Infinities stay what they are: masks put them in, exponentials and maxima take them out."""
    if isinstance(x, Fraction):
        return x
    if isinstance(x, float | np.floating):
        if np.isnan(x):
            raise UnsupportedError("cannot trace the constant nan; replace it by a number")
        return float(x) if np.isinf(x) else Fraction(float(x))
    return Fraction(int(x))


def apply(build: Builder, function: str, *operands: Any) -> Value:
    """A map of values, numbers and folded tensors, broadcast; booleans count as 0 and 1."""
    if function == "where" and isinstance(operands[0], torch.Tensor):
        return _picked(build, *operands)
    steps = [as_value(build, operand).step for operand in operands]
    kind = FUNCTIONS[function].kind
    if kind is Kind.SELECTION:
        steps = [steps[0], *(as_number(build, step) for step in steps[1:])]
    elif kind is not Kind.LOGICAL:
        steps = [as_number(build, step) for step in steps]
    result = build.map(function, *steps)
    return Value(result, build.shape(result))


def _picked(build: Builder, condition: torch.Tensor, first: Any, second: Any) -> Value:
    """A choice that does not depend on floats is a move."""
    steps = [as_number(build, as_value(build, x).step) for x in (first, second)]
    shape = np.broadcast_shapes(tuple(condition.shape), *(build.shape(step) for step in steps))
    one, two = (
        np.broadcast_to(numbered(build.shape(step), start), shape)
        for step, start in zip(steps, (1, 1 + prod(build.shape(steps[0]))), strict=True)
    )
    index = np.where(np.broadcast_to(condition.numpy(), shape), one, two)
    return Value(build.move(tuple(steps), index), tuple(shape))


def as_number(build: Builder, step: int) -> int:
    """0 and 1 for a boolean step."""
    if not build.boolean(step):
        return step
    return build.map("where", step, build.constant(1), build.constant(0))


def exact_to(build: Builder, value: Any, shape: Shape) -> Value:
    """Any value, number or folded tensor, broadcast to a shape."""
    return Value(build.expand(as_value(build, value).step, shape), shape)


# -------------------------------------------------------------------------------- expressions


class Expression:
    """A value with operators, so that a lowering reads as its formula."""

    def __init__(self, build: Builder, value: Any) -> None:
        self.build, self.value = build, as_value(build, value)

    @property
    def shape(self) -> Shape:
        return self.value.shape

    def map(self, function: str, *others: Any) -> Expression:
        operands = [o.value if isinstance(o, Expression) else o for o in others]
        return Expression(self.build, apply(self.build, function, self.value, *operands))

    def constant(self, value: Any) -> Expression:
        """An exact number; doubles are what they are, so write fractions as Fraction."""
        return Expression(self.build, Value(self.build.constant(exact(value)), ()))

    def lift(self, value: Any) -> Expression:
        return value if isinstance(value, Expression) else Expression(self.build, value)

    def reshape(self, shape: Shape) -> Expression:
        return Expression(self.build, Value(self.build.reshape(self.value.step, shape), shape))

    def move(self, index: Index, *others: Expression) -> Expression:
        """Elements by number, others numbered after this one's; 0 is zero."""
        steps = tuple(as_number(self.build, o.value.step) for o in (self, *others))
        return Expression(self.build, Value(self.build.move(steps, index), index.shape))

    def sum_last(self) -> Expression:
        return Expression(
            self.build,
            Value(self.build.reduce(as_number(self.build, self.value.step)), self.shape[:-1]),
        )

    def expand(self, shape: Shape) -> Expression:
        return Expression(self.build, exact_to(self.build, self.value, shape))

    def __add__(self, other: Any) -> Expression:
        return self.map("add", other)

    def __radd__(self, other: Any) -> Expression:
        return self + other

    def __sub__(self, other: Any) -> Expression:
        return self.map("sub", other)

    def __rsub__(self, other: Any) -> Expression:
        return self.lift(other).map("sub", self)

    def __mul__(self, other: Any) -> Expression:
        return self.map("mul", other)

    def __rmul__(self, other: Any) -> Expression:
        return self * other

    def __truediv__(self, other: Any) -> Expression:
        return self.map("div", other)

    def __rtruediv__(self, other: Any) -> Expression:
        return self.lift(other).map("div", self)

    def __neg__(self) -> Expression:
        return self.map("neg")

    def __abs__(self) -> Expression:
        return self.map("abs")

    def __gt__(self, other: Any) -> Expression:
        return self.map("gt", other)

    def __ge__(self, other: Any) -> Expression:
        return self.map("ge", other)

    def __lt__(self, other: Any) -> Expression:
        return self.map("lt", other)

    def __le__(self, other: Any) -> Expression:
        return self.map("le", other)

    def __and__(self, other: Any) -> Expression:
        return self.map("logical_and", other)

    def __invert__(self) -> Expression:
        return self.map("logical_not")

    def where(self, first: Any, second: Any) -> Expression:
        """first where this is true, else second."""
        first = self.lift(first)
        return self.map("where", first, second)

    def exp(self) -> Expression:
        return self.map("exp")

    def log(self) -> Expression:
        return self.map("log")

    def sqrt(self) -> Expression:
        return self.map("sqrt")

    def tanh(self) -> Expression:
        return self.map("tanh")

    def sigmoid(self) -> Expression:
        return self.map("sigmoid")


def layout(x: Expression) -> torch.memory_format | None:
    """In which order the tensor fills its memory: kernels choose their way by it; None: in none."""
    if x.value.strides is None:
        return torch.contiguous_format
    tensor = torch.empty_strided(x.shape, x.value.strides, device="meta")
    for order in (torch.contiguous_format, torch.channels_last, torch.channels_last_3d):
        if tensor.is_contiguous(memory_format=order):
            return order
    return None


def formula(*names: str) -> Callable[[Lowering], Lowering]:
    """Register a function of expressions for ATen operations; it stays one, for other formulas."""

    def register(function: Lowering) -> Lowering:
        @functools.wraps(function)
        def lowering(build: Builder, *args: Any, **kwargs: Any) -> Any:
            def wrap(x: Any) -> Any:
                floating = isinstance(x, torch.Tensor) and x.is_floating_point()
                return Expression(build, x) if isinstance(x, Value) or floating else x

            def unwrap(x: Any) -> Any:
                if isinstance(x, tuple):
                    return tuple(map(unwrap, x))
                return x.value if isinstance(x, Expression) else x

            return unwrap(function(*map(wrap, args), **{k: wrap(v) for k, v in kwargs.items()}))

        signature = inspect.signature(function)
        first = inspect.Parameter("build", inspect.Parameter.POSITIONAL_ONLY)
        lowering.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[first, *signature.parameters.values()]
        )
        lowers(*names)(lowering)
        return function

    return register
