"""From comparisons of whole layers to a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from layers_figures import layer_errors
from layers_rows import Measured

from roundoff.judging.verdict import Verdict
from roundoff.kernels import provenance
from roundoff.report.document import Report, Table
from roundoff.report.findings.comparison import verdict_table
from roundoff.report.findings.verdicts import Question
from roundoff.words import counted


def layers_report(question: Question, configuration: Any, found: Sequence[Measured]) -> Report:
    """Verdicts and errors of every layer, and what the references cost."""
    frames = [each.comparison.table.assign(layer=each.layer.name) for each in found]
    rows = pd.concat(frames, ignore_index=True)
    verdicts = [_verdicts(number, each) for number, each in enumerate(found, 1)]
    settings = {k: v for k, v in vars(configuration).items() if k != "out"}
    engines = dict.fromkeys(
        p.engine for each in found for p in each.comparison.pairs.values() if p.engine
    )
    return Report(
        title=question.title,
        question=question.text,
        answer=answer(found),
        tables=[*verdicts, _reasons(rows), _cost(found)],
        figures=[layer_errors(rows)],
        notes=[
            (
                "The reference.",
                "Exact inputs of each format; unevaluated sums of float64 numbers with a proven radius, "
                "checked by mpmath on a random sample of the outputs of every sum. Small layers: mpmath.",
            ),
            *(("Note.", f"{each.layer.name}: {note}") for each in found for note in each.comparison.notes),
        ],
        provenance=provenance.collect(
            seed=configuration.seed, configuration=settings,
            input_hashes={"all layers": f"torch.manual_seed({configuration.seed})"},
            engine="; ".join(engines) or "none",
            radius="2^-20 max(ulp, 2 u S) at most, S that of the last sum", threads=_threads(),
        ),
    )  # fmt: skip


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())


def answer(found: Sequence[Measured]) -> str:
    """What the verdicts are, counted."""
    verdicts = [p.judgement.verdict for each in found for p in each.comparison.pairs.values()]
    counts = {v: verdicts.count(v) for v in Verdict if v in verdicts}
    parts = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    flagged = counts.keys() & {Verdict.DIFFERENT, Verdict.SUSPICIOUS}
    what = "Some need a look" if flagged else "Nothing is flagged"
    return f"{what}: of {counted(len(verdicts), 'gradient or output', 'gradients and outputs')} {parts}."


def _verdicts(number: int, each: Measured) -> Table:
    return verdict_table(
        each.comparison,
        f"layer_{number}",
        f"{each.layer.name}: the whole batch (1) against its halves (2). Errors normwise "
        "relative, in u; bound: the largest probabilistic one in u times the sum of |terms|.",
        size=5.5,
    )


def _reasons(rows: pd.DataFrame) -> Table:
    known = (str(Verdict.IDENTICAL), str(Verdict.ROUNDOFF))
    other = rows[~rows["verdict"].astype(str).isin(known)]
    by = ["layer", "format", "verdict", "reason"]
    frame = other.groupby(by, sort=False)["gradient"].agg(", ".join).reset_index()
    return Table(
        name="reasons",
        caption="What is neither IDENTICAL nor ROUNDOFF, and why.",
        frame=frame,
        columns={key: key for key in ("layer", "format", "verdict", "reason", "gradient")},
        group="layer",
        size=6.0,
    )


def _cost(found: Sequence[Measured]) -> Table:
    frame = pd.DataFrame(
        {
            "layer": each.layer.name,
            "float64 backward, s": round(each.baseline, 3),
            "comparison, s": round(each.seconds, 1),
            "ratio": round(each.seconds / each.baseline),
        }
        for each in found
    )
    return Table(
        name="cost",
        caption="What the comparison in all formats took, beside one float64 backward pass of torch, on the "
        "machine of this report.",
        frame=frame,
        columns={str(name): str(name) for name in frame},
        size=7.0,
    )
