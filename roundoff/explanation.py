"""Why the bits of two functions' gradients differ: real reduction trees, replayed with each other's terms."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from roundoff import provenance
from roundoff.errors import ArgumentError, UnsupportedError
from roundoff.formats import Format
from roundoff.native import threads
from roundoff.orders.patterns import describe, parting, pattern
from roundoff.probing import KernelTree, Revealed, TreeClass
from roundoff.probing.gate import TRIALS, same
from roundoff.probing.gradient import Gradients, Reduction
from roundoff.probing.recovery import Ids
from roundoff.probing.replay import replay, terms_of
from roundoff.probing.revealed import check_trials, own_upstream, revealed_gradient
from roundoff.probing.tightness import along_tree, any_order

Array = npt.NDArray[np.float64]

#: Operations that move or allocate.
PLUMBING = tuple(
    """detach empty view resize as_strided zero fill copy clone to_copy unsqueeze squeeze contiguous slice
    narrow select reshape alias item local_scalar transpose permute expand resolve""".split()
)


@dataclass(frozen=True, eq=False)
class Cause:
    """What is known of one gradient.

    equal: how many elements of the two gradients have the same bits; common: the same under one upstream
    gradient, the first function's; elements: how many there are.  trees: what was recovered of each side
    (None where it could not be asked, with the reason in `refused`).  terms_alike: whether both add
    the same products; swapped: of the elements whose terms are the same, how many each side's terms
    give the other side's bits for, added in the other's tree: (first in second's, second in first's, of).
    parts: where the trees part first; alone: each side's order with one thread, where that is another.
    tighter: how many times smaller the bound along each side's tree is than that for any order, median.
    """

    name: str
    elements: int
    equal: int
    common: int
    trees: tuple[Revealed | None, Revealed | None]
    refused: str
    terms_alike: bool
    swapped: tuple[int, int, int]
    parts: str
    alone: tuple[str, str]
    tighter: tuple[float, float]
    kernels: tuple[tuple[str, ...], tuple[str, ...]]

    @property
    def proven(self) -> bool:
        """Whether both sides' trees are proven, and each gives the other's bits in the other's tree."""
        forth, back, of = self.swapped
        known = all(side is not None and side.proven for side in self.trees)
        return known and self.terms_alike and forth == back == of == self.elements


@dataclass(frozen=True, eq=False)
class Explanation:
    """Why the gradients of two functions differ in their bits; print it.

    forward: how many elements of the outputs have the same bits, and how many there are; trees: per
    gradient, what was recovered of both sides; environment: what else the kernels depend on.
    """

    names: tuple[str, str]
    format: Format
    forward: tuple[int, int]
    causes: Mapping[str, Cause]
    environment: Mapping[str, str]

    @property
    def proven(self) -> bool:
        """Whether every gradient's trees are proven on both sides, and account for every bit."""
        return all(cause.proven for cause in self.causes.values())

    @property
    def trees(self) -> dict[str, tuple[Revealed | None, Revealed | None]]:
        """Per gradient, the trees of both sides with the outputs that share them."""
        return {name: cause.trees for name, cause in self.causes.items()}

    @property
    def sentence(self) -> str:
        """The answer, for a newcomer."""
        return _sentence(self)

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def explain(
    first: Callable[..., Any],
    second: Callable[..., Any],
    *,
    inputs: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    loss: Callable[..., Any] | None = None,
    upstream: Any = None,
    format: Any = "float32",
    output: Any = None,
    device: Any = "cpu",
    names: tuple[str, str] | None = None,
    trials: int = TRIALS,
    seed: int = 0,
) -> Explanation:
    """Why two functions of the same inputs give gradients with different bits, on this machine.

    The outputs are compared first: where they differ, so do the upstream gradients that a loss sends
    back.  Then both gradients are taken under one upstream gradient, and the reduction trees of the
    kernels that PyTorch ran are recovered and proven (see `reveal_gradient`).  At last each side's terms
    are added in the other side's tree: if that gives exactly the other side's bits, the order is the whole
    reason.  Arguments are those of `compare`, for one format; names: of the two, for print.

    Raises: ArgumentError for arguments that do not fit; UnsupportedError for formats that cannot be
    probed.
    """
    check_trials(trials)
    if loss is not None and upstream is not None:
        raise ArgumentError("both loss and upstream are given; give one of them")
    sides = tuple(
        Gradients(function, inputs, wrt, format, device, output) for function in (first, second)
    )
    one, two = sides
    if one.out.shape != two.out.shape:
        raise ArgumentError(
            f"the outputs have shapes {tuple(one.out.shape)} and {tuple(two.out.shape)}; explain functions "
            "of equal output"
        )
    forward = int(same(_flat(one.out), _flat(two.out)).sum()), one.out.numel()
    upstreams = [_upstream(side, loss, upstream) for side in sides]
    own = [_gradients(side, values) for side, values in zip(sides, upstreams, strict=True)]
    common = [_gradients(side, upstreams[0]) for side in sides]
    causes = {}
    for name in one.wrt:
        found = [_revealed(side, name, upstreams[0], trials, seed) for side in sides]
        causes[name] = _cause(name, sides, found, upstreams[0], own, common)
    return Explanation(
        names or (_name(first, "first"), _name(second, "second")),
        one.format,
        forward,
        causes,
        _environment(sides),
    )


