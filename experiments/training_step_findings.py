"""From training steps taken in two ways to a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from training_step_figures import over_depth
from training_step_rows import ComparedStep

from roundoff.gradients.bounds import rounded_up
from roundoff.judging.verdict import Verdict
from roundoff.kernels import provenance
from roundoff.report.document import Report, Table
from roundoff.report.findings import Question
from roundoff.words import counted

_COLUMNS = {
    "step": "step", "gradient": "result", "format": "format", "verdict": "verdict", "evidence": "evidence",
    "error_first": "error 1, u", "error_second": "error 2, u", "predicted": "predicted, u",
    "ratio": "error over predicted", "notices": "notices a factor",
}  # fmt: skip


def training_step_report(
    question: Question, configuration: Any, found: Sequence[ComparedStep]
) -> Report:
    """A row per parameter, the farthest from its prediction first, and a figure over depth."""
    rows = pd.concat([each.rows for each in found], ignore_index=True)
    rows = rows.sort_values(["step", "format", "ratio"], ascending=[True, True, False])
    settings = {k: v for k, v in vars(configuration).items() if k != "out"}
    return Report(
        title=question.title,
        question=question.text,
        answer=answer(rows),
        tables=[_table(rows), _notices(rows)],
        figures=[over_depth(rows)],
        notes=[
            *(("Note.", f"{each.step.name}: {note}") for each in found for note in each.comparison.notes)
        ],
        provenance=provenance.collect(
            seed=configuration.seed, configuration=settings,
            input_hashes={"all": f"torch.manual_seed({configuration.seed})"},
            engine="as ro.compare takes", radius="2^-20 max(ulp, 2 u S) at most, S that of the last sum",
            threads=provenance_threads(),
        ),
    )  # fmt: skip


def provenance_threads() -> int:
    """Those that torch had."""
    import torch

    return int(torch.get_num_threads())


def answer(rows: pd.DataFrame) -> str:
    """How the verdicts are, and how far errors are from their predictions."""
    verdicts = rows["verdict"].astype(str)
    counts = ", ".join(f"{count} {verdict}" for verdict, count in verdicts.value_counts().items())
    grave = verdicts.isin([str(Verdict.DIFFERENT), str(Verdict.SUSPICIOUS)]).any()
    ratios = rows["ratio"].dropna()
    span = (
        f"errors are {ratios.min():.2g} to {ratios.max():.2g} times the predicted ones"
        if len(ratios)
        else "nothing is predicted"
    )
    head = "Some need a look" if grave else "The same steps, but for rounding"
    return f"{head}: of {counted(len(rows), 'gradient or output', 'gradients and outputs')} {counts}; {span}."


def _table(rows: pd.DataFrame) -> Table:
    return Table(
        name="parameters",
        caption="One row per result, in each model and format the farthest from its prediction first. 1: the "
        "batch at once, or the first way; 2: the halves accumulated, or the second. Errors normwise "
        "relative, in u; notices: the smallest factor on all elements that the verdict would have flagged.",
        frame=rows[[column for column in _COLUMNS if column in rows]].reset_index(drop=True),
        columns={key: text for key, text in _COLUMNS.items() if key in rows},
        show={"notices": lambda factor: f"1 + {rounded_up(factor - 1, 2)}"},
        group="format",
        size=6.0,
    )


def _notices(rows: pd.DataFrame) -> Table:
    grouped = rows.groupby(["step", "format"], sort=False)
    frame = pd.DataFrame(
        {
            "results": grouped.size(),
            "verdicts": grouped["verdict"].agg(lambda v: ", ".join(sorted(set(map(str, v))))),
            "largest error, u": grouped[["error_first", "error_second"]]
            .max()
            .astype(float)
            .max(axis=1),
            "farthest from predicted": grouped["ratio"].max(),
        }
    ).reset_index()
    return Table(
        name="steps",
        caption="Each step in each format.",
        frame=frame,
        columns={str(name): str(name) for name in frame},
        group="step",
        first=True,
    )
