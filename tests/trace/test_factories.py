"""Tensors that a function makes by a formula have its exact numbers, in every format."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import roundoff as ro


def whole(x, n):
    return torch.full((), float(n), dtype=x.dtype)


def places(x, n=5):
    return torch.arange(n, dtype=x.dtype)


def turn(x, n):
    return 8 * whole(x, 1).atan() / whole(x, n)


#: A factory, and its formula in whole numbers and doubles that the factory states, too.
FORMULAS = {
    "hann": (
        lambda x: torch.hann_window(5, periodic=False, dtype=x.dtype),
        lambda x: 0.5 - 0.5 * (places(x) * turn(x, 4)).cos(),
    ),
    "hann, periodic": (
        lambda x: torch.hann_window(5, dtype=x.dtype),
        lambda x: 0.5 - 0.5 * (places(x) * turn(x, 5)).cos(),
    ),
    "hamming": (
        lambda x: torch.hamming_window(5, False, 0.6, 0.3, dtype=x.dtype),
        lambda x: 0.6 - 0.3 * (places(x) * turn(x, 4)).cos(),
    ),
    "blackman": (
        lambda x: torch.blackman_window(5, dtype=x.dtype),
        lambda x: (
            0.42 - 0.5 * (places(x) * turn(x, 5)).cos() + 0.08 * (2 * places(x) * turn(x, 5)).cos()
        ),
    ),
    "bartlett": (
        lambda x: torch.bartlett_window(5, dtype=x.dtype),
        lambda x: 1 - (places(x) * 2 / whole(x, 5) - 1).abs(),
    ),
    "linspace": (
        lambda x: torch.linspace(-1, 2, 5, dtype=x.dtype),
        lambda x: -1 + places(x) * 3 / whole(x, 4),
    ),
    "a view of linspace": (
        lambda x: torch.linspace(0, 1, 10, dtype=x.dtype).reshape(2, 5).flip(0)[1],
        lambda x: places(x).flip(0).flip(0) / whole(x, 9),
    ),
    "logspace": (
        lambda x: torch.logspace(0, 1, 5, 3.0, dtype=x.dtype),
        lambda x: (whole(x, 3).log() * places(x) / whole(x, 4)).exp(),
    ),
    "arange": (
        lambda x: torch.arange(0.1, 0.55, 0.1, dtype=x.dtype),
        lambda x: 0.1 + 0.1 * places(x),
    ),
}
INPUTS = {"x": torch.tensor([0.3, -1.2, 0.7, 2.1, -0.4], dtype=torch.float64)}


@pytest.mark.parametrize("format", ["float32", "float64"])
@pytest.mark.parametrize("name", FORMULAS)
def test_a_factory_is_its_formula(name, format) -> None:
    made, written = (lambda x, f=f: ((x * f(x) + x) ** 2 * f(x)).sum() for f in FORMULAS[name])
    one, two = (
        ro.reference_gradients(f, INPUTS, format=format, engine="mpmath")["x"]
        for f in (made, written)
    )
    assert (np.abs((one.high - two.high) + (one.low - two.low)) <= 2.0**-90 * one.scale).all()
    computed = ro.native_gradients(made, INPUTS, format=format)["x"]
    certified = ro.gradient_bounds(made, INPUTS, format=format)["x"].certain
    assert (np.abs((computed - one.high) - one.low) <= certified + one.error).all()


def test_masks_and_indices_are_made_of_a_factory_s_numbers() -> None:
    masked = lambda x: x[torch.arange(5.0) > 2].sum() + x[torch.linspace(0, 4, 3).long()].sum()
    plain = lambda x: x[3:].sum() + x[::2].sum()
    one, two = (ro.reference_gradients(f, INPUTS)["x"] for f in (masked, plain))
    assert one.exact and np.array_equal(one.high, two.high)


@pytest.mark.parametrize(
    "factory",
    [
        lambda: torch.linspace(0, 0.7, 50), lambda: torch.hann_window(50), lambda: torch.hamming_window(50),
        lambda: torch.logspace(0, 1, 50, dtype=torch.float16), lambda: torch.arange(0, 5, 0.1),
        lambda: torch.linspace(0, 0.7, 50, dtype=torch.bfloat16),
    ],
)  # fmt: skip
@pytest.mark.parametrize("format", ["float64", "float32", "bfloat16"])
def test_a_factory_of_another_type_has_the_numbers_that_are_made_in_it(factory, format) -> None:
    x = {"x": torch.randn(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))}

    def function(x):
        return (x * factory().to(x.dtype) ** 2).sum()

    bound = ro.gradient_bounds(function, x, format=format)["x"].certified.numpy()
    exact = ro.reference_gradients(function, x, format=format)["x"]
    computed = ro.native_gradients(function, x, format=format)["x"]
    assert (np.abs((computed - exact.high) - exact.low) <= bound).all()
