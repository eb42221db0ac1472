"""Calls that PyTorch takes: short lists, words, absent tensors, masks, integers among floats; right, or refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro
from roundoff.trace.lowering import LOWERINGS

aten = torch.ops.aten
X = torch.tensor([[0.3, -1.2, 0.7], [-0.4, 0.9, -2.1]])
MASK = torch.tensor([[True, False, True], [False, False, True]])


def _set(rows, value):
    def function(x):
        out = x.clone()
        out[x[:, 0] < 0 if rows else x < 0] = value
        return out

    return function


def _added(x):
    return torch.index_put(x, [x < 0], torch.tensor(0.5), accumulate=True)


def _copied(x):
    out = x.clone()
    out[0] = torch.arange(3)
    return out


#: A function and the same written with torch.where, products and sums.
SAME = {
    "a mask sets a number": (_set(False, 0), lambda x: torch.where(x < 0, 0, x)),
    "a mask sets rows": (
        _set(True, torch.tensor([1.0, 2.0, 3.0])),
        lambda x: torch.where(x[:, :1] < 0, torch.tensor([1.0, 2.0, 3.0]), x),
    ),
    "a mask adds": (_added, lambda x: torch.where(x < 0, x + 0.5, x)),
    "integers in a cat": (
        lambda x: torch.cat([x[0], torch.tensor([1, 2, 3])]),
        lambda x: torch.cat([x[0], torch.tensor([1.0, 2.0, 3.0])]),
    ),
    "a mask in a cat": (
        lambda x: torch.cat([x[0], x[0] > 0]),
        lambda x: torch.cat([x[0], torch.where(x[0] > 0, 1.0, 0.0)]),
    ),
    "integers copied": (
        _copied,
        lambda x: torch.cat([torch.tensor([[0.0, 1.0, 2.0]]), x[1:]]),
    ),
    "numbers as truth": (
        lambda x: torch.where(torch.logical_and(x - x[0], x), x**2, x),
        lambda x: torch.where(x == x[0], x, x**2),
    ),
    "masks as integers": (
        lambda x: x * (x > 0).int() + x * ((x > 0) ^ (x > 0.5)),
        lambda x: torch.where(x > 0, x, 0) + torch.where((x > 0) & (x <= 0.5), x, 0),
    ),
    "infinities of a mask": (
        lambda x: torch.where(x.masked_fill(MASK, torch.inf).isinf(), x**2, x),
        lambda x: torch.where(MASK, x**2, x),
    ),
    "infinities replaced": (
        lambda x: x.masked_fill(MASK, -torch.inf).nan_to_num(neginf=2.0) * x,
        lambda x: torch.where(MASK, 2.0, x) * x,
    ),
    "a scatter that adds": (
        lambda x: (
            aten.scatter(x.detach() * 2, 0, torch.zeros(1, 3, dtype=torch.int64), 0.5, reduce="add")
            * x
        ),
        lambda x: torch.cat([x.detach()[:1] * 2 + 0.5, x.detach()[1:] * 2]) * x,
    ),
    "zeros of its own": (lambda x: x.clone().zero_() + x**2, lambda x: x**2),
    "no statistics": (
        lambda x: torch._native_batch_norm_legit(x.t(), None, None, True, 0.5, 1e-5)[0],
        lambda x: F.batch_norm(x.t(), None, None, training=True),
    ),
}


@pytest.mark.filterwarnings("ignore:The reduce argument")
@pytest.mark.parametrize("name", SAME)
def test_two_ways_to_write_one_function_have_one_reference(name) -> None:
    first, second = (
        ro.reference_gradients(lambda x, f=f: (f(x) ** 3).sum() ** 2, {"x": X}, engine="mpmath")[
            "x"
        ]
        for f in SAME[name]
    )
    gap = np.abs((first.high - second.high) + (first.low - second.low))
    assert (gap <= 2.0**-90 * first.scale).all()


#: What would depend on rounding, or has no fixed shape, or is unknown; and what the refusal names.
REFUSED = {
    "floats copied into integers": (lambda x: x * torch.zeros(2, 3, dtype=torch.int64).copy_(x), "aten::copy"),
    "a sum in integers": (lambda x: x * x.detach().sum(dtype=torch.int64), "aten::sum"),
    "bits": (lambda x: x * x.detach().view(torch.float16).float()[:, ::2], "aten::view"),
    "a scatter that multiplies": (
        lambda x: x * x.detach().scatter(0, torch.zeros(1, 3, dtype=torch.int64), 0.5, reduce="multiply"),
        "reduce='multiply'",
    ),
    "an exception of the function's own": (lambda x: {}[3], "KeyError: 3"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:The reduce argument")
@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_traced_is_refused_by_name(name) -> None:
    function, word = REFUSED[name]
    with pytest.raises(ro.RoundoffError) as caught:
        ro.reference_gradients(lambda x: function(x).sum(), {"x": X})
    assert word in str(caught.value) and "\n" not in str(caught.value)


def test_a_fault_in_a_lowering_names_the_operation_and_keeps_its_cause(monkeypatch) -> None:
    def broken(build, x):
        raise IndexError("no such place")

    monkeypatch.setitem(LOWERINGS, "exp", broken)
    with pytest.raises(ro.UnsupportedError, match="this call of aten::exp") as caught:
        ro.reference_gradients(lambda x: x.exp().sum(), {"x": X})
    assert isinstance(caught.value.__cause__, IndexError)


def test_a_lazy_module_is_refused_until_it_was_called() -> None:
    lazy = torch.nn.Sequential(torch.nn.LazyLinear(2), torch.nn.ReLU())
    with pytest.raises(ro.ArgumentError, match="call the module once before"):
        ro.functional(lazy)
    lazy(torch.ones(1, 3))
    assert sorted(ro.functional(lazy)[1]) == ["0.bias", "0.weight"]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_convolutions_take_one_number_for_all_axes(n) -> None:
    inputs = {
        "x": torch.arange(1.0, 1 + 5**n).reshape(1, 1, *[5] * n) % 7,
        "w": torch.arange(1.0, 1 + 2**n).reshape(1, 1, *[2] * n),
    }

    def reference(name, options):
        call = getattr(F, name)
        return ro.reference_gradients(lambda x, w: (call(x, w, **options) ** 2).sum(), inputs)

    for name, more in ((f"conv{n}d", {}), (f"conv_transpose{n}d", {"output_padding": 1})):
        given = {"stride": 2, "padding": 1, "dilation": 2, **more}
        short, whole = (
            reference(name, {key: [value] * count for key, value in given.items()})
            for count in (1, n)
        )
        assert all(np.array_equal(short[key].high, whole[key].high) for key in inputs)
    valid, plain = (reference(f"conv{n}d", {"padding": padding}) for padding in ("valid", 0))
    assert all(np.array_equal(valid[key].high, plain[key].high) for key in inputs)


def test_gradients_that_torch_stores_as_no_numbers_are_zeros() -> None:
    x = torch.tensor([1.5, -2.0, 0.0])
    problem = dict(inputs={"x": x}, loss=lambda out: out.sum())
    result = ro.compare(torch.sgn, torch.sgn, **problem)  # its gradient is a ZeroTensor
    assert result.verdict("x", "float32") == ro.Verdict.IDENTICAL
    zero = torch.autograd.grad(torch.sgn(x.requires_grad_()).sum(), x)[0]
    ro.testing.assert_within_roundoff({"x": zero}, torch.sgn, **problem)
