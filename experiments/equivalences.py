"""Ten pairs that ought to be the same, ten twins that are not: does the verdict tell them apart?"""

from __future__ import annotations

if __name__ in ("__main__", "__mp_main__"):
    from roundoff.cli import guard

    guard()

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from equivalences_findings import equivalences_report
from equivalences_rows import Equivalence, equivalences
from torch import Tensor

from roundoff.cli import main
from roundoff.report.document import write_files
from roundoff.report.findings import Question

QUESTION = Question(
    title="Rounding or a bug?",
    text="Ten pairs of functions that are mathematically the same, and for each a twin with a bug that "
    "people have written: does the verdict flag every twin and no honest pair?",
)


@dataclass(frozen=True)
class Equivalences:
    """Verdicts on ten classic pairs and their bug twins, over many inputs."""

    formats: tuple[str, ...] = ("float32", "float64")
    """formats that torch runs the functions in"""
    seeds: int = 100
    """inputs of each pair"""
    seed: int = 0
    """the base of all random numbers"""
    out: Path = Path("reports/equivalences")
    """folder of the report"""
    quick: bool = False
    """three seeds: for a first look, and for CI"""


Shapes = Mapping[str, tuple[int, ...]]


def normal(shapes: Shapes, scale: float, generator: np.random.Generator) -> dict[str, Any]:
    """Inputs by name, normal."""
    return {name: scale * generator.standard_normal(shape) for name, shape in shapes.items()}


def drawn(shapes: Shapes, scale: float = 1.0) -> partial[dict[str, Any]]:
    """How inputs of these shapes are drawn."""
    return partial(normal, shapes, scale)


def slice_conv(weight: Tensor, bias: Tensor, x: Tensor, start: int = -5) -> Tensor:
    """The thread's method 1."""
    return F.conv1d(x[:, :, start : start + 5 or None], weight, bias)


def conv_slice(weight: Tensor, bias: Tensor, x: Tensor) -> Tensor:
    """The thread's method 2."""
    return F.conv1d(x, weight, bias)[:, :, -5:]


def crop_conv(weight: Tensor, x: Tensor, at: int = 1) -> Tensor:
    """A crop of an image, then a 1 x 1 convolution."""
    return F.conv2d(x[:, :, at : at + 3, 1:4], weight)


def conv_crop(weight: Tensor, x: Tensor) -> Tensor:
    """The convolution first."""
    return F.conv2d(x, weight)[:, :, 1:4, 1:4]


def whole(w: Tensor, x: Tensor) -> Tensor:
    """A loss of the whole batch."""
    return ((x @ w) ** 2).sum()


def chunks(w: Tensor, x: Tensor, count: int | None = None) -> Tensor:
    """The same in chunks of four."""
    return torch.stack([whole(w, part) for part in torch.split(x, 4)[:count]]).sum()


def mean_loss(w: Tensor, x: Tensor, t: Tensor) -> Tensor:
    """The mean over a batch of six."""
    return F.mse_loss(x @ w, t)


def micro_batches(w: Tensor, x: Tensor, t: Tensor, ragged: bool = False) -> Tensor:
    """Micro-batches of four and two; ragged: their means are averaged as if they were equally long."""
    parts = [
        (F.mse_loss(a @ w, b), len(a))
        for a, b in zip(torch.split(x, 4), torch.split(t, 4), strict=True)
    ]
    return torch.stack([loss * (0.5 if ragged else n / 6) for loss, n in parts]).sum()


def attention(query: Tensor, key: Tensor, value: Tensor, part: float = 0.0) -> Tensor:
    """Attention in plain operations; part: of the key's gradient that is lost."""
    key = key - part * (key - key.detach())
    return (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1) @ value


def left(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """(a b) c."""
    return (a @ b) @ c


def right(a: Tensor, b: Tensor, c: Tensor, transposed: bool = False) -> Tensor:
    """a (b c)."""
    return a @ ((b.mT if transposed else b) @ c)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """torch's."""
    return F.layer_norm(x, (6,), weight, bias)


def own_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, unbiased: bool = False) -> Tensor:
    """By mean and variance."""
    spread = x.var(-1, unbiased=unbiased, keepdim=True)
    return (x - x.mean(-1, keepdim=True)) / torch.sqrt(spread + 1e-5) * weight + bias


