"""Modules and functions whose gradients the library covers, with small inputs."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
import zoo_complex
import zoo_decisions
import zoo_linalg
import zoo_small
import zoo_special

import roundoff as ro


def mod(module, *inputs, pick=None):
    """A module as a function of parameters and inputs by name."""
    function, parameters = ro.functional(Positional(module, pick))
    return function, {**parameters, **{f"x{k}": x for k, x in enumerate(inputs)}}


class Positional(nn.Module):
    """A module that takes its inputs by any names, in order; pick: chooses one of its outputs."""

    def __init__(self, module, pick):
        super().__init__()
        self.module, self.pick = module, pick

    def forward(self, **values):
        out = self.module(*values.values())
        return out if self.pick is None else self.pick(out)


torch.manual_seed(0)
R = torch.randn
Z = {}
Z["linear"] = mod(nn.Linear(4, 3), R(5, 4))
for d in (1, 2, 3):
    Z[f"conv{d}"] = mod(getattr(nn, f"Conv{d}d")(2, 3, 2, padding=1), R(2, 2, *[4] * d))
    Z[f"convT{d}"] = mod(getattr(nn, f"ConvTranspose{d}d")(2, 3, 2, stride=2), R(2, 2, *[3] * d))
    Z[f"maxpool{d}"] = mod(getattr(nn, f"MaxPool{d}d")(2), R(2, 2, *[4] * d))
    Z[f"avgpool{d}"] = mod(getattr(nn, f"AvgPool{d}d")(2, padding=1), R(2, 2, *[4] * d))
    Z[f"adapavg{d}"] = mod(getattr(nn, f"AdaptiveAvgPool{d}d")(3), R(2, 2, *[4] * d))
    Z[f"adapmax{d}"] = mod(getattr(nn, f"AdaptiveMaxPool{d}d")(2), R(2, 2, *[5] * d))
    Z[f"bn{d}"] = mod(getattr(nn, f"BatchNorm{d}d")(2), R(3, 2, *[2] * d))
    Z[f"bneval{d}"] = mod(getattr(nn, f"BatchNorm{d}d")(2).eval(), R(3, 2, *[2] * d))
Z["maxpool2o"] = mod(nn.MaxPool2d(3, stride=1, padding=1), R(1, 2, 4, 4))
Z["lppool"] = mod(nn.LPPool2d(2, 2), R(1, 2, 4, 4))
Z["instnorm"] = mod(nn.InstanceNorm2d(2, affine=True), R(2, 2, 3, 3))
Z["layernorm"] = mod(nn.LayerNorm(5), R(3, 5))
Z["groupnorm"] = mod(nn.GroupNorm(2, 4), R(2, 4, 3))
Z["rmsnorm"] = mod(nn.RMSNorm(5), R(3, 5))
emb = nn.Embedding(6, 4)
idx = torch.tensor([[1, 2, 1], [0, 5, 2]])
Z["embedding"] = mod(emb, idx)
Z["embedding_pad"] = mod(nn.Embedding(6, 4, padding_idx=1), idx)
Z["softmax"] = (lambda x: F.softmax(x, -1), {"x": R(3, 4)})
Z["log_softmax"] = (lambda x: F.log_softmax(x, 1), {"x": R(3, 4)})
t = torch.tensor([0, 2, 1])
Z["ce"] = (lambda x: F.cross_entropy(x, t), {"x": R(3, 4)})
WEIGHT = [1.0, 2.0, 3.0, 4.0]
Z["ce_smooth"] = (
    lambda x: F.cross_entropy(
        x, t, label_smoothing=0.1, weight=torch.tensor(WEIGHT, dtype=x.dtype)
    ),
    {"x": R(3, 4)},
)
Z["ce_ignore"] = (lambda x: F.cross_entropy(x, torch.tensor([0, -100, 1])), {"x": R(3, 4)})
Z["ce_prob"] = (lambda x, p: F.cross_entropy(x, p.softmax(-1)), {"x": R(3, 4), "p": R(3, 4)})
Z["nll2d"] = (
    lambda x: F.nll_loss(F.log_softmax(x, 1), torch.tensor([[[0, 1], [1, 0]]])),
    {"x": R(1, 2, 2, 2)},
)
Z["mse"] = (lambda x, y: F.mse_loss(x, y), {"x": R(3, 4), "y": R(3, 4)})
Z["l1"] = (lambda x, y: F.l1_loss(x, y), {"x": R(3, 4), "y": R(3, 4)})
Z["smooth_l1"] = (lambda x, y: F.smooth_l1_loss(x, y), {"x": R(3, 4), "y": R(3, 4)})
Z["huber"] = (lambda x, y: F.huber_loss(x, y, delta=0.5), {"x": R(3, 4), "y": R(3, 4)})
Z["kl"] = (
    lambda x, y: F.kl_div(F.log_softmax(x, -1), F.softmax(y, -1), reduction="batchmean"),
    {"x": R(3, 4), "y": R(3, 4)},
)
Z["kl_log"] = (
    lambda x, y: F.kl_div(
        F.log_softmax(x, -1), F.log_softmax(y, -1), reduction="batchmean", log_target=True
    ),
    {"x": R(3, 4), "y": R(3, 4)},
)
Z["bce"] = (
    lambda x, y: F.binary_cross_entropy(x.sigmoid(), y.sigmoid()),
    {"x": R(3, 4), "y": R(3, 4)},
)
Z["bcel"] = (
    lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid()),
    {"x": R(3, 4), "y": R(3, 4)},
)
Z["gnll"] = (
    lambda x, y, v: F.gaussian_nll_loss(x, y, v.exp()),
    {"x": R(3, 4), "y": R(3, 4), "v": R(3, 4)},
)
Z["poisson"] = (lambda x, y: F.poisson_nll_loss(x, y), {"x": R(3, 4), "y": R(3, 4)})
Z["cosine"] = (lambda x, y: F.cosine_similarity(x, y), {"x": R(3, 4), "y": R(3, 4)})
Z["margin"] = (
    lambda x, y: F.margin_ranking_loss(x, y, torch.ones(3, 4)),
    {"x": R(3, 4), "y": R(3, 4)},
)
Z["triplet"] = (
    lambda x, y, z: F.triplet_margin_loss(x, y, z),
    {"x": R(3, 4), "y": R(3, 4), "z": R(3, 4)},
)
for n in """
    ReLU LeakyReLU ELU SELU CELU GELU SiLU Mish Softplus Softsign Tanh Sigmoid Hardtanh Hardsigmoid
    Hardswish LogSigmoid ReLU6 Tanhshrink Softshrink Hardshrink Softmin Threshold PReLU GLU RReLU