def _name(function: Any, otherwise: str) -> str:
    name = getattr(function, "__name__", otherwise)
    return otherwise if name == "<lambda>" else str(name)


def _flat(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.detach().double().cpu().numpy(), np.float64).ravel()


def _upstream(side: Gradients, loss: Any, upstream: Any) -> Array:
    """The gradient that reaches the function's output."""
    if loss is None:
        return own_upstream(side, upstream)
    out = side.out.detach().requires_grad_()
    value = loss(out)
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise ArgumentError("the loss is no scalar; return one number")
    (found,) = torch.autograd.grad(value, out)
    return _flat(found)


def _gradients(side: Gradients, upstream: Array) -> dict[str, Array]:
    side.restore()
    side.forward()
    side.upstream.put(upstream)
    return {name: side.backward(name) for name in side.wrt}


def _revealed(
    side: Gradients, name: str, upstream: Array, trials: int, seed: int
) -> tuple[Revealed | None, Reduction | None, str]:
    try:
        return revealed_gradient(side, name, upstream, trials, seed), Reduction(side, name), ""
    except UnsupportedError as error:
        return None, None, str(error)


def _cause(
    name: str,
    sides: Sequence[Gradients],
    found: Sequence[tuple[Revealed | None, Reduction | None, str]],
    upstream: Array,
    own: Sequence[Mapping[str, Array]],
    common: Sequence[Mapping[str, Array]],
) -> Cause:
    trees = found[0][0], found[1][0]
    refused = found[0][2] or found[1][2]
    alike, parts, tighter = False, "", (1.0, 1.0)
    swapped = (0, 0, 0)
    reductions = found[0][1], found[1][1]
    if trees[0] is not None and trees[1] is not None and reductions[0] and reductions[1]:
        swap = _Swap((trees[0], trees[1]), (reductions[0], reductions[1]), upstream)
        swap.run([side[name] for side in common])
        alike, parts, tighter = swap.alike, swap.parts, swap.tighter
        swapped = swap.matched[0], swap.matched[1], swap.of
    return Cause(
        name, len(own[0][name]), int(same(own[0][name], own[1][name]).sum()),
        int(same(common[0][name], common[1][name]).sum()), trees, refused, alike, swapped, parts,
        (_alone(sides[0], name, trees[0], upstream), _alone(sides[1], name, trees[1], upstream)), tighter,
        (_kernels(sides[0], upstream), _kernels(sides[1], upstream)),
    )  # fmt: skip


