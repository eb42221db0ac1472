"""One gradient, element by element."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from roundoff.report.figures.base import (
    Plot,
    largest,
    methods_of,
    not_finite,
    panels,
    readable,
    some,
    style,
)


def heat_map(elements: pd.DataFrame) -> Plot:
    """The exact gradient, S, and the signed error of each method in u S, of one seed and format."""
    methods = methods_of(some(elements, "heat_map", "any element"))
    grids = {m: elements[elements["method"] == m].pivot(index="i", columns="j") for m in methods}
    first = grids[methods[0]]
    error = largest(elements["error_scaled"]) or 1.0
    reach = largest(elements["exact"]) or 1.0
    scale = largest(elements["scale"]) or 1.0
    with style():
        figure, axes = panels(1, 2 + len(methods), 2.1)
        drawn: list[tuple[Any, ...]] = [
            (first["exact"], "exact gradient", "PuOr", -reach, reach),
            (first["scale"], "S", "Greys", 0.0, scale),
            *((grids[m]["error_scaled"], readable(m), "RdBu_r", -error, error) for m in methods),
        ]
        images = [_panel(axis, *each) for axis, each in zip(axes[0], drawn)]
        for k in (0, 1):
            figure.colorbar(images[k], ax=axes[0, k], location="bottom", shrink=0.9, aspect=16)
        bar = figure.colorbar(
            images[-1], ax=list(axes[0, 2:]), location="bottom", shrink=0.6, aspect=30
        )
        bar.set_label("signed error, in u S", fontsize=7)
        axes[0, 0].set_ylabel("output channel")
        for axis in axes[0]:
            axis.set_xlabel("input channel × tap")
    row = elements.iloc[0]
    caption = (
        f"The {row['gradient']} gradient of seed {row['seed']} in {row['format']}, element by element: the "
        "exact value, its condition scale S (the same gradient from absolute values), and the "
        "signed error of each method. Where S is large beside the value, terms cancel, and the "
        "relative error is large although the rounding is not."
        + not_finite(elements["error_scaled"])
    )
    return Plot("heat_map", "Where is the error?", caption, figure, elements)


def _panel(axis: Axes, grid: pd.DataFrame, title: str, colors: str, low: float, high: float) -> Any:
    values = grid.to_numpy(np.float64)
    image = axis.imshow(
        values, cmap=colors, vmin=low, vmax=high, aspect="auto", interpolation="nearest"
    )
    for i, j in np.argwhere(np.isinf(values)):  # an overflow
        axis.text(j, i, "∞", ha="center", va="center", fontsize=6)
    axis.set_title(title)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    if max(values.shape) <= 6:
        axis.set_xticks(range(values.shape[1]))
        axis.set_yticks(range(values.shape[0]))
        for (i, j), value in np.ndenumerate(values):
            if not np.isfinite(value):
                continue
            shade = (value - low) / (high - low) if high > low else 0.5
            dark = shade > 0.7 if low == 0 else abs(shade - 0.5) > 0.33
            axis.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=6,
                      color="white" if dark else "black")  # fmt: skip
    return image
