"""The arithmetic of bounds, piece by piece: underflow, overflow, cancellation, bias and fused trees."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import partial

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems import NARROW, holds, reference_and_bounds, squares

import roundoff as ro
from roundoff.arithmetic import walk
from roundoff.arithmetic.enclosed import Enclosed, propagated
from roundoff.arithmetic.running import Running
from roundoff.arithmetic.simulated import Simulated, simulate
from roundoff.bounds.known_sums import Accumulator, Sums
from roundoff.bounds.sum_laws import certified, hallman_ipsen, likely
from roundoff.gradients.bounds import bounds_of_trace
from roundoff.gradients.problem import Problem
from roundoff.gradients.reference import reference_of_trace
from roundoff.trace import prune, trace_gradients
from roundoff.trace.functions import FUNCTIONS


def test_the_absolute_error_of_erf_in_16_bits_counts() -> None:
    x = ro.round_to(np.geomspace(1e-5, 2e-3, 400), "float16")
    problem = {"inputs": {"x": x}, "loss": squares, "format": "float16"}
    found = ro.native_gradients(torch.erf, {"input": x}, None, squares, format="float16")["input"]
    exact = ro.reference_gradients(torch.erf, {"input": x}, None, squares, format="float16")[
        "input"
    ]
    bound = ro.gradient_bounds(lambda x: torch.erf(x), **problem)["x"].certified.numpy()
    holds(found, exact, bound)
    assert (bound >= 2.0**-21).all()


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(
    "function",
    [
        F.gelu,
        lambda input: F.gelu(input, approximate="tanh"),
        lambda input: torch.sqrt(input.abs()),
        lambda input: torch.rsqrt(input.abs()),
        lambda input: torch.erf(input),
        lambda input: torch.erfc(input),
        *(lambda input, w=w: torch.lerp(input, input.flip(0) * 3, w) for w in (0.3, 0.5, 0.8, -2.0)),
        lambda input: torch.lerp(input, input.flip(0), input.roll(1)),
        lambda input: torch.log2(input.abs() * 2.0**-10),
        lambda input: torch.log10(input.abs() * 2.0**-10),
        lambda input: input.reshape(250, 6).prod(1),
        lambda input: input[:6].prod() + input[6:].abs().sum(),
        lambda input: F.cosine_similarity(input.reshape(500, 3), input.reshape(500, 3) * 1e-9),
    ],
)  # fmt: skip
def test_torchs_own_formulas_are_within_the_bound(function, format) -> None:
    """Where kernels take another way than the formula: GELU's erf, roots, the nearer end of lerp."""
    x = np.random.default_rng(3).standard_normal(1500) * 2
    cubes = lambda out: (out * out * out).sum()
    given = (function, {"input": x}, None, cubes)
    exact, bounds = reference_and_bounds(Problem(*given), format)
    found = ro.native_gradients(*given, format=format)["input"]
    holds(found, exact["input"], bounds["input"].certified)


def test_products_that_underflow_are_counted() -> None:
    rng = np.random.default_rng(1)
    inputs = {n: ro.round_to(rng.random(200) * 2.0**-6, NARROW) for n in "xyz"}
    trace = prune(trace_gradients(lambda x, y, z: (x * y * z).sum(), inputs, None, None))
    exact = reference_of_trace(trace, inputs, format=NARROW)
    found = simulate(trace, Simulated(NARROW), {k: v[None] for k, v in inputs.items()})
    for name, bound in bounds_of_trace(trace, inputs, NARROW).items():
        holds(found[name][0], exact[name], bound.certain)
        error = np.abs(found[name][0] - exact[name].high)
        assert (error > 4 * NARROW.u * np.abs(exact[name].high)).any(), "nothing underflowed"


def test_a_cancelling_product_is_still_enclosed() -> None:
    rng = np.random.default_rng(3)
    a = rng.standard_normal((6, 40))
    b = rng.standard_normal((40, 5))
    a, b = np.concatenate([a, -a], axis=1), np.concatenate([b, b * (1 + 2.0**-50)], axis=0)
    trace = trace_gradients(
        lambda a, b, g: ((a @ b) * g).sum(), {"a": a, "b": b, "g": np.ones((6, 5))}, ("g",), None
    )
    given = {"a": a, "b": b, "g": np.ones((6, 5))}
    exact = reference_of_trace(prune(trace), given, format="float64")["g"]
    found = walk(prune(trace), Running("float64"), given)["g"]
    gap = np.abs((found.value - exact.high) - exact.low)
    assert gap.max() > 0 and (gap <= found.own).all()


