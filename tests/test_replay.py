"""What is revealed can be replayed: one call gives the kernel's bits, and print says all that it takes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import roundoff as ro

CALLS = {
    "sum": lambda v: v.sum(),
    "mean": lambda v: v.mean(),
    "cumsum": lambda v: v.cumsum(0),
    "halves": lambda v: v.reshape(2, -1).sum(1),
    "dot": torch.dot,
}


def draw(dtype, *shape):
    generator = np.random.default_rng([len(shape), *shape])
    values = generator.standard_normal(shape) * 2.0 ** generator.integers(-3, 3, shape)
    return torch.from_numpy(values).to(dtype)


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
@pytest.mark.parametrize("n", [10, 64])
@pytest.mark.parametrize("name", CALLS)
def test_replay_gives_the_kernels_bits(name, n, dtype) -> None:
    """200 data sets that the gate has not seen, as a batch; each a tensor of its own: alignment matters."""
    call = CALLS[name]
    try:
        found = ro.reveal(call, n, dtype)
    except ro.UnsupportedError:
        return  # this machine flushes its subnormal numbers
    x = [draw(dtype, 200, n) for _ in range(1 + found.products)]
    if not found.proven:
        with pytest.raises(ro.UndecidedError):
            found.replay(*x)
        return
    wanted = np.stack([call(*(v[k].clone() for v in x)).double().numpy() for k in range(200)])
    replayed = found.replay(*x)
    assert replayed.shape == wanted.shape and (replayed == wanted).all()
    assert (found.replay(*(v[0] for v in x)) == wanted[0]).all()
    for one in found.classes:
        kernel, text = one.tree, str(found)
        if kernel.accumulate != kernel.format:
            assert f"sums kept in {kernel.accumulate}" in text
            assert f"the result rounded to {kernel.format}" in text
        if kernel.divisor:
            assert (
                f"divides the sum by {kernel.divisor}" in text
                or f"the rounded 1 / {kernel.divisor}" in text
            )
        if kernel.fused.any() and not kernel.exact_products:
            assert (
                f"{int(kernel.fused.sum())} of {kernel.n} products in a fused multiply-add" in text
            )


def test_replay_refuses_what_it_cannot_do() -> None:
    found = ro.reveal(np.sum, 8, np.float32)
    for arguments, words in (
        ((np.ones(7),), r"shape \(7,\); the last axis holds 8 terms"),
        ((1.0,), r"shape \(\)"),
        ((np.full(8, 0.1),), "not of float32; round them first"),
        ((np.ones(8), np.ones(8)), "takes 1 vector, not 2"),
    ):
        with pytest.raises(ro.ArgumentError, match=words):
            found.replay(*arguments)
    dot = ro.reveal(np.dot, 8, np.float64)
    with pytest.raises(ro.ArgumentError, match="takes 2 vectors, not 1"):
        dot.replay(np.ones(8))
    with pytest.raises(ro.ArgumentError, match=r"y has shape \(2, 8\)"):
        dot.replay(np.ones(8), np.ones((2, 8)))
    gradient = ro.reveal_gradient(
        lambda w, x: x @ w, {"w": torch.ones(3, 2), "x": torch.ones(4, 3)}, "w"
    )
    with pytest.raises(ro.ArgumentError, match="only what `reveal` returned"):
        gradient.replay(np.ones(4))
