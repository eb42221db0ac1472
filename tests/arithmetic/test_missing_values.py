"""Values that nobody reads need no reference, and one element without a value leaves all others theirs."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch

import roundoff as ro
from roundoff.arithmetic.ball import Ball
from roundoff.arithmetic.missing_values import walk_partly
from roundoff.arithmetic.multiprecision import Multiprecision
from roundoff.arithmetic.multiword import Multiword
from roundoff.gradients.problem import Problem
from roundoff.gradients.reference import reference_of_trace
from roundoff.numbers.formats import as_format
from roundoff.study.rows import CellRows
from roundoff.study.two_methods import TwoMethods
from roundoff.testing import assert_within_roundoff
from roundoff.trace import prune, trace_gradients

ENGINES = ("mpmath", "ball", "multiword", "auto")
INFINITY = float("inf")

#: Functions that have no value, or no derivative, at some of the numbers beside them.
OUTSIDE = {
    "sqrt": (torch.sqrt, [4.0, 0.0, -1.0, 0.25]),
    "rsqrt": (torch.rsqrt, [4.0, 0.0, -1.0, 0.25]),
    "log": (torch.log, [2.0, 0.0, -1.0, 0.5]),
    "log2": (torch.log2, [2.0, 0.0, 0.0, 0.5]),
    "log1p": (torch.log1p, [1.0, -1.0, -2.0, 0.5]),
    "reciprocal": (torch.reciprocal, [2.0, 0.0, -4.0, 0.5]),
    "0/0": (lambda x: x / x, [2.0, 0.0, -4.0, 0.5]),
    "asin": (torch.asin, [0.5, 1.0, 2.0, -0.25]),
    "acos": (torch.acos, [0.5, -1.0, -2.0, 0.25]),
    "power": (lambda x: x**0.5, [0.25, 0.0, -2.0, 4.0]),
    "inf - inf": (
        lambda x: x.masked_fill(x < 0, INFINITY) - x.masked_fill(x < 0, INFINITY) + x,
        [2.0, -1.0, -3.0, 1.0],
    ),
    "0 inf": (lambda x: x.masked_fill(x < 0, INFINITY) * torch.relu(x), [2.0, -1.0, -2.0, 3.0]),
}  # fmt: skip

_KEEP = torch.tensor([True, False, False, True])

#: What reads values by structure: those alone where they are defined.
READERS = {
    "where": lambda y: torch.where(_KEEP, y, 0.0),
    "masked fill": lambda y: y.masked_fill(~_KEEP, 0.5),
    "slice": lambda y: torch.cat([y[:1], y[3:]]),
    "index": lambda y: y[torch.tensor([0, 3, 3])],
    "select and add": lambda y: torch.where(_KEEP, y, 0.0) + torch.where(_KEEP, 0.0, 2.0),
}

#: What reads them as data tell, or all of them.
CHOICES = {
    "all": lambda y, k: y,
    "where": lambda y, k: torch.where(k > 0, y, 0.0),
    "masked fill": lambda y, k: y.masked_fill(k < 0, 0.5),
    "twice": lambda y, k: torch.where(k > 0, torch.where(k < 2, y, 1.0), 2.0),
}


def of_torch(function, inputs):
    leaves = {name: value.clone().requires_grad_() for name, value in inputs.items()}
    function(**leaves).backward()
    return {name: leaf.grad.numpy() for name, leaf in leaves.items()}


@cache
def chosen(name, choice):
    """The problem, traced once for all engines, and torch's own gradients."""
    function, numbers = OUTSIDE[name]
    inputs = {
        "x": torch.tensor(numbers, dtype=torch.float64),
        "w": torch.arange(1.0, 5.0).double(),
        "k": torch.tensor([1.0, -1.0, -1.0, 1.0]).double(),
    }
    weighted = lambda x, w, k: (CHOICES[choice](function(x), k) * w).sum() + 0 * k.sum()
    return Problem(weighted, inputs, ("x", "w")), of_torch(weighted, inputs)


@cache
def read(name, reader):
    """The same of what one reader reads."""
    function, numbers = OUTSIDE[name]
    x = torch.tensor(numbers, dtype=torch.float64)
    size = READERS[reader](x).numel()
    inputs = {"x": x, "w": torch.arange(1.0, size + 1).double()}
    weighted = lambda x, w: (READERS[reader](function(x)) * w).sum()
    return Problem(weighted, inputs), of_torch(weighted, inputs)


