"""From an attribution of errors to its report."""

from __future__ import annotations

from roundoff.gradients.attribution import PARTS, Attribution, Site
from roundoff.kernels import provenance
from roundoff.report.document import Report, Table, percent
from roundoff.report.figures.sources import element_maps, source_bars

#: The elements of steps with more are not drawn.
_LARGEST = 1_000_000


def attribution_report(found: Attribution) -> Report:
    """Shares as bars and tables, and a map of the elements of the largest source."""
    shares = found.by()
    largest = found.table.sort_values("error", ascending=False).iloc[0]
    figures = [source_bars(shares)]
    name = str(largest["module"] or largest["line"] or largest["operation"])
    steps = [
        (f"{site.operation} ({site.source.phase})", squares)
        for site, squares in found.elements(str(largest["gradient"]), name)
        if 1 < squares.size <= _LARGEST and squares.any()
    ]
    if steps:
        steps.sort(key=lambda each: -float(each[1].sum()))
        figures.append(element_maps(f"{name} ({largest['gradient']})", steps))
    top = shares.iloc[0]
    return Report(
        title=f"Where errors in {found.format} come from",
        question="Which modules, lines and operations make the errors of the gradients and of the output?",
        answer=f"Most comes from {Site.of_row(top.to_dict())}: "
        f"{percent(float(top['share']))} of the mean square, in the mean over all results.",
        tables=[
            Table(
                name="sources",
                caption="Shares in the mean square of the error, in the mean over all results.",
                frame=shares,
                columns={**{part: part for part in PARTS}, "share": "share"},
                show={"share": percent},
                first=True,
            ),
            Table(name="results", caption="", frame=found.table, columns={}),
        ],
        figures=figures,
        notes=[
            (
                "Model.",
                "Every rounding a random error of its size, at first order; kernels as they usually are. "
                f"{found.signs} random signs per element of a result.",
            )
        ],
        provenance=provenance.collect(
            seed=0, configuration={"format": found.format, "signs": found.signs}, input_hashes={},
            engine="none: errors are predicted", radius="none", threads=_threads(),
        ),
    )  # fmt: skip


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())