""".split():
    m = getattr(nn, n)(*{"Threshold": (0.1, 20.0), "Softmin": (1,)}.get(n, ())).eval()
    Z["act_" + n] = mod(m, R(3, 4))
Z["gelu_tanh"] = (lambda x: F.gelu(x, approximate="tanh"), {"x": R(3, 4)})
Z["sdpa"] = (
    lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
    {"q": R(1, 2, 3, 4), "k": R(1, 2, 3, 4), "v": R(1, 2, 3, 4)},
)
Z["sdpa_causal"] = (
    lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
    {"q": R(1, 2, 3, 4), "k": R(1, 2, 3, 4), "v": R(1, 2, 3, 4)},
)
Z["sdpa_mask"] = (
    lambda q, k, v: F.scaled_dot_product_attention(
        q, k, v, attn_mask=torch.tensor([[1, 0, 1], [1, 1, 0], [1, 1, 1]], dtype=torch.bool)
    ),
    {"q": R(1, 2, 3, 4), "k": R(1, 2, 3, 4), "v": R(1, 2, 3, 4)},
)
x = R(2, 3, 4)
Z["mha"] = mod(nn.MultiheadAttention(4, 2, batch_first=True), x, x, x, pick=lambda o: o[0])
Z["mha_noweights"] = mod(
    type(
        "M",
        (nn.Module,),
        {
            "__init__": lambda s: (
                nn.Module.__init__(s),
                setattr(s, "m", nn.MultiheadAttention(4, 2, batch_first=True)),
            )[0],
            "forward": lambda s, x: s.m(x, x, x, need_weights=False)[0],
        },
    )(),
    x,
)
Z["tel"] = mod(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0), x)
Z["tel_eval"] = mod(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True).eval(), x)
Z["tdl"] = mod(nn.TransformerDecoderLayer(4, 2, 8, batch_first=True, dropout=0.0), x, x)
Z["gru"] = mod(nn.GRU(3, 4, batch_first=True), R(2, 3, 3), pick=lambda o: o[0])
Z["lstm"] = mod(nn.LSTM(3, 4, batch_first=True), R(2, 3, 3), pick=lambda o: o[0])
Z["rnn"] = mod(nn.RNN(3, 4, batch_first=True, bidirectional=True), R(2, 3, 3), pick=lambda o: o[0])
Z["lstm2"] = mod(
    nn.LSTM(3, 4, 2, batch_first=True, bidirectional=True), R(2, 3, 3), pick=lambda o: o[0]
)
Z["grucell"] = mod(nn.GRUCell(3, 4), R(2, 3))
Z["dropout_eval"] = mod(nn.Dropout(0.5).eval(), R(3, 4))
f = lambda g, **kw: (g, kw)
Z["cumsum"] = f(lambda x: x.cumsum(1), x=R(3, 4))
Z["cumprod"] = f(lambda x: x.cumprod(1), x=R(3, 4))
Z["cat"] = f(lambda x, y: torch.cat([x, y], 1), x=R(3, 4), y=R(3, 2))
Z["stack"] = f(lambda x, y: torch.stack([x, y]), x=R(3, 4), y=R(3, 4))
Z["split"] = f(lambda x: x.split(2, 1)[0] * x.split(2, 1)[1], x=R(3, 4))
Z["chunk"] = f(lambda x: x.chunk(2, 1)[0] * 2, x=R(3, 4))
Z["gather"] = f(lambda x: x.gather(1, torch.tensor([[0, 0], [1, 2], [3, 3]])), x=R(3, 4))
Z["index"] = f(lambda x: x[torch.tensor([0, 0, 2])], x=R(3, 4))
Z["index_select"] = f(lambda x: x.index_select(1, torch.tensor([0, 0])), x=R(3, 4))
Z["scatter_add"] = f(
    lambda x, y: x.scatter_add(1, torch.tensor([[0, 0], [1, 2], [3, 3]]), y), x=R(3, 4), y=R(3, 2)
)
Z["scatter"] = f(
    lambda x, y: x.scatter(1, torch.tensor([[0, 1], [1, 2], [3, 0]]), y), x=R(3, 4), y=R(3, 2)
)
Z["where"] = f(lambda x, y: torch.where(x > 0, x, y), x=R(3, 4), y=R(3, 4))
Z["masked_fill"] = f(lambda x: x.masked_fill(x > 0, 2.0), x=R(3, 4))
Z["masked_select"] = f(lambda x: x[torch.tensor([True, False, True])], x=R(3, 4))
Z["einsum"] = f(lambda x, y: torch.einsum("bij,bkj->ik", x, y), x=R(2, 3, 4), y=R(2, 5, 4))
Z["norm"] = f(lambda x: x.norm(), x=R(3, 4))
Z["norm1"] = f(lambda x: x.norm(1, dim=1), x=R(3, 4))
Z["norm3"] = f(lambda x: x.norm(3, dim=1), x=R(3, 4))
Z["norminf"] = f(lambda x: x.norm(float("inf"), dim=1), x=R(3, 4))
Z["normalize"] = f(lambda x: F.normalize(x), x=R(3, 4))
Z["var"] = f(lambda x: x.var(1), x=R(3, 4))
Z["std"] = f(lambda x: x.std(1, unbiased=False), x=R(3, 4))
Z["var_mean"] = f(lambda x: torch.var_mean(x, 1)[0], x=R(3, 4))
Z["logsumexp"] = f(lambda x: x.logsumexp(1), x=R(3, 4))
Z["logaddexp"] = f(lambda x, y: torch.logaddexp(x, y), x=R(3, 4), y=R(3, 4))
Z["prod"] = f(lambda x: x.prod(1), x=R(3, 4))
Z["prodall"] = f(lambda x: x.prod(), x=R(3, 4))
Z["max"] = f(lambda x: x.max(1).values, x=R(3, 4))
Z["amax"] = f(lambda x: x.amax(1), x=R(3, 4))
Z["maxall"] = f(lambda x: x.max(), x=R(3, 4))
Z["min"] = f(lambda x: x.min(1)[0], x=R(3, 4))
Z["sort"] = f(lambda x: x.sort(1).values * torch.arange(4.0), x=R(3, 4))
Z["topk"] = f(lambda x: x.topk(2, 1).values, x=R(3, 4))
Z["median"] = f(lambda x: x.median(1).values, x=R(3, 5))
Z["cummax"] = f(lambda x: x.cummax(1).values, x=R(3, 5))
Z["mean"] = f(lambda x: x.mean((0, 1)), x=R(3, 4))
Z["trace"] = f(lambda x: x.trace(), x=R(4, 4))
Z["tril"] = f(lambda x: x.tril(), x=R(4, 4))
Z["outer"] = f(lambda x, y: torch.outer(x, y), x=R(4), y=R(3))
Z["cdist"] = f(lambda x, y: torch.cdist(x, y), x=R(4, 2), y=R(3, 2))
Z["interp_nearest"] = f(lambda x: F.interpolate(x, scale_factor=2), x=R(1, 2, 3, 3))
Z["interp_bilinear"] = f(lambda x: F.interpolate(x, size=(5, 5), mode="bilinear"), x=R(1, 2, 3, 3))
Z["pad_reflect"] = f(lambda x: F.pad(x, (1, 1), mode="reflect"), x=R(1, 2, 4))
Z["pad_rep"] = f(lambda x: F.pad(x, (1, 1), mode="replicate"), x=R(1, 2, 4))
Z["pad_circ"] = f(lambda x: F.pad(x, (1, 1), mode="circular"), x=R(1, 2, 4))
Z["unfold"] = f(lambda x: F.unfold(x, 2), x=R(1, 2, 3, 3))
Z["fold"] = f(lambda x: F.fold(x, (3, 3), 2), x=R(1, 8, 4))
Z["tunfold"] = f(lambda x: x.unfold(1, 2, 1), x=R(3, 4))
Z["pixel_shuffle"] = f(lambda x: F.pixel_shuffle(x, 2), x=R(1, 4, 2, 2))
Z["roll"] = f(lambda x: x.roll(1, 0), x=R(3, 4))
Z["flip"] = f(lambda x: x.flip(0), x=R(3, 4))
Z["baddbmm"] = f(lambda x, y, z: torch.baddbmm(x, y, z), x=R(2, 3, 3), y=R(2, 3, 4), z=R(2, 4, 3))
Z["addcmul"] = f(lambda x, y, z: torch.addcmul(x, y, z, value=0.5), x=R(3), y=R(3), z=R(3))
Z["lerp"] = f(lambda x, y: torch.lerp(x, y, 0.3), x=R(3), y=R(3))
Z["atan2"] = f(lambda x, y: torch.atan2(x, y), x=R(3), y=R(3))
Z["pow"] = f(lambda x: x.abs().pow(1.7), x=R(3))
Z["pow3"] = f(lambda x: x**3, x=R(3))
Z["powt"] = f(lambda x, y: x.abs() ** y, x=R(3), y=R(3))
Z["hypot"] = f(lambda x, y: torch.hypot(x, y), x=R(3), y=R(3))
Z["exp2"] = f(lambda x: x.exp2(), x=R(3))
Z["acosh"] = f(lambda x: (x.abs() + 2).acosh(), x=R(3))
Z["atanh"] = f(lambda x: (x.sigmoid()).atanh(), x=R(3))
Z["erfc"] = f(lambda x: x.erfc(), x=R(3))
Z["logit"] = f(lambda x: x.sigmoid().logit(), x=R(3))
Z["clamp"] = f(lambda x: x.clamp(-0.5, 0.5), x=R(3, 4))
Z["frac"] = f(lambda x: x.frac(), x=R(3, 4))
Z["round"] = f(lambda x: x.round() * x, x=R(3, 4))
Z["floor_divide"] = f(lambda x: x % 0.7, x=R(3, 4))
Z["nan_to_num"] = f(lambda x: x.nan_to_num(), x=R(3, 4))
Z["softplus_b"] = f(lambda x: F.softplus(x, beta=2), x=R(3, 4))
Z["heaviside"] = f(lambda x: x * (x > 0).float(), x=R(3, 4))
Z["inplace"] = f(lambda x: x.clone().mul_(2).add_(1).relu_(), x=R(3, 4))
Z["matrix_inv"] = f(lambda x: torch.linalg.inv(x), x=R(3, 3))
Z["det"] = f(lambda x: torch.linalg.det(x), x=R(3, 3))
Z["kron"] = f(lambda x, y: torch.kron(x, y), x=R(2, 2), y=R(2, 2))
Z["diag"] = f(lambda x: torch.diag(x), x=R(3))
Z["setitem"] = f(
    lambda x, y: torch.zeros(3, 4, dtype=y.dtype).index_put((torch.tensor([0, 2]),), y),
    x=R(3, 4),
    y=R(2, 4),
)
Z["checkpoint"] = f(
    lambda x: torch.utils.checkpoint.checkpoint(lambda z: z.tanh() * z, x, use_reentrant=False),
    x=R(3, 4),
)
Z["logcumsumexp"] = f(lambda x: x.logcumsumexp(1), x=R(3, 4))
Z["tensordot"] = f(lambda x, y: torch.tensordot(x, y, 1), x=R(3, 4), y=R(4, 2))
Z["repeat_interleave"] = f(lambda x: x.repeat_interleave(2, 0), x=R(3, 4))
Z["diff"] = f(lambda x: x.diff(), x=R(3, 4))
Z["cross"] = f(lambda x, y: torch.linalg.cross(x, y), x=R(2, 3), y=R(2, 3))
Z["take_along"] = f(lambda x: x.take_along_dim(torch.tensor([[0], [1], [2]]), 1), x=R(3, 4))
Z["ctc"] = f(
    lambda x: F.ctc_loss(
        x.log_softmax(-1), torch.tensor([[1, 2]]), torch.tensor([4]), torch.tensor([2])
    ),
    x=R(4, 1, 3),
)


Z["rmsnorm"] = mod(nn.RMSNorm(5, eps=1e-6), R(3, 5))
Z["index_put"] = f(lambda x, y: x.index_put((torch.tensor([0, 2]),), y), x=R(3, 4), y=R(2, 4))
aten = torch.ops.aten
for n in "sin cos tan sinh cosh asinh expm1 reciprocal rot90 triu".split():
    Z[n] = f(getattr(torch, n), input=R(3, 3))
for n in "asin acos log1p log2 log10 erf".split():
    Z[n] = f(lambda x, n=n: getattr(torch, n)(x.sigmoid()), x=R(3))
Z["exp2_of_aten"] = f(lambda x: aten.exp2(x), x=R(3))
Z["std_of_aten"] = f(lambda x: aten.std(x, [1]), x=R(3, 4))
Z["var_mean_of_aten"] = f(lambda x: aten.var_mean(x, [1])[0], x=R(3, 4))
Z["softmax_of_aten"] = f(lambda x: aten._safe_softmax(x, 1), x=R(3, 4))
Z["addcdiv"] = f(lambda x, y, z: torch.addcdiv(x, y, z.exp(), value=0.5), x=R(3), y=R(3), z=R(3))
Z["maximum"] = f(lambda x, y: torch.maximum(x, y), x=R(3), y=R(3))
Z["minimum"] = f(lambda x, y: torch.minimum(x, y), x=R(3), y=R(3))
Z["rsub"] = f(lambda x: 1 - x, x=R(3))
Z["logical_not"] = f(lambda x: torch.where(~(x > 0).logical_not(), x, 2 * x), x=R(3))
Z["logical_xor"] = f(lambda x: torch.where(torch.logical_xor(x > 0, x > 1), x, 2 * x), x=R(3))
Z["isinf"] = f(lambda x: x.masked_fill(x.isinf(), 0), x=R(3))
Z["zero_"] = f(lambda x: x.clone().zero_() + x, x=R(3))
Z["alias"] = f(lambda x: aten.alias(x), x=R(3))
Z["dot"] = f(lambda x, y: torch.dot(x, y), x=R(4), y=R(4))
Z["vdot"] = f(lambda x, y: torch.vdot(x, y), x=R(4), y=R(4))
Z["addmv"] = f(lambda x, y, z: torch.addmv(x, y, z), x=R(3), y=R(3, 4), z=R(4))
Z["pad_constant"] = f(lambda x: F.pad(x, (1, 2)), x=R(3, 4))
for d in (2, 3):
    for n in ("reflect", "replicate"):
        Z[f"pad_{n}{d}"] = f(lambda x, d=d, n=n: F.pad(x, (1, 1) * d, mode=n), x=R(1, 1, *[2] * d))
for d in (1, 3):
    Z[f"nearest{d}"] = f(lambda x: F.interpolate(x, scale_factor=2), x=R(1, 2, *[2] * d))
Z["cumprod0"] = f(lambda x: (x * (x > -0.5)).cumprod(0), x=R(5, 4))
Z["cross0"] = f(lambda x, y: torch.linalg.cross(x, y, dim=0), x=R(3, 1), y=R(3, 4))
Z["diag_of_matrix"] = f(lambda x: torch.diag(x), x=R(3, 3))
Z["block_diag"] = f(lambda x, y: torch.block_diag(x, y), x=R(2, 2), y=R(3))
Z["channel_shuffle"] = f(lambda x: F.channel_shuffle(x, 2), x=R(1, 4, 2, 2))
for name in """
    act_RReLU sort topk median cummax cdist frac round
    floor_divide matrix_inv det logcumsumexp ctc gnll
