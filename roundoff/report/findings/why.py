"""From explanations to a section of a report: the trees of both sides, and what swapping them shows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from roundoff.judging.explanation import Cause, Explanation, order_in_words, roundings
from roundoff.numbers.formats import round_to
from roundoff.probing import KernelTree, Revealed, TreeClass
from roundoff.probing.replay import partial_sums
from roundoff.report import figures
from roundoff.report.document import Table
from roundoff.report.figures import Plot

#: Trees with more leaves are told in words, not drawn.
DRAWN = 32


Found = Mapping[tuple[str, str], Explanation]


def why_rows(found: Found) -> pd.DataFrame:
    """A row per problem, format, gradient, side and class of equal trees."""
    rows: list[dict[str, Any]] = []
    for (problem, _), why in found.items():
        for name, cause in why.causes.items():
            for k, (side, method) in enumerate(zip(cause.trees, why.names, strict=True)):
                swapped = f"{cause.swapped[k]}/{cause.swapped[2]}" if cause.swapped[2] else "–"
                common = {
                    "problem": problem, "format": str(why.format), "gradient": name, "method": method,
                    "equal": f"{cause.equal}/{cause.elements}", "swapped": swapped,
                    "tighter": cause.tighter[k],
                }  # fmt: skip
                if side is None or not side.classes:
                    reason = cause.refused or "not a fixed tree on this path"
                    nothing = {"outputs": 0, "terms": 0, "roundings": "", "replays": "–"}
                    rows.append({**common, **nothing, "tree": reason})
                    continue
                rows += [{**common, **_class(side, one)} for one in side.classes]
    return pd.DataFrame(rows)


def _class(side: Revealed, one: TreeClass) -> dict[str, Any]:
    return {
        "outputs": len(one.outputs),
        "terms": one.tree.n,
        "tree": order_in_words(side, one),
        "roundings": roundings(one.tree),
        "replays": f"{one.matched}/{one.replayed}",
    }


def why_tables(found: Found) -> Iterable[Table]:
    """The trees of the real kernels, a table per problem."""
    if not found:
        return
    rows = why_rows(found)
    explained = (
        "recovered by probing: outputs that share one, non-zero terms, the order, roundings; replays of the "
        "tree in software that give the kernel's bits (64 random data sets and the study's own); bits equal: "
        "of the two methods' gradients; swapped: elements for which this method's terms, added in the "
        "other's tree, give exactly the other's bits; tighter: how many times smaller the bound along the "
        "tree is than that for any order (median)."
    )
    for k, (problem, part) in enumerate(rows.groupby("problem", sort=False), 1):
        yield Table(
            name=f"why_{k}",
            caption=f"The real kernels' reduction trees at seed 0, {problem}"
            + (f"; {explained}" if k == 1 else "."),
            frame=part.reset_index(drop=True),
            columns={
                "format": "format", "gradient": "gradient", "method": "method", "outputs": "outputs",
                "terms": "terms", "tree": "order of the real kernel", "roundings": "roundings",
                "replays": "replays", "equal": "bits equal", "swapped": "swapped", "tighter": "tighter",
            },
            show={"method": lambda name: name.replace("_", " ")},
            group="format",
            size=5.8,
        )  # fmt: skip


def why_notes(found: Found) -> list[tuple[str, str]]:
    """A sentence per problem and format in which something differs."""
    texts = [
        f"{problem}, {format}: {why.sentence}".replace("_", " ")
        for (problem, format), why in found.items()
        if any(cause.equal < cause.elements for cause in why.causes.values())
    ]
    if not found:
        return []
    if not texts:
        return [("Why do the bits differ?", "On this machine, at seed 0, they do not.")]
    return [("Why do the bits differ?", " ".join(texts))]


def why_figure(found: Found) -> list[Plot]:
    """Both sides' trees of the first gradient whose bits differ, where they are small enough to draw."""
    candidates: list[tuple[bool, int, Explanation, Cause]] = []
    for why in found.values():
        for cause in why.causes.values():
            sides = cause.trees
            if all(s is not None and s.classes and s.classes[0].tree.n <= DRAWN for s in sides):
                candidates.append((cause.equal == cause.elements, len(candidates), why, cause))
    if not candidates:
        return []
    _, _, why, cause = min(candidates, key=lambda c: c[:2])
    frames = []
    for side, method in zip(cause.trees, why.names, strict=True):
        assert side is not None
        kernel = max(side.classes, key=lambda c: len(c.outputs)).tree
        panel = f"{method.replace('_', ' ')}: {cause.name}, {why.format}"
        frames.append(tree_rows(kernel, panel, side.products))
    return [figures.trees(pd.concat(frames, ignore_index=True))]


def tree_rows(kernel: KernelTree, panel: str, products: bool, seed: int = 0) -> pd.DataFrame:
    """The nodes of a tree with the roundings of one random sum, for `figures.trees`."""
    n = kernel.n
    generator = np.random.default_rng([seed, n])
    x, y = round_to(generator.standard_normal((2, n)), kernel.format)
    values, errors = partial_sums(kernel, x, y if products else None)
    parent = np.full(2 * n - 1, -1)
    for k, pair in enumerate(kernel.tree.children):
        parent[pair] = n + k
    scale = kernel.accumulate.u * np.where(values == 0, 1.0, np.abs(values))
    return pd.DataFrame(
        {
            "panel": panel, "node": np.arange(2 * n - 1), "parent": parent,
            "leaf": np.where(np.arange(2 * n - 1) < n, np.arange(2 * n - 1), -1),
            "height": kernel.tree.levels, "error": errors / scale,
        }
    )  # fmt: skip
