"""Bounds as objects: check values, and sums that attain or must not exceed them."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch

from roundoff import bounds, orders
from roundoff.bounds import tree_errors
from roundoff.errors import ArgumentError, InapplicableError
from roundoff.numbers.formats import Format, round_to

P3 = Format("p3", 3, -2, 6)
U16, U32, U64 = 2.0**-11, 2.0**-24, 2.0**-53


# ------------------------------------------------------------------------------------- the object


def harmonic() -> np.ndarray:
    return (np.float32(1) / np.arange(1, 1001, dtype=np.float32)).astype(np.float64)


@pytest.mark.parametrize(
    ("order", "running", "ufp"), [("sequential", 6491.959, 3936.0), ("pairwise", 73.7525, 51.40625)]
)
def test_running_check_values(order: str, running: float, ufp: float) -> None:
    """FACTS: 1/i in float32, everything in units of u."""
    found = bounds.sum(harmonic(), "float32", order)
    assert float(found.named["running"].value) / U32 == pytest.approx(running, abs=1e-3)
    assert float(found.named["running, ufp"].value) / U32 == pytest.approx(ufp, abs=1e-6)
    assert float(found.running) == float(found.named["running, ufp"].value)
    assert float(found.certified) <= 999 * U32 * 7.485470923827961
    depth = float(found.named["depth-weighted"].value)
    height = orders.as_order(order).tree(1000).height
    assert depth <= ((1 + U32) ** height - 1) * 7.4854709239 < bounds.gamma(999, U32) * 7.4855


def test_inputs_that_attain_a_bound() -> None:
    from bounds_rows import attained

    rows = attained()
    assert (rows["ratio"] <= 1).all()
    best = rows[rows["bound"] != "Kahan"]
    assert (best["ratio"] >= 0.999).all()
    assert best.set_index("bound").loc["Lange and Rump", "ratio"] > 1 - 1e-12


def test_the_bounds_own_roundings_are_covered() -> None:
    """A float64 sum whose S rounds down: the printed number is still not below the theorem's."""
    rng = np.random.default_rng(8)
    for _ in range(200):
        n = int(rng.integers(2, 60))
        x = rng.random(n) * 2.0 ** rng.integers(-40, 40, n)
        scale = sum(map(Fraction, x.tolist()), Fraction(0))
        found = bounds.sum(x, "float64", "pairwise")
        for name, factor in (
            ("gamma", (n - 1) * Fraction(U64) / (1 - (n - 1) * Fraction(U64))),
            ("Jeannerod and Rump", (n - 1) * Fraction(U64)),
            ("Lange and Rump", (n - 1) * Fraction(U64) / (1 + (n - 1) * Fraction(U64))),
        ):
            value = Fraction(float(found.named[name].value))
            assert factor * scale <= value <= factor * scale * (1 + Fraction(1, 2**40))
        depth = sum(
            Fraction(v) * ((1 + Fraction(U64) / (1 + Fraction(U64))) ** d - 1)
            for v, d in zip(x.tolist(), orders.pairwise(n).depths.tolist(), strict=True)
        )
        assert (
            depth <= Fraction(float(found.named["depth-weighted"].value)) <= depth * Fraction(1.001)
        )


def test_zeros_do_not_count() -> None:
    x = np.zeros(1000)
    x[[3, 500, 900]] = 1.0, 2.0, -0.7
    short = bounds.sum(x[x != 0], "float16").certified
    assert short <= bounds.sum(x, "float16").certified <= short * (1 + 2.0**-40)
    assert bounds.sum(x, "float16", "sequential").certified <= 2 * U16 * 3.71


def test_a_wide_accumulator_leaves_the_final_rounding() -> None:
    rng = np.random.default_rng(3)
    x, y = (round_to(rng.standard_normal((50, 300)), "bfloat16") for _ in range(2))
    found = bounds.dot(x, y, "bfloat16", accumulate="float32")
    computed = orders.dot_in_order(x, y, "pairwise", "bfloat16", accumulate="float32")
    exact = np.array([math.fsum(row) for row in x * y])
    error = np.abs(computed - exact)
    assert (error <= found.certified).all()
    assert (found.certified <= 2.0**-8 * np.abs(exact) + 1.01 * 299 * U32 * found.S).all()
    assert (error / found.certified).max() > 0.5
    # Exactly halfway: one final rounding attains it.
    half = bounds.sum([1.0, 2.0**-7, 2.0**-8], "bfloat16", accumulate="float32")
    assert 2.0**-8 <= half.certified <= 2.0**-8 * (1 + 2.0**-6)


