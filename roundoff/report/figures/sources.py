"""Where errors come from: bars by source, and maps of the elements of a step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.ticker import MaxNLocator

from roundoff.report.figures.base import COLORS, Plot, panels, style
from roundoff.trace.source import Source

#: So many sources are drawn; the others are one bar.
_MOST = 14

#: Of so many steps elements are drawn.
_PANELS = 3

Array = npt.NDArray[np.float64]


def source_bars(shares: pd.DataFrame) -> Plot:
    """Bars of the mean share over all results.

    shares: as `Attribution.by` returns them: module, line, operation, phase, share and one column per result.
    """
    names = [
        f"{row['operation']} in {row['module'] or Source(line=str(row['line'])).place}"
        for row in shares.to_dict("records")
    ]
    chosen = shares.assign(source=names)[["source", "phase", "share"]].head(_MOST)
    rest = float(shares["share"][_MOST:].sum())
    if rest:
        others = pd.DataFrame({"source": ["all others"], "phase": [""], "share": [rest]})
        chosen = pd.concat([chosen, others], ignore_index=True)
    places = np.arange(len(chosen))[::-1]
    colors = [COLORS[{"forward": 0, "backward": 1}.get(str(phase), 2)] for phase in chosen["phase"]]
    with style():
        figure, axes = panels(1, 1, 0.6 + 0.2 * len(chosen))
        axis = axes[0, 0]
        axis.barh(places, chosen["share"], color=colors, height=0.7)
        axis.set_yticks(
            places, [f"{n} ({p})" if p else n for n, p in zip(chosen["source"], chosen["phase"])]
        )
        axis.set_xlabel("share in the mean square of the error, mean over all results")
    caption = (
        "What each operation of each module adds to the mean square of the errors, in the mean over all "
        "gradients and the output: forward in the first colour, backward in the second."
    )
    return Plot("source_bars", "Where does the error come from?", caption, figure, chosen)


def element_maps(title: str, steps: Sequence[tuple[str, Array]]) -> Plot:
    """What the elements of steps add to the mean square of an error, one panel a step, at most three.

    steps: names and squares, which are drawn as matrices (leading axes taken together).
    """
    shown = [(name, _matrix(squares)) for name, squares in steps[:_PANELS]]
    data = [
        pd.DataFrame(
            {
                "step": name,
                "row": np.repeat(np.arange(matrix.shape[0]), matrix.shape[1]),
                "column": np.tile(np.arange(matrix.shape[1]), matrix.shape[0]),
                "square": matrix.ravel(),
            }
        )
        for name, matrix in shown
    ]
    with style():
        figure, axes = panels(1, len(shown), 2.3)
        for axis, (name, matrix) in zip(axes[0], shown, strict=True):
            image = axis.imshow(matrix, cmap="Greys", aspect="auto", interpolation="nearest")
            axis.set_title(name.replace(" (", "\n("), fontsize=7)
            for ticks in (axis.xaxis, axis.yaxis):
                ticks.set_major_locator(MaxNLocator(4, integer=True))
            figure.colorbar(image, ax=axis, location="bottom", shrink=0.9)
    caption = (
        f"Element by element, what {title} adds to the mean square of the error; a step's leading axes are "
        "taken together as rows."
    )
    return Plot("elements", "Which elements make it?", caption, figure, pd.concat(data))


def _matrix(squares: Array) -> Array:
    squares = np.atleast_1d(squares)
    return squares.reshape(-1, squares.shape[-1])
