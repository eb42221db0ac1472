"""`reveal_gradient`: the trees of the sums in one gradient, by way of the user's own autograd graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import instance, whole
from roundoff.errors import ArgumentError
from roundoff.gradients.inputs import float64_array
from roundoff.locks import TORCH
from roundoff.numbers.formats import round_to
from roundoff.probing.gate import TRIALS, GradientTrials
from roundoff.probing.gradient_reductions import Alike, Gradients, Probing, Reduction
from roundoff.probing.kernel_tree import KernelTree
from roundoff.probing.probe_values import refuse_flushing
from roundoff.probing.recovery import Ids, NotATree, recover
from roundoff.probing.revealed import Revealed, TreeClass, merged
from roundoff.probing.trees_from_probes import (
    check_trials,
    kernel_tree,
    not_replayed,
)
from roundoff.trace.users_function import as_tensor

Array = npt.NDArray[np.float64]

#: Different trees of one gradient that are looked for before giving up.
MOST_CLASSES = 64


@TORCH
def reveal_gradient(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    wrt: str,
    format: Any = "float32",
    *,
    upstream: Any = None,
    others: Sequence[str] | None = None,
    output: Any = None,
    device: Any = "cpu",
    trials: int = TRIALS,
    seed: int = 0,
) -> Revealed:
    """The reduction trees of every element of one gradient, as PyTorch computes it here and now.

    The gradient must add products of elements of the upstream gradient and of one input (a convolution,
    a linear layer, a bias, a sum); the user's autograd graph is run with the user's shapes, strides,
    alignment and thread count, and only numbers are replaced.  wrt: one input's name; others: the names
    that are differentiated in the same backward pass (default: all floating-point inputs).
    upstream: the user's own upstream gradient, one more data set for the gate (default: ones).

    Raises: ArgumentError for arguments that do not fit; UnsupportedError for gradients that are no such
    sums, and for formats that cannot be probed.
    """
    check_trials(trials)
    whole("seed", seed, 0)
    instance("wrt", wrt, str, "the name of one input")
    graph = Gradients(function, inputs, others, format, device, output)
    return revealed_gradient(graph, wrt, own_upstream(graph, upstream), trials, seed)


def own_upstream(graph: Gradients, upstream: Any) -> Array:
    """The user's upstream gradient, rounded to the format, flat; ones by default."""
    if upstream is None:
        return np.ones(len(graph.upstream.where))
    values = float64_array(as_tensor("upstream", upstream))
    if values.shape != tuple(graph.out.shape):
        raise ArgumentError(
            f"upstream has shape {values.shape}, the output {tuple(graph.out.shape)}; they must be equal"
        )
    found: Array = round_to(values.ravel(), graph.format)
    return found


def revealed_gradient(
    graph: Gradients, name: str, upstream: Array, trials: int, seed: int
) -> Revealed:
    """The trees of one gradient of a graph."""
    if name not in graph.wrt:
        raise ArgumentError(f"wrt names {name!r}; the gradients are by {', '.join(graph.wrt)}")
    refuse_flushing(graph.format)
    before = graph.calls
    reduction = Reduction(graph, name)
    search = _Search(reduction)
    for part in reduction.alike:
        search.group(part, lambda: GradientTrials(reduction, upstream, trials, seed))
    ran = trials if search.trials is None else len(search.trials.result) - 1
    unproven = np.concatenate([np.empty(0, np.int64), *search.unproven])
    return Revealed(
        tuple(merged(search.classes)), tuple(search.failures), unproven, reduction.terms.shape, ran,
        graph.calls - before, f"gradient by {name}", bool((reduction.terms.other > 0).any()),
        graph.out.shape[0] if graph.out.ndim else None,
    )  # fmt: skip


@dataclass(eq=False)
class _Search:
    """Trees for all elements, group by group."""

    reduction: Reduction
    classes: list[TreeClass] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    unproven: list[Ids] = field(default_factory=list)
    trials: GradientTrials | None = None

    def group(self, part: Alike, trials: Callable[[], GradientTrials]) -> None:
        """Trees for elements with the same terms present: one for all of them if it can be, then one each.

        All rows are asked different questions at once, as if their trees were equal; the gate tells which
        elements that is true of.  The others are asked again, without those.
        """
        left = part.elements
        single = False
        while len(left):
            if self.trials is None:
                self.trials = trials()
            asked = Alike(left[:1] if single else left, part.leaves)
            try:
                tree = gradient_tree(self.reduction.probing(asked), thorough=single)
                equal = self.trials.check(tree, part.leaves, left)
                if tree.joined.any() and not equal.all():
                    tree = replace(tree, truncated=True)
                    equal = self.trials.check(tree, part.leaves, left)
                good = equal.all(axis=0)
                reason = not_replayed(tree, equal)
            except NotATree as error:
                good, reason = np.zeros(len(left), bool), str(error)
            if good.any():
                count = int(good.sum()) * len(equal)
                self.classes.append(TreeClass(tree, part.leaves, left[good], count, count))
                left, single = left[~good], False
            elif not single:
                single = True
            else:
                self.failures.append(reason)
                self.unproven.append(left[:1])
                left = left[1:]
                single = True
            if len(self.classes) + len(self.failures) > MOST_CLASSES:
                self.failures.append(f"more than {MOST_CLASSES} different trees")
                self.unproven.append(left)
                return


def gradient_tree(probing: Probing, thorough: bool = False) -> KernelTree:
    """The tree of the elements that are asked, taken to be one."""
    leaves, numbers = probing.part.leaves, probing.masks
    count = np.arange(len(leaves))
    nodes = recover(count, probing.ask, numbers.most) if len(leaves) > 1 else []
    products = probing.products if probing.grid is not None else None
    return kernel_tree(
        nodes, count, numbers, probing.graph.format, probing.plain, products, thorough
    )
