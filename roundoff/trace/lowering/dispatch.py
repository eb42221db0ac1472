"""One ATen call to steps: moved, folded, or lowered by its registered function; refused by name."""

from __future__ import annotations

import difflib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from roundoff.errors import RoundoffError, UnsupportedError
from roundoff.trace.lowering.calls import call_of
from roundoff.trace.lowering.dtypes import computed_in, converted, format_name, laid
from roundoff.trace.lowering.movement import MOVES, lower_move, move_selection
from roundoff.trace.lowering.registry import FACTORIES, LOWERINGS
from roundoff.trace.lowering.schema_arguments import arguments_of, check_form
from roundoff.trace.lowering.values import Selection, Value, made_exactly
from roundoff.trace.steps import Builder, Rounded

#: Factories of numbers that the code states.  Those are literals: the doubles that they are, in any type.
LITERALS = frozenset(("full", "scalar_tensor"))

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

#: Names that no user writes, left out of messages.
INTERNAL = re.compile(
    r"^_|_data$|^native_batch_norm_legit|^safe_|^unsafe_|_backward$|_copy$|_fresh|_strided|^new_|_like$|^bitwise|^clamp_|scatter$|^l[et]$|__$"
)


def listed() -> dict[str, set[str]]:
    """The operations by kind, as a user knows them: without underscores, backward operations and copies."""
    found: dict[str, set[str]] = defaultdict(set)
    found["moves (no rounding)"] = {name for name in MOVES if not INTERNAL.search(name)}
    for name, function in LOWERINGS.items():
        if not INTERNAL.search(name.lstrip("_")):
            found[function.kind].add(name.lstrip("_"))  # type: ignore[attr-defined]
    return found


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
            f"cannot trace the operation aten::{name}: it draws random numbers by the numbers that it gets; "
            "draw them outside the function and pass them as an input"
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
            lambda leaf: converted(build, leaf, own), (args, kwargs)
        )
    if name in MOVES:
        if isinstance(args[0], Selection):
            return move_selection(build, target, args, kwargs)
        return laid(lower_move(build, target, args, kwargs, out), out, own)
    if any(isinstance(each, Selection) for each in found) and name not in SELECTING:
        raise UnsupportedError(
            f"cannot trace aten::{name} of indices that depend on floats (an arg-max); they may only choose "
            "elements, by gather or in the gradient of a maximum"
        )
    if name not in LOWERINGS:
        known = sorted(set().union(*listed().values()))
        near = ", ".join(difflib.get_close_matches(name.lstrip("_"), known, 5, 0.6))
        raise UnsupportedError(
            f"cannot trace the operation aten::{name}; write the function with known ones"
            f"{f' (the nearest by name: {near})' if near else ''}: python -m roundoff.trace.operations "
            f"lists all {len(known)}"
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
    return laid(result, out, own)


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
    if "empty" in name and isinstance(result, torch.Tensor):
        result = torch.zeros_like(result)  # of what was there before, nobody may read anything
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    if name in MOVES and isinstance(result, torch.Tensor) and any(map(made_exactly, leaves)):
        result.made = lambda build: lower_move(build, target, args, kwargs, out)  # type: ignore[attr-defined]
    return result


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
