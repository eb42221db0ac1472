"""The soundness run of benchmarks/soundness.py, short; and that it finds a bound that is too small."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
soundness = pytest.importorskip("soundness")
chance = pytest.importorskip("soundness_chance")


def test_no_certified_bound_is_exceeded_and_no_probabilistic_one_too_often() -> None:
    table, done = soundness.run(scale=0.004, seed=11)
    certain = table[table["kind"].isin(["certified", "running"])]
    assert (certain["violations"] == 0).all()
    likely = table[table["kind"] == "probabilistic"]
    assert (likely["p_value"] > 1e-4).all()
    assert done["batch"] > 10_000 and done["gradients"] > 1_000
    # Nor are they far above: attained, or nearly, somewhere.
    best = certain.groupby("bound")["best"].max()
    for name in ("gamma", "Jeannerod and Rump", "Lange and Rump", "depth-weighted", "partial sums"):
        assert best[name] > 0.9
    assert best["gradient, any order"] > 0.1 and best["running, ufp"] > 0.9


@pytest.mark.parametrize("name", ["jeannerod_rump", "compounded", "neumaier"])
def test_the_run_finds_a_bound_that_is_too_small(monkeypatch, name) -> None:
    """Each theorem made smaller by a third: some sum exceeds it."""
    theorem = getattr(soundness.bounds.theorems, name)

    def smaller(*arguments):
        found = theorem(*arguments)
        scaled = np.multiply(found, 2 / 3)
        return tuple(scaled.tolist()) if isinstance(found, tuple) else scaled

    monkeypatch.setattr(soundness.bounds.theorems, name, smaller)
    found = 0
    for k, order in enumerate(("sequential", "neumaier")):
        for n in (2, 3, 5):
            job = (2 * k, "float8_e5m2", order, n, 60, soundness.KINDS, 0)
            found += int(soundness.batch(job)[0].frame()["violations"].sum())
    assert found > 0


def exceeded(trials: int) -> float:
    """The smallest p-value of "no more often than stated" among the machines that err by +-u."""
    cases = [case for case in chance.LIKELY if case[4] == "signs"]
    frames = [chance.likely((case, trials, 5))[0].frame() for case in cases]
    return min(float(frame["p_value"].min()) for frame in frames)


def test_the_run_finds_a_probabilistic_bound_four_times_too_small(monkeypatch) -> None:
    assert exceeded(40) > 1e-4
    theorem = soundness.bounds.theorems.hallman_ipsen
    monkeypatch.setattr(
        soundness.bounds.theorems, "hallman_ipsen", lambda *arguments: theorem(*arguments) / 4
    )
    assert exceeded(40) < 1e-6
