"""Elements that a mask chooses, one after another."""

from __future__ import annotations

import torch

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