def test_rounding_of_the_inputs_is_part_of_it() -> None:
    x = np.random.default_rng(1).random((40, 20))
    found = bounds.sum(x, "float16")
    computed = orders.sum_in_order(x, "sequential", "float16")
    assert (np.abs(computed - x.sum(axis=-1)) <= found.certified).all()
    given = np.abs(x - round_to(x, "float16")).sum(axis=-1)
    rounded = bounds.sum(round_to(x, "float16"), "float16")
    np.testing.assert_allclose(found.certified - rounded.certified, given, rtol=1e-3)


def by_mode(x: np.ndarray, tree: orders.ReductionTree, target: str, mode: str) -> np.ndarray:
    values = list(x.T)
    for left, right in tree.children.tolist():
        values.append(round_to(values[left] + values[right], target, mode))
    return values[-1]


def test_truncating_accumulators_have_certified_bounds_alone() -> None:
    rng = np.random.default_rng(2)
    x = round_to(rng.random((200, 60)), "float16")
    found = bounds.sum(x, "float16", "sequential", rounding="toward_zero")
    error = np.abs(by_mode(x, orders.sequential(60), "float16", "toward_zero") - x.sum(axis=-1))
    assert (error <= found.certified).all()
    assert (error > bounds.sum(x, "float16", "sequential").expected * 4).all(), "a bias"
    with pytest.raises(InapplicableError, match="errs to one side"):
        found.probabilistic(1e-3)


def test_stagnation_and_repeated_terms_count_for_certain() -> None:
    rng = np.random.default_rng(0)
    x = round_to(rng.random(4096), "bfloat16")
    for terms, format in ((x, "bfloat16"), (round_to(np.full(4096, 0.3), "float16"), "float16")):
        found = bounds.sum(terms, format, "sequential")
        error = abs(orders.sum_in_order(terms, "sequential", format) - math.fsum(terms))
        assert error <= found.probabilistic(1e-3) <= found.certified
        assert error / 2 <= found.probabilistic(0.5), "nearly all of the error is certain"
        assert np.isnan(found.named["Higham and Mary"].value(1e-3)), "it assumes no such operands"
    stagnant = bounds.sum(x, "bfloat16", "sequential")
    error = abs(orders.sum_in_order(x, "sequential", "bfloat16") - math.fsum(x))
    assert error / 2 <= stagnant.expected <= 2 * error, "the model knows what is swallowed"
    with pytest.raises(InapplicableError, match="stagnation"):
        assert bounds.sum(x, "bfloat16").expected, "how much depends on the order"
    assert bounds.sum(x, "bfloat16", "pairwise").probabilistic(1e-3) < stagnant.certified / 10
    equal = bounds.sum(np.full(10**5, 0.1), "float32", "sequential")
    exact = 10**5 * float(np.float32(0.1))
    error = abs(np.cumsum(np.full(10**5, 0.1, np.float32))[-1] - exact)
    assert error <= equal.probabilistic(0.5) <= 2 * error, "equal errors, which are predicted"


@pytest.mark.parametrize(
    ("format", "order", "make"),
    [
        ("float8_e5m2", "pairwise", lambda rng: rng.standard_normal((50, 1024))),
        ("bfloat16", "sequential", lambda rng: rng.random((50, 256))),
        ("float16", "sequential", lambda rng: round_to(rng.random((50, 300)), "float8_e4m3fn")),
        ("float64", None, lambda rng: np.sort(rng.random((50, 9)))),
        ("float64", "sequential", lambda rng: np.full((50, 9), 0.3)),
    ],
)  # fmt: skip
def test_a_probabilistic_bound_is_not_withheld_without_need(format, order, make) -> None:
    x = round_to(make(np.random.default_rng(0)), format)
    found = bounds.sum(x, format, order)
    assert (found.probabilistic(1e-3) <= found.certified).all()
    assert "stagnation" not in str(found) or format != "float64"
    error = np.abs(orders.sum_in_order(x, order or "sequential", format) - x.sum(axis=-1))
    assert (error <= found.probabilistic(1e-3)).all()


def test_terms_on_one_grid_are_added_without_error() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (3, 5000)).astype(np.float64)
    for order in (None, "sequential", "pairwise", "kahan"):
        found = bounds.sum(bits, "float32", order)
        assert (found.certified == 0).all() and (found.expected == 0).all()
        assert order == "kahan" or (found.probabilistic(1e-3) == 0).all()
        assert (bounds.dot(bits, -bits * 0.25, "float32", order).certified == 0).all()
    assert (bounds.matmul(bits, bits.T, "float32").certified == 0).all()
    # 2^11 grids are the most that float16 holds: one more is a tie.
    ones = np.ones(2049)
    assert bounds.sum(ones[:2048], "float16").certified == 0
    assert bounds.sum(ones, "float16").certified >= 1
    assert abs(orders.sum_in_order(ones, "sequential", "float16") - 2049) == 1
    # The grid of products of subnormal numbers lies below the format.
    assert bounds.dot([2.0**-20], [2.0**-20], "float16").certified > 0


