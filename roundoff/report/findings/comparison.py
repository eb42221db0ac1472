"""From a comparison to its report; the public `write_report`."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from roundoff.arguments import instance
from roundoff.gradients.attribution import Attribution
from roundoff.judging.comparison import Comparison
from roundoff.judging.comparison.elsewhere import told
from roundoff.judging.verdict import Verdict, gravest
from roundoff.kernels import provenance
from roundoff.report import document
from roundoff.report.document import Report, Table, percent, upward
from roundoff.report.findings.sources import attribution_report

VERDICT_COLUMNS = {
    "gradient": "gradient", "format": "format", "verdict": "verdict", "evidence": "evidence",
    "fraction_equal": "bits equal",
    "ulp_between": "max ulp", "normwise_between": "normwise, u", "error_first": "error 1, u",
    "error_second": "error 2, u", "closer": "closer", "ratio": "by", "predicted": "predicted, u",
    "bound_probabilistic": "bound",
    "rtol": "rtol", "atol": "atol",
}  # fmt: skip


def write_report(result: Comparison | Attribution | Report, folder: Path | str) -> Path:
    """Write report.pdf, figures/NAME.png and .csv, tables/NAME.csv and .parquet; returns the PDF's path.

    result: what `compare` or `attribute` returned, or a Report.
    Raises: ArgumentError where the folder cannot be written.
    """
    found: Any = result
    if isinstance(result, Comparison):
        found = comparison_report(result)
    elif isinstance(result, Attribution):
        found = attribution_report(result)
    instance("the folder", folder if str(folder) else None, (str, Path), "a path")
    return document.write_files(found, folder)


def verdict_table(result: Comparison, name: str, caption: str, *, size: float) -> Table:
    """A comparison's table, on a report's first page."""
    table = result.table
    return Table(
        name=name,
        caption=caption,
        frame=table,
        columns={key: text for key, text in VERDICT_COLUMNS.items() if key in table},
        show={"fraction_equal": percent, "rtol": upward, "atol": upward},
        group="format",
        first=True,
        size=size,
    )


def comparison_report(result: Comparison) -> Report:
    """The verdict table, the reasons, the suggested tolerances."""
    one, two = result.names
    table = result.table
    hashes = {
        f"{name}, {format}, side {k}": hashlib.sha256(
            np.ascontiguousarray(v).tobytes()
        ).hexdigest()[:16]
        for (name, format), pair in result.pairs.items()
        for k, v in enumerate(pair.computed or (), 1)
    }
    return Report(
        title=f"{one} against {two}",
        question=f"Are {one} (1) and {two} (2) the same function, and is their difference rounding?",
        answer=answer(result),
        tables=[
            verdict_table(
                result,
                "verdicts",
                "Errors normwise relative, in u; closer on these inputs; bound: the largest "
                "probabilistic one (failure 1e-9 per comparison) in u times the sum of |terms|; predicted: "
                "the error that rounding usually makes, where that decides; rtol and "
                "atol for assert_close between the two.",
                size=6.5,
            ),
            Table(
                name="reasons",
                caption="Why.",
                frame=table,
                columns={key: key for key in ("gradient", "format", "verdict", "reason")},
                group="format",
                size=7.0,
            ),
        ],
        figures=[],
        notes=[("Note.", note) for note in result.notes],
        provenance=provenance.collect(
            seed=0, configuration={"sides": f"{one}; {two}"}, input_hashes=hashes,
            engine="; ".join(dict.fromkeys(p.engine for p in result.pairs.values() if p.engine)) or "none",
            radius="2^-20 max(ulp, 2 u S) at most", threads=_threads(),
        ),
    )  # fmt: skip


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())


def answer(result: Comparison) -> str:
    """The gravest verdict, and where it stands; then where the two part that are equal at these inputs."""
    verdicts = [pair.judgement.verdict for pair in result.pairs.values()]
    worst = gravest(verdicts)
    where = [
        f"{g} in {f}" for (g, f), pair in result.pairs.items() if pair.judgement.verdict == worst
    ]
    text = {
        Verdict.IDENTICAL: "The same bits at these inputs.",
        Verdict.ROUNDOFF: "Equal at these inputs up to rounding.",
        Verdict.UNDECIDED: "Undecided",
        Verdict.SUSPICIOUS: "Suspicious: rounding does not explain",
        Verdict.DIFFERENT: "Different functions",
    }[worst]
    partings = "".join(f" But {each}." for each in told(result.elsewhere.values()))
    if worst in (Verdict.IDENTICAL, Verdict.ROUNDOFF):
        return text + partings
    shown = ", ".join(where[:4]) + (f" and {len(where) - 4} more" if len(where) > 4 else "")
    return f"{text}: {shown}.{partings}"
