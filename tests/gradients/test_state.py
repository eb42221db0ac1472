"""State, hooks, parametrizations, checkpoints, what was compiled, and what a function brings along or writes into."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

import roundoff as ro

G = torch.Generator().manual_seed(8)
X, W = torch.randn(3, 5, generator=G), torch.randn(5, 5, generator=G)


class Hooked(nn.Module):
    """Hooks before, behind and back."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 4)
        self.inner.register_forward_pre_hook(lambda module, given: (given[0] + 1,))
        self.inner.register_forward_hook(lambda module, given, out: out * 2)
        self.inner.register_full_backward_hook(lambda module, to, of: (to[0] * 0.5,))

    def forward(self, input):
        return self.inner(input)


class Counting(nn.Module):
    """Buffers that a call writes into."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(5, 4)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("average", torch.zeros(4))

    def forward(self, input):
        self.calls += 1
        out = self.inner(input)
        self.average.mul_(0.9).add_(out.detach().mean(0) * 0.1)
        return (out - self.average) / self.calls


def _quietly(make, *args):
    """What PyTorch calls deprecated works, and is used."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(*args)


MODULES = {
    "hooks": Hooked(),
    "buffers": Counting(),
    "weight norm": parametrizations.weight_norm(nn.Linear(5, 4)),
    "spectral norm": parametrizations.spectral_norm(nn.Linear(5, 4)),
    "scripted": _quietly(torch.jit.script, nn.Sequential(nn.Linear(5, 5), nn.GELU())),
    "batch norm": nn.BatchNorm1d(5, momentum=None),
}


def _block(x, w):
    return F.gelu(x @ w) ** 2


def _in_place(w, x):
    w.mul_(2)
    x.add_(1)
    return x @ w


FUNCTIONS = {
    "checkpoint": lambda w, x: checkpoint(_block, x, w, use_reentrant=False),
    "reentrant checkpoint": lambda w, x: checkpoint(_block, x, w, use_reentrant=True),
    "in place": _in_place,
    "brought along": lambda w, x: X @ w + x,
    "traced by jit": _quietly(torch.jit.trace, _block, (W, W)),
}


def _squares(out):
    return (out * out).sum()


def _within(function, inputs, format):
    native = ro.native_gradients(function, inputs, loss=_squares, format=format)
    found = ro.reference_gradients(function, inputs, loss=_squares, format=format)
    bounds = ro.gradient_bounds(function, inputs, loss=_squares, format=format)
    for name, each in native.items():
        error = np.abs((each - found[name].high) - found[name].low)
        assert (error <= bounds[name].certified.numpy() + found[name].error).all(), name
        if format == "float64":
            assert np.allclose(each, found[name].high, rtol=1e-10, atol=1e-10), name


@pytest.mark.parametrize("format", ["float64", "bfloat16"])
@pytest.mark.parametrize("name", MODULES)
def test_modules(name, format) -> None:
    before = copy.deepcopy(MODULES[name].state_dict())
    function, parameters = ro.functional(MODULES[name])
    _within(function, {**parameters, "input": X}, format)
    assert all(torch.equal(v, before[n]) for n, v in MODULES[name].state_dict().items())


@pytest.mark.parametrize("format", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name, format) -> None:
    x = W if name == "traced by jit" else X
    inputs = {"x": x, "w": W}
    _within(FUNCTIONS[name], inputs, format)
    assert torch.equal(inputs["w"], W) and torch.equal(inputs["x"], x)


@pytest.mark.filterwarnings("ignore")
def test_a_compiled_module_differs_by_rounding_and_a_changed_one_does_not() -> None:
    net = nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.LayerNorm(8), nn.Linear(8, 2))
    other = copy.deepcopy(net)
    other[1] = nn.GELU(approximate="tanh")
    for one, expected in ((net, {"IDENTICAL", "ROUNDOFF"}), (other, {"DIFFERENT"})):
        compiled = torch.compile(one)
        result = ro.compare(net, compiled, {"input": X}, loss=_squares, formats=("float32",))
        assert set(result.table["verdict"].astype(str)) <= expected
        assert not (result.opaque if hasattr(result, "opaque") else ())
