"""Kernel trees: a reduction tree and where it rounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.numbers.formats import Format
from roundoff.orders import ReductionTree
from roundoff.words import counted

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


def differences(one: KernelTree, two: KernelTree) -> tuple[str, ...]:
    """In what two trees over the same leaves differ; a wider accumulator implies its products."""
    found = []
    names: dict[Any, int] = {}
    bare = [replace(k, fused=k.fused & False, narrow=k.narrow & False) for k in (one, two)]
    same_order = _root(bare[0], names) == _root(bare[1], names)
    if not same_order:
        found.append("order")
    if one.accumulate != two.accumulate:
        found.append("accumulator")
    else:
        for kind, flags in (("products", "narrow"), ("partial sums", "fused")):
            # The other flags are put aside; in another order only none can be told from some.
            left, right = (replace(k, **{flags: getattr(k, flags) & False}) for k in (one, two))
            kept = [k.fused if kind == "products" else k.narrow[:-1] for k in (one, two)]
            if same_order:
                apart = _root(left, names) != _root(right, names)
            else:
                apart = bool(kept[0].any() != kept[1].any())
            if apart:
                found.append(kind)
    if (one.divisor, one.reciprocal) != (two.divisor, two.reciprocal):
        found.append("division")
    if (one.kept, one.truncated) != (two.kept, two.truncated):
        found.append("alignment")
    return tuple(found)


def detail(kind: str, kernel: KernelTree) -> str:
    """What a kernel does of one kind of `differences`, as the rest of a sentence."""
    inner = int(kernel.narrow[:-1].sum())
    products = (
        f"has {int(kernel.fused.sum())} of {counted(kernel.n, 'product')} in a fused multiply-add"
        if kernel.fused.any()
        else "rounds every product"
    )
    told = {
        "accumulator": f"keeps its sums in {kernel.accumulate}",
        "products": products,
        "partial sums": f"rounds {inner} of {counted(len(kernel.narrow), 'partial sum')} to {kernel.format}",
        "division": _division(kernel) or "does not divide",
        "alignment": f"keeps {counted(kernel.kept, 'bit')} below the largest of several terms"
        + (", cut off" if kernel.truncated else ""),
    }
    return told[kind]


def _division(kernel: KernelTree) -> str:
    if kernel.divisor is None:
        return ""
    how = "multiplies the sum by the rounded 1 /" if kernel.reciprocal else "divides the sum by"
    return f"{how} {kernel.divisor}"


def roundings(kernel: KernelTree) -> str:
    """How the kernel rounds, in words: with the tree, all that its replay takes."""
    texts = []
    mixed = kernel.accumulate != kernel.format
    if mixed:
        texts.append(f"sums kept in {kernel.accumulate}")
        if kernel.narrow[:-1].any():
            inner = int(kernel.narrow[:-1].sum())
            texts.append(
                f"{inner} of {counted(len(kernel.narrow), 'partial sum')} rounded to {kernel.format}"
            )
    fused = int(kernel.fused.sum())
    if fused and not kernel.exact_products:
        texts.append(f"{fused} of {counted(kernel.n, 'product')} in a fused multiply-add")
    elif not kernel.exact_products:
        texts.append("rounded after every operation")
    if kernel.joined.any():
        texts.append(
            f"nodes of several terms, kept to {counted(kernel.kept, 'bit')} below the largest"
        )
        if kernel.truncated:
            texts.append("cut off toward zero")
    texts.append(_division(kernel))
    if mixed:
        texts.append(f"the result rounded to {kernel.format}")
    return "; ".join(filter(None, texts)) or f"every sum rounded to {kernel.accumulate}"


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