def referenced(problem, engine):
    """What `reference_gradients` gives in float64."""
    given = problem.trace("float64"), problem.rounded("float64")
    return reference_of_trace(*given, format="float64", engine=engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("name", OUTSIDE)
def test_an_element_is_unknown_where_pytorch_has_no_finite_number(name, choice, engine) -> None:
    """The gradient by the weights is what was chosen."""
    problem, native = chosen(name, choice)
    found = referenced(problem, engine)
    for each in ("x", "w"):
        known, reference = found[each].known, found[each]
        assert (known == np.isfinite(native[each])).all(), reference.unknown
        np.testing.assert_allclose(reference.high[known], native[each][known], rtol=1e-13)
        assert np.isnan(reference.high[~known]).all()
        assert (reference.error[~known] == INFINITY).all() and reference.error[known].max() < 1e-20
    assert found["w"].known[[0, 3]].all() and (choice == "all" or found["w"].known.all())


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", OUTSIDE)
def test_what_nothing_depends_on_has_the_gradient_zero(name, reader, engine) -> None:
    """PyTorch may return NaN there, as it multiplies 0 by an infinity or divides it by 0."""
    problem, native = read(name, reader)
    found = referenced(problem, engine)
    assert found["w"].known.all() and found["x"].known.all()
    np.testing.assert_allclose(found["w"].high, native["w"], rtol=1e-13)
    np.testing.assert_allclose(found["x"].high[[0, 3]], native["x"][[0, 3]], rtol=1e-13)
    assert (found["x"].high[1:3] == 0).all() and (found["x"].error[1:3] == 0).all()


@pytest.mark.parametrize(
    "maker", [lambda: Multiprecision(200), lambda: Ball(200), lambda: Multiword(3)]
)
def test_each_sum_reads_its_own_terms_alone(maker) -> None:
    function = lambda x, y: ((1 / x).sum(1), (1 / x) @ y)
    inputs = {
        "x": np.array([[1.0, 2.0], [0.0, 4.0]]),
        "y": np.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]),
    }
    for output, expected in ((0, [1]), (1, [3, 4, 5])):
        trace = prune(
            trace_gradients(function, inputs, loss=torch.sum, output=output, forward=True)
        )
        _, lost = walk_partly(trace, maker(), inputs)
        assert sorted(lost["output"]) == expected
        assert {error.brief for error in lost["output"].values()} == {"div(1, 0)"}


def test_a_decided_operand_decides_a_logical_function_alone() -> None:
    x = {"x": np.array([-1.0, 4.0, 0.25])}
    inside = lambda x: torch.where((x > 0) & (x.sqrt() > 1), x * 2, x * 3)
    outside = lambda x: torch.where((x <= 0) | (x.sqrt() > 1), x * 2, x * 3)
    for engine in ENGINES:
        for function, slopes in ((inside, [3, 2, 3]), (outside, [2, 2, 3])):
            found = ro.reference_gradients(function, x, loss=torch.sum, engine=engine)["x"]
            assert found.known.all() and found.high.tolist() == slopes
    undecided = lambda x: torch.where(x.sqrt() > 1, x * 2, x * 3)
    found = ro.reference_gradients(undecided, x, loss=torch.sum)["x"]
    assert sorted(found.unknown) == [0] and found.why((0,)) == "sqrt(-1)"


def test_a_comparison_that_cannot_be_decided_matters_where_it_is_read() -> None:
    kinked = lambda x: torch.relu(torch.log(x) - torch.log(x.exp().log()) + (x - 3).detach())
    x = {"x": torch.tensor([3.0, 5.0])}
    for engine in ("ball", "multiword"):
        found = ro.reference_gradients(kinked, x, loss=torch.sum, engine=engine)["x"]
        assert sorted(found.unknown) == [0] and "cannot be decided" in found.why((0,))
        read = lambda x: kinked(x)[1:]
        found = ro.reference_gradients(read, x, loss=torch.sum, engine=engine)["x"]
        assert found.known.all()


def test_infinities_that_enter_sums_are_not_taken_for_zero() -> None:
    filled = lambda x, w: x.masked_fill(x < 0, -INFINITY).sum(1) * w
    inputs = {"x": torch.tensor([[1.0, -1.0], [2.0, 3.0]]), "w": torch.ones(2)}
    for engine in ENGINES:
        found = ro.reference_gradients(filled, inputs, ["w"], torch.sum, engine=engine)["w"]
        assert sorted(found.unknown) == [0] and found.high[1] == 5


# ------------------------------------------------------------------------------------- comparisons


NORMS = {"x": torch.tensor([[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]])}
ROOTS = {"x": torch.tensor([4.0, 0.0, -1.0, 9.0])}
SCORES = {"x": torch.tensor([[1.0, 2.0, 3.0], [1.0, -1.0, 0.5]])}
MASK = torch.tensor([[False, True, False], [True, True, True]])


def norm(x):
    return torch.linalg.vector_norm(x, dim=1)


def by_hand(x):
    return (x * x).sum(1).sqrt()