def test_products_by_powers_of_two_are_not_rounded() -> None:
    rng = np.random.default_rng(1)
    x = round_to(rng.random((40, 30)) + 0.5, "float16")
    scales = 2.0 ** rng.integers(0, 4, (40, 30)) * (rng.random((40, 30)) < 0.7)
    for order in (None, "sequential", "fma"):
        plain = bounds.sum(x * scales, "float16", order)
        found = bounds.dot(x, scales, "float16", order)
        assert (found.certified <= plain.certified * (1 + 2.0**-40)).all()
        assert (
            found.certified < bounds.dot(x, scales * 1.25, "float16", order).certified / 1.25
        ).all()
    two = bounds.matmul(x, scales.T, "float16").certified
    assert (two <= bounds.matmul(x, scales.T * 1.25, "float16").certified / 1.25).all()
    # Below the normal numbers they lose bits.
    assert bounds.dot([1.5 * 2.0**-14], [2.0**-11], "float16").certified >= 2.0**-25


def test_overflow_has_no_finite_bound() -> None:
    found = bounds.sum([[6e4, 6e4, -6e4], [1.0, 2.0, 3.0]], "float16")
    assert np.isinf(found.certified[0]) and np.isfinite(found.certified[1])
    assert "overflow of float16 cannot be excluded for 1 of 2 elements" in str(found)
    known = bounds.sum([6e4, -6e4, 6e4], "float16", "sequential")
    assert np.isfinite(known.certified), "in this order nothing overflows"


def test_limits_and_kinds() -> None:
    assert bounds.sum([], "float16").certified == 0.0
    assert bounds.sum(np.ones((3, 0)), "float16", "pairwise").certified.tolist() == [0.0] * 3
    assert bounds.sum([1.5], "float16").certified == 0.0
    assert bounds.dot([], [], "float16").probabilistic(0.1) == 0.0
    assert bounds.dot([1.001], [1.001], "float16", "fma").certified > 0
    assert (
        bounds.matmul(np.ones((2, 0)), np.ones((0, 3)), "float32").certified.tolist()
        == [[0.0] * 3] * 2
    )
    assert bounds.gamma(10**12, U64) == pytest.approx(1.11034640e-4)
    assert bounds.jeannerod_rump(1e12, U32) == 10**12 * U32
    found = bounds.sum(torch.ones(2, 5), "float32")
    assert isinstance(found.certified, torch.Tensor) and found.certified.shape == (2,)
    assert (torch.ones(2) * 0 <= found.certified).all()


def test_matmul_is_its_dot_products() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((3, 4, 30)), rng.standard_normal((30, 5))
    a[:, :, ::3] = 0.0
    for order in (None, "pairwise", "fma"):
        whole = bounds.matmul(a, b, "float16", order)
        one = bounds.dot(a[:, :, None, :], b.T[None, None], "float16", order)
        # Without an order the smallest factors of a row and a column stand for all its products, so that
        # underflow is suspected more often.
        for found, exact in (
            (whole.certified, one.certified),
            (whole.probabilistic(0.01), one.probabilistic(0.01)),
        ):
            assert (found >= exact * (1 - 2.0**-40)).all()
            assert (found <= exact * (1 + (2.0**-12 if order is None else 2.0**-40))).all()
        np.testing.assert_allclose(whole.expected, one.expected, rtol=2.0**-40)


