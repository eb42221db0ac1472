"""4096 simulated sums of 256 terms, laid out terms first, against torch.add over as many elements."""

from __future__ import annotations

import numpy as np
import torch
from timing import compare, head, show

import roundoff as ro
from roundoff import orders
from roundoff.numbers.machines import machine

ROUNDS = 15
OWN = ro.Format("own", 6, -20, 21)


def main() -> None:
    torch.set_num_threads(1)
    x = np.random.default_rng(0).standard_normal((256, 4096))
    head("4096 sums of 256 terms (baseline: torch.add of 256 x 4096 elements, one thread)")
    for target in (
        ro.FLOAT32,
        ro.FLOAT64,
        ro.FLOAT16,
        ro.BFLOAT16,
        ro.FLOAT8_E5M2,
        ro.FLOAT8_E4M3FN,
        OWN,
    ):
        native = target.torch_dtype is not None and target.torch_dtype.itemsize > 1
        dtype = target.torch_dtype if native else torch.float32
        on, limit = machine(target), "at most 6, aim at 3" if native else "at most 30"
        scale = min(1.0, target.max / 1000)
        a = torch.from_numpy(x).to(dtype)
        out = torch.empty_like(a)
        for name in ("sequential", "pairwise", "blocked(32)", "strided(8)", "shuffled(0)"):
            tree = orders.as_order(name).tree(256)
            # Sums overwrite their terms: a fresh copy for every round.
            copies = iter([on.load(x * scale) for _ in range(ROUNDS + 1)])

            def ours(copies=copies, tree=tree, on=on) -> None:
                orders.add_up(next(copies), tree, on)

            found = compare(ours, lambda a=a, out=out: torch.add(a, a, out=out), ROUNDS)
            show(f"{target}, {name}", limit, found)


if __name__ == "__main__":
    with np.errstate(all="ignore"):
        main()
