"""From a sweep of sums and the soundness run to the report on bounds."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from bounds_figures import LOOKS, bounds_against_n, tightness

from roundoff.kernels import provenance
from roundoff.report.document import Report, Table, number
from roundoff.report.figures import Plot
from roundoff.report.findings.verdicts import Question
from roundoff.words import counted

#: The order of the theorems in tables.
_CERTIFIED = (
    "smallest certified", "gamma", "product of factors", "Jeannerod and Rump", "Lange and Rump",
    "sum of computed products", "depth-weighted", "partial sums", "Kahan", "Neumaier", "Sum2",
    "smallest running", "running", "running, ufp", "gradient, any order", "gradient, stated order",
    "root mean square",
)  # fmt: skip


def bounds_report(
    question: Question,
    configuration: Any,
    sweep: pd.DataFrame,
    attained: pd.DataFrame,
    soundness: pd.DataFrame | None,
) -> Report:
    """The report; soundness: the table of benchmarks/soundness.py, if there is one."""
    chosen = "float32" if "float32" in set(sweep["format"]) else str(sweep["format"].iloc[-1])
    tables = [_overview(sweep, chosen), _attained_table(attained)]
    if soundness is not None:
        tables += [_tightness_table(soundness), _coverage_table(soundness), _whole(soundness)]
    tables.append(Table("sweep", "All rows of the sweep.", sweep, columns={}))
    failure = float(configuration.failure)
    drawn = [bounds_against_n(sweep, data, failure) for data in dict.fromkeys(sweep["data"])]
    drawn[1:] = [_renamed(plot, "normal") for plot in drawn[1:]]
    settings = {k: v for k, v in vars(configuration).items() if k != "out"}
    return Report(
        title=question.title,
        question=question.text,
        answer=answer(sweep, chosen, soundness, failure),
        tables=tables,
        figures=[*drawn, tightness(sweep, chosen)],
        notes=list(_notes(sweep, soundness, failure)),
        provenance=provenance.collect(
            seed=configuration.seed, configuration=settings,
            input_hashes={
                data: f"numpy.random.default_rng([{configuration.seed}, n, *{data.encode()}])"
                for data in dict.fromkeys(sweep["data"])
            },
            engine="exact rational numbers", radius="0 ulp", threads=1,
        ),
    )  # fmt: skip


def _renamed(plot: Plot, data: str) -> Plot:
    return replace(plot, name=f"{plot.name}_{data}", title="And where terms cancel?")


def answer(sweep: pd.DataFrame, format: str, soundness: pd.DataFrame | None, failure: float) -> str:
    """How far above the error each bound is at the longest plain loop, and whether any was exceeded."""
    loop = sweep[(sweep["format"] == format) & (sweep["data"] == "uniform")]
    order = "sequential" if "sequential" in set(loop["order"]) else loop["order"].iloc[0]
    loop = loop[loop["order"] == order]
    n = int(loop["n"].max())
    rows = loop[loop["n"] == n].set_index("quantity")

    worst = dict(zip(rows.index, rows["worst"].astype(float), strict=True))
    parts = [
        f"{number(float(f'{1.0 / worst[q]:.2g}'))} times ({text})"
        for q, text in (
            ("certified, any order", "certified, any order"),
            ("certified, this order", "certified, knowing the order"),
            ("probabilistic", f"probabilistic, failure {failure:g}"),
        )
        if worst.get(q, 0.0) > 0
    ]
    text = (
        f"At {counted(n, 'uniform term')} added by a {order} loop in {format}, the bound is "
        "above the largest of "
        f"{counted(int(rows['seeds'].max()), 'error')} by {', '.join(parts)}."
    )
    if soundness is None:
        return text
    certain = soundness[soundness["kind"].isin(["certified", "running"])]
    smallest = certain[certain["bound"].str.startswith(("smallest certified", "gradient"))]
    count, bad = int(smallest["cases"].sum()), int(certain["violations"].sum())
    never = (
        "No certified bound was" if bad == 0 else f"Certified bounds were {counted(bad, 'time')}"
    )
    return f"{text} {never} exceeded in {_grouped(count)} comparisons with exact errors."


def _grouped(count: int) -> str:
    return f"{count:,}".replace(",", "\u202f")


def _overview(sweep: pd.DataFrame, format: str) -> Table:
    rows = sweep[(sweep["format"] == format) & (sweep["data"] == "uniform")]
    rows = rows[rows["n"] == rows["n"].max()]
    wide = rows.pivot_table(
        index="order", columns="quantity", values="value", sort=False
    ).reset_index()
    wanted = ["order", "measured", *[name for name in LOOKS if name in wide]]
    return Table(
        name="overview",
        caption=f"Sums of {counted(int(rows['n'].max()), 'uniform term')} in {format}: median over "
        f"{counted(int(rows['seeds'].max()), 'seed')} of the error and of each bound, in u S.",
        frame=wide[wanted],
        columns={name: name for name in wanted},
        first=True,
        size=7.5,
    )


def _attained_table(attained: pd.DataFrame) -> Table:
    return Table(
        name="attained",
        caption="Inputs that attain a bound, or nearly so, where theory has them; exact ratios. For "
        "Kahan's sum none is known; probabilistic bounds have none.",
        frame=attained,
        columns={
            "bound": "bound", "of": "of", "terms": "terms", "order": "order", "n": "n",
            "error": "error (u)", "ratio": "error / bound",
        },
        show={"ratio": lambda value: f"{value:.6f}"},
        size=7.0,
    )  # fmt: skip


def tightness_rows(soundness: pd.DataFrame) -> pd.DataFrame:
    """A row per part and bound, over all formats; the median weighted by the cases of a format."""
    certain = soundness[soundness["kind"] != "probabilistic"]
    rows = []
    for (part, kind, bound), group in certain.groupby(["part", "kind", "bound"], sort=False):
        known = group[group["median"].notna()].sort_values("median")
        weight = known["cases"].cumsum()
        middle = known["median"][weight >= known["cases"].sum() / 2]
        rows.append(
            {
                "part": part,
                "bound": bound,
                "cases": group["cases"].sum(),
                "violations": "–" if kind == "expected" else str(int(group["violations"].sum())),
                "median": middle.iloc[0] if len(middle) else np.nan,
                "best": group["best"].max() if kind != "expected" else np.nan,
            }
        )
    frame = pd.DataFrame(rows)
    rank = {name: k for k, name in enumerate(_CERTIFIED)}
    parts = {name: k for k, name in enumerate(dict.fromkeys(frame["part"]))}
    key = frame["part"].map(parts) * 100 + frame["bound"].map(rank).fillna(99)
    return frame.iloc[np.argsort(key, kind="stable")].reset_index(drop=True)


def _tightness_table(soundness: pd.DataFrame) -> Table:
    formats = soundness["format"].nunique()
    return Table(
        name="tightness",
        caption=f"The soundness run over {counted(formats, 'format')} and all orders: "
        "comparisons with an exact "
        "error, how often the bound was exceeded, and the median and the largest of error / bound. "
        "Data: random, cancelling, spread over the whole range of exponents, subnormal, with zeros, "
        "ties at every addition. Root mean square is a model, not a bound.",
        frame=tightness_rows(soundness),
        columns={
            "part": "of", "bound": "bound", "cases": "comparisons", "violations": "exceeded",
            "median": "median", "best": "largest",
        },
        show={"cases": lambda value: _grouped(int(value))},
        group="part",
        size=7.0,
    )  # fmt: skip


def coverage_rows(soundness: pd.DataFrame) -> pd.DataFrame:
    """A row per stated failure and probabilistic bound, over formats; the smallest p-value of them."""
    likely = soundness[soundness["kind"] == "probabilistic"]
    grouped = likely.groupby(["part", "bound"], sort=False)
    found = grouped.agg(
        trials=("cases", "sum"), exceeded=("violations", "sum"), median=("median", "median"),
        best=("best", "max"), p_value=("p_value", "min"),
    ).reset_index()  # fmt: skip
    return found.sort_values(["part", "bound"], kind="stable", ignore_index=True)


def _coverage_table(soundness: pd.DataFrame) -> Table:
    return Table(
        name="coverage",
        caption="Probabilistic bounds: batches of sums or gradients that share the stated failure "
        "probability, in how many the bound was exceeded anywhere, the median and largest of error / bound "
        "of the worst element, and the smallest p-value over formats of a binomial test against more "
        "failures than stated.",
        frame=coverage_rows(soundness),
        columns={
            "part": "stated", "bound": "bound", "trials": "batches", "exceeded": "exceeded",
            "median": "median", "best": "largest", "p_value": "p",
        },
        group="part",
        size=7.0,
    )  # fmt: skip


def _whole(soundness: pd.DataFrame) -> Table:
    return Table("soundness", "The soundness run, per format.", soundness, columns={})


def _notes(
    sweep: pd.DataFrame, soundness: pd.DataFrame | None, failure: float
) -> Iterable[tuple[str, str]]:
    yield (
        "What is certified.",
        "Any order: (n − 1) u S without a higher-order term (Jeannerod and Rump 2013), and "
        "(n − 1) u / (1 + (n − 1) u) S where (n − 1) u is at most 1/2 (Lange and Rump 2019). A known "
        "order: u times every partial sum, with their sizes from the data, which is Wilkinson's running "
        "bound before the computation; the running bound proper takes the computed partial sums.",
    )
    yield (
        "What is probable.",
        f"Higham and Mary 2019 (any order) and Hallman and Ipsen 2021 (partial sums of the tree), each at a "
        f"failure of {failure:g} for one sum. They take rounding errors as independent and of mean zero. "
        "What the data show to be no chance counts in full: operands below 4 u times their sum, and the mean "
        "error of terms that repeat or hardly vary.",
    )
    if soundness is None:
        yield (
            "Soundness.",
            "There is no soundness run beside this report; benchmarks/soundness.py makes one.",
        )
