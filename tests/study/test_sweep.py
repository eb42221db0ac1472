"""The sweep of sums, its figures and its report."""

from __future__ import annotations

import bounds_figures
import numpy as np
import pandas as pd
import pytest
from bounds_findings import bounds_report, coverage_rows, tightness_rows
from bounds_rows import attained, sweep

import roundoff as ro
from roundoff.report import findings


@pytest.fixture(scope="module")
def rows() -> pd.DataFrame:
    return sweep(
        ("bfloat16", "float32"), ("sequential", "kahan"), (2, 16, 300), seeds=6, failure=1e-3
    )


def test_bounds_are_above_every_measured_error(rows) -> None:
    certain = rows[rows["quantity"].str.startswith(("certified", "running"))]
    assert (certain["worst"] <= 1).all()
    assert set(rows["quantity"]) == {"measured", *bounds_figures.LOOKS}
    measured = rows[rows["quantity"] == "measured"]
    assert (measured["largest"] >= measured["value"]).all()
    # A stagnating loop has a probabilistic bound, too.
    stagnant = rows.query("format == 'bfloat16' and order == 'sequential' and data == 'uniform'")
    likely = stagnant.query("quantity == 'probabilistic' and n == 300")
    assert len(likely) == 1 and 0 < likely["worst"].item() <= 1


def test_the_exact_error_is_exact() -> None:
    assert sweep(("float32",), ("pairwise",), (2,), seeds=1, failure=0.1)["n"].eq(2).all()
    x = np.array([1.0, 2.0**-60, -1.0])
    from bounds_rows import exact_error

    assert exact_error(0.0, x) == 2.0**-60
    for lost in (np.inf, -np.inf, np.nan):
        assert exact_error(lost, x) == np.inf


def test_figures_of_bounds(rows) -> None:
    for plot in (
        bounds_figures.bounds_against_n(rows),
        bounds_figures.bounds_against_n(rows, "normal"),
        bounds_figures.tightness(rows),
    ):
        assert plot.png() == plot.png() and len(plot.data)
    with pytest.raises(ro.ArgumentError, match="no rows of data 'odd'"):
        bounds_figures.bounds_against_n(rows, "odd")


def soundness_rows(violations: int) -> pd.DataFrame:
    names = ["part", "kind", "bound", "format", "cases", "violations", "median", "best", "p_value"]
    return pd.DataFrame(
        [
            (
                "sums",
                "certified",
                "smallest certified",
                "float32",
                1000,
                violations,
                0.1,
                0.9,
                np.nan,
            ),
            ("sums", "certified", "smallest certified", "float16", 3000, 0, 0.3, 1.0, np.nan),
            ("sums", "certified", "gamma", "float16", 3000, 0, 0.2, 1.0, np.nan),
            ("sums", "expected", "root mean square", "float16", 3000, 0, 0.7, 9.0, np.nan),
            ("failure 0.5", "probabilistic", "Higham and Mary", "float16", 40, 2, 0.3, 1.2, 1.0),
        ],
        columns=names,
    )


class Configuration:
    def __init__(self) -> None:
        self.failure, self.seed, self.out = 1e-3, 0, None


def test_the_report_says_what_the_tables_say(rows, tmp_path) -> None:
    terms = attained(n=20)
    for table, words in (
        (soundness_rows(0), "No certified bound was exceeded in 4\u202f000 comparisons"),
        (soundness_rows(3), "Certified bounds were 3 times exceeded in 4\u202f000 comparisons"),
        (None, "by"),
    ):
        report = bounds_report(findings.Question("t", "q"), Configuration(), rows, terms, table)
        assert words in report.answer
    path = ro.write_report(report, tmp_path)
    assert path.read_bytes().startswith(b"%PDF")
    middle = tightness_rows(soundness_rows(0)).set_index("bound").loc["smallest certified"]
    assert middle["cases"] == 4000 and middle["median"] == 0.3 and middle["best"] == 1.0
    assert coverage_rows(soundness_rows(0))["exceeded"].tolist() == [2]


def test_bad_input_is_named() -> None:
    with pytest.raises(ro.ArgumentError, match="0 seeds"):
        sweep(("float32",), ("pairwise",), (4,), seeds=0, failure=0.1)
    with pytest.raises(ro.ArgumentError, match="unknown order 'odd'"):
        sweep(("float32",), ("odd",), (4,), seeds=1, failure=0.1)