def test_partial_sums_that_may_overflow_have_no_finite_bound() -> None:
    inputs = {"w": np.array([1.0]), "x": np.array([6e4, 6e4, -6e4])}
    # Pairwise 6e4 - 6e4 comes first.
    for order, finite in ((None, False), ("sequential", False), ("pairwise", True)):
        found = ro.gradient_bounds(
            lambda w, x: (w * x).sum(), inputs, ("w",), format="float16", order=order,
            accumulate="float16",
        )  # fmt: skip
        assert bool(torch.isfinite(found["w"].certified).all()) is finite


def test_a_quotient_by_something_uncertain() -> None:
    """1/b with b between 0.5 and 1.5 is 2 where the exact quotient is 1."""

    a, b = Enclosed(np.ones(1), 0.0, 0.0), Enclosed(np.ones(1), 0.0, np.array([0.5]))
    assert propagated(FUNCTIONS["div"], (a, b))[1] >= 1.0
    lost = Enclosed(np.ones(1), 0.0, np.array([1.0]))
    with np.errstate(divide="ignore"):
        assert propagated(FUNCTIONS["div"], (a, lost))[1] == np.inf


def _sums(
    n: int, small: int = 0, drift: float = 0.0, rounded: float = 0.0, format: str = "bfloat16"
) -> Sums:
    """Terms of magnitudes that add up to 1 and cancel."""
    numbers = np.array([float(small)]), np.array([drift])
    return Sums(
        Accumulator(ro.as_format(format)), n, np.array([n]), np.ones(1), np.zeros(1), rounded=np.full(1, rounded),
        products=rounded > 0, fused=True, by_chance=lambda most: numbers,
    )  # fmt: skip


def test_laws_in_any_order() -> None:
    u = 2.0**-8
    v = u / (1 + u)
    assert certified(_sums(5)) == pytest.approx(4 * u, rel=2.0**-40)
    assert certified(_sums(2)) == pytest.approx(v, rel=2.0**-40), "a single factor 1 + d"
    assert certified(_sums(1)) == 0 and certified(_sums(0)) == 0
    assert certified(_sums(5, rounded=0.5)) == pytest.approx(
        v / 2 + 4 * u * (1 + v / 2), rel=2.0**-40
    )
    one = partial(hallman_ipsen, failure=1e-3, outputs=1)
    free = one(_sums(120))
    # Partial sums are at most (S + |s|) / 2 = 1/2 here.
    inner = (
        u * np.exp(np.sqrt(2 * np.log(2 * 241 / 1e-4) * 119) * u) * np.sqrt(2 * np.log(2 / 9e-4))
    )
    assert free == pytest.approx(inner * np.sqrt(119) / 2, rel=2.0**-30)
    assert free < 0.5 * certified(_sums(120))
    assert likely(_sums(120), 1e-3, 1) == free
    # What is small counts u (S + |s|) / 2, a drift in full, and neither beyond the certain bound.
    assert one(_sums(120, small=30)) == pytest.approx(
        inner * np.sqrt(89) / 2 + 15 * u, rel=2.0**-30
    )
    assert one(_sums(120, drift=0.01)) == pytest.approx(free + 0.01, rel=2.0**-30)
    most = _sums(120, small=119, drift=1.0)
    assert likely(most, 1e-3, 1) == certified(most)
    # Shared by more sums, each has less.
    many = _sums(3000, format="float32")
    assert likely(many, 1e-3, 5000) > likely(many, 1e-3, 1)


def test_every_sum_has_its_own_number_of_terms() -> None:
    """Two terms, beside a sum of many: their bounds are those of two."""
    both = replace(_sums(3000), count=np.array([2, 3000]), size=np.ones(2), total=np.zeros(2))
    both = replace(both, by_chance=lambda most: (np.zeros(2), np.zeros(2)))
    alone = replace(_sums(2), by_chance=lambda most: (np.zeros(1), np.zeros(1)))
    for law in (certified, partial(hallman_ipsen, failure=0.5, outputs=1)):
        assert law(both)[0] == pytest.approx(float(law(alone)[0]), rel=2.0**-40)


def test_expected_errors_of_both_operands_count() -> None:
    from roundoff.arithmetic.expected import Expected, Varied
    from roundoff.trace.steps import Contract

    rng = np.random.default_rng(0)
    a, b, s, t = (rng.random(shape) for shape in ((1, 2, 4), (1, 4, 3), (1, 2, 4), (1, 4, 3)))
    step = Contract((1, 2, 3), (0, 1), 4)
    found = Expected("float64").contract(step, Varied(a, s), Varied(b, t))
    np.testing.assert_allclose(found.variance, s @ b**2 + a**2 @ t, rtol=2.0**-40)


