"""Sorts, and what is made of them: the order that the given numbers have is a decision.

Where numbers are equal, PyTorch's own choice among them is kept.
"""

from __future__ import annotations

from typing import Any

import torch

from roundoff.trace.decomposed.plainly import ascending, decided, plainly
from roundoff.trace.decomposed.registry import decomposes

aten = torch.ops.aten


def _taken(x: torch.Tensor, dim: int, places: torch.Tensor) -> torch.Tensor:
    return x.gather(dim, places) if x.dim() else x + 0


def _ordered(values: torch.Tensor, dim: int, what: str, *, descending: bool) -> None:
    if values.dim():
        laid = values.movedim(dim, -1)
        ascending(laid.flip(-1) if descending else laid, what)


@decomposes("sort")
def _sort(
    x: torch.Tensor, dim: int = -1, descending: bool = False, *, stable: bool | None = False
) -> Any:
    _, places = plainly(aten.sort.stable, x, stable=stable, dim=dim, descending=descending)
    values = _taken(x, dim, places)
    _ordered(values, dim, "aten::sort", descending=descending)
    return values, places


@decomposes("topk")
def _topk(x: torch.Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    _, places = plainly(aten.topk.default, x, k, dim, largest, sorted)
    values = _taken(x, dim, places)
    if sorted:
        _ordered(values, dim, "aten::topk", descending=largest)
    if x.dim() and k < x.shape[dim]:
        chosen = plainly(torch.zeros_like, x, dtype=torch.bool)
        plainly(chosen.scatter_, dim, places, True)
        _apart(x, values, chosen, dim, largest=largest)
    return values, places


def _apart(
    x: torch.Tensor, values: torch.Tensor, chosen: torch.Tensor, dim: int, *, largest: bool
) -> None:
    """None of the others is beyond what has been chosen."""
    count = x.shape[dim] - values.shape[dim]
    rest = plainly(
        lambda: chosen.to(torch.int8).sort(dim=dim, stable=True)[1].narrow(dim, 0, count)
    )
    others = x.gather(dim, rest)
    if largest:
        decided(values.amin(dim) >= others.amax(dim), "aten::topk")
    else:
        decided(values.amax(dim) <= others.amin(dim), "aten::topk")


def _kth(x: torch.Tensor, k: int, dim: int, place: torch.Tensor, what: str) -> torch.Tensor:
    """The k-th smallest along an axis, from 0, which is at a place that PyTorch has chosen."""
    order = plainly(_order_with, x, k, dim, place)
    values = x.gather(dim, order)
    _ordered(values, dim, what, descending=False)
    return values.select(dim, k)


def _order_with(x: torch.Tensor, k: int, dim: int, place: torch.Tensor) -> torch.Tensor:
    """An order of the elements in which the one at a place is the k-th."""
    order = x.argsort(dim=dim, stable=True)
    at = (order == place.unsqueeze(dim)).to(torch.int8).argmax(dim, keepdim=True)
    there = order.narrow(dim, k, 1)
    return order.scatter(dim, at, there).scatter(dim, torch.full_like(at, k), place.unsqueeze(dim))


def _selected(
    x: torch.Tensor, k: int, dim: int, keepdim: bool, place: torch.Tensor, what: str
) -> Any:
    if not x.dim():
        return x + 0, place
    value = _kth(x, k, dim, place.squeeze(dim) if keepdim else place, what)
    return (value.unsqueeze(dim) if keepdim else value), place


@decomposes("kthvalue")
def _kthvalue(x: torch.Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    _, place = plainly(aten.kthvalue.default, x, k, dim, keepdim)
    return _selected(x, k - 1, dim, keepdim, place, "aten::kthvalue")


@decomposes("median.dim", "nanmedian.dim")
def _median_along(x: torch.Tensor, dim: int, keepdim: bool = False) -> Any:
    _, place = plainly(aten.median.dim, x, dim, keepdim)
    return _selected(
        x, (x.shape[dim] - 1) // 2 if x.dim() else 0, dim, keepdim, place, "aten::median"
    )


@decomposes("median.default", "nanmedian.default")
def _median(x: torch.Tensor) -> torch.Tensor:
    flat = x.reshape(-1)
    _, place = plainly(aten.median.dim, flat, 0)
    return _kth(flat, (len(flat) - 1) // 2, 0, place, "aten::median")


@decomposes("mode")
def _mode(x: torch.Tensor, dim: int = -1, keepdim: bool = False) -> Any:
    """The most frequent number: which numbers are equal is decided, too."""
    _, place = plainly(aten.mode.default, x, dim, keepdim)
    if not x.dim():
        return x + 0, place
    order = plainly(torch.argsort, x, dim=dim, stable=True)
    laid = x.gather(dim, order).movedim(dim, -1)
    if laid.shape[-1] > 1:
        ascending(laid, "aten::mode")
        decided(laid[..., 1:] == laid[..., :-1], "aten::mode")
    wide = place if keepdim else place.unsqueeze(dim)
    value = x.gather(dim, wide)
    return (value if keepdim else value.squeeze(dim)), place


def _running(operation: Any, compare: Any, what: str) -> Any:
    def running(x: torch.Tensor, dim: int) -> Any:
        """What is larger (or smaller) than all before it."""
        _, places = plainly(operation, x, dim)
        values = _taken(x, dim, places)
        if x.dim():
            decided(compare(values, x), what)
            laid = values.movedim(dim, -1)
            if laid.shape[-1] > 1:
                decided(compare(laid[..., 1:], laid[..., :-1]), what)
        return values, places

    return running


decomposes("cummax")(_running(aten.cummax.default, torch.ge, "aten::cummax"))
decomposes("cummin")(_running(aten.cummin.default, torch.le, "aten::cummin"))


def _farthest(name: str, compare: Any) -> None:
    operation = getattr(aten, name).default

    @decomposes(name)
    def farthest(x: torch.Tensor, dim: int | None = None, keepdim: bool = False) -> torch.Tensor:
        """The place of the largest, or smallest."""
        place: torch.Tensor = plainly(operation, x, dim, keepdim)
        if x.dim() and dim is None:
            flat = x.reshape(-1)
            decided(compare(flat[place.reshape(())], flat), f"aten::{name}")
        elif x.dim() and dim is not None:
            wide = place if keepdim else place.unsqueeze(dim)
            decided(compare(x.gather(dim, wide), x), f"aten::{name}")
        return place


_farthest("argmax", torch.ge)
_farthest("argmin", torch.le)


@decomposes("_unique2")
def _unique(
    x: torch.Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False
) -> Any:
    """Which numbers are equal, and their order, are decided."""
    found, inverse, counts = plainly(aten._unique2.default, x, True, True, True)
    flat = x.reshape(-1)
    first = plainly(_first_of_each, inverse.reshape(-1), len(found))
    values = flat[first]
    decided(flat == values[inverse.reshape(-1)], "aten::unique")
    if len(found) > 1:
        decided(values[1:] > values[:-1], "aten::unique")
    return values, inverse, counts


def _first_of_each(inverse: torch.Tensor, count: int) -> torch.Tensor:
    numbers = torch.arange(len(inverse))
    return torch.full((count,), len(inverse)).scatter_reduce(0, inverse, numbers, "amin")


def _between(values: torch.Tensor, edges: torch.Tensor, right: bool, what: str) -> torch.Tensor:
    """The number of edges below each value (right: not above); edges along the last axis, in order."""
    places: torch.Tensor = plainly(torch.searchsorted, edges, values, right=right)
    last = edges.shape[-1] - 1

    def at(numbers: torch.Tensor) -> torch.Tensor:
        numbers = plainly(torch.clamp, numbers, 0, last)
        return edges[numbers] if edges.dim() == 1 else edges.gather(-1, numbers)

    below, above = at(plainly(torch.sub, places, 1)), at(places)
    has_below, has_above = plainly(torch.gt, places, 0), plainly(torch.le, places, last)
    decided((below <= values if right else below < values) | ~has_below, what)
    decided((values < above if right else values <= above) | ~has_above, what)
    return places


@decomposes("bucketize.Tensor")
def _bucketize(
    x: torch.Tensor, edges: torch.Tensor, *, out_int32: bool = False, right: bool = False
) -> Any:
    found = _between(x, edges, right, "aten::bucketize")
    return found.to(torch.int32) if out_int32 else found


@decomposes("searchsorted.Tensor")
def _searchsorted(
    edges: torch.Tensor, x: torch.Tensor, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, sorter: torch.Tensor | None = None,
) -> Any:  # fmt: skip
    if sorter is not None:
        edges = edges.gather(-1, sorter)
    found = _between(x, edges, right or side == "right", "aten::searchsorted")
    return found.to(torch.int32) if out_int32 else found