def test_the_print_explains() -> None:
    text = str(bounds.sum(np.random.default_rng(0).random(3000), "float16", "sequential"))
    for words in (
        "sum of 3000 terms in float16, order sequential", "Jeannerod and Rump 2013",
        "does not apply: gamma: gamma: n u = 2999 * 0.00048828125", "below 4 u |partial sum|", "running, ufp",
    ):  # fmt: skip
        assert words in text
    assert "shared by 7 elements" in str(
        bounds.sum(np.random.default_rng(0).random((7, 9)), "float32")
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bounds.sum([1.0, math.nan], "float16"), r"values holds nan at \[0, 1\]|at \[1\]"),
        (lambda: bounds.sum([1.0, math.inf], "float16"), "values holds inf"),
        (lambda: bounds.sum([1.0, 1e6], "float16"), "float16 ends at 65504"),
        (lambda: bounds.sum(10**12, "float16"), "bounds.gamma"),
        (lambda: bounds.sum([1.0, 2.0], "float16", orders.pairwise(5)), "tree of 5 leaves for 2"),
        (lambda: bounds.sum([1.0, 2.0], "float16").probabilistic(0.0), "failure is 0.0"),
        (lambda: bounds.sum([1.0, 2.0], "float16").probabilistic(1.5), "failure is 1.5"),
        (lambda: bounds.sum([1.0, 2.0], "float16").running, "pass order="),
        (lambda: bounds.sum([1.0, 2.0], "float16", "kahan").running, "compensated"),
        (lambda: bounds.sum([1.0], "float16", rounding="up"), "unknown rounding 'up'"),
        (lambda: bounds.sum([1.0], "float32", accumulate="float16"), "cannot hold"),
        (lambda: bounds.sum([1.0, 2.0], "float16", "kahan", rounding="stochastic"), "compensated"),
        (lambda: bounds.dot([1.0], [1.0, 2.0], "float16"), "last axis"),
        (lambda: bounds.dot(np.ones((2, 3)), np.ones((4, 3)), "float16"), "broadcast|last axis"),
        (lambda: bounds.matmul(np.ones((2, 3)), np.ones((2, 3)), "float16"), "as many elements"),
        (lambda: bounds.matmul(np.ones(3), np.ones((3, 3)), "float16"), "at least 2 axes"),
        (lambda: bounds.gamma(1.5, U16), "whole number"),
        (lambda: bounds.depth_weighted([-1], U16), "not negative"),
        (lambda: bounds.kahan(10**7, 2.0**-11), "too many"),
        (lambda: bounds.sum2(10**4, U16), "not below 1"),
        (
            lambda: bounds.conv_gradients(
                np.ones((1, 1, 4)), np.ones((1, 1, 2)), np.ones((1, 1, 3)), "float32",
                algorithm="winograd",
            ),
            "no bound per element",
        ),
    ],
)  # fmt: skip
def test_bad_input_is_named(make: Any, message: str) -> None:
    with pytest.raises((ArgumentError, InapplicableError), match=message):
        make()


def test_kahans_linear_system() -> None:
    """The same three inequalities, solved by mpmath."""
    context = mpmath.mp.clone()
    context.dps = 50
    for n, p in ((2, 8), (100, 11), (10**6, 24), (40, 4)):
        u = context.mpf(2) ** -p
        each, again, last = u * (1 + (1 + u) ** 2), u * u * (2 + u), u * (1 + u) ** 2
        steps = n - 1
        # unknowns L, C, T with S = 1
        matrix = context.matrix([
            [1, -steps * each, -steps * again], [0, 1 - last, -(u + again)], [-1, -1, 1]
        ])  # fmt: skip
        lost = context.lu_solve(matrix, context.matrix([each, last, 1]))[0]
        on_sum, on_scale = bounds.kahan(n, 2.0**-p)
        assert on_sum == 2.0**-p
        assert (1 + u) * lost <= on_scale <= (1 + u) * lost * (1 + context.mpf(2) ** -50)


# ----------------------------------------------------------------------- formulas, term by term


def test_neumaiers_formula() -> None:
    for n, u in ((2, 0.25), (3, U16), (1000, U32)):
        r = Fraction(u)
        exact = (1 + r) * (n - 1) * (n - 2) * r * r
        on_sum, on_scale = bounds.neumaier(n, u)
        assert on_sum == u and exact <= Fraction(on_scale) <= exact * (1 + Fraction(1, 2**50))


@pytest.mark.parametrize("order", ["sequential", "pairwise", "blocked(4)"])
def test_partial_sums_are_the_recursion_in_rational_numbers(order: str) -> None:
    """Low precision, where errors of errors count."""
    rng = np.random.default_rng(5)
    x = round_to(rng.standard_normal((30, 20)), P3)
    tree = orders.as_order(order).tree(20)
    found = np.asarray(bounds.sum(x, P3, order).named["partial sums"].value)
    nothing = np.zeros((20, 30))
    unit = P3.u / (1 + P3.u)
    squares = tree_errors.along(x.T.copy(), nothing, nothing.copy(), tree, unit, 3).squares
    unit = Fraction(P3.u) / (1 + Fraction(P3.u))
    for k, row in enumerate(x.tolist()):
        nodes, partial = [(Fraction(v), Fraction(0)) for v in row], []
        for left, right in tree.children.tolist():
            (a, ea), (b, eb) = nodes[left], nodes[right]
            local = min(unit * (abs(a + b) + ea + eb), abs(a) + ea, abs(b) + eb)
            nodes.append((a + b, ea + eb + local))
            partial += (
                [a + b] if abs(a) + ea and abs(b) + eb else []
            )  # a zero is added without error
        exact = nodes[-1][1]
        assert exact <= Fraction(float(found[k])) <= exact * (1 + Fraction(1, 2**30))
        assert squares[k] == pytest.approx(float(sum(s * s for s in partial)))


