"""Every bound against sums, dot products and gradients in every order: is it exceeded, is it tight?

Errors are compared with certified and running bounds in exact arithmetic: where two float64 cannot decide,
rational numbers do.  Writes reports/bounds/soundness.csv, which the report of experiments/bounds.py shows.

    python benchmarks/soundness.py             minutes: 10^7 sums and dot products, 10^5 gradients
    python benchmarks/soundness.py --scale 0.001
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from soundness_chance import FAILURES, LIKELY, likely
from soundness_data import ALL, KINDS, Tally, draw, exact_sums

import roundoff as ro
from roundoff import bounds, orders
from roundoff.errors import InapplicableError
from roundoff.files import write_whole
from roundoff.numbers.formats import FLOAT32, Format
from roundoff.numbers.machines import two_product

LENGTHS = (1, 2, 3, 5, 8, 13, 21, 40)
#: Longer sums: how many terms, in which orders, of which data.
LONG = (
    (257, orders.names(), ("normal", "spread", "cancelling")),
    (1000, ("sequential", "pairwise", "blocked(4)", "kahan", "fma"), ("uniform", "spread")),
    (4096, ("sequential", "strided(8)", "sum2"), ("normal", "steps")),
    (100_000, ("reverse", "pairwise"), ("uniform",)),
)
FILE = Path("reports/bounds/soundness.csv")


# ---------------------------------------------------------------------------------- sums and dots


def exceeds(
    computed: np.ndarray,
    limit: np.ndarray,
    hi: Any,
    lo: Any,
    rest: Any,
    exact: Callable[[int], Fraction],
) -> tuple[np.ndarray, int]:
    """|computed - exact| / limit, and how often that is above 1: decided exactly where it is close."""
    with np.errstate(all="ignore"):
        error = np.abs((computed - hi) - lo)
        doubt = error * 2.0**-50 + rest
        ratio = np.where(
            np.isfinite(computed) & np.isfinite(limit) & (limit > 0), error / limit, np.nan
        )
        close = np.isfinite(limit) & ~(error + doubt <= limit)
    count = 0
    for k in np.flatnonzero(close):
        if not np.isfinite(computed[k]):
            count += 1  # a finite bound excludes overflow
        else:
            count += abs(Fraction(float(computed[k])) - exact(int(k))) > Fraction(float(limit[k]))
    return ratio, count


def compare(
    part: str, tally: Tally, target: Format, found: bounds.Bound, computed: np.ndarray, hi: Any, lo: Any,
    rest: Any, exact: Callable[[int], Fraction],
) -> None:  # fmt: skip
    """Every statement of a bound for one batch; the smallest certified and running ones are counted."""
    label = str(target)
    for kind in ("certified", "running"):
        try:
            least = found.certain if kind == "certified" else np.asarray(found.running)
        except InapplicableError:
            continue
        ratio, count = exceeds(computed, least, hi, lo, rest, exact)
        tally.add(part, f"smallest {kind}", kind, label, ratio, count)
    for statement in found.statements:
        if statement.kind in ("certified", "running") and statement.value is not None:
            ratio, count = exceeds(computed, np.asarray(statement.value), hi, lo, rest, exact)
            tally.add(part, statement.name, statement.kind, label, ratio, count)
        if statement.kind == "expected" and statement.value is not None:
            with np.errstate(all="ignore"):
                ratio = np.abs((computed - hi) - lo) / np.asarray(statement.value)
            tally.add(
                part, statement.name, "expected", label, np.where(np.isinf(ratio), np.nan, ratio), 0
            )


@np.errstate(all="ignore")
def batch(job: tuple[int, str, str, int, int, tuple[str, ...], int]) -> tuple[Tally, int]:
    """Sums and dot products of one format, order and length over some kinds of data."""
    number, name, order, n, count, kinds, seed = job
    target = next(f for f in ALL if f.name == name)
    tally, done = Tally(), 0
    for k, kind in enumerate(kinds):
        rng = np.random.default_rng([seed, number, k])
        x = draw(kind, n, count, target, rng)
        hi, lo, rest = exact_sums(x)
        for wide in wider(target):
            if wide == target:
                computed = ro.sum_in_order(x, order, target)
            else:
                computed = ro.dot_in_order(x, np.ones_like(x), order, target, accumulate=wide)
            found = bounds.sum(x, target, order, accumulate=wide)
            if np.isfinite(x).all():
                compare(
                    "sums", tally, target, found, computed, hi, lo, rest,
                    lambda i, x=x: sum(map(Fraction, x[i].tolist()), Fraction(0)),
                )  # fmt: skip
                done += count
        if number % 2 == 0:
            done += dot_batch(tally, target, order, kind, n, max(1, count // 2), rng)
    return tally, done


def wider(target: Format) -> tuple[Format, ...]:
    return (target, FLOAT32) if target.precision < 24 and target.emax < 100 else (target,)


def exact_dot(x: np.ndarray, y: np.ndarray) -> Fraction:
    pairs = zip(x.tolist(), y.tolist(), strict=True)
    return sum((Fraction(a) * Fraction(b) for a, b in pairs), Fraction(0))


def dot_batch(
    tally: Tally,
    target: Format,
    order: str,
    kind: str,
    n: int,
    count: int,
    rng: np.random.Generator,
) -> int:
    x, y = draw(kind, n, count, target, rng), draw("normal", n, count, target, rng)
    done = 0
    with np.errstate(all="ignore"):
        p, e = two_product(x, y)
    for fma in (False, True):
        computed = ro.dot_in_order(x, y, order, target, fma=fma)
        found = bounds.dot(x, y, target, order, fma=fma)
        # Splitting fails near the ends of float64's range; rationals decide there.
        sound = (np.abs(x).max(axis=1) < 2.0**900) & (np.abs(p) + (p == 0) > 2.0**-900).all(axis=1)
        hi, lo, rest = exact_sums(np.concatenate([p, e], axis=1))
        rest = np.where(sound, rest, np.inf)
        compare(
            "dot products", tally, target, found, computed, hi, lo, rest,
            lambda i: exact_dot(x[i], y[i]),
        )  # fmt: skip
        done += count
        if orders.as_order(order).compensation or order == "fma":
            break
    return done


# ------------------------------------------------------------------------------------- gradients


def functions() -> dict[str, tuple[Callable[..., Any], dict[str, tuple[int, ...]]]]:
    """Traced functions and the shapes of their inputs."""
    import torch
    import torch.nn.functional as F

    def attention(q: Any, k: Any, v: Any) -> Any:
        weights = torch.exp(q @ k.T / q.shape[-1] ** 0.5)
        return weights / weights.sum(-1, keepdim=True) @ v

    def layer_norm(x: Any, w: Any, b: Any) -> Any:
        centred = x - x.mean(-1, keepdim=True)
        return centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5) * w + b

    return {
        "convolution": (
            lambda x, w, b: F.conv1d(x, w, b)[:, :, -5:], {"x": (2, 3, 9), "w": (3, 3, 2), "b": (3,)},
        ),
        "two layers, tanh": (
            lambda x, w, v: torch.tanh(x @ w) @ v, {"x": (5, 6), "w": (6, 7), "v": (7, 2)},
        ),
        "two layers, relu": (
            lambda x, w, v: torch.relu(x @ w) @ v, {"x": (5, 6), "w": (6, 7), "v": (7, 2)},
        ),
        "attention": (attention, {"q": (3, 4), "k": (4, 4), "v": (4, 3)}),
        "layer norm": (layer_norm, {"x": (4, 6), "w": (6,), "b": (6,)}),
        "elementwise": (
            lambda x: torch.sin(x) * torch.sigmoid(x)
            + torch.erf(x) / (2 + torch.cos(x)) + torch.log1p(1 + x * x).sqrt(),
            {"x": (12,)},
        ),
    }  # fmt: skip


@np.errstate(all="ignore")
def gradients(job: tuple[str, str, int, int]) -> tuple[Tally, int]:
    """Simulated gradients of one function and format in every order; native ones where torch has them."""
    from roundoff.arithmetic.simulated import Simulated, simulate
    from roundoff.gradients.bounds import bounds_of_trace
    from roundoff.gradients.reference import reference_of_trace
    from roundoff.trace import prune, trace_gradients

    case, name, seeds, seed = job
    target = next(f for f in ALL if f.name == name)
    function, shapes = functions()[case]
    rng = np.random.default_rng([seed, *case.encode()])
    inputs = {k: rng.standard_normal((seeds, *shape)) for k, shape in shapes.items()}
    inputs = {k: ro.round_to(np.clip(v, -4, 4), target) for k, v in inputs.items()}
    one = {k: v[0] for k, v in inputs.items()}
    trace = prune(trace_gradients(function, one, None, lambda out: (out**2).sum()))
    tally, done = Tally(), 0
    each = [{k: v[s] for k, v in inputs.items()} for s in range(seeds)]
    exact = [reference_of_trace(trace, values, format=target, engine="ball") for values in each]
    done += native(tally, case, target, trace, each, exact)
    for wide in wider(target):
        limits = [bounds_of_trace(trace, values, target, accumulate=wide) for values in each]
        for order in orders.names():
            found = simulate(trace, Simulated(target, order, wide), inputs)
            stated = [
                bounds_of_trace(trace, values, target, accumulate=wide, order=order)
                if s % 10 == 0
                else None
                for s, values in enumerate(each)
            ]
            for gradient in trace.outputs:
                for s in range(seeds):
                    reference = exact[s][gradient]
                    for bound, text in (
                        (limits[s], "gradient, any order"),
                        (stated[s], "gradient, stated order"),
                    ):
                        if bound is not None:
                            limit = bound[gradient].certain.ravel()
                            ratio, count = against(reference, found[gradient][s].ravel(), limit)
                            tally.add("gradients", text, "certified", name, ratio, count)
                    done += 1
            for s in range(0, seeds, 4):
                for failure in FAILURES:
                    parts = [
                        np.abs((found[g][s] - exact[s][g].high) - exact[s][g].low)
                        / limits[s][g].likely(failure)
                        for g in trace.outputs
                    ]
                    worst = np.array([max(np.nanmax(part, initial=0.0) for part in parts)])
                    tally.add(
                        f"failure {failure}", "gradients of a trace, any order", "probabilistic", name,
                        worst, int(worst[0] > 1),
                    )  # fmt: skip
    return tally, done


def native(
    tally: Tally, case: str, target: Format, trace: Any, each: list[Any], exact: list[Any]
) -> int:
    """What torch's own kernels return, where it has the format."""
    from roundoff.gradients.bounds import bounds_of_trace

    if target.torch_dtype is None or target.precision < 8:
        return 0
    for values, references in zip(each, exact, strict=True):
        found = ro.native_gradients(
            functions()[case][0], values, None, lambda out: (out**2).sum(), format=target
        )
        for name, bound in bounds_of_trace(trace, values, target).items():
            ratio, count = against(references[name], found[name].ravel(), bound.certain.ravel())
            tally.add(
                "torch's gradients", "gradient, any order", "certified", str(target), ratio, count
            )
    return len(each) * len(trace.outputs)


