"""Figures, reports and provenance: what is written, byte by byte, from ordinary and from odd tables."""

from __future__ import annotations

import os
import subprocess
import sys

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
import slicing
import slicing_findings
from running_studies import Inline, grid_of
from slicing_findings import answer, slicing_report

import roundoff as ro
from roundoff import files, study
from roundoff.kernels import provenance
from roundoff.report import figures, findings
from roundoff.report.document import Report, Table, number, percent, typeset, upward


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    config = slicing.Slicing(quick=True, seeds=6, orders=("sequential", "pairwise", "kahan"))
    problems = list(slicing.problems(config))
    return config, problems, study.run(grid_of(config), folder, executor=Inline(), progress=False)


@pytest.fixture(scope="module")
def report(tables):
    return slicing_report(slicing.QUESTION, *tables, {})


def test_files_beside_the_pdf(report, tmp_path) -> None:
    path = ro.write_report(report, tmp_path / "out")
    assert path == tmp_path / "out" / "report.pdf"
    assert path.read_bytes().startswith(b"%PDF")
    for plot in report.figures:
        assert (tmp_path / "out/figures" / f"{plot.name}.png").read_bytes().startswith(b"\x89PNG")
        beside = pd.read_csv(tmp_path / "out/figures" / f"{plot.name}.csv")
        assert list(beside.columns) == list(plot.data.columns) and len(beside) == len(plot.data) > 0
    for table in report.tables:
        for read, end in ((pd.read_csv, "csv"), (pd.read_parquet, "parquet")):
            assert len(read(tmp_path / "out/tables" / f"{table.name}.{end}")) == len(table.frame)
    names = [plot.name for plot in report.figures]
    assert len(set(names)) == len(names) >= 7
    assert not list((tmp_path / "out").rglob(".*")), "temporary files are left"


def test_the_same_rows_give_the_same_bytes(tables, tmp_path) -> None:
    for name in "ab":
        ro.write_report(slicing_report(slicing.QUESTION, *tables, {}), tmp_path / name)
    written = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    for path in written:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes(), path


def test_the_answer_follows_the_verdicts(tables) -> None:
    config, problems, rows = tables
    found = findings.verdicts(rows["pairs"], problems[0].names)
    assert answer(found, problems[0]).startswith("Yes, they are the same function")
    assert "cutting it off gives a different function" in answer(found, problems[0])
    main = (found["case"] == "kernel 1") & (found["format"] == "float32")
    wrong = found.copy()
    wrong.loc[main, "verdict"] = "DIFFERENT"
    assert answer(wrong, problems[0]).startswith("No: the exact gradients differ")
    partly = found.copy()
    partly.loc[(partly["case"] == "halo cut") & (partly["gradient"] == "bias"), "verdict"] = (
        "ROUNDOFF"
    )
    assert "a different function (another gradient by the weight)" in answer(partly, problems[0])
    leak = found.copy()
    leak.loc[leak.index[leak["case"] == "halo kept"][:1], "verdict"] = "DIFFERENT"
    assert "keeping the halo gives a different function" in answer(leak, problems[0])
    enclosed = found.assign(exact=False)
    assert "to within the proven radius" in answer(enclosed, problems[0])
    odd = found.copy()
    odd.loc[main, ["verdict", "reason"]] = ["SUSPICIOUS", "second errs by 3"]
    assert "Not all is settled: second errs by 3." in answer(odd, problems[0])
    equal = found.copy()
    equal.loc[equal["case"] == "kernel 1", "bitwise_equal"] = 1.0
    assert "in no bit, on this machine" in answer(equal, problems[0])
    assert "6 seeds are too few to say" in answer(equal, problems[0])
    closer = found.copy()
    columns = ["closer", "ratio", "ratio_low", "ratio_high"]
    closer.loc[main & (found["gradient"] == "bias"), columns] = ["conv_then_slice", 1.3, 1.2, 1.4]
    text = answer(closer, problems[0])
    assert "conv then slice for the bias in float32, by a factor of 1.30 (1.20 to 1.40)" in text
    swept = found.assign(closer="neither", seeds=30)
    far = swept.index[(swept["case"] == "length sweep") & (swept["gradient"] == "weight")][:2]
    swept.loc[far, ["closer", "ratio"]] = ["slice_then_conv", 1.5]
    text = answer(swept, problems[0])
    assert "Neither is reliably closer" in text
    assert "over the other shapes and lengths, closer is slice then conv for the weight in" in text


def test_earlier_points_are_answered_from_the_trace(tables) -> None:
    _, problems, rows = tables
    text = slicing_findings._influence(problems, rows["reads"])
    assert "kernel size 1" in text and "depend on 5 to 9 alone" in text
    assert "kernel size 3" in text and "depend on 3 to 9 alone" in text


def test_verdicts_know_who_is_closer() -> None:
    rng = np.random.default_rng(0)
    base = rng.uniform(1, 2, 60) * 2.0**-24
    shared = {
        "case": "kernel 1", "shape": "s", "n": 5, "gradient": "weight", "format": "float32", "verdict": "ROUNDOFF",
        "reason": "", "reference_engine": "mpmath, exact", "bitwise_equal": False, "fraction_equal": 0.5, "max_ulp_between": 1.0, "max_scaled_between": 1.0,
        "bound_probabilistic": 10.0, "bound_certified": 20.0, "allclose": True, "assert_close": True,
        "rtol": 1e-6, "atol": 1e-6,
    }  # fmt: skip
    pairs = pd.DataFrame(
        {**shared, "seed": np.arange(60), "normwise_first": 1.5 * base, "normwise_second": base}
    )
    row = findings.verdicts(pairs, ("one", "two")).iloc[0]
    assert row["closer"] == "two" and row["ratio"] == pytest.approx(1.5) and row["effect"] == -1.0
    assert row["ratio_low"] <= 1.5 + 1e-9 and row["p_value"] < 1e-6
    tied = pairs.assign(normwise_first=base)
    assert findings.verdicts(tied, ("one", "two")).iloc[0]["closer"] == "neither"


