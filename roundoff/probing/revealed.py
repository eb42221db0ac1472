"""The reduction trees of real kernels: recovered by probing, proven by replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import instance, whole
from roundoff.errors import ArgumentError, UndecidedError
from roundoff.gradients.inputs import float64_array
from roundoff.locks import TORCH
from roundoff.numbers.formats import FLOAT32, Format, round_to
from roundoff.orders import MOST_LEAVES, ReductionTree
from roundoff.probing import flags
from roundoff.probing.direct_calls import Direct
from roundoff.probing.gate import TRIALS, GradientTrials, direct_trials, replay_direct, same
from roundoff.probing.gradient_reductions import Alike, Gradients, Probing, Reduction
from roundoff.probing.kernel_tree import KernelTree, from_nodes, roundings
from roundoff.probing.probe_values import Masks, refuse_flushing
from roundoff.probing.recovery import Ids, NotATree, recover
from roundoff.trace.capture import as_tensor
from roundoff.words import called, counted

Array = npt.NDArray[np.float64]

#: Data sets that are kept at a time by the gate.
MOST_TRIALS = 1 << 16

#: Different trees of one gradient that are looked for before giving up.
MOST_CLASSES = 64


@dataclass(frozen=True, eq=False)
class TreeClass:
    """Outputs that share one tree.

    tree: over the terms that are present; leaves: their places among all terms of the reduction,
    structural zeros counted; outputs: element numbers in C order; matched: how many of the `replayed`
    results, trials times outputs, the replay gave bit for bit.
    """

    tree: KernelTree
    leaves: Ids
    outputs: Ids
    replayed: int
    matched: int

    @property
    def proven(self) -> bool:
        """Whether every replay gave the kernel's bits."""
        return self.matched == self.replayed > 0


@dataclass(frozen=True, eq=False)
class Revealed:
    """What was recovered of a reduction.

    classes: proven trees with their outputs; failures: why outputs are in none; trials: random data
    sets that every output was replayed on, the user's own not counted; calls: runs of the kernel;
    products: whether terms are products; batch: the length of a gradient's first axis upstream; terms: the
    length of the vectors of a callable, 0 for a gradient.

    Shapes: the outputs of all classes are element numbers of `shape` in C order.
    """

    classes: tuple[TreeClass, ...]
    failures: tuple[str, ...]
    unproven: Ids
    shape: tuple[int, ...]
    trials: int
    calls: int
    what: str = "the reduction"
    products: bool = False
    batch: int | None = None
    terms: int = 0

    @property
    def proven(self) -> bool:
        """Whether every output has a tree, and every replay of it gave the kernel's bits."""
        return not self.failures and not len(self.unproven)

    @property
    def tree(self) -> ReductionTree:
        """The tree, where all outputs share one: the order alone; the roundings are in `kernel` and `replay`.

        Raises: UndecidedError where there are several, or none is proven.
        """
        return self.kernel.tree

    @property
    def kernel(self) -> KernelTree:
        """The tree with its roundings, where all outputs share one.  Raises: as `tree`."""
        if not self.proven:
            raise UndecidedError(str(self))
        if len(self.classes) != 1:
            raise UndecidedError(
                f"the outputs have {len(self.classes)} different trees; look at them in `classes`"
            )
        return self.classes[0].tree

    def replay(self, x: Any, y: Any = None) -> Array:
        """What the callable that was revealed returns for these vectors: every rounding, bit for bit.

        That is for contiguous vectors at the start of their memory, as the revealed ones were: a kernel may
        add a row that starts off the alignment in another order.
        y: the second vector, of reductions that multiply.

        Shapes: x, y (..., n); the result is (..., *shape of what the callable returns).
        Raises: UndecidedError where an output has no proven tree; ArgumentError for vectors that do not
        fit, for numbers that are not of the kernel's format, and for what `reveal_gradient` returned, whose
        terms are products of several tensors.
        """
        if not self.terms:
            raise ArgumentError(
                f"{self.what} adds products of its upstream gradient and an input; only what `reveal` "
                "returned can be replayed"
            )
        if not self.proven:
            raise UndecidedError(str(self))
        given = [
            np.asarray(float64_array(as_tensor(n, v)))
            for n, v in (("x", x), ("y", y))
            if v is not None
        ]
        format = self.classes[0].tree.format
        for name, values in zip("xy", given, strict=False):
            if values.ndim < 1 or values.shape != (*given[0].shape[:-1], self.terms):
                raise ArgumentError(
                    f"{name} has shape {values.shape}; the last axis holds {counted(self.terms, 'term')}"
                )
            if not same(round_to(values, format), values).all():
                raise ArgumentError(
                    f"{name} holds numbers that are not of {format}; round them first"
                )
        if len(given) != 1 + self.products:
            raise ArgumentError(
                f"{self.what} takes {counted(1 + self.products, 'vector')}, not {len(given)}"
            )
        rows = [values.reshape(-1, self.terms) for values in given]
        found = np.empty((len(rows[0]), int(np.prod(self.shape, dtype=int))))
        for one in self.classes:
            result = replay_direct(
                one.tree, one.leaves, rows[0], rows[1] if self.products else None
            )
            found[:, one.outputs] = result[:, None]
        return found.reshape((*given[0].shape[:-1], *self.shape))

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        lines = []
        count = sum(c.replayed for c in self.classes)
        if self.proven:
            size = int(np.prod(self.shape, dtype=int))
            lines.append(
                f"{self.what}: proven, {counted(len(self.classes), 'tree')} for "
                f"{counted(size, 'output')}; {count} of {counted(count, 'replay')} equal bit for bit "
                f"({counted(self.trials, 'random trial')}), {counted(self.calls, 'kernel run')}"
            )
        else:
            lines.append(
                f"{self.what}: not a fixed tree on this path, for {len(self.unproven)} of "
                f"{counted(int(np.prod(self.shape, dtype=int)), 'output')}"
            )
            lines += [f"  tried: {failure}" for failure in dict.fromkeys(self.failures)]
        for one in self.classes:
            lines.append(
                f"  {counted(len(one.outputs), 'output')}, {counted(one.tree.n, 'term')}: {one.tree}"
            )
            lines.append(f"    {roundings(one.tree)}")
        return lines


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
        tuple(_merged(classes)), tuple(failures), np.array(unproven, np.int64), kernel.shape, len(x),
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
            found = _fitting(tree, replayed, results)
            if found is not None:
                return found, ""
    except NotATree as error:
        return None, str(error)
    return None, _not_replayed(tree, same(replayed(tree), results))


