"""Small models as people build them: a language model, a residual network, an LSTM, an autoencoder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import roundoff as ro


class Attention(nn.Module):
    """Causal self-attention with rotary positions."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        query, key = rotary(query), rotary(key)
        mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        found: Tensor = self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return found


def rotary(x: Tensor) -> Tensor:
    """Rotary position embedding of (..., length, even width)."""
    length, width = x.shape[-2:]
    rates = 1.0 / (10000.0 ** (torch.arange(0, width, 2, dtype=torch.float32) / width))
    angles = torch.arange(length, dtype=torch.float32)[:, None] * rates
    cosine, sine = angles.cos().to(x.dtype), angles.sin().to(x.dtype)
    first, second = x[..., : width // 2], x[..., width // 2 :]
    return torch.cat([first * cosine - second * sine, first * sine + second * cosine], -1)


class Block(nn.Module):
    """A transformer block with RMSNorm at its default eps and a SwiGLU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.attention = nn.RMSNorm(width), Attention(width, heads)
        self.norm2 = nn.RMSNorm(width)
        self.gate = nn.Linear(width, 2 * width, bias=False)
        self.up = nn.Linear(width, 2 * width, bias=False)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y = self.norm2(x)
        found: Tensor = x + self.down(F.silu(self.gate(y)) * self.up(y))
        return found


class LanguageModel(nn.Module):
    """Embedded tokens to logits."""

    def __init__(self, width: int, heads: int, layers: int, words: int) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm, self.head = nn.RMSNorm(width), nn.Linear(width, words, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        found: Tensor = self.head(self.norm(self.blocks(self.words(tokens))))
        return found


class Residual(nn.Module):
    """Two convolutions with batch norm, around which the input goes."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(x + self.norm2(self.conv2(y)))


def residual_network(channels: int, blocks: int) -> nn.Module:
    """Images to ten logits."""
    return nn.Sequential(
        nn.Conv2d(3, channels, 3, padding=1),
        *(Residual(channels) for _ in range(blocks)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, 10),
    )


class Recurrent(nn.Module):
    """An LSTM over a series, and a linear layer on its last output."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.lstm(x)[0][:, -1])
        return found


def autoencoder(channels: int) -> nn.Module:
    """Convolutions with GELU down, transposed ones up."""
    return nn.Sequential(
        nn.Conv2d(1, channels, 3, stride=2, padding=1),
        nn.GELU(),
        nn.Conv2d(channels, 2 * channels, 3, stride=2, padding=1),
        nn.GELU(),
        nn.ConvTranspose2d(2 * channels, channels, 4, stride=2, padding=1),
        nn.GELU(),
        nn.ConvTranspose2d(channels, 1, 4, stride=2, padding=1),
        nn.Sigmoid(),
    )


@dataclass(frozen=True, eq=False)
class Model:
    """A function of parameters and inputs by name, the parameters' names, and the loss of its output."""

    name: str
    function: Callable[..., Tensor]
    inputs: dict[str, Tensor]
    parameters: tuple[str, ...]
    loss: Callable[[Tensor], Tensor]


def _model(name: str, module: nn.Module, given: dict[str, Tensor], loss: Any) -> Model:
    function, parameters = ro.functional(module)
    return Model(name, function, {**parameters, **given}, tuple(parameters), loss)


def _to_classes(targets: Tensor, out: Tensor) -> Tensor:
    return F.cross_entropy(out.flatten(0, -2), targets)


def _squares(target: Tensor, out: Tensor) -> Tensor:
    return F.mse_loss(out, target.to(out.dtype))


def models(seed: int = 0, *, quick: bool = False) -> Iterator[Model]:
    """Freshly initialised, with random inputs."""
    torch.manual_seed(seed)
    width, length, words = (8, 4, 12) if quick else (128, 64, 256)
    tokens = torch.randint(words, (2, length))
    yield _model(
        "language model", LanguageModel(width, 2 if quick else 4, 1 if quick else 2, words),
        {"tokens": tokens}, partial(_to_classes, tokens.roll(-1, 1).flatten()),
    )  # fmt: skip
    channels, size, batch = (4, 5, 2) if quick else (16, 12, 4)
    images = torch.randn(batch, 3, size, size)
    classes = partial(_to_classes, torch.randint(10, (batch,)))
    yield _model(
        "residual network",
        residual_network(channels, 1 if quick else 3),
        {"input": images},
        classes,
    )
    series = torch.randn(batch, 3 if quick else 12, 8)
    yield _model("LSTM", Recurrent(4 if quick else 32), {"x": series}, classes)
    size = 8 if quick else 16
    pictures = torch.rand(batch, 1, size, size)
    yield _model(
        "autoencoder",
        autoencoder(4 if quick else 8),
        {"input": pictures},
        partial(_squares, pictures),
    )
