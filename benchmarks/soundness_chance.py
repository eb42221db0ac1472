"""The soundness run's probabilistic part: how often sums exceed their bounds, under several machines."""

from __future__ import annotations

from typing import Any

import numpy as np
from soundness_data import Tally, draw, exact_sums

import roundoff as ro
from roundoff import bounds, orders
from roundoff.numbers.formats import Format
from roundoff.numbers.machines import two_sum

# --------------------------------------------------------------------------------- probabilistic

#: Format, terms, data, order, rounding.
LIKELY = [
    (name, n, kind, order, rounding)
    for name, n in (("float32", 120), ("float16", 100), ("bfloat16", 30), ("float64", 60))
    for kind in ("normal", "uniform")
    for order in ("sequential", "pairwise", "shuffled(0)")
    for rounding in ("nearest", "stochastic")
    if rounding == "nearest" or name in ("float16", "bfloat16")
]
LIKELY += [
    (name, n, kind, order, "nearest")
    for name, n in (("float16", 400), ("bfloat16", 60))
    for kind in ("two scales", "log-uniform", "heavy-tailed", "zeros and ones")
    for order in ("sequential", "pairwise")
]
#: The worst independent errors: every addition errs by all that it may, up or down.
LIKELY += [
    ("float16", n, kind, order, "signs")
    for n, kind in ((100, "normal"), (100, "uniform"), (400, "two scales"))
    for order in ("sequential", "pairwise")
]
FAILURES = (0.5, 0.05)
TOGETHER = 4  # sums that share a failure probability


@np.errstate(all="ignore")
def likely(job: tuple[tuple[str, int, str, str, str], int, int]) -> tuple[Tally, int]:
    """How often a batch of sums exceeds a probabilistic bound anywhere."""
    (name, n, kind, order, rounding), trials, seed = job
    target = ro.as_format(name)
    rng = np.random.default_rng([seed, n, *f"{name}{kind}{order}{rounding}".encode()])
    tree = orders.as_order(order).tree(n)
    tally = Tally()
    for _ in range(trials):
        x = draw(kind, TOGETHER, n, target, rng).T
        hi, lo, _ = exact_sums(x)
        if rounding == "nearest":
            computed = ro.sum_in_order(x, order, target)
        elif rounding == "signs":
            computed = signed_sums(x, tree, target, rng)
        else:
            computed = stochastic_sums(x, tree, target, rng)
        for given in (order, None):
            stated = "nearest" if rounding == "signs" else rounding
            found = bounds.sum(x, target, given, rounding=stated)
            for statement in found.statements:
                if statement.kind == "probabilistic" and callable(statement.value):
                    for failure in FAILURES:
                        ratio = exceeding(np.abs((computed - hi) - lo), statement.value(failure))
                        text = f"{statement.name}, {'stated' if given else 'any'} order, {rounding}"
                        worst = np.array([np.nanmax(ratio, initial=0.0)])
                        tally.add(
                            f"failure {failure}",
                            text,
                            "probabilistic",
                            name,
                            worst,
                            int(worst[0] > 1),
                        )
    return tally, trials * TOGETHER


def stochastic_sums(
    x: np.ndarray, tree: Any, target: Format, rng: np.random.Generator
) -> np.ndarray:
    """Sums along a tree, each addition rounded up or down with probabilities that make it unbiased."""
    values = list(x.T)
    for left, right in tree.children.tolist():
        total, error = two_sum(values[left], values[right])
        assert not error.any(), "float64 holds these sums exactly"
        low, high = (ro.round_to(total, target, mode) for mode in ("downward", "upward"))
        part = np.where(high > low, (total - low) / np.where(high > low, high - low, 1.0), 0.0)
        values.append(np.where(rng.random(part.shape) < part, high, low))
    return values[-1]


def exceeding(error: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """error / limit; 0 where both are, NaN where the bound does not apply."""
    with np.errstate(all="ignore"):
        return np.where(error == 0, limit * 0.0, error / limit)


def signed_sums(x: np.ndarray, tree: Any, target: Format, rng: np.random.Generator) -> np.ndarray:
    """Sums along a tree whose every addition errs by u |s|, or by the smaller operand, with random signs."""
    values = list(x.T)
    for left, right in tree.children.tolist():
        a, b = values[left], values[right]
        most = np.minimum(target.u * np.abs(a + b), np.minimum(np.abs(a), np.abs(b)))
        values.append(a + b + rng.choice([-1.0, 1.0], most.shape) * most)
    return values[-1]
