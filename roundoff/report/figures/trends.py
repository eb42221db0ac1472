"""How errors grow: with the number of terms, with the unit roundoff; and how much of them is bias."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from roundoff.numbers import statistics
from roundoff.numbers.formats import as_format
from roundoff.report.figures.base import (
    COLORS,
    GREY,
    REAL,
    LogWithZero,
    Plot,
    formats_of,
    largest,
    methods_of,
    not_finite,
    panels,
    readable,
    some,
    style,
    usable,
)
from roundoff.words import counted

#: How each bound is drawn; others are drawn as the last.
_BOUNDS = {
    "certified": "-",
    "certified, plain loop": (0, (6, 1.5)),
    "probabilistic": (0, (3, 2)),
    "expected": (0, (1, 1.5)),
}


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

    bounds: columns format, n, bound, value.  Units: u S.  Band: 5 to 95 % of the real kernel.
    """
    what = f"gradient {gradient!r} and method {method!r} with sums in the format"
    chosen = some(_own(errors, gradient, method), "error_against_n", what)
    data = _against_n(chosen)
    bounds = bounds[bounds["format"].isin(chosen["format"])].sort_values("n", kind="stable")
    formats = formats_of(data)
    looks = _lines([name for name in dict.fromkeys(data["order"]) if name not in REAL])
    place = LogWithZero([*data["p05"], *data["p50"], *data["p95"], *bounds["value"]])
    with style():
        figure, axes = panels(1, len(formats), 2.9, sharey=True)
        for axis, name in zip(axes[0], formats):
            part = data[data["format"] == name]
            _growth_panel(axis, part, bounds[bounds["format"] == name], looks, place)
            axis.set_title(name)
        axes[0, 0].set_ylabel("largest |error|, in u S")
        figure.supxlabel("non-zero terms of one sum", fontsize=8)
        handles = [Line2D([], [], color="black", marker="o", ms=2.5, lw=1.6, label="real kernel")]
        handles += [
            Line2D([], [], lw=0.9, marker="o", ms=1.8, label=name, **look)
            for name, look in looks.items()
        ]
        handles += [
            Line2D([], [], color=GREY, lw=0.9, ls=_dashes(name), label=_titled(name))
            for name in dict.fromkeys(sorted(bounds["bound"]))
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=5)
    caption = (
        f"Largest error of the {gradient} gradient ({readable(method)}) against the number of non-zero "
        f"terms in each of its sums: median of {counted(chosen['seed'].nunique(), 'seed')}, sums kept in the "
        "format; band: 5 to 95 % of the seeds, real kernel. Grey: the certified bound, which no order "
        "exceeds, and that of a plain loop, from the partial sums of the data; the probabilistic one, at a "
        "failure rate of 1e-9 for the whole trace, which assumes independent rounding errors but where "
        "terms are small beside their sum; and the expected error, a model."
        + not_finite(chosen["max_scaled"])
    )
    beside = bounds.rename(columns={"value": "p50", "bound": "order"})
    beside = beside.assign(kind="bound")[["kind", "format", "order", "n", "p50"]]
    everything = pd.concat([data.assign(kind="error"), beside], ignore_index=True)
    columns = ["kind", "format", "order", "n", "seeds", "p05", "p50", "p95"]
    return Plot(
        "error_against_n",
        "How does the error grow?",
        caption,
        figure,
        everything.reindex(columns=columns),
    )


def _own(errors: pd.DataFrame, gradient: str, method: str) -> pd.DataFrame:
    """The real kernel, and the simulated orders whose sums are kept in the format."""
    own = (errors["accumulate"] == errors["format"]) | (errors["order"] == "native")
    wanted = (errors["gradient"] == gradient) & (errors["method"] == method)
    return errors[wanted & own & ~errors["order"].isin(REAL[1:])]


