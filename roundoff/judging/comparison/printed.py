"""A comparison as text, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from roundoff.gradients.bounds import rounded_up
from roundoff.judging.comparison.elsewhere import told
from roundoff.judging.comparison.measures import NO_QUESTION
from roundoff.judging.comparison.pairs import Compared
from roundoff.judging.evidence import FAILURE
from roundoff.judging.power import factor_in_words
from roundoff.judging.verdict import Verdict
from roundoff.words import counted, folded

#: The rows of `Comparison.table`.
Rows = Sequence[Mapping[Any, Any]]


_HEAD = (
    "gradient",
    "format",
    "verdict",
    "evidence",
    "equal",
    "max ulp",
    "error 1",
    "error 2",
    "closer",
    "bound",
)


def text(result: Compared, table: Rows) -> str:
    """The table, the reasons, the tolerances, the notes; sentences are folded."""
    one, two = result.names
    rows = [_HEAD, *(_cells(row, one, two) for row in table)]
    widths = [max(len(cells[k]) for cells in rows) for k in range(len(_HEAD))]
    numbered = one.endswith("1") and two.endswith("2") and one[:-1] == two[:-1]
    lines = [f"{one} against {two}" if numbered else f"{one} (1) against {two} (2)", ""]
    for cells in rows:
        left = [f"{c:<{w}}" for c, w in zip(cells[:4], widths[:4], strict=True)]
        right = [f"{c:>{w}}" for c, w in zip(cells[4:], widths[4:], strict=True)]
        lines.append("  ".join([*left, *right]))
    apart = any(row.get("closer") == NO_QUESTION for row in table)
    unbounded = any(np.isinf(row.get("bound_probabilistic", 0.0)) for row in table)
    lines.append("")
    sentences = [
        "errors: normwise relative, in u; closer: on these inputs; bound: probabilistic "
        f"({FAILURE:g} per comparison), the largest, in u times the sum of |terms|"
        + ("; – where none was worth its time, or is finite" if unbounded else "")
        + ("; each side is measured against its own, where closer is –" if apart else ""),
        *_reasons(result),
        *_left(result, table),
        *told(result.elsewhere.values()),
    ]
    for row in table:
        where = f"{row['gradient']}, {row['format']}"
        if row["verdict"] == Verdict.ROUNDOFF and np.isfinite(row["rtol"]):
            pair = f"rtol={rounded_up(row['rtol'])}, atol={rounded_up(row['atol'])}"
            sentences.append(f"assert_close({where}): {pair}; {_noticed(row)}")
        if row.get("seeds", 0) > 0:
            low, high = row["ratio_low"], row["ratio_high"]
            interval = (
                "too few for an interval" if np.isnan(low) else f"95 %: {low:.3g} to {high:.3g}"
            )
            sentences.append(
                f"in general ({where}, {counted(int(row['seeds']), 'seed')}): closer is "
                f"{row['in_general']}, median "
                f"ratio {row['ratio_in_general']:.3g} ({interval})"
            )
    sentences += [f"note: {note}" for note in result.notes]
    return "\n".join([*lines, *map(folded, sentences)])


def _cells(row: Mapping[Any, Any], one: str, two: str) -> tuple[str, ...]:
    first = (row["gradient"], row["format"], row["verdict"], row["evidence"] or "–")
    if not isinstance(row.get("closer"), str):
        return (*first, *["–"] * 6)
    closer = {one: "1", two: "2", NO_QUESTION: "–"}.get(row["closer"], "neither")
    return (
        *first,
        f"{100 * row['fraction_equal']:.0f} %",
        *(_number(row[name]) for name in ("ulp_between", "error_first", "error_second")),
        f"{closer} by {row['ratio']:.3g}" if closer in "12" else closer,
        _number(row["bound_probabilistic"], "–"),
    )


def _noticed(row: Mapping[Any, Any]) -> str:
    """The smallest factor that the verdict would not have passed, and errors beside the predicted ones."""
    text = f"the verdict notices {factor_in_words(row['notices'])}"
    if row["evidence"] != "predicted" or not row["predicted"] > 0:
        return text
    times = [f"{row[name] / row['predicted']:.2g}" for name in ("error_first", "error_second")]
    return f"{text}, errors are {times[0]} and {times[1]} times the predicted"


def _number(value: float, infinite: str = "inf") -> str:
    return "–" if np.isnan(value) else infinite if np.isinf(value) else f"{value:.3g}"


def _left(result: Compared, table: Rows) -> list[str]:
    """Elements at which a side is no finite number, and those that errors leave out."""
    of: dict[str, list[str]] = {}
    for row in table:
        pair = result[row["gradient"], row["format"]]
        if pair.sides is None:
            continue
        size = counted(pair.sides[0].computed.size, "element")
        columns = ("not_finite_first", "not_finite_second")
        counts = {
            name: int(row[c]) for name, c in zip(result.names, columns, strict=True) if row[c]
        }
        told = []
        if counts:
            of_each = ", ".join(f"{name} at {count}" for name, count in counts.items())
            told.append(f"not finite: {of_each} of {size}")
        if row["without_value"]:
            told.append(
                f"left out of errors, as no exact value is known: {row['without_value']:.0f} of {size}"
            )
        for text in told:
            of.setdefault(text, []).append(f"{row['gradient']} {row['format']}")
    return [f"{text} [{', '.join(where)}]" for text, where in of.items()]


def _reasons(result: Compared) -> list[str]:
    """Each reason once, with what it is about; then the power of opaque checks."""
    of: dict[tuple[str, str], list[str]] = {}
    for (gradient, format), pair in result.pairs.items():
        key = str(pair.judgement.verdict), pair.judgement.reason
        of.setdefault(key, []).append(f"{gradient} {format}")
    lines = [f"{verdict}: {reason} [{', '.join(where)}]" for (verdict, reason), where in of.items()]
    for (gradient, format), pair in result.pairs.items():
        if pair.power is not None:
            lines.append(f"power ({gradient}, {format}): would have flagged {pair.power}")
    return lines
