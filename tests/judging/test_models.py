"""Fragments of models as people write them: an honest rewriting is never flagged, a twin with a bug always is."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

import roundoff as ro

G = torch.Generator().manual_seed(21)
L = torch.linalg


def R(*shape):
    return torch.randn(*shape, generator=G)


def squares(out):
    return (out * out).sum()


MODELS = {}


def model(honest, twin, **inputs):
    """Register a fragment by its name, with another way to write it and a bug."""

    def register(function):
        MODELS[function.__name__] = function, honest, twin, inputs
        return function

    return register


@model(
    lambda x, w: F.conv2d(F.interpolate(x, (6, 6), mode="bilinear") * 1.0, w, padding=1),
    lambda x, w: F.conv2d(
        F.interpolate(x, (6, 6), mode="bilinear", align_corners=True), w, padding=1
    ),
    x=R(1, 2, 3, 3),
    w=R(2, 2, 3, 3),
)
def unet_up(x, w):
    return F.conv2d(F.interpolate(x, scale_factor=2, mode="bilinear"), w, padding=1)


def _experts(x, w):
    return torch.einsum("td,edh->teh", x, w).relu()


def _routed(x, gate, w):
    weights, chosen = (x @ gate).softmax(-1).topk(2)
    mixed = torch.zeros(x.shape[0], w.shape[0], dtype=x.dtype).scatter(1, chosen, weights)
    return (_experts(x, w) * mixed.unsqueeze(-1)).sum(1)


@model(
    _routed,
    lambda x, gate, w: _routed(x, gate, w.flip(0)),
    x=R(5, 4),
    gate=R(4, 3),
    w=R(3, 4, 6),
)
def routing(x, gate, w):
    weights, chosen = (x @ gate).softmax(-1).topk(2)
    out = torch.zeros(x.shape[0], w.shape[2], dtype=x.dtype)
    for expert in range(w.shape[0]):
        rows, slots = (chosen == expert).nonzero(as_tuple=True)
        if rows.numel():
            part = (x[rows] @ w[expert]).relu() * weights[rows, slots].unsqueeze(1)
            out = out.index_add(0, rows, part)
    return out


def _turned(x, sign):
    angle = torch.arange(3.0, dtype=x.dtype).unsqueeze(1) * torch.tensor([1.0, 0.5], dtype=x.dtype)
    even, odd = x[:, 0::2], x[:, 1::2]
    one, two = even * angle.cos() - sign * odd * angle.sin(), even * angle.sin() + odd * angle.cos()
    return torch.stack([one, two], -1).flatten(1)


@model(lambda x: _turned(x, 1), lambda x: _turned(x, -1), x=R(3, 4))
def rotary(x):
    angle = torch.arange(3.0, dtype=x.dtype).unsqueeze(1) * torch.tensor([1.0, 0.5], dtype=x.dtype)
    turn = torch.polar(torch.ones_like(angle), angle)
    return torch.view_as_real(torch.view_as_complex(x.reshape(3, 2, 2)) * turn).flatten(1)


def _kernel(x):
    return (-(torch.cdist(x, x) ** 2) / 2).exp() + 0.1 * torch.eye(len(x), dtype=x.dtype)


@model(
    lambda x, y: (y @ L.solve(_kernel(x), y) + torch.logdet(_kernel(x))) / 2,
    lambda x, y: (y @ L.solve(_kernel(x), y) - torch.logdet(_kernel(x))) / 2,
    x=R(4, 2),
    y=R(4),
)
def gaussian_process(x, y):
    factor = L.cholesky(_kernel(x))
    half = L.solve_triangular(factor, y.unsqueeze(1), upper=False)
    return (half**2).sum() / 2 + factor.diagonal().log().sum()


@model(
    lambda a, b: L.lstsq(a, b).solution,
    lambda a, b: L.solve(a.mT @ a + 0.1 * torch.eye(2, dtype=a.dtype), a.mT @ b),
    a=R(5, 2),
    b=R(5, 1),
)
def ridge_without_ridge(a, b):
    return L.solve(a.mT @ a, a.mT @ b)


@model(
    ro.seeded(lambda x, w: F.dropout(F.gelu(x @ w), 0.25) + 0.0),
    ro.seeded(lambda x, w: F.gelu(F.dropout(x @ w, 0.25))),
    x=R(4, 4),
    w=R(4, 4),
)
def dropped(x, w):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        keep = torch.empty(4, 4).bernoulli_(0.75).bool()
    return torch.where(keep, F.gelu(x @ w) / 0.75, 0)


@model(
    lambda x, w: F.gelu(x @ w) @ w,
    lambda x, w: checkpoint(lambda y: F.relu(y @ w) @ w, x, use_reentrant=True),
    x=R(3, 4),
    w=R(4, 4),
)
def checkpointed(x, w):
    return checkpoint(lambda y: F.gelu(y @ w) @ w, x, use_reentrant=True)


@model(
    lambda x: -(x.log_softmax(1).gather(1, torch.tensor([[2], [0], [1]]))).mean(),
    lambda x: -(F.one_hot(torch.tensor([2, 0, 1]), 4) * x.log_softmax(0)).sum() / 3,
    x=R(3, 4),
)
def one_hot_loss(x):
    return -(F.one_hot(torch.tensor([2, 0, 1]), 4) * x.log_softmax(1)).sum(1).mean()


def _quantised(x, steps):
    return x + (torch.round(x * steps) / steps - x).detach()


@model(
    lambda x, w: torch.tanh(torch.round(x * 8) / 8 @ w) + (x - x.detach()).sum() * 0,
    lambda x, w: torch.tanh(_quantised(x, 4) @ w),
    x=R(3, 4),
    w=R(4, 2),
)
def straight_through(x, w):
    return torch.tanh(_quantised(x, 8).detach() @ w) + (x - x.detach()).sum() * 0


@model(
    lambda x: torch.ones(5, 5, dtype=x.dtype).tril() @ x,
    lambda x: torch.ones(5, 5, dtype=x.dtype).tril(-1) @ x,
    x=R(5, 3),
)
def prefix_sums(x):
    return x.cumsum(0)


def _step(w, x, rate):
    (slope,) = torch.autograd.grad(((x @ w) ** 2).mean(), w, create_graph=True)
    return w - rate * slope


@model(
    lambda w, x: x @ _step(w - 0.1 * 2 * x.mT @ (x @ w) / 6, x, 0.1),
    lambda w, x: x @ _step(_step(w, x, 0.1), x, 0.2),
    w=R(4, 2),
    x=R(3, 4),
)
def two_steps(w, x):
    return x @ _step(_step(w, x, 0.1), x, 0.1)


@model(
    lambda m, s: (((1.5 - m) / s.exp()) ** 2 / 2 + s + math.log(2 * math.pi) / 2).sum(),
    lambda m, s: (((1.5 - m) / s.exp()) ** 2 / 2 - s + math.log(2 * math.pi) / 2).sum(),
    m=R(4),
    s=R(4),
)
def likelihood(m, s):
    return (
        -torch.distributions.Normal(m, s.exp()).log_prob(torch.full((4,), 1.5, dtype=m.dtype)).sum()
    )


@model(
    lambda x, v, g: x @ (v / v.norm(dim=1, keepdim=True) * g).mT,
    lambda x, v, g: x @ (v / v.norm(dim=0, keepdim=True) * g).mT,
    x=R(3, 4),
    v=R(2, 4),
    g=R(2, 1),
)
def weight_norm(x, v, g):
    return x @ torch._weight_norm(v, g, 0).mT


@model(
    lambda x, c: (-((x.unsqueeze(1) - c) ** 2).sum(-1).sqrt()).softmax(1) @ c,
    lambda x, c: (-(torch.cdist(x, c) ** 2)).softmax(1) @ c,
    x=R(4, 3),
    c=R(5, 3),
)
def soft_clusters(x, c):
    return (-torch.cdist(x, c)).softmax(1) @ c


def _sampled(x, theta, aligned):
    grid = F.affine_grid(theta, [1, 2, 3, 3], align_corners=False)
    return F.grid_sample(x, grid, align_corners=aligned)


@model(
    lambda x, theta: _sampled(x.flip(1), theta, False).flip(1),
    lambda x, theta: _sampled(x, theta, True),
    x=R(1, 2, 4, 4),
    theta=R(1, 2, 3) * 0.4,
)
def spatial_transformer(x, theta):
    return _sampled(x, theta, False)


CTC = torch.tensor([[1, 2, 2], [2, 1, 1]]), torch.tensor([6, 5]), torch.tensor([3, 2])


@model(
    lambda x: F.ctc_loss((x - x.logsumexp(-1, keepdim=True)), *CTC, reduction="none").sum(),
    lambda x: F.ctc_loss(x.log_softmax(-1), *CTC, blank=1 - 1, reduction="mean"),
    x=R(6, 2, 3),
)
def alignments(x):
    return F.ctc_loss(x.log_softmax(-1), *CTC, reduction="sum")


@model(
    lambda x: ((1 - x.sigmoid()) ** 2 * F.softplus(-x)).mean(),
    lambda x: ((1 - x.sigmoid()) * F.softplus(-x)).mean(),
    x=R(3, 4),
)
def focal(x):
    return (
        (1 - x.sigmoid()) ** 2
        * F.binary_cross_entropy_with_logits(x, torch.ones_like(x), reduction="none")
    ).mean()


@model(
    lambda x: (x - x.sort().values[5]).abs().mean(),
    lambda x: (x - x.mean()).abs().mean(),
    x=R(11),
)
def spread(x):
    return (x - x.median()).abs().mean()


@model(
    lambda x: torch.maximum(0.9 * (1 - x), 0.1 * (x - 1)).mean() + x.sort(1).values[:, 2].sum(),
    lambda x: torch.maximum(0.1 * (1 - x), 0.9 * (x - 1)).mean() + x.quantile(0.5, dim=1).sum(),
    x=R(3, 5),
)
def pinball(x):
    return torch.where(x < 1, 0.9 * (1 - x), 0.1 * (x - 1)).mean() + x.quantile(0.5, dim=1).sum()


def _balanced(x, times):
    scores = x
    for _ in range(times):
        scores = scores - scores.logsumexp(1, keepdim=True)
        scores = scores - scores.logsumexp(0, keepdim=True)
    return scores.exp()


@model(lambda x: _balanced(x.mT.contiguous().mT, 3), lambda x: _balanced(x, 2), x=R(4, 4))
def sinkhorn(x):
    return _balanced(x, 3)


@model(
    lambda x: torch.stack([x[[0, 2]].mean(0), x[[1]].mean(0), x[[3, 4]].mean(0)]),
    lambda x: torch.zeros(3, 2, dtype=x.dtype).index_add(0, torch.tensor([0, 1, 0, 2, 2]), x) / 2,
    x=R(5, 2),
)
def pooled(x):
    places = torch.tensor([0, 1, 0, 2, 2]).unsqueeze(1).expand(5, 2)
    return torch.zeros(3, 2, dtype=x.dtype).scatter_reduce(0, places, x, "mean", include_self=False)


BAG = torch.tensor([0, 2, 3, 1]), torch.tensor([0, 3])


@model(
    lambda w: torch.stack([w[[0, 2, 3]].mean(0), w[1]]),
    lambda w: F.embedding_bag(*BAG[:1], w, BAG[1], mode="sum"),
    w=R(4, 3),
)
def bags(w):
    return F.embedding_bag(BAG[0], w, BAG[1], mode="mean")


@model(
    lambda x: x / L.matrix_norm(x, 2),
    lambda x: x / L.matrix_norm(x),
    x=R(3, 4),
)
def spectral(x):
    return x / L.svdvals(x)[0]


@model(
    lambda x, m: (x.masked_fill(~(m > 0), -1e4)).softmax(-1) * 1.0,
    lambda x, m: x.masked_fill(~(m > 0), 0.0).softmax(-1),
    x=R(3, 5),
    m=R(3, 5).abs() * torch.tensor([1.0, 1, -1, 1, -1]),
)
def masked(x, m):
    out = torch.zeros_like(x)
    for k in range(len(x)):
        there = (m[k] > 0).nonzero()[:, 0]
        out = out.index_put((torch.tensor(k), there), x[k, there].softmax(0))
    return out


@model(
    lambda x: torch.lgamma(x.exp() + 1).sum() - (x * 3).sum(),
    lambda x: torch.lgamma(x.exp()).sum() - (x * 3).sum(),
    x=R(4),
)
def counts(x):
    rate = x.exp()
    return (torch.lgamma(rate) + rate.log()).sum() - 3 * x.sum()


@model(
    lambda x: torch.atan2(x[:, 1], x[:, 0]).cos() * x.norm(dim=1),
    lambda x: torch.atan2(x[:, 0], x[:, 1]).cos() * x.norm(dim=1),
    x=R(5, 2),
)
def polar(x):
    return x[:, 0] * 1.0 + 0 * x[:, 1]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
@pytest.mark.parametrize("name", MODELS)
def test_an_honest_rewriting_is_never_flagged_and_a_bug_always(name) -> None:
    function, honest, twin, inputs = MODELS[name]
    leaves = {key: value.clone().requires_grad_() for key, value in inputs.items()}
    loss = None if function(**leaves).dim() == 0 else squares
    asked = dict(loss=loss, formats=("float32", "float64"))
    result = ro.compare(function, honest, inputs, **asked)
    assert set(map(str, result.table["verdict"])) <= {"ROUNDOFF", "IDENTICAL"}, str(result)
    result = ro.compare(function, twin, inputs, **asked)
    assert "DIFFERENT" in set(map(str, result.table["verdict"])), str(result)
