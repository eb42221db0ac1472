"""Kernel trees: a reduction tree and where it rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.formats import Format
from roundoff.orders import ReductionTree

Ids = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class KernelTree:
    """A reduction tree and the roundings of the kernel that it was recovered from.

    fused, per leaf: its product is not rounded to `format` before its addition; where sums are kept in the
    format that is a fused multiply-add.  narrow, per addition: its result is rounded to `format`,
    otherwise to `accumulate`.  The result is rounded to `format`.
    joined, per addition: it is part of the next one, which adds several terms at once: they are aligned to
    the largest of them, cut off below its leading bit and `kept` more, added exactly and rounded
    (truncated: toward zero), as tensor cores do (Fasi, Higham, Mikaitis and Pranesh 2021).
    divisor: what the sum is divided by at the end (a mean), or None; reciprocal: it is multiplied by the
    rounded 1 / divisor instead.

    Shapes: fused (n,); joined and narrow (n - 1,).
    """

    tree: ReductionTree
    fused: Flags
    joined: Flags
    narrow: Flags
    format: Format
    accumulate: Format
    divisor: int | None = None
    reciprocal: bool = False
    kept: int = 0
    truncated: bool = False

    @property
    def n(self) -> int:
        """The number of leaves."""
        return self.tree.n

    @property
    def exact_products(self) -> bool:
        """Whether every product of two numbers of the format is one of `accumulate`, range apart."""
        return self.accumulate.precision >= 2 * self.format.precision

    def same_as(self, other: KernelTree) -> bool:
        """Whether both add the same terms in the same tree with the same roundings."""
        names: dict[Any, int] = {}
        return (
            (self.n, self.format, self.accumulate) == (other.n, other.format, other.accumulate)
            and (self.divisor, self.reciprocal) == (other.divisor, other.reciprocal)
            and (self.kept, self.truncated) == (other.kept, other.truncated)
            and _root(self, names) == _root(other, names)
        )

    def permute(self, order: Ids) -> KernelTree:
        """The same tree with leaf order[i] where leaf i was."""
        fused = np.empty_like(self.fused)
        fused[order] = self.fused
        return replace(self, tree=self.tree.permute(order), fused=fused)

    def __str__(self) -> str:
        return str(self.tree)


def _root(kernel: KernelTree, names: dict[Any, int]) -> int:
    """One number for the whole tree; nodes of several terms are taken as one."""
    n = kernel.n
    found: list[Any] = [
        names.setdefault((k, bool(f)), len(names)) for k, f in enumerate(kernel.fused)
    ]
    for k, pair in enumerate(kernel.tree.children.tolist()):
        parts: list[int] = []
        for child in pair:
            part = found[child]
            parts += part if isinstance(part, list) else [part]
        if kernel.joined[k]:
            found.append(parts)
        else:
            key = ("sum", tuple(sorted(parts)), bool(kernel.narrow[k]))
            found.append(names.setdefault(key, len(names)))
    return found[-1] if n else -1


def plain(tree: ReductionTree, format: Format, accumulate: Format | None = None) -> KernelTree:
    """A tree of rounded products and additions."""
    none = np.zeros(len(tree.children), bool)
    return KernelTree(tree, np.zeros(tree.n, bool), none, none, format, accumulate or format)


def from_nodes(nodes: Sequence[Sequence[int]], leaves: Ids) -> tuple[ReductionTree, Flags]:
    """The binary tree of nodes with several children, leaves renumbered in order, and its joined sums."""
    number = {leaf: k for k, leaf in enumerate(leaves.tolist())}
    n = len(number)
    top: list[int] = []
    pairs: list[tuple[int, int]] = []
    joined: list[bool] = []
    for children in nodes:
        ids = [number[c] if c >= 0 else top[~c] for c in children]
        total = ids[0]
        for k, child in enumerate(ids[1:]):
            pairs.append((total, child))
            joined.append(k < len(ids) - 2)
            total = n + len(pairs) - 1
        top.append(total)
    return ReductionTree(n, np.array(pairs, np.int64).reshape(-1, 2)), np.array(joined, bool)
