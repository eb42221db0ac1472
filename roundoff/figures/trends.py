"""How errors grow: with the number of terms, with the unit roundoff; and how much of them is bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from roundoff.figures.base import (
    COLORS,
    GREY,
    REAL,
    LogWithZero,
    Plot,
    formats_of,
    methods_of,
    panels,
    readable,
    style,
)
from roundoff.formats import as_format


def _lines(names: list[str]) -> dict[str, dict[str, Any]]:
    """A colour and a dash pattern for each order, however many there are."""
    dashes: tuple[Any, ...] = ("-", (0, (4, 1.5)), (0, (1, 1)))
    colors = COLORS[1:6]
    return {
        name: {"color": colors[k % len(colors)], "ls": dashes[k // len(colors) % len(dashes)]}
        for k, name in enumerate(names)
    }


def error_against_n(
    errors: pd.DataFrame,
    bounds: pd.DataFrame,
    gradient: str = "weight",
    method: str = "conv_then_slice",
) -> Plot:
    """The median over seeds of the largest error against the number of terms, per order, with bounds.

    bounds: columns format, n, bound, value.  Units: u S.
    """
    chosen = errors[
        (errors["gradient"] == gradient)
        & (errors["method"] == method)
        & errors["accumulate"].isin(["", *errors["format"].unique()])
    ]
    own = (chosen["accumulate"] == chosen["format"]) | (chosen["order"] == "native")
    chosen = chosen[own & ~chosen["order"].isin(REAL[1:])]
    grouped = chosen.groupby(["format", "order", "n"], sort=False)["max_scaled"]
    data = grouped.quantile(np.array([0.05, 0.5, 0.95])).unstack().reset_index()
    data.columns = ["format", "order", "n", "p05", "p50", "p95"]
    data = data.sort_values("n", kind="stable")
    bounds = bounds.sort_values("n", kind="stable")
    formats = formats_of(data)
    simulated = [name for name in dict.fromkeys(data["order"]) if name not in REAL]
    looks = _lines(simulated)
    with style():
        figure, axes = panels(1, len(formats), 2.9, sharey=True)
        for axis, name in zip(axes[0], formats):
            part = data[data["format"] == name]
            for order, rows in part.groupby("order", sort=False):
                look = looks.get(
                    str(order), {"color": "black", "marker": "o", "lw": 1.6, "zorder": 5}
                )
                axis.plot(
                    rows["n"], rows["p50"].replace(0, np.nan), **{"lw": 0.9, "ms": 2.5, **look}
                )
            for k, (_, rows) in enumerate(bounds[bounds["format"] == name].groupby("bound")):
                axis.plot(
                    rows["n"], rows["value"], color=GREY, lw=0.9, ls=("-", (0, (3, 2)))[k % 2]
                )
            axis.set_xscale("log")
            axis.set_yscale("log")
            lengths = sorted(part["n"].unique())
            axis.set_xticks(lengths, [str(n) for n in lengths])
            axis.minorticks_off()
            axis.grid()
            axis.set_title(name)
        axes[0, 0].set_ylabel("largest |error|, in u S")
        figure.supxlabel("non-zero terms of one sum", fontsize=8)
        handles = [Line2D([], [], color="black", marker="o", ms=2.5, lw=1.6, label="real kernel")]
        handles += [Line2D([], [], lw=0.9, label=name, **look) for name, look in looks.items()]
        for k, name in enumerate(dict.fromkeys(sorted(bounds["bound"]))):
            line = ("-", (0, (3, 2)))[k % 2]
            handles.append(Line2D([], [], color=GREY, lw=0.9, ls=line, label=f"{name} bound"))
        figure.legend(handles=handles, loc="outside upper center", ncols=5)
    caption = (
        f"Largest error of the {gradient} gradient ({readable(method)}) against the number of non-zero "
        f"terms in each of its sums: median of {chosen['seed'].nunique()} seeds, sums kept in the "
        "format. Grey: the certified bound, which no order exceeds (none where the number of "
        "roundings times u reaches 1), and the probabilistic one, at a failure rate of 1e-9 for the "
        "whole gradient, which assumes independent rounding errors: not where a long sum stagnates."
    )
    return Plot("error_against_n", "How does the error grow?", caption, figure, data)


def precision_ladder(errors: pd.DataFrame, gradient: str = "weight") -> Plot:
    """The median relative error against the unit roundoff, with a line of slope 1."""
    chosen = errors[(errors["order"] == "native") & (errors["gradient"] == gradient)]
    rows = []
    for (name, method), part in chosen.groupby(["format", "method"], sort=False):
        known = part["normwise"][np.isfinite(part["normwise"])]
        q = np.quantile(known, [0.25, 0.5, 0.75]) if len(known) else np.full(3, np.nan)
        rows.append((name, as_format(name).u, method, *q))
    data = pd.DataFrame(rows, columns=["format", "u", "method", "p25", "p50", "p75"])
    with style():
        figure, axes = panels(1, 1, 2.7)
        axis: Axes = axes[0, 0]
        methods = methods_of(data)
        for side, (color, method) in enumerate(zip(COLORS, methods)):
            part = data[data["method"] == method]
            x = part["u"] * (1.12 if side else 1 / 1.12)
            spread = [part["p50"] - part["p25"], part["p75"] - part["p50"]]
            axis.errorbar(x, part["p50"].replace(0, np.nan), yerr=spread, fmt="o", color=color, ms=4,
                          elinewidth=1.2, label=readable(method))  # fmt: skip
        ends = np.array([data["u"].min() / 4, data["u"].max() * 4])
        middle = np.nanmedian(data["p50"] / data["u"])
        axis.plot(ends, ends, color=GREY, lw=0.7, label="error = u", ls=(0, (3, 2)))
        axis.plot(ends, ends * middle, color=GREY, lw=0.7, label=f"error = {middle:.2g} u")
        axis.set_xscale("log")
        axis.set_yscale("log")
        names = list(data["format"].unique())
        powers = [f"$2^{{-{as_format(f).precision}}}$" for f in names]
        axis.set_xticks([as_format(f).u for f in names], powers)
        for name in names:
            known = data[data["format"] == name]
            axis.annotate(name, (known["u"].iloc[0], known["p50"].min()), xytext=(5, -11),
                          textcoords="offset points", fontsize=7)  # fmt: skip
        axis.minorticks_off()
        axis.set_xlim(ends[0], ends[1] * 8)
        axis.set_ylabel("relative error in the 2-norm")
        axis.set_xlabel("unit roundoff u of the format")
        axis.grid(axis="y")
        axis.legend(loc="upper left")
    caption = (
        f"Relative error of the {gradient} gradient of the real kernel in each format: median and "
        f"quartiles over {chosen['seed'].nunique()} seeds. What is rounding alone lies on a line "
        "of slope 1; a bug would be a floor that more bits do not lower."
    )
    return Plot("precision_ladder", "Does it shrink with the precision?", caption, figure, data)


def bias_against_noise(errors: pd.DataFrame, gradient: str = "weight") -> Plot:
    """The mean signed error against its size, a point per order and method, per format."""
    chosen = errors[
        (errors["gradient"] == gradient)
        & ((errors["accumulate"] == errors["format"]) | errors["order"].isin(REAL))
    ]
    finite = chosen.replace([np.inf, -np.inf], np.nan)
    grouped = finite.groupby(["format", "order", "method"], sort=False)
    data = grouped.agg(
        bias=("mean_scaled", "mean"),
        error_of_bias=(
            "mean_scaled",
            lambda v: v.std(ddof=1) / np.sqrt(len(v)) if len(v) > 1 else np.nan,
        ),
        noise=("rms_scaled", "mean"),
        seeds=("seed", "nunique"),
    ).reset_index()
    formats, methods = formats_of(data), methods_of(data)
    with style():
        figure, axes = panels(1, len(formats), 2.6, sharey=True)
        for axis, name in zip(axes[0], formats):
            _bias_panel(axis, data[data["format"] == name], methods)
            axis.set_title(name)
        axes[0, 0].set_ylabel("noise: rms error, in u S")
        figure.supxlabel("bias: mean signed error and its 95 % interval, in u S", fontsize=8)
        handles = [
            Line2D([], [], color=c, marker=m, ls="", label=f"{readable(method)}, {kind}")
            for c, method in zip(COLORS, methods)
            for m, kind in (("o", "real kernel"), (".", "simulated"))
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    caption = (
        f"Systematic against random error of the {gradient} gradient: the mean over elements and "
        f"{data['seeds'].max()} seeds of the signed error, with its 95 % interval, against the "
        "root-mean-square error; a point per reduction order and method. Rounding to nearest is "
        "unbiased, so the points should straddle 0; the dotted lines are where bias equals noise."
    )
    return Plot("bias_against_noise", "Is the error a bias?", caption, figure, data)


def _bias_panel(axis: Axes, part: pd.DataFrame, methods: list[str]) -> None:
    top = np.nanmax([*part["noise"], 1e-3]) * 1.1
    axis.axvline(0, color=GREY, lw=0.6)
    for sign in (-1, 1):
        axis.plot([0, sign * top], [0, top], color=GREY, lw=0.6, ls=(0, (1, 2)))
    for color, method in zip(COLORS, methods):
        rows = part[part["method"] == method]
        real = rows["order"].isin(REAL)
        for these, marker, size in ((rows[~real], ".", 4), (rows[real], "o", 4)):
            axis.errorbar(these["bias"], these["noise"], xerr=1.96 * these["error_of_bias"], fmt=marker,
                          color=color, ms=size, elinewidth=0.5, alpha=0.85)  # fmt: skip
    ends = np.abs(part["bias"]) + 2 * part["error_of_bias"].fillna(0)
    reach = max(1.15 * float(np.nanmax([*ends, 0.0])), 0.05 * top)
    axis.set_xlim(-reach, reach)
    axis.set_ylim(0, None)
    axis.grid()


__all__ = ["LogWithZero", "bias_against_noise", "error_against_n", "precision_ladder"]
