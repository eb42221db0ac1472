"""Movement that adds up: scatters, and the adjoints of gathers."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.lowering.elementwise import scaled
from roundoff.trace.lowering.registry import lowers
from roundoff.trace.lowering.values import Selection, Value, apply, as_value, exact_to
from roundoff.trace.steps import Builder, Constant, Index, Shape, numbered


def accumulated(
    build: Builder, base: Value | None, shape: Shape, places: Index, values: Value
) -> Value:
    """The base (None: zeros) with values added at element numbers `places` of it, one after another."""
    order = np.argsort(places.ravel(), kind="stable")
    targets, counts = np.unique(places, return_counts=True)
    starts = np.cumsum(counts) - counts
    rank = np.arange(places.size) - np.repeat(starts, counts)
    terms = np.zeros((prod(shape), counts.max(initial=0)), np.int64)
    terms[np.repeat(targets, counts) - 1, rank] = order + 1
    operands = [values.step]
    if base is not None:
        first = numbered(shape, 1 + prod(values.shape)).reshape(-1, 1)
        terms = np.concatenate([first, terms], axis=1)
        operands.append(base.step)
    laid = build.move(tuple(operands), terms.reshape(*shape, -1))
    return Value(build.reduce(laid), shape)


def _replaced(build: Builder, base: Value, places: Index, values: Value) -> Value:
    """The base with values put at element numbers `places` of it."""
    if np.unique(places).size < places.size:
        raise UnsupportedError(
            "cannot trace index_put without accumulate at an index that occurs twice: which value "
            "stays is not defined; use accumulate=True, or distinct indices"
        )
    index = numbered(base.shape).ravel()
    index[places.ravel() - 1] = prod(base.shape) + np.arange(1, places.size + 1)
    step = build.move((base.step, values.step), index.reshape(base.shape))
    return Value(step, base.shape)


@lowers("index_put", "_unsafe_index_put")
def _index_put(
    build: Builder, x: Any, indices: Any, values: Any, accumulate: bool = False
) -> Value:
    base = as_value(build, x)
    if any(isinstance(index, Value) for index in indices):
        return _put_where(build, base, indices, values, accumulate)
    numbers = torch.from_numpy(numbered(base.shape))
    places = numbers[tuple(slice(None) if i is None else i for i in indices)].numpy()
    given = exact_to(build, values, places.shape)
    if accumulate:
        return accumulated(build, base, base.shape, places, given)
    return _replaced(build, base, places, given)


def _put_where(build: Builder, base: Value, indices: Any, values: Any, accumulate: bool) -> Value:
    """A mask that depends on floats: what is put must be the same wherever the mask is true."""
    masks = [index for index in indices if index is not None]
    given = as_value(build, values)
    (mask, *others), before = masks, indices.index(masks[0])
    behind = len(base.shape) - before - len(mask.shape)
    row = given.shape[len(given.shape) - behind :] if behind else ()
    if others or before or not build.boolean(mask.step) or prod(given.shape) != prod(row):
        raise UnsupportedError(
            "cannot trace aten::index_put at a mask or at indices that depend on floats, but for one mask "
            "over the first axes and values that are the same for all that it chooses; choose by torch.where"
        )
    laid = Value(build.reshape(given.step, row), row)
    chosen = Value(build.reshape(mask.step, (*mask.shape, *[1] * behind)), ())
    new = apply(build, "add", base, laid) if accumulate else exact_to(build, laid, base.shape)
    return apply(build, "where", Value(chosen.step, build.shape(chosen.step)), new, base)


@lowers("index_fill")
def _index_fill(build: Builder, x: Any, dim: int, index: Any, value: Any) -> Value:
    base = as_value(build, x)
    places = torch.index_select(torch.from_numpy(numbered(base.shape)), dim, index).numpy()
    if not isinstance(value, Value) or not value.shape:  # one for all: it may be put there twice
        places = np.unique(places)
    return _replaced(build, base, places, exact_to(build, value, places.shape))


@lowers("scatter_add")
def _scatter_add(build: Builder, x: Any, dim: int, index: Any, values: Any) -> Value:
    base, source = as_value(build, x), as_value(build, values)
    if isinstance(index, Selection):
        return _scatter_selection(build, base, dim, index, values)
    places = torch.gather(torch.from_numpy(numbered(base.shape)), dim, index).numpy()
    inside = tuple(slice(0, size) for size in index.shape)
    chosen = Value(build.move((source.step,), numbered(source.shape)[inside]), tuple(index.shape))
    return accumulated(build, base, base.shape, places, chosen)


@lowers("index_add")
def _index_add(build: Builder, x: Any, dim: int, index: Any, values: Any, alpha: Any = 1) -> Value:
    base, source = as_value(build, x), as_value(build, values)
    places = torch.index_select(torch.from_numpy(numbered(base.shape)), dim, index).numpy()
    return accumulated(build, base, base.shape, places, scaled(build, alpha, source))


def adjoint(build: Builder, upstream: Any, shape: Shape, places: Index) -> Value:
    """The adjoint of a move: zeros of a shape, with upstream added at `places` (0: nowhere)."""
    values = as_value(build, upstream)
    inside = places.ravel() > 0
    chosen = build.move((values.step,), numbered(values.shape).ravel()[inside])
    values = Value(chosen, (int(inside.sum()),))
    return accumulated(build, None, shape, places.ravel()[inside], values)


def _numbers(shape: Any) -> torch.Tensor:
    return torch.from_numpy(numbered(tuple(shape)).astype(np.float64))


@lowers("embedding")
def _embedding(
    build: Builder, weight: Any, indices: torch.Tensor, padding: int, by_frequency: bool
) -> Value:
    """Rows of the table; the last two arguments matter to the gradient alone."""
    table = as_value(build, weight)
    index = numbered(table.shape)[indices.numpy()]
    return Value(build.move((table.step,), index), index.shape)


@lowers("embedding_dense_backward")
def _embedding_backward(
    build: Builder,
    upstream: Any,
    indices: torch.Tensor,
    rows: int,
    padding: int,
    by_frequency: bool,
) -> Value:
    if by_frequency:
        raise UnsupportedError(
            "cannot trace an embedding with scale_grad_by_freq=True; scale its gradient yourself"
        )
    shape = (rows, as_value(build, upstream).shape[-1])
    chosen = indices.numpy()
    places = np.where((chosen == padding)[..., None], 0, numbered(shape)[chosen])
    return adjoint(build, upstream, shape, places)


def _of_move(name: str) -> None:
    """Backward operations whose forward one is a move of the same arguments."""
    forward = getattr(torch.ops.aten, name)

    def backward(build: Builder, upstream: Any, x: Any, *args: Any) -> Value:
        shape = as_value(build, x).shape
        return adjoint(
            build, upstream, shape, forward(_numbers(shape), *args).numpy().astype(np.int64)
        )

    lowers(f"{name}_backward")(backward)


for _kind in ("reflection", "replication"):
    for _dims in (1, 2, 3):
        _of_move(f"{_kind}_pad{_dims}d")


def _of_nearest(name: str) -> None:
    forward = getattr(torch.ops.aten, name)

    def backward(build: Builder, upstream: Any, size: Any, shape: Any, *scales: Any) -> Value:
        places = forward(_numbers(shape), size, *scales).numpy().astype(np.int64)
        return adjoint(build, upstream, tuple(shape), places)

    lowers(f"{name}_backward")(backward)


for _dims in (1, 2, 3):
    for _kind in ("upsample_nearest", "_upsample_nearest_exact"):
        _of_nearest(f"{_kind}{_dims}d")


@lowers("unfold_backward")
def _unfold_backward(
    build: Builder, upstream: Any, shape: Any, dim: int, size: int, step: int
) -> Value:
    places = _numbers(shape).unfold(dim, size, step).numpy().astype(np.int64)
    return adjoint(build, upstream, tuple(shape), places)


@lowers("col2im")
def _col2im(build: Builder, x: Any, size: Any, *window: Any) -> Value:
    columns = as_value(build, x)
    kernel = window[0]
    channels = columns.shape[-2] // prod(kernel)
    shape = (*columns.shape[:-2], channels, *size)
    places = torch.ops.aten.im2col(_numbers(shape), *window).numpy().astype(np.int64)
    return adjoint(build, x, shape, places)


@lowers("scatter")
def _scatter(
    build: Builder, x: Any, dim: int, index: Any, values: Any, *, reduce: str | None = None
) -> Value:
    """One value per place; of an index that depends on floats, into zeros."""
    if reduce not in (None, "add"):
        raise UnsupportedError(
            f"cannot trace aten::scatter with reduce={reduce!r}; gather, and multiply without it"
        )
    base = as_value(build, x)
    numbers = torch.from_numpy(numbered(base.shape))
    if isinstance(index, Selection):
        if reduce is not None:
            return _scatter_selection(build, base, dim, index, values)
        step = build.steps[base.step]
        if not (isinstance(step, Constant) and step.value == 0):
            raise UnsupportedError(
                "cannot trace aten::scatter at indices that depend on floats; use scatter_add into zeros"
            )
        return _scatter_selection(build, base, dim, index, values)
    places = torch.gather(numbers, dim, index).numpy()
    inside = tuple(slice(0, size) for size in index.shape)
    if isinstance(values, Value | torch.Tensor):
        source = as_value(build, values)
        laid = build.move((source.step,), numbered(source.shape)[inside])
        chosen = Value(laid, places.shape)
    else:
        if reduce is None:  # one for all: it may be put there twice
            places = np.unique(places)
        chosen = exact_to(build, values, places.shape)
    if reduce == "add":
        return accumulated(build, base, base.shape, places, chosen)
    return _replaced(build, base, places, chosen)


def _scatter_selection(
    build: Builder, base: Value, dim: int, index: Selection, values: Any
) -> Value:
    numbers = torch.from_numpy(numbered(base.shape))
    upstream = exact_to(build, values, index.candidates.shape[:-1])
    total: Value | None = None
    for k, mask in enumerate(index.masks):
        chosen = torch.from_numpy(index.candidates[..., k].copy())
        places = torch.gather(numbers, dim, chosen).numpy()
        part = apply(build, "where", Value(mask, upstream.shape), upstream, 0)
        laid = adjoint(build, part, base.shape, places)
        total = laid if total is None else apply(build, "add", total, laid)
    return apply(build, "add", base, total)


@lowers("gather")
def _gather(build: Builder, x: Any, dim: int, index: Any) -> Value:
    base = as_value(build, x)
    numbers = torch.from_numpy(numbered(base.shape))
    if not isinstance(index, Selection):
        places = torch.gather(numbers, dim, index).numpy()
        return Value(build.move((base.step,), places), places.shape)
    found: Value | None = None
    for k, mask in enumerate(index.masks):
        chosen = torch.from_numpy(index.candidates[..., k].copy())
        places = torch.gather(numbers, dim, chosen).numpy()
        value = Value(build.move((base.step,), places), places.shape)
        if found is not None:
            value = apply(build, "where", Value(mask, places.shape), value, found)
        found = value
    assert found is not None
    return found
