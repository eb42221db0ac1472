"""Why the bits of two functions' gradients differ: real reduction trees, replayed with each other's terms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from roundoff.arguments import instance, whole
from roundoff.errors import ArgumentError, UnsupportedError
from roundoff.gradients.native import threads
from roundoff.judging.explanation.causes import Cause
from roundoff.judging.explanation.printed import order_in_words
from roundoff.judging.explanation.result import Explanation
from roundoff.judging.explanation.rounding_sources import sources_of
from roundoff.judging.explanation.surroundings import environment_of, kernels_of
from roundoff.judging.explanation.swap import Swap
from roundoff.locks import TORCH
from roundoff.orders.patterns import describe
from roundoff.probing import Revealed
from roundoff.probing.gate import TRIALS, same
from roundoff.probing.gradient_reductions import Gradients, Reduction
from roundoff.probing.gradient_trees import own_upstream, revealed_gradient
from roundoff.probing.kernel_tree import KernelTree, roundings
from roundoff.probing.trees_from_probes import check_trials
from roundoff.trace.checks import OUTPUT, check_problem
from roundoff.words import called, told_apart

__all__ = ["Cause", "Explanation", "explain", "order_in_words", "roundings"]

Array = npt.NDArray[np.float64]


@TORCH
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
    are added in the other side's tree, rounded as that is: if this gives exactly the other side's bits,
    what the trees differ in is the whole reason: the order of additions, the accumulator, the rounding of
    products or of partial sums.  Where trees cannot tell, the model of rounding does (see `attribute`): how
    far apart the two are, how large errors are expected to be, and which operations make them.

    Arguments are those of `compare`, for one format; names: of the two, for print.

    Raises: ArgumentError for arguments that do not fit; UnsupportedError for formats that cannot be
    probed.
    """
    check_trials(trials)
    whole("seed", seed, 0)
    for side in (first, second):
        check_problem(side, inputs, wrt, loss)
    if names is not None:
        for name in instance("names", names, tuple, "two words"):
            instance("a name", name, str, "a word")
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
    outs = _flat(one.out), _flat(two.out)
    forward = int(same(*outs).sum()), one.out.numel()
    upstreams = [_upstream(side, loss, upstream) for side in sides]
    own = [_gradients(side, values) for side, values in zip(sides, upstreams, strict=True)]
    common = [_gradients(side, upstreams[0]) for side in sides]
    causes = {}
    for name in one.wrt:
        found = [_revealed(side, name, upstreams[0], trials, seed) for side in sides]
        causes[name] = _cause(name, sides, found, upstreams[0], own, common)
    unproven = {
        name: (common[0][name], common[1][name])
        for name, cause in causes.items()
        if cause.common < cause.elements and not cause.proven
    }
    if forward[0] < forward[1]:
        unproven[OUTPUT] = outs
    sources = {}
    if unproven:
        given = upstreams[0].reshape(tuple(one.out.shape))
        sources = sources_of((first, second), unproven, inputs, one.wrt, given, one.format, output)
    return Explanation(
        names or told_apart(called(first, "first"), called(second, "second")),
        one.format,
        forward,
        causes,
        environment_of(sides),
        sources,
    )


def _flat(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.detach().double().cpu().numpy(), np.float64).ravel()


def _upstream(side: Gradients, loss: Any, upstream: Any) -> Array:
    """The gradient that reaches the function's output."""
    if loss is None:
        return own_upstream(side, upstream)
    out = side.out.detach().requires_grad_()
    value = loss(out)
    if not isinstance(value, torch.Tensor) or value.numel() != 1:
        raise ArgumentError("the loss is not a scalar; let it return one number")
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
    swapped, apart = (0, 0, 0), list[tuple[KernelTree, KernelTree]]()
    reductions = found[0][1], found[1][1]
    if trees[0] is not None and trees[1] is not None and reductions[0] and reductions[1]:
        swap = Swap((trees[0], trees[1]), (reductions[0], reductions[1]), upstream)
        swap.run([side[name] for side in common])
        alike, parts, tighter = swap.alike, swap.parts, swap.tighter
        swapped, apart = (swap.matched[0], swap.matched[1], swap.of), swap.apart
    return Cause(
        name, len(own[0][name]), int(same(own[0][name], own[1][name]).sum()),
        int(same(common[0][name], common[1][name]).sum()), trees, refused, alike, swapped, parts,
        (_alone(sides[0], name, trees[0], upstream), _alone(sides[1], name, trees[1], upstream)), tighter,
        (kernels_of(sides[0], upstream), kernels_of(sides[1], upstream)), tuple(apart),
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
