"""Sources of operations, found while they run.

Forward, by the Python stack.  Backward, an operation has the source of the one whose gradient it computes:
the nodes of autograd's graph carry the numbers that they got in the forward pass.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import torch
from torch.fx import traceback
from torch.utils._python_dispatch import TorchDispatchMode

from roundoff.trace.source import Source

#: The key under which a node of a graph has its source.
_KEY = "roundoff"


def _folder(path: Path) -> str:
    """As files in it begin: those of torchvision are not in torch."""
    return f"{path}{os.sep}"


_TORCH = _folder(Path(torch.__file__).parent)
_LAYERS = _folder(Path(torch.nn.__file__).parent / "modules")
_OURS = _folder(Path(__file__).parent.parent)
_CALL = torch.nn.Module._call_impl.__code__
_BACKWARD = torch.autograd.graph._engine_run_backward.__code__

#: Files of torch's layers whose lines tell nothing.
_CARRIERS = ("module.py", "container.py")


class Sources(TorchDispatchMode):
    """Nodes that make_fx makes of the operations below know their source: `source_of`.

    within: the code that calls the user's; what is on the stack before it is of no interest.  now: the source
    of the operation under way; inside: whether it runs within.
    """

    def __init__(self, within: CodeType) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.within = within
        self.now, self.inside = Source(), False
        self._forward: dict[int, Source] = {}
        self._paths: dict[int, tuple[torch.nn.Module, dict[int, str]]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.now = self._here(sys._getframe(1))
        traceback.current_meta["custom"] = {_KEY: self.now}
        return self.called(func, args, kwargs or {})

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        """The operation under way."""
        return func(*args, **kwargs)

    def _here(self, frame: FrameType) -> Source:
        node = torch._C._current_autograd_node()
        found = self._on_stack(frame)
        if node is None:
            if not found.backward:
                # The node of an operation that has a gradient is made before it runs.
                self._forward.setdefault(torch.autograd._get_sequence_nr() - 1, found)
            return found
        asked = self._forward.get(node._sequence_nr(), Source())
        line, module = (found.line, found.module) if found.line else (asked.line, asked.module)
        return Source(module or asked.module, line, backward=True)

    def _on_stack(self, frame: FrameType | None) -> Source:
        """By the frames from the innermost outwards, up to the engine's if one is under way."""
        line, layer, self.inside = "", "", False
        modules: list[torch.nn.Module] = []
        backward = False
        while frame is not None:
            code, file = frame.f_code, frame.f_code.co_filename
            if code is self.within:
                self.inside = True
                break
            if code is _BACKWARD:
                self.inside = backward = True
                break
            if code is _CALL:
                modules.append(frame.f_locals["self"])
            elif not line and not file.startswith((_TORCH, _OURS)):
                line = _place(frame)
            elif not layer and file.startswith(_LAYERS) and not file.endswith(_CARRIERS):
                layer = _place(frame)
            frame = frame.f_back
        return Source(self._path(modules), line or layer, backward)

    def _path(self, modules: list[torch.nn.Module]) -> str:
        """Of the first of the modules in the last one."""
        if not modules:
            return ""
        inner, outer = modules[0], modules[-1]
        if id(outer) not in self._paths:
            names = {id(module): name for name, module in outer.named_modules()}
            self._paths[id(outer)] = outer, names
        return self._paths[id(outer)][1].get(id(inner)) or type(inner).__name__


def _place(frame: FrameType) -> str:
    return f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"


def source_of(node: torch.fx.Node) -> Source | None:
    """The source that a node of a graph was told."""
    custom = node.meta.get("custom") or {}
    found: Source | None = custom.get(_KEY)
    return found


@contextmanager
def keeping_sources() -> Iterator[None]:
    """Graphs made of graphs keep the sources of their nodes."""
    with traceback.preserve_node_meta(True):
        yield
