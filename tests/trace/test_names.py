"""Inputs may have any name; PyTorch's functions may be called by any of the names that they take."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro
from roundoff.errors import RoundoffError
from roundoff.trace.exact_constants import _REPLACED

X = torch.rand(3, 3, generator=torch.Generator().manual_seed(0)) + 0.1

#: Parameters of PyTorch's functions, and names that roundoff's own code uses.
NAMES = """x a x1 input self other name args kwargs function f value out dim func values tensors inputs upstream
loss wrt weight given format device""".split()


@pytest.mark.parametrize("name", NAMES)
def test_an_input_of_any_name(name) -> None:
    def renamed(**given):
        return (torch.erf(given[name]) * given["z"]).var()

    def plain(p, z):
        return (torch.erf(p) * z).var()

    found = ro.reference_gradients(renamed, {name: X, "z": 2 * X})
    known = ro.reference_gradients(plain, {"p": X, "z": 2 * X})
    assert np.array_equal(found[name].high, known["p"].high)
    assert np.array_equal(found["z"].high, known["z"].high)
    native = ro.native_gradients(renamed, {name: X, "z": 2 * X}, forward=True)
    assert set(native) == {name, "z", "output"}


def _total(out):
    return sum(each.sum() for each in out) if isinstance(out, tuple) else out.sum()


def _works(attempt) -> bool:
    try:
        attempt()
    except (RoundoffError, TypeError):
        return False
    return True


_BUILTIN = [f for f in _REPLACED if type(f).__name__ == "builtin_function_or_method"]
UNARY = [f for f in _BUILTIN if f is not torch.tensor and _works(lambda f=f: f(X))]


@pytest.mark.parametrize("function", UNARY, ids=lambda f: f.__name__)
def test_a_function_takes_the_names_that_pytorch_takes(function) -> None:
    assert len(UNARY) >= 13
    taken = []
    for name in NAMES:

        def alone(function=function, **given):
            out = function(**given)
            return _total(out)

        native = _works(lambda name=name: function(**{name: X}))
        traced = _works(lambda name=name: ro.reference_gradients(alone, {name: X}))
        assert traced == native, name
        taken += [name] if native else []
    assert taken[:4] in (["x", "a", "x1", "input"], ["x"])


@pytest.mark.parametrize(
    "named",
    [
        dict(axis=0), dict(axis=1, keepdims=True), dict(dim=0, keepdim=True), dict(dim=0, keepdims=True),
        dict(axis=-1, out=None),
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", ["var", "std", "var_mean", "std_mean", "prod"])
def test_options_by_the_names_that_numpy_has(name, named) -> None:
    if name.endswith("_mean") and "out" in named:
        named = {"axis": -1}
    axis = named.get("axis", named.get("dim"))
    kept = named.get("keepdim", named.get("keepdims", False))

    def by_name(p):
        return _total(getattr(torch, name)(p, **named))

    def plain(p):
        return _total(getattr(torch, name)(p, dim=axis, keepdim=kept))

    found, known = (ro.reference_gradients(f, {"p": X})["p"].high for f in (by_name, plain))
    assert np.array_equal(found, known)


def test_attention_by_name() -> None:
    def attend(query, key, value):
        return F.scaled_dot_product_attention(query=query, key=key, value=value, attn_mask=None)

    inputs = dict(query=X[None], key=2 * X[None], value=X[None] - 1)
    assert ro.reference_gradients(attend, inputs, loss=torch.sum)["query"].known.all()


def test_two_names_are_taken() -> None:
    def squares(**given):
        return sum((value**2).sum() for value in given.values())

    with pytest.raises(
        ro.RoundoffError, match="'upstream gradient', as the one that upstream= gives"
    ):
        ro.reference_gradients(squares, {"upstream gradient": X})
    assert ro.reference_gradients(squares, {"output": X})["output"].known.all()
    with pytest.raises(ro.RoundoffError, match="'output', as the output is"):
        ro.native_gradients(squares, {"output": X}, forward=True)
    with pytest.raises(ro.RoundoffError, match="'output', as the output is"):
        ro.tolerance(squares, {"output": X}, format="float32")
