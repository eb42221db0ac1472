"""The mpmath reference per multiply-add against mpmath's own fdot, and balls against mpmath."""

from __future__ import annotations

import mpmath
import numpy as np
import torch
import torch.nn.functional as F
from timing import compare, head, show

from roundoff.gradients.reference import reference_of_trace, work
from roundoff.numbers.formats import round_to
from roundoff.trace import prune, trace_gradients


def slice_then_conv(weight: torch.Tensor, bias: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return F.conv1d(x[:, :, -5:], weight, bias)


def squares(out: torch.Tensor) -> torch.Tensor:
    return (out**2).sum()


def main() -> None:
    rng = np.random.default_rng(0)
    head(
        "references of conv1d(x[:, :, -5:]), weight and bias gradients (baseline: fdot on as many products)"
    )
    for shape in ((1, 3, 3, 10), (8, 64, 64, 1000)):
        n, ci, co, t = shape
        inputs = {
            "weight": rng.uniform(-1, 1, (co, ci, 1)),
            "bias": rng.uniform(-1, 1, co),
            "x": rng.random((n, ci, t)),
        }
        trace = prune(trace_gradients(slice_then_conv, inputs, ("weight", "bias"), squares))
        for format in ("float16", "float32", "float64"):
            given = {k: round_to(v, format) for k, v in inputs.items()}
            count = work(trace)

            def ours(engine: str = "mpmath", trace=trace, given=given, format=format) -> None:
                reference_of_trace(trace, given, format=format, engine=engine)

            x = [mpmath.mpf(float(v)) for v in round_to(rng.standard_normal(64), format)]
            terms = [(a, b) for a, b in zip(x, x[::-1], strict=True)]

            def fdot(count: int = count, terms=terms) -> None:
                for _ in range(max(1, count // 64)):
                    mpmath.fdot(terms)

            rounds = 15 if n == 1 else 3
            name = f"{shape} {format}, {count} operations"
            show(f"mpmath, {name}", "at most 4", compare(ours, fdot, rounds))
            show(
                f"ball over mpmath, {name}",
                "stated",
                compare(lambda o=ours: o("ball"), ours, rounds),
            )


if __name__ == "__main__":
    main()
