"""A graph run once more under functionalize and recorded anew: the same calls, none of which writes."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.func import functionalize
from torch.fx import traceback
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from roundoff.trace.decompositions import decomposition

#: Under which a node has its numbers, where they are whole and no input decides them.
SETTLED = "settled"

#: To whole numbers, of floats.
ROUNDING = frozenset("floor ceil round trunc".split())


def functional(graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> torch.fx.Graph:
    """The graph without writes but those into inputs, by which it ends; its nodes keep their sources."""
    recorder = Recorder(inputs)
    with recorder:
        again = functionalize(torch.fx.Interpreter(graph).run)  # which passes the sources on
        found = again(*inputs)
    return recorder.ended(found)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A graph of the ATen calls below, and of what they give: under "val", without numbers.

    make_fx does that, too; what it knows of symbols, subclasses and numbers that leave a trace costs as much
    as all the rest, and no graph that it has made has any of these.
    """

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = torch.fx.Graph()
        self._free: set[torch.fx.Node] = set()  # of the inputs
        self._nodes = WeakTensorKeyDictionary()  # type: ignore[no-untyped-call]
        for number, tensor in enumerate(inputs):
            self._known(tensor, self.graph.placeholder(f"input_{number}"))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        taken_apart = decomposition(func) if _floating((args, kwargs)) else None
        if taken_apart is not None:
            with self:
                return taken_apart(*args, **kwargs)
        asked = tree_map_only(torch.Tensor, self._nodes.__getitem__, (args, kwargs))
        node = self.graph.call_function(func, *asked)
        node.meta["custom"] = traceback.get_current_meta().get("custom")
        found = func(*args, **kwargs)
        random = torch.Tag.nondeterministic_seeded in func.tags
        if not random and self._free.issuperset(node.all_input_nodes):
            self._free.add(node)
            if isinstance(found, torch.Tensor) and _whole(func, found):
                node.meta[SETTLED] = found.clone()
        self._known(found, node)
        return found

    def _known(self, found: Any, node: torch.fx.Node) -> None:
        node.meta["val"] = tree_map_only(torch.Tensor, _without_numbers, found)
        if isinstance(found, torch.Tensor):
            self._nodes[found] = node
        elif isinstance(found, tuple | list):
            for place, part in enumerate(found):
                if isinstance(part, torch.Tensor):
                    taken = self.graph.call_function(operator.getitem, (node, place))
                    if node in self._free:
                        self._free.add(taken)
                    self._known(part, taken)

    def ended(self, outputs: Any) -> torch.fx.Graph:
        """The graph, with its outputs."""
        self.graph.output(tree_map_only(torch.Tensor, self._nodes.__getitem__, outputs))
        return self.graph


def _whole(call: Any, result: torch.Tensor) -> bool:
    """Whether the result is of whole numbers, or of truth values."""
    return not result.is_floating_point() or call.overloadpacket.__name__ in ROUNDING


def _floating(arguments: Any) -> bool:
    """Whether a tensor of floating-point numbers is among them."""
    return any(
        isinstance(leaf, torch.Tensor) and leaf.is_floating_point()
        for leaf in tree_leaves(arguments)
    )


def _without_numbers(tensor: torch.Tensor) -> torch.Tensor:
    with torch._C._DisableTorchDispatch():
        return torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
