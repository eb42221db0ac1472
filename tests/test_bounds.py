"""Bounds against check values, mpmath, and sums that attain or must not exceed them."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from roundoff import bounds, orders
from roundoff.bounds import along
from roundoff.errors import ArgumentError, InapplicableError
from roundoff.formats import Format, round_to

U16, U32, U64 = 2.0**-11, 2.0**-24, 2.0**-53


def test_check_values() -> None:
    """FACTS, bounds on sums and dots."""
    assert round(bounds.gamma(1000, U16), 10) == 0.9541984733
    assert round(bounds.gamma(10**6, U32), 10) == 0.0633825385
    assert round(bounds.higham_mary_lambda(10**6, U32, 1e-3), 3) == 6.545
    assert bounds.gamma(0, U32) == 0.0


@given(st.integers(1, 2**53), st.integers(2, 60))
@settings(max_examples=300, deadline=None)
def test_gamma_is_the_smallest_float_not_below_the_formula(n: int, p: int) -> None:
    u = 2.0**-p
    if n >= 2**p:
        with pytest.raises(InapplicableError, match="not below 1"):
            bounds.gamma(n, u)
        return
    exact = Fraction(n, 2**p) / (1 - Fraction(n, 2**p))
    found = bounds.gamma(n, u)
    assert Fraction(math.nextafter(found, 0.0)) < exact <= Fraction(found)


def formula(n: int, u: float, failure: float, outputs: int) -> tuple[Any, Any]:
    """lambda and the bound, to 60 digits."""
    context = mpmath.mp.clone()
    context.dps = 60
    roundoff = context.mpf(u)
    size = 2 * context.mpf(n) * outputs / context.mpf(failure)
    factor = context.sqrt(2 * context.log(size)) / (1 - roundoff)
    exponent = factor * context.sqrt(n) * roundoff + n * roundoff**2 / (1 - roundoff)
    return factor, context.expm1(exponent)


@given(
    st.integers(1, 10**9),
    st.sampled_from([2.0**-4, 2.0**-8, U16, U32, U64]),
    st.floats(1e-12, 0.9),
    st.integers(1, 10**6),
)
@settings(max_examples=300, deadline=None)
def test_higham_mary_is_just_above_the_formula(
    n: int, u: float, failure: float, outputs: int
) -> None:
    factor, bound = formula(n, u, failure, outputs)
    found_factor = bounds.higham_mary_lambda(n, u, failure, outputs)
    assert factor <= found_factor <= factor * (1 + 2.0**-46)
    found = bounds.higham_mary(n, u, failure, outputs)
    assert bound <= found
    if bound < 1e3:  # the exponent's rounding grows with the exponent
        assert found <= bound * (1 + 2.0**-42)


def test_lambda_makes_the_failure_probability_what_was_asked() -> None:
    factor = bounds.higham_mary_lambda(300, U16, 1e-3, outputs=7)
    probability = 7 * 2 * 300 * math.exp(-(factor**2) * (1 - U16) ** 2 / 2)
    assert 0.999e-3 < probability <= 1e-3


def test_lambda_of_five_says_nothing_about_a_million_terms() -> None:
    """FACTS: at n = 1e6, lambda = 5 is vacuous."""
    assert 2e6 * math.exp(-12.5) > 1.0 > 2e6 * math.exp(-(6.545**2) / 2)


def test_a_hopeless_exponential_is_infinite() -> None:
    assert bounds.higham_mary(10**12, 2.0**-4, 1e-3) == math.inf


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, U32, 0.1), "n is -1"),
        ((0, U32, 0.1), "n is 0"),
        ((5, 0.0, 0.1), "u is 0.0"),
        ((5, 1.0, 0.1), "u is 1.0"),
        ((5, U32, 0.0), "failure is 0.0"),
        ((5, U32, 1.0), "failure is 1.0"),
        ((5, U32, 0.1, 0), "outputs 0"),
    ],
)
def test_bad_arguments_name_the_value(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        bounds.higham_mary(*arguments)


@pytest.mark.parametrize(("n", "u"), [(1024, 2.0**-10), (2, 0.5), (10**6, U16)])
def test_gamma_refuses_where_it_says_nothing(n: int, u: float) -> None:
    with pytest.raises(InapplicableError, match="not below 1"):
        bounds.gamma(n, u)


def sequential_dots(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """float32 dot products by plain rows, with each error over S; products are exact in float64."""
    total = np.zeros(x.shape[0], np.float32)
    for a, b in zip(x.T, y.T, strict=True):
        total = total + a * b
    products = x.astype(np.float64) * y.astype(np.float64)
    exact = np.array([math.fsum(row) for row in products])
    scale = np.array([math.fsum(row) for row in np.abs(products)])
    return total, np.abs(total - exact) / scale


def test_dots_stay_inside_and_the_probabilistic_bound_covers() -> None:
    generator = np.random.default_rng(20190)
    x, y = generator.standard_normal((2, 2000, 200), np.float32)
    _, error = sequential_dots(x, y)
    assert error.max() <= bounds.gamma(200, U32)
    for failure in (0.5, 0.05):
        beyond = int((error > bounds.higham_mary(200, U32, failure)).sum())
        more = stats.binomtest(beyond, 2000, failure, alternative="greater").pvalue
        assert more > 1e-3
    # The union bound over n terms is loose: the largest of 2000 is a tenth of the bound or less ...
    assert error.max() < 0.2 * bounds.higham_mary(200, U32, 1e-3)
    # ... which is itself far below the certified one.
    assert bounds.higham_mary(200, U32, 1e-3) < 0.5 * bounds.gamma(200, U32)


def test_gamma_is_nearly_attained() -> None:
    """1 + u + u + ...: each addition ties to even and loses a whole u."""
    n = 1000
    total = np.float32(1.0)
    for _ in range(n):
        total = total + np.float32(U32)
    exact = Fraction(1) + n * Fraction(U32)
    ratio = abs(Fraction(float(total)) - exact) / exact / Fraction(bounds.gamma(n, U32))
    assert 0.999 < ratio <= 1


# -------------------------------------------------------------------- every sum of small formats

P2, P3 = Format("p2", 2, -2, 6), Format("p3", 3, -2, 6)


def numbers(target: Format, top: float) -> np.ndarray:
    """All numbers of a small format up to a magnitude."""
    steps = np.arange(0.0, top + target.smallest_subnormal, target.smallest_subnormal)
    positive = steps[round_to(steps, target) == steps]
    return np.concatenate([-positive[:0:-1], positive])


def everything(values: np.ndarray, n: int) -> np.ndarray:
    """All sequences of n of the values whose first is not negative: signs and all else alike."""
    rest = [values[values >= 0], *[values] * (n - 1)]
    return np.stack([v.ravel() for v in np.meshgrid(*rest, indexing="ij")], axis=-1)


def trees(n: int) -> list[orders.ReductionTree]:
    """Every shape of tree over leaves in order: n - 1 additions of neighbours."""
    found = []

    def grow(ids: list[int], pairs: list[tuple[int, int]]) -> None:
        if len(ids) == 1:
            found.append(orders.ReductionTree(n, np.array(pairs, np.int64).reshape(-1, 2)))
            return
        for k in range(len(ids) - 1):
            left, right = ids[k], ids[k + 1]
            grow([*ids[:k], n + len(pairs), *ids[k + 2 :]], [*pairs, (left, right)])

    grow(list(range(n)), [])
    return found


@pytest.mark.parametrize(
    ("target", "n", "top"), [(P2, 2, 16.0), (P2, 3, 16.0), (P3, 3, 8.0), (P3, 4, 2.0)], ids=str
)
def test_every_bound_holds_for_every_sum_of_a_small_format(
    target: Format, n: int, top: float
) -> None:
    """float64 holds all of these sums, so comparisons are exact; n u goes up to 1."""
    x = everything(numbers(target, top), n)
    exact = x.sum(axis=-1)
    tight = dict.fromkeys(("Jeannerod and Rump", "Lange and Rump", "partial sums"), 0.0)
    for order in [*trees(n), "kahan", "neumaier", "sum2"]:
        error = np.abs(orders.sum_in_order(x, order, target) - exact)
        found = bounds.sum(x, target, order)
        for statement in found.statements:
            if statement.kind in ("certified", "running") and statement.value is not None:
                limit = np.asarray(statement.value)
                assert (error <= limit).all(), statement.name
                if statement.name in tight:
                    ratio = (error[limit > 0] / limit[limit > 0]).max()
                    tight[statement.name] = max(tight[statement.name], ratio)
    assert tight["partial sums"] == pytest.approx(1.0, abs=2.0**-40)
    if (n - 1) * target.u <= 0.5:  # Lange and Rump is sharp
        assert tight["Lange and Rump"] == pytest.approx(1.0, abs=2.0**-40)


def test_lange_and_rump_over_many_terms_of_a_small_format() -> None:
    """Five terms with u = 1/8: (n - 1) u = 1/2, the end of the range that is claimed."""
    values = np.array([0.125, 0.25, 0.375, 0.5, 1.0, 1.25, 1.75, 2.0])
    x = everything(np.concatenate([-values, values]), 5)
    exact, scale = x.sum(axis=-1), np.abs(x).sum(axis=-1)
    limit = bounds.lange_rump(4, P3.u) * scale
    worst = 0.0
    for tree in trees(5):
        error = np.abs(orders.sum_in_order(x, tree, P3) - exact)
        assert (error <= limit).all()
        worst = max(worst, (error / limit).max())
    assert worst == pytest.approx(1.0, abs=2.0**-40)
    with pytest.raises(InapplicableError, match="exceeds 1/2"):
        bounds.lange_rump(5, P3.u)


@pytest.mark.parametrize("fma", [False, True])
def test_every_bound_holds_for_every_dot_product_of_a_small_format(fma: bool) -> None:
    """Products underflow here, too."""
    some = numbers(P3, 2.0)
    pairs = everything(some[:: 1 if fma else 2], 4)
    x, y = pairs[:, :2], pairs[:, 2:]
    exact = (x * y).sum(axis=-1)
    fused = orders.Order("fused pairwise", orders.pairwise, fused=True)
    names = ("sequential", "fma", fused) if fma else ("sequential", "kahan", "neumaier", "sum2")
    for order in names:
        error = np.abs(orders.dot_in_order(x, y, order, P3, fma=fma) - exact)
        for statement in bounds.dot(x, y, P3, order, fma=fma).statements:
            if statement.kind in ("certified", "running") and statement.value is not None:
                limit = np.asarray(statement.value)
                assert (error <= limit)[~np.isnan(limit)].all(), (order, statement.name)


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
    from roundoff.study import attained

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


def test_stagnation_and_equal_terms_withhold_what_assumes_a_mean_of_zero() -> None:
    rng = np.random.default_rng(0)
    x = rng.random(4096)
    stagnant = bounds.sum(x, "bfloat16", "sequential")
    with pytest.raises(InapplicableError, match="stagnation"):
        stagnant.probabilistic(1e-3)
    with pytest.raises(InapplicableError, match="stagnation"):
        assert stagnant.expected
    assert bounds.sum(x, "bfloat16", "pairwise").probabilistic(1e-3) < stagnant.certified
    with pytest.raises(InapplicableError, match="most terms are equal"):
        bounds.sum(np.full(10**5, 0.1), "float32", "sequential").probabilistic(1e-3)
    both = bounds.sum(
        np.stack([x, rng.standard_normal(4096) / 1e3]), "bfloat16", accumulate="float32"
    )
    assert np.isfinite(both.probabilistic(1e-3)).all()


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
    assert bounds.dot([1.5], [1.25], "float16", "fma").certified > 0
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
        "does not apply: gamma: gamma: n u = 2999 * 0.00048828125", "stagnation", "running, ufp",
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
    sizes, squares = along.sizes_along(x.T.copy(), tree)
    unit = Fraction(P3.u) / (1 + Fraction(P3.u))
    for k, row in enumerate(x.tolist()):
        nodes = [(Fraction(v), Fraction(0)) for v in row]
        for left, right in tree.children.tolist():
            (a, ea), (b, eb) = nodes[left], nodes[right]
            local = min(unit * (abs(a + b) + ea + eb), abs(a) + ea, abs(b) + eb)
            nodes.append((a + b, ea + eb + local))
        exact = nodes[-1][1]
        assert exact <= Fraction(float(found[k])) <= exact * (1 + Fraction(1, 2**30))
        partial = [abs(s) for s, _ in nodes[20:]]
        assert sizes[k] == pytest.approx(float(sum(partial)))
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
    tiny = bounds.dot([1.0, 2.0**-14], [1.0, 2.0**-14], "float16")
    assert np.isnan(tiny.named["Jeannerod and Rump"].value)
    cycled = np.tile([0.1, 0.3, 0.7], 40000)
    with pytest.raises(InapplicableError, match="all of them few"):
        bounds.sum(cycled, "float32").probabilistic(1e-3)
    assert "<Bound on a sum of 2 terms in float32" in repr(bounds.sum([1.0, 2.0], "float32"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: bounds.sum([1.0, 2.0], "float32", order=3), "is no order|an order is a name"),
        (lambda: bounds.sum([1.0, 2.0], "float32").probabilistic(None), "failure is None"),
        (lambda: bounds.gamma(3, "float32"), "u is 'float32'"),
        (lambda: bounds.hallman_ipsen(1.0, 5, 3, U32, 0.1, 0), "outputs 0"),
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
