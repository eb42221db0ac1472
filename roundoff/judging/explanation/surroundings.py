"""Which kernels ran, and what their trees depend on besides the shapes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from roundoff.kernels import provenance
from roundoff.probing.gradient_reductions import Gradients

Array = npt.NDArray[np.float64]

#: Operations that move or allocate.
PLUMBING = tuple(
    """detach empty view resize as_strided zero fill copy clone to_copy unsqueeze squeeze contiguous slice
    narrow select reshape alias item local_scalar transpose permute expand resolve""".split()
)


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


def kernels_of(side: Gradients, upstream: Array) -> tuple[str, ...]:
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


def environment_of(sides: Sequence[Gradients]) -> dict[str, str]:
    """What a kernel's tree depends on besides the shapes: version, threads, processor, variables, layout."""
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
