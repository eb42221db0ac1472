"""Pairs and their twins at scale, and reports of comparisons."""

from __future__ import annotations

import equivalences as experiment
import numpy as np
import pytest
import torch
from equivalences_findings import equivalences_report
from equivalences_rows import FLAGS, equivalences

import roundoff as ro
from roundoff.arithmetic.ties import first_tie
from roundoff.trace import prune, trace_gradients


@pytest.fixture(scope="module")
def rows():
    return equivalences(experiment.pairs(), ("float32", "float64"), 2)


def test_no_honest_pair_is_flagged_and_every_twin_is(rows) -> None:
    flagged = rows["verdict"].isin([str(flag) for flag in FLAGS])
    honest = rows["honest"].astype(bool)
    assert not rows[flagged & honest].size, rows[flagged & honest].to_string()
    assert not rows[~flagged & ~honest].size, rows[~flagged & ~honest].to_string()
    assert set(rows["pair"]) == {pair.name for pair in experiment.pairs()}


def test_the_report_counts_what_the_rows_say(rows, tmp_path) -> None:
    config = experiment.Equivalences(seeds=2)
    found = equivalences_report(experiment.QUESTION, config, experiment.pairs(), rows)
    assert found.answer == "Of 40 comparisons with a bug 40 are flagged, of 40 honest ones none."
    wrong = rows.assign(verdict="ROUNDOFF")
    missed = equivalences_report(experiment.QUESTION, config, experiment.pairs(), wrong).answer
    assert "bug 0 are flagged" in missed and "not flagged are twins of slice, conv" in missed
    path = ro.write_report(found, tmp_path)
    assert path.read_bytes().startswith(b"%PDF")
    assert (tmp_path / "figures" / "apart.png").exists()


def test_a_comparison_writes_a_report(tmp_path) -> None:
    inputs = {"x": torch.linspace(-1, 2, 7)}
    same = ro.compare(
        lambda x: (x * 3).sum(), lambda x: (x + x + x).sum(), inputs, formats=("float32",)
    )
    path = ro.write_report(same, tmp_path / "same")
    assert path.read_bytes().startswith(b"%PDF")
    assert (tmp_path / "same" / "tables" / "verdicts.csv").exists()
    other = ro.compare(
        lambda x: (x * 3).sum(), lambda x: (x * 2).sum(), inputs, formats=("float32",)
    )
    from roundoff.report.findings import comparison_report

    assert comparison_report(other).answer.startswith("Different functions: output in float32")
    assert len(comparison_report(other).provenance["Inputs of seed 0 (SHA-256)"]) == 4


def test_ties_are_found_where_they_are() -> None:
    trace = prune(trace_gradients(lambda x: torch.relu(x).sum(), {"x": torch.ones(4)}))
    assert first_tie(trace, {"x": np.array([1.0, -1.0, 2.0, 3.0])}) == ""
    assert first_tie(trace, {"x": np.array([1.0, -1.0, 0.0, 3.0])}).startswith("gt at element [2]")
