"""Results, figures and provenance to a PDF, with every figure and table beside it.

The only room that imports typst.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from roundoff import __version__
from roundoff.arguments import described
from roundoff.errors import ArgumentError
from roundoff.files import make_folder, parquet, write_whole
from roundoff.gradients.bounds import rounded_up
from roundoff.report.figures import Plot

TEMPLATE = Path(__file__).with_name("report.typ")


@dataclass(frozen=True, eq=False)
class Table:
    """A table of a report: what is printed of a frame, and the whole frame in files beside it.

    columns: header by column, in the order of print (none: in the files only); show: how to write
    a column's values (default: three significant digits); group: a rule where this column changes;
    first: on page 1; size: of the print, in points.
    """

    name: str
    caption: str
    frame: pd.DataFrame
    columns: Mapping[str, str]
    show: Mapping[str, Callable[[Any], str]] = field(default_factory=dict)
    group: str | None = None
    first: bool = False
    size: float = 8.0


@dataclass(frozen=True, eq=False)
class Report:
    """A question, its answer in a sentence, and the evidence.

    notes: pairs of a bold beginning and a text; provenance: sections of facts by name.
    """

    title: str
    question: str
    answer: str
    tables: Sequence[Table]
    figures: Sequence[Plot]
    notes: Sequence[tuple[str, str]]
    provenance: Mapping[str, Mapping[str, str]]


def write_files(result: Any, folder: Path | str) -> Path:
    """Write report.pdf, figures/NAME.png and .csv, tables/NAME.csv and .parquet; returns the PDF's path.

    result: a Report, or an object with a method report() that makes one.  The same result gives
    the same bytes.

    Raises: ArgumentError for a folder that cannot be written.
    """
    if not (isinstance(result, Report) or callable(getattr(result, "report", None))):
        raise ArgumentError(
            f"the result is {described(result)}; give what ro.compare returned, or a Report"
        )
    report: Report = result if isinstance(result, Report) else result.report()
    folder = Path(folder)
    figures, tables = (make_folder(folder / name) for name in ("figures", "tables"))
    for plot in report.figures:
        write_whole(figures / f"{plot.name}.png", plot.png())
        write_whole(figures / f"{plot.name}.csv", _csv(plot.data))
    for table in report.tables:
        write_whole(tables / f"{table.name}.csv", _csv(table.frame))
        write_whole(tables / f"{table.name}.parquet", parquet(table.frame))
    path = folder / "report.pdf"
    write_whole(path, typeset(report))
    return path


def typeset(report: Report) -> bytes:
    """The PDF."""
    import typst

    with tempfile.TemporaryDirectory() as name:
        build = Path(name)
        content = _content(report)
        for plot, entry in zip(report.figures, content["figures"], strict=True):
            (build / entry["file"]).write_bytes(plot.svg())
        (build / "report.json").write_text(json.dumps(content))
        (build / "report.typ").write_bytes(TEMPLATE.read_bytes())
        pdf: bytes = typst.compile(
            build / "report.typ", ignore_system_fonts=True, timestamp=0, font_paths=[]
        )
    return pdf


def _content(report: Report) -> dict[str, Any]:
    return {
        "version": __version__,
        "title": report.title,
        "question": report.question,
        "answer": report.answer,
        "notes": [list(note) for note in report.notes],
        "tables": [_printed(table) for table in report.tables if table.columns],
        "figures": [
            {"title": plot.title, "caption": plot.caption, "file": f"figure{k}.svg"}
            for k, plot in enumerate(report.figures)
        ],
        "provenance": [
            {"name": name, "facts": [[k, str(v)] for k, v in facts.items()]}
            for name, facts in report.provenance.items()
        ],
    }


def _printed(table: Table) -> dict[str, Any]:
    frame = table.frame
    rows = [
        [table.show.get(column, number)(row[column]) for column in table.columns]
        for _, row in frame.iterrows()
    ]
    rules: list[int] = []
    if table.group is not None and len(frame):
        values = frame[table.group].tolist()
        rules = [k for k in range(1, len(values)) if values[k] != values[k - 1]]
    numeric = [pd.api.types.is_numeric_dtype(frame[column]) for column in table.columns]
    return {
        "caption": table.caption,
        "header": list(table.columns.values()),
        "rows": rows,
        "rules": rules,
        "numeric": numeric,
        "first": table.first,
        "size": table.size,
    }


def number(value: Any) -> str:
    """Three significant digits; text as it is.

    >>> number(0.00012345), number(12), number("float16"), number(float("nan"))
    ('0.000123', '12', 'float16', '–')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    value = float(value)
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == int(value) and abs(value) < 1e5:
        return str(int(value))
    text = f"{value:.3g}"
    if "e" in text:
        digits, exponent = f"{value:.2e}".split("e")
        return f"{digits}e{int(exponent)}"
    return text


def upward(value: float) -> str:
    """A tolerance in two digits, never below it.

    >>> upward(1.21e-7), upward(float("nan"))
    ('1.3e-07', '–')
    """
    return rounded_up(value) if math.isfinite(value) else number(value)


def percent(value: Any) -> str:
    """A fraction in percent; all and none only where it is exactly so.

    >>> percent(0.9996), percent(1.0), percent(0.38)
    ('99.9 %', '100 %', '38 %')
    """
    if value is None or math.isnan(value):
        return "–"
    hundred = 100.0 * value
    if 99.0 < hundred < 100.0:
        return f"{math.floor(hundred * 10) / 10:g} %"
    if 0.0 < hundred < 1.0:
        return f"{math.ceil(hundred * 10) / 10:g} %"
    return f"{hundred:.0f} %"


def _csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, lineterminator="\n").encode()


__all__ = ["Plot", "Report", "Table", "number", "percent", "typeset", "upward", "write_files"]
