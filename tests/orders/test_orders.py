"""Trees and sums against plain scalar loops in hardware arithmetic, NumPy, and rational numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scalar import by_rational, scalar_compensated

import roundoff as ro
from roundoff import orders
from roundoff.numbers import machines
from roundoff.numbers.formats import Format
from roundoff.orders import families

TOY = Format("toy", 5, -10, 11)
ALL = [*ro.FORMATS, TOY]
TREES = [name for name in orders.names() if name not in orders.EVALUATIONS]


def scalar_sum(values, tree, target) -> float:
    """The definition: node by node, one element at a time."""
    node = [float(v) for v in values]
    for left, right in tree.children.tolist():
        a, b = node[left], node[right]
        exact = math.isfinite(a) and math.isfinite(b)
        node.append(by_rational(Fraction(a) + Fraction(b), target) if exact else a + b)
    return node[-1]


def terms(rng, shape, target, spread=6):
    x = rng.standard_normal(shape) * 2.0 ** rng.integers(-spread, spread, shape)
    return ro.round_to(x, target)


@pytest.mark.parametrize("target", ALL, ids=str)
@pytest.mark.parametrize("name", TREES)
def test_sums_are_scalar_sums(name, target) -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 3, 7, 8, 9, 20, 33):
        x = terms(rng, (4, n), target, 2)
        tree = orders.as_order(name).tree(n)
        expected = [scalar_sum(row, tree, target) for row in x]
        np.testing.assert_array_equal(ro.sum_in_order(x, name, target), expected)
        np.testing.assert_array_equal(ro.sum_in_order(x, tree, target), expected)


@pytest.mark.parametrize("target", [ro.FLOAT16, ro.FLOAT8_E5M2, ro.FLOAT8_E4M3FN, TOY], ids=str)
def test_sums_overflow_where_a_partial_sum_does(target) -> None:
    x = np.array([[0.75 * target.max] * 3 + [-0.75 * target.max] * 2, [0.25, 0.5, 1, 2, 4]])
    x = ro.round_to(x, target)
    for name in ("sequential", "pairwise", "reverse"):
        tree = orders.as_order(name).tree(5)
        expected = [scalar_sum(row, tree, target) for row in x]
        np.testing.assert_array_equal(ro.sum_in_order(x, name, target), expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sums_are_numpys(dtype) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((100, 7)).astype(dtype)
    name = str(np.dtype(dtype))
    np.testing.assert_array_equal(ro.sum_in_order(x, "sequential", name), np.sum(x, axis=1))
    y = rng.standard_normal((100, 300)).astype(dtype)
    np.testing.assert_array_equal(
        ro.sum_in_order(y, "sequential", name), np.cumsum(y, axis=1, dtype=dtype)[:, -1]
    )
    np.testing.assert_array_equal(
        ro.sum_in_order(y, "reverse", name), np.cumsum(y[:, ::-1], axis=1, dtype=dtype)[:, -1]
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sums_are_torch_loops(dtype) -> None:
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((50, 40))).to(dtype)
    total = x[:, 0].clone()
    for k in range(1, 40):
        total = total + x[:, k]
    ours = ro.sum_in_order(x.double().numpy(), "sequential", dtype)
    np.testing.assert_array_equal(ours, total.double().numpy())


def test_tensors_of_any_format_come_back_as_tensors() -> None:
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.bfloat16, requires_grad=True)
    for found in (
        ro.sum_in_order(x, "pairwise", "bfloat16"),
        ro.dot_in_order(x, torch.ones(2), "fma", "float16"),
    ):
        assert isinstance(found, torch.Tensor) and found.dtype == torch.float64
        assert found.tolist() == [3.0, 7.0]


def scalar_dot(x, y, target, wide, fma) -> float:
    """A sequential dot product in rational numbers, rounded where a kernel would; infinities stay."""
    exact = lambda number: Fraction(number) if math.isfinite(number) else number
    rounded = lambda number, to: by_rational(number, to) if math.isfinite(number) else number
    total = by_rational(Fraction(x[0]) * Fraction(y[0]), wide)
    for a, b in zip(x[1:], y[1:], strict=True):
        product = Fraction(a) * Fraction(b)
        if not fma:
            product = exact(by_rational(product, wide))
        total = rounded(exact(total) + product, wide)
    return rounded(exact(total), target)


@pytest.mark.parametrize("fma", [False, True])
@pytest.mark.parametrize(
    ("target", "wide"),
    [(f, f) for f in ALL]
    + [(ro.FLOAT16, ro.FLOAT32), (ro.BFLOAT16, ro.FLOAT32), (ro.FLOAT8_E5M2, ro.FLOAT16)],
    ids=str,
)
def test_dots_are_scalar_dots(target, wide, fma) -> None:
    rng = np.random.default_rng(3)
    x, y = terms(rng, (30, 9), target, 2), terms(rng, (30, 9), target, 2)
    expected = [scalar_dot(a, b, target, wide, fma) for a, b in zip(x, y, strict=True)]
    found = ro.dot_in_order(x, y, "sequential", target, fma=fma, accumulate=wide)
    np.testing.assert_array_equal(found, expected)
    if fma:
        np.testing.assert_array_equal(
            ro.dot_in_order(x, y, "fma", target, accumulate=wide), expected
        )


@given(st.lists(st.floats(width=64, allow_nan=False, allow_infinity=False), min_size=3, max_size=3))
def test_float64_fused_multiply_add_is_one_rounding(values) -> None:
    a, b, c = values
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    found = machines.fused_multiply_add(*(np.array([v]) for v in values), ro.FLOAT64)[0]
    try:
        expected = float(exact)
    except OverflowError:
        expected = math.inf if exact > 0 else -math.inf
    assert found == expected


def test_fused_multiply_add_of_halfway_cases() -> None:
    a, b = 1 + 2.0**-30, 1 + 2.0**-30
    for c in (-(1 + 2.0**-29), 2.0**53, 2.0**60, -1.0, 2.0**-70, 1 + 2.0**-52):
        expected = float(Fraction(a) * Fraction(b) + Fraction(c))
        arrays = (np.array([v]) for v in (a, b, c))
        assert machines.fused_multiply_add(*arrays, ro.FLOAT64)[0] == expected
    # Just below halfway, by less than the sum in 53 bits can show: to odd, not to nearest even.
    below = (1 + 2.0**-27, 1 - 2.0**-27, 2.0**53 + 2)
    assert (
        machines.fused_multiply_add(*(np.array([v]) for v in below), ro.FLOAT64)[0] == 2.0**53 + 2
    )
    below = (2.0**-12 * (1 + 2.0**-18), 2.0**-12 * (1 - 2.0**-18), 1 + 2.0**-23)
    assert (
        machines.fused_multiply_add(*(np.array([v]) for v in below), ro.FLOAT32)[0] == 1 + 2.0**-23
    )
    # float32: 1 + 2^-24 is halfway, and the product decides by its lowest bit.
    x = np.array([1.0 + 2.0**-23]), np.array([2.0**-24]), np.array([1.0])
    assert machines.fused_multiply_add(*x, ro.FLOAT32)[0] == 1.0 + 2.0**-23


def test_compensated_sums() -> None:
    # Check values of the design: Kahan loses what Neumaier keeps.
    x = [1.0, 2.0**60, 1.0, -(2.0**60)]
    assert ro.sum_in_order(x, "kahan", "float32") == 0.0
    assert ro.sum_in_order(x, "neumaier", "float32") == 2.0
    assert ro.sum_in_order(x, "sum2", "float32") == 2.0
    rng = np.random.default_rng(4)
    for target in (ro.FLOAT32, ro.BFLOAT16, TOY):
        y = terms(rng, (20, 50), target, 1)
        for name in orders.COMPENSATIONS:
            expected = [scalar_compensated(row, target, name) for row in y]
            np.testing.assert_array_equal(ro.sum_in_order(y, name, target), expected)


def test_check_values() -> None:
    # x_i = fl(1/i), i = 1..1000, float32, errors in units of u: recomputed with two programs.
    x = ro.round_to(1.0 / np.arange(1, 1001), "float32")
    exact, u = math.fsum(x), 2.0**-24
    assert (ro.sum_in_order(x, "sequential", "float32") - exact) / u == pytest.approx(
        125.449, abs=1e-3
    )
    assert (ro.sum_in_order(x, "pairwise", "float32") - exact) / u == pytest.approx(
        -2.5508, abs=1e-4
    )
    # Sums of ones and harmonic sums stop growing.
    stops = {"float8_e5m2": 8, "float8_e4m3fn": 16, "bfloat16": 256, "float16": 2048}
    for name, stop in stops.items():
        assert ro.sum_in_order(np.ones(3000), "sequential", name) == stop
    harmonic = {"float8_e5m2": 2.0, "float8_e4m3fn": 3.0, "bfloat16": 5.0625, "float16": 7.0859375}
    for name, stop in harmonic.items():
        y = ro.round_to(1.0 / np.arange(1, 1001), name)
        assert ro.sum_in_order(y, "sequential", name) == stop


@pytest.mark.parametrize("name", TREES)
@given(n=st.integers(1, 70), data=st.data())
def test_trees_are_trees(name, n, data) -> None:
    tree = orders.as_order(name).tree(n)
    assert tree.n == n and tree.children.shape == (n - 1, 2)
    assert sum(Fraction(1, 2 ** int(d)) for d in tree.depths) == 1  # Kraft: a full binary tree
    assert tree.height == max(tree.depths, default=0)
    kept = data.draw(st.sets(st.integers(0, n - 1), min_size=1))
    x = np.arange(1.0, n + 1)
    small = tree.restrict(kept)
    padded = np.where(np.isin(np.arange(n), list(kept)), 1.0 / x, 0.0)
    for target in ("bfloat16", "float64"):
        whole = ro.sum_in_order(padded, tree, target)
        assert ro.sum_in_order(padded[sorted(kept)], small, target) == whole


def test_heights() -> None:
    assert orders.sequential(9).height == orders.reverse(9).height == 8
    for n in range(1, 130):
        assert orders.pairwise(n).height == math.ceil(math.log2(n))
    assert orders.blocked(64, 8).height == 7 + 7
    assert orders.strided(64, 8).height == 7 + 3


def test_sameness_ignores_left_and_right() -> None:
    a = orders.ReductionTree(3, np.array([[0, 1], [3, 2]]))
    b = orders.ReductionTree(3, np.array([[1, 0], [2, 3]]))
    assert a.same_as(b)
    assert not a.same_as(orders.reverse(3))
    assert not a.same_as(orders.sequential(4))
    assert str(orders.blocked(5, 2)) == "((0+1)+(2+3))+4"


@pytest.mark.parametrize("family", orders.FAMILIES)
def test_families_refuse_what_is_no_number_of_terms(family) -> None:
    function, examples = orders.FAMILIES[family]
    for n in (0, 2.5, orders.MOST_LEAVES + 1):
        with pytest.raises(ro.ArgumentError, match="the number of terms is"):
            function(n, *examples)
    if examples:
        with pytest.raises(ro.ArgumentError, match="is -1"):
            function(3, -1)


def test_a_new_family_is_picked_up(monkeypatch) -> None:
    def outside_in(n: int) -> orders.ReductionTree:
        order = [k // 2 if k % 2 == 0 else n - 1 - k // 2 for k in range(n)]
        return orders.sequential(n).permute(order)

    monkeypatch.setitem(orders.FAMILIES, "outside-in-2", (outside_in, ()))
    assert "outside-in-2" in orders.names()
    assert ro.sum_in_order([1.0, 2.0, 4.0], "outside-in-2", "float16") == 7.0
    families._named.cache_clear()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: orders.as_order("zigzag"), "'zigzag'.*pairwise"),
        (lambda: orders.as_order("blocked"), "'blocked'.*blocked\\(k\\)"),
        (lambda: orders.as_order("blocked(0)"), "block is 0"),
        (lambda: orders.as_order("sequential(3)"), "sequential\\(3\\)"),
        (lambda: orders.sequential(0), "terms is 0"),
        (lambda: orders.shuffled(3, -1), "seed is -1"),
        (lambda: ro.sum_in_order([], "sequential", "float32"), "no terms"),
        (
            lambda: ro.sum_in_order([1.0, 2.0], orders.pairwise(3), "float32"),
            "3 leaves for 2 terms",
        ),
        (
            lambda: ro.dot_in_order([1.0], [1.0], "fma", "float32", accumulate="float16"),
            "float16 cannot hold",
        ),
        (lambda: ro.ReductionTree(3, np.array([[0, 1], [0, 2]])), "twice or not at all"),
        (lambda: ro.ReductionTree(3, np.array([[0, 4], [1, 2]])), "not formed yet|twice"),
        (lambda: ro.sum_in_order([1.0], "sequential", Format("x", 40, -100, 100)), "p <= 25"),
    ],
)
def test_bad_input_is_named(call, words) -> None:
    with pytest.raises(ro.RoundoffError, match=words):
        call()


def test_long_trees_need_no_recursion() -> None:
    tree = orders.reverse(20_000)
    assert tree.height == 19_999 and str(tree) == "seq[19999::-1]"
    assert ro.sum_in_order(np.ones(20_000), tree, "float64") == 20_000