def _alone(side: Gradients, name: str, known: Revealed | None, upstream: Array) -> str:
    """The order with one thread, if there are as many blocks as threads and it is another; else nothing."""
    count = torch.get_num_threads()
    if count < 2 or known is None or not known.classes:
        return ""
    one = max(known.classes, key=lambda c: len(c.outputs))
    if not describe(one.tree.tree).startswith(f"{count} blocks of"):
        return ""
    with threads(1):
        found = revealed_gradient(side, name, upstream, TRIALS, 0)
    if not found.classes:
        return ""
    words = order_in_words(found, max(found.classes, key=lambda c: len(c.outputs)))
    return words if words != order_in_words(known, one) else ""


class _Swap:
    """Each side's terms in the other side's trees."""

    def __init__(
        self,
        trees: tuple[Revealed, Revealed],
        reductions: tuple[Reduction, Reduction],
        upstream: Array,
    ) -> None:
        self.trees, self.reductions, self.upstream = trees, reductions, upstream
        self.values = [r.factor_values(r.graph.own) for r in reductions]
        self.alike, self.of, self.parts = True, 0, ""
        self.matched = [0, 0]
        self.tighter = (1.0, 1.0)

    def run(self, results: Sequence[Array]) -> None:
        """Compare with both sides' own results under the common upstream gradient."""
        ratios: list[list[Array]] = [[], []]
        size = len(results[0])
        classes = [np.full(size, -1, np.int64) for _ in self.trees]
        for at, known in zip(classes, self.trees, strict=True):
            for number, one in enumerate(known.classes):
                at[one.outputs] = number
        kinds = np.stack(classes)
        for pair in np.unique(kinds[:, (kinds >= 0).all(axis=0)], axis=1).T.tolist():
            elements = np.flatnonzero((kinds == np.array(pair)[:, None]).all(axis=0))
            chosen = [side.classes[k] for side, k in zip(self.trees, pair, strict=True)]
            keys = [
                r.keys(elements, one.leaves) for r, one in zip(self.reductions, chosen, strict=True)
            ]
            order = _matching(keys[0], keys[1])
            if order is None:
                self.alike = False
                continue
            # Leaf k of the first side is leaf order[k] of the second.
            trees = chosen[0].tree, chosen[1].tree.permute(np.argsort(order))
            self.of += len(elements)
            for k in (0, 1):  # the terms of side k in the tree of the other
                found = replay(trees[1 - k], self._factors(trees[1 - k], keys[0]))
                self.matched[k] += int(same(found, results[1 - k][elements]).sum())
            if not self.parts and not trees[0].same_as(trees[1]):
                self.parts = (
                    parting(trees[0].tree, trees[1].tree) or "the same additions, rounded otherwise"
                )
            magnitudes, products = self._magnitudes(keys[0])
            for k, tree in enumerate(trees):
                wide = any_order(tree, magnitudes, products)
                along = np.minimum(along_tree(tree, magnitudes, products), wide)
                ratios[k].append(np.where(along > 0, wide / np.where(along > 0, along, 1.0), 1.0))
        missing = size - int((kinds >= 0).all(axis=0).sum())
        self.alike = self.alike and self.of > 0
        zero = all(bool((r.terms.rows[(kinds < 0).any(axis=0)] < 0).all()) for r in self.reductions)
        if missing and zero:  # elements without terms are zero on both sides
            self.of += missing
            self.matched = [m + missing for m in self.matched]
        medians = [float(np.median(np.concatenate(r))) if r else 1.0 for r in ratios]
        self.tighter = medians[0], medians[1]

    def _factors(self, tree: KernelTree, key: tuple[Ids, Ids]) -> Any:
        upstream, other = key
        x = terms_of(tree, self.upstream[upstream - 1].T)
        if (other < 0).all():
            return lambda k: (x[k], None)
        y = terms_of(tree, self._other(other).T)
        return lambda k: (x[k], y[k])

    def _other(self, ids: Ids) -> Array:
        found: Array = np.where(ids > 0, self.values[0][np.maximum(ids - 1, 0)], 1.0)
        return found

    def _magnitudes(self, key: tuple[Ids, Ids]) -> tuple[Array, bool]:
        upstream, other = key
        return np.abs(self.upstream[upstream - 1] * self._other(other)).T, bool((other > 0).any())


