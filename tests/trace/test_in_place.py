"""What a function writes into its own, its caller's and its module's tensors, followed exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro
from roundoff.trace import trace_gradients


def _numbers(*shape):
    return torch.from_numpy(np.random.default_rng(shape).standard_normal(shape)).float()


X, Z = _numbers(4, 3), _numbers(5, 3)
SERIES = {"x": _numbers(2, 3, 5), "z": _numbers(2, 3, 5)}


def _gap(first, second, inputs, wrt):
    """The largest difference of two functions' exact gradients, relative to S."""
    one, two = (ro.reference_gradients(f, inputs, wrt, engine="mpmath") for f in (first, second))
    apart = {n: np.abs((one[n].high - two[n].high) + (one[n].low - two[n].low)) for n in wrt}
    return max(float((apart[n] / np.fmax(one[n].scale, 1e-300)).max()) for n in wrt)


def updated(x, momentum, mean, variance):
    """One update of running statistics, by hand."""
    axes = [axis for axis in range(x.dim()) if axis != 1]
    count = x.numel() // x.shape[1]
    apart = x - x.mean(axes, keepdim=True)
    unbiased = (apart * apart).sum(axes) / (count - 1)
    share = torch.full((), 1.0) - momentum
    return momentum * x.mean(axes) + share * mean, momentum * unbiased + share * variance


@pytest.mark.parametrize("momentum", [0.1, 0.5, 1.0])
def test_batch_norm_by_statistics_that_it_updated_itself(momentum) -> None:
    def library(x, z):
        mean, variance = torch.zeros(3), torch.ones(3)
        F.batch_norm(x, mean, variance, training=True, momentum=momentum)
        F.batch_norm(2 * x, mean, variance, training=True, momentum=momentum)
        return (F.batch_norm(z, mean, variance) ** 3).sum()

    def by_hand(x, z):
        held = updated(x, momentum, torch.zeros(3), torch.ones(3))
        mean, variance = updated(2 * x, momentum, *held)
        return (((z - mean) / (variance + 1e-5).sqrt()) ** 3).sum()

    def without(x, z):
        return (F.batch_norm(z, torch.zeros(3), torch.ones(3)) ** 3).sum()

    inputs = {"x": X, "z": Z}
    # 1 - momentum is exact here, and a double in the function by hand: 2^-54 of it, at most
    assert _gap(library, by_hand, inputs, ("z",)) < 2.0**-50
    assert _gap(library, without, inputs, ("z",)) > 1e-4
    result = ro.compare(library, by_hand, inputs, ("z",), formats=("float32",))
    assert result.verdict("z", "float32") is ro.Verdict.ROUNDOFF


def test_instance_norm_averages_what_its_instances_updated() -> None:
    def library(x, z):
        mean, variance = torch.zeros(3), torch.ones(3)
        F.instance_norm(x, mean, variance, use_input_stats=True, momentum=0.5)
        return (F.instance_norm(z, mean, variance, use_input_stats=False) ** 3).sum()

    def by_hand(x, z):
        parts = [updated(one[None], 0.5, torch.zeros(3), torch.ones(3)) for one in x]
        mean, variance = (sum(values) / 2 for values in zip(*parts, strict=True))
        scale = (variance + 1e-5).sqrt()
        return (((z - mean[:, None]) / scale[:, None]) ** 3).sum()

    assert _gap(library, by_hand, SERIES, ("z",)) < 2.0**-90


class TrainsThenEvaluates(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3, momentum=0.5)

    def forward(self, x, z):
        self.norm.train()
        self.norm(x)
        self.norm.eval()
        return self.norm(z)


def test_a_module_that_trains_and_then_evaluates() -> None:
    module = TrainsThenEvaluates()
    function, parameters = ro.functional(module)

    def by_hand(x, z, **parameters):
        mean, variance = updated(x, 0.5, torch.zeros(3), torch.ones(3))
        apart = (z - mean) / (variance + 1e-5).sqrt()
        return (apart * parameters["norm.weight"] + parameters["norm.bias"]) ** 3

    inputs = {**parameters, "x": X, "z": Z}
    cubes = lambda **values: (function(**values) ** 3).sum()
    sums = lambda **values: by_hand(**values).sum()
    assert _gap(cubes, sums, inputs, ("z", "norm.weight")) < 2.0**-90
    ro.compare(function, function, inputs, ("z",), loss=torch.sum, formats=("float32",))
    assert not module.norm.running_mean.any() and module.norm.num_batches_tracked == 0


def test_tracing_leaves_what_the_function_brings_along_as_it_was() -> None:
    norm = torch.nn.BatchNorm1d(3, momentum=0.5)
    table, counts = _numbers(3), torch.arange(3)
    before = [value.clone() for value in (*norm.state_dict().values(), table, counts)]

    def function(x, z):
        norm.train()
        norm(x)
        norm.eval()
        table.mul_(2).add_(x.detach().mean(0))
        first = table[0].clone()
        table[1:] = first
        counts.add_(1)
        return ((norm(z) * table * counts) ** 3).sum()

    def by_hand(x, z):
        mean, variance = updated(x, 0.5, torch.zeros(3), torch.ones(3))
        scale = (variance + 1e-5).sqrt()
        own = (2 * before[-2] + x.mean(0))[0].expand(3)
        return (((z - mean) / scale * own * torch.arange(1, 4)) ** 3).sum()

    inputs = {"x": X, "z": Z}
    assert _gap(function, by_hand, inputs, ("z",)) < 2.0**-90
    trace_gradients(function, inputs, ("z",))
    after = [*norm.state_dict().values(), table, counts]
    assert all(map(torch.equal, before, after))


