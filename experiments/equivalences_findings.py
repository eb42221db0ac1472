"""From verdicts on pairs and their twins to a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from equivalences_figures import apart
from equivalences_rows import FLAGS, Equivalence

from roundoff.kernels import provenance
from roundoff.report.document import Report, Table
from roundoff.report.findings.verdicts import Question
from roundoff.words import counted


def equivalences_report(
    question: Question, configuration: Any, pairs: Sequence[Equivalence], rows: pd.DataFrame
) -> Report:
    """The report; rows: those of `equivalences_rows`."""
    settings = {k: v for k, v in vars(configuration).items() if k != "out"}
    return Report(
        title=question.title,
        question=question.text,
        answer=answer(rows),
        tables=[_verdicts(pairs, rows), _reasons(rows), Table("rows", "All verdicts.", rows, columns={})],
        figures=[apart(rows)],
        notes=list(_notes()),
        provenance=provenance.collect(
            seed=configuration.seed, configuration=settings,
            input_hashes={"all pairs": f"numpy.random.default_rng([{configuration.seed}, seed, *name])"},
            engine="mpmath, exact where polynomial; arb balls elsewhere, rigorous",
            radius="2^-20 ulp, or of 2 u S", threads=1,
        ),
    )  # fmt: skip


def answer(rows: pd.DataFrame) -> str:
    """How many twins were flagged, and how many honest pairs."""
    flagged = rows["verdict"].isin([str(flag) for flag in FLAGS])
    honest = rows["honest"].astype(bool)
    bad, good = int((flagged & honest).sum()), int((flagged & ~honest).sum())
    missed = rows[~flagged & ~honest]
    text = (
        f"Of {counted(int((~honest).sum()), 'comparison')} with a bug {good} "
        f"{'is' if good == 1 else 'are'} flagged, of {int(honest.sum())} honest "
        f"ones {bad if bad else 'none'}"
    )
    if len(missed):
        text += f"; not flagged are twins of {', '.join(dict.fromkeys(missed['pair']))}"
        text += f" in {', '.join(dict.fromkeys(missed['format']))}"
    return text + "."


def _verdicts(pairs: Sequence[Equivalence], rows: pd.DataFrame) -> Table:
    bugs = {pair.name: pair.bug for pair in pairs}
    found = []
    for (name, format), part in rows.groupby(["pair", "format"], sort=False):
        honest = part["honest"].astype(bool)
        found.append(
            {
                "pair": name, "format": format, "seeds": part["seed"].nunique(),
                "honest": _counts(part[honest]), "bug": bugs[str(name)], "twin": _counts(part[~honest]),
            }
        )  # fmt: skip
    return Table(
        name="verdicts",
        caption="The gravest verdict of all gradients and the output, and how often over the seeds.",
        frame=pd.DataFrame(found),
        columns={
            "pair": "pair",
            "format": "format",
            "honest": "honest pair",
            "bug": "the twin's bug",
            "twin": "twin",
        },
        group="pair",
        first=True,
        size=7.0,
    )


def _counts(part: pd.DataFrame) -> str:
    counts = part["verdict"].value_counts()
    return ", ".join(f"{name} {count}" for name, count in counts.items())


def _reasons(rows: pd.DataFrame) -> Table:
    twins = (
        rows[~rows["honest"].astype(bool)]
        .groupby(["pair", "format"], sort=False)
        .first()
        .reset_index()
    )
    return Table(
        name="reasons",
        caption="What the verdict says of the first seed of each twin.",
        frame=twins[["pair", "format", "verdict", "gradient", "reason"]],
        columns={"pair": "pair", "format": "format", "gradient": "gradient", "reason": "reason"},
        group="pair",
        size=6.5,
    )


def _notes() -> tuple[tuple[str, str], ...]:
    return (
        (
            "What decides.",
            "The exact results of both functions are compared at the inputs and at a random point beside "
            "them: only from there DIFFERENT comes, so no tolerance can hide a bug. Bounds decide the rest: "
            "SUSPICIOUS is a result that overflows where the exact one does not, or errs by more than "
            "rounding does.",
        ),
        (
            "The naive log softmax",
            "is the same function as the stable one, and is flagged only where its exponentials overflow or "
            "underflow: then its result is not finite, or far off.",
        ),
        (
            "A bias before batch norm",
            "has an exact gradient of zero; what is computed is rounding alone, of any relative size. Its "
            "scale is the sum of |terms|, in which the bound stands.",
        ),
    )
