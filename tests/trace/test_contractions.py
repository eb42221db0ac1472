"""Products of several axes, in any order of the result's axes: a reference and a bound in every format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from problems import reference_and_bounds

import roundoff as ro
from roundoff.gradients.problem import Problem

#: Results whose axes lie in another order in memory, and sums of expanded gradients.
EQUATIONS = [
    "bij,kj->bki",
    "bij,kj->ikb",
    "ji,jk->ki",
    "bij,bjk->kbi",
    "bhij,bhkj->bhik",
    "i,j->ji",
]
SIZES = dict(b=2, h=2, i=3, j=4, k=5)
LOSSES = {"squares": lambda out: (out * out).sum(), "sum": torch.sum}


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("equation", EQUATIONS)
def test_einsum_within_its_bound(equation, loss, format) -> None:
    generator = np.random.default_rng(len(equation))
    axes = equation.split("->")[0].split(",")
    drawn = [generator.standard_normal([SIZES[axis] for axis in each]) for each in axes]
    inputs = dict(zip("ab", map(torch.from_numpy, drawn), strict=True))

    def product(a, b):
        return torch.einsum(equation, a, b)

    given = (product, inputs, None, LOSSES[loss])
    exact, bounds = reference_and_bounds(Problem(*given), format)
    native = ro.native_gradients(*given, format=format)
    for name in inputs:
        error = np.abs((native[name] - exact[name].high) - exact[name].low)
        certified = np.asarray(bounds[name].certified)
        assert exact[name].known.all() and (error <= certified).all()
        assert (certified < np.asarray(exact[name].scale)).all()