def _against_n(chosen: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for (name, order, n), part in chosen.groupby(["format", "order", "n"], sort=False):
        known = part["max_scaled"].dropna()
        rows.append((name, order, n, known.size, *statistics.quantiles(known, 0.05, 0.5, 0.95)))
    columns = ["format", "order", "n", "seeds", "p05", "p50", "p95"]
    return pd.DataFrame(rows, columns=columns).sort_values("n", kind="stable")


def _titled(bound: str) -> str:
    return "expected error" if bound == "expected" else f"{bound} bound"


def _dashes(bound: str) -> Any:
    return _BOUNDS.get(bound, _BOUNDS["expected"])


def _growth_panel(
    axis: Axes,
    part: pd.DataFrame,
    bounds: pd.DataFrame,
    looks: dict[str, dict[str, Any]],
    place: LogWithZero,
) -> None:
    """Markers as well as lines: one length alone has to show."""
    real: dict[str, Any] = {"color": "black", "lw": 1.6, "ms": 2.5, "zorder": 5}
    for order, rows in part.groupby("order", sort=False):
        look = {"lw": 0.9, "ms": 1.8, **looks.get(str(order), real)}
        axis.plot(rows["n"], place(rows["p50"]), marker="o", mew=0, **look)
        if order == "native":
            axis.fill_between(
                rows["n"], place(rows["p05"]), place(rows["p95"]), color="black", alpha=0.12, lw=0
            )
    for bound, rows in bounds.groupby("bound"):
        mark = "_" if len(rows) == 1 else ""
        axis.plot(
            rows["n"], place(rows["value"]), color=GREY, lw=0.9, ls=_dashes(str(bound)), marker=mark
        )
    place.apply(axis, "y")
    axis.set_xscale("log")
    lengths = sorted(part["n"].unique())
    room = max(1.2, (lengths[-1] / lengths[0]) ** 0.06)
    axis.set_xlim(lengths[0] / room, lengths[-1] * room)
    axis.set_xticks(lengths, [str(n) for n in lengths])
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(which="minor", bottom=False)
    axis.grid()


def precision_ladder(errors: pd.DataFrame, gradient: str = "weight") -> Plot:
    """The median relative error against the unit roundoff, with a line of slope 1."""
    native = (errors["order"] == "native") & (errors["gradient"] == gradient)
    what = f"order 'native' and gradient {gradient!r}"
    chosen = some(errors[native], "precision_ladder", what)
    rows = []
    for (name, method), part in chosen.groupby(["format", "method"], sort=False):
        q = statistics.quantiles(part["normwise"], 0.25, 0.5, 0.75)
        rows.append((name, as_format(name).u, method, *q))
    data = pd.DataFrame(rows, columns=["format", "u", "method", "p25", "p50", "p75"])
    ends = np.array([data["u"].min() / 4, data["u"].max() * 4])
    multiples = usable(data["p50"] / data["u"])
    middle = float(np.median(multiples)) if multiples.size else 0.0
    place = LogWithZero([*data["p25"], *data["p50"], *data["p75"], *ends])
    with style():
        figure, axes = panels(1, 1, 2.7)
        axis: Axes = axes[0, 0]
        for side, (color, method) in enumerate(zip(COLORS, methods_of(data))):
            part = data[data["method"] == method]
            x = part["u"] * (1.12 if side else 1 / 1.12)
            axis.vlines(x, place(part["p25"]), place(part["p75"]), color=color, lw=1.2)
            axis.plot(x, place(part["p50"]), "o", color=color, ms=4, label=readable(method))
        axis.plot(ends, ends, color=GREY, lw=0.7, label="error = u", ls=(0, (3, 2)))
        if middle > 0:
            axis.plot(ends, ends * middle, color=GREY, lw=0.7, label=f"error = {middle:.2g} u")
        place.apply(axis, "y")
        axis.set_xscale("log")
        names = list(data["format"].unique())
        powers = [f"$2^{{-{as_format(f).precision}}}$\n{f}" for f in names]
        axis.set_xticks([as_format(f).u for f in names], powers)
        _apart(axis, names)
        axis.tick_params(which="minor", bottom=False)
        axis.set_xlim(*ends)
        axis.set_ylabel("relative error in the 2-norm")
        axis.set_xlabel("unit roundoff u of the format")
        axis.grid(axis="y")
        axis.legend(loc="upper left", frameon=True, framealpha=1, edgecolor="none")
    caption = (
        f"Relative error of the {gradient} gradient of the real kernel in each format: median and "
        f"quartiles over {counted(chosen['seed'].nunique(), 'seed')}. What is rounding alone lies on a line "
        "of slope 1; a bug would be a floor that more bits do not lower."
        + not_finite(chosen["normwise"])
    )
    return Plot("precision_ladder", "Does it shrink with the precision?", caption, figure, data)


def _apart(axis: Axes, names: list[str]) -> None:
    """Turn the labels of the two 16-bit formats, which are neighbours, away from each other."""
    if not {"float16", "bfloat16"} <= set(names):
        return
    labels = dict(zip(names, axis.get_xticklabels(), strict=True))
    labels["float16"].set_horizontalalignment("right")
    labels["bfloat16"].set_horizontalalignment("left")


def bias_against_noise(errors: pd.DataFrame, gradient: str = "weight") -> Plot:
    """The mean signed error of a gradient against its size, medians over seeds, per order and method."""
    chosen = errors[
        (errors["gradient"] == gradient)
        & ((errors["accumulate"] == errors["format"]) | errors["order"].isin(REAL))
    ]
    some(chosen, "bias_against_noise", f"gradient {gradient!r} with sums in the format")
    keys, rows = ["format", "order", "method"], []
    for key, part in chosen.groupby(keys, sort=False):
        bias, noise = (
            statistics.quantiles(part[name], 0.5)[0] for name in ("mean_scaled", "rms_scaled")
        )
        low, high = statistics.median_interval(part["mean_scaled"])
        rows.append((*key, bias, low, high, noise, part["seed"].nunique()))
    data = pd.DataFrame(rows, columns=[*keys, "bias", "low", "high", "noise", "seeds"])
    formats, methods = formats_of(data), methods_of(data)
    with style():
        figure, axes = panels(1, len(formats), 2.6, sharey=True)
        for axis, name in zip(axes[0], formats):
            _bias_panel(axis, data[data["format"] == name], methods)
            axis.set_title(name)
        axes[0, 0].set_ylabel("noise: rms error, in u S")
        figure.supxlabel("bias: mean signed error, median and 95 % interval, in u S", fontsize=8)
        handles = [
            Line2D([], [], color=c, marker=m, ls="", label=f"{readable(method)}, {kind}")
            for c, method in zip(COLORS, methods)
            for m, kind in (("o", "real kernel"), (".", "simulated"))
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    caption = (
        f"Systematic against random error of the {gradient} gradient: the mean over elements of the signed "
        "error against their root mean square, medians over "
        f"{counted(data['seeds'].max(), 'seed')}, a point per "
        "reduction order and method. Bars: an interval that covers the median of all seeds with at least "
        "95 %, whatever their distribution; none for fewer than 6. Rounding to nearest is unbiased, so "
        "the points should straddle 0; the dotted lines are where bias equals noise."
        + not_finite(chosen["rms_scaled"])
        + _undrawn(data)
    )
    return Plot("bias_against_noise", "Is the error a bias?", caption, figure, data)


def _undrawn(data: pd.DataFrame) -> str:
    """A sentence on the points that have no place on these axes."""
    count = int((~np.isfinite(data[["bias", "noise"]]).all(axis=1)).sum())
    return f" Infinite, and not drawn: {count} of {counted(len(data), 'point')}." if count else ""


def _bias_panel(axis: Axes, part: pd.DataFrame, methods: list[str]) -> None:
    top = (largest(part["noise"]) or 1e-3) * 1.1
    reach = max(1.15 * largest(part[["bias", "low", "high"]]), 0.05 * top)
    axis.axvline(0, color=GREY, lw=0.6)
    for sign in (-1, 1):
        axis.plot([0, sign * top], [0, top], color=GREY, lw=0.6, ls=(0, (1, 2)))
    for color, method in zip(COLORS, methods):
        rows = part[part["method"] == method]
        real = rows["order"].isin(REAL)
        for these, marker, size in ((rows[~real], ".", 4), (rows[real], "o", 4)):
            axis.plot(these["bias"], these["noise"], marker, color=color, ms=size, alpha=0.85)
            ends = these[["low", "high"]].clip(-reach, reach)
            axis.hlines(these["noise"], ends["low"], ends["high"], color=color, lw=0.5, alpha=0.85)
    axis.set_xlim(-reach, reach)
    axis.set_ylim(0, None)
    axis.grid()


__all__ = ["LogWithZero", "bias_against_noise", "error_against_n", "precision_ladder"]