def safe(x):
    return torch.where(x > 0, torch.where(x > 0, x, 1).sqrt(), 0)


def naive(x):
    return torch.where(x > 0, x.sqrt(), 0)


def masked(x):
    return x.masked_fill(MASK, -INFINITY).softmax(-1)


def quotient(x):
    scores = x.masked_fill(MASK, -INFINITY).exp()
    return scores / scores.sum(-1, keepdim=True)


def filled(x):
    return torch.where(MASK.all(-1, keepdim=True), 0.0, masked(x))


def again(function):
    return lambda x: function(x) + 0


def compared(first, second, inputs, **options):
    options = {"loss": torch.sum, "formats": ("float32", "float64"), **options}
    return ro.compare(first, second, inputs, **options)


@pytest.mark.parametrize(
    ("function", "inputs"),
    [(norm, NORMS), (by_hand, NORMS), (safe, ROOTS), (naive, ROOTS), (masked, SCORES)],
)
def test_a_function_is_identical_to_itself_whatever_has_no_value(function, inputs) -> None:
    for second in (lambda x: function(x), again(function)):
        found = compared(function, second, inputs)
        assert {str(p.judgement.verdict) for p in found.pairs.values()} == {"IDENTICAL"}
        for (gradient, format), pair in found.pairs.items():
            if np.isnan(pair.computed[0]).any():
                assert "both are nan at element [1" in found.reason(gradient, format)
        assert "no check" not in str(found)


def test_which_side_is_nan_is_said_with_the_element_and_the_exact_value() -> None:
    for first, second, inputs, words in (
        (safe, naive, ROOTS, "naive is nan at element [1] (2 of 4 elements), where the exact gradient 0 of safe is "
         "an ordinary {} number; its own has no value: div(0, 0)"),
        (naive, safe, ROOTS, "naive is nan at element [1] (2 of 4 elements), where the exact gradient 0 of safe"),
        (norm, by_hand, NORMS, "by_hand is nan at element [1, 0] (2 of 6 elements), where the exact gradient 0 of norm"),
    ):  # fmt: skip
        found = compared(first, second, inputs)
        for format in ("float32", "float64"):
            assert found.verdict("x", format) == ro.Verdict.SUSPICIOUS
            assert words.format(format) in found.reason("x", format)
            assert found.verdict("output", format) == ro.Verdict.IDENTICAL
        row = found.table.set_index(["gradient", "format"]).loc[("x", "float32")]
        errors = {row["error_first"], row["error_second"]}
        assert max(errors) == np.inf > min(errors) and np.isfinite(row["bound_probabilistic"])
        assert row["closer"] == ("safe" if first is safe or second is safe else "norm")


def test_rows_without_a_value_leave_the_others_their_verdict() -> None:
    found = compared(masked, quotient, SCORES, loss=lambda out: (out**2).sum())
    for format in ("float32", "float64"):
        verdict = found.verdict("output", format)
        assert verdict in (ro.Verdict.ROUNDOFF, ro.Verdict.IDENTICAL)
        assert "[1, 0] (3 of 6 elements)" in found.reason("output", format)
    wrong = compared(masked, lambda x: quotient(x) * 1.25, SCORES, loss=lambda out: (out**2).sum())
    assert wrong.verdict("output", "float32") == ro.Verdict.DIFFERENT
    assert "2 of 6 elements differ" in wrong.reason("output", "float32")


def test_a_number_against_nan_where_nothing_is_exact_is_undecided() -> None:
    given = {"output": torch.tensor([[0.26894143, 0.0, 0.7310586], [0.0, 0.0, 0.0]])}
    given["output"] = torch.where(MASK.all(-1, keepdim=True), 0.0, masked(SCORES["x"]))
    found = ro.compare(masked, given, SCORES, loss=torch.sum)
    assert found.verdict("output", "float32") == ro.Verdict.UNDECIDED
    assert (
        "at element [1, 0] (3 of 6 elements) the exact output has no known value (sub(-inf, -inf))"
        in (found.reason("output", "float32"))
    )
    assert "masked is nan and tensors 0" in found.reason("output", "float32")
    found = compared(masked, filled, SCORES)
    assert found.verdict("output", "float32") == ro.Verdict.SUSPICIOUS
    assert (
        "masked is nan at element [1, 0] (3 of 6 elements), where the exact output 0 of filled"
        in (found.reason("output", "float32"))
    )


def test_nan_alone_is_no_evidence() -> None:
    found = compared(lambda x: x.sqrt(), lambda x: x.sqrt() + 0, {"x": -torch.ones(3)})
    assert {str(p.judgement.verdict) for p in found.pairs.values()} == {"UNDECIDED"}
    assert "(3 of 3 elements)" in found.reason("output", "float32")


