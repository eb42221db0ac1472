"""Functions that decide by their data: orders, branches, whole numbers, places."""

from __future__ import annotations

import torch
import torch.nn.functional as F

EDGES = torch.tensor([-1.0, 0.0, 0.25, 1.0], dtype=torch.float64)


def _routed(x):
    weights, experts = x.softmax(-1).topk(2)
    scales = torch.arange(1.0, 6.0, dtype=x.dtype)
    return (weights * scales[experts]) ** 2


def _straight_through(x):
    return (x + (torch.round(x * 4) / 4 - x).detach()) ** 2 * x


DECIDING = {
    "sort": lambda x: x.sort(-1).values * torch.arange(5.0, dtype=x.dtype),
    "sort falling": lambda x: x.sort(0, descending=True).values[:2] ** 2,
    "argsort": lambda x: x[:, x[0].argsort()] * torch.arange(5.0, dtype=x.dtype),
    "topk": lambda x: x.topk(2, -1).values ** 2,
    "least": lambda x: x.topk(3, 0, largest=False).values ** 2,
    "topk, as they come": lambda x: x.topk(3, 0, sorted=False).values ** 2,
    "kthvalue": lambda x: x.kthvalue(2, 1).values ** 2,
    "median": lambda x: x.median() * x.median(0).values,
    "mode": lambda x: x.mode(1).values ** 2,
    "quantile": lambda x: x.to(torch.promote_types(x.dtype, torch.float32)).quantile(0.3, dim=1) ** 2,
    "cummax": lambda x: x.cummax(1).values ** 2 * x.cummin(0).values,
    "argmax": lambda x: x[x.argmax(0), torch.arange(5)] ** 2 * x.reshape(-1)[x.argmin()],
    "index of max": lambda x: x[:, x.max(1).indices] ** 2,
    "mask": lambda x: x[x > 0] ** 2,
    "masked_select": lambda x: x.masked_select(x[:1] > 0.5) ** 3,
    "nonzero": lambda x: x[(x > 0).nonzero(as_tuple=True)] ** 3,
    "put at a mask": lambda x: x.clone().index_put((x > 0,), x[x > 0] * 2) ** 2,
    "if": lambda x: x**2 if x.sum() > 0 else x**3,
    "if any": lambda x: x**2 if (x > 1).any() else x**3,
    "if all": lambda x: x**2 if (x > 1).all() else x**3,
    "if alike": lambda x: x if torch.equal(x, 2 * x) or torch.allclose(x, 3 * x) else x * x,
    "if nan": lambda x: x if torch.isnan(x).any() else x * x,
    "count": lambda x: x**2 * (x > 0).sum().item(),
    "tolist": lambda x: sum(x[i] ** (k + 2) for k, i in enumerate(x[:, 0].argsort().tolist())),
    "floor": lambda x: (x - x.floor()) ** 2 * x.ceil() * (x * 3).trunc(),
    "round": lambda x: x * x.round() * x.round(decimals=1),
    "straight through": _straight_through,
    "remainder": lambda x: x.remainder(0.3) ** 2 * torch.fmod(x, -0.7),
    "remainder of both": lambda x: (x[0].remainder(x[1]) ** 2) * torch.fmod(x[2], x[3]),
    "floor division": lambda x: x * torch.div(x, 0.3, rounding_mode="floor") * (x.detach() // 0.7),
    "cast": lambda x: x * (x * 3).long() * (x > 0).long().cumsum(0),
    "one hot": lambda x: F.one_hot(x.argmax(1), 5) * x * x,
    "bucketize": lambda x: x * x * torch.bucketize(x.detach(), EDGES),
    "searchsorted": lambda x: x * torch.searchsorted(x.detach().sort(1).values, x.detach(), right=True),
    "routed": _routed,
    "frac": lambda x: x.frac() ** 2,
}  # fmt: skip


X = torch.randn(4, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
Z = {name: (function, {"x": X}) for name, function in DECIDING.items()}
