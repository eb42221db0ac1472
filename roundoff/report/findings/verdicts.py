"""Verdicts and summaries of the rows of any study of two functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from roundoff.judging.verdict import Verdict, gravest
from roundoff.numbers import statistics
from roundoff.numbers.formats import as_format
from roundoff.report.figures import REAL

#: Who is called closer: false discovery rate, and the fewest seeds with which anybody can be.
LEVEL = 0.01
ENOUGH = 10

KEY = ["case", "shape", "gradient", "format"]


@dataclass(frozen=True)
class Question:
    """What a report is about; data: where the inputs come from, in a sentence."""

    title: str
    text: str
    data: str = ""


def verdicts(pairs: pd.DataFrame, names: tuple[str, str]) -> pd.DataFrame:
    """A row per case, shape, gradient and format; the gravest verdict of all seeds stands.

    error_first, error_second: median over seeds of the relative error in the 2-norm, in u.  closer: by
    the signed-rank test paired over seeds, p-values corrected for the number of rows; ratio: the
    median of the farther error over the closer, with its 95 % interval.  An overflow is an infinite error.
    """
    rows, tests = [], []
    for key, part in pairs.groupby(KEY, sort=False):
        u = as_format(key[-1]).u
        tests.append(statistics.paired(part["normwise_first"], part["normwise_second"]))
        rows.append(
            {
                **dict(zip(KEY, key, strict=True)),
                "n": part["n"].iloc[0],
                "seeds": len(part),
                "verdict": str(gravest([Verdict(v) for v in part["verdict"]])),
                "exact": part["reference_engine"].str.endswith(", exact").all(),
                "bitwise_equal": part["bitwise_equal"].mean(),
                "fraction_equal": part["fraction_equal"].mean(),
                "max_ulp_between": part["max_ulp_between"].max(),
                "max_scaled_between": part["max_scaled_between"].max(),
                "error_first": part["normwise_first"].median() / u,
                "error_second": part["normwise_second"].median() / u,
                "bound_probabilistic": part["bound_probabilistic"].max(),
                "bound_certified": part["bound_certified"].max(),
                "allclose": part["allclose"].mean(),
                "assert_close": part["assert_close"].mean(),
                "rtol": part["rtol"].max(),
                "atol": part["atol"].max(),
                "reason": _reason(part),
            }
        )
    table = pd.DataFrame(rows)
    table["p_value"] = statistics.correct([test.p_value for test in tests])
    return table.assign(**_closeness(tests, table, names))


def _reason(part: pd.DataFrame) -> str:
    worst = str(gravest([Verdict(v) for v in part["verdict"]]))
    return str(part.loc[part["verdict"] == worst, "reason"].iloc[0])


def _closeness(
    tests: Sequence[statistics.Paired], table: pd.DataFrame, names: tuple[str, str]
) -> dict[str, list[Any]]:
    label = {"first": names[0], "second": names[1], "neither": "neither"}
    columns: dict[str, list[Any]] = {
        "closer": [],
        "ratio": [],
        "ratio_low": [],
        "ratio_high": [],
        "effect": [],
    }
    for test, p, verdict in zip(tests, table["p_value"], table["verdict"], strict=True):
        closer = test.closer(p, LEVEL) if verdict != Verdict.DIFFERENT else "neither"
        columns["closer"].append(label[closer] if verdict != Verdict.DIFFERENT else "no question")
        for name, value in zip(("ratio", "ratio_low", "ratio_high"), test.factor, strict=True):
            columns[name].append(value)
        columns["effect"].append(test.effect)
    return columns


@np.errstate(invalid="ignore")  # the mean of overflows of both signs is NaN
def summary(errors: pd.DataFrame) -> pd.DataFrame:
    """The errors of every order and method over the seeds, and what was counted."""
    keys = ["case", "shape", "n", "format", "gradient", "method", "order", "accumulate"]
    grouped = errors.groupby(keys, sort=False)
    found = grouped.agg(
        seeds=("seed", "nunique"),
        max_ulp=("max_ulp", "max"),
        max_relative=("max_relative", "max"),
        median_max_scaled=("max_scaled", "median"),
        max_scaled=("max_scaled", "max"),
        median_rms_scaled=("rms_scaled", "median"),
        mean_scaled=("mean_scaled", "mean"),
        median_normwise=("normwise", "median"),
        overflow=("overflow", "sum"),
        nan=("nan", "sum"),
    )
    return found.reset_index()


def by_order(table: pd.DataFrame, gradient: str, method: str) -> pd.DataFrame:
    """The median rms error, in u S: a row per order and accumulator, a column per format."""
    chosen = table[(table["gradient"] == gradient) & (table["method"] == method)].copy()
    own = chosen["accumulate"].isin(["", *chosen["format"].unique()]) & (
        (chosen["accumulate"] == chosen["format"]) | chosen["order"].isin(REAL)
    )
    chosen["sums"] = np.where(
        chosen["order"].isin(REAL), "the kernel's", np.where(own, "in the format", "in float32")
    )
    wide = chosen.pivot_table(
        index=["order", "sums"], columns="format", values="median_rms_scaled", sort=False
    )
    return wide.reset_index()[
        ["order", "sums", *[f for f in chosen["format"].unique() if f in wide]]
    ]