def _matching(first: tuple[Ids, Ids], second: tuple[Ids, Ids]) -> Ids | None:
    """Where the first side's leaves stand on the second; None where the terms are not the same.

    Shapes: both (elements, leaves); one order for all elements.
    """
    if first[0].shape != second[0].shape:
        return None
    here, there = np.lexsort((first[1][0], first[0][0])), np.lexsort((second[1][0], second[0][0]))
    order = np.empty_like(here)
    order[here] = there
    equal = all((a == b[:, order]).all() for a, b in zip(first, second, strict=True))
    return order if equal else None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Nothing to standard error: PyTorch's profiler writes there when it starts and stops."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _kernels(side: Gradients, upstream: Array) -> tuple[str, ...]:
    """What PyTorch's profiler names in one backward pass, the costliest first."""
    side.upstream.put(upstream)
    remote = side.upstream.tensor.is_cuda
    with (
        _silent(),
        torch.autograd.profiler.profile(
            use_kineto=remote, use_device="cuda" if remote else None
        ) as profile,
    ):
        side.backward(side.wrt[0])
    names = [
        (event.self_cpu_time_total, event.key)
        for event in profile.key_averages()
        if event.key.startswith("aten::")
        and not event.key.removeprefix("aten::").strip("_").startswith(PLUMBING)
        and event.key not in ("aten::t", "aten::to")
    ]
    return tuple(name for _, name in sorted(names, reverse=True)[:4])


def _environment(sides: Sequence[Gradients]) -> dict[str, str]:
    """What a kernel's tree depends on, the shapes apart."""
    found = {
        "torch": provenance.versions()["torch"],
        "threads": str(torch.get_num_threads()),
        **{k: v for k, v in provenance.machine().items() if k in ("processor", "CPU capability")},
        **{k: v for k, v in provenance.environment().items() if k != "variables"},
    }
    for name, buffer in sides[0].buffers.items():
        tensor = buffer.tensor
        found[f"layout of {name}"] = (
            f"strides {tuple(tensor.stride())}, {tensor.data_ptr() % 64} bytes past a multiple of 64"
        )
    return found


# ------------------------------------------------------------------------------------------ words


def _sentence(why: Explanation) -> str:
    one, two = why.names
    apart = [c for c in why.causes.values() if c.equal < c.elements]
    if not apart:
        return f"There is nothing to explain: in {why.format} all gradients of {one} and {two} are equal."
    texts = []
    equal, of = why.forward
    if equal < of:
        texts.append(
            f"The outputs of {one} and {two} differ in {of - equal} of {of} elements already, and so does "
            "what the loss sends back."
        )
    after = [c for c in apart if c.common < c.elements]
    fine = [c for c in apart if c.common == c.elements]
    if fine:
        texts.append(
            f"Under one upstream gradient the {_listed(c.name for c in fine)} gradients are equal in every "
            "bit: the outputs are the only cause."
        )
    proven = [c for c in after if c.proven]
    if proven:
        what = f"{_listed(c.name for c in proven)} gradient{'s' * (len(proven) > 1)}"
        texts.append(
            f"For the {what} both add the very same numbers in different orders, and rounding depends on the "
            "order: added in the other's order, each gives exactly the other's bits."
        )
        orders = [_largest(side) for side in proven[0].trees]
        if orders[0] != orders[1]:
            texts.append(f"{one} adds {orders[0]}; {two} {orders[1]}.")
        for method, alone in zip(why.names, proven[0].alone, strict=True):
            if alone:
                texts.append(
                    f"{method}'s sums are split over the threads: with one it adds {alone}."
                )
    for cause in after:
        if not cause.proven:
            texts.append(
                f"For the {cause.name} gradient the reason is not proven: {_missing(cause)}."
            )
    return " ".join(texts)


def _largest(side: Revealed | None) -> str:
    """The order that most elements are added in."""
    if side is None or not side.classes:
        return "in an order that is not known"
    one = max(side.classes, key=lambda c: len(c.outputs))
    return f"{one.tree.n} terms ({order_in_words(side, one)})"


