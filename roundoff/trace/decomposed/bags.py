"""Embeddings summed, averaged or maximised over bags of rows."""

from __future__ import annotations

from typing import Any

import torch

from roundoff.errors import UnsupportedError
from roundoff.trace.decomposed.plainly import decided, plainly
from roundoff.trace.decomposed.registry import decomposes

aten = torch.ops.aten

#: What PyTorch calls the modes.
SUM, MEAN, MAX = 0, 1, 2


@decomposes("_embedding_bag", "_embedding_bag_forward_only")
def _embedding_bag(
    weight: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor,
    scale_grad_by_freq: bool = False, mode: int = SUM, sparse: bool = False,
    per_sample_weights: torch.Tensor | None = None, include_last_offset: bool = False,
    padding_idx: int = -1,
) -> Any:  # fmt: skip
    found, bags, sizes, largest = plainly(
        aten._embedding_bag.default, weight, indices, offsets, False, mode, False, per_sample_weights,
        include_last_offset, padding_idx,
    )  # fmt: skip
    bags, count = plainly(_bags, indices, offsets, len(found)), len(found)
    rows = weight[indices]
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    rows, bags, kept = _without_padding(rows, bags, indices, padding_idx)
    if mode == MAX:
        out = torch.where(plainly(lambda: (sizes > 0).unsqueeze(-1)), _chosen(weight, largest), 0)
        decided(out[bags] >= rows, "aten::embedding_bag")
        return (
            out,
            bags if kept is None else plainly(_bags, indices, offsets, count),
            sizes,
            largest,
        )
    out = rows.new_zeros(found.shape).index_add(0, bags, rows)
    if mode == MEAN:
        out = out * _share(sizes, out.dtype)
    return out, plainly(_bags, indices, offsets, count), sizes, largest


def _bags(indices: torch.Tensor, offsets: torch.Tensor, count: int) -> torch.Tensor:
    """The bag of every index."""
    return (
        torch.searchsorted(offsets[:count].contiguous(), torch.arange(len(indices)), right=True) - 1
    )


def _without_padding(
    rows: torch.Tensor, bags: torch.Tensor, indices: torch.Tensor, padding: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
    if padding < 0:
        return rows, bags, None
    kept: torch.Tensor = plainly(lambda: (indices != padding).nonzero()[:, 0])
    return rows[kept], plainly(lambda: bags[kept]), kept


def _chosen(weight: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    columns = plainly(lambda: torch.arange(weight.shape[1]).expand(largest.shape).clone())
    return weight[plainly(torch.clamp, largest, min=0), columns]


def _share(sizes: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    whole = plainly(lambda: sizes.clamp(min=1).to(dtype).unsqueeze(-1))
    return 1 / whole


@decomposes("_embedding_bag_backward")
def _backward(
    upstream: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor, bags: torch.Tensor,
    sizes: torch.Tensor, largest: torch.Tensor, count: int, by_frequency: bool, mode: int,
    sparse: bool, samples: torch.Tensor | None, padding_idx: int = -1,
) -> torch.Tensor:  # fmt: skip
    return _dense_backward(
        upstream, indices, bags, sizes, largest, count, by_frequency, mode, samples, padding_idx
    )


@decomposes("_embedding_bag_dense_backward")
def _dense_backward(
    upstream: torch.Tensor, indices: torch.Tensor, bags: torch.Tensor, sizes: torch.Tensor,
    largest: torch.Tensor, count: int, by_frequency: bool, mode: int,
    samples: torch.Tensor | None, padding_idx: int = -1,
) -> torch.Tensor:  # fmt: skip
    if by_frequency:
        raise UnsupportedError(
            "cannot trace aten::embedding_bag with scale_grad_by_freq=True; scale its gradient yourself"
        )
    zeros = upstream.new_zeros((count, upstream.shape[1]))
    if mode == MAX:
        columns = plainly(lambda: torch.arange(upstream.shape[1]).expand(largest.shape).clone())
        there = plainly(lambda: (sizes > 0).unsqueeze(-1))
        places = plainly(torch.clamp, largest, min=0), columns
        return zeros.index_put(places, torch.where(there, upstream, 0), accumulate=True)
    if mode == MEAN:
        upstream = upstream * _share(sizes, upstream.dtype)
    rows = upstream[bags]
    if samples is not None:
        rows = rows * samples.unsqueeze(-1)
    rows, indices, _ = _without_padding(rows, indices, indices, padding_idx)
    return zeros.index_add(0, indices, rows)


@decomposes("_embedding_bag_per_sample_weights_backward")
def _samples_backward(
    upstream: torch.Tensor, weight: torch.Tensor, indices: torch.Tensor, offsets: torch.Tensor,
    bags: torch.Tensor, mode: int, padding_idx: int = -1,
) -> torch.Tensor:  # fmt: skip
    found = (upstream[bags] * weight[indices]).sum(-1)
    return (
        torch.where(plainly(torch.eq, indices, padding_idx), 0, found)
        if padding_idx >= 0
        else found
    )
