"""Random numbers that a function draws: the same at every call, they are constants; others are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(2))


def _with_own_generator(x):
    generator = torch.Generator().manual_seed(1)
    return x * torch.rand(6, 5, generator=generator)


#: Functions that draw.
DRAWING = {
    "dropout": lambda x: F.dropout(x, 0.4) * x,
    "all dropped": lambda x: F.dropout(x, 1.0) + x,
    "channels": lambda x: F.dropout1d(x[None], 0.4)[0] * x,
    "noise": lambda x: (x + 0.1 * torch.randn_like(x)) ** 2,
    "gumbel": lambda x: F.gumbel_softmax(x, tau=0.5),
    "normal": lambda x: torch.distributions.Normal(x, x.exp()).rsample(),
    "mask": lambda x: torch.where(torch.rand(6, 5) > 0.5, x, x * x),
    "bernoulli": lambda x: x * torch.empty_like(x).bernoulli_(0.3) * x,
    "permuted": lambda x: x[torch.randperm(6)[:3]] ** 2,
    "chosen": lambda x: x[torch.randint(6, (2,))] ** 2,
    "attention": lambda x: F.scaled_dot_product_attention(x[None], x[None], x[None], dropout_p=0.3),
}


def _squares(out):
    return (out * out).sum()


@pytest.mark.parametrize("format", ["float64", "bfloat16"])
@pytest.mark.parametrize("name", DRAWING)
def test_seeded_functions_have_references_and_bounds(name, format) -> None:
    function = ro.seeded(DRAWING[name], 4)
    native = ro.native_gradients(function, {"x": X}, loss=_squares, format=format)["x"]
    found = ro.reference_gradients(function, {"x": X}, loss=_squares, format=format)["x"]
    bound = ro.gradient_bounds(function, {"x": X}, loss=_squares, format=format)["x"].certified
    error = np.abs((native - found.high) - found.low)
    assert (error <= bound.numpy() + found.error).all()
    if format == "float64":
        assert np.allclose(native, found.high, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", sorted({*DRAWING} - {"all dropped"}))
def test_others_at_every_call_are_refused(name) -> None:
    with pytest.raises(ro.UnsupportedError, match=r"draws random numbers.*roundoff\.seeded"):
        ro.reference_gradients(DRAWING[name], {"x": X}, loss=_squares)


def test_a_function_may_seed_itself() -> None:
    def seeding(x):
        torch.manual_seed(4)
        return F.dropout(x, 0.4)

    one, two = (
        ro.reference_gradients(f, {"x": X}, loss=_squares)["x"].hi
        for f in (seeding, ro.seeded(lambda x: F.dropout(x, 0.4), 4))
    )
    assert torch.equal(one, two)
    ro.reference_gradients(_with_own_generator, {"x": X}, loss=_squares)


def test_torchs_generator_is_as_it_was() -> None:
    before = torch.random.get_rng_state()
    ro.reference_gradients(ro.seeded(DRAWING["dropout"]), {"x": X}, loss=_squares)
    assert torch.equal(before, torch.random.get_rng_state())


def test_draws_by_numbers_that_floats_decide_are_refused_by_name() -> None:
    with pytest.raises(ro.UnsupportedError, match="aten::bernoulli.*draws random numbers"):
        ro.reference_gradients(
            ro.seeded(lambda x: x * torch.bernoulli(x.sigmoid())), {"x": X}, loss=_squares
        )


def test_seeded_modules_are_compared() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Dropout(0.5), torch.nn.Tanh())

    def same(input, **parameters):
        hidden = F.linear(input, parameters["0.weight"], parameters["0.bias"])
        return torch.tanh(F.dropout(hidden, 0.5))

    def other(input, **parameters):
        return F.dropout(torch.tanh(F.linear(input, parameters["0.weight"])), 0.4)

    for function, expected in ((same, {"IDENTICAL", "ROUNDOFF"}), (other, {"DIFFERENT"})):
        result = ro.compare(
            ro.seeded(net), ro.seeded(function), {"input": X}, loss=_squares, formats=("float32",)
        )
        assert set(result.table["verdict"].astype(str)) <= expected
    assert net(X).shape == (6, 4)


def test_bad_seeds_are_told() -> None:
    with pytest.raises(ro.ArgumentError, match="seed is -1"):
        ro.seeded(_squares, -1)
    with pytest.raises(ro.ArgumentError, match="the function is 3"):
        ro.seeded(3)
