"""A tree with its roundings, from what probes show; of several that it may be, the one whose replay fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from roundoff.arguments import whole
from roundoff.numbers.formats import FLOAT32, Format
from roundoff.probing import flags
from roundoff.probing.gate import TRIALS, same
from roundoff.probing.kernel_tree import KernelTree, from_nodes
from roundoff.probing.probe_values import Masks
from roundoff.probing.recovery import Ids
from roundoff.words import counted

Array = npt.NDArray[np.float64]

#: Data sets that are kept at a time by the gate.
MOST_TRIALS = 1 << 16


def check_trials(trials: int) -> None:
    """Raise ArgumentError for too few or too many trials."""
    whole("trials", trials, TRIALS, MOST_TRIALS)


def kernel_tree(
    nodes: Sequence[Sequence[int]],
    leaves: Ids,
    numbers: Masks,
    format: Format,
    plain: flags.SettableTerms,
    products: flags.SettableTerms | None,
    thorough: bool,
) -> KernelTree:
    """The tree of these nodes with its roundings; products: for reductions that multiply."""
    tree, joined = from_nodes(nodes, leaves)
    narrow, wide = np.ones(len(joined), bool), format
    if numbers.wide != format:
        narrow = flags.narrow(tree, numbers.small, plain, thorough)
        # Of two terms the one addition is the last: what keeps it does not show, but hardware
        # multiplies and adds 16-bit numbers in float32.
        if not narrow.all() or (tree.n == 2 and numbers.wide == FLOAT32):
            wide = numbers.wide
    fused = flags.fused(tree, numbers.near, products) if products else np.zeros(tree.n, bool)
    kept = flags.kept(tree, joined, plain) if joined.any() else 0
    return KernelTree(tree, fused, joined, narrow, format, wide, kept=kept)


def fitting(
    tree: KernelTree, replayed: Callable[[KernelTree], Array], results: Array
) -> KernelTree | None:
    """The tree if its replay gives the results; a mean is tried with all ways to divide."""
    tries = [tree, replace(tree, truncated=True)] if tree.joined.any() else [tree]
    if tree.divisor:
        wide = replace(tree, narrow=np.append(tree.narrow[:-1], False))
        tries = [replace(one, reciprocal=r) for one in (tree, wide) for r in (False, True)]
    return next((one for one in tries if same(replayed(one), results).all()), None)


def not_replayed(tree: KernelTree, equal: npt.NDArray[np.bool_]) -> str:
    """Why such a tree is refused; equal: which replays gave the kernel's bits."""
    return (
        f"a tree of {counted(tree.n, 'term')}, {_short(tree)}: {int(equal.sum())} of "
        f"{counted(equal.size, 'replay')} equal"
    )


def _short(tree: KernelTree) -> str:
    text = str(tree)
    return text if len(text) <= 60 else text[:57] + "..."
