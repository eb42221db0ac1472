"""Figures of the report on predictions: ratios, standardised errors, power."""

from __future__ import annotations

import numpy as np
import pandas as pd
from calibration_rows import EDGES, Found, survival
from matplotlib.lines import Line2D

from roundoff.report.figures.base import COLORS, GREY, Plot, formats_of, panels, some, style

#: Of one curve, in the data beside the figure.
_POINTS = 200

#: Ratios are drawn from here to there; what is beyond stands at the ends.
_LOW, _HIGH = 1 / 16, 16.0


def ratios(rows: pd.DataFrame) -> Plot:
    """The distribution of native over predicted error, a panel per group, a curve per format."""
    chosen = some(rows, "ratios", "tensors")
    formats, groups = formats_of(chosen), list(dict.fromkeys(chosen["group"]))
    data = []
    with style():
        figure, axes = panels(1, len(groups), 2.4, sharey=True)
        for axis, group in zip(axes[0], groups, strict=True):
            axis.axvspan(0.5, 2.0, color=GREY, alpha=0.15, lw=0)
            for color, format in zip(COLORS, formats, strict=False):
                part = chosen[(chosen["group"] == group) & (chosen["format"] == format)]
                values = np.sort(np.clip(part["ratio"], _LOW, _HIGH))
                share = np.arange(1, len(values) + 1) / max(1, len(values))
                axis.step(values, share, where="post", color=color, lw=1.1)
                few = np.unique(np.linspace(0, len(values) - 1, _POINTS).astype(int))
                curve = {"group": group, "format": format, "ratio": values, "share": share}
                data.append(pd.DataFrame(curve).iloc[few])
            axis.set_xscale("log", base=2)
            axis.set_xlim(_LOW, _HIGH)
            axis.set_title(group)
            axis.set_xlabel("native error over predicted")
        axes[0, 0].set_ylabel("share of gradients")
        handles = [
            Line2D([], [], color=color, label=f) for color, f in zip(COLORS, formats, strict=False)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(formats))
    caption = (
        "Share of gradients and outputs (of at least eight elements) whose native error, in the 2-norm, is "
        "at most so many times the predicted one; shaded: between half and twice. Ratios beyond 1/16 and 16 "
        "stand at the ends."
    )
    return Plot("ratios", "How far off are predictions?", caption, figure, pd.concat(data))


def standardised(found: Found, formats: list[str]) -> Plot:
    """How often an element's error exceeds so many times its predicted root mean square."""
    data = []
    with style():
        figure, axes = panels(1, len(formats), 2.4, sharey=True)
        for axis, format in zip(axes[0], formats, strict=True):
            for color, label, counts in (
                (COLORS[0], "native", found.native.get(format)),
                (COLORS[1], "as drawn", found.model.get(format)),
            ):
                if counts is None:
                    continue
                above = survival(counts)
                axis.plot(EDGES[:-1], np.where(above > 0, above, np.nan), color=color, lw=1.1)
                data.append(
                    pd.DataFrame(
                        {"format": format, "errors": label, "times": EDGES[:-1], "above": above}
                    )
                )
            axis.set_yscale("log")
            axis.set_ylim(1e-5, 1.2)
            axis.set_title(format)
            axis.set_xlabel("|error| over predicted rms")
        axes[0, 0].set_ylabel("share of elements above")
        handles = [
            Line2D([], [], color=color, label=label)
            for color, label in zip(COLORS, ("native", "as drawn"), strict=False)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=2)
    caption = (
        "Errors of single elements over their predicted root mean square, of 16 samples: native ones, and a "
        "seventeenth sample in their place. Every gradient counts as one, whatever its size."
    )
    return Plot(
        "standardised", "Are single elements as predicted?", caption, figure, pd.concat(data)
    )


def power(faults: pd.DataFrame) -> Plot:
    """Which share of planted faults is noticed, against their size in units of the printed power."""
    chosen = some(faults, "power", "planted faults")
    kinds = list(dict.fromkeys(chosen["fault"]))
    shares = chosen.groupby(["fault", "format", "times"])["noticed"].mean().reset_index()
    formats = formats_of(chosen)
    with style():
        figure, axes = panels(1, len(kinds), 2.2, sharey=True)
        for axis, kind in zip(axes[0], kinds, strict=True):
            for color, format in zip(COLORS, formats, strict=False):
                part = shares[(shares["fault"] == kind) & (shares["format"] == format)]
                axis.plot(part["times"], part["noticed"], ".-", color=color, lw=1.1, ms=4)
            axis.axvline(1.0, color=GREY, lw=0.8, ls=":")
            axis.set_xscale("log", base=2)
            axis.set_title(f"a fault of {kind}")
            axis.set_xlabel("size, in smallest that is printed")
        axes[0, 0].set_ylabel("share that is noticed")
        handles = [
            Line2D([], [], color=color, label=f) for color, f in zip(COLORS, formats, strict=False)
        ]
        figure.legend(handles=handles, loc="outside upper center", ncols=len(formats))
    caption = (
        "Faults planted in honest native results: a factor on all elements, and a shift of one element, from "
        "an eighth to twice the size that the verdict prints as noticed for sure."
    )
    return Plot("power", "Which faults are noticed?", caption, figure, shares)
