"""Two sides of which neither can be traced, and comparisons of outputs alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import roundoff as ro
from roundoff.errors import ArgumentError, UnsupportedError

torch.manual_seed(0)
INPUTS = {"x": torch.randn(24, 40), "w": torch.randn(40, 12)}


class ByNumpy(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, w):
        ctx.save_for_backward(x, w)
        return torch.from_numpy(x.detach().numpy() @ w.detach().numpy())

    @staticmethod
    def backward(ctx, *upstream):
        x, w = (v.numpy() for v in ctx.saved_tensors)
        g = upstream[0].numpy()
        return torch.from_numpy(g @ w.T), torch.from_numpy(x.T @ g)


def by_numpy(x, w):
    return ByNumpy.apply(x, w)


def in_halves(x, w):
    return by_numpy(x[:, :20], w[:20]) + by_numpy(x[:, 20:], w[20:])


def wrong(x, w):
    return by_numpy(x, w) * (1 + 1e-4)


def like(x, w):
    return x @ w


def squares(out):
    return (out**2).sum()


def _verdicts(result):
    return {gradient: pair.judgement for (gradient, _), pair in result.pairs.items()}


def test_a_third_function_tells_what_rounding_does() -> None:
    result = ro.compare(by_numpy, in_halves, INPUTS, None, squares, formats="float32", like=like)
    for judgement in _verdicts(result).values():
        assert judgement.verdict in (ro.Verdict.ROUNDOFF, ro.Verdict.IDENTICAL)
    assert any("judged by like's reference" in note for note in result.notes)
    assert np.isfinite(result.table["error_first"].astype(float)).all()


def test_a_fault_beside_a_third_function_is_suspicious_and_nobody_is_blamed() -> None:
    result = ro.compare(by_numpy, wrong, INPUTS, None, squares, formats="float32", like=like)
    for judgement in _verdicts(result).values():
        assert judgement.verdict == ro.Verdict.SUSPICIOUS
        assert "wrong and like differ" in judgement.reason
        assert "which one is wrong is not decided" in judgement.reason


def test_without_a_third_they_are_told_apart_and_no_more() -> None:
    result = ro.compare(by_numpy, wrong, INPUTS, None, squares, formats=("float32", "float64"))
    for judgement in _verdicts(result).values():
        assert judgement.verdict == ro.Verdict.UNDECIDED
        assert "elements differ, by" in judgement.reason and "give like=" in judgement.reason
    assert "by_numpy is opaque: " in str(result)
    same = ro.compare(
        by_numpy, lambda x, w: by_numpy(x, w), INPUTS, None, squares, formats="float32"
    )
    assert {j.verdict for j in _verdicts(same).values()} == {ro.Verdict.IDENTICAL}


def test_given_tensors_are_compared_by_a_third() -> None:
    out = like(**INPUTS)
    for factor, verdict in ((1.0, "IDENTICAL"), (1 + 2.0**-23, "ROUNDOFF"), (1.001, "SUSPICIOUS")):
        result = ro.compare(
            {"output": out}, {"output": out * factor}, INPUTS, (), formats="float32", like=like
        )
        assert result.verdict("output", "float32") == verdict
    apart = ro.compare({"output": out}, {"output": out[:3]}, INPUTS, (), formats="float32")
    assert (
        "their shapes are (24, 12) and (3, 12)" in apart.pairs["output", "float32"].judgement.reason
    )
    with pytest.raises(ArgumentError, match="the reference"):
        ro.compare({"output": out}, {"output": out[:3]}, INPUTS, (), formats="float32", like=like)


def test_what_is_like_needs_a_trace_and_is_a_function() -> None:
    with pytest.raises(ArgumentError, match="like is"):
        ro.compare(by_numpy, wrong, INPUTS, None, squares, like=3)
    with pytest.raises(UnsupportedError, match="leave PyTorch"):
        ro.compare(by_numpy, wrong, INPUTS, None, squares, formats="float32", like=by_numpy)
    result = ro.compare(like, by_numpy, INPUTS, None, squares, formats="float32", like=like)
    assert any("not needed" in note for note in result.notes)


def test_outputs_alone_need_no_loss_and_no_floats() -> None:
    result = ro.compare(
        lambda x: x.softmax(-1), lambda x: x.exp() / x.exp().sum(-1, keepdim=True),
        {"x": INPUTS["x"]}, (), formats=("bfloat16", "float32"),
    )  # fmt: skip
    assert set(result.table["gradient"]) == {"output"}
    assert set(map(str, result.table["verdict"])) <= {"ROUNDOFF", "IDENTICAL"}
    numbers = {"i": torch.arange(5)}
    same = ro.compare(lambda i: i.float().mean(), lambda i: i.float().sum() / 5, numbers, ())
    assert set(map(str, same.table["verdict"])) == {"IDENTICAL"}
    assert set(ro.predict(like, INPUTS, ())) == {"output"}
    assert set(ro.attribute(like, INPUTS, ()).table["gradient"]) == {"output"}
    with pytest.raises(ArgumentError, match=r"or wrt=\(\) to ask for the output alone"):
        ro.compare(lambda i: i.float().mean(), lambda i: i.float().mean(), numbers)
    with pytest.raises(ArgumentError, match="no floating-point input"):
        ro.reference_gradients(like, INPUTS, (), squares)


def test_a_wrong_output_alone_is_different() -> None:
    result = ro.compare(like, lambda x, w: 1.001 * (x @ w), INPUTS, (), formats="float32")
    assert result.verdict("output", "float32") == "DIFFERENT"


def test_power_says_where_even_zeros_would_pass() -> None:
    """In float16 what is left of 700.8 - 700 has no digits; in float32 it has."""

    def left(x):
        for _ in range(6):
            x = (x + 700.0) - 700.0
        return x

    def zeros(x):
        return torch.from_numpy(0 * x.detach().numpy())

    inputs = {"x": torch.tensor([0.8])}
    found = ro.compare(left, zeros, inputs, (), formats=("float16", "float32"))
    assert found.verdict("output", "float16") == ro.Verdict.ROUNDOFF
    assert "power (output, float16): would have flagged no factor, not even 0" in " ".join(
        str(found).split()
    )
    assert found.verdict("output", "float32") == ro.Verdict.SUSPICIOUS


def test_a_loss_that_wants_more_is_told() -> None:
    with pytest.raises(ArgumentError, match="the loss could not be called with the output alone"):
        ro.predict(like, INPUTS, loss=lambda out, target: (out - target).sum())


@pytest.mark.parametrize(
    "slope",
    [
        lambda x: torch.from_numpy(3 * x.numpy() * x.numpy()),
        lambda x: torch.tensor([3 * v * v for v in x.tolist()]),
        lambda x: torch.from_numpy(3 * np.asarray(x) ** 2),
    ],
    ids=["numpy", "tolist", "asarray"],
)
def test_numbers_that_leave_torch_in_a_backward_make_a_side_opaque(slope) -> None:
    """They were taken for constants, and an honest pair was DIFFERENT."""

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x * x

        @staticmethod
        def backward(ctx, *upstream):
            return slope(ctx.saved_tensors[0]) * upstream[0]

    x = 1 + torch.rand(20)
    with pytest.raises(UnsupportedError, match="values leave PyTorch"):
        ro.predict(lambda x: Cube.apply(x), {"x": x}, loss=torch.sum)
    found = ro.compare(
        lambda x: x * x * x,
        lambda x: Cube.apply(x),
        {"x": x},
        None,
        torch.sum,
        formats=("float32",),
    )
    assert found.verdict("x", "float32") in (ro.Verdict.ROUNDOFF, ro.Verdict.IDENTICAL)
    assert any("is opaque" in note for note in found.notes)
