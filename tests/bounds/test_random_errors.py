"""How often sums exceed their probabilistic bounds, over kinds of data that no average tells apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import roundoff as ro
from roundoff import bounds, orders
from roundoff.bounds import theorems

#: Numbers of one draw, in the last axis.
DATA = {
    "normal": lambda rng, shape: rng.standard_normal(shape),
    "uniform": lambda rng, shape: rng.random(shape),
    "two scales": lambda rng, shape: np.where(
        rng.random(shape) < 0.08, rng.uniform(0.8, 1.2, shape), rng.uniform(0.006, 0.012, shape)
    ),
    "log-uniform": lambda rng, shape: 2.0 ** rng.uniform(-10, 0, shape),
    "heavy-tailed": lambda rng, shape: np.abs(rng.standard_t(1.5, shape)),
    "zeros and ones": lambda rng, shape: (rng.random(shape) < 0.5).astype(np.float64),
    "ascending": lambda rng, shape: np.sort(rng.random(shape), axis=-1),
    "descending": lambda rng, shape: -np.sort(-rng.random(shape), axis=-1),
    "alternating": lambda rng, shape: rng.random(shape) * (1 - 2 * (np.arange(shape[-1]) % 2)),
    "few values": lambda rng, shape: rng.choice([0.1, 0.3, 0.7], shape),
    "equal": lambda rng, shape: np.repeat(rng.uniform(0.5, 1, (*shape[:-1], 1)), shape[-1], axis=-1),
    "hardly vary": lambda rng, shape: rng.uniform(1.2, 1.21, shape),
    "eight bits": lambda rng, shape: ro.round_to(rng.random(shape), "float8_e4m3fn"),
}  # fmt: skip
DRAWS = 500
FAILURES = (0.5, 0.05)


@pytest.mark.parametrize("kind", DATA)
@pytest.mark.parametrize(("format", "n"), [("float16", 100), ("float16", 1000), ("bfloat16", 200)])
def test_the_stated_failure_covers(kind, format, n, monkeypatch) -> None:
    """A binomial test per order, of 500 draws; failure probabilities of each sum by itself."""
    rng = np.random.default_rng([n, *kind.encode(), *format.encode()])
    x = ro.round_to(DATA[kind](rng, (DRAWS, n)), format)
    exact = x.sum(axis=-1)  # float64 holds such sums but for 2^-42 of them
    theorem = theorems.hallman_ipsen
    monkeypatch.setattr(theorems, "hallman_ipsen", lambda *a: theorem(*a[:5], 1))
    found = {None: bounds.sum(x, format)}
    for order in ("sequential", "pairwise", "blocked(4)"):
        found[order] = bounds.sum(x, format, order)
        error = np.abs(orders.sum_in_order(x, order, format) - exact) * (1 - 2.0**-30)
        for given in (order, None):
            for failure in FAILURES:
                beyond = int((error > found[given].likely(failure)).sum())
                p = stats.binomtest(beyond, DRAWS, failure, alternative="greater").pvalue
                assert p > 1e-4, (order, given, failure, beyond)
    # Of use: along pairwise trees and plain loops of terms of one size it is well below the certain bound.
    if kind in ("normal", "uniform", "alternating") and n == 100:
        for order in ("sequential", "pairwise"):
            ratio = found[order].likely(0.05) / found[order].certain
            assert np.median(ratio) < 0.7


def test_few_large_terms_swallow_many_small_ones() -> None:
    """In every draw the error is of the size of the bound, in sums and in gradients."""
    rng = np.random.default_rng(7)
    x = ro.round_to(DATA["two scales"](rng, (DRAWS, 1000)), "float16")
    error = np.abs(orders.sum_in_order(x, "sequential", "float16") - x.sum(axis=-1))
    found = bounds.sum(x, "float16", "sequential")
    assert (error <= found.probabilistic(1e-3)).all()
    assert np.median(error / found.probabilistic(1e-3)) > 0.5
    function = lambda w, x: (w * x).sum()
    for k in range(10):
        for order in ("sequential", None):
            bound = ro.gradient_bounds(
                function, {"w": [1.0], "x": x[k]}, ("w",), format="float16", accumulate="float16",
                order=order,
            )["w"]  # fmt: skip
            assert error[k] <= float(bound.probabilistic(1e-3)) <= float(bound.certified)


def test_sums_and_gradients_follow_one_rule() -> None:
    """`ro.bounds.sum` and the gradient whose sum it is: the same terms, the same probabilistic bound."""
    rng = np.random.default_rng(3)
    function = lambda w, x: (w * x).sum()
    for kind, order in (
        ("two scales", "sequential"),
        ("uniform", "pairwise"),
        ("equal", "sequential"),
        ("normal", None),
    ):
        x = ro.round_to(DATA[kind](rng, (1000,)), "float16")
        one = bounds.sum(x, "float16", order).probabilistic(1e-3)
        gradient = ro.gradient_bounds(
            function,
            {"w": [1.0], "x": x},
            ("w",),
            format="float16",
            accumulate="float16",
            order=order,
        )["w"].probabilistic(1e-3)
        assert float(one) == pytest.approx(float(gradient), rel=0.1)


def test_gradients_of_exact_operations_are_exact() -> None:
    rng = np.random.default_rng(0)
    w, x = rng.standard_normal((2, 40))
    problem = {"inputs": {"w": w, "x": x}, "wrt": ("w",)}
    for format in ("float16", "float32", "float64"):
        for function in (
            lambda w, x: (w * x).sum(), lambda w, x: (w**2).sum(), lambda w, x: (x + 4 * w).sum() / 8,
            lambda w, x: (x @ w), lambda w, x: torch_relu(w).sum(), lambda w, x: (w.reshape(5, 8).t() * 2).sum(),
        ):  # fmt: skip
            for order in (None, "sequential"):
                bound = ro.gradient_bounds(function, **problem, format=format, order=order)["w"]
                assert (bound.certified == 0).all() and (bound.probabilistic(1e-3) == 0).all()
        rounded = ro.gradient_bounds(lambda w, x: (w * x * 3).sum(), **problem, format=format)["w"]
        assert (rounded.certified > 0).double().mean() > 0.5, "but what 3 x fits by chance"


def torch_relu(w):
    return w.relu()
