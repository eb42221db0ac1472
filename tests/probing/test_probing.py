"""Reduction trees of kernels: software kernels with known trees come back; the gate rejects what has none.

The software kernels below do their arithmetic with Fraction and `round_to`, and share no code with
recovery or replay.
"""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from trees import kernel_subtrees, nodes_of, random_nodes, subtrees

import roundoff as ro
from roundoff import orders
from roundoff.errors import ArgumentError, UndecidedError, UnsupportedError
from roundoff.numbers.formats import as_format, round_to
from roundoff.probing.buffers import Buffer
from roundoff.probing.gradient_reductions import Gradients

# ------------------------------------------------------------------------------- round trips


class Software:
    """A kernel in rational arithmetic: a tree of several children, products fused or not."""

    def __init__(self, nodes, n, format, fused=None, accumulate=None, narrow=(), kept=0):
        self.nodes, self.n, self.kept = nodes, n, kept
        self.format, self.wide = as_format(format), as_format(accumulate or format)
        self.fused, self.narrow = fused, set(narrow)

    def __call__(self, x, y=None):
        a = [
            Fraction(v)
            for v in np.asarray(x.double().numpy() if hasattr(x, "double") else x, float)
        ]
        if (self.fused is not None) != (y is not None):
            raise TypeError("another number of vectors")
        if y is not None:
            b = [Fraction(v) for v in y.double().numpy()]
            a = [
                p * q if fused else nearest(p * q, self.wide)
                for p, q, fused in zip(a, b, self.fused, strict=True)
            ]
        sums = []
        for k, children in enumerate(self.nodes):
            terms = [a[c] if c >= 0 else sums[~c] for c in children]
            if len(terms) > 2:
                terms = aligned(terms, self.kept)
            total = sum(terms, Fraction(0))
            total = nearest(total, self.wide)
            sums.append(nearest(total, self.format) if k in self.narrow else total)
        result = sums[-1] if sums else nearest(a[0], self.wide)
        return torch.tensor(float(nearest(result, self.format)), dtype=torch.float64)


