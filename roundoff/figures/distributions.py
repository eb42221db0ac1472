"""Distributions over seeds: of the largest error, per reduction order, and of one method against another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from roundoff import statistics
from roundoff.figures.base import (
    COLORS,
    GREY,
    REAL,
    LogWithZero,
    Plot,
    formats_of,
    in_order,
    methods_of,
    not_finite,
    panels,
    readable,
    some,
    style,
)
from roundoff.formats import as_format
from roundoff.words import counted

_POINTS = 200  # of one curve, in the data beside the figure
_DOTS = 1000  # of one panel of a scatter


def ecdf(errors: pd.DataFrame) -> Plot:
    """The distribution over seeds of the largest |error| of a gradient, per method, of the real kernel.

    Units: u S.  Band: Dvoretzky, Kiefer and Wolfowitz, 95 %, seeds being independent.
    """
    native = some(errors[errors["order"] == "native"], "ecdf", "order 'native'")
    formats, gradients = formats_of(native), in_order(native["gradient"], ("weight", "bias"))
    place = LogWithZero(native["max_scaled"])
    data = []
    with style():
        figure, axes = panels(
            len(gradients), len(formats), 0.85 + 1.0 * len(gradients), sharey=True
        )
        for row, gradient in enumerate(gradients):
            for column, name in enumerate(formats):
                axis: Axes = axes[row, column]
                for color, style_, method in zip(COLORS, ("-", (0, (4, 1.5))), methods_of(native)):
                    chosen = native[
                        (native["gradient"] == gradient)
                        & (native["format"] == name)
                        & (native["method"] == method)
                    ]
                    curve = _curve(axis, chosen["max_scaled"], place, color, style_)
                    data.append(curve.assign(format=name, gradient=gradient, method=method))
                place.apply(axis, "x")
                axis.set_ylim(0, 1.02)
                axis.set_yticks([0, 0.5, 1])
                axis.grid(axis="y")
                if row == 0:
                    axis.set_title(name)
                if column == 0:
                    axis.set_ylabel(f"{gradient}\nfraction of seeds")
        figure.supxlabel("largest |error| of the gradient, in u S", fontsize=8)
        _legend(figure, methods_of(native), dashes=True)
    seeds = native["seed"].nunique()
    caption = (
        f"Distribution over {counted(seeds, 'seed')} of the largest error of a gradient as "
        "PyTorch computes it. "
        "S is the gradient from absolute values, u the unit roundoff: 1 is one rounding of the "
        "largest size. Bands: 95 % for the whole curve. A gradient that is exact in every element "
        "stands at 0."
    )
    caption += not_finite(native["max_scaled"])
    if native["max_scaled"].isna().any():
        caption += " A curve that ends below 1 has seeds whose error is NaN."
    return Plot(
        "ecdf", "How large is the error?", caption, figure, pd.concat(data, ignore_index=True)
    )


def _curve(axis: Axes, values: Any, place: LogWithZero, color: str, dashes: Any) -> pd.DataFrame:
    found = statistics.ecdf(values)
    if found.n == 0 or found.values.size == 0:
        return pd.DataFrame({"max_scaled": [], "fraction": []})
    x, y = place(found.values), found.fraction
    x, y = (
        np.concatenate([[place.limits[0]], x, [place.limits[1]]]),
        np.concatenate([[0.0], y, y[-1:]]),
    )
    band = statistics.dkw_band(found.n)
    axis.fill_between(
        x,
        np.clip(y - band, 0, 1),
        np.clip(y + band, 0, 1),
        step="post",
        color=color,
        alpha=0.13,
        lw=0,
    )
    axis.step(x, y, where="post", color=color, ls=dashes)
    thin = np.unique(np.linspace(0, found.values.size - 1, _POINTS).astype(int))
    return pd.DataFrame({"max_scaled": found.values[thin], "fraction": found.fraction[thin]})


def _legend(figure: Any, methods: list[str], *, dashes: bool = False) -> None:
    lines = ("-", (0, (4, 1.5))) if dashes else ("-", "-")
    handles = [
        Line2D([], [], color=color, ls=line, label=readable(method))
        for color, line, method in zip(COLORS, lines, methods)
    ]
    figure.legend(handles=handles, loc="outside upper right", ncols=len(handles))


def orders(errors: pd.DataFrame, gradient: str = "weight") -> Plot:
    """A box over seeds per reduction order, beside the real kernel, per format.

    Units: root mean square over the elements of error / (u S).  Boxes: quartiles, whiskers 5 and 95 %.
    """
    chosen = some(errors[errors["gradient"] == gradient], "orders", f"gradient {gradient!r}")
    formats, methods = formats_of(chosen), methods_of(chosen)
    names = [*(n for n in REAL if n in set(chosen["order"])), *_simulated_by_size(chosen)]
    columns = 2 if len(formats) > 1 else 1
    rows = -(-len(formats) // columns)
    data = []
    with style():
        height = rows * (0.42 + 0.13 * len(names)) + 0.45
        figure, axes = panels(rows, columns, height, sharey=True)
        for axis in axes.ravel()[len(formats) :]:
            axis.set_axis_off()
        for axis, name in zip(axes.ravel(), formats):
            part = chosen[chosen["format"] == name]
            place = LogWithZero(part["rms_scaled"])
            for k, order in enumerate(names):
                data += _boxes(axis, part[part["order"] == order], k, methods, place, name)
            place.apply(axis, "x")
            axis.set_yticks(range(len(names)), names)
            axis.set_ylim(len(names) - 0.4, -0.6)
            axis.tick_params(axis="y", length=0)
            axis.grid(axis="x")
            real = sum(n in REAL for n in names)
            axis.axhline(real - 0.5, color="#bbbbbb", lw=0.6)
            axis.set_title(name)
        figure.supxlabel("root-mean-square error over the elements, in u S", fontsize=8)
        handles: list[Any] = [
            Patch(color=c, alpha=0.75, label=readable(m)) for c, m in zip(COLORS, methods)
        ]
        if (chosen["accumulate"] == "float32").any() and set(formats) & {"float16", "bfloat16"}:
            handles.append(
                Line2D([], [], color="black", marker="D", ls="", mfc="white", ms=3.2, mew=0.7,
                       label="median, with float32 sums")
            )  # fmt: skip
        figure.legend(handles=handles, loc="outside upper right", ncols=3)
    n, seeds = chosen["n"].iloc[0], chosen["seed"].nunique()
    caption = (
        f"Error of the {gradient} gradient (sums of {counted(n, 'non-zero term')}) over "
        f"{counted(seeds, 'seed')}: above the "
        "line the real kernel, on the data as they are and on the same data in another order; "
        "below it simulated orders whose sums are kept in the format. Boxes are quartiles, whiskers "
        "5 and 95 %. Diamonds: the median of the same order when its sums are kept in float32."
        + not_finite(chosen["rms_scaled"])
    )
    return Plot(
        "orders", "What would other orders have given?", caption, figure, pd.DataFrame(data)
    )


def _simulated_by_size(chosen: pd.DataFrame) -> list[str]:
    simulated = chosen[~chosen["order"].isin(REAL) & (chosen["accumulate"] == chosen["format"])]
    medians = simulated.groupby("order")["rms_scaled"].median()
    return [str(name) for name in medians.sort_values(kind="stable").index]


def _boxes(
    axis: Axes, rows: pd.DataFrame, k: int, methods: list[str], place: LogWithZero, format: str
) -> list[dict[str, Any]]:
    found = []
    for side, (color, method) in enumerate(zip(COLORS, methods)):
        part = rows[rows["method"] == method]
        y = k + (side - (len(methods) - 1) / 2) * 0.36
        for accumulate, values in part.groupby("accumulate")["rms_scaled"]:
            known = values.dropna()
            if not len(known):
                continue
            q = statistics.quantiles(known, 0.05, 0.25, 0.5, 0.75, 0.95)
            x = place(q)
            if accumulate in ("", format):
                axis.plot(x[[0, 4]], [y, y], color=color, lw=0.7, solid_capstyle="butt")
                axis.barh(y, x[3] - x[1], left=x[1], height=0.26, color=color, alpha=0.55, lw=0)
                axis.plot([x[2], x[2]], [y - 0.16, y + 0.16], color=color, lw=1.6)
            else:
                axis.plot(x[2], y, marker="D", ms=2.6, mfc="white", mec=color, mew=0.7)
            labels = ("p05", "p25", "p50", "p75", "p95")
            found.append(
                {"format": format, "order": rows["order"].iloc[0], "accumulate": accumulate,
                 "method": method, "seeds": len(known), **dict(zip(labels, q))}
            )  # fmt: skip
    return found


def first_against_second(
    pairs: pd.DataFrame,
    gradient: str = "weight",
    names: tuple[str, str] = ("slice_then_conv", "conv_then_slice"),
) -> Plot:
    """The normwise error of one method against that of the other, a point per seed, per format.

    names: of the first and of the second method.
    """
    chosen = some(
        pairs[pairs["gradient"] == gradient], "first_against_second", f"gradient {gradient!r}"
    )
    formats, labels = formats_of(chosen), (readable(names[0]), readable(names[1]))
    columns = ["format", "gradient", "seed", "normwise_first", "normwise_second"]
    data = []
    with style():
        figure, axes = panels(1, len(formats), 2.35, layout="compressed")
        for axis, name in zip(axes[0], formats):
            part = chosen[chosen["format"] == name]
            drawn = _drawable(part)
            _scatter(axis, drawn, as_format(name).u)
            axis.set_title(name, pad=27)
            axis.text(0, 1.03, _counts(part, labels), transform=axis.transAxes, va="bottom",
                      fontsize=6, color="#333333", linespacing=1.25)  # fmt: skip
            axis.set_xlabel(labels[0])
            data.append(drawn[columns])
        axes[0, 0].set_ylabel(labels[1])
    shown, known = sum(map(len, data)), int(chosen[columns[3:]].notna().all(axis=1).sum())
    caption = (
        f"Relative error (2-norm, in u) of the {gradient} gradient, one method against the other, a point "
        f"per seed ({chosen['seed'].nunique()}). Below the line, {labels[1]} is closer to the "
        "exact gradient; on it, both err the same."
    )
    if known < len(chosen):
        caption += f" Not drawn, as they have a NaN: {len(chosen) - known} of {counted(len(chosen), 'pair')}."
    if np.isinf(chosen[columns[3:]]).any(axis=None):
        caption += " An overflow is an infinite error."
    if shown < known:
        caption += f" Drawn are {shown} of {counted(known, 'point')}; all are counted."
    return Plot(
        "first_against_second",
        "Which is closer?",
        caption,
        figure,
        pd.concat(data, ignore_index=True),
    )


def _drawable(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with two errors; every k-th of them where they are too many to see."""
    known = np.flatnonzero(rows[["normwise_first", "normwise_second"]].notna().all(axis=1))
    return rows.take(known[:: max(1, -(-len(known) // _DOTS))])


def _scatter(axis: Axes, rows: pd.DataFrame, u: float) -> None:
    first, second = rows["normwise_first"] / u, rows["normwise_second"] / u
    place = LogWithZero([*first, *second])
    axis.plot(place.limits, place.limits, color=GREY, lw=0.6, zorder=1)
    size, alpha = (3, 0.35) if len(rows) > 100 else (5, 0.8)
    axis.plot(
        place(first), place(second), ".", color=COLORS[0], ms=size, alpha=alpha, mew=0, zorder=2
    )
    place.apply(axis, "x")
    place.apply(axis, "y")
    axis.set_aspect("equal")


def _counts(rows: pd.DataFrame, labels: tuple[str, str]) -> str:
    """How many seeds each side is closer in, NaN counting for nobody."""
    first, second = rows["normwise_first"], rows["normwise_second"]
    return (
        f"{labels[0]} closer: {int((first < second).sum())}\n"
        f"{labels[1]} closer: {int((second < first).sum())}\n"
        f"equal: {int((first == second).sum())}"
    )