""".split():
    Z.pop(name, None)


# Without a lowering of ours: written with other operations, or taken apart by PyTorch's own tables.
for mode, size in (
    ("linear", (1, 2, 5)),
    ("bilinear", (1, 2, 4, 5)),
    ("bicubic", (1, 2, 4, 5)),
    ("trilinear", (1, 1, 3, 4, 5)),
):
    sizes = tuple(2 * n - 1 for n in size[2:])
    for aligned in (False, True):
        Z[f"{mode}{'_aligned' if aligned else ''}"] = (
            lambda x, mode=mode, sizes=sizes, aligned=aligned: F.interpolate(
                x, sizes, mode=mode, align_corners=aligned
            ),
            {"x": R(*size)},
        )
    Z[f"{mode}_scale"] = (
        lambda x, mode=mode: F.interpolate(x, scale_factor=1.7, mode=mode),
        {"x": R(*size)},
    )
Z["take"] = (lambda x: torch.take(x, torch.tensor([1, 5, 5, 0])), {"x": R(3, 4)})
Z["fmax"] = (lambda x, y: torch.fmax(x, y) + torch.fmin(x, 2 * y), {"x": R(3, 4), "y": R(3, 4)})
Z["logaddexp"] = (lambda x, y: torch.logaddexp(x, y), {"x": R(3, 4), "y": R(3, 4)})
Z["hypot"] = (lambda x, y: torch.hypot(x, y), {"x": R(3, 4), "y": R(3, 4)})
Z["nansum"] = (lambda x: torch.nansum(x, 1), {"x": R(3, 4)})
Z["dist"] = (lambda x, y: torch.dist(x, y), {"x": R(3, 4), "y": R(3, 4)})
Z["sinc"] = (lambda x: torch.sinc(x), {"x": R(3, 4)})
Z["xlogy"] = (lambda x, y: torch.xlogy(x, y * y + 0.5), {"x": R(3, 4), "y": R(3, 4)})
Z["entr"] = (lambda x: torch.special.entr(x * x + 0.5), {"x": R(3, 4)})


# One file per kind of operation that is taken apart.
for part in (zoo_complex.Z, zoo_decisions.Z, zoo_linalg.Z, zoo_small.Z, zoo_special.Z):
    Z.update(part)


def loss(out):
    """The sum of squares of a tensor; a number as it is."""
    return (out * out).sum() if out.dim() else out
