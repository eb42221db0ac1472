"""The study of training steps, in small."""

from __future__ import annotations

import pytest
import training_step as experiment
from training_step_findings import training_step_report
from training_step_rows import compared

import roundoff as ro

CONFIG = experiment.TrainingStep(quick=True)


@pytest.fixture(scope="module")
def found():
    return [compared(step, ("bfloat16",)) for step in experiment.steps(CONFIG)]


def test_halves_accumulated_are_the_same_step(found) -> None:
    assert [each.step.name for each in found] == [
        "language model", "LSTM", "autoencoder", "Adam, two ways", "SGD, two ways",
    ]  # fmt: skip
    for each in found:
        rows = each.rows
        assert set(map(str, rows["verdict"])) <= {"ROUNDOFF", "IDENTICAL"}, each.step.name
        assert len(rows) == len(each.step.parameters) + 1
        assert (rows["ratio"].dropna() < 6).all()


def test_a_wrong_step_is_different(found) -> None:
    adam = found[3].step
    wrong = ro.compare(
        adam.first,
        lambda **v: adam.second(**v) - 1e-3 * v["weight"],
        adam.inputs,
        (),
        formats="float32",
    )
    assert wrong.verdict("output", "float32") == ro.Verdict.DIFFERENT


def test_the_report_has_a_row_per_parameter(found, tmp_path) -> None:
    report = training_step_report(experiment.QUESTION, CONFIG, found)
    assert report.answer.startswith("The same steps, but for rounding")
    assert ro.write_report(report, tmp_path).read_bytes().startswith(b"%PDF")
    (table,) = [t for t in report.tables if t.name == "parameters"]
    for _, part in table.frame.groupby(["step", "format"]):
        ratios = part["ratio"].dropna().tolist()
        assert ratios == sorted(ratios, reverse=True)