def drawn(errors, pairs, elements):
    plots = [
        figures.ecdf(errors), figures.orders(errors), figures.first_against_second(pairs),
        figures.bias_against_noise(errors), figures.precision_ladder(errors), figures.heat_map(elements),
        figures.error_against_n(errors, pd.DataFrame({"format": ["float32"], "n": [5], "bound": ["certified"], "value": [9.0]})),
    ]  # fmt: skip
    return [plot.png() for plot in plots]


def one_problem(tables):
    _, problems, rows = tables
    errors, pairs, elements = (
        slicing_findings._of(rows[name], problems[0]) for name in study.TABLES[:3]
    )
    chosen = (elements["gradient"] == "weight") & (elements["format"] == "float32")
    return errors, pairs, elements[chosen]


def test_figures_bear_odd_tables(tables) -> None:
    errors, pairs, elements = one_problem(tables)
    drawn(
        errors.assign(order=errors["order"].replace("kahan", "an order of tomorrow")),
        pairs,
        elements,
    )
    zero = errors.assign(max_scaled=0.0, rms_scaled=0.0, normwise=0.0, mean_scaled=0.0)
    drawn(
        zero,
        pairs.assign(normwise_first=0.0, normwise_second=0.0),
        elements.assign(error_scaled=0.0),
    )
    holes = errors.assign(max_scaled=np.where(errors["seed"] == 1, np.nan, errors["max_scaled"]))
    holes.loc[holes["seed"] == 2, ["rms_scaled", "normwise"]] = np.inf
    drawn(holes, pairs, elements)
    one = errors["seed"] == 0
    drawn(errors[one], pairs[pairs["seed"] == 0], elements)
    drawn(errors[errors["format"] == "float32"], pairs[pairs["format"] == "float32"], elements)


def test_drawing_leaves_no_trace_in_matplotlib(tables) -> None:
    before = dict(mpl.rcParams)
    drawn(*one_problem(tables))
    assert dict(mpl.rcParams) == before
    code = "import sys, roundoff.report.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def bare(**changes):
    frame = pd.DataFrame({"a": [1.0, np.nan, np.inf], "b": ["#let x", "$y$", "ROUNDOFF"]})
    table = Table("t", "*bold* #caption @x", frame, {"a": "a", "b": "b"}, first=True)
    return Report(**{"title": "T", "question": "Q", "answer": "A", "tables": [table], "figures": [],
                     "notes": [("N.", "#n")], "provenance": {"P": {"k": "v"}}, **changes})  # fmt: skip


def test_text_is_never_markup_and_empty_reports_work() -> None:
    assert typeset(bare()).startswith(b"%PDF")
    assert typeset(bare(tables=[], notes=[], provenance={})).startswith(b"%PDF")


def test_anything_that_makes_a_report_is_written(tmp_path) -> None:
    class Result:
        def report(self):
            return bare()

    assert ro.write_report(Result(), tmp_path).exists()


def test_a_folder_that_cannot_be_written(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ro.ArgumentError, match="cannot write to the folder .*choose another"):
        ro.write_report(bare(), tmp_path / "file" / "out")


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch) -> None:
    path = tmp_path / "f"
    files.write_whole(path, b"old")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fdopen", stop)
    with pytest.raises(KeyboardInterrupt):
        files.write_whole(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_numbers_are_written_plainly() -> None:
    assert [number(x) for x in (0.0, 1.5, 1234.5678, 2e-9, 1e9, -np.inf, np.nan, True)] == [
        "0", "1.5", "1.23e3", "2.00e-9", "1.00e9", "−∞", "–", "yes",
    ]  # fmt: skip
    assert [percent(x) for x in (0.0, 0.0004, 0.5, 0.99999, 1.0)] == [
        "0 %",
        "0.1 %",
        "50 %",
        "99.9 %",
        "100 %",
    ]
    assert [upward(x) for x in (1.21e-5, 0.25, 0.0, np.nan, np.inf)] == [
        "1.3e-05",
        "0.25",
        "0",
        "–",
        "∞",
    ]


def test_provenance_has_facts_and_no_places(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OMP_PLACES_OF_MINE", "/some/where")
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    found = provenance.collect(
        seed=3,
        configuration={"N": 1},
        input_hashes={"x": "ab"},
        engine="mpmath",
        radius="0",
        threads=2,
    )
    text = str(found)
    assert {"MKL_CBWR": "AVX2", "OMP_PLACES_OF_MINE": "(a path)"}.items() <= found[
        "Environment"
    ].items()
    for name in ("torch", "numpy", "mpmath", "python-flint"):
        assert found["Versions"][name][0].isdigit()
    assert found["Run"]["seed"] == "3" and "CPU capability" in found["Machine"]
    for place in (os.getcwd(), os.path.expanduser("~"), sys.prefix, str(tmp_path)):
        assert place not in text
