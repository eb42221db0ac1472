"""Patterns, replays, bounds along recovered trees, explanations and the report on kernels."""

import itertools

import kernels as experiment
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from kernels_findings import kernels_report
from kernels_rows import kernels

import roundoff as ro
from roundoff.errors import ArgumentError
from roundoff.judging.explanation import Cause, Explanation
from roundoff.numbers.formats import as_format
from roundoff.orders.trees import ReductionTree
from roundoff.probing import Revealed, TreeClass
from roundoff.probing.kernel_tree import KernelTree, differences
from roundoff.report import figures
from roundoff.report.findings.why import tree_rows, why_figure, why_notes, why_tables


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


# ------------------------------------------------------------------------------- explain


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32", "float64"])
def test_the_thread_is_explained_or_says_what_is_missing(format):
    why = ro.explain(slice_then_conv, conv_then_slice, **problem(), format=format)
    text = str(why)
    assert set(why.trees) == {"weight", "bias"}
    for cause in why.causes.values():
        forth, back, of = cause.swapped
        known = all(side.proven for side in cause.trees)
        if known:  # the trees are the kernels': then swapping them must give the other's bits
            assert cause.terms_alike and forth == back == of == cause.elements, text
            assert cause.proven
            assert min(cause.tighter) >= 1
        if cause.equal < cause.elements and known:
            assert "exactly the other's bits" in why.sentence or why.forward[0] < why.forward[1]
    assert text.startswith(why.sentence)
    assert "threads" in text and "layout of x" in text
    assert "USDT" not in text


def test_functions_that_add_other_products_are_not_called_proven():
    def halves(weight, bias, x):
        return F.conv1d(2 * x[:, :, -5:], weight, bias) / 2

    why = ro.explain(slice_then_conv, halves, **problem())
    assert not why.proven
    assert "nothing to explain" in why.sentence or "not proven" in why.sentence


def test_another_function_is_no_other_order():
    def other(weight, bias, x):
        return F.conv1d(x[:, :, -6:-1], weight, bias)

    why = ro.explain(slice_then_conv, other, **problem())
    assert not why.proven and not why.causes["weight"].proven
    assert "not proven" in why.sentence
    assert "do not add the same products" in why.sentence or "no fixed tree" in why.sentence


def test_outputs_that_differ_are_named_first():
    def scaled(weight, bias, x):
        return slice_then_conv(weight, bias, x) + 1.0

    why = ro.explain(slice_then_conv, scaled, **problem())
    assert why.forward[0] < why.forward[1]
    assert "differ in" in why.sentence


# The roundings of random kernels: (format, accumulator, fused, rounded partial sums).
ROUNDINGS = {
    "plain": ("float32", "float32", False, False),
    "fused": ("float32", "float32", True, False),
    "wide": ("float32", "float64", True, False),
    "wide, rounded": ("float32", "float64", True, True),
    "mean": ("float32", "float32", False, False),
}


def rounding_kernel(name, tree):
    format, accumulate, fused, rounded = ROUNDINGS[name]
    n = tree.n
    flags = np.zeros(n, bool)
    if fused:  # the later of two products, and every product that meets a sum
        for left, right in tree.children.tolist():
            flags[[k for k in (left, right) if k < n][-1:]] = True
        if accumulate != format:
            flags[:] = True
    narrow = np.full(n - 1, format == accumulate)
    narrow[0] |= rounded
    none = np.zeros(n - 1, bool)
    return KernelTree(tree, flags, none, narrow, as_format(format), as_format(accumulate),
                      divisor=n if name == "mean" else None)  # fmt: skip


def expected_kinds(one, two, reordered):
    """What the names of two roundings say of their difference."""
    kinds = {"order"} if reordered else set()
    sides = {one, two}
    if ROUNDINGS[one][1] != ROUNDINGS[two][1]:
        kinds.add("accumulator")
    elif ROUNDINGS[one][2] != ROUNDINGS[two][2]:
        kinds.add("products")
    if sides == {"wide", "wide, rounded"}:
        kinds.add("partial sums")
    if "mean" in sides and one != two:
        kinds.add("division")
    return kinds


SAID = {
    "order": "in different orders",
    "accumulator": "keeps its sums in float64",
    "products": "fused multiply-add",
    "partial sums": "partial sums to float32",
    "division": "divides the sum by",
}


def headline_of(apart):
    """The sentence of an explanation whose trees are these."""
    sides = tuple(
        Revealed((TreeClass(kernel, np.arange(kernel.n), np.array([0]), 1, 1),), (), np.empty(0, np.int64),
                 (1,), 64, 1)
        for kernel in apart
    )  # fmt: skip
    cause = Cause(
        "w", 1, 0, 0, sides, "", True, (1, 1, 1), "", ("", ""), (1.0, 1.0), ((), ()), (apart,)
    )
    why = Explanation(("one", "two"), as_format("float32"), (1, 1), {"w": cause}, {})
    assert cause.proven
    return why.sentence


@pytest.mark.parametrize("second", ROUNDINGS)
@pytest.mark.parametrize("first", ROUNDINGS)
@pytest.mark.parametrize("reordered", [False, True])
def test_the_headline_names_what_the_trees_differ_in_and_nothing_else(first, second, reordered):
    if first == second and not reordered:
        return
    for seed in range(8):
        generator = np.random.default_rng([3, seed])
        tree = random_tree(generator, 9)
        other = tree
        while reordered and other.same_as(tree):
            other = random_tree(generator, 9)
        apart = rounding_kernel(first, tree), rounding_kernel(second, other)
        kinds = expected_kinds(first, second, reordered)
        assert set(differences(*apart)) == kinds == set(differences(*apart[::-1]))
        assert bool(kinds) == (not apart[0].same_as(apart[1]))
        text = headline_of(apart)
        assert "exactly the other's bits" in text
        for kind, words in SAID.items():
            assert (words in text) == (kind in kinds), (kind, text)
        assert ("in the same order" in text) == ("order" not in kinds)
        assert ("rounding depends on the order" in text) == (kinds == {"order"})


