"""Honest pairs and their twins: how far apart, beside the bound."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

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


def apart(rows: pd.DataFrame) -> Plot:
    """The largest difference of the sides per seed, honest and twin, beside the bound; a panel per format.

    rows: those of `equivalences_rows`.  Units: u times the sum of |terms|.
    """
    chosen = some(rows[rows["apart"].notna()], "apart", "differences")
    names, formats = list(dict.fromkeys(rows["pair"])), formats_of(chosen)
    place = LogWithZero([*chosen["apart"], *chosen["bound"]])
    with style():
        figure, axes = panels(1, len(formats), 0.9 + 0.26 * len(names), sharex=True, sharey=True)
        for axis, name in zip(axes[0], formats, strict=True):
            part = chosen[chosen["format"] == name]
            for level, pair in enumerate(names):
                of = part[part["pair"] == pair]
                for honest, color, shift in ((True, COLORS[0], 0.18), (False, COLORS[1], -0.18)):
                    points = of[of["honest"] == honest]["apart"]
                    height = np.full(len(points), -level + shift)
                    axis.plot(place(points.to_numpy()), height, "|", color=color, ms=5, mew=0.6)
                bound = of[of["honest"]]["bound"]
                if len(bound):
                    axis.plot(
                        place(np.array([bound.max()] * 2)), [-level - 0.4, -level + 0.4], color=GREY
                    )
            place.apply(axis, "x")
            axis.set_title(name)
        axes[0, 0].set_yticks([-level for level in range(len(names))], names)
        figure.supxlabel(
            "largest difference of the two sides, in u times the sum of |terms|", fontsize=8
        )
        handles = [
            Line2D([], [], marker="|", ls="", color=COLORS[0], label="honest pair"),
            Line2D([], [], marker="|", ls="", color=COLORS[1], label="twin with a bug"),
            Line2D([], [], color=GREY, label="probabilistic bound, largest"),
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=3)
    caption = (
        "How far apart the two sides are: the largest difference over all gradients and the output, a "
        f"mark per seed ({chosen['seed'].nunique()} of them), in u times the sum of |terms| of the last "
        "step. Grey: the largest probabilistic bound (failure 1e-9 per comparison) of the honest pairs. "
        "A side that overflows or is NaN where the other is a number is infinitely far from it."
    )
    return Plot("apart", "How far apart are pairs and twins?", caption, figure, chosen)
