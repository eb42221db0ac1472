"""Sums of growing length in several formats and orders: their errors, and every bound on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from roundoff import bounds
from roundoff.errors import ArgumentError, InapplicableError
from roundoff.formats import as_format, round_to
from roundoff.orders import as_order, pairwise, sum_in_order
from roundoff.words import counted

Array = npt.NDArray[np.float64]

DATA = ("uniform", "normal")


def sweep(
    formats: Sequence[str],
    orders: Sequence[str],
    lengths: Sequence[int],
    *,
    seeds: int,
    failure: float,
    seed: int = 0,
) -> pd.DataFrame:
    """A row per format, order, kind of data, length and quantity, over seeds; units: u S.

    quantity: "measured" (the absolute error), "certified, any order", "certified, this order",
    "running", "probabilistic" (for one sum, at the failure rate), "expected".  value, largest: median
    and largest over seeds; ratio, worst: those of measured / quantity.  A quantity that applies to
    no seed has no row.

    Raises: ArgumentError for fewer than one seed or a length below 1.
    """
    if seeds < 1 or min(lengths, default=1) < 1:
        raise ArgumentError(
            f"sweep: {counted(seeds, 'seed')}, lengths {list(lengths)}; both start at 1"
        )
    rows = []
    for data in DATA:
        for n in lengths:
            drawn = _draw(data, n, seeds, seed)
            for name in formats:
                x = round_to(drawn, name)
                for order in orders:
                    key = {"format": name, "order": order, "data": data, "n": n, "seeds": seeds}
                    rows += [{**key, **row} for row in _rows(x, name, order, failure)]
    return pd.DataFrame(rows)


def _draw(data: str, n: int, seeds: int, seed: int) -> Array:
    generator = np.random.default_rng([seed, n, *data.encode()])
    if data == "uniform":
        return generator.random((seeds, n))
    return generator.standard_normal((seeds, n))


def _rows(x: Array, name: str, order: str, failure: float) -> Iterator[dict[str, Any]]:
    error = np.array(
        [exact_error(*pair) for pair in zip(sum_in_order(x, order, name), x, strict=True)]
    )
    unit = as_format(name).u * np.abs(x).sum(axis=-1)
    yield _row("measured", error, error, unit)
    stated, free = bounds.sum(x, name, order), bounds.sum(x, name)
    found: dict[str, Any] = {
        "certified, any order": lambda: free.certain,
        "certified, this order": lambda: stated.certain,
        "running": lambda: stated.running,
        "probabilistic": lambda: _alone(x, name, order, failure),
        "expected": lambda: stated.expected,
    }
    if as_order(order).compensation:  # no plain sum of a tree
        del found["certified, any order"]
    for quantity, make in found.items():
        try:
            values = np.asarray(make(), np.float64)
        except InapplicableError:
            continue
        if np.isfinite(values).any():
            yield _row(quantity, values, error, unit)


def _alone(x: Array, name: str, order: str, failure: float) -> Array:
    """The probabilistic bound of each sum by itself."""
    if len(x) * failure < 1:
        return np.asarray(bounds.sum(x, name, order).likely(len(x) * failure))
    return np.concatenate([bounds.sum(row[None], name, order).likely(failure) for row in x])


def _row(quantity: str, values: Array, error: Array, unit: Array) -> dict[str, Any]:
    with np.errstate(all="ignore"):
        ratio = error / values
    return {
        "quantity": quantity,
        "value": _median(values / unit),
        "largest": float(np.nanmax(values / unit)),
        "ratio": 1.0 if quantity == "measured" else _median(ratio),
        "worst": 1.0 if quantity == "measured" else _largest(ratio),
    }


def _median(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(np.median(known)) if known.size else float("nan")


def _largest(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.max()) if known.size else float("nan")


def exact_error(computed: float, terms: Array) -> float:
    """|computed - sum of the terms|, correctly rounded from rational numbers; infinite for no number."""
    if not np.isfinite(computed):
        return float("inf")
    return float(abs(Fraction(float(computed)) - sum(map(Fraction, terms.tolist()), Fraction(0))))


# ------------------------------------------------------------------------------------- attaining


def attained(name: str = "float32", n: int = 1000) -> pd.DataFrame:
    """Inputs that attain a bound, or nearly so; error in u, and error / bound from rational numbers."""
    target = as_format(name)
    u = target.u
    steps = np.array([1.0, *[u] * (n - 1)])
    root = 1.0 + 2.0 ** -(
        target.precision // 2
    )  # its square ends in half a spacing, where p is even
    height = int(np.log2(n))
    cases = [
        ("Lange and Rump", "1 + u + u + ...", "sequential", steps, None),
        ("Jeannerod and Rump", "1 + u + u + ...", "sequential", steps, None),
        ("gamma", "1 + u + u + ...", "sequential", steps, None),
        ("running, ufp", "1 + u + u + ...", "sequential", steps, None),
        ("partial sums", "1 + u + u + ...", "sequential", steps, None),
        ("depth-weighted", "right halves that add up to u", "pairwise", _halves(height, u), None),
        ("Neumaier", "1 + u", "neumaier", steps[:2], None),
        ("Sum2", "1 + u", "sum2", steps[:2], None),
        ("Kahan", "1 + u", "kahan", steps[:2], None),
        ("Jeannerod and Rump", "r r + u + u + ..., r r halfway", "sequential",
         np.array([root, *[u] * (n - 1)]), np.array([root, *[1.0] * (n - 1)])),
    ]  # fmt: skip
    return pd.DataFrame([_attained(target, *case) for case in cases])


def _attained(
    target: Any, bound: str, text: str, order: str, x: Array, y: Array | None
) -> dict[str, Any]:
    from roundoff.orders import dot_in_order

    if y is None:
        found, computed = bounds.sum(x, target, order), float(sum_in_order(x, order, target))
        exact = sum(map(Fraction, x.tolist()), Fraction(0))
    else:
        found, computed = bounds.dot(x, y, target, order), float(dot_in_order(x, y, order, target))
        exact = sum(
            (Fraction(a) * Fraction(b) for a, b in zip(x.tolist(), y.tolist(), strict=True)),
            Fraction(0),
        )
    error = abs(Fraction(computed) - exact)
    value = Fraction(float(np.asarray(found.named[bound].value)))
    return {
        "bound": bound,
        "of": "sum" if y is None else "dot product",
        "terms": text,
        "order": order,
        "n": len(x),
        "format": str(target),
        "error": float(error / Fraction(target.u)),
        "ratio": float(error / value),
    }


def _halves(height: int, u: float) -> Array:
    """2^height terms for a pairwise sum: 1 on the left, and every right subtree adds up to u."""
    terms = [1.0]
    for level in range(height):
        terms += [u / 2**level] * 2**level
    assert pairwise(len(terms)).height == height
    return np.array(terms)
