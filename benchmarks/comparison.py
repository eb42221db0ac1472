"""How long a comparison takes, and where: the thread's shape in four formats, a transformer layer in two.

Unit: one run of both functions' float64 gradients by torch, in the same process.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from timing import seconds

import roundoff as ro


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape)


def slice_then_conv(weight, bias, x):
    return F.conv1d(x[:, :, -5:], weight, bias)


def conv_then_slice(weight, bias, x):
    return F.conv1d(x, weight, bias)[:, :, -5:]


def show(name, compare, native):
    compare()
    took, unit = seconds(compare), seconds(native)
    parts = compare().seconds
    spent = ", ".join(f"{key} {value / took:.0%}" for key, value in parts.items())
    print(f"{name}: {took:.2f} s, {took / unit:.0f} native float64 gradients; {spent}")


def main() -> None:
    inputs = {"weight": normal(3, 3, 1), "bias": normal(3), "x": normal(1, 3, 10)}
    problem = {"inputs": inputs, "wrt": ("weight", "bias"), "loss": lambda out: (out**2).sum()}
    show(
        "slicing, four formats",
        lambda: ro.compare(slice_then_conv, conv_then_slice, **problem),
        lambda: ro.native_gradients(conv_then_slice, **problem, format="float64"),
    )
    layer = torch.nn.TransformerEncoderLayer(64, 4, 256, batch_first=True, dropout=0.0)
    function, parameters = ro.functional(layer)
    values = {**parameters, "src": normal(4, 32, 64)}

    def loss(out):
        return (out * out * 0.5 + out).sum()

    show(
        "transformer layer, two formats",
        lambda: ro.compare(
            layer, layer, {"src": values["src"]}, loss=loss, formats=("float32", "bfloat16")
        ),
        lambda: ro.native_gradients(function, values, loss=loss, format="float64"),
    )


if __name__ == "__main__":
    main()
