"""What is printed: sentences that don't contradict each other, counts and their nouns, lines of a width."""

from __future__ import annotations

import re
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro
from roundoff.findings.comparison import answer
from roundoff.words import WIDTH, counted, folded


def plain(x):
    return (F.relu(x) * 1.7).exp()


def leaky(x):
    return (F.leaky_relu(x, 0.1) * 1.7).exp()


def other_order(x):
    return (1.7 * F.leaky_relu(x, 0.1)).exp()


def positive(n):
    return {"x": torch.from_numpy(np.random.default_rng(n).random(n)).float() + 0.1}


def reordered(x):
    return F.leaky_relu(x, 0.1).flip(0).square().sum()


def summed(x):
    return F.relu(x).square().sum()


@pytest.mark.parametrize("sides", [(plain, leaky), (summed, reordered)])
def test_no_sentence_calls_the_same_function_what_parts_elsewhere(sides) -> None:
    found = ro.compare(*sides, positive(60), loss=torch.sum, formats=("float32", "float64"))
    assert {str(p.judgement.verdict) for p in found.pairs.values()} <= {"IDENTICAL", "ROUNDOFF"}
    text = " ".join(str(found).split())
    assert "not the same function elsewhere: at x[" in text
    for said in (text, answer(found)):
        assert "not the same function elsewhere" in said
        assert "same function" not in said.replace("not the same function elsewhere", "")
        assert "everywhere" not in said
        assert said is text or said.startswith(("The same bits at these", "Equal at these inputs"))


def test_where_exact_values_are_equal_is_said_of_these_inputs() -> None:
    found = ro.compare(
        summed, lambda x: F.relu(x).flip(0).square().sum(), positive(300), formats="float32"
    )
    reasons = [
        p.judgement.reason for p in found.pairs.values() if p.judgement.verdict == "ROUNDOFF"
    ]
    assert all("at these inputs" in reason and "same function" not in reason for reason in reasons)


class Tripled(torch.autograd.Function):
    """With a gradient that is wrong."""

    @staticmethod
    def forward(ctx, x):
        return 3 * x

    @staticmethod
    def backward(ctx, grad):
        return 2 * grad


def test_what_is_the_same_elsewhere_is_named_where_another_differs() -> None:
    found = ro.compare(
        Tripled.apply, lambda x: 3 * x, positive(4), loss=torch.sum, formats="float32"
    )
    assert found.verdict("x", "float32") == ro.Verdict.DIFFERENT
    assert "note: elsewhere output is the same: " in str(found)
    assert "elsewhere they" not in str(found)


def test_lines_have_a_width() -> None:
    for sides in ((plain, leaky), (plain, other_order), (plain, lambda x: plain(x) * 1.5)):
        text = str(ro.compare(*sides, positive(7), loss=torch.sum))
        assert max(map(len, text.split("\n"))) <= WIDTH == 110
        assert any(len(line) > 90 for line in text.split("\n")), "and it is used"
    line = folded(" ".join(["word"] * 60))
    assert [len(each) <= WIDTH for each in line.split("\n")] == [True] * 3
    assert [each.startswith("  ") for each in line.split("\n")] == [False, True, True]
    assert line.split() == ["word"] * 60
    assert folded("x" * 200) == "x" * 200


def test_sides_have_their_functions_names() -> None:
    def scaled(x, by):
        return x * by

    found = ro.compare(
        partial(scaled, by=2.0), partial(scaled, by=3.0), positive(3), loss=torch.sum
    )
    assert str(found).startswith("scaled 1 against scaled 2\n")
    found = ro.compare(partial(scaled, by=2.0), plain, positive(3), loss=torch.sum)
    assert str(found).startswith("scaled (1) against plain (2)\n")
    found = ro.compare(partial(partial(scaled), by=2.0), lambda x: x, positive(3), loss=torch.sum)
    assert str(found).startswith("scaled (1) against function (2)\n")
    why = ro.explain(partial(scaled, by=2.0), partial(scaled, by=2.0), inputs=positive(3))
    assert why.names == ("scaled 1", "scaled 2")


#: "1 outputs", "1 of 1 elements differ".
SINGULAR = re.compile(r"(?<![\w.^-])(?<!- )1 (random )?[a-z]+s\b(?<!pass)(?<!is)(?<!exceeds)")


def one_of_each():
    """What is printed of one element, one term, one output, one seed."""
    x = {"x": torch.tensor([0.3])}
    double = lambda x: x * x
    yield ro.compare(double, lambda x: x**2, x, seeds=1)
    yield ro.compare(double, lambda x: x**2 * 1.01, x)
    yield ro.explain(double, lambda x: x**2 * 1.01, inputs=x)
    yield ro.explain(double, lambda x: x * x * 1.5, inputs=x, loss=lambda out: (out**2).sum())
    yield ro.bounds.sum([0.5], "float32")
    yield ro.bounds.sum([3e38], "float32")
    yield ro.reveal(lambda v: v.sum(), n=1)
    yield ro.reveal(lambda v: v.sum(), n=2)
    yield ro.reference_gradients(
        lambda x: x.sqrt(), {"x": torch.tensor([0.0])}, loss=lambda v: (0 * v).sum()
    )
    yield ro.tolerance(double, x, loss=torch.sum)
    yield ro.gradient_bounds(double, x, loss=torch.sum)["x"]


def test_one_is_singular_in_whatever_is_printed() -> None:
    texts = list(map(str, one_of_each()))
    for text in texts:
        assert not SINGULAR.search(text), SINGULAR.search(text)
    assert SINGULAR.search("1 outputs") and SINGULAR.search("of 1 elements")
    assert any("1 output" in text for text in texts) and any("1 element" in text for text in texts)


def test_one_is_singular_in_messages() -> None:
    with pytest.raises(AssertionError) as failure:
        ro.testing.assert_within_roundoff(
            torch.tensor([0.4]), lambda x: x, {"x": torch.tensor([0.3])}
        )
    assert "1 of 1 element beyond" in str(failure.value)
    with pytest.raises(ro.ArgumentError, match="a tree of 2 leaves for 1 term; make"):
        ro.bounds.sum([0.5], "float32", order=ro.orders.sequential(2))
    with pytest.raises(ro.ArgumentError, match="a tree of 1 leaf for 2 terms; make"):
        ro.sum_in_order([0.5, 1.0], ro.orders.sequential(1), "float32")


@pytest.mark.parametrize("kind", [int, np.int64])
def test_counts_and_their_nouns(kind) -> None:
    assert [counted(kind(n), "seed") for n in range(3)] == ["0 seeds", "1 seed", "2 seeds"]
    assert counted(kind(2), "leaf", "leaves") == "2 leaves"