@pytest.mark.parametrize("size", [1.0, 100.0, 1e4])
@pytest.mark.parametrize("format", ["float32", "float64"])
@pytest.mark.parametrize("kind", ["conv1d", "conv2d", "addmm"])
def test_a_bias_may_be_part_of_the_sum(kind, format, size) -> None:
    """Kernels start their sums at the bias: every partial sum is then as large as the bias."""
    rng = np.random.default_rng(0)
    if kind == "addmm":
        function = lambda s, x, w, b: s * torch.addmm(b, x, w)
        shapes = {"x": (6, 300), "w": (300, 5), "b": (6, 5)}
    else:
        function = lambda s, x, w, b: s * getattr(F, kind)(x, w, b)
        ends = (8,) if kind == "conv1d" else (4, 3)
        shapes = {"x": (3, 300, *ends), "w": (4, 300, *[1] * len(ends)), "b": (4,)}
    inputs = {k: rng.random(v) for k, v in shapes.items()}
    inputs["b"] = inputs["b"] * size
    inputs["w"] = inputs["w"] * 1e-2
    inputs["s"] = np.ones((6, 5)) if kind == "addmm" else np.ones((3, 4, *ends))
    problem = {"inputs": inputs, "wrt": ("s",), "loss": torch.sum, "format": format}
    found = ro.native_gradients(function, **problem)["s"]
    exact = ro.reference_gradients(function, **problem)["s"]
    bound = ro.gradient_bounds(function, **problem)["s"].certified.numpy()
    holds(found, exact, bound)
    # A sum that starts at the bias, carried out by hand.
    if kind == "addmm":
        given = {k: ro.round_to(v, format) for k, v in inputs.items()}
        terms = np.concatenate(
            [given["b"][..., None], given["x"][:, None, :] * given["w"].T[None]], axis=-1
        )
        if format == "float32":
            computed = ro.sum_in_order(terms, "sequential", format)
            holds(np.asarray(computed), exact, bound)


def test_sigmoid_of_what_overflows() -> None:
    """torch returns 0 where the exact value is a subnormal number."""
    for format, x in (("float32", -90.0), ("float64", -720.0), ("bfloat16", -90.0)):
        problem = {"inputs": {"input": np.array([x])}, "loss": torch.sum, "format": format}
        found = ro.native_gradients(torch.sigmoid, **problem)["input"]
        bound = ro.gradient_bounds(torch.sigmoid, **problem)["input"].certified.numpy()
        exact = mpmath.exp(x) / (1 + mpmath.exp(x)) ** 2
        assert abs(mpmath.mpf(found[0]) - exact) <= mpmath.mpf(bound[0])


def test_products_below_float64s_own_range() -> None:
    for a, w in ((1.3 * 2.0**-530, 1.7 * 2.0**-540), (1.3 * 2.0**-540, 1.1 * 2.0**-540)):
        for order in (None, "sequential", "fma", "kahan"):
            bound = ro.gradient_bounds(
                lambda a, w: a @ w, {"a": [[a]], "w": [[w]]}, ("a",), upstream=[[a]],
                format="float64", order=order,
            )["a"].certified  # fmt: skip
            assert bound >= 2.0**-1074


def test_a_fused_product_beside_a_zero_is_rounded() -> None:
    """0 + 1.3 c by a fused multiply-add: nothing is added, but the product is rounded."""
    rng = np.random.default_rng(0)
    x, w = (ro.round_to(rng.random((40, 2)) + 1, "bfloat16") for _ in range(2))
    x[:, 0] = 0.0
    inputs = {"s": np.ones((40, 1)), "x": x[:, None], "w": w[:, :, None]}
    bound = ro.gradient_bounds(
        lambda s, x, w: s * (x @ w)[:, 0], inputs, ("s",), torch.sum, format="bfloat16", order="fma"
    )["s"].certified.numpy()[:, 0]
    error = np.abs(ro.dot_in_order(x, w, "fma", "bfloat16") - (x * w).sum(axis=-1))
    assert (error <= bound).all() and (error > 0.2 * bound).any()


def test_a_fused_tree_rounds_a_product_per_pair() -> None:
    rng = np.random.default_rng(0)
    order = ro.orders.Order("fused pairwise", ro.orders.pairwise, fused=True)
    c = ro.round_to(rng.random(20000) + 1, "float32")
    lost = c * c - ro.round_to(c * c, "float32")
    r = c[np.argmax(lost / (c * c))]
    x, w = np.tile([r, float(ro.round_to(r * r, "float32"))], 8), np.tile([r, -1.0], 8)
    inputs = {"s": np.ones((1, 1)), "x": x[None], "w": w[:, None]}
    bound = ro.gradient_bounds(
        lambda s, x, w: s * (x @ w), inputs, ("s",), torch.sum, format="float32", order=order
    )["s"].certified
    computed = float(ro.dot_in_order(x, w, order, "float32"))
    exact = sum(
        (Fraction(a) * Fraction(b) for a, b in zip(x.tolist(), w.tolist(), strict=True)),
        Fraction(0),
    )
    assert abs(Fraction(computed) - exact) <= Fraction(float(bound))