def test_equal_infinities_are_equal() -> None:
    fill = lambda x: x.masked_fill(MASK, -INFINITY)
    found = compared(fill, again(fill), SCORES)
    assert found.verdict("output", "float32") == ro.Verdict.IDENTICAL
    assert "both are -inf at element [0, 1] (4 of 6 elements)" in found.reason("output", "float32")
    twice = compared(fill, lambda x: fill(x) * 2, SCORES)
    assert twice.verdict("output", "float32") == ro.Verdict.DIFFERENT
    other = compared(fill, lambda x: x.masked_fill(MASK, INFINITY), SCORES)
    assert other.verdict("output", "float32") == ro.Verdict.UNDECIDED


def test_a_study_counts_what_has_no_value_and_judges_the_rest() -> None:
    inputs = {"x": ROOTS["x"].double().numpy()}
    problem = TwoMethods(
        "roots", "", 1, {"safe": safe, "naive": naive}, lambda _: dict(inputs), ("x",), torch.sum, 1,
        {"name": "roots"}, {},
    )  # fmt: skip
    pairs = CellRows(problem, as_format("float32"), range(1), (), 0).tables()["pairs"].iloc[0]
    assert pairs["verdict"] == "SUSPICIOUS" and "naive is nan at element [1]" in pairs["reason"]
    assert pairs["normwise_second"] == np.inf, "the NaN of the naive one"
    for column in (
        "normwise_first",
        "bound_certified",
        "rtol",
        "reference_radius",
    ):
        assert np.isfinite(pairs[column]), column
    assert pairs["fraction_equal"] == 0.5


# -------------------------------------------------------------------------------------- assertions


def asserted(actual, function=naive):
    assert_within_roundoff({"x": torch.tensor(actual)}, function, ROOTS, loss=torch.sum)


def test_an_assertion_names_the_element_that_is_nan() -> None:
    nan, sixth = float("nan"), 1 / 6
    asserted([0.25, 0.0, 0.0, sixth], safe)
    asserted([0.25, nan, nan, sixth])  # as the function itself
    for actual, function, count, worst, exact in (
        ([0.25, nan, 0.0, sixth], safe, 1, "[1]", "0.0"),
        ([0.25, INFINITY, 0.0, sixth], safe, 1, "[1]", "0.0"),
        ([nan, 0.0, 0.0, nan], safe, 2, "[0]", "0.25"),
        ([0.25, nan, 0.0, sixth], naive, 1, "[2]", "none: the function has no value there"),
        ([0.3, nan, nan, sixth], naive, 1, "[0]", "0.25"),
    ):
        with pytest.raises(AssertionError) as error:
            asserted(actual, function)
        text = str(error.value)
        assert f"{count} of 4 elements beyond" in text
        assert f"worst element  {worst}" in text and f"exact          {exact}\n" in text


def test_tolerances_leave_out_what_has_no_value() -> None:
    found = ro.tolerance(naive, ROOTS, loss=torch.sum)["x"]
    with_value = ro.tolerance(safe, ROOTS, loss=torch.sum)["x"]
    for kind in ("certified", "probabilistic", "empirical"):
        rtol, atol = found.pair(kind)
        assert np.isfinite(rtol) and np.isfinite(atol) and rtol < 1e-5 > atol
        assert (getattr(found, kind)[[0, 3]] <= 4 * getattr(with_value, kind)[[0, 3]]).all()
    assert "no pair" not in str(found) and "inf" not in str(found)


def test_the_text_of_a_reference_says_what_has_no_value() -> None:
    found = ro.reference_gradients(naive, ROOTS, loss=torch.sum)
    assert "x has no value at 2 of 4 elements, the first at [1]: div(0, 0)" in str(found)
    with pytest.raises(ro.UnsupportedError, match=r"sqrt\(-1\)"):
        ro.reference_gradients(lambda x: x.sqrt(), {"x": -torch.ones(2)}, loss=torch.sum)


def test_large_work_with_a_masked_row_stays_with_words() -> None:
    rng = np.random.default_rng(0)
    mask = torch.zeros(64, 64, dtype=torch.bool)
    mask[3] = True
    attention = lambda q, k, v: (q @ k.T).masked_fill(mask, -INFINITY).softmax(-1) @ v
    inputs = {name: rng.standard_normal((64, 64)) for name in "qkv"}
    trace = prune(trace_gradients(attention, inputs, loss=torch.sum, forward=True))
    from roundoff.gradients.reference import is_large, reference_of_trace

    assert is_large(trace)
    found = reference_of_trace(trace, inputs)
    assert found["output"].engine == "multiword"
    assert (np.argwhere(~found["output"].known)[:, 0] == 3).all()
    assert len(found["output"].unknown) == 64
