"""How far the errors of gradients are below their bounds."""

from __future__ import annotations

import pandas as pd

from roundoff.report.figures.base import (
    COLORS,
    LogWithZero,
    Plot,
    formats_of,
    not_finite,
    panels,
    some,
    style,
)
from roundoff.words import counted


def ratios(pairs: pd.DataFrame, gradient: str = "weight") -> Plot:
    """The largest error of a gradient over each bound, per format: a box over the seeds.

    pairs: the rows of a study, with columns ratio_certified, ratio_probabilistic and ratio_expected.
    """
    names = ("certified", "probabilistic", "expected")
    chosen = some(pairs[pairs["gradient"] == gradient], "ratios", f"gradient {gradient!r}")
    labels = [
        f"{case}, {shape}" for case, shape in zip(chosen["case"], chosen["shape"], strict=True)
    ]
    wide = chosen.assign(problem=labels)
    wide = wide[wide["verdict"] != "DIFFERENT"]
    data = wide.melt(
        ["format", "problem", "seed"],
        [f"ratio_{n}" for n in names],
        var_name="bound",
        value_name="ratio",
    )
    data = data.assign(bound=data["bound"].str.removeprefix("ratio_"))
    data = some(data[data["ratio"].notna()].reset_index(drop=True), "ratios", "a ratio")
    formats = formats_of(data)
    place = LogWithZero([*data["ratio"], 1.0])
    with style():
        figure, axes = panels(1, len(formats), 2.4, sharey=True)
        for axis, name in zip(axes[0], formats):
            part = data[data["format"] == name]
            boxes = [place(part.loc[part["bound"] == bound, "ratio"]) for bound in names]
            axis.boxplot(boxes, widths=0.5, whis=(0, 100), medianprops={"color": COLORS[1]})
            axis.axhline(1.0, color="black", lw=0.6)
            axis.set_xticks(range(1, len(names) + 1), names, rotation=30, ha="right")
            place.apply(axis, "y")
            axis.set_title(name)
            axis.grid(axis="y")
        axes[0, 0].set_ylabel("largest error / bound")
    caption = (
        f"How tight: the largest error of the {gradient} gradient of the real kernels over its bound, "
        f"box over {counted(len(data) // len(names), 'gradient')}, those of all shapes and "
        "seeds, whiskers to the "
        "extremes. At 1 (black) a bound is attained. The probabilistic bound fails once in 1e9; the "
        "expected error is a model, which the largest of many elements exceeds. Kernels that keep wider "
        "sums than their format err less." + not_finite(data["ratio"])
    )
    return Plot("ratios", "How tight are the bounds?", caption, figure, data)
