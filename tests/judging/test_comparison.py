"""`ro.compare`: honest pairs and their bug twins, opaque sides, modules, bad input."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import roundoff as ro
from roundoff.judging.comparison.comparing import Comparing
from roundoff.trace import prune, trace_gradients
from roundoff.trace.degree import degree

FORMATS = ("float32", "float64")
FLAGGED = {"DIFFERENT", "SUSPICIOUS"}


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape)).float()


def verdicts(result):
    return {str(pair.judgement.verdict) for pair in result.pairs.values()}


def layer_norm(x, w, b, unbiased=False):
    centred = x - x.mean(-1, keepdim=True)
    return centred / torch.sqrt(x.var(-1, unbiased=unbiased, keepdim=True) + 1e-5) * w + b


def micro(w, x, t, ragged=False):
    parts = list(zip(x.split(4), t.split(4), strict=True))
    if ragged:
        return sum(F.mse_loss(a @ w, b) for a, b in parts) / len(parts)
    return sum(F.mse_loss(a @ w, b) * len(a) for a, b in parts) / len(x)


def attention(query, key, value, scale=None):
    return (query @ key.mT / (scale or math.sqrt(3))).softmax(-1) @ value


QKV = {name: normal(1, 2, 4, 3, seed=k) for k, name in enumerate(("query", "key", "value"))}
NORM = {"x": normal(4, 6), "w": normal(6), "b": normal(6, seed=1)}
BATCH = {"w": normal(4, 2), "x": normal(6, 4), "t": normal(6, 2)}
PAIRS = {
    "mse": (F.mse_loss, lambda input, target: ((input - target) ** 2).mean(),
            lambda input, target: ((input - target) ** 2).sum() / (input.numel() - 1),
            {"input": normal(3, 7), "target": normal(3, 7, seed=1)}),
    "attention": (F.scaled_dot_product_attention, attention,
                  lambda query, key, value: attention(query, key, value, scale=3.0), QKV),
    "layer norm": (lambda x, w, b: F.layer_norm(x, (6,), w, b), layer_norm,
                   lambda x, w, b: layer_norm(x, w, b, unbiased=True), NORM),
    "micro-batches": (lambda w, x, t: F.mse_loss(x @ w, t), micro,
                      lambda w, x, t: micro(w, x, t, ragged=True), BATCH),
    "chain": (lambda a, b, c: (a @ b) @ c, lambda a, b, c: a @ (b @ c), lambda a, b, c: a @ (b.flip(0) @ c),
              {"a": normal(3, 4), "b": normal(4, 4), "c": normal(4, 2)}),
}  # fmt: skip


def test_polynomials_are_compared_at_points_of_few_bits_and_others_beside_the_inputs() -> None:
    seen = []

    references = Comparing._references

    def recorded(self, both, values):
        seen.append(values)
        return references(self, both, values)

    inputs = {"x": torch.tensor([0.0, 3.0, -1e-3]), "k": torch.tensor([0, 1, 2])}
    for loss in (torch.sum, lambda out: torch.exp(out).sum()):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Comparing, "_references", recorded)
            ro.compare(
                lambda x, k: x * x, lambda x, k: (x * x)[k] + 0 * x, inputs, "x", loss,
                formats=["float32"], points=2,
            )  # fmt: skip
    for values in seen:
        assert (values["k"] == [0, 1, 2]).all()
    *whole, beside, _ = (values["x"] for values in seen)
    assert beside[0] == 0 and whole[0][0] != 0 and beside[1] != 3 and beside[2] != np.float32(-1e-3)
    assert all((v * 2**19 == np.rint(v * 2**19)).all() and (np.abs(v) <= 1).all() for v in whole)
    assert np.allclose(beside, [0.0, 3.0, -1e-3], rtol=2.0**-1) and not (whole[0] == whole[1]).all()


@pytest.mark.parametrize("name", PAIRS)
def test_honest_pairs_are_roundoff_and_their_twins_are_different(name) -> None:
    first, second, twin, inputs = PAIRS[name]
    assert verdicts(ro.compare(first, second, inputs, formats=FORMATS)) <= {"ROUNDOFF", "IDENTICAL"}
    flagged = ro.compare(first, twin, inputs, formats=FORMATS)
    assert flagged.verdict("output", "float32") == ro.Verdict.DIFFERENT
    for pair in flagged.pairs.values():
        assert str(pair.judgement.verdict) in {"DIFFERENT", "ROUNDOFF", "IDENTICAL"}
    assert "DIFFERENT" in str(flagged) and "different functions" in str(flagged)


def test_a_side_that_overflows_is_named() -> None:
    def naive(x):
        return torch.log(torch.exp(x) / torch.exp(x).sum(-1, keepdim=True))

    def stable(x):
        return F.log_softmax(x, -1)

    near = ro.compare(stable, naive, {"x": normal(3, 5)}, formats=FORMATS)
    assert verdicts(near) <= {"ROUNDOFF", "IDENTICAL"}
    far = ro.compare(stable, naive, {"x": 200 * normal(3, 5)}, formats=("float32",))
    assert far.verdict("output", "float32") == ro.Verdict.SUSPICIOUS
    assert "naive is " in far.reason("output", "float32")


def test_the_cancelled_gradient_of_batch_norm_is_no_bug() -> None:
    def with_bias(x, w, b):
        return F.batch_norm(F.conv1d(x, w, b), None, None, training=True)

    def without(x, w, b):
        return F.batch_norm(F.conv1d(x, w), None, None, training=True) + 0 * b.sum()

    inputs = {"x": normal(4, 3, 6), "w": normal(2, 3, 1), "b": normal(2)}
    found = ro.compare(with_bias, without, inputs, formats=FORMATS)
    assert not verdicts(found) & FLAGGED
    exact = found["b", "float64"].references[0]
    assert (np.abs(exact.high) <= exact.error).all() and exact.error.max() < 2.0**-100


class _Total(torch.autograd.Function):
    """The sum, by numpy."""

    @staticmethod
    def forward(ctx, x):
        return torch.from_numpy(np.asarray(x.detach().double().numpy().sum())).to(x.dtype)

    @staticmethod
    def backward(ctx, grad):
        return grad.expand(9)


def test_opaque_sides_are_judged_by_the_other_and_say_their_power() -> None:
    def opaque(x):
        return _Total.apply(x) + (x * x).sum()

    def traced(x):
        return (x * x).sum() + x.sum()

    inputs = {"x": normal(9)}
    found = ro.compare(opaque, traced, inputs, formats=FORMATS)
    assert verdicts(found) <= {"ROUNDOFF", "IDENTICAL"}
    power = found["x", "float32"].power
    assert power is not None and 1 < power.factor < 1 + 2.0**-18
    assert "opaque" in str(found) and "would have flagged" in str(found)
    for factor in (power.factor + 2.0**-23, 1 / power.factor - 2.0**-23, 1 + 2.0**-10):
        planted = {"x": ((2 * inputs["x"] + 1).double() * factor).float()}
        worse = ro.compare(planted, traced, inputs)
        assert worse.verdict("x", "float32") == ro.Verdict.SUSPICIOUS
        assert "not explained by rounding" in worse.reason("x", "float32")
    honest = ro.compare({"x": 2 * inputs["x"] + 1}, traced, inputs)
    assert verdicts(honest) <= {"ROUNDOFF", "IDENTICAL"}
    alone = ro.compare(opaque, opaque, inputs)  # nothing is known but that the bits are equal
    assert verdicts(alone) == {"IDENTICAL"}


def test_what_runs_but_cannot_be_traced_is_opaque() -> None:
    class Kernel(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return torch.from_numpy(
                np.asarray(x.detach().numpy()) * np.float64(3).astype(x.detach().numpy().dtype)
            )

        @staticmethod
        def backward(ctx, grad):
            return 3 * grad

    function = lambda x: Kernel.apply(x).sum()
    found = ro.compare(function, lambda x: (3 * x).sum(), {"x": normal(4)}, formats=FORMATS)
    assert verdicts(found) <= {"ROUNDOFF", "IDENTICAL"}
    assert any("opaque" in note for note in found.notes)


def test_autocast_is_judged_by_its_casts() -> None:
    def cast(w, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.linear(x, w)

    inputs = {"w": normal(3, 4), "x": normal(5, 4)}
    found = ro.compare(cast, lambda w, x: F.linear(x, w), inputs, formats=("float32",))
    assert verdicts(found) <= {"ROUNDOFF", "IDENTICAL"}
    one, two = found["w", "float32"].bounds
    assert (one.certain > 2**10 * two.certain).all()


def test_modules_are_matched_by_name() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 3)

        def forward(self, input):
            return self.inner(input)

    inputs = {"input": normal(5, 4)}
    names = {"weight": "inner.weight", "bias": "inner.bias"}
    found = ro.compare(nn.Linear(4, 3), Wrapped(), inputs, rename=names, formats=FORMATS)
    assert verdicts(found) <= {"ROUNDOFF", "IDENTICAL"}
    assert ("weight", "float32") in found.pairs
    with pytest.raises(ro.ArgumentError, match=r"inner\.weight.*rename"):
        ro.compare(nn.Linear(4, 3), Wrapped(), inputs)
    with pytest.raises(ro.ArgumentError, match="shape"):
        ro.compare(nn.Linear(4, 3), nn.Linear(4, 2), inputs)
    with pytest.raises(ro.ArgumentError, match="partner"):
        ro.compare(nn.Linear(4, 3), nn.Linear(4, 3, bias=False), inputs)


@pytest.mark.parametrize("name", ["tel", "gru", "bn2", "maxpool2", "ce"])
def test_a_function_against_itself_is_never_flagged(name) -> None:
    from zoo import Z, loss

    function, inputs = Z[name]
    found = ro.compare(function, lambda **v: function(**v), inputs, loss=loss, formats=FORMATS)
    assert not verdicts(found) & FLAGGED


def test_kinks_are_undecided_only_where_the_functions_agree_beside_them() -> None:
    inputs = {"x": torch.tensor([0.0, 1.0, -1.0])}
    first, second = lambda x: F.relu(x).sum(), lambda x: x.clamp(min=0).sum()
    found = ro.compare(first, second, inputs, formats=("float32",))
    assert found.verdict("x", "float32") == ro.Verdict.UNDECIDED
    assert "kink" in found.reason("x", "float32") and "[0]" in found.reason("x", "float32")
    found = ro.compare(first, lambda x: x.clamp(min=0).sum() * 1.5, inputs, formats=("float32",))
    assert found.verdict("x", "float32") == ro.Verdict.DIFFERENT


def test_a_reference_without_a_value_is_undecided_and_nan_is_not_equal() -> None:
    found = ro.compare(lambda x: x.sqrt().sum(), lambda x: (x**0.5).sum(), {"x": -torch.ones(3)},
                       formats=("float32",))  # fmt: skip
    assert verdicts(found) == {"UNDECIDED"}
    assert "no known value (sqrt(-1))" in found.reason("x", "float32")
    wide = {"x": torch.full((3,), 1e5)}
    found = ro.compare(lambda x: x.sum(), lambda x: x.sum(), wide, formats=("float16", "float32"))
    assert found.verdict("x", "float16") == ro.Verdict.UNDECIDED
    assert found.verdict("x", "float32") == ro.Verdict.IDENTICAL


@pytest.mark.parametrize("lost", ["overflow", "NaN"])
def test_a_side_that_overflows_is_farther_everywhere(lost) -> None:
    """In float16 the first side leaves the range on its way; the second does not, and errs by rounding."""

    def wild(x):
        large = x * 256.0
        return (large if lost == "overflow" else large + (large - large)) * 2.0**-8

    def steady(x):
        return (x * 3.0) / 3.0

    inputs = {"x": torch.tensor([9000.0, 9001.0, 1.1])}
    for pair, side in (((wild, steady), "steady"), ((steady, wild), "steady")):
        found = ro.compare(*pair, inputs, formats="float16", seeds=8)
        row = next(r for r in found.table.to_dict("records") if r["gradient"] == "output")
        assert row["closer"] == row["in_general"] == side
        assert row["ratio"] == row["ratio_in_general"] == row["ratio_low"] == np.inf
        for name in ("ulp_between", "relative_between", "scaled_between", "normwise_between"):
            assert row[name] == np.inf
        assert sorted([row["error_first"], row["error_second"]])[1] == np.inf
        assert "steady" in str(found).split("in general (output, float16")[1].split("\n")[0]


def test_closer_in_general_has_an_interval() -> None:
    first, second, _, inputs = PAIRS["chain"]
    found = ro.compare(first, second, inputs, formats=("float32",), seeds=6)
    row = found.table.set_index("gradient").loc["b"]
    assert row["seeds"] == 6 and row["ratio_low"] <= row["ratio_in_general"] <= row["ratio_high"]
    assert "in general (b, float32, 6 seeds)" in str(found)


def test_a_literal_rounded_to_double_is_not_another_function() -> None:
    inputs = {"x": normal(5)}
    found = ro.compare(lambda x: (x / torch.full((), 3.0).to(x)).sum(), lambda x: (x * (1 / 3)).sum(), inputs,
                       formats=("float64",))  # fmt: skip
    assert verdicts(found) <= {"ROUNDOFF", "IDENTICAL"}
    found = ro.compare(
        lambda x: (x / 3).sum(), lambda x: (x * 0.33333334).sum(), inputs, formats=("float64",)
    )
    assert found.verdict("x", "float64") == ro.Verdict.DIFFERENT


def test_a_difference_is_not_hidden_by_larger_elements_beside_it() -> None:
    inputs = {"x": torch.tensor([4.0, 9.0, 16.0]), "c": torch.tensor([1e20, 1.0, 1.0])}
    for of in (torch.sqrt, lambda x: x * x):
        found = ro.compare(
            lambda x, c, of=of: of(x) * c,
            lambda x, c, of=of: of(x) * c * torch.tensor([1.0, 2.0, 1.0]), inputs, "x", torch.sum,
            formats=("float32", "float64"), points=0,
        )  # fmt: skip
        for format in ("float32", "float64"):
            assert found.verdict("x", format) == ro.Verdict.DIFFERENT
            assert "[1]" in found.reason("x", format)


def test_constants_in_the_inputs_type_are_doubles() -> None:
    """A trace runs in float32, which has no 0.1."""
    inputs = {"x": torch.tensor([0.3, 1.7, -2.2, 0.9], dtype=torch.float64)}
    filled = lambda x: x * x.masked_fill(x > 0, 0.1)
    positive = lambda x, tenth: torch.where(x > 0, tenth, x) * x
    for other in (
        lambda x: positive(x, 0.1),
        lambda x: positive(x, x.new_tensor(0.1)),
        lambda x: positive(x, torch.tensor(0.1, dtype=x.dtype)),
        lambda x: positive(x, torch.full((4,), 0.1, dtype=x.dtype)),
        lambda x: positive(x, torch.linspace(0.1, 0.1, 4, dtype=x.dtype)),
        lambda x: positive(x, torch.arange(0.1, 0.45, 0.1, dtype=x.dtype)[:1]),
    ):
        found = ro.compare(filled, other, inputs, loss=torch.sum, formats=("float64", "float32"))
        assert verdicts(found) <= {"IDENTICAL", "ROUNDOFF"}
    single = torch.tensor(0.1)  # a float32 number from elsewhere is what it is
    found = ro.compare(
        filled, lambda x: positive(x, single), inputs, loss=torch.sum, formats="float64"
    )
    assert found.verdict("x", "float64") == ro.Verdict.DIFFERENT


def test_random_points_move_zeros_but_those_of_masks() -> None:
    inputs = {"x": normal(6), "w": normal(6), "b": torch.zeros(6)}
    first, second = lambda x, w, b: x * w + b * b, lambda x, w, b: x * w - 3 * b * b
    found = ro.compare(first, second, inputs, None, torch.sum, formats="float32")
    assert (
        found.verdict("b", "float32") == found.verdict("output", "float32") == ro.Verdict.DIFFERENT
    )
    found = ro.compare(first, second, inputs, ["x", "w"], torch.sum, formats="float32")
    assert verdicts(found) == {"IDENTICAL"} and set(found.elsewhere) == {"output"}
    assert found.elsewhere["output"].changes[0][0] == "b" and "probability" not in str(found)


def test_the_chance_is_told_only_where_references_are_equal() -> None:
    inputs = {"x": normal(6), "w": normal(6)}
    plain = lambda x, w: (x * w).sum()
    for other, told in (
        (lambda x, w: (w * x).sum() + 0 * x.sum(), "with probability at most 1.9e-06"),
        (
            lambda x, w: (x * w).sum() * (1 + 2.0**-52),
            "1 random point, but for literals rounded to double",
        ),
    ):
        notes = " ".join(str(ro.compare(plain, other, inputs, formats=("float32",))).split())
        assert re.search(told, notes)
        assert ("probability at most" in notes) == ("probability" in told)


def test_no_chance_is_told_where_references_have_radii() -> None:
    """A third has no end in binary: the sums are polynomials, but known to within radii alone."""
    inputs = {"x": normal(6), "w": normal(6)}
    notes = str(
        ro.compare(
            lambda x, w: (x * w / 3).sum(),
            lambda x, w: (w * x).sum() / 3,
            inputs,
            formats="float32",
        )
    )
    assert (
        "the references agree at 1 random point" in notes
        and "probability" not in notes.split("note:")[1]
    )


def test_a_kink_that_the_format_makes_is_one() -> None:
    found = ro.compare(
        lambda x: F.relu(x), lambda x: x.clamp(min=0), {"x": torch.tensor([1e-30, 1.0])},
        loss=torch.sum, formats=("float16", "float32"),
    )  # fmt: skip
    assert found.verdict("x", "float16") == ro.Verdict.UNDECIDED
    assert "kink" in found.reason("x", "float16")
    assert found.verdict("x", "float32") == ro.Verdict.IDENTICAL


def test_numbers_that_differ_are_printed_so() -> None:
    inputs = {"x": torch.tensor([1.0, 1.0])}
    for factor, told in ((1 + 2.0**-45, "1 and 1.0000000000000284"), (1 + 1e-3, "1 and 1.001")):
        found = ro.compare(
            lambda x: x * 1, lambda x, f=factor: x * f, inputs, loss=torch.sum, formats="float64"
        )
        assert told in found.reason("x", "float64")


def test_the_degree_of_a_trace() -> None:
    cases = (
        (lambda x, y: ((x @ y) ** 2).sum(), 3),
        (lambda x, y: (x @ y).mean(), 1),
        (lambda x, y: (x.exp() @ y).sum(), None),
        (lambda x, y: (F.relu(x) @ y).sum(), None),
    )
    for function, expected in cases:
        trace = prune(trace_gradients(function, {"x": normal(2, 3), "y": normal(3, 2)}))
        assert degree(trace) == expected


def test_bad_input_gets_one_sentence() -> None:
    x = {"x": normal(3)}

    def total(x):
        return x.sum()

    cases = (
        (lambda: ro.compare(lambda x: (x, x), total, x), r"tuple of 2; pick one with output="),
        (lambda: ro.compare(lambda x: (x, x), total, x, output=5), r"output is 5"),
        (lambda: ro.compare(lambda x: None, total, x), r"NoneType; return one tensor"),
        (lambda: ro.compare(lambda x: x, lambda x: x, x, loss=lambda out: out), r"the loss has shape \(3,\)"),
        (lambda: ro.compare(total, total, {"x": torch.arange(3)}), r"no floating-point input"),
        (lambda: ro.compare(lambda x: (x * torch.rand(3)).sum(), total, x), r"every call.*seeded"),
        (lambda: ro.compare(total, total, x, device="no such device"), r"no such device"),
        (lambda: ro.compare(total, 3, x), r"got a int; give functions"),
        (lambda: ro.compare(total, total, x, formats=()), r"formats is empty"),
        (lambda: ro.compare(total, total, x, formats=("float33",)), r"float33"),
        (lambda: ro.compare(total, {"y": normal(3)}, x), r"name none of output, x"),
        (lambda: ro.compare(total, {"x": normal(4)}, x), r"shape \(4,\)"),
        (lambda: ro.compare(total, total, x)["z", "float32"], r"there are output, x"),
    )  # fmt: skip
    for call, words in cases:
        with pytest.raises(ro.ArgumentError, match=words):
            call()
    flow = ro.compare(lambda x: x * x.sum().item(), lambda x: x * x.sum().detach(), {"x": normal(3)},
                      loss=torch.sum, formats=("float32",))  # fmt: skip
    assert any("Python number" in note for note in flow.notes)


def test_outputs_of_two_shapes_under_one_loss_leave_the_gradients_to_compare() -> None:
    x = {"x": torch.randn(3, generator=torch.Generator().manual_seed(0))}

    def compared(factor):
        return ro.compare(
            lambda x: 2 * x, lambda x: (factor * x)[:, None], x, loss=lambda out: (out**2).sum(),
            formats=("float32", "float64"),
        )  # fmt: skip

    same, other = compared(2), compared(3)
    assert {name for name, _ in same.pairs} == {"x"}
    assert same.verdict("x", "float32") in ("IDENTICAL", "ROUNDOFF")
    assert other.verdict("x", "float32") == "DIFFERENT"
    assert any("(3,)" in note and "(3, 1)" in note for note in same.notes)


def test_inference_mode_around_a_call_changes_nothing() -> None:
    with torch.inference_mode():
        x = {"x": torch.rand(4, generator=torch.Generator().manual_seed(0))}
        found = ro.compare(lambda x: x**2, lambda x: x * x, x, formats="float32")
        assert ro.native_gradients(lambda x: (x**2).sum(), x)["x"].shape == (4,)
    assert found.verdict("x", "float32") in ("IDENTICAL", "ROUNDOFF")


def test_nobody_is_closer_where_all_bits_are_equal() -> None:
    def one(t):
        return (6.283185307179586 * t / 365.25).sin()

    def two(t):
        return (t * (6.283185307179586 / 365.25)).sin()

    rows = ro.compare(one, two, {"t": torch.arange(1.0, 9.0)}).table
    for row in rows[rows["bitwise_equal"]].to_dict("records"):
        assert row["closer"] == "neither"


def test_what_is_given_is_not_passed_over() -> None:
    """A format that the given tensors do not have; elements that are none; a loss that returns no tensor."""
    square, one = (lambda x: x**2), {"x": torch.ones(4)}
    double = {"x": 2 * torch.ones(4, dtype=torch.float64)}
    with pytest.raises(ro.ArgumentError, match="float64 and formats names float32"):
        ro.compare(double, square, one, loss=torch.sum, formats=("float32",))
    assert (
        ro.compare(double, square, one, loss=torch.sum).verdict("x", "float64")
        == ro.Verdict.IDENTICAL
    )
    with pytest.raises(ro.ArgumentError, match="^input 'x' of shape .* is empty; give elements$"):
        ro.compare(square, square, {"x": torch.ones(0, 3)})
    with pytest.raises(
        ro.ArgumentError, match="the loss has no tensor, not a scalar; let it return one"
    ):
        ro.compare(square, square, one, loss=lambda out: 3.0)


def test_one_format_is_judged_alike_whatever_others_are_asked_for() -> None:
    """A captured float32 tensor, which 16-bit code that PyTorch cannot run would have rounded."""
    weight, inputs = normal(4, 4), {"x": normal(3, 4)}

    def linear(x):
        return F.linear(x, weight)

    def by_hand(x):
        return (x[:, None, :] * weight).sum(-1)

    def squares(out):
        return (out**2).sum()

    alone = ro.compare(linear, by_hand, inputs, None, squares, formats="float32")
    assert verdicts(alone) <= {"ROUNDOFF", "IDENTICAL"}
    for formats in (("float32", "float16"), ("float16", "bfloat16", "float32")):
        found = ro.compare(linear, by_hand, inputs, None, squares, formats=formats)
        for gradient in ("x", "output"):
            assert found.verdict(gradient, "float32") == alone.verdict(gradient, "float32")
            assert found.verdict(gradient, "float16") == "UNDECIDED"
            assert "leave this format out" in found.reason(gradient, "float16")


def test_formats_without_a_verdict_fail_an_assertion_and_crash_nothing() -> None:
    with pytest.raises(AssertionError, match="not shown to be the same"):
        ro.testing.assert_same_function(
            lambda x: (x * 2).sum(), lambda x: (x + x).sum(), {"x": normal(5)},
            formats=("float32", "float8_e4m3fn"),
        )  # fmt: skip
