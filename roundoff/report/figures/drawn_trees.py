"""Small reduction trees, drawn."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from roundoff.report.figures.base import GREY, Plot, largest, panels, some, style


def trees(nodes: pd.DataFrame) -> Plot:
    """One panel per value of `panel`: leaves at the bottom, sums above, edges coloured by local error.

    nodes: a row per leaf and sum, with panel, node, parent (-1 at the root), leaf (its number, -1 for
    a sum), height, error: that of the rounding at the node, in u times the result.
    """
    rows = some(nodes, "trees", "any node")
    names = list(dict.fromkeys(rows["panel"]))
    top = largest(rows["error"].abs()) or 1.0
    with style():
        figure, axes = panels(1, len(names), 2.6)
        colors = Normalize(0.0, top)
        for axis, name in zip(axes[0], names, strict=True):
            part = rows[rows["panel"] == name].set_index("node")
            place = _places(part)
            lines, shades = [], []
            for node, row in part.iterrows():
                if row["parent"] >= 0:
                    above = row["parent"]
                    lines.append(
                        [(place[node], row["height"]), (place[above], part["height"][above])]
                    )
                    shades.append(abs(row["error"]))
            drawn = LineCollection(lines, cmap="viridis_r", norm=colors, linewidths=1.4)
            drawn.set_array(np.array(shades))
            axis.add_collection(drawn)
            leaves = part[part["leaf"] >= 0]
            small = 6 if len(leaves) <= 20 else 4
            for node, row in leaves.iterrows():
                axis.text(
                    place[node], -0.35, str(row["leaf"]), ha="center", va="top", fontsize=small
                )
            axis.plot([place[n] for n in part.index], part["height"], ".", color=GREY, markersize=2)
            axis.set_xlim(-1, len(leaves))
            axis.set_ylim(-1.4, part["height"].max() + 0.5)
            axis.set_title(name, fontsize=8)
            axis.axis("off")
        bar = figure.colorbar(
            mpl.cm.ScalarMappable(colors, "viridis_r"), ax=list(axes[0]), location="bottom", shrink=0.5,
            aspect=40,
        )  # fmt: skip
        bar.set_label("rounding at the lower end, in u times its value", fontsize=7)
    caption = (
        "Real reduction trees, recovered by probing and proven by replay: numbers are terms, every joint is "
        "an addition, and the colour of an edge is the size of the rounding error that is made at its lower "
        "end (for a leaf, in its product)."
    )
    return Plot("trees", "Which order?", caption, figure, rows)


def _places(part: pd.DataFrame) -> dict[int, float]:
    """Where each node stands: leaves in the order in which branches need not cross, sums between."""
    children: dict[int, list[int]] = {}
    order: list[int]
    for node, parent in part["parent"].items():
        children.setdefault(int(parent), []).append(int(node))  # type: ignore[call-overload]
    order, stack = [], list(children[-1])
    while stack:
        order.append(stack.pop())
        stack += children.get(order[-1], [])
    lowest: dict[int, int] = {}
    for node in reversed(order):
        lowest[node] = min((lowest[c] for c in children.get(node, [])), default=node)
    order, stack = [], list(children[-1])
    while stack:
        order.append(stack.pop())
        stack += sorted(children.get(order[-1], []), key=lowest.__getitem__, reverse=True)
    place: dict[int, float] = {}
    for node in order:
        if node not in children:
            place[node] = float(len(place))
    for node in reversed(order):
        if node in children:
            place[node] = float(np.mean([place[child] for child in children[node]]))
    return place
