"""Adjoints against torch's own reverse mode, applied to the gradients that the trace computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import zoo

from roundoff.arithmetic import walk
from roundoff.arithmetic.adjoints import adjoints, keeping_all, leading_to
from roundoff.arithmetic.random_roundings import RandomRoundings
from roundoff.gradients.problem import Problem
from roundoff.trace.steps import Input

#: torch has no second derivatives of these, or takes another one at a kink.
WITHOUT = ("embedding", "rnn", "gru", "lstm", "ctc", "adapmax", "maxpool", "fold", "bilinear")

#: torch's second derivatives of these are not the difference quotients of its first ones, as ours are (its trigamma
#: is right to 1e-9 alone); a gradient that is detached has none in torch, and float32 in the middle has noise.
OTHERS = (
    "weight_norm", "ldexp", "complex from polar", "eigh", "straight through", "complex casts", "lgamma",
    "mvlgamma", "digamma", "polygamma0",
)  # fmt: skip

#: Both are float64, with sums of a few thousand terms at most: far above what those err by.
AMPLE = 2.0**-33


def _adjoints(function, inputs, loss, weights):
    problem = Problem(function, inputs, None, loss, forward=True)
    trace, given = problem.trace("float64"), problem.rounded("float64")
    values = [
        each.value for each in walk(keeping_all(trace), RandomRoundings("float64"), given).values()
    ]
    wanted = leading_to(trace, lambda step: isinstance(step, Input))
    found = {}
    for number, g in adjoints(trace, values, weights, wanted):
        step = trace.steps[number]
        if isinstance(step, Input):
            whole = np.zeros({**trace.closures, **given}[step.name].shape)
            whole.ravel()[slice(None) if step.kept is None else step.kept] = g.ravel()
            found[step.name] = whole
    return found


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize(
    "name", [n for n in sorted(zoo.Z) if not n.startswith((*WITHOUT, *OTHERS))]
)
def test_adjoints_by_inputs_are_those_of_double_backward(name) -> None:
    function, inputs = zoo.Z[name]
    generator = np.random.default_rng(0)
    leaves = {
        n: v.double().requires_grad_() if v.is_floating_point() else v for n, v in inputs.items()
    }
    wrt = [n for n, v in leaves.items() if v.is_floating_point()]
    out = function(**leaves)
    try:
        firsts = torch.autograd.grad(
            zoo.loss(out), [leaves[n] for n in wrt], create_graph=True, materialize_grads=True
        )
    except RuntimeError as error:
        pytest.skip(str(error))
    results = dict(zip(wrt, firsts, strict=True)) | {"output": out}
    weights = {n: generator.normal(size=tuple(v.shape)) for n, v in results.items()}
    total = sum((v * torch.from_numpy(weights[n])).sum() for n, v in results.items())
    try:
        seconds = torch.autograd.grad(
            total, [leaves[n] for n in wrt], allow_unused=True, materialize_grads=True
        )
    except RuntimeError as error:
        pytest.skip(str(error))
    found = _adjoints(function, inputs, zoo.loss, weights)
    for n, second in zip(wrt, seconds, strict=True):
        exact = second.numpy()
        ours = found.get(n, np.zeros(exact.shape))
        scale = max(1.0, float(np.abs(exact).max(initial=0.0)))
        assert np.abs(ours - exact).max(initial=0.0) <= AMPLE * scale, n
