"""The study of predicted errors, in small."""

from __future__ import annotations

from dataclasses import replace

import calibration_rows
import numpy as np
import pytest
import torch
from calibration import QUESTION, Calibration, squares
from calibration_findings import calibration_report
from calibration_rows import EDGES, Case, Found, calibrate, channels_last, quantile, survival
from models import models

import roundoff as ro


def _case(name, function, **inputs):
    return Case("operations", name, function, inputs, None, squares, 0)


def _small() -> Found:
    torch.manual_seed(0)
    found = Found()
    calibrate(found, _case("exp", lambda x: x.exp(), x=torch.randn(9)), "float32")
    return found


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    found = Found()
    x, w, b = torch.randn(8, 30), torch.randn(20, 30), torch.randn(20)
    linear = _case("linear", lambda x, w, b: torch.nn.functional.linear(x, w, b), x=x, w=w, b=b)
    image, kernel = torch.randn(2, 3, 6, 6), torch.randn(4, 3, 3, 3)
    convolution = _case("convolution", lambda x, w: torch.conv2d(x, w), x=image, w=kernel)
    for format in ("bfloat16", "float32"):
        calibrate(found, linear, format)
        calibrate(found, convolution, format)
    calibrate(found, _case("random", lambda x: x + torch.rand_like(x), x=x), "float32")
    return found


def test_every_way_of_running_has_a_row(found) -> None:
    rows = found.table
    assert len(rows) == 2 * (2 * 4 + 3 * 3)
    assert set(zip(rows["threads"], rows["layout"], strict=True)) == {
        (1, "contiguous"), (2, "contiguous"), (1, "channels last"),
    }  # fmt: skip
    assert rows["ratio"].between(1 / 6, 6).all()
    assert (rows["beyond"] == "").all()
    assert len(found.refused) == 1 and "random" in found.refused[0]


def test_a_number_that_overflows_on_the_way_is_flagged() -> None:
    found, x = Found(), torch.tensor([1.0, 2.0, 250.0])
    calibrate(found, _case("roots", lambda x: (x * x * x * x).sqrt().sqrt(), x=x), "float16")
    assert set(found.table["beyond"]) == {"at 1 element by not being finite"}
    assert found.overflowing == 0


def test_where_float64_overflows_nothing_is_predicted() -> None:
    found, x = Found(), torch.full((3,), 800.0, dtype=torch.float64)
    calibrate(found, _case("softplus", lambda x: x.exp().log(), x=x), "float64")
    assert found.overflowing == 2 and set(found.table["gradient"]) == {"output"}
    report = calibration_report(QUESTION, Calibration(), replace(_small(), overflowing=4))
    assert any("4 results of which nothing is predicted" in text for _, text in report.notes)


def test_faults_of_the_printed_power_are_noticed(found) -> None:
    for fault in found.faults:
        if fault["times"] >= 1:
            assert fault["noticed"], fault
    small = [fault["noticed"] for fault in found.faults if fault["times"] < 0.2]
    assert not any(small)


def test_the_report_says_what_was_found(found, tmp_path) -> None:
    report = calibration_report(QUESTION, Calibration(quick=True), found)
    assert "none of 34 honest results is flagged" in report.answer
    assert ro.write_report(report, tmp_path).read_bytes().startswith(b"%PDF")
    assert {p.stem for p in (tmp_path / "figures").glob("*.png")} == {
        "ratios",
        "standardised",
        "power",
    }


def test_a_wrong_kernel_is_reported(found) -> None:
    rows = found.table
    rows.loc[0, "beyond"] = "in the 2-norm 9 times the error that rounding makes here"
    changed = Found(rows.to_dict("records"), found.native, found.model, found.faults)
    report = calibration_report(QUESTION, Calibration(quick=True), changed)
    assert "1 of 34 honest results are flagged" in report.answer
    (table,) = [t for t in report.tables if t.name == "flagged"]
    assert len(table.frame) == 1 and not table.frame["explained"].any()


def test_counts_by_bin() -> None:
    counts = np.histogram(np.abs(np.random.default_rng(0).normal(size=400_000)), EDGES)[0]
    assert abs(quantile(counts, 0.9) - 1.645) < 0.01
    above = survival(counts)
    assert above[0] == 1 and abs(above[10] - 0.317) < 0.005  # at 1


def test_channels_last_changes_strides_alone() -> None:
    image = torch.randn(2, 3, 4, 5)
    strides = channels_last(lambda x: torch.tensor(x.stride()))(x=image)
    assert strides.tolist() == [60, 1, 15, 3]


@pytest.mark.parametrize("model", list(models(quick=True)), ids=lambda model: model.name)
def test_small_models_are_compared_with_themselves(model) -> None:
    """In bfloat16: everything is decided, nothing flagged."""
    result = ro.compare(
        model.function, lambda **v: model.function(**v), model.inputs, model.parameters, model.loss,
        formats=("bfloat16",),
    )  # fmt: skip
    verdicts = {pair.judgement.verdict for pair in result.pairs.values()}
    assert verdicts <= {ro.Verdict.IDENTICAL, ro.Verdict.ROUNDOFF}


def test_wrong_results_of_torch_are_told_apart(found, monkeypatch) -> None:
    monkeypatch.setitem(calibration_rows.WRONG, ("hardsigmoid", "x", "float64"), "1.0f / 6.0f")
    more = replace(found, rows=[*found.rows], native=dict(found.native), faults=[*found.faults])
    x = torch.linspace(-2.5, 2.5, 9)
    calibrate(
        more, _case("hardsigmoid", lambda x: torch.nn.functional.hardsigmoid(x), x=x), "float64"
    )
    assert len(more.rows) == len(found.rows) + 2 and len(more.wrong) == 2
    report = calibration_report(QUESTION, Calibration(quick=True), more)
    assert "none of 36 honest results is flagged" in report.answer
    assert any("1.0f / 6.0f" in text and "2 of 2 flagged" in text for _, text in report.notes)
    assert "flagged" not in {table.name for table in report.tables}
