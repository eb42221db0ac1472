"""The cost of bounds: any-order ones over float64 evaluations of the trace, stated orders over Simulated."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from timing import compare, head, show

from roundoff import bounds
from roundoff.arithmetic import walk
from roundoff.arithmetic.running import Running
from roundoff.arithmetic.simulated import Simulated, simulate
from roundoff.gradients.inputs import round_inputs
from roundoff.numbers.formats import FLOAT32, round_to
from roundoff.orders import sum_in_order
from roundoff.trace import prune, trace_gradients
from roundoff.trace.functions import FUNCTIONS


class Float64:
    """The trace in plain NumPy: the yardstick."""

    def load(self, values):
        return values

    def constant(self, step):
        return np.full(step.shape, float(step.value))

    def move(self, step, operands):
        if step.index is None:
            return operands[0].reshape(step.shape)
        flat = np.concatenate([np.zeros(1), *(o.ravel() for o in operands)])
        return flat[step.index]

    def map(self, step, operands):
        return (
            operands[0] if step.function == "cast" else FUNCTIONS[step.function].float64(*operands)
        )

    def reduce(self, step, operand):
        return operand.sum(axis=-1)

    def contract(self, step, first, second):
        return first @ second


def squares(out):
    return (out**2).sum()


def layer(x, w, v):
    return torch.tanh(x @ w) @ v


CASES = {
    "conv1d (8, 64, 64, 1000, 5)": (
        lambda x, w: F.conv1d(x[:, :, -5:], w), {"x": (8, 64, 1000), "w": (64, 64, 1)},
    ),
    "conv2d (4, 32, 32, 16 x 16), 3 x 3": (
        partial(F.conv2d, padding=1), {"input": (4, 32, 16, 16), "weight": (32, 32, 3, 3)},
    ),
    "two layers, 256 x 512 x 512 x 64, tanh": (
        layer, {"x": (256, 512), "w": (512, 512), "v": (512, 64)},
    ),
}  # fmt: skip


def main() -> None:
    rng = np.random.default_rng(0)
    head("bounds on gradients, float32 (baseline: the trace in NumPy float64)")
    kept = []
    for name, (function, shapes) in CASES.items():
        inputs = {k: rng.standard_normal(shape) / 4 for k, shape in shapes.items()}
        trace = prune(trace_gradients(function, inputs, None, squares))
        given = round_inputs(trace, inputs, FLOAT32)
        kept.append((name, trace, given))
        show(
            f"any order, {name}", "at most 5",
            compare(lambda t=trace, g=given: walk(t, Running("float32"), g),
                    lambda t=trace, g=given: walk(t, Float64(), g), 9),
        )  # fmt: skip
    head("stated order (baseline: Simulated, one trial)")
    small = {
        "conv1d (8, 64, 64, 5)": (lambda x, w: F.conv1d(x, w), {"x": (8, 64, 5), "w": (64, 64, 1)}),
        "layer 64 x 64 x 64": (lambda x, w: torch.tanh(x @ w), {"x": (64, 64), "w": (64, 64)}),
    }
    for name, (function, shapes) in small.items():
        inputs = {
            k: round_to(rng.standard_normal(shape) / 4, "float32") for k, shape in shapes.items()
        }
        trace = prune(trace_gradients(function, inputs, None, squares))
        stacked = {k: v[None] for k, v in inputs.items()}
        for order in ("sequential", "pairwise"):
            show(
                f"{order}, {name}", "stated",
                compare(lambda t=trace, g=inputs, o=order: walk(t, Running("float32", o), g),
                        lambda t=trace, g=stacked, o=order: simulate(t, Simulated("float32", o), g), 5),
            )  # fmt: skip
    head("bounds.sum of 1000 x 1000 float32 (baseline: sum_in_order, or |x|.sum() for any order)")
    x = round_to(rng.standard_normal((1000, 1000)), "float32")
    show(
        "any order",
        "stated",
        compare(lambda: bounds.sum(x, "float32"), lambda: np.abs(x).sum(-1), 5),
    )
    for order in ("sequential", "pairwise"):
        show(order, "stated", compare(lambda o=order: bounds.sum(x, "float32", o),
                                      lambda o=order: sum_in_order(x, o, "float32"), 5))  # fmt: skip


if __name__ == "__main__":
    main()
