"""Functions, each with an honest rewriting and a twin with a bug that the given inputs hide.

What hides it: zeros, ones and identities, signs, magnitudes, orders of integers, masks.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng([9, seed, *shape]).standard_normal(shape)).float()


def positive(*shape, seed=0):
    return normal(*shape, seed=seed).abs() + 0.25


def where(condition, x, y):
    return torch.where(condition, x, torch.as_tensor(y, dtype=x.dtype))


X, Y, W = normal(3, 4), normal(3, 4, seed=1), normal(4, 2)
P, Q, UNIT = positive(3, 4), positive(3, 4, seed=1), normal(3, 4).tanh()
OTHER = normal(3, 4, seed=3).tanh()
ZERO, ONE, EYE = torch.zeros(3, 4), torch.ones(3, 4), torch.eye(3)
A, B0, SQUARE = normal(2, 4), torch.zeros(3, 2), normal(3, 3)
RAISED = torch.arange(1.0, 7.0)
K = torch.tensor([0, 1, 3])
T = torch.tensor([0, 1, 2])
YES = torch.ones(3, 4, dtype=torch.bool)
TRIANGLE = torch.ones(3, 3, dtype=torch.bool).tril()


def gated(x, gate, other):
    return (x + gate * other).exp()


def attention(q, k, v, bias=0.0):
    return (q @ k.mT / 2.0 + bias).softmax(-1) @ v


QKV = {"q": normal(3, 4), "k": normal(3, 4, seed=1), "v": normal(3, 4, seed=2)}

#: name: (function, an honest rewriting, the twin, inputs, wrt; None: all).
TWINS = {
    # zeros: gates, biases, residual branches and masks that start at zero
    "squared bias": (lambda x, b: (x + b * b).exp(), lambda x, b: (b**2 + x).exp(),
                     lambda x, b: (x - b * b).exp(), {"x": X, "b": ZERO}, None),
    "absolute bias": (lambda x, b: (x + b * b.abs()).tanh(), lambda x, b: (b.abs() * b + x).tanh(),
                      lambda x, b: (x + b * b).tanh(), {"x": X, "b": ZERO}, None),
    "cubed bias": (lambda x, b: (x + b**3).sin(), lambda x, b: (x + b * b * b).sin(),
                   lambda x, b: (x + b**5).sin(), {"x": X, "b": ZERO}, None),
    "mask of zeros, added": (lambda x, m: (x + m).softmax(-1), lambda x, m: (m + x).softmax(-1),
                             lambda x, m: x.softmax(-1) + 0 * m, {"x": X, "m": ZERO}, "x"),
    "mask of zeros, sign": (lambda x, m: (x + m).softmax(-1), lambda x, m: (m + x).softmax(-1),
                            lambda x, m: (x - m).softmax(-1), {"x": X, "m": ZERO}, "x"),
    "mask of zeros, transposed": (lambda x, m: (x @ x.T + m).softmax(-1), lambda x, m: (m + x @ x.T).softmax(-1),
                                  lambda x, m: (x @ x.T + m.T).softmax(-1), {"x": X, "m": torch.zeros(3, 3)}, "x"),
    "relative positions": (lambda q, k, v, r: attention(q, k, v, r), lambda q, k, v, r: attention(k=k, q=q, v=v, bias=r),
                           lambda q, k, v, r: attention(q, k, v, r / 2.0), {**QKV, "r": torch.zeros(3, 3)}, ("q", "k", "v")),
    "low rank": (lambda x, a, b: (x + b @ a).exp(), lambda x, a, b: (b @ a + x).exp(),
                 lambda x, a, b: (x + 2 * (b @ a)).exp(), {"x": X, "a": A, "b": B0}, "x"),
    "low rank, scaled": (lambda x, a, b: (x + b @ a * (16 / 8)).tanh(), lambda x, a, b: (x + 2 * b @ a).tanh(),
                         lambda x, a, b: (x + b @ a * (8 / 16)).tanh(), {"x": X, "a": A, "b": B0}, "x"),
    "gate": (lambda x, g: x.exp() + g.tanh() * x, lambda x, g: g.tanh() * x + x.exp(),
             lambda x, g: x.exp() + g.tanh() * g.tanh().exp() * x, {"x": X, "g": ZERO}, "x"),
    "gate, squared": (lambda x, g: (x + g**2 * x).sigmoid(), lambda x, g: (x * (1 + g * g)).sigmoid(),
                      lambda x, g: x.sigmoid() + 0 * g, {"x": X, "g": ZERO}, None),
    "residual scale": (lambda x, s, w: x.exp() + s * (x @ w), lambda x, s, w: (s * x) @ w + x.exp(),
                       lambda x, s, w: x.exp() + s * (x @ w.T), {"x": X, "s": torch.zeros(()), "w": normal(4, 4)}, ("x", "w")),
    "initial state": (lambda x, h: (x + h @ SQUARE.to(h)).tanh(), lambda x, h: (h @ SQUARE.to(h) + x).tanh(),
                      lambda x, h: (x + h @ SQUARE.T.to(h)).tanh(), {"x": SQUARE + 1, "h": torch.zeros(3, 3)}, "x"),
    "momentum": (lambda g, m: (0.9 * m + g).exp(), lambda g, m: (g + 0.9 * m).exp(),
                 lambda g, m: (0.99 * m + g).exp(), {"g": X, "m": ZERO}, "g"),
    "centre": (lambda x, c: ((x - c) ** 2).exp(), lambda x, c: ((c - x) ** 2).exp(),
               lambda x, c: ((x + c) ** 2).exp(), {"x": X, "c": ZERO}, "x"),
    "running mean": (lambda x, m: F.batch_norm(x, m, torch.ones_like(m), training=False).exp(),
                     lambda x, m: ((x - m) / math.sqrt(1 + 1e-5)).exp(),
                     lambda x, m: (x / math.sqrt(1 + 1e-5) - m).exp(), {"x": X, "m": torch.zeros(4)}, "x"),
    "weight decay": (lambda w, d: (w * w).exp() + d * d * (w * w).sum(), lambda w, d: (w * w).sum() * d**2 + (w**2).exp(),
                     lambda w, d: (w * w).exp() + d * d * w.abs().sum(), {"w": X, "d": torch.zeros(())}, None),
    "padding": (lambda x, p: torch.cat([p, x]).exp().cumsum(0), lambda x, p: torch.cat([p, x]).exp().flip(0).flip(0).cumsum(0),
                lambda x, p: torch.cat([p.flip(1), x]).exp().cumsum(0), {"x": X, "p": torch.zeros(1, 4)}, "x"),
    "offset of a kernel": (lambda x, o: (x[:, 1:] - x[:, :-1] + o).tanh(), lambda x, o: (o + x.diff(dim=1)).tanh(),
                           lambda x, o: (x[:, 1:] - x[:, :-1] + o.roll(1, 1)).tanh(), {"x": X, "o": torch.zeros(3, 3)}, "x"),
    "inner product of zeros": (lambda x, u, v: (x + (u * v).sum()).exp(), lambda x, u, v: (x + u @ v).exp(),
                               lambda x, u, v: (x + (u * u).sum()).exp(),
                               {"x": X, "u": torch.zeros(4), "v": torch.zeros(4)}, None),
    # ones, identities, symmetric and other special values
    "identity, transposed": (lambda a, e: (a @ e) ** 3, lambda a, e: torch.einsum("ij,jk->ik", a, e) ** 3,
                             lambda a, e: (a @ e.t()) ** 3, {"a": SQUARE, "e": EYE}, "a"),
    "identity, inverted order": (lambda a, e: (a @ e).exp(), lambda a, e: torch.einsum("ij,jk->ik", a, e).exp(),
                                 lambda a, e: (e @ a).exp(), {"a": SQUARE, "e": EYE}, "a"),
    "identity, squared": (lambda a, e: (a @ e @ e).exp(), lambda a, e: (a @ (e @ e)).exp(),
                          lambda a, e: (a @ e @ e.T).exp(), {"a": SQUARE, "e": EYE}, "a"),
    "dropout mask of ones": (lambda x, m: (x * m).exp(), lambda x, m: (m * x).exp(),
                             lambda x, m: (x / m).exp(), {"x": X, "m": ONE}, "x"),
    "scale one": (lambda x, s: (x * s).tanh(), lambda x, s: (s * x).tanh(),
                  lambda x, s: (x * s * s).tanh(), {"x": X, "s": torch.ones(4)}, None),
    "temperature one": (lambda x, t: (x / t).softmax(-1), lambda x, t: (x * t.reciprocal()).softmax(-1),
                        lambda x, t: (x * t).softmax(-1), {"x": X, "t": torch.ones(())}, "x"),
    "variance one": (lambda x, v: (x / v.sqrt()).exp(), lambda x, v: (x * v.rsqrt()).exp(),
                     lambda x, v: (x / v).exp(), {"x": X, "v": torch.ones(4)}, "x"),
    "weights of a mean": (lambda x, w: ((x * w).sum(-1) / w.sum(-1)).exp(), lambda x, w: ((w * x).sum(-1) / w.sum(-1)).exp(),
                          lambda x, w: (x * w).mean(-1).exp(), {"x": X, "w": ONE}, "x"),
    "exponent one": (lambda x, p: (x**p).exp(), lambda x, p: (p * x.log()).exp().exp(),
                     lambda x, p: (x * p).exp(), {"x": UNIT.abs() + 0.1, "p": torch.ones(())}, "x"),
    "rotation by nothing": (lambda x, t: x * t.cos() + x.flip(1) * t.sin(), lambda x, t: x.flip(1) * t.sin() + t.cos() * x,
                            lambda x, t: x * t.cos() - x.flip(1) * t.sin(), {"x": X, "t": ZERO}, "x"),
    "symmetric matrix": (lambda a, s: (a @ s).exp(), lambda a, s: torch.einsum("ij,jk->ik", a, s).exp(),
                         lambda a, s: (a @ s.T).exp(), {"a": SQUARE / 2, "s": torch.tensor([[0., 1, 1], [1, 0, 1], [1, 1, 0]])}, "a"),
    "equal rows": (lambda x, c: (x * c).exp(), lambda x, c: (c * x).exp(),
                   lambda x, c: (x * c[0]).exp(), {"x": X / 2, "c": torch.tensor([[0., 1, 0, 0]] * 3)}, "x"),
    # signs
    "relu, leaky": (lambda x: F.relu(x), lambda x: x.clamp(min=0), lambda x: F.leaky_relu(x), {"x": P}, None),
    "relu, absolute": (lambda x: F.relu(x), lambda x: where(x > 0, x, 0.0), lambda x: x.abs(), {"x": P}, None),
    "relu, nothing": (lambda x: F.relu(x).exp(), lambda x: x.clamp(min=0).exp(), lambda x: x.exp(), {"x": P}, None),
    "prelu": (lambda x, a: F.prelu(x, a), lambda x, a: where(x > 0, x, a * x), lambda x, a: x.clamp(min=0) - a * x.clamp(max=0),
              {"x": P, "a": torch.tensor([0.25])}, None),
    "elu": (lambda x: F.elu(x), lambda x: where(x > 0, x, x.clamp(max=0).expm1()), lambda x: F.relu(x), {"x": P}, None),
    "selu": (lambda x: F.selu(x), lambda x: 1.0507009873554805 * F.elu(x, 1.6732632423543772), lambda x: x * 1.0507009873554805, {"x": P}, None),
    "root of a square": (lambda x: (x * x).sqrt(), lambda x: x.abs(), lambda x: x * 1.0, {"x": P}, None),
    "square of a root": (lambda x: x.abs().sqrt() ** 4, lambda x: x * x, lambda x: x * x.abs(), {"x": P}, None),
    "sign": (lambda x: x * x.sign(), lambda x: x.abs(), lambda x: x + 0.0, {"x": P}, None),
    "maximum of two": (lambda x, y: torch.maximum(x, y), lambda x, y: where(x > y, x, y),
                       lambda x, y: x + 0 * y, {"x": P + 9, "y": Q}, None),
    "distance": (lambda x, y: (x - y).abs(), lambda x, y: (y - x).abs(), lambda x, y: x - y, {"x": P + 9, "y": Q}, None),
    "norm of one": (lambda x: x.abs().sum(-1), lambda x: torch.linalg.vector_norm(x, 1, -1), lambda x: x.sum(-1), {"x": P}, None),
    "largest magnitude": (lambda x: x.abs().amax(-1), lambda x: torch.maximum(x.amax(-1), (-x).amax(-1)), lambda x: x.amax(-1),
                          {"x": RAISED.reshape(2, 3)}, None),
    "negative data": (lambda x: F.softplus(x).square(), lambda x: x.exp().log1p().square(),
                      lambda x: F.softplus(-x.abs()).square(), {"x": -P}, None),
    "dead branch": (lambda x: where(x < 0, x.sin(), x), lambda x: where(x >= 0, x, x.sin()),
                    lambda x: where(x < 0, x.cos(), x), {"x": P}, None),
    "dead branch of another": (lambda x, y: where(y > 0, x.exp(), x), lambda x, y: where(y <= 0, x, x.exp()),
                               lambda x, y: where(y > 0, x.exp(), -x), {"x": X, "y": Q}, "x"),
    "hinge": (lambda x, y: F.relu(1 - x * y), lambda x, y: (1 - y * x).clamp(min=0), lambda x, y: 1 - x * y,
              {"x": UNIT / 2, "y": OTHER}, "x"),
    "smallest of two": (lambda x, y: torch.minimum(x, y), lambda x, y: -torch.maximum(-x, -y), lambda x, y: y + 0 * x,
                        {"x": P + 9, "y": Q}, None),
    "odd power": (lambda x: x.abs() ** 3, lambda x: x * x * x.abs(), lambda x: x**3, {"x": P}, None),
    "cosine of positive": (lambda x: x.abs().sin(), lambda x: x.sin() * x.sign(), lambda x: x.sin(), {"x": P}, None),
    "targets": (lambda x, t: F.binary_cross_entropy_with_logits(x, t), lambda x, t: (F.softplus(x) - x * t).mean(),
                lambda x, t: F.softplus(x - x.abs() * 2 * t).mean(), {"x": P, "t": ONE.clone()}, "x"),
    # magnitudes
    "clamp": (lambda x: x.clamp(-4, 4) ** 2, lambda x: F.hardtanh(x, -4.0, 4.0) ** 2, lambda x: x**2, {"x": X}, None),
    "clamp, one side": (lambda x: x.clamp(max=50).square(), lambda x: torch.minimum(x, x.new_full((), 50.0)).square(),
                        lambda x: x.clamp(max=60).square(), {"x": X}, None),
    "huber": (F.huber_loss, lambda input, target: F.smooth_l1_loss(input, target), lambda input, target: F.mse_loss(input, target) / 2,
              {"input": UNIT / 3, "target": OTHER / 3}, None),
    "smooth l1, beta": (lambda input, target: F.smooth_l1_loss(input, target, beta=2.0) * 2, lambda input, target: F.huber_loss(input, target, delta=2.0),
                        lambda input, target: F.huber_loss(input, target, delta=3.0), {"input": UNIT / 3, "target": OTHER / 3}, None),
    "relu6": (lambda x: F.relu6(x), lambda x: x.clamp(0, 6), lambda x: F.relu(x), {"x": X}, None),
    "hardtanh": (lambda x: F.hardtanh(x), lambda x: x.clamp(-1, 1), lambda x: x * 1.0, {"x": UNIT / 2}, None),
    "hardswish": (lambda x: F.hardswish(x), lambda x: x * (x + 3).clamp(0, 6) / 6, lambda x: x * (x + 3) / 6, {"x": UNIT}, None),
    "hardsigmoid": (lambda x: F.hardsigmoid(x), lambda x: (x + 3).clamp(0, 6) / 6, lambda x: x / 6 + 0.5, {"x": UNIT}, None),
    "hard shrinkage": (lambda x: F.hardshrink(x, 0.01), lambda x: where(x.abs() > 0.01, x, 0.0), lambda x: x * 1.0, {"x": P}, None),
    "soft shrinkage": (lambda x: F.softshrink(x, 0.125), lambda x: (x - 0.125).clamp(min=0) + (x + 0.125).clamp(max=0),
                       lambda x: x - 0.125, {"x": P}, None),
    "gradient clipping": (lambda x: x * (8 / x.norm().clamp(min=8)), lambda x: x / (x.norm() / 8).clamp(min=1),
                          lambda x: x * 1.0, {"x": UNIT}, None),
    "threshold": (lambda x: F.threshold(x, 0.1, 20.0), lambda x: where(x > 0.1, x, 20.0), lambda x: F.threshold(x, 0.1, 2.0),
                  {"x": P}, None),
    "capped norm": (lambda x: x / x.norm(dim=-1, keepdim=True).clamp(max=100), lambda x: x / torch.minimum(x.norm(dim=-1, keepdim=True), x.new_full((), 100.0)),
                    lambda x: x / x.norm(dim=-1, keepdim=True), {"x": X}, None),
    "soft capping": (lambda x: where(x.abs() < 30, x, 30 * (x / 30).tanh()), lambda x: where(x.abs() >= 30, 30 * (x / 30).tanh(), x),
                     lambda x: where(x.abs() < 30, x, 30 * x.sign()), {"x": X}, None),
    "outlier rows": (lambda x: where(x.square().sum(-1, keepdim=True) > 400, x * 0.5, x), lambda x: x * where(x.square().sum(-1, keepdim=True) > 400, x.new_full((), 0.5), 1.0),
                     lambda x: x * 1.0, {"x": X}, None),
    "near zero": (lambda x: where(x.abs() < 2.0**-6, x * x, x), lambda x: where(x.abs() >= 2.0**-6, x, x.square()), lambda x: x * 1.0,
                  {"x": P}, None),
    # integers and masks
    "order of indices": (lambda x, k: x[k].cumsum(0), lambda x, k: torch.index_select(x, 0, k).cumsum(0),
                         lambda x, k: x[k.sort().values].cumsum(0), {"x": normal(4, 3), "k": K}, None),
    "rows picked": (lambda x, k: x[k].exp(), lambda x, k: x.exp()[k], lambda x, k: x[torch.tensor([0, 1, 3])].exp(),
                    {"x": normal(4, 3), "k": K}, None),
    "targets of a loss": (lambda x, t: F.cross_entropy(x, t), lambda x, t: -x.log_softmax(-1)[torch.arange(3), t].mean(),
                          lambda x, t: -x.log_softmax(-1).diagonal().mean(), {"x": X, "t": T}, "x"),
    "embedding": (lambda w, k: F.embedding(k, w).tanh(), lambda w, k: w.tanh()[k], lambda w, k: F.embedding(k.sort().values, w).tanh(),
                  {"w": normal(4, 3), "k": K}, None),
    "segments": (lambda x, k: torch.zeros(4, 4, dtype=x.dtype).index_add(0, k, x).exp(), lambda x, k: (F.one_hot(k, 4).T.to(x) @ x).exp(),
                 lambda x, k: torch.zeros(4, 4, dtype=x.dtype).index_add(0, k.sort().values, x).exp(), {"x": X, "k": K}, None),
    "mask of trues": (lambda x, m: where(m, x.exp(), 0.0), lambda x, m: x.exp() * m, lambda x, m: x.exp(), {"x": X, "m": YES}, None),
    "mask, inverted branch": (lambda x, m: where(m, x.exp(), x.sin()), lambda x, m: where(~m, x.sin(), x.exp()),
                              lambda x, m: where(m, x.exp(), x.cos()), {"x": X, "m": YES}, None),
    "padding mask": (lambda x, m: (x * m).sum(-1) / m.sum(-1).clamp(min=1), lambda x, m: x.masked_fill(~m, 0).sum(-1) / m.sum(-1).clamp(min=1),
                     lambda x, m: x.mean(-1), {"x": X, "m": YES}, None),
    "causal mask": (lambda s, m: s.masked_fill(~m, -1e4).softmax(-1), lambda s, m: where(m, s, -1e4).softmax(-1),
                    lambda s, m: s.masked_fill(torch.ones(3, 3).triu(1).bool(), -1e4).softmax(-1), {"s": SQUARE, "m": TRIANGLE}, None),
    "lengths": (lambda x, n: (x * (torch.arange(4) < n[:, None])).exp(), lambda x, n: where(torch.arange(4) < n[:, None], x, 0.0).exp(),
                lambda x, n: (x * (torch.arange(4) < n.sort().values[:, None])).exp(), {"x": X, "n": torch.tensor([1, 2, 4])}, None),
    # what the given inputs show
    "eps": (lambda x: x / (x.norm() + 1e-6), lambda x: x * (1 / (x.norm() + 1e-6)), lambda x: x / (x.norm() + 1e-8), {"x": X}, None),
    "eps inside": (lambda x: x * (x.square().mean() + 1e-5).rsqrt(), lambda x: x / (x.square().mean() + 1e-5).sqrt(),
                   lambda x: x / (x.square().mean().sqrt() + 1e-5), {"x": X}, None),
    "slope": (lambda x: F.leaky_relu(x, 0.01), lambda x: where(x > 0, x, 0.01 * x), lambda x: F.leaky_relu(x, 0.02), {"x": X}, None),
    "gelu": (lambda x: F.gelu(x, approximate="none"), lambda x: x / 2 * (1 + (x / math.sqrt(2)).erf()), lambda x: F.gelu(x, approximate="tanh"), {"x": X}, None),
}  # fmt: skip


def total(out):
    """A loss in which no two elements have the same part."""
    return (out * torch.arange(1, out.numel() + 1).reshape(out.shape).to(out) / out.numel()).sum()
