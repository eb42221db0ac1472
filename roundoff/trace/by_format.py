"""The traces of one function in several formats; captured again only where its steps depend on the type."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from roundoff.locks import TORCH
from roundoff.numbers.formats import Format, as_format
from roundoff.trace.capture import NotRunError, Subject, for_format
from roundoff.trace.prune import prune
from roundoff.trace.steps import Trace
from roundoff.trace.type_dependence import Run
from roundoff.trace.users_function import Loss


class Traces:
    """The pruned traces of the gradients of loss(function(**inputs)); arguments as in `trace_gradients`.

    Formats in which the function makes the same calls of PyTorch have one trace, the very same object.

    Raises: ArgumentError for arguments that do not fit each other.
    """

    def __init__(
        self, function: Callable[..., Any], inputs: Mapping[str, Any], wrt: Sequence[str] | None = None,
        loss: Loss | None = None, upstream: Any = None, *, output: Any = None, forward: bool = False,
    ) -> None:  # fmt: skip
        self._subject = Subject(function, inputs, wrt, loss, upstream, output, forward=forward)
        self._found: dict[Any, Trace] = {}
        self._made: list[tuple[torch.dtype, Trace]] = []
        self._runs: dict[torch.dtype, Run] = {}

    @property
    def tensors(self) -> dict[str, torch.Tensor]:
        """The inputs by name, the upstream gradient among them."""
        return self._subject.tensors

    @TORCH
    def of(self, format: Any) -> Trace:
        """The trace in a format.  Raises: UnsupportedError for what cannot be traced, by name."""
        target = as_format(format)
        if target not in self._found:
            self._found[target] = self._make(target)
        return self._found[target]

    def _make(self, target: Format) -> Trace:
        own = target.torch_dtype
        if own is not None and own.itemsize > 1:
            with contextlib.suppress(NotRunError):
                return self._in(own)
        plain = self._found.get(torch.float32) or self._in(torch.float32)
        self._found[torch.float32] = plain
        if plain.guards:  # decided by the numbers of the format
            plain = prune(self._subject.trace(torch.float32, target))
        return for_format(plain, target)

    def _in(self, dtype: torch.dtype) -> Trace:
        for others, trace in self._made:
            if not trace.guards and self._run(dtype).alike(self._run(others)):
                return trace
        trace = prune(self._subject.trace(dtype))
        self._made.append((dtype, trace))
        return trace

    def _run(self, dtype: torch.dtype) -> Run:
        if dtype not in self._runs:
            self._runs[dtype] = self._subject.run(dtype)
        return self._runs[dtype]
