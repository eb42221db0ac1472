"""Errors over the depth of a model."""

from __future__ import annotations

import pandas as pd
from matplotlib.lines import Line2D

from roundoff.report.figures.base import COLORS, Plot, formats_of, panels, some, style


def over_depth(rows: pd.DataFrame) -> Plot:
    """The error of every parameter's gradient, both ways, and the predicted one; a panel per model."""
    known = rows[(rows["gradient"] != "output") & rows["error_first"].notna()]
    chosen = some(known, "over_depth", "errors").sort_values("depth")
    formats, models = formats_of(chosen), list(dict.fromkeys(rows["step"]))
    models = [model for model in models if model in set(chosen["step"])]
    with style():
        figure, axes = panels(1, len(models), 2.4, sharey=True)
        for axis, model in zip(axes[0], models, strict=True):
            for color, format in zip(COLORS, formats, strict=False):
                part = chosen[(chosen["step"] == model) & (chosen["format"] == format)]
                axis.plot(part["depth"], part["error_first"], ".", color=color, ms=4)
                axis.plot(part["depth"], part["error_second"], "x", color=color, ms=3, mew=0.8)
                axis.plot(part["depth"], part["predicted"], "-", color=color, lw=0.8)
            axis.set_yscale("log")
            axis.set_title(model)
            axis.set_xlabel("parameter, by depth")
        axes[0, 0].set_ylabel("error, in u")
        handles = [
            *(Line2D([], [], color=c, label=f) for c, f in zip(COLORS, formats, strict=False)),
            Line2D([], [], color="k", ls="", marker=".", label="batch at once"),
            Line2D([], [], color="k", ls="", marker="x", label="halves accumulated"),
            Line2D([], [], color="k", lw=0.8, label="predicted"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    caption = (
        "Normwise relative error of every parameter's gradient, in u of the format, from the first parameter "
        "to the last one; lines: what rounding is predicted to make in the batch at once."
    )
    return Plot("over_depth", "Where in a model are errors large?", caption, figure, chosen)
