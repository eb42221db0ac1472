"""From native errors beside predicted ones to a report."""

from __future__ import annotations

from typing import Any

import pandas as pd
from calibration_figures import power, ratios, standardised
from calibration_rows import Found, quantile

from roundoff.judging.ordinary import TIMES
from roundoff.kernels import provenance
from roundoff.numbers.statistics import zero_failures
from roundoff.report.document import Report, Table, percent
from roundoff.report.figures.base import formats_of
from roundoff.report.findings import Question
from roundoff.words import counted

#: A tensor of fewer elements has no norm to speak of: it is among the single elements.
LEAST = 8

_QUANTILES = (0.5, 0.9, 0.99, 0.999)


def calibration_report(question: Question, configuration: Any, found: Found) -> Report:
    """Ratios of native to predicted errors, standardised errors, false alarms, power."""
    rows = found.table
    tensors = rows[rows["size"] >= LEAST]
    settings = {k: v for k, v in vars(configuration).items() if k != "out"}
    return Report(
        title=question.title,
        question=question.text,
        answer=answer(rows, tensors),
        tables=[_within(tensors), _elements(found), _outliers(tensors), *_flagged(rows), _all(rows)],
        figures=[
            ratios(tensors),
            standardised(found, formats_of(rows)),
            power(pd.DataFrame(found.faults)),
        ],
        notes=[
            (
                "What is compared.",
                f"{counted(len(rows), 'gradient or output', 'gradients and outputs')} of "
                f"{rows['function'].nunique()} functions against exact references, each predicted from 16 "
                "samples; on one thread and two, and with channels last where a tensor has four dimensions.",
            ),
            *(("Left out.", text) for text in sorted(set(found.refused))),
            *_overflowing(found),
            *_wrong(found),
        ],
        provenance=provenance.collect(
            seed=configuration.seed, configuration=settings,
            input_hashes={"all": f"seeds {configuration.seed} and following"}, engine="as ro.compare takes",
            radius="2^-20 max(ulp, 2 u S) at most, S that of the last sum", threads=2,
        ),
    )  # fmt: skip


def _wrong(found: Found) -> list[tuple[str, str]]:
    """Of every fault, how far off it makes results, and whether those are flagged."""
    told = []
    for why, of in pd.DataFrame(found.wrong, columns=["why", "ratio", "beyond"]).groupby("why"):
        flagged, times = (of["beyond"] != "").sum(), f"{of['ratio'].max():.3g}"
        text = f"{why}: {times} times the predicted error; {flagged} of {len(of)} flagged."
        told.append(("A fault of PyTorch's, left out.", text))
    return told


def _overflowing(found: Found) -> list[tuple[str, str]]:
    if not found.overflowing:
        return []
    what = counted(found.overflowing, "result")
    return [
        ("Left out.", f"{what} of which nothing is predicted, as the format overflows on the way.")
    ]


def answer(rows: pd.DataFrame, tensors: pd.DataFrame) -> str:
    """The shares within a factor of two and of four, and what would have been flagged."""
    two, four = (tensors["ratio"].between(1 / f, f).mean() for f in (2, 4))
    above = (tensors["ratio"] > 4).sum()
    flagged = (rows["beyond"] != "") & ~_explained(rows)
    rate = zero_failures(len(rows), 0.95) if not flagged.any() else None
    alarm = f"none of {len(rows)} honest results is flagged (fewer than {percent(rate)} at 95 %)" if rate \
        else f"{flagged.sum()} of {len(rows)} honest results are flagged"  # fmt: skip
    return (
        f"{percent(two)} of the native errors are between half and twice the predicted ones, {percent(four)} "
        f"within a factor of four, {above or 'none'} above four times; {alarm}."
    )


def _explained(rows: pd.DataFrame) -> pd.Series:
    """Where the verdict would say UNDECIDED: another branch, or numbers that may be flushed."""
    return rows["branches"] | (rows["tiny"] != "")


def _within(tensors: pd.DataFrame) -> Table:
    grouped = tensors.groupby(["group", "format"], sort=False)["ratio"]
    frame = pd.DataFrame(
        {
            "results": grouped.size(),
            "within 2": grouped.apply(lambda r: r.between(0.5, 2).mean()),
            "within 4": grouped.apply(lambda r: r.between(0.25, 4).mean()),
            "smallest": grouped.min(),
            "5 %": grouped.quantile(0.05),
            "median": grouped.median(),
            "95 %": grouped.quantile(0.95),
            "largest": grouped.max(),
        }
    ).reset_index()
    return Table(
        name="ratios",
        caption=f"Native error over predicted error in the 2-norm, of results with {LEAST} elements or more: "
        "shares within a factor of two and of four, and quantiles.",
        frame=frame,
        columns={str(name): str(name) for name in frame},
        show={"within 2": percent, "within 4": percent},
        group="group",
        first=True,
    )


def _elements(found: Found) -> Table:
    kinds = {"native": found.native, "as drawn": found.model}
    frame = pd.DataFrame(
        {"format": format, "errors": kind, **{f"{q:.1%}": quantile(counts[format], q) for q in _QUANTILES}}
        for format in found.native
        for kind, counts in kinds.items()
        if format in counts
    )  # fmt: skip
    return Table(
        name="elements",
        caption="Quantiles of |error| of single elements over the predicted root mean square; normal errors "
        "would have .67, 1.64, 2.58 and 3.29.",
        frame=frame,
        columns={str(name): str(name) for name in frame},
        group="format",
    )


def _outliers(tensors: pd.DataFrame) -> Table:
    """The functions whose errors are most often off, and how."""
    off = tensors[~tensors["ratio"].between(0.25, 4)]
    by = ["group", "function", "gradient", "format"]
    frame = (
        off.groupby(by, sort=False)["ratio"]
        .agg(["count", "min", "max"])
        .reset_index()
        .sort_values("max", ascending=False)
    )
    shown = (
        pd.concat([frame.head(12), frame.tail(12)]).drop_duplicates() if len(frame) > 24 else frame
    )
    return Table(
        name="outliers",
        caption=f"Beyond a factor of four: {len(frame)} results, the largest and smallest ratios. Small "
        "ratios are of numbers that happen to be representable (sums of equal terms, zeros, a table of few "
        "values): the kernel then does not round where most numbers would.",
        frame=shown,
        columns={str(name): str(name) for name in shown},
        size=6.5,
    )


def _flagged(rows: pd.DataFrame) -> list[Table]:
    off = rows[rows["beyond"] != ""]
    if not len(off):
        return []
    off = off.assign(explained=_explained(off))
    columns = ("function", "gradient", "format", "threads", "layout", "explained", "beyond")
    table = Table(
        name="flagged",
        caption=f"Honest results whose errors are called beyond ordinary (limit: {TIMES:g} times in norm), "
        "and whether another branch or numbers below the smallest normal one may explain that, which makes "
        "them UNDECIDED.",
        frame=off[list(columns)].reset_index(drop=True),
        columns={name: name for name in columns},
        size=6.5,
    )
    return [table]


def _all(rows: pd.DataFrame) -> Table:
    """In the files only: one row per result of a function in a format, over seeds and ways of running."""
    by = ["group", "function", "gradient", "format", "size"]
    frame = rows.groupby(by, sort=False)["ratio"].agg(["count", "min", "median", "max"])
    return Table(name="all", caption="", frame=frame.round(4).reset_index(), columns={})