def aligned(terms, kept):
    """Cut off `kept` bits below the leading bit of the largest term, as tensor cores do."""
    largest = max(map(abs, terms))
    if largest == 0:
        return terms
    exponent = largest.numerator.bit_length() - largest.denominator.bit_length()
    exponent -= Fraction(2) ** exponent > largest
    unit = Fraction(2) ** (exponent - kept)
    return [(abs(t) // unit) * unit * (1 if t > 0 else -1) for t in terms]


def nearest(value, target):
    """Round to nearest, ties to even, from the definition of a format."""
    if value == 0:
        return value
    exponent = abs(value.numerator).bit_length() - value.denominator.bit_length()
    if Fraction(2) ** exponent > abs(value):
        exponent -= 1
    spacing = Fraction(2) ** (max(exponent, target.emin) - target.precision + 1)
    return round(value / spacing) * spacing  # Fraction rounds ties to even


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("format", ["float32", "float64"])
def test_round_trip_of_random_trees_with_fused_products(seed, format):
    generator = np.random.default_rng([7, seed])
    n = int(generator.integers(2, 40))
    nodes = random_nodes(generator, n, 2)
    fused = generator.random(n) < 0.5
    for children in nodes:
        if all(c >= 0 for c in children):
            fused[children[0]] = False  # one multiply-add fuses one product
    found = ro.reveal(Software(nodes, n, format, fused), n, format)
    assert found.proven, str(found)
    assert kernel_subtrees(found.kernel) == subtrees(nodes)
    np.testing.assert_array_equal(found.kernel.fused, fused)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kept", [23, 25])
def test_round_trip_of_nodes_with_several_terms(seed, kept):
    generator = np.random.default_rng([8, seed])
    n = int(generator.integers(3, 60))
    nodes = random_nodes(generator, n, 5)
    found = ro.reveal(Software(nodes, n, "float32", kept=kept), n, "float32")
    assert found.proven, str(found)
    assert kernel_subtrees(found.kernel) == subtrees(nodes)
    assert found.kernel.kept == kept or all(len(children) == 2 for children in nodes)


@pytest.mark.parametrize("format", ["float16", "bfloat16"])
@pytest.mark.parametrize("seed", range(4))
def test_round_trip_of_narrow_roundings_in_wide_sums(format, seed):
    generator = np.random.default_rng([9, seed])
    n = int(generator.integers(4, 40))
    nodes = random_nodes(generator, n, 2)
    narrow = [k for k in range(len(nodes) - 1) if generator.random() < 0.3]
    found = ro.reveal(Software(nodes, n, format, None, "float32", narrow), n, format)
    assert found.proven, str(found)
    assert kernel_subtrees(found.kernel) == subtrees(nodes)
    sizes = {frozenset(s) for s in narrow_sets(nodes, narrow)}
    assert narrow_subtrees(found.kernel) == sizes


def narrow_sets(nodes, narrow):
    found = []
    for children in nodes:
        found.append(frozenset().union(*({c} if c >= 0 else found[~c] for c in children)))
    return [found[k] for k in {*narrow, len(nodes) - 1}]


def narrow_subtrees(kernel):
    found = [frozenset({k}) for k in range(kernel.n)]
    for left, right in kernel.tree.children.tolist():
        found.append(found[left] | found[right])
    return {s for s, flag in zip(found[kernel.n :], kernel.narrow, strict=True) if flag}


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32"])
def test_sums_kept_in_the_format_itself(format):
    nodes = nodes_of(orders.strided(30, 4))
    found = ro.reveal(Software(nodes, 30, format), 30, format)
    assert found.proven, str(found)
    assert found.kernel.accumulate == found.kernel.format
    assert kernel_subtrees(found.kernel) == subtrees(nodes)


def test_float32_terms_summed_in_float64_are_told():
    nodes = nodes_of(orders.sequential(20))
    found = ro.reveal(Software(nodes, 20, "float32", None, "float64"), 20, "float32")
    assert found.proven, str(found)
    assert str(found.kernel.accumulate) == "float64"


@pytest.mark.parametrize(
    ("family", "n"),
    [
        ("pairwise", 2000),
        ("blocked(50)", 2000),
        ("strided(8)", 2000),
        ("reverse", 300),
        ("shuffled(1)", 300),
    ],
)
@pytest.mark.parametrize("format", ["float32", "bfloat16"])
def test_round_trip_of_the_families(family, n, format):
    if format == "bfloat16":
        n = min(n, 300)  # 256 units at a time: more questions
    if family == "random":
        nodes = random_nodes(np.random.default_rng(n), n, 2)
        pairs = [[c if c >= 0 else n + ~c for c in children] for children in nodes]
        tree = orders.ReductionTree(n, np.array(pairs))
    else:
        tree = orders.as_order(family).tree(n)

    def kernel(v):
        return ro.sum_in_order(v, tree, format)

    found = ro.reveal(kernel, n, format)
    assert found.proven, str(found)
    assert found.tree.same_as(tree)


# ------------------------------------------------------------------------------- the gate


def atomics(v):
    order = torch.randperm(len(v))
    return v[order].cumsum(0)[-1]


def kahan(v):
    total = carry = torch.zeros((), dtype=v.dtype)
    for term in v:
        y = term - carry
        t = total + y
        carry = (t - total) - y
        total = t
    return total


def by_size(v):
    return v[torch.argsort(v.abs())].cumsum(0)[-1]


def winograd(a, b):
    """Two products from sums and differences of neighbours, as transformed kernels have them."""
    x, y, p, q = a[0::2], a[1::2], b[0::2], b[1::2]
    return (((x + y) * (p + q) + (x - y) * (p - q)) / 2).cumsum(0)[-1]


def fourier(a, b):
    """A dot product as element n - 1 of a convolution by the fast Fourier transform."""
    size = 2 * len(a)
    return torch.fft.irfft(torch.fft.rfft(a, size) * torch.fft.rfft(b.flip(0), size), size)[
        len(a) - 1
    ]


def skipping(v):
    """Leaves out what is small beside the largest term."""
    return torch.where(v.abs() > 1e-3 * v.abs().max(), v, 0 * v).cumsum(0)[-1]


def exact(v):
    return torch.tensor(float(sum(map(Fraction, v.tolist()))), dtype=v.dtype)


def constant(v):
    return torch.ones(())


def nonlinear(v):
    return (v * v).sum()


@pytest.mark.parametrize(
    "kernel",
    [atomics, kahan, by_size, winograd, fourier, skipping, exact, constant, nonlinear],
    ids=lambda k: k.__name__,
)
def test_what_is_no_fixed_tree_fails_the_gate_and_says_so(kernel):
    found = ro.reveal(kernel, 24, "float32")
    assert not found.proven
    assert "not a fixed tree on this path" in str(found) and "tried" in str(found)
    assert not found.classes
    with pytest.raises(UndecidedError, match="not a fixed tree"):
        _ = found.tree


def test_a_tree_that_replays_most_of_the_time_is_not_proven():
    calls = iter(range(10**6))

    def nearly(v):
        forward = v.cumsum(0)[-1]
        return (
            v.flip(0).cumsum(0)[-1]
            if next(calls) % 50 == 49 and (v != v.round()).any()
            else forward
        )

    assert not ro.reveal(nearly, 30, "float64").proven


@pytest.mark.parametrize("n", [1, 2, 3, 8, 100, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_sums_of_torch_are_proven(n, dtype):
    found = ro.reveal(torch.sum, n, dtype)
    assert found.proven, str(found)
    assert found.tree.n == n


@pytest.mark.parametrize(
    ("n", "dtype"), [(300, "float32"), (300, "float64"), (300, "bfloat16"), (20, "float16")]
)
def test_means_divide_by_the_number_of_terms(n, dtype):
    found = ro.reveal(torch.mean, n, dtype)
    assert found.proven, str(found)
    assert found.kernel.divisor == n


@pytest.mark.parametrize("function", [np.sum, np.mean, np.cumsum, np.dot])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reductions_of_numpy_are_proven(function, dtype):
    found = ro.reveal(function, 40, dtype)
    assert found.proven, str(found)


def test_numpy_adds_eight_lanes():
    # FACTS: NumPy's own sum, the same on every machine: 8 lanes, then ((0+1)+(2+3))+((4+5)+(6+7)).
    found = ro.reveal(np.sum, 19, np.float64)
    assert str(found.tree) == (
        "(((((0+8)+(1+9))+((2+10)+(3+11)))+(((4+12)+(5+13))+((6+14)+(7+15))))+16)+17)+18".replace(
            "(((((0+8)", "((((((0+8)", 1
        )
    )


def test_every_output_of_cumsum_has_its_own_terms():
    found = ro.reveal(lambda v: v.cumsum(0), 12, "float64")
    assert found.proven
    assert sorted(c.tree.n for c in found.classes) == list(range(1, 13))


def problem(format=torch.float32, length=9, channels=4):
    generator = torch.Generator().manual_seed(1)
    make = lambda *shape: torch.randn(*shape, generator=generator).to(format)
    return {"weight": make(5, channels, 3), "bias": make(5), "x": make(3, channels, length)}


def conv(weight, bias, x):
    return F.conv1d(x, weight, bias, padding=1)


def late(weight, bias, x):
    return F.conv1d(x, weight, bias, padding=1)[:, :, -4:]


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("function", [conv, late])
@pytest.mark.parametrize("wrt", ["weight", "bias", "x"])
def test_convolution_gradients_are_proven_or_refused_never_guessed(function, format, wrt):
    found = ro.reveal_gradient(function, problem(), wrt, format)
    total = sum(len(c.outputs) for c in found.classes) + len(found.unproven)
    elements = np.concatenate([*(c.outputs for c in found.classes), found.unproven])
    assert len(np.unique(elements)) == total == len(elements)
    assert all(c.matched == c.replayed >= 85 * len(c.outputs) for c in found.classes)
    if not found.proven:  # another machine's kernel
        assert "not a fixed tree" in str(found)


def test_padding_leaves_no_leaves():
    found = ro.reveal_gradient(conv, problem(), "weight", "float32")
    if found.proven:
        # The outer taps meet one zero of padding per sample.
        assert {c.tree.n for c in found.classes} == {3 * 9, 3 * 8}


def test_layouts_are_the_users_own():
    x = torch.randn(1 + 6 * 40)[1:].view(6, 40)[:, ::2]
    inputs = {"x": x, "w": torch.randn(20, 3)}
    own = Gradients(lambda x, w: x @ w, inputs, None, "float32").buffers["x"].tensor
    assert own.stride() == x.stride() and own.data_ptr() % 64 == x.data_ptr() % 64
    torch.testing.assert_close(own, x, rtol=0, atol=0)
    expanded = torch.randn(20).expand(6, 20)
    buffer = Buffer(expanded, as_format("float32"))
    buffer.put(expanded.double().numpy().ravel())
    assert buffer.tensor.stride() == (0, 1) and torch.equal(buffer.tensor, expanded)
    found = ro.reveal_gradient(lambda x, w: x @ w, inputs, "w", "float32")
    assert found.proven or "not a fixed tree" in str(found)


def test_gradients_that_are_several_sums_are_refused():
    def two(x, w):
        return (x @ w) @ w

    def computed(x, w):
        return torch.relu(x) @ w

    inputs = {"x": torch.randn(4, 4), "w": torch.randn(4, 4)}
    for function, wrt, match in [
        (two, "w", "more than one reduction|no input"),
        (computed, "w", "no input"),
    ]:
        with pytest.raises(UnsupportedError, match=match):
            ro.reveal_gradient(function, inputs, wrt)


def test_bad_arguments_say_what_to_do():
    with pytest.raises(ArgumentError, match="a whole number from 1"):
        ro.reveal(torch.sum, 0)
    with pytest.raises(ArgumentError, match="neither one vector"):
        ro.reveal(lambda: 1, 3)
    with pytest.raises(ArgumentError, match="return a number"):
        ro.reveal(lambda v: "sum", 3)
    with pytest.raises(ArgumentError, match="from 64"):
        ro.reveal(torch.sum, 3, trials=5)
    with pytest.raises(UnsupportedError, match="cannot be probed"):
        ro.reveal(torch.sum, 3, "float8_e5m2")
    with pytest.raises(ArgumentError, match="gradients are by"):
        ro.reveal_gradient(conv, problem(), "weights")
    with pytest.raises(ArgumentError, match="must be equal"):
        ro.reveal_gradient(conv, problem(), "weight", upstream=torch.ones(3))


def test_flushing_to_zero_is_refused_for_float16():
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor does not flush")
    try:
        with pytest.raises(UnsupportedError, match="flushed to zero"):
            ro.reveal(torch.sum, 5, "float16")
    finally:
        torch.set_flush_denormal(False)


@given(st.fractions(min_value=-100, max_value=100))
def test_the_software_kernels_round_as_formats_do(value):
    value = Fraction(float(value))
    for name in ("float16", "bfloat16", "float32"):
        target = as_format(name)
        assert float(nearest(value, target)) == float(round_to(np.array([float(value)]), target)[0])
