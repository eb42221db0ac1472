"""Elements taken from, put to and summed at places."""

from __future__ import annotations

from typing import Any

import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.decomposed.plainly import decided, plainly
from roundoff.trace.decomposed.registry import decomposes


@decomposes("masked_select")
def _masked_select(x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    x, mask = torch.broadcast_tensors(x, mask)  # type: ignore[no-untyped-call]
    return x[mask]


@decomposes("masked_scatter")
def _masked_scatter(x: torch.Tensor, mask: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    x, mask = torch.broadcast_tensors(x, mask)  # type: ignore[no-untyped-call]
    places = mask.nonzero(as_tuple=True)
    return x.index_put(places, source.reshape(-1)[: len(places[0])])


@decomposes("masked_scatter_backward")
def _masked_scatter_backward(
    upstream: torch.Tensor, mask: torch.Tensor, sizes: Any
) -> torch.Tensor:
    chosen = _masked_select(upstream, mask)
    rest = plainly(torch.Size, sizes).numel() - len(chosen)
    return torch.cat([chosen, chosen.new_zeros(rest)]).reshape(sizes)


@decomposes("take")
def _take(x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1)[index]


@decomposes("_unsafe_index")
def _unsafe_index(x: torch.Tensor, indices: Any) -> torch.Tensor:
    return torch.ops.aten.index(x, indices)


@decomposes("_unsafe_masked_index")
def _unsafe_masked_index(
    x: torch.Tensor, mask: torch.Tensor, indices: Any, fill: Any
) -> torch.Tensor:
    """Elements at indices where a mask is true, else a number."""
    taken = torch.ops.aten.index(x, _inside(x, indices))
    wide = mask.reshape(mask.shape + (1,) * (taken.dim() - mask.dim()))
    return torch.where(wide, taken, fill)


@decomposes("_unsafe_masked_index_put_accumulate")
def _unsafe_masked_put(
    x: torch.Tensor, mask: torch.Tensor, indices: Any, values: torch.Tensor
) -> torch.Tensor:
    wide = mask.reshape(mask.shape + (1,) * (values.dim() - mask.dim()))
    return x.index_put(_inside(x, indices), torch.where(wide, values, 0), accumulate=True)


def _inside(x: torch.Tensor, indices: Any) -> Any:
    return [
        None if index is None else plainly(torch.clamp, index, -size, size - 1)
        for index, size in zip(indices, x.shape, strict=False)
    ]


@decomposes("index_copy")
def _index_copy(
    x: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor
) -> torch.Tensor:
    if not x.dim():
        return source.reshape(())
    places = [None] * (dim % x.dim()) + [index]
    return torch.ops.aten.index_put(x, places, source)


@decomposes("put")
def _put(
    x: torch.Tensor, index: torch.Tensor, source: torch.Tensor, accumulate: bool = False
) -> torch.Tensor:
    flat = x.reshape(-1)
    put = flat.index_put((index.reshape(-1),), source.reshape(-1), accumulate=accumulate)
    return put.reshape(x.shape)


def _unpooled(x: torch.Tensor, indices: torch.Tensor, size: Any) -> torch.Tensor:
    """Elements put to places of zeros, which are numbered within each channel; the last one stays."""
    lead = x.shape[: x.dim() - len(size)]
    here, laid = plainly(_stays, x, indices, (*lead, torch.Size(size).numel()))
    return torch.where(here, x.reshape(-1)[laid], 0).reshape(*lead, *size)


def _stays(x: torch.Tensor, indices: torch.Tensor, shape: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Where anything is put, and the number of the element that is."""
    laid = torch.full(shape, -1).reshape(-1, shape[-1])
    numbers = torch.arange(x.numel()).reshape(len(laid), -1)
    for row, place, number in zip(laid, indices.reshape(numbers.shape), numbers, strict=True):
        for at, value in zip(place.tolist(), number.tolist(), strict=True):
            row[at] = value
    return (laid >= 0).reshape(shape), laid.clamp(min=0).reshape(shape)


@decomposes("max_unpool2d")
def _max_unpool2d(x: torch.Tensor, indices: torch.Tensor, output_size: Any) -> torch.Tensor:
    return _unpooled(x, indices, output_size)


@decomposes("max_unpool3d")
def _max_unpool3d(
    x: torch.Tensor, indices: torch.Tensor, output_size: Any, stride: Any, padding: Any
) -> torch.Tensor:
    return _unpooled(x, indices, output_size)


# ------------------------------------------------------------------- reductions of what meets


@decomposes("scatter_reduce")
def _scatter_reduce(
    x: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, reduce: str, *,
    include_self: bool = True,
) -> torch.Tensor:  # fmt: skip
    """All that is put to one place becomes one number."""
    if not x.dim():
        x, index, source = (t.reshape(1) for t in (x, index, source))
        return _scatter_reduce(x, 0, index, source, reduce, include_self=include_self)[0]
    inside = source[tuple(slice(0, n) for n in index.shape)]
    return _reduced(x, dim, index, inside, reduce, include_self)


@decomposes("index_reduce")
def _index_reduce(
    x: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, reduce: str, *,
    include_self: bool = True,
) -> torch.Tensor:  # fmt: skip
    if not x.dim():
        x, source = x.reshape(1), source.reshape(1)
        return _index_reduce(x, 0, index.reshape(1), source, reduce, include_self=include_self)[0]
    shape = [-1 if k == dim % x.dim() else 1 for k in range(x.dim())]
    wide = plainly(lambda: index.reshape(shape).expand(source.shape).clone())
    return _reduced(x, dim, wide, source, reduce, include_self)


_JOINED = {
    "sum": torch.Tensor.add, "mean": torch.Tensor.add, "prod": torch.Tensor.mul,
    "amax": torch.maximum, "amin": torch.minimum,
}  # fmt: skip


def _reduced(
    x: torch.Tensor, dim: int, index: torch.Tensor, source: torch.Tensor, reduce: str,
    include_self: bool,
) -> torch.Tensor:  # fmt: skip
    """One after another: the first at every place, then the second."""
    ranks, counts = plainly(_ranks, x, dim, index)
    touched = plainly(torch.gt, counts, 0)
    found = x if include_self else torch.where(touched, x.new_zeros(()), x)
    if reduce == "mean" or reduce == "sum":
        found = found.scatter_add(dim, index, source)
        if reduce == "sum":
            return found
        divisor = plainly(lambda: (counts + (1 if include_self else 0)).clamp(min=1).to(x.dtype))
        return found / divisor
    for rank in range(int(counts.max())):
        at = plainly(torch.eq, ranks, rank)
        here, laid = plainly(_laid, x, dim, index, at)
        values = source.reshape(-1)[laid].reshape(x.shape)
        if rank or include_self:
            values = _JOINED[reduce](found, values)
        found = torch.where(here, values, found)
    return found


def _ranks(x: torch.Tensor, dim: int, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Of every source element, how many before it have the same place; and how many come to each place."""
    numbers = torch.arange(x.numel()).reshape(x.shape)
    places = numbers.gather(dim, index).reshape(-1)
    counts = torch.bincount(places, minlength=x.numel())
    order = places.argsort(stable=True)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(places)
    ranks[order] = torch.arange(len(places)) - starts[places[order]]
    return ranks.reshape(index.shape), counts.reshape(x.shape)


def _laid(
    x: torch.Tensor, dim: int, index: torch.Tensor, at: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Where something is put, and the number of the source element that is, of those chosen by a mask."""
    numbers = torch.arange(x.numel()).reshape(x.shape)
    places = numbers.gather(dim, index)[at]
    here = torch.zeros(x.numel(), dtype=torch.bool)
    here[places] = True
    laid = torch.zeros(x.numel(), dtype=torch.long)
    laid[places] = torch.arange(index.numel()).reshape(index.shape)[at]
    return here.reshape(x.shape), laid


@decomposes("segment_reduce")
def _segment_reduce(
    data: torch.Tensor, reduce: str, *, lengths: torch.Tensor | None = None,
    indices: torch.Tensor | None = None, offsets: torch.Tensor | None = None, axis: int = 0,
    unsafe: bool = False, initial: Any = None,
) -> torch.Tensor:  # fmt: skip
    """Sums, means, products or extremes of neighbours along the last axis of the lengths."""
    joined = {"sum": "sum", "mean": "mean", "prod": "prod", "max": "amax", "min": "amin"}
    if lengths is None and offsets is not None:
        lengths = plainly(torch.diff, offsets)
    if lengths is None or lengths.dim() != 1 or axis:
        raise UnsupportedError(
            "cannot trace aten::segment_reduce of lengths with several axes; reduce row by row"
        )
    rows = [_segment(part, joined[reduce], initial) for part in _parts(data, lengths)]
    return torch.stack(rows)


def _parts(data: torch.Tensor, lengths: torch.Tensor) -> list[torch.Tensor]:
    """Neighbours; what is behind the last ones is in none."""
    sizes = lengths.tolist()
    return list(data.narrow(0, 0, sum(sizes)).split(sizes))  # type: ignore[no-untyped-call]


def _segment(part: torch.Tensor, reduce: str, initial: Any) -> torch.Tensor:
    if not len(part):
        neutral = {"prod": 1.0, "amax": -float("inf"), "amin": float("inf")}.get(reduce, 0.0)
        if reduce == "mean" and initial is None:
            neutral = float("nan")
        return part.new_full(part.shape[1:], neutral if initial is None else float(initial))
    count = len(part)
    if initial is not None:
        part = torch.cat([part.new_full((1, *part.shape[1:]), float(initial)), part])
    if reduce == "mean":
        return part.sum(0) / plainly(torch.full, (), float(count), dtype=part.dtype)
    found: torch.Tensor = getattr(part, reduce)(0)
    return found


@decomposes("_segment_reduce_backward")
def _segment_reduce_backward(
    upstream: torch.Tensor, output: torch.Tensor, data: torch.Tensor, reduce: str, *,
    lengths: torch.Tensor | None = None, offsets: torch.Tensor | None = None, axis: int = 0,
    initial: Any = None,
) -> torch.Tensor:  # fmt: skip
    if lengths is None and offsets is not None:
        lengths = plainly(torch.diff, offsets)
    if lengths is None or lengths.dim() != 1 or axis:
        raise UnsupportedError(
            "cannot trace aten::segment_reduce of lengths with several axes; reduce row by row"
        )
    parts = []
    for part, found, wide in zip(_parts(data, lengths), output, upstream, strict=True):
        parts.append(_segment_slope(part, found, wide, reduce))
    rest = data[sum(lengths.tolist()) :]
    return torch.cat([*parts, rest * 0])


def _segment_slope(
    part: torch.Tensor, found: torch.Tensor, upstream: torch.Tensor, reduce: str
) -> torch.Tensor:
    if reduce in ("max", "min"):
        most = part == found
        count = most.sum(0, keepdim=True)
        return torch.where(most, upstream / torch.where(count > 0, count, 1), 0)
    if reduce == "prod":
        return upstream * found / part
    if reduce == "mean":
        upstream = upstream / plainly(torch.full, (), float(max(len(part), 1)), dtype=part.dtype)
    return upstream.expand(part.shape)


# ------------------------------------------------------------------------------ small things


@decomposes("aminmax")
def _aminmax(x: torch.Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    dims = [] if dim is None else [dim]
    return x.amin(dims, keepdim), x.amax(dims, keepdim)


@decomposes("frexp")
def _frexp(x: torch.Tensor) -> Any:
    """A mantissa from 1/2 to 1, and the exponent, which is decided."""
    mantissa, exponent = plainly(torch.frexp, x)
    power = plainly(torch.ldexp, plainly(torch.ones_like, x), exponent)
    size = x.abs()
    decided((size < power) & ((size * 2 >= power) | plainly(torch.eq, mantissa, 0)), "aten::frexp")
    return x / power, exponent


@decomposes("_is_all_true")
def _is_all_true(x: torch.Tensor) -> torch.Tensor:
    return x.all()


@decomposes("_is_any_true")
def _is_any_true(x: torch.Tensor) -> torch.Tensor:
    return x.any()
