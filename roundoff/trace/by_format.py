"""The traces of one function in several formats: captured anew where the function depends on its type."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from roundoff.locks import TORCH
from roundoff.numbers.formats import Format, as_format
from roundoff.trace.call_records import Run
from roundoff.trace.capture import Loss, NotRunError, Subject, for_format
from roundoff.trace.prune import prune
from roundoff.trace.steps import Trace


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
        self._runs: list[tuple[Run, Trace]] = []

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
        return for_format(plain, target)

    def _in(self, dtype: torch.dtype) -> Trace:
        run = self._subject.run(dtype)
        for others, trace in self._runs:
            if run.alike(others):
                return trace
        trace = prune(self._subject.trace(dtype))
        self._runs.append((run, trace))
        return trace