def check_trials(trials: int) -> None:
    """Raise for a gate that proves little."""
    whole("trials", trials, TRIALS, MOST_TRIALS)


def _merged(classes: Sequence[TreeClass]) -> list[TreeClass]:
    """Classes of equal trees over equal places as one."""
    found: list[TreeClass] = []
    for one in classes:
        for k, other in enumerate(found):
            if np.array_equal(one.leaves, other.leaves) and (
                one.tree is other.tree or one.tree.same_as(other.tree)
            ):
                found[k] = replace(
                    other,
                    outputs=np.sort(np.concatenate([other.outputs, one.outputs])),
                    replayed=other.replayed + one.replayed,
                    matched=other.matched + one.matched,
                )
                break
        else:
            found.append(one)
    return found


def _direct_tree(kernel: Direct, output: int, leaves: Ids, thorough: bool) -> KernelTree:
    if not len(leaves):
        raise NotATree(f"output {output} depends on no term")
    nodes = recover(leaves, lambda q: kernel.ask(q, output), kernel.most) if len(leaves) > 1 else []

    def probing(probes: flags.Probes) -> Array:
        return kernel.probe(replace(probes, leaves=leaves[probes.leaves]), output)

    products = probing if kernel.products else None
    tree = kernel_tree(nodes, leaves, kernel.masks, kernel.format, probing, products, thorough)
    return replace(tree, divisor=kernel.divisor)


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


def _fitting(
    tree: KernelTree, replayed: Callable[[KernelTree], Array], results: Array
) -> KernelTree | None:
    """The tree if its replay gives the results; a mean is tried with all ways to divide."""
    tries = [tree, replace(tree, truncated=True)] if tree.joined.any() else [tree]
    if tree.divisor:
        wide = replace(tree, narrow=np.append(tree.narrow[:-1], False))
        tries = [replace(one, reciprocal=r) for one in (tree, wide) for r in (False, True)]
    return next((one for one in tries if same(replayed(one), results).all()), None)


def _not_replayed(tree: KernelTree, equal: npt.NDArray[np.bool_]) -> str:
    return (
        f"a tree of {counted(tree.n, 'term')}, {_short(tree)}: {int(equal.sum())} of "
        f"{counted(equal.size, 'replay')} equal"
    )


def _short(tree: KernelTree) -> str:
    text = str(tree)
    return text if len(text) <= 60 else text[:57] + "..."


# ------------------------------------------------------------------------------------- gradients


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
        tuple(_merged(search.classes)), tuple(search.failures), unproven, reduction.terms.shape, ran,
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
                reason = _not_replayed(tree, equal)
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
