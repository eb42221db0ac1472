"""Bounds on sums beside the errors they are on: how both grow, and how tight the bounds are."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from roundoff.report.figures.base import (
    COLORS,
    GREY,
    LogWithZero,
    Plot,
    formats_of,
    panels,
    some,
    style,
)
from roundoff.words import counted

#: Quantities of `bounds_rows.sweep` and how they are drawn.
LOOKS: dict[str, dict[str, Any]] = {
    "certified, any order": {"color": GREY, "ls": "-", "lw": 1.0},
    "certified, this order": {"color": COLORS[0], "ls": "-", "lw": 1.2},
    "running": {"color": COLORS[5], "ls": (0, (4, 1.5)), "lw": 1.2},
    "probabilistic": {"color": COLORS[1], "ls": (0, (3, 2)), "lw": 1.2},
    "expected": {"color": COLORS[2], "ls": (0, (1, 1)), "lw": 1.4},
}


def bounds_against_n(sweep: pd.DataFrame, data: str = "uniform", failure: float = 1e-3) -> Plot:
    """Error of sums against their length, with every bound; a row per order, a column per format.

    sweep: the rows of `bounds_rows.sweep`.  Units: u S.
    """
    chosen = some(sweep[sweep["data"] == data], "bounds_against_n", f"data {data!r}")
    orders, formats = list(dict.fromkeys(chosen["order"])), formats_of(chosen)
    place = LogWithZero(
        [*chosen["value"], *chosen.loc[chosen["quantity"] == "measured", "largest"]]
    )
    with style():
        figure, axes = panels(
            len(orders), len(formats), 1.0 + 1.45 * len(orders), sharex=True, sharey=True
        )
        for row, order in enumerate(orders):
            for column, name in enumerate(formats):
                axis = axes[row, column]
                part = chosen[(chosen["order"] == order) & (chosen["format"] == name)]
                _panel(axis, part, "value", place)
                place.apply(axis, "y")
                if row == 0:
                    axis.set_title(name)
            axes[row, 0].set_ylabel(order)
        _lengths(axes, chosen)
        figure.supxlabel("terms of the sum", fontsize=8)
        figure.supylabel("error and bounds, in u S", fontsize=8)
        figure.legend(handles=[*_handles(chosen), _measured()], loc="outside upper center", ncols=3)
    caption = (
        f"Errors of sums of {data} numbers against their length, and the bounds on them, in u S: a row "
        f"of panels per order, a column per format; sums kept in the format. Black: the measured error, "
        f"median of {counted(chosen['seeds'].max(), 'seed')}, and the largest of them (dots). "
        "Lines: medians over the "
        "seeds of the smallest certified bound without and with knowledge of the order, of the running "
        "bound from the computed partial sums, of the probabilistic one (failure "
        f"{failure:g} for each sum), and of the expected error, a model. A line ends where its theorem "
        "does not apply: the probabilistic ones where a partial sum swallows half a typical term."
    )
    return Plot("bounds_against_n", "How do error and bounds grow?", caption, figure, chosen)


def tightness(sweep: pd.DataFrame, format: str = "float32") -> Plot:
    """Measured error over bound against the number of terms: 1 would be attained.

    A panel per order and kind of data.
    """
    wanted = (sweep["format"] == format) & (sweep["quantity"] != "measured")
    chosen = some(sweep[wanted], "tightness", f"format {format!r}")
    orders, kinds = (list(dict.fromkeys(chosen[c])) for c in ("order", "data"))
    place = LogWithZero([*chosen["ratio"], *chosen["worst"], 1.0])
    with style():
        figure, axes = panels(
            len(kinds), len(orders), 0.9 + 1.5 * len(kinds), sharex=True, sharey=True
        )
        for row, data in enumerate(kinds):
            for column, order in enumerate(orders):
                axis = axes[row, column]
                part = chosen[(chosen["data"] == data) & (chosen["order"] == order)]
                _panel(axis, part, "worst", place)
                axis.axhline(1.0, color="black", lw=0.6)
                place.apply(axis, "y")
                if row == 0:
                    axis.set_title(order)
            axes[row, 0].set_ylabel(data)
        _lengths(axes, chosen)
        figure.supxlabel("terms of the sum", fontsize=8)
        figure.supylabel("largest error / bound", fontsize=8)
        figure.legend(handles=_handles(chosen), loc="outside upper center", ncols=3)
    caption = (
        f"How tight: the largest measured error over each bound, in {format}, against the number of terms; "
        f"{counted(chosen['seeds'].max(), 'seed')}. At 1 (black) a bound is attained; the "
        "expected error is no "
        "bound, its largest ratio over the seeds is about 2 to 3."
    )
    return Plot("tightness", "How tight are they?", caption, figure, chosen)


def _panel(axis: Axes, part: pd.DataFrame, column: str, place: LogWithZero) -> None:
    for quantity, look in LOOKS.items():
        rows = part[part["quantity"] == quantity].sort_values("n")
        marker = "_" if len(rows) == 1 else ""
        axis.plot(rows["n"], place(rows[column]), marker=marker, **look)
    if column == "value":
        rows = part[part["quantity"] == "measured"].sort_values("n")
        axis.plot(rows["n"], place(rows["value"]), color="black", lw=1.4)
        axis.plot(rows["n"], place(rows["largest"]), ".", color="black", ms=2.5)
    axis.grid()


def _lengths(axes: Any, chosen: pd.DataFrame) -> None:
    axis = axes[0, 0]
    lengths = sorted(chosen["n"].unique())
    axis.set_xscale("log")
    room = max(1.2, (lengths[-1] / lengths[0]) ** 0.06)
    axis.set_xlim(lengths[0] / room, lengths[-1] * room)
    shown = lengths[:: max(1, -(-len(lengths) // 4))]
    axis.set_xticks(shown, [str(n) for n in shown])
    for each in axes.ravel():
        each.xaxis.set_minor_formatter(NullFormatter())
        each.tick_params(which="minor", bottom=False)


def _handles(chosen: pd.DataFrame) -> list[Line2D]:
    drawn = set(chosen["quantity"])
    return [Line2D([], [], label=name, **look) for name, look in LOOKS.items() if name in drawn]


def _measured() -> Line2D:
    return Line2D(
        [], [], color="black", lw=1.4, marker=".", ms=4, label="measured: median, largest"
    )