def against(reference: Any, computed: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, int]:
    """As `exceeds`, for a reference with a radius far below the bound."""
    hi, lo, radius = (v.ravel() for v in (reference.high, reference.low, reference.error))

    def exact(k: int) -> Fraction:
        sign, mantissa, exponent, _ = reference.numbers.ravel()[k]
        return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** exponent

    return exceeds(computed, limit, hi, lo, radius, exact)


# ------------------------------------------------------------------------------------------- run


def jobs(scale: float, seed: int) -> Iterator[tuple[Any, Any]]:
    """(function, argument) of every batch."""
    number = 0
    for target in ALL:
        for order in orders.names():
            for n in LENGTHS if scale >= 1 else LENGTHS[:: 1 + number % 3]:
                count = max(1, int(900 * scale))
                yield batch, (number, target.name, order, n, count, KINDS, seed)
                number += 1
        for n, names, kinds in LONG if scale >= 1 else ():
            for order in names:
                count = max(1, 20_000 // n)
                yield batch, (number, target.name, order, n, count, kinds, seed)
                number += 1
    for case in functions():
        for target in ALL:
            yield gradients, (case, target.name, max(2, int(80 * scale)), seed)
    for case_of_sums in LIKELY:
        yield likely, (case_of_sums, max(15, int(250 * scale)), seed)


def call(job: tuple[Any, Any]) -> tuple[Tally, int, str]:
    tally, done = job[0](job[1])
    return tally, done, job[0].__name__


def run(scale: float = 1.0, seed: int = 0, workers: int = 1) -> tuple[pd.DataFrame, dict[str, int]]:
    """The table and how many sums and gradients were checked."""
    tally, done = Tally(), {"batch": 0, "likely": 0, "gradients": 0}
    every = list(jobs(scale, seed))
    if workers == 1:
        found = map(call, every)
        for each, count, name in found:
            tally.merge(each)
            done[name] += count
    else:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            for each, count, name in pool.map(call, every, chunksize=4):
                tally.merge(each)
                done[name] += count
    return tally.frame(), done


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()
    start = time.perf_counter()
    table, done = run(options.scale, options.seed, options.workers)
    print(table.to_string(float_format="%.3g"))
    certain = table[table["kind"] != "probabilistic"]
    print(
        f"{done['batch'] + done['likely']} sums and dot products, {done['gradients']} gradients in "
        f"{time.perf_counter() - start:.0f} s; {int(certain['violations'].sum())} violations of "
        f"certified and running bounds"
    )
    if options.scale >= 1:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_whole(options.out, table.to_csv(index=False).encode())


if __name__ == "__main__":
    main()
