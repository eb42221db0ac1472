"""Assertions for other people's suites: what they accept, what they reject, what they say; the plugin."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro
from roundoff.errors import ArgumentError
from roundoff.judging import reference_cache as disk
from roundoff.testing import assert_same_function, assert_within_roundoff

RNG = np.random.default_rng(7)
INPUTS = {name: torch.from_numpy(RNG.standard_normal(shape)).float()
          for name, shape in (("w", (5, 5)), ("x", (5, 5)))}  # fmt: skip


def product(w, x):
    return w @ x


def squares(out):
    return (out * out).sum()


PROBLEM = dict(inputs=INPUTS, wrt=("w",), loss=squares)


def gradient(dtype=torch.float32):
    w, x = (INPUTS[name].to(dtype) for name in ("w", "x"))
    return 2 * (w @ x) @ x.T


@pytest.mark.parametrize("kind", ["probabilistic", "certified"])
def test_honest_results_pass(kind) -> None:
    assert_within_roundoff(
        {"w": gradient(), "output": INPUTS["w"] @ INPUTS["x"]}, product, **PROBLEM, kind=kind
    )
    assert_within_roundoff(INPUTS["w"] @ INPUTS["x"], product, INPUTS, kind=kind)


FAULTS = {
    "a transposition": lambda g: g.T,
    "a factor of 1.0": lambda g: g * 1.001,
    "in other places": lambda g: g.flip(0),
    "a constant": lambda g: g + 0.25,
    "zeros everywhere": torch.zeros_like,
    "not finite": lambda g: torch.where(torch.arange(25).reshape(5, 5) == 7, torch.nan, g),
    "rounded to bfloat16": lambda g: g.bfloat16().float(),
    "another": torch.round,
    "alone": lambda g: g + (torch.arange(25).reshape(5, 5) == 7).float(),
    "another function": lambda g: g + torch.from_numpy(RNG.standard_normal((5, 5))).float(),
    "narrower format": lambda g: (
        g * (1 + 2e-4 * torch.from_numpy(RNG.standard_normal((5, 5))).float())
    ),
}


@pytest.mark.parametrize("words", FAULTS)
def test_faults_are_rejected_with_their_suspected_cause(words) -> None:
    with pytest.raises(AssertionError, match=r"not within round-off in float32") as caught:
        assert_within_roundoff({"w": FAULTS[words](gradient())}, product, **PROBLEM)
    text = str(caught.value)
    assert words in text
    for line in ("worst element", "exact ", "actual ", "ulp", "bound ", "suspected"):
        assert line in text


def test_same_function() -> None:
    assert_same_function(product, lambda w, x: torch.einsum("ij,jk->ik", w, x), **PROBLEM)
    with pytest.raises(AssertionError, match="DIFFERENT"):
        assert_same_function(product, lambda w, x: x @ w, **PROBLEM)
    kink = {"x": torch.zeros(3)}
    with pytest.raises(AssertionError, match="UNDECIDED"):
        assert_same_function(lambda x: F.relu(x).sum(), lambda x: x.clamp(min=0).sum(), kink)


def test_bad_arguments_are_named() -> None:
    for call, words in (
        (lambda: assert_within_roundoff({"w": gradient()}, product, **PROBLEM, kind="likely"), "'likely'"),
        (lambda: assert_within_roundoff({"v": gradient()}, product, **PROBLEM), "'v'; there are w, output"),
        (lambda: assert_within_roundoff({}, product, **PROBLEM), "actual is empty; give tensors"),
        (lambda: assert_within_roundoff({"w": gradient(), "output": gradient().double()}, product, **PROBLEM),
         "float32, float64"),
        (lambda: ro.tolerance(product, **PROBLEM, failure=2.0), "failure"),
    ):  # fmt: skip
        with pytest.raises(ro.ArgumentError, match=words):
            call()
    with pytest.raises(AssertionError, match=r"shape \(5,\)"):
        assert_within_roundoff({"w": gradient()[0]}, product, **PROBLEM)


def test_references_are_kept_on_disk_by_trace_and_bits(monkeypatch) -> None:
    count = 0
    real = disk.evidence_of_trace

    def counted(*args, **kwargs):
        nonlocal count
        count += 1
        return real(*args, **kwargs)

    monkeypatch.setattr(disk, "evidence_of_trace", counted)
    for _ in range(3):
        assert_within_roundoff({"w": gradient()}, product, **PROBLEM)
    assert count == 1
    assert_within_roundoff({"w": gradient(torch.float64)}, product, **PROBLEM)
    other = {**INPUTS, "w": INPUTS["w"] * (1 + 2.0**-23)}
    with pytest.raises(AssertionError):
        assert_within_roundoff({"w": gradient() * 1.5}, product, other, ("w",), squares)
    with pytest.raises(AssertionError):
        assert_within_roundoff({"w": gradient()}, lambda w, x: x @ w, **PROBLEM)
    assert count == 4


SUITE = """
import torch, roundoff as ro

INPUTS = {"x": torch.arange(1.0, 9.0) / 3}

def loss(out):
    return (out * out).sum()

def test_one(roundoff):
    roundoff.assert_within_roundoff({"x": INPUTS["x"] * 2}, lambda x: x, INPUTS, loss=loss)

def test_two():
    ro.testing.assert_same_function(lambda x: x * 3, lambda x: x + x + x, INPUTS, loss=loss)

def test_three(roundoff):
    roundoff.assert_within_roundoff({"x": INPUTS["x"] * 3}, lambda x: x, INPUTS, loss=loss)
"""


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["alone", "xdist"])
def test_the_plugin_reports_what_was_used(options, tmp_path) -> None:
    if options:
        pytest.importorskip("xdist")
    (tmp_path / "test_suite.py").write_text(SUITE)
    root = Path(ro.__file__).parents[1]
    plugin = [] if _installed() else ["-p", "roundoff.testing.plugin"]
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, *options, "test_suite.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    ).stdout  # fmt: skip
    assert "1 failed, 2 passed" in found
    assert "share of the tolerance used" in found
    assert "test_suite.py::test_one  x (float32)" in found
    assert "a factor of 1.5 on all elements" in found


def _installed() -> bool:
    from importlib.metadata import entry_points

    return any(point.value == "roundoff.testing.plugin" for point in entry_points(group="pytest11"))


def test_the_plugin_is_light() -> None:
    code = "import sys, roundoff.testing.plugin; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        (None, "actual has None for 'output'; give tensors by name, or the output's"),
        ({}, "actual is empty; give tensors by name, or the output's"),
        ({"x": None}, "actual has None for 'x'; give tensors by name, or the output's"),
        (
            torch.zeros(3, dtype=torch.int32),
            "actual is of type int32, which is not rounded; give floating-point",
        ),
    ],
)
def test_what_is_no_result_is_told(actual, message) -> None:
    with pytest.raises(ArgumentError, match=re.escape(message)):
        ro.testing.assert_within_roundoff(
            actual, lambda x: x * x, {"x": torch.ones(3)}, loss=torch.sum
        )
