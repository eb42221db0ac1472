"""Sources: the module, the line and the phase that every step is asked for by."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

import torch
import torch.utils.checkpoint
from torch import nn

import roundoff as ro
from roundoff.gradients.problem import Problem
from roundoff.trace.steps import Rounded


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def forward(self, x):
        return self.inner(x).exp()


def _line(text: str) -> str:
    """The line of this file that has a text."""
    lines = inspect.getsource(inspect.getmodule(_line)).split("\n")
    (number,) = [n for n, line in enumerate(lines, 1) if text in line and "_line(" not in line]
    return f"test_sources.py:{number}"


def _found(function, inputs, loss=None, **more):
    steps = Problem(function, inputs, None, loss, forward=True, **more).trace("float32").steps
    rounded = [step for step in steps if isinstance(step, Rounded) and step.kernel]
    return {(s.kernel, s.source.module, s.source.line, s.source.phase) for s in rounded}


def test_modules_by_their_path_in_the_outermost_one_and_lines_of_the_users_code() -> None:
    function, parameters = ro.functional(Block())
    inputs = {**parameters, "x": torch.randn(3, 4)}
    found = _found(function, inputs, lambda out: out.pow(3).sum())  # the loss
    here, loss = _line("self.inner(x).exp()"), _line("# the loss")
    assert ("addmm", "inner.0", here, "forward") in found
    assert ("tanh", "inner.1", here, "forward") in found
    assert ("exp", "Block", here, "forward") in found
    assert ("tanh_backward", "inner.1", here, "backward") in found
    assert ("mm", "inner.0", here, "backward") in found
    assert ("pow", "", loss, "backward") in found
    assert all(line for kernel, _, line, _ in found if kernel != "ones_like")  # the upstream one


class Cubed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        (x,) = ctx.saved_tensors
        return g * x * x * 3  # own


def test_a_backward_that_the_user_wrote_has_its_own_line() -> None:
    found = _found(lambda x: Cubed.apply(x).sin(), {"x": torch.randn(3)}, torch.sum)
    assert ("mul", "", _line("# own"), "backward") in found


def test_what_a_checkpoint_computes_again_is_backward() -> None:
    def function(x):
        return torch.utils.checkpoint.checkpoint(
            lambda v: v.exp().sin(),  # again
            x, use_reentrant=False,
        )  # fmt: skip

    found = _found(function, {"x": torch.randn(3)}, torch.sum)
    again = _line("# again")
    assert ("exp", "", again, "forward") in found
    assert ("cos", "", again, "backward") in found


def test_layers_of_torch_alone_have_lines_of_torch() -> None:
    function, parameters = ro.functional(nn.Linear(3, 2))
    found = _found(function, {**parameters, "input": torch.randn(4, 3)}, torch.sum)
    (line,) = [line for kernel, _, line, phase in found if (kernel, phase) == ("addmm", "forward")]
    assert line.startswith("linear.py:")


def test_sources_are_no_part_of_what_makes_traces_equal() -> None:
    inputs = {"x": torch.randn(3)}
    first = Problem(lambda x: x.exp(), inputs, None, torch.sum).trace("float32")
    second = Problem(
        lambda x: x.exp(),
        inputs, None, torch.sum,
    ).trace("float32")  # fmt: skip
    assert first.equals(second)


def test_folders_beside_that_of_torch_are_the_users() -> None:
    """As torchvision's is."""
    beside = f"{Path(torch.__file__).parent}vision"
    code = compile("def doubled(x):\n    return x * 2.0\n", f"{beside}{os.sep}layers.py", "exec")
    names: dict = {}
    exec(code, names)
    found = _found(names["doubled"], {"x": torch.randn(3)}, torch.sum)
    assert "layers.py:2" in {line for kernel, _, line, _ in found if kernel == "mul"}