def test_inputs_that_the_function_writes_into() -> None:
    def function(x, mean, variance, count):
        count += 1
        F.batch_norm(2 * x.detach(), mean, variance, training=True, momentum=0.5)
        return (F.batch_norm(x, mean, variance) ** 3).sum() * count

    def by_hand(x, mean, variance, count):
        mean, variance = updated(2 * x.detach(), 0.5, mean, variance)
        return (((x - mean) / (variance + 1e-5).sqrt()) ** 3).sum() * (count + 1)

    inputs = {"x": X, "mean": torch.zeros(3), "variance": torch.ones(3), "count": torch.tensor(2)}
    assert _gap(function, by_hand, inputs, ("x",)) < 2.0**-90
    native = [ro.native_gradients(function, inputs, ("x",))["x"] for _ in range(2)]
    assert np.array_equal(*native)
    assert inputs["count"] == 2 and not inputs["mean"].any()


def test_two_views_of_memory_that_is_written_into_are_refused() -> None:
    table = _numbers(4)
    front = table[:2]

    def function(x):
        front.mul_(2)
        return (x * table).sum()

    with pytest.raises(ro.UnsupportedError, match="the same memory by another one"):
        ro.reference_gradients(function, {"x": _numbers(4)})


def test_a_write_that_cannot_be_followed_is_refused_by_name() -> None:
    def function(x):
        step = torch.zeros(())
        weight, rate, moment = torch.ones(3), torch.ones(3), torch.zeros(3)
        torch._fused_sgd_(
            [weight], [rate], [moment], weight_decay=0.0, momentum=0.5, lr=0.5, dampening=0.0,
            nesterov=False, maximize=False, is_first_step=True,
        )  # fmt: skip
        return (x * weight).sum() + step

    with pytest.raises(ro.UnsupportedError, match="aten::_fused_sgd"):
        ro.reference_gradients(function, {"x": _numbers(3)})


def pieces(x, y):
    x[1].mul_(y[0])
    x[2] = y[2] ** 2
    x[3:] += x[3:].clone()
    return x


def every_other(x, y):
    x.view(-1)[::2].copy_(y.reshape(-1)[:6] ** 2)
    return x


def accumulated(x, y):
    return x.index_add_(0, torch.tensor([1, 1]), y[:2]).index_fill_(1, torch.tensor([2]), 0.3)


#: In place on a copy of x, by a second input y; and the same without writing.
WRITES = {
    "arithmetic": (
        lambda x, y: x.add_(y, alpha=0.3).mul_(y).sub_(x.clone(), alpha=2).div_(y).neg_(),
        lambda x, y: -(((x + 0.3 * y) * y - 2 * ((x + 0.3 * y) * y)) / y),
    ),
    "functions": (
        lambda x, y: x.sin_().mul_(y).pow_(3).clamp_(-0.1, 0.2).exp_(),
        lambda x, y: ((x.sin() * y) ** 3).clamp(-0.1, 0.2).exp(),
    ),
    "pieces": (
        pieces,
        lambda x, y: torch.cat([x[:1], x[1:2] * y[:1], y[2:3] ** 2, x[3:] * 2]),
    ),
    "filled": (
        lambda x, y: x.masked_fill_(y > 0, 0.3).fill_diagonal_(2.0),
        lambda x, y: torch.where(torch.eye(4, 3) > 0, 2.0, torch.where(y > 0, 0.3, x)),
    ),
    "accumulated": (
        accumulated,
        lambda x, y: torch.where(
            torch.tensor([True, True, False]),
            torch.cat([x[:1], x[1:2] + y[:1] + y[1:2], x[2:]]),
            0.3,
        ),
    ),
    "activations": (
        lambda x, y: F.leaky_relu_(x, 0.3) + F.hardtanh_(y.clone(), -0.3, 0.2),
        lambda x, y: F.leaky_relu(x, 0.3) + F.hardtanh(y, -0.3, 0.2),
    ),
    "views": (
        every_other,
        lambda x, y: torch.stack([y.reshape(-1)[:6] ** 2, x.view(-1)[1::2]], 1).view(4, 3),
    ),
}


@pytest.mark.parametrize("kind", WRITES)
def test_writes_into_a_copy_are_the_same_as_none(kind) -> None:
    writing, plain = WRITES[kind]
    inputs = {"x": _numbers(4, 3), "y": _numbers(3, 4).T + 0.1}
    first = lambda x, y: (writing(x.clone(), y) ** 3).sum()
    second = lambda x, y: (plain(x, y) ** 3).sum()
    assert _gap(first, second, inputs, ("x", "y")) < 2.0**-90
