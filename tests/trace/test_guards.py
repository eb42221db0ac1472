"""Decisions that depend on data: taken as at the given inputs, checked by every arithmetic on its own values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from zoo_decisions import DECIDING

import roundoff as ro
from roundoff.errors import BrokenGuardError
from roundoff.gradients.problem import Problem
from roundoff.gradients.reference import reference_of_trace
from roundoff.trace.prune import prune

X = torch.from_numpy(np.random.default_rng(5).standard_normal((4, 5)))


@pytest.mark.parametrize("name", DECIDING)
def test_references_are_torchs_own_gradients(name) -> None:
    function = DECIDING[name]
    x = X.clone().requires_grad_()
    (native,) = torch.autograd.grad(function(x).sum(), x)
    found = ro.reference_gradients(function, {"x": X}, loss=torch.sum, format="float64")["x"]
    assert np.allclose(found.high, native.numpy(), rtol=1e-12, atol=1e-12)
    assert Problem(function, {"x": X}, loss=torch.sum).trace("float64").guards
    bound = ro.gradient_bounds(function, {"x": X}, loss=torch.sum, format="float64")["x"].certified
    error = np.abs((native.numpy() - found.high) - found.low)
    assert (error <= bound.numpy() + found.error).all()


@pytest.mark.parametrize("engine", ["mpmath", "ball", "multiword"])
@pytest.mark.parametrize("name", DECIDING)
def test_every_engine_refuses_inputs_that_decide_otherwise(name, engine) -> None:
    trace = Problem(DECIDING[name], {"x": X}, loss=torch.sum).trace("float64")
    other = (-X[[2, 0, 3, 1]][:, [3, 1, 4, 0, 2]] * 1.5).numpy()
    if name == "if alike":
        other = np.zeros((4, 5))
    if name == "if any":
        other = np.full((4, 5), -1.0)
    if name in ("if nan", "mode"):
        return  # no number decides otherwise; no number is there twice
    if name == "if all":
        other = np.full((4, 5), 2.0)
    with pytest.raises(BrokenGuardError, match="decide otherwise"):
        reference_of_trace(trace, {"x": other}, format="float64", engine=engine)


def test_pruning_keeps_the_decisions() -> None:
    trace = Problem(DECIDING["topk"], {"x": X}, loss=torch.sum).trace("float64")
    again = prune(trace.select(["x"]))
    assert len(again.guards) == len(trace.guards)
    assert all(guard.taken.shape == again.steps[guard.step].shape for guard in again.guards)


def test_what_equal_numbers_decide_holds() -> None:
    x = torch.tensor([1.0, 2.0, 2.0, 0.5])
    for function in (
        lambda x: x.sort().values[2:] ** 2,
        lambda x: x.topk(1).values ** 2,
        lambda x: x.round()[:2] * x[:2],
    ):
        found = ro.reference_gradients(function, {"x": x}, loss=torch.sum)["x"]
        y = x.double().requires_grad_()
        (native,) = torch.autograd.grad(function(y).sum(), y)
        assert found.hi.tolist() == native.tolist()


def test_bounds_say_nothing_where_rounding_may_turn_a_decision() -> None:
    x = torch.tensor([0.1, 0.2, 0.3])

    def close(x):
        y = x * x.sum()
        return (
            torch.stack([y[0] * 3, y[2] * (1 + 2.0**-22)]).sort().values * torch.tensor([1.0, 2.0])
        ).sum()

    def apart(x):
        y = x * x.sum()
        return (torch.stack([y[0] * 2, y[2]]).sort().values * torch.tensor([1.0, 2.0])).sum()

    sure, unsure = (ro.gradient_bounds(f, {"x": x})["x"].certified for f in (apart, close))
    assert torch.isfinite(sure).all() and torch.isinf(unsure).all()


def test_the_refusal_names_the_operation_and_the_line() -> None:
    x = torch.full((1,), 1.0 + 2.0**-8)

    def function(x):  # 1 + 2^-7 + 2^-16 is rounded to even, 1 + 2^-7, in float16
        return ((x * x) > 1 + 2.0**-7).all().long().item() * x

    with pytest.raises(BrokenGuardError, match=r"test_guards\.py:\d+.*exact values.*off the tie"):
        ro.reference_gradients(function, {"x": x}, loss=torch.sum, format="float16")
