"""Reduction trees of common operations on this machine: rows for a report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from tqdm import tqdm

from roundoff.errors import UnsupportedError
from roundoff.gradients.native import threads
from roundoff.probing import Revealed, reveal, reveal_gradient


@dataclass(frozen=True, eq=False)
class Operation:
    """A reduction to look into: a callable of one or two vectors of n terms, or a gradient.

    inputs: a gradient's, rounded to the format; wrt: its name; dtype:
    turns a format's name into what `reveal` takes (NumPy's own dtype for its functions).
    """

    name: str
    function: Callable[..., Any]
    n: int
    inputs: Mapping[str, Any] | None = None
    wrt: str = ""
    dtype: Callable[[str], Any] = str

    def reveal(self, format: str, seed: int) -> Revealed:
        """The trees of one format, with torch's threads as they are."""
        if self.inputs is None:
            return reveal(self.function, self.n, self.dtype(format), seed=seed)
        return reveal_gradient(self.function, self.inputs, self.wrt, format, seed=seed)


def kernels(
    operations: Sequence[Operation], formats: Sequence[str], counts: Sequence[int], seed: int = 0
) -> list[tuple[dict[str, Any], Revealed | None]]:
    """Labels and what was revealed, per operation, format and number of threads.

    None where an operation does not exist in a format; the label has the reason.
    """
    cells = [(o, f, t) for o in operations for f in formats for t in counts]
    found: list[tuple[dict[str, Any], Revealed | None]] = []
    for operation, format, count in tqdm(cells, leave=False):
        label = {"operation": operation.name, "format": format, "threads": count, "reason": ""}
        try:
            with threads(count):
                one = operation.reveal(format, seed)
        except (UnsupportedError, RuntimeError, TypeError) as error:
            label["reason"] = str(error).split("\n")[0]
            found.append((label, None))
            continue
        found.append((label, one))
    return found


def kernel_rows(
    found: Sequence[tuple[dict[str, Any], Revealed | None]], describe: Any
) -> pd.DataFrame:
    """A row per class of equal trees; describe: a class's order and roundings in words."""
    rows: list[dict[str, Any]] = []
    for label, one in found:
        if one is None:
            continue
        common = {**label, "proven": one.proven, "calls": one.calls}
        for part in one.classes:
            order, roundings = describe(one, part)
            rows.append({
                **common, "outputs": len(part.outputs), "terms": part.tree.n, "height": part.tree.tree.height,
                "order": order, "roundings": roundings, "replays": f"{part.matched}/{part.replayed}",
            })  # fmt: skip
        if len(one.unproven):
            rows.append({
                **common, "outputs": len(one.unproven), "terms": 0, "height": 0, "replays": "–",
                "order": "not a fixed tree on this path", "roundings": "; ".join(set(one.failures)),
            })  # fmt: skip
    return pd.DataFrame(rows)
