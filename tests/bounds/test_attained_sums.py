"""Bounds on sums from below: errors that a machine may make, beside the bound that must not be much larger."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from roundoff import bounds, orders
from roundoff.arithmetic.enclosed import Enclosed
from roundoff.arithmetic.running import Running
from roundoff.bounds.exactness import lowest_bits, powers_of_two, without_rounding
from roundoff.bounds.known_sums import Accumulator, Sums, Tree
from roundoff.bounds.random_errors import in_any_order, predicted
from roundoff.bounds.sum_laws import likely
from roundoff.bounds.tree_errors import along
from roundoff.numbers.formats import FLOAT32, FLOAT64, Format, round_to
from roundoff.trace.steps import Contract, Map, Reduce

P4 = Format("p4", 4, -6, 8)
U = P4.u


def given(*values: float) -> Enclosed:
    return Enclosed(np.array(values), 0.0, 0.0)


def off(values: object, error: float) -> Enclosed:
    value = np.atleast_1d(np.asarray(values, np.float64))
    return Enclosed(value, 0.0, np.full(value.shape, error))


def numbers(target: Format = P4) -> np.ndarray:
    """One binade and the next."""
    return np.arange(2 ** (target.precision - 1), 2 ** (target.precision + 1)) * 2.0 ** (
        1 - target.precision
    )


# ------------------------------------------------------------------------------------- sums


def added(n: int, **options: object) -> tuple[float, float]:
    """The error of 1 + u + u + ... (ties to even, all lost) and the bound of its sum."""
    terms = np.array([1.0, *[U] * n])
    found = Running(P4, **options).reduce(Reduce((1,), (0,), n + 1), off(terms[None], 2.0**-60))
    error = abs(float(orders.sum_in_order(terms, "sequential", P4)) - terms.sum())
    return error, float(found.error[0])


@pytest.mark.parametrize("n", [1, 3, 7])
def test_sums_that_lose_every_term(n) -> None:
    error, free = added(n)
    assert error == n * U and error <= free <= error * (1 + n * U) * (1 + 2.0**-30)
    _, stated = added(n, order="sequential")
    assert error <= stated <= error * (1 + 2.0**-30), "min(u |s|, the smaller operand) is attained"


def test_sums_that_lose_every_term_in_float32() -> None:
    """All nodes at once, where h u is small."""
    u, n = FLOAT32.u, 50
    terms = np.array([[1.0, *[u] * n]])
    step = Reduce((1,), (0,), n + 1)
    error = abs(float(orders.sum_in_order(terms, "sequential", FLOAT32)[0]) - terms.sum())
    assert error == n * u
    found = Running("float32", "sequential").reduce(step, off(terms, 2.0**-90)).error
    assert error <= found <= error * 1.00001
    # A machine that errs by u at every partial sum of equal sizes: the others of the bound.
    ramp = Running("float32", "sequential").reduce(
        Reduce((1,), (0,), 3), off([[1.0, 1.0, 1.0]], 2.0**-90)
    )
    assert ramp.error == pytest.approx(5 * u, rel=2.0**-20)


def test_zeros_and_single_terms_are_no_additions() -> None:
    terms = np.array([[0.0, 1.5, 0.0, 0.0], [0.0, 1.0, U, 0.0], [0.0, 0.0, 0.0, 0.0]])
    error = np.where(terms != 0, 2.0**-20, 0.0)
    for order in (None, "sequential", "pairwise", "kahan"):
        found = Running(P4, order).reduce(Reduce((3,), (0,), 4), Enclosed(terms, 0.0, error)).error
        assert found[0] == pytest.approx(2.0**-20, rel=2.0**-40) and found[2] == 0
        assert found[1] >= U
        if order != "kahan":
            assert found[1] <= U * (1 + 2 * U)
    x, w = given(*terms[1]), given(*np.ones(4))
    found = Running(P4).contract(
        Contract((1, 1, 1), (0, 1), 4), Enclosed(x.value.reshape(1, 1, 4), 0.0, 0.0),
        Enclosed(w.value.reshape(1, 4, 1), 0.0, 0.0),
    )  # fmt: skip
    assert U <= found.error[0, 0, 0] <= U * (1 + 2 * U) + 2 * P4.smallest_subnormal, (
        "products by 1 are exact"
    )


def matrix(values: object, columns: bool = False, error: float = 0.0) -> Enclosed:
    value = np.asarray(values, np.float64).reshape((1, -1, 1) if columns else (1, 1, -1))
    return Enclosed(value, 0.0, np.full(value.shape, error) if error else 0.0)


@pytest.mark.parametrize("order", [None, "sequential", "fma"])
def test_dot_products_that_lose_all_they_can(order) -> None:
    """One product of the largest relative error, and terms that are lost: in any order, and in this one."""
    n = 3
    some = numbers()[:8]
    a, b = max(
        ((p, q) for p in some for q in some),
        key=lambda s: abs(round_to(s[0] * s[1], P4) / s[0] / s[1] - 1),
    )
    product = abs(float(round_to(a * b, P4)) - a * b)
    step = Contract((1, 1, 1), (0, 1), 1)
    one = Running(P4, order).contract(step, matrix([a]), matrix([b], True)).error
    assert product <= one <= U / (1 + U) * a * b + P4.smallest_subnormal and product > 0.87 * one
    x, w = [1.0, *[U] * n], [1.0] * (n + 1)
    error = abs(float(orders.dot_in_order(x, w, "sequential", P4)) - sum(x))
    step = Contract((1, 1, 1), (0, 1), n + 1)
    found = Running(P4, order).contract(step, matrix(x), matrix(w, True)).error
    assert error == n * U and error <= found <= error * (1 + (n + 1) * U) * (1 + 2.0**-30)


def test_errors_of_both_factors_of_a_contraction_count() -> None:
    step = Contract((1, 1, 1), (0, 1), 1)
    found = Running("float64").contract(
        step, matrix([1.0], error=0.5), matrix([1.0], True, error=0.25)
    )
    assert found.error == pytest.approx(0.875, rel=2.0**-40)
    for order in ("sequential", "kahan"):
        found = Running("float64", order).contract(
            step, matrix([1.0], error=0.5), matrix([1.0], True, error=0.25)
        )
        assert found.error == pytest.approx(0.875, rel=2.0**-40)


def test_a_sum_that_starts_at_what_is_added_to_it() -> None:
    """b + u + u + ...: the kernel starts at b, and every product is lost."""
    n, u = 6, 2.0**-11
    step = Contract((1, 1, 1), (0, 1), n)
    on = Running("float16")
    product = on.contract(step, matrix([u] * n), matrix([1.0] * n, True, error=2.0**-60))
    total = on.map(Map((1, 1, 1), "add", (0, 1)), [product, off(np.ones((1, 1, 1)), 2.0**-60)])
    error = abs(float(orders.sum_in_order([1.0, *[u] * n], "sequential", "float16")) - 1 - n * u)
    assert error == n * u and error <= total.error <= error * (n + 1.1) / n
    # A single product and a number are one addition.
    step = Contract((1, 1, 1), (0, 1), 1)
    product = Running(P4).contract(step, matrix([U]), matrix([1.0], True, error=2.0**-60))
    single = Running(P4).map(
        Map((1, 1, 1), "add", (0, 1)), [product, off(np.ones((1, 1, 1)), 2.0**-60)]
    )
    assert single.error + U * U >= U and single.error <= U * (1 + 2 * U)


@pytest.mark.parametrize("order", [None, "sequential", "fma", "kahan", "neumaier", "sum2"])
def test_products_below_the_subnormal_numbers_are_lost_whole(order) -> None:
    """Half the smallest subnormal each, to even: all of it."""
    tiny = Format("tiny", 8, -9, 12)
    n, least = 4, tiny.smallest_subnormal
    x, w = np.full(n, 1.0 * 2.0**-8), np.full(n, least / 2 * 2.0**8)
    w = np.full(n, 2.0**-8)
    x = np.full(n, least / 2 / w[0])
    computed = float(orders.dot_in_order(x, w, order or "sequential", tiny))
    error = abs(computed - n * least / 2)
    assert error == n * least / 2
    step = Contract((1, 1, 1), (0, 1), n)
    found = float(Running(tiny, order).contract(step, matrix(x), matrix(w, True)).error[0, 0, 0])
    assert error <= found <= 1.1 * error
    assert error <= bounds.dot(x, w, tiny, order).certified <= 1.1 * error


def test_a_wide_sum_is_rounded_at_the_end() -> None:
    terms = np.array([[1.0, 2.0**-8]])
    found = Running("bfloat16", None, "float32").reduce(Reduce((1,), (0,), 2), off(terms, 2.0**-60))
    assert found.error * (1 + 2.0**-7) >= 2.0**-8 and found.error <= 2.0**-8 * 1.001


def test_overflow_of_a_partial_sum_is_infinite() -> None:
    top = P4.max
    for order in (None, "sequential"):
        found = (
            Running(P4, order)
            .reduce(Reduce((1,), (0,), 3), off([[top, top, -top]], 2.0**-30))
            .error
        )
        assert np.isinf(found[0])
        found = (
            Running(P4, order).reduce(Reduce((1,), (0,), 3), off([[top / 8] * 3], 2.0**-30)).error
        )
        assert np.isfinite(found[0])
    # Magnitudes above the largest number, by little: and a product that its operand's error takes there.
    found = (
        Running(P4)
        .reduce(Reduce((1,), (0,), 3), off([[top / 2, top / 2, -top / 2]], 2.0**-30))
        .error
    )
    assert np.isinf(found[0])
    found = Running(P4).map(Map((1,), "mul", (0, 1)), [off([top / 2], top / 4), given(1.5)]).error
    assert np.isinf(found[0])


# ---------------------------------------------------------------------------------- along a tree


@pytest.mark.parametrize("order", ["sequential", "pairwise", "blocked(4)"])
def test_the_walk_in_rational_numbers(order) -> None:
    """Values of 53 bits and their radii, errors, squares and peak, at every node."""
    rng = np.random.default_rng(3)
    n, sums = 21, 40
    value = rng.standard_normal((n, sums)) * 2.0 ** rng.integers(-30, 30, (n, sums))
    own, error = np.abs(value) * 2.0**-52, np.abs(value) * rng.random((n, sums)) * 2.0**-6
    tree, unit = orders.as_order(order).tree(n), U / (1 + U)
    found = along(value.copy(), own.copy(), error.copy(), tree, unit, 4)
    for k in range(sums):
        nodes = [tuple(map(Fraction, (v[i, k] for v in (value, own, error)))) for i in range(n)]
        squares, peak, rational = Fraction(0), max(abs(v) + o + e for v, o, e in nodes), Fraction(0)
        for left, right in tree.children.tolist():
            (a, oa, ea), (b, ob, eb) = nodes[left], nodes[right]
            size = abs(a + b) + oa + ob
            below = ea + eb
            local = min(Fraction(unit) * (size + below), abs(a) + oa + ea, abs(b) + ob + eb)
            nodes.append((a + b, oa + ob, below + local))
            squares, peak = squares + size**2, max(peak, size + below + local)
            rational = nodes[-1][2]
        exact = nodes[-1][0]
        assert abs(Fraction(found.value[k]) - exact) + nodes[-1][1] <= Fraction(found.own[k])
        assert found.own[k] <= 4 * n * 2.0**-52 * np.abs(value[:, k]).sum()
        for computed, theirs in (
            (found.error[k], rational),
            (found.squares[k], squares),
            (found.peak[k], peak),
        ):
            assert theirs <= Fraction(computed) <= theirs * (1 + Fraction(1, 10**9))


def test_the_walks_own_roundings_are_in_its_radius() -> None:
    """Exact terms whose float64 sum errs: by all that the radius allows, nearly."""
    u = FLOAT64.u
    terms = np.array([[1.0], *[[u]] * 8])
    nothing = np.zeros_like(terms)
    found = along(terms.copy(), nothing.copy(), nothing.copy(), orders.sequential(9), u, 53)
    missing = 8 * u
    assert float(found.value[0]) == 1.0 and missing <= found.own[0] <= 1.01 * missing


def test_nodes_are_told_apart() -> None:
    """1000 + 1 in p = 4 is swallowed; 10 + 3.3 is chance; and what is predicted is what happens."""
    tree = orders.sequential(3)
    terms = np.array([[16.0, 8.0], [1.0, 5.5], [1.0, 5.5]])
    nothing = np.zeros_like(terms)
    found = along(terms.copy(), nothing.copy(), nothing.copy(), tree, U / (1 + U), 4)
    assert found.certain[0] == pytest.approx(2.0, rel=0.07) and found.swallowed[0] == pytest.approx(
        2.0
    )
    assert found.independent[0] == 0 and found.drift[0] == 0
    assert found.certain[1] == 0 and found.independent[1] == pytest.approx(13.5**2 + 19**2)
    # 8 + 5.5 = 13.5 is a tie, 13 or 14; 14 + 5.5 = 19.5 rounds to 20, 13 + 5.5 = 18.5 to 18.
    assert found.drift[1] in (0.0, 1.0, 0.5)
    nothing = np.zeros(2)
    whole = Tree(found, found.error, nothing, nothing, nothing, 2, 2)
    size = np.array([18.0, 19.0])
    total = likely(Sums(Accumulator(P4), 3, 3, size, size, tree=lambda: whole), 0.5, 1)
    assert (total <= found.error).all() and total[0] >= 1.9


def test_predicted_errors_are_those_of_a_machine() -> None:
    rng = np.random.default_rng(0)
    a, b = (
        round_to(rng.random(500) * 2.0 ** rng.integers(-3, 3, 500), "float16") for _ in range(2)
    )
    np.testing.assert_array_equal(predicted(a, b, 11), round_to(a + b, "float16") - (a + b))
    a, b = rng.random(500), rng.random(500) * 2.0**-20
    exact = [float(Fraction(x) + Fraction(y) - Fraction(x + y)) for x, y in zip(a, b, strict=True)]
    np.testing.assert_array_equal(predicted(a, b, 53), -np.array(exact))


def test_terms_in_any_order() -> None:
    """At a largest sum of 16 and p = 4 spacings are 2: terms below 4 are small; 0.3 over a grid adds up."""
    terms = np.array([[3.9], [-0.1], [4.1], [0.0], [8.3], [5.0]])
    count, drift = in_any_order(terms, np.array([16.0]), U, 4)
    assert count == 2
    rest = terms[[2, 4, 5], 0]
    grids = [abs(sum(np.rint(rest / g) * g - rest)) for g in (2.0, 1.0, 0.5)]
    assert drift == pytest.approx(max(grids))
    many = np.full((100, 1), 5.3)
    assert in_any_order(many, np.array([16.0]), U, 4)[1] == pytest.approx(70.0)
    # What cancels on one grid, 0.9 - 0.45 - 0.45, adds up on the next: -0.1 - 0.45 - 0.45.
    finer = np.tile([[5.1], [6.45], [6.45]], (34, 1))
    assert in_any_order(finer, np.array([16.0]), U, 4)[1] == pytest.approx(34.0)
    products = in_any_order(np.array([[5.0]]), np.array([5.0]), U, 4, np.array([[0.25]]))[1]
    assert products == pytest.approx(0.25), "what a product lost, and no more"


# ------------------------------------------------------------------------------- exact numbers


def test_powers_and_grids() -> None:
    values = np.array([0.0, 1.0, -0.5, 3.0, 2.0**-1030, np.inf, np.nan, 1.5])
    assert powers_of_two(values).tolist() == [True, True, True, False, False, False, False, False]
    assert lowest_bits([12.0, -0.75, 2.0**-1074, 1 + 2.0**-52]).tolist() == [
        4.0,
        0.25,
        2.0**-1074,
        2.0**-52,
    ]
    assert without_rounding(16.0, 1.0, P4) and not without_rounding(17.0, 1.0, P4)
    assert not without_rounding(2.0**-8, P4.smallest_subnormal / 2, P4)
    assert not without_rounding(P4.max * 2, P4.max, P4)
    assert not without_rounding(2.0**53, 1.0, FLOAT64)


@pytest.mark.parametrize(
    "order", ["sequential", "reverse", "pairwise", "kahan", "neumaier", "sum2", "fma"]
)
def test_every_sum_on_a_grid_is_exact(order) -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-4, 5, (2000, 5)).astype(np.float64)
    found = bounds.sum(x, P4, order).certified
    error = np.abs(orders.sum_in_order(x, order, P4) - x.sum(axis=1))
    fits = np.abs(x).sum(axis=1) <= 16 * lowest_bits(x).min(axis=1)
    assert (error[found == 0] == 0).all() and (found[fits] == 0).all()
    assert ((found > 0) | fits).mean() > 0.99, "but where partial sums cancel"
