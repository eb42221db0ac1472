"""Operations that are taken apart into others: distances, losses by margins, bags, places, products."""

from __future__ import annotations

import torch
import torch.nn.functional as F

G = torch.Generator().manual_seed(11)
aten = torch.ops.aten


def R(*shape):  # noqa: D103
    return torch.randn(*shape, generator=G)


def f(function, **inputs):  # noqa: D103
    return function, inputs


def wide(x):
    """Where kernels know no 16-bit numbers."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


Z = {}
for p in (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, float("inf")):
    Z[f"cdist{p:g}"] = f(lambda x, y, p=p: torch.cdist(wide(x), wide(y), p), x=R(3, 4), y=R(2, 4))
    if p:
        Z[f"pdist{p:g}"] = f(lambda x, p=p: F.pdist(wide(x), p), x=R(4, 3))
PLACES = torch.tensor([2, 0, 2])
for reduce in ("sum", "mean", "prod", "amax", "amin"):
    for own in (True, False):
        Z[f"scatter_{reduce}{own:d}"] = f(
            lambda x, y, reduce=reduce, own=own: x.scatter_reduce(
                0, PLACES[:, None].expand(3, 4), y, reduce, include_self=own
            ),
            x=R(3, 4),
            y=R(3, 4),
        )
        if reduce != "sum":
            Z[f"index_{reduce}{own:d}"] = f(
                lambda x, y, reduce=reduce, own=own: x.index_reduce(
                    1, PLACES, y, reduce, include_self=own
                ),
                x=R(2, 4),
                y=R(2, 3),
            )
LENGTHS = torch.tensor([2, 0, 3])
for reduce in ("sum", "mean", "prod", "max", "min"):
    Z[f"segment_{reduce}"] = f(
        lambda x, reduce=reduce: torch.segment_reduce(x, reduce, lengths=LENGTHS, initial=1.0),
        x=R(5, 2) + 3,
    )
INDICES, OFFSETS = torch.tensor([1, 2, 4, 1, 0, 3]), torch.tensor([0, 2, 2, 5])
for mode in ("sum", "mean", "max"):
    Z[f"embedding_bag_{mode}"] = f(
        lambda x, mode=mode: F.embedding_bag(INDICES, x, OFFSETS, mode=mode, padding_idx=1),
        x=R(5, 3),
    )
Z["embedding_bag_weights"] = f(
    lambda x, w: F.embedding_bag(INDICES, x, OFFSETS, mode="sum", per_sample_weights=w),
    x=R(5, 3),
    w=R(6),
)
TARGETS, SIGNS = torch.tensor([1, 0, 3]), torch.tensor([[1.0], [-1.0], [1.0]])
LABELS = torch.tensor([[1, 0, -1, 2], [3, -1, 0, 1], [0, 1, 2, 3]])
Z["soft_margin"] = f(lambda x: F.soft_margin_loss(x, SIGNS.to(x.dtype).expand(3, 4)), x=R(3, 4))
Z["multi_margin"] = f(lambda x: F.multi_margin_loss(wide(x), TARGETS), x=R(3, 4))
Z["multi_margin_squares"] = f(
    lambda x: F.multi_margin_loss(wide(x), TARGETS, p=2, margin=0.5, reduction="none"), x=R(3, 4)
)
Z["multilabel_margin"] = f(lambda x: F.multilabel_margin_loss(wide(x), LABELS), x=R(3, 4))
SAMPLES = torch.tensor([[[0.25, 0.75], [0.5, 0.125]]])
Z["fractional2"] = f(
    lambda x: F.fractional_max_pool2d(x, 2, (2, 3), _random_samples=SAMPLES.to(x.dtype)),
    x=R(1, 2, 5, 6),
)
Z["fractional3"] = f(
    lambda x: F.fractional_max_pool3d(
        x, 2, (2, 2, 2), _random_samples=torch.full((1, 1, 3), 0.5, dtype=x.dtype)
    ),
    x=R(1, 1, 4, 5, 4),
)
Z["unpool1"] = f(
    lambda x: F.max_unpool1d(*F.max_pool1d(x, 2, return_indices=True), 2), x=R(1, 2, 6)
)
Z["unpool2"] = f(
    lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), x=R(1, 2, 4, 4)
)
Z["unpool3"] = f(
    lambda x: F.max_unpool3d(*F.max_pool3d(x, 2, return_indices=True), 2), x=R(1, 1, 4, 2, 2)
)
Z["addbmm"] = f(
    lambda x, a, b: torch.addbmm(x, a, b, beta=0.5, alpha=2), x=R(2, 3), a=R(3, 2, 4), b=R(3, 4, 3)
)
Z["addr"] = f(lambda x, a, b: torch.addr(x, a, b, beta=0.5, alpha=3), x=R(2, 3), a=R(2), b=R(3))
Z["bilinear_form"] = f(lambda x, y, w: F.bilinear(x, y, w), x=R(3, 2), y=R(3, 4), w=R(2, 2, 4))
Z["renorm"] = f(lambda x: torch.renorm(x, 2, 0, 1.0), x=R(3, 4))
Z["index_copy"] = f(lambda x, y: x.index_copy(1, torch.tensor([2, 0]), y), x=R(3, 4), y=R(3, 2))
Z["index_fill_twice"] = f(lambda x: x.index_fill(0, PLACES, 2.0), x=R(3, 4))
Z["put"] = f(
    lambda x, y: x.put(torch.tensor([5, 1]), y) * x.put(PLACES[:2], y, accumulate=True),
    x=R(3, 4),
    y=R(2),
)
CHOSEN = torch.tensor([True, False, True, True])
Z["masked_scatter"] = f(lambda x, y: x.masked_scatter(CHOSEN, y), x=R(2, 4), y=R(2, 3))
Z["aminmax"] = f(lambda x: torch.stack(x.aminmax(dim=1)), x=R(3, 4))
Z["frexp"] = f(lambda x: torch.frexp(x)[0] * x, x=R(3, 4))
Z["copies"] = f(
    lambda x: (
        torch.reshape(torch.permute_copy(x, (1, 0)), (6, 2)) * torch.unsqueeze_copy(x[0, :2], 0)
    ),
    x=R(3, 4),
)
Z["linear_cross_entropy"] = f(
    lambda x, w: F.linear_cross_entropy(x, w, TARGETS), x=R(3, 5), w=R(4, 5)
)
Z["weight_norm"] = f(lambda v, g: torch._weight_norm(v, g, 0), v=R(3, 4), g=R(3, 1))
for mode, padding in (
    ("bilinear", "zeros"),
    ("bilinear", "border"),
    ("nearest", "reflection"),
    ("bicubic", "reflection"),
):
    Z[f"grid_{mode}_{padding}"] = f(
        lambda x, y, mode=mode, padding=padding: F.grid_sample(
            wide(x), wide(y), mode, padding, align_corners=mode == "bilinear"
        ),
        x=R(1, 2, 3, 4),
        y=R(1, 2, 2, 2),
    )
Z["grid_in_space"] = f(
    lambda x, y: F.grid_sample(wide(x), wide(y), align_corners=False),
    x=R(1, 1, 3, 2, 3),
    y=R(1, 1, 2, 2, 3),
)
Z["ctc"] = f(
    lambda x: F.ctc_loss(
        wide(x).log_softmax(-1),
        torch.tensor([[1, 2, 2], [2, 1, 0]]),
        (5, 4),
        (3, 2),
        reduction="sum",
    ),
    x=R(5, 2, 3),
)
Z["vander"] = f(lambda x: torch.linalg.vander(wide(x)), x=R(4))
for d in (1, 2, 3):
    Z[f"nearest_exact{d}"] = f(
        lambda x: F.interpolate(x, scale_factor=1.6, mode="nearest-exact"), x=R(1, 2, *[3] * d)
    )
for aligned in (False, True):
    Z[f"affine_grid{aligned:d}"] = f(
        lambda x, aligned=aligned: F.affine_grid(wide(x), [1, 2, 3, 2], align_corners=aligned),
        x=R(1, 2, 3),
    )
