"""Integers and booleans that depend on no float may be read, and decide; floats may not be read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import roundoff as ro

X = torch.tensor([[0.5, -1.25, 2.0], [1.5, 0.75, -0.5], [1.0, 3.0, 0.25], [-2.0, 0.5, 1.75]])
COUNT, FLAG = torch.tensor([2, 1]), torch.tensor(True)
MASK = torch.tensor([True, False, True, True])


COUNTING, MOVING = torch.nn.BatchNorm1d(3, momentum=None), torch.nn.BatchNorm1d(3)


#: A function that reads a settled tensor, and the same one with the numbers written out.
READ = {
    "item": (lambda x, n: x[: n[0].item()] ** 3, lambda x, n: x[:2] ** 3),
    "int": (lambda x, n: x ** int(n[0] + 1), lambda x, n: x**3),
    "float": (lambda x, n: x * x * float(n[0]), lambda x, n: x * x * 2.0),
    "index": (lambda x, n: x.reshape(n[0], -1).prod(1), lambda x, n: x.reshape(2, -1).prod(1)),
    "range": (lambda x, n: sum(x[i] ** 2 for i in range(n[0])), lambda x, n: x[0] ** 2 + x[1] ** 2),
    "tolist": (
        lambda x, n: x.split([*n.tolist(), 1])[0] ** 3,
        lambda x, n: x.split([2, 1, 1])[0] ** 3,
    ),
    "numpy": (lambda x, n: x[: n.numpy().max()] ** 3, lambda x, n: x[:2] ** 3),
    "captured": (lambda x, n: x[: COUNT[0].item()] ** 3, lambda x, n: x[:2] ** 3),
    "if": (lambda x, n: x**2 if FLAG else x**3, lambda x, n: x**2),
    "if compared": (lambda x, n: x**2 if n.sum() > 2 else x**3, lambda x, n: x**2),
    "equal": (lambda x, n: x**2 if torch.equal(n, COUNT) else x**3, lambda x, n: x**2),
    "zeros like a float": (
        lambda x, n: x ** (2 + torch.zeros_like(x, dtype=torch.long).sum().item()),
        lambda x, n: x**2,
    ),
    "mask": (lambda x, n: x[MASK] ** 3, lambda x, n: x[[0, 2, 3]] ** 3),
    "nonzero": (lambda x, n: x[MASK.nonzero()[:, 0]] ** 3, lambda x, n: x[[0, 2, 3]] ** 3),
    "repeated": (
        lambda x, n: x[:2].repeat_interleave(n, 0) ** 3,
        lambda x, n: x[[0, 0, 1]] ** 3,
    ),
    "written": (
        lambda x, n: x ** n.clone().add_(1)[0].item(),
        lambda x, n: x**3,
    ),
    "batch norm's count": (
        lambda x, n: COUNTING(x) ** 3,
        lambda x, n: MOVING(x) ** 3,
    ),
}


@pytest.mark.parametrize("format", ["float16", "float32"])
@pytest.mark.parametrize("name", READ)
def test_what_depends_on_no_float_is_read(name, format) -> None:
    inputs = {"x": X, "n": COUNT}
    read, plain = (
        ro.reference_gradients(f, inputs, loss=torch.sum, format=format)["x"] for f in READ[name]
    )
    assert np.array_equal(read.high, plain.high) and np.array_equal(read.low, plain.low)
    assert read.high.any()


#: What depends on floats, or on what was made of them.
OPEN = {
    "item of a float": lambda x, n: x * x.sum().item(),
    "item of a cast": lambda x, n: x ** int(x.sum()),
    "written into": lambda x, n: x * n.clone().copy_(x[0, :2])[0].item(),
    "view of what is written into": lambda x, n: x * _through_a_view(x, n).item(),
    "tolist": lambda x, n: x * x.tolist()[0][0],
    "bits": lambda x, n: x * x.detach().view(torch.int32)[0, 0].item(),
}


def _through_a_view(x, n):
    held = n.clone()
    held[1:].copy_(x[0, :1])
    return held[1]


@pytest.mark.parametrize("name", OPEN)
def test_what_depends_on_floats_is_refused(name) -> None:
    with pytest.raises(
        ro.RoundoffError, match=r"keep it a tensor|PyTorch's operations|cannot trace"
    ):
        ro.reference_gradients(OPEN[name], {"x": X, "n": COUNT}, loss=torch.sum)


def test_other_integers_are_read_anew() -> None:
    def read(x, n):
        return x ** int(n[0] + 1)

    def always_third(x, n):
        return x**3

    result = ro.compare(
        read, always_third, {"x": X, "n": COUNT}, loss=torch.sum, formats=("float32",)
    )
    assert result.verdict("x", "float32") is not ro.Verdict.DIFFERENT
    assert "n[0]" in str(result.elsewhere["x"])


def test_whole_numbers_of_constants_are_fixed_and_drawn_ones_are_refused() -> None:
    """Where interpolation takes its elements; a mask that is drawn is another at every call."""
    x = torch.arange(6.0)

    def picked(x):
        return x[((torch.arange(3, dtype=torch.float32) + 0.5) * 1.7).floor().long()]

    found = ro.reference_gradients(picked, {"x": x}, None, lambda out: (out * out).sum())
    assert found["x"].hi.tolist() == [0.0, 0.0, 4.0, 0.0, 8.0, 0.0]
    for drawn in (
        lambda: torch.randint(0, 6, (3,)),
        lambda: torch.randperm(6)[:3],
        lambda: torch.rand(6) > 0.5,
    ):
        with pytest.raises(ro.UnsupportedError, match="random"):
            ro.predict(
                lambda x, drawn=drawn: torch.where(drawn().sum() > 2, x, 2 * x),
                {"x": x},
                None,
                torch.sum,
            )
