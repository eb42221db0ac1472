"""Errors of a layer's gradients, format by format."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from roundoff.report.figures.base import COLORS, LogWithZero, Plot, formats_of, panels, some, style


def layer_errors(rows: pd.DataFrame) -> Plot:
    """The error of every gradient, both sides; a panel per layer.

    rows: the tables of `compare`, with a column layer.  Units: normwise relative, in u of the format.
    """
    chosen = some(rows[rows["error_first"].notna()], "layer_errors", "errors")
    place = LogWithZero([*chosen["error_first"], *chosen["error_second"]])
    formats, layers = formats_of(chosen), list(dict.fromkeys(rows["layer"]))
    with style():
        figure, axes = panels(1, len(layers), 2.4, sharex=True, sharey=True)
        for axis, layer in zip(axes[0], layers, strict=True):
            part = chosen[chosen["layer"] == layer]
            for side, color, shift in (
                ("error_first", COLORS[0], -0.12),
                ("error_second", COLORS[1], 0.12),
            ):
                places = np.array([formats.index(f) for f in part["format"]], float) + shift
                axis.plot(places, place(part[side]), "_", color=color, ms=7, mew=1.0)
            place.apply(axis, "y")
            axis.set_title(layer.split(",")[0])
        axes[0, 0].set_xticks(range(len(formats)), formats, rotation=30)
        axes[0, 0].set_ylabel("error, in u")
        handles = [
            Line2D([], [], marker="_", ls="", color=color, label=label)
            for color, label in zip(COLORS, ("whole batch", "two halves"), strict=False)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    caption = (
        "Normwise relative error of every gradient and of the output, in units of the format's u, a mark "
        "each. What has no reference has no mark."
    )
    return Plot("layer_errors", "How large are the errors?", caption, figure, chosen)
