"""`reveal`: the trees of a reduction that is called directly, on vectors of chosen numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import instance, whole
from roundoff.locks import TORCH
from roundoff.orders import MOST_LEAVES
from roundoff.probing import flags
from roundoff.probing.direct_calls import Direct
from roundoff.probing.gate import TRIALS, direct_trials, replay_direct, same
from roundoff.probing.kernel_tree import KernelTree
from roundoff.probing.probe_values import refuse_flushing
from roundoff.probing.recovery import Ids, NotATree, recover
from roundoff.probing.revealed import Revealed, TreeClass, merged
from roundoff.probing.trees_from_probes import (
    check_trials,
    fitting,
    kernel_tree,
    not_replayed,
)
from roundoff.words import called

Array = npt.NDArray[np.float64]


@TORCH
def reveal(
    callable: Callable[..., Any],
    n: int,
    dtype: Any = "float32",
    *,
    trials: int = TRIALS,
    seed: int = 0,
) -> Revealed:
    """The reduction trees of a callable of one vector of n terms, or of two whose products it adds.

    It must be linear in its terms: sum, mean, dot, cumsum, a matrix product with ones.  dtype: a torch
    dtype (or a format's name) for torch tensors, a NumPy dtype for arrays.  Every output has a tree.
    A tree is proven by `trials` random data sets on which its replay in software equals the kernel's
    result bit for bit; nothing less is reported as a tree.

    Raises: ArgumentError for what cannot be called with such vectors; UnsupportedError for formats that
    cannot be probed.
    Source: Xie and others 2025, FPRev, USENIX ATC, for the counts.

    >>> import numpy as np
    >>> str(reveal(np.sum, 4, np.float64).tree)
    '((0+1)+2)+3'
    """
    instance("the reduction", callable, Callable, "a function")
    whole("n", n, 1, MOST_LEAVES)
    check_trials(trials)
    whole("seed", seed, 0)
    what = called(callable, "the reduction")
    try:
        kernel = Direct(callable, int(n), dtype)
    except NotATree as error:
        return Revealed((), (str(error),), np.arange(1), (), trials, 0, what)
    refuse_flushing(kernel.format)
    x, y, results = direct_trials(kernel, trials, seed)
    classes: list[TreeClass] = []
    failures: list[str] = []
    unproven: list[int] = []
    for output, leaves in enumerate(kernel.members):
        found, failure = _direct_class(kernel, output, leaves, classes, (x, y, results[:, output]))
        if found is None:
            failures.append(failure)
            unproven.append(output)
        else:
            classes.append(TreeClass(found, leaves, np.array([output]), len(x), len(x)))
    return Revealed(
        tuple(merged(classes)), tuple(failures), np.array(unproven, np.int64), kernel.shape, len(x),
        kernel.calls, what, kernel.products, terms=int(n),
    )  # fmt: skip


def _direct_class(
    kernel: Direct, output: int, leaves: Ids, known: Sequence[TreeClass], data: Any
) -> tuple[KernelTree | None, str]:
    """The proven tree of one output, one that is known already if it will do; else why there is none."""
    x, y, results = data

    def replayed(tree: KernelTree) -> Array:
        return replay_direct(tree, leaves, x, y)

    for one in known:
        if np.array_equal(one.leaves, leaves) and same(replayed(one.tree), results).all():
            return one.tree, ""
    try:
        for thorough in (False, True):
            tree = _direct_tree(kernel, output, leaves, thorough)
            found = fitting(tree, replayed, results)
            if found is not None:
                return found, ""
    except NotATree as error:
        return None, str(error)
    return None, not_replayed(tree, same(replayed(tree), results))


def _direct_tree(kernel: Direct, output: int, leaves: Ids, thorough: bool) -> KernelTree:
    if not len(leaves):
        raise NotATree(f"output {output} depends on no term")
    nodes = recover(leaves, lambda q: kernel.ask(q, output), kernel.most) if len(leaves) > 1 else []

    def probing(probes: flags.Probes) -> Array:
        return kernel.probe(replace(probes, leaves=leaves[probes.leaves]), output)

    products = probing if kernel.products else None
    tree = kernel_tree(nodes, leaves, kernel.masks, kernel.format, probing, products, thorough)
    return replace(tree, divisor=kernel.divisor)