def plain_linear(w, x):
    return F.linear(x, w)


def double_linear(w, x):
    return F.linear(x.double(), w.double()).float()


def reversed_linear(w, x):
    return F.linear(x.flip(0), w).flip(0)


def reversed_double(w, x):
    return F.linear(x.double().flip(0), w.double()).flip(0).float()


FORMS = (plain_linear, double_linear, reversed_linear, reversed_double)


@pytest.mark.parametrize("rows", [3, 24])
@pytest.mark.parametrize(
    "pair",
    list(itertools.combinations(FORMS, 2)),
    ids=lambda p: f"{p[0].__name__}, {p[1].__name__}",
)
def test_the_headline_of_real_kernels_agrees_with_the_evidence_below_it(pair, rows):
    for seed in range(4):
        generator = torch.Generator().manual_seed(seed)
        w, x, upstream = (
            torch.randn(*shape, generator=generator) for shape in ((2, 1), (rows, 1), (rows, 2))
        )
        why = ro.explain(*pair, inputs={"w": w, "x": x}, wrt=("w",), upstream=upstream)
        cause = why.causes["w"]
        for one, two in cause.apart:  # the evidence: trees over the same leaves
            assert not one.same_as(two)
        if cause.equal == cause.elements or not cause.proven:
            continue
        kinds = {kind for trees in cause.apart for kind in differences(*trees)}
        assert kinds
        for kind, words in SAID.items():
            if kind != "products":
                assert (words in why.sentence) == (kind in kinds), why.sentence
        wide = [
            all(one.tree.accumulate == as_format("float64") for one in side.classes)
            for side in cause.trees
        ]
        assert ("keeps its sums in float64" in why.sentence) == (wide[0] != wide[1])


def test_explain_refuses_what_it_cannot_use():
    with pytest.raises(ArgumentError, match="one of them"):
        ro.explain(slice_then_conv, conv_then_slice, **problem(), upstream=torch.ones(4, 6, 5))
    with pytest.raises(ArgumentError, match="not a scalar"):
        ro.explain(slice_then_conv, conv_then_slice, **{**problem(), "loss": lambda out: out})
    with pytest.raises(ArgumentError, match="equal output"):
        ro.explain(slice_then_conv, lambda weight, bias, x: F.conv1d(x, weight, bias), **problem())


# ------------------------------------------------------------------------------- reports


def test_a_report_says_why(tmp_path):
    why = {
        ("shape", f): ro.explain(slice_then_conv, conv_then_slice, **problem(), format=f)
        for f in ("float32",)
    }
    tables = list(why_tables(why))
    assert len(tables) == 1 and set(tables[0].frame["gradient"]) == {"weight", "bias"}
    assert why_notes(why)[0][0] == "Why do the bits differ?"
    for plot in why_figure(why):
        assert plot.png().startswith(b"\x89PNG")


def test_trees_are_drawn_from_their_nodes():
    kernel = random_kernel(np.random.default_rng(0), 12, "float32", "float32")
    rows = tree_rows(kernel, "a tree", True)
    assert sorted(rows["leaf"][rows["leaf"] >= 0]) == list(range(12))
    assert (rows["parent"] == -1).sum() == 1
    assert rows["error"].abs().max() <= 1.0  # half an ulp is at most u
    plot = figures.trees(pd.concat([rows, tree_rows(kernel, "b", False)], ignore_index=True))
    assert plot.png() == plot.png()


def test_the_report_on_kernels_counts_what_was_found(tmp_path):
    operations = [
        o for o in experiment.operations(experiment.Kernels(quick=True)) if "of 20" in o.name
    ]
    found = kernels(operations, ("float32", "bfloat16"), (1,))
    config = experiment.Kernels(quick=True)
    report = kernels_report(experiment.QUESTION, config, found)
    ran = [one for _, one in found if one is not None]
    assert report.answer.startswith(f"Of {len(ran)} kernels")
    assert any(label["reason"] == "NumPy has no bfloat16" for label, one in found if one is None)
    assert ro.write_report(report, tmp_path).read_bytes().startswith(b"%PDF")


def test_where_trees_tell_nothing_the_model_of_rounding_does() -> None:
    """Sums that enter other operations: how far apart, what is predicted, and which operations make it."""
    layer = torch.nn.Sequential(
        torch.nn.Linear(8, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 4)
    )
    function, parameters = ro.functional(layer)

    def whole(**values):
        return function(**values)

    def written_out(input, **p):
        x = input @ p["0.weight"].T + p["0.bias"]
        x = (x - x.mean(-1, keepdim=True)) * (x.var(-1, correction=0, keepdim=True) + 1e-5).rsqrt()
        return (x * p["1.weight"] + p["1.bias"]) @ p["2.weight"].T + p["2.bias"]

    inputs = {**parameters, "input": torch.randn(12, 8)}
    why = ro.explain(whole, written_out, inputs=inputs, loss=lambda out: (out**2).sum())
    assert not why.proven and "0.weight" in why.sources
    for name, known in why.sources.items():
        assert known.ordinary and known.apart > 0 and min(known.errors) > 0.1, name
        assert all(share >= 0.05 for side in known.mostly for share, _ in side)
    assert "are predicted: no more than rounding" in why.sentence
    assert "rsqrt (forward) in test_explanation.py:" in str(why)
