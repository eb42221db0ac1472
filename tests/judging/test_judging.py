"""One judge for every question; whom it blames; what it says in words."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from twins import normal

import roundoff as ro
from roundoff.judging.evidence import FAILURE
from roundoff.numbers.formats import as_format
from roundoff.study.rows import CellRows
from roundoff.study.two_methods import TwoMethods


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


X, W = draw(4, 3), draw(3, 2)

#: Name: two functions, their inputs, and the formats that show what the name says.
FAMILY = {
    "same trace": (lambda x: (x * 3).sum(), lambda x: (x * 3).sum(), {"x": X}, "float32"),
    "same": (lambda x, w: (x @ w).sum(), lambda x, w: (w.T @ x.T).sum(), {"x": X, "w": W}, "float32"),
    "other order": (lambda x: (x * x).sum(), lambda x: (x * x).flip(0).sum(0).sum(), {"x": X}, "float16"),
    "different": (lambda x: (x * x).sum(), lambda x: (x * x).sum() * 1.001, {"x": X}, "float32"),
    "exp": (lambda x: x.exp().sum(), lambda x: (1.001 * x).exp().sum(), {"x": X}, "float32"),
    "softmax": (
        lambda x: (x.softmax(-1) ** 2).sum(),
        lambda x: ((x.exp() / x.exp().sum(-1, keepdim=True)) ** 2).sum(), {"x": X}, "bfloat16",
    ),
    "log": (lambda x: x.exp().log1p().sum(), lambda x: (1 + x.exp()).log().sum(), {"x": X}, "float64"),
    "kink": (
        lambda x: torch.relu(x).sum(), lambda x: x.clamp(min=0).sum(),
        {"x": np.array([0.0, 1.0, -1.0])}, "float32",
    ),
    "kink and bug": (
        lambda x: torch.relu(x).sum(), lambda x: 1.5 * x.clamp(min=0).sum(),
        {"x": np.array([0.0, 1.0, -1.0])}, "float32",
    ),
    "overflow": (
        lambda x: (x.softmax(-1) ** 2).sum(),
        lambda x: ((x.exp() / x.exp().sum(-1, keepdim=True)) ** 2).sum(),
        {"x": np.array([20.0, 19.0])}, "float16",
    ),
    "no few bits": (
        lambda x: ((x * x).sum() ** 3).exp() * 1e-9, lambda x: ((x * x).flip(0).sum() ** 3).exp() * 1e-9,
        {"x": np.array([0.5, 0.7, 1.0])}, "bfloat16",
    ),
    "literal": (lambda x: (x / 3).sum(), lambda x: (x * (1 / 3)).sum(), {"x": X}, "float64"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILY)
def test_a_study_and_a_comparison_judge_alike(name) -> None:
    first, second, inputs, format = FAMILY[name]
    problem = TwoMethods(
        name, "", 1, {"first": first, "second": second}, lambda _: dict(inputs), tuple(inputs),
        None, 1, {"name": name}, {},
    )  # fmt: skip
    measured = CellRows(problem, as_format(format), range(1), (), 0)
    pairs = measured.tables()["pairs"].set_index("gradient")

    def first_(**values):
        return first(**values)

    def second_(**values):
        return second(**values)

    first_.__name__, second_.__name__ = "first", "second"
    found = ro.compare(first_, second_, inputs, formats=format, points=0)
    rows = found.table.set_index("gradient")
    for gradient in inputs:
        row, other = pairs.loc[gradient], rows.loc[gradient]
        for column in ("verdict", "reason", "bitwise_equal", "fraction_equal", "rtol", "atol"):
            if column == "reason" and "kink" in name:  # each draws its own point beside the kink
                continue
            assert row[column] == other[column], column
        bounds = found[gradient, format].bounds
        for side, bound in zip(("first", "second"), bounds, strict=True):
            same = measured.evidence[side][0].bounds[gradient]
            np.testing.assert_array_equal(same.certain, bound.certain)
            np.testing.assert_array_equal(same.likely(FAILURE), bound.likely(FAILURE))
    if name in VERDICTS:
        assert pairs.loc["x", "verdict"] == VERDICTS[name]


VERDICTS = {
    "same trace": "IDENTICAL", "different": "DIFFERENT", "exp": "DIFFERENT", "kink": "UNDECIDED",
    "kink and bug": "DIFFERENT", "overflow": "SUSPICIOUS",
}  # fmt: skip


# ------------------------------------------------------------------------------------------ blame


def products(x):
    """Cumulative products with a bug in the third."""
    found = [x[:, 0]]
    for k in range(1, x.shape[1]):
        found.append(found[-1] * x[:, k] + (0.5 if k == 2 else 0.0))
    return torch.stack(found, 1)


def untraced(x):
    """Right, and its values leave PyTorch on the way."""
    return x.cumprod(1) + 0 * float(x.detach().numpy()[0, 0])


ROWS = {"x": torch.tensor([[1.0, 2.0, 3.0, 1.5], [0.5, -1.0, 2.0, 1.25]])}


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
def test_who_is_wrong_is_not_said_where_a_side_has_no_trace(given, swapped) -> None:
    other = untraced
    if given:
        x = ROWS["x"].clone().requires_grad_()
        out = x.cumprod(1)
        out.sum().backward()
        other = {"x": x.grad, "output": out.detach()}
    sides = (other, products) if swapped else (products, other)
    found = ro.compare(*sides, ROWS, loss=torch.sum, formats="float32")
    for gradient in ("output", "x"):
        assert found.verdict(gradient, "float32") == ro.Verdict.SUSPICIOUS
        reason = found.reason(gradient, "float32")
        assert "which one is wrong is not decided" in reason and " errs " not in reason
        row = found.table.set_index("gradient").loc[gradient]
        assert row["closer"] == "no question" and np.isnan(row["ratio"])
        assert np.isnan(row["error_first" if swapped else "error_second"])
    assert not re.search(r"[12] by", str(found)) and "nan" not in str(found)


def test_a_traced_side_that_errs_beyond_its_own_bound_is_named() -> None:
    """Its own bound proves it, whatever the other side is."""
    x = {"x": torch.tensor([1.0, 2.0])}

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 3

        @staticmethod
        def backward(ctx, grad):
            return grad * 3

    honest = {"x": torch.tensor([3.0, 3.0])}
    found = ro.compare(lambda x: Wrong.apply(x).sum(), honest, x)
    assert found.verdict("x", "float32") == ro.Verdict.IDENTICAL
    one, two = found["x", "float32"].sides
    from dataclasses import replace

    from roundoff.judging.verdict import judge

    off = replace(one, computed=one.computed * 1.5)
    judgement = judge(off, two)
    assert judgement.verdict == ro.Verdict.SUSPICIOUS
    assert judgement.reason.startswith(f"{one.name} errs by 1.5")
    judgement = judge(one, replace(two, computed=two.computed * 1.5))
    assert "tensors" in judgement.reason and "not decided" in judgement.reason


def test_different_functions_have_no_closer_one_and_say_how_far_apart_they_are() -> None:
    x = {"x": torch.tensor([1.0, 2.0, -3.0, 0.5])}
    factor = torch.tensor([1.0, 1.25, 1.0, 1.5])
    found = ro.compare(lambda x: x * 4, lambda x: x * 4 * factor, x, loss=torch.sum, seeds=3,
                       formats="float32")  # fmt: skip
    row = found.table.set_index("gradient")
    assert set(row["closer"]) == {"no question"} and "in_general" not in row
    text = " ".join(str(found).split())
    assert (
        "at element [1] the exact outputs are 8 and 10; 2 of 4 elements differ, by up to 2" in text
    )
    assert (
        "at element [1] the exact gradients are 4 and 5; 2 of 4 elements differ, by up to 2" in text
    )
    assert " by 1" not in text.replace("differ, by", "") and "in general" not in text
    near = ro.compare(
        lambda x: x * 4, lambda x: x + x + x + x, x, loss=torch.sum, formats="float32"
    )
    assert set(near.table["closer"]) == {"neither"}


def test_the_power_of_a_bound_of_zero_is_said_in_words() -> None:
    found = ro.compare(lambda x: x.flip(0), {"output": ROWS["x"].flip(0)}, ROWS, loss=torch.sum)
    assert "would have flagged any factor, any term" in str(found)


def in_turn(x):
    return (40 * x).exp().exp().sum()


def normalised(x):
    return (torch.nn.functional.layer_norm(x, (8,)) ** 3).softmax(-1)


def deep(x):
    for _ in range(12):
        x = torch.nn.functional.layer_norm(x, (8,)).tanh() * 3
    return x


#: A function, inputs and a format in which worst cases are beyond the values, and a factor beyond the power.
VAGUE = {
    "exp of exp": (in_turn, torch.tensor([0.085, 0.08], dtype=torch.float64), "bfloat16", 100.0),
    "softmax": (normalised, normal(6, 8), "bfloat16", 1.5),
    "twelve layers, bfloat16": (deep, normal(6, 8), "bfloat16", 1.5),
    "twelve layers, float16": (deep, normal(6, 8), "float16", 1.1),
    "twelve layers, float32": (deep, normal(64, 8), "float32", 1.001),
}  # fmt: skip


@pytest.mark.parametrize("name", VAGUE)
def test_where_bounds_decide_nothing_the_prediction_does(name) -> None:
    """Of outputs with every other number off by its last bit; by a factor; in one element."""
    function, x, format, factor = VAGUE[name]
    own = getattr(torch, format)
    honest = function(x.to(own)).reshape(-1)

    def judged(output):
        result = output.to(own).reshape(function(x).shape)
        return ro.compare(function, {"output": result}, {"x": x}, points=0)["output", format]

    nudged = honest.clone()
    nudged[::4] = honest[::4].nextafter(2 * honest[::4])
    nudged[1::4] = honest[1::4].nextafter(0 * honest[1::4])
    found = judged(nudged)
    assert found.judgement.verdict == ro.Verdict.ROUNDOFF, found.judgement.reason
    assert found.judgement.evidence == "predicted" and "predicted" in found.judgement.reason
    off = judged(honest.double() * factor)
    assert off.power.factor < factor, off.power
    assert off.judgement.verdict == ro.Verdict.SUSPICIOUS, off.judgement.reason
    assert off.judgement.evidence in ("predicted", "certified")
    assert "not decided" in off.judgement.reason
    one = honest.double()
    one[-1] += 4 * float(off.sides[0].ordinary.one.ravel()[-1])
    found = judged(one)
    assert found.judgement.verdict == ro.Verdict.SUSPICIOUS, found.judgement.reason


@pytest.mark.parametrize("format", ["float16", "bfloat16"])
def test_clipping_at_numbers_that_a_format_does_not_hold_is_ordinary(format) -> None:
    """PyTorch clamps at the rounded bounds, where many 16-bit numbers lie: the ratio of PPO, say."""
    torch.manual_seed(0)
    ratio = 1 + 0.2 * torch.randn(1000)

    def by_extremes(r):
        return torch.minimum(torch.maximum(r, torch.full_like(r, 0.8)), torch.full_like(r, 1.2))

    found = ro.compare(
        lambda r: torch.clamp(r, 0.8, 1.2), by_extremes, {"r": ratio}, None, lambda o: (o**2).sum(),
        formats=(format,),
    )  # fmt: skip
    assert found.verdict("r", format) == ro.Verdict.ROUNDOFF, found.reason("r", format)
    wrong = ro.compare(
        lambda r: torch.clamp(r, 0.8, 1.2), lambda r: torch.clamp(r, 0.79, 1.2), {"r": ratio}, None,
        lambda o: (o**2).sum(), formats=(format,),
    )  # fmt: skip
    assert wrong.verdict("r", format) == ro.Verdict.DIFFERENT