def _missing(cause: Cause) -> str:
    if cause.refused:
        return cause.refused
    for side, which in zip(cause.trees, ("first", "second"), strict=True):
        if side is not None and not side.proven:
            return f"the {which} function's kernel follows no fixed tree that we could prove"
    if not cause.terms_alike:
        return "the two do not add the same products"
    forth, back, of = cause.swapped
    return f"in each other's trees, {forth} and {back} of {of} elements come out as the other's"


def _listed(names: Any) -> str:
    found = list(names)
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"


def _lines(why: Explanation) -> list[str]:
    lines = [why.sentence, ""]
    equal, of = why.forward
    lines.append(f"outputs: {equal} of {of} elements equal in {why.format}")
    for cause in why.causes.values():
        lines += ["", f"gradient by {cause.name}: {cause.equal} of {cause.elements} elements equal; "
                  f"{cause.common} under one upstream gradient"]  # fmt: skip
        if cause.refused:
            lines.append(f"  {cause.refused}")
            continue
        for name, side, kernels, tighter, alone in zip(
            why.names, cause.trees, cause.kernels, cause.tighter, cause.alone, strict=True
        ):
            lines += _side(name, side, kernels, tighter)
            if alone:
                lines.append(
                    f"    split over {torch.get_num_threads()} threads: with one thread it adds {alone}"
                )
        forth, back, of = cause.swapped
        if of:
            lines.append(
                f"  swapped: {why.names[0]}'s terms in {why.names[1]}'s trees give its bits for {forth} of "
                f"{of} elements, the other way round {back} of {of}"
            )
        if cause.parts:
            lines.append(f"  where they part: {cause.parts}")
    lines += ["", "; ".join(f"{key} {value}" for key, value in why.environment.items())]
    return lines


def _side(name: str, side: Revealed | None, kernels: Sequence[str], tighter: float) -> list[str]:
    if side is None:
        return []
    head, *rest = str(side).split("\n")
    lines = [f"  {name}: {head}", f"    kernels: {', '.join(kernels)}"]
    if not side.proven:
        lines += [f"  {line}" for line in rest if "tried" in line]
    for one in side.classes:
        lines.append(
            f"    {len(one.outputs)} elements of {one.tree.n} terms: {order_in_words(side, one)}"
        )
        text = str(one.tree) if one.tree.n <= 32 else pattern(one.tree.tree)
        lines.append(f"      {text if len(text) <= 300 else text[:297] + '...'}")
        lines.append(f"      {roundings(one.tree)}")
    if side.classes:
        lines.append(
            f"    the bound along this tree is {tighter:.3g} times smaller than that for any order"
        )
    return lines


def order_in_words(side: Revealed, one: TreeClass) -> str:
    """The order of a class; blocks that are the samples of the batch are called so."""
    text = describe(one.tree.tree)
    count = side.batch
    if count and count > 1 and text.startswith(f"{count} blocks of {one.tree.n // count},"):
        return text.replace(f"{count} blocks", f"{count} samples", 1).replace(
            "; the blocks", "; the samples"
        )
    return text


def roundings(kernel: KernelTree) -> str:
    """How the kernel rounds, in words."""
    texts = []
    if kernel.accumulate != kernel.format:
        inner = int(kernel.narrow[:-1].sum())
        texts.append(f"sums kept in {kernel.accumulate}")
        if inner:
            texts.append(f"{inner} of {len(kernel.narrow)} partial sums rounded to {kernel.format}")
    fused = int(kernel.fused.sum())
    if fused and not kernel.exact_products:
        texts.append(f"{fused} of {kernel.n} products in a fused multiply-add")
    elif not kernel.exact_products:
        texts.append("rounded after every operation")
    if kernel.joined.any():
        texts.append(f"nodes of several terms, kept to {kernel.kept} bits below the largest")
    return "; ".join(texts) or f"every sum rounded to {kernel.accumulate}"
