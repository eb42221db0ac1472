"""Explanations' parts: patterns of trees, replay, and the bounds along them."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from roundoff import orders
from roundoff.numbers.formats import as_format, round_to
from roundoff.orders.notation import pattern
from roundoff.orders.patterns import describe, parting
from roundoff.orders.trees import ReductionTree
from roundoff.probing.kernel_tree import KernelTree
from roundoff.probing.replay import partial_sums, replay, terms_of
from roundoff.probing.tightness import along_tree, any_order


def slice_then_conv(weight, bias, x):
    return F.conv1d(x[:, :, -5:], weight, bias)


def conv_then_slice(weight, bias, x):
    return F.conv1d(x, weight, bias)[:, :, -5:]


def squares(out):
    return (out**2).sum()


def problem(batch=4):
    generator = torch.Generator().manual_seed(3)
    make = lambda *shape: torch.randn(*shape, generator=generator)
    inputs = {"weight": make(6, 3, 1), "bias": make(6), "x": make(batch, 3, 20)}
    return {"inputs": inputs, "wrt": ("weight", "bias"), "loss": squares}


def random_tree(generator, n):
    pool, pairs = list(range(n)), []
    while len(pool) > 1:
        i, j = generator.choice(len(pool), 2, replace=False)
        pairs.append((pool[i], pool[j]))
        pool = [p for k, p in enumerate(pool) if k not in (i, j)] + [n + len(pairs) - 1]
    return ReductionTree(n, np.array(pairs, np.int64).reshape(-1, 2))


def random_kernel(generator, n, format, accumulate):
    """A binary kernel: of the two products of a pair one at most is fused."""
    tree = random_tree(generator, n)
    fused = generator.random(n) < 0.5
    for left, right in tree.children.tolist():
        if max(left, right) < n:
            fused[left] = False
    narrow = generator.random(n - 1) < 0.3
    narrow[-1:] = True
    if format == accumulate:
        narrow[:] = True
    else:
        fused[:] = True  # products are exact in the wide format
    none = np.zeros(n - 1, bool)
    return KernelTree(tree, fused, none, narrow, as_format(format), as_format(accumulate))


PAIRS = [
    ("float32", "float32"),
    ("float64", "float64"),
    ("float16", "float32"),
    ("bfloat16", "float32"),
]


# ------------------------------------------------------------------------------- patterns


@pytest.mark.parametrize(
    ("name", "n", "words", "text"),
    [
        ("sequential", 20, "sequential", "seq[0:20]"),
        ("reverse", 20, "sequential, backwards", "seq[19::-1]"),
        ("pairwise", 64, "pairwise", "pair(0, 64 times, +1)"),
        (
            "blocked(12)",
            96,
            "8 blocks of 12, sequential; the blocks in sequence",
            "seq(seq[0:12], 8 times, +12)",
        ),
        ("strided(8)", 64, "8 lanes of 8; the lanes in pairs", "pair(seq[0:64:8], 8 times, +1)"),
    ],
)
def test_named_orders_have_their_names(name, n, words, text):
    tree = orders.as_order(name).tree(n)
    assert describe(tree) == words
    assert pattern(tree) == text
    assert str(tree) == (text if n > 64 else str(tree))


def test_large_trees_print_as_patterns():
    assert str(orders.blocked(1000, 100)) == "seq(seq[0:100], 10 times, +100)"


@settings(deadline=None, max_examples=100)
@given(st.integers(1, 40), st.integers(0, 10**6))
def test_a_pattern_names_every_term_and_parting_tells_equal_from_other(n, seed):
    generator = np.random.default_rng(seed)
    tree, other = random_tree(generator, n), random_tree(generator, n)
    assert described_terms(pattern(tree)) == set(range(n))
    assert describe(tree)
    assert parting(tree, tree) is None
    flipped = ReductionTree(n, tree.children[:, ::-1])
    assert parting(tree, flipped) is None
    assert (parting(tree, other) is None) == tree.same_as(other)


def described_terms(text):
    """The terms that a pattern names, by reading it."""
    position = 0

    def expression():
        nonlocal position
        if text.startswith(("seq(", "pair("), position):
            kind = 4 if text.startswith("seq(", position) else 5
            position += kind
            inner = expression()
            end = text.index(")", position)
            count, shift = text[position + 2 : end].split(" times, ")
            position = end + 1
            shifts = [int(s) for s in shift.replace("+", " +").replace("-", " -").split()]
            if kind == 4 or len(shifts) == 1:
                return {t + k * shifts[0] for t in inner for k in range(int(count))}
            found = inner
            for step in shifts:
                found = found | {t + step for t in found}
            return found
        if text.startswith("(", position):
            position += 1
            found = expression()
            position += len(" then ")
            found |= expression()
            while text.startswith(", ", position):
                position += 2
                found |= expression()
            position += 1
            return found
        if text[position] in "s[":
            end = text.index("]", position)
            inside = text[text.index("[", position) + 1 : end]
            position = end + 1
            a, b, *c = inside.split(":")
            step = int(c[0]) if c else 1
            return set(range(int(a), int(b) if b else -1, step))
        end = position
        while end < len(text) and text[end].isdigit():
            end += 1
        found = {int(text[position:end])}
        position = end
        return found

    found = expression()
    assert position == len(text), text[position:]
    return found


# ------------------------------------------------------------------------------- replay


@pytest.mark.parametrize(("format", "accumulate"), PAIRS)
@pytest.mark.parametrize("seed", range(8))
def test_replay_is_its_definition_in_rational_arithmetic(format, accumulate, seed):
    generator = np.random.default_rng([1, seed])
    n = int(generator.integers(2, 30))
    kernel = random_kernel(generator, n, format, accumulate)
    x, y = round_to(
        generator.standard_normal((2, 50, n)) * 2.0 ** generator.integers(-6, 6, (2, 50, n)), format
    )
    a, b = terms_of(kernel, x.T), terms_of(kernel, y.T)
    found = replay(kernel, lambda k: (a[k], b[k]))
    for k in range(50):
        values, _ = partial_sums(kernel, x[k], y[k])
        assert found[k] == values[-1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_fused_multiply_add_of_replays_is_one(dtype, monkeypatch):
    from roundoff.probing import replay as room

    generator = np.random.default_rng(5)
    x, y = (torch.from_numpy(generator.standard_normal(4000)).to(dtype) for _ in range(2))
    z = -(x * y) + torch.from_numpy(generator.standard_normal(4000)).to(dtype) * 2.0**-20
    p = {torch.float32: 24, torch.float64: 53}[dtype]
    exact = [
        Fraction(a) * Fraction(b) + Fraction(c)
        for a, b, c in zip(*(v.tolist() for v in (x, y, z)), strict=True)
    ]
    expected = [float(room.round_rational(v, as_format(dtype))) for v in exact]
    assert as_format(dtype).precision == p
    assert room._fused(dtype)(x, y, z).tolist() == expected
    monkeypatch.setattr(room, "_hardware", lambda dtype: False)
    assert room._fused(dtype)(x, y, z).tolist() == expected


# ------------------------------------------------------------------------------- bounds


@pytest.mark.parametrize(("format", "accumulate"), PAIRS)
@pytest.mark.parametrize("seed", range(8))
def test_the_bound_along_the_tree_holds_and_is_the_smaller(format, accumulate, seed):
    generator = np.random.default_rng([2, seed])
    n = int(generator.integers(2, 40))
    kernel = random_kernel(generator, n, format, accumulate)
    x, y = round_to(generator.standard_normal((2, n)), format)
    values, _ = partial_sums(kernel, x, y)
    exact = sum(Fraction(a) * Fraction(b) for a, b in zip(x, y, strict=True))
    error = abs(Fraction(values[-1]) - exact)
    magnitudes = np.abs(x * y)
    along, wide = along_tree(kernel, magnitudes, True), any_order(kernel, magnitudes, True)
    assert error <= Fraction(float(along))
    assert error <= Fraction(float(wide))


def test_the_bound_along_a_tree_is_attained_to_first_order():
    # n - 1 roundings of u each: 1 + u + ... + u in bfloat16, where every addition of u is lost.
    n, format = 40, as_format("bfloat16")
    tree = orders.sequential(n)
    none = np.zeros(n - 1, bool)
    kernel = KernelTree(tree, np.zeros(n, bool), none, ~none, format, format)
    x = np.full(n, format.u)
    x[0] = 1.0
    values, _ = partial_sums(kernel, x)
    error = x.sum() - values[-1]
    assert 0.8 * along_tree(kernel, x, False) <= error <= along_tree(kernel, x, False)


def test_pairwise_trees_have_much_smaller_bounds_than_any_order():
    n, format = 256, as_format("float32")
    none = np.zeros(n - 1, bool)
    kernel = KernelTree(orders.pairwise(n), np.zeros(n, bool), none, ~none, format, format)
    ones = np.ones(n)
    assert 20 < any_order(kernel, ones, False) / along_tree(kernel, ones, False) < 40
