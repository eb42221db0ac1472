"""From revealed kernels to a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from roundoff import figures, provenance
from roundoff.explanation import order_in_words, roundings
from roundoff.findings.verdicts import Question
from roundoff.findings.why import DRAWN, tree_rows
from roundoff.probing import Revealed, TreeClass
from roundoff.report import Report, Table
from roundoff.study.kernels import kernel_rows
from roundoff.words import counted

Found = Sequence[tuple[dict[str, Any], Revealed | None]]


def kernels_report(question: Question, configuration: Any, found: Found) -> Report:
    """The report; found: what `study.kernels` returned."""
    rows = kernel_rows(found, _words)
    settings = {k: v for k, v in vars(configuration).items() if k != "out"}
    return Report(
        title=question.title,
        question=question.text,
        answer=answer(found, rows),
        tables=[
            Table(
                name="kernels",
                caption="Every class of outputs that share a tree: its order and roundings, and replays "
                "in software that equal the kernel's result bit for bit (64 random data sets, and one of "
                "ones for gradients); calls: runs of the kernel that probing and proof took.",
                frame=rows,
                columns={
                    "operation": "operation", "format": "format", "threads": "threads",
                    "outputs": "outputs", "terms": "terms", "height": "height", "order": "order",
                    "roundings": "roundings", "replays": "replays", "calls": "calls",
                },
                group="operation",
                size=5.8,
            ),
        ],
        figures=_drawings(found),
        notes=list(_notes(rows)),
        provenance=provenance.collect(
            seed=configuration.seed, configuration=settings,
            input_hashes={"all": f"numpy.random.default_rng([{configuration.seed}, terms])"},
            engine="none: kernels are compared with their replays", radius="0", threads=0,
        ),
    )  # fmt: skip


def answer(found: Found, rows: pd.DataFrame) -> str:
    """How many kernels follow proven trees, and whether the tree depends on format and threads."""
    ran = [one for _, one in found if one is not None]
    proven = [one for one in ran if one.proven]
    several = sum(len(one.classes) > 1 for one in proven)
    text = (
        f"Of {counted(len(ran), 'kernel')} (operation, format, threads) {len(proven)} add in "
        "fixed trees that replay "
        f"every bit; in {several} of them not all outputs share one tree"
    )
    good = rows[rows["terms"] > 0]
    orders = good.groupby(["operation", "format", "threads"], sort=False)["order"].agg("; ".join)
    apart = orders.groupby(["operation", "format"], sort=False).nunique() > 1
    changed = list(dict.fromkeys(apart[apart].index.get_level_values(0)))
    if changed:
        text += f". The number of threads changes the order in {'; '.join(changed)}"
    return text + "."


def _words(one: Revealed, part: TreeClass) -> tuple[str, str]:
    return order_in_words(one, part), roundings(part.tree)


def _drawings(found: Found) -> list[Any]:
    """The first three small trees of one format, of different operations."""
    frames: dict[str, pd.DataFrame] = {}
    for label, one in found:
        if one is None or not one.proven or label["format"] != "float32":
            continue
        kernel = one.classes[0].tree
        if 8 <= kernel.n <= DRAWN and label["operation"] not in frames and len(frames) < 3:
            frames[label["operation"]] = tree_rows(kernel, label["operation"], one.products)
    return [figures.trees(pd.concat(frames.values(), ignore_index=True))] if frames else []


def _notes(rows: pd.DataFrame) -> Sequence[tuple[str, str]]:
    failed = rows[rows["terms"] == 0]
    notes = [
        (
            "How a tree is found.",
            "A huge number M at one term and -M at another swamp every unit term that meets one of them "
            "before they cancel; so the units that are left are those outside the two terms' lowest common "
            "ancestor (Xie and others 2025, FPRev). Smaller probes tell fused multiply-adds and narrow "
            "roundings. What is found is a guess until its replay in software gives the kernel's bits on "
            "every output of at least 64 random data sets, a third of which cancel almost to nothing.",
        ),
    ]
    if len(failed):
        names = ", ".join(
            f"{r.operation} in {r.format}"
            for r in failed.drop_duplicates(["operation", "format"]).itertuples()
        )
        notes.append(("What has no proven tree.", f"{names}; the table's rows say what was tried."))
    return notes