def stable_log_softmax(x: Tensor) -> Tensor:
    """torch's, which subtracts the maximum."""
    return F.log_softmax(x, -1)


def naive_log_softmax(x: Tensor) -> Tensor:
    """By exponentials that overflow."""
    return torch.log(torch.exp(x) / torch.exp(x).sum(-1, keepdim=True))


def norm_with_bias(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A bias before a batch norm: its gradient cancels to zero."""
    return F.batch_norm(F.conv1d(x, weight, bias), None, None, training=True)


def norm_without_bias(x: Tensor, weight: Tensor, bias: Tensor, after: bool = False) -> Tensor:
    """No bias, or (the bug) one after the norm."""
    out = F.batch_norm(F.conv1d(x, weight), None, None, training=True)
    return out + bias[:, None] * (1.0 if after else 0.0)


def summed(x: Tensor) -> Tensor:
    """A sum of squares in torch's order."""
    return (x * x).sum()


def summed_backwards(x: Tensor, dropped: int = 0) -> Tensor:
    """In another order; dropped: terms left out."""
    return (x * x).flip(0)[dropped:].cumsum(0)[-1]


def pairs() -> tuple[Equivalence, ...]:
    """The ten pairs."""
    conv = {"weight": (3, 3, 1), "bias": (3,), "x": (1, 3, 10)}
    crop = {"weight": (2, 3, 1, 1), "x": (2, 3, 5, 5)}
    batch = {"w": (5, 3), "x": (10, 5)}
    micro = {"w": (5, 2), "x": (6, 5), "t": (6, 2)}
    heads = dict.fromkeys(("query", "key", "value"), (1, 2, 5, 4))
    chain = {"a": (3, 4), "b": (4, 4), "c": (4, 2)}
    norm = {"x": (4, 6), "weight": (6,), "bias": (6,)}
    rows = {"x": (3, 5)}
    before = {"x": (4, 3, 6), "weight": (2, 3, 1), "bias": (2,)}
    of, bind, like = Equivalence, partial, drawn
    return (
        of("slice, conv", slice_conv, conv_slice, bind(slice_conv, start=-6), "slice off by one", like(conv)),
        of("crop, conv 1x1", crop_conv, conv_crop, bind(crop_conv, at=0), "crop off by one", like(crop)),
        of("batch, chunks", whole, chunks, bind(chunks, count=2), "last chunk left out", like(batch)),
        of("micro-batches", mean_loss, micro_batches, bind(micro_batches, ragged=True),
           "mean of ragged means", like(micro)),
        of("attention", F.scaled_dot_product_attention, attention, bind(attention, part=2.0**-10),
           "key's gradient times 1 - 2^-10", like(heads)),
        of("matmul chain", left, right, bind(right, transposed=True), "a transposed factor", like(chain)),
        of("layer norm", layer_norm, own_layer_norm, bind(own_layer_norm, unbiased=True),
           "variance over n - 1", like(norm)),
        of("log softmax", stable_log_softmax, naive_log_softmax, naive_log_softmax,
           "naive, where exp overflows", like(rows), draw_twin=like(rows, 2000.0)),
        of("bias, batch norm", norm_with_bias, norm_without_bias, bind(norm_without_bias, after=True),
           "bias after the norm", like(before)),
        of("sum orders", summed, summed_backwards, bind(summed_backwards, dropped=1), "a dropped term",
           like({"x": (40,)})),
    )  # fmt: skip


def run(config: Equivalences) -> Path:
    """The verdicts and their report."""
    seeds = 3 if config.quick else config.seeds
    found = pairs()
    rows = equivalences(found, config.formats, seeds, config.seed)
    return write_files(equivalences_report(QUESTION, config, found, rows), config.out)


if __name__ == "__main__":
    main(Equivalences, run)