def test_a_result_that_the_format_cannot_hold_has_no_finite_bound() -> None:
    found = bounds.sum([[3e4, 3e4, 1e4], [1.0, 2.0, 3.0]], "float16", accumulate="float32")
    assert np.isinf(found.certified[0]) and np.isfinite(found.certified[1])


def test_any_order_is_never_below_a_stated_one() -> None:
    x = round_to(np.random.default_rng(2).standard_normal((40, 50)), "float32")
    free = bounds.sum(x, "float32")
    for order in ("sequential", "reverse", "pairwise", "strided(8)"):
        stated = bounds.sum(x, "float32", order)
        name = "Hallman and Ipsen"
        assert (stated.named[name].value(0.01) <= free.named[name].value(0.01)).all()
        assert (stated.certified <= free.certified).all()


def test_kahans_carries_pass_zeros_too() -> None:
    x = np.zeros(5000)
    x[[0, 4999]] = 1.0, 0.3
    x = round_to(x, "float16")
    on_sum, on_scale = bounds.kahan(5000, U16)
    expected = on_sum * x.sum() + on_scale * x.sum()
    assert bounds.sum(x, "float16", "kahan").certified == pytest.approx(expected, rel=2.0**-40)


def test_what_a_reader_found() -> None:
    # Rounding the inputs may lose all, below float64's own range.
    lost = bounds.dot([2.0**-1000], [2.0**-100], "float32").certified
    assert lost > 0
    with pytest.raises(ArgumentError, match="leave out fma"):
        bounds.dot([1.0, 2.0], [1.0, 2.0], "float32", "kahan", fma=True)
    with pytest.raises(ArgumentError, match="leave out fma"):
        orders.dot_in_order([1.0, 2.0], [1.0, 2.0], "neumaier", "float32", fma=True)
    # A theorem that does not apply to an element has no number there, and is not infinite.
    tiny = bounds.dot([1.0, 1.5 * 2.0**-14], [1.0, 1.5 * 2.0**-14], "float16")
    assert np.isnan(tiny.named["Jeannerod and Rump"].value)
    # Errors of terms that repeat have a mean.
    cycled = round_to(np.tile([0.1, 0.3, 0.7], 40000), "float32")
    error = abs(orders.sum_in_order(cycled, "sequential", "float32") - math.fsum(cycled))
    assert error <= bounds.sum(cycled, "float32", "sequential").probabilistic(0.5)
    assert "<Bound on a sum of 2 terms in float32" in repr(bounds.sum([1.0, 2.0], "float32"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bounds.sum([1.0, 2.0], "float32", order=3), "the order is 3; give a name"),
        (lambda: bounds.sum([1.0, 2.0], "float32").probabilistic(None), "failure is None"),
        (lambda: bounds.gamma(3, "float32"), "u is 'float32'"),
        (lambda: bounds.hallman_ipsen(1.0, 5, 3, U32, 0.1, 0), "outputs is 0"),
        (
            lambda: bounds.matmul(np.ones((2, 3, 4)), np.ones((3, 4, 5)), "float32"),
            "do not broadcast",
        ),
        (
            lambda: bounds.conv_gradients(
                np.ones((1, 1, 2)), np.ones((1, 1, 5)), np.ones((1, 1, 0)), "float32"
            ),
            "do not fit",
        ),
        (
            lambda: bounds.conv_gradients(
                np.ones((1, 1, 4)), np.ones((1, 1, 2)), np.ones((1, 1, 3)), "float32", stride="a"
            ),
            "stride is 'a'",
        ),
        (lambda: bounds.conv_gradients(1.0, 2.0, 3.0, "float32"), "at least 3"),
        (lambda: bounds.dot([[1.0], [math.inf]], [1.0], "float32"), r"x holds inf at \[1, 0\]"),
    ],
)
def test_more_bad_input_is_named(make: Any, message: str) -> None:
    with pytest.raises((ArgumentError, InapplicableError), match=message):
        make()
    assert bounds.higham_mary(10**400, U64, 0.1) == math.inf
