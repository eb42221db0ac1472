"""How fast trees are recovered: level by level against one pair of leaves per call.

Times of recovery alone (tree and roundings), then of the gate (64 random trials on every output).
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timing import seconds

import roundoff as ro
from roundoff.probing.direct_calls import Direct
from roundoff.probing.gradient_reductions import Gradients, Reduction
from roundoff.probing.gradient_trees import gradient_tree
from roundoff.probing.recovery import CountQuestion, recover

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from definition import one_pair_per_call


def conv(weight, bias, x):
    return F.conv1d(x, weight, bias)


def gradients(channels: int, terms: int, format: str) -> None:
    """A convolution's weight gradient."""
    generator = torch.Generator().manual_seed(0)
    make = lambda *shape: torch.randn(*shape, generator=generator)
    batch = min(8, terms)
    inputs = {
        "weight": make(channels, channels, 1), "bias": make(channels),
        "x": make(batch, channels, terms // batch),
    }  # fmt: skip
    graph = Gradients(conv, inputs, ("weight",), format)  # tracing is done once, and warm
    graph = Gradients(conv, inputs, ("weight",), format)
    reduction = Reduction(graph, "weight")
    (part,) = reduction.alike
    probing = reduction.probing(part)
    before = graph.calls
    ours = min(seconds(lambda: gradient_tree(probing)) for _ in range(3))
    calls = (graph.calls - before) // 3
    probing.rows = probing.rows[:1]
    asked = [0]

    def one(pivot: int, other: int, units: list[int]) -> int:
        asked[0] += 1
        return int(probing.ask([CountQuestion(pivot, np.array([other]), np.array(units))])[0][0])

    text = ""
    if len(part.leaves) <= 512:
        baseline = seconds(lambda: one_pair_per_call(range(len(part.leaves)), one))
        text = f"; one pair per call {baseline:.2f} s, {asked[0]} calls: {baseline / ours:.0f} times as long"
    gate = seconds(lambda: ro.reveal_gradient(conv, inputs, "weight", format, others=("weight",)))
    print(
        f"weight gradient, {channels} channels, {terms} terms, {format}: {ours:.2f} s, {calls} backward calls"
        f"{text}; with tracing and the gate on {channels**2} outputs {gate:.1f} s"
    )


def sums(n: int, format: str = "float32") -> None:
    """torch.sum."""
    kernel = Direct(torch.sum, n, format)
    ours = seconds(lambda: recover(kernel.members[0], lambda q: kernel.ask(q, 0), kernel.most))
    calls = kernel.calls
    whole = seconds(lambda: ro.reveal(torch.sum, n, format))
    text = ""
    if n <= 4096:

        def one(pivot: int, other: int, units: list[int]) -> int:
            return int(
                kernel.ask([CountQuestion(pivot, np.array([other]), np.array(units))], 0)[0][0]
            )

        baseline = seconds(lambda: one_pair_per_call(range(n), one))
        text = f"; one pair per call {baseline:.2f} s: {baseline / ours:.0f} times as long"
    print(
        f"torch.sum of {n}, {format}: {ours:.2f} s, {calls} calls{text}; with flags and gate {whole:.2f} s"
    )


def main() -> None:
    torch.sum(torch.ones(1 << 17))
    gradients(16, 512, "float32")
    gradients(64, 4096, "float32")
    gradients(64, 4096, "bfloat16")
    sums(4096)
    sums(1 << 17)
    n = 100_000

    def ask(questions):
        return [np.searchsorted(np.sort(q.units), np.minimum(q.others, q.pivot)) for q in questions]

    took = seconds(lambda: recover(np.arange(n), ask, 10**7))
    print(f"reverse loop of {n} leaves, ideal oracle: {took:.2f} s")


if __name__ == "__main__":
    main()
