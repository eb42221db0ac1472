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

from roundoff.trace.decided import DECIDED, TAKEN
from roundoff.trace.decompositions import decomposition
from roundoff.trace.lowering import LOWERINGS
from roundoff.trace.lowering.dispatch import SELECTING
from roundoff.trace.lowering.movement import INDEXING, MOVES
from roundoff.trace.settled import is_number

#: Under which a node has its numbers, where they are whole and no input decides them.
SETTLED = "settled"

#: To whole numbers, of floats.
ROUNDING = frozenset("floor ceil round trunc".split())

#: What takes truth values for places.
PLACING = frozenset(
    """index _unsafe_index masked_select nonzero masked_scatter index_put _unsafe_index_put
    _unsafe_masked_index _unsafe_masked_index_put_accumulate""".split()
)

#: What chooses elements by their size; the indices may choose others, in SELECTING.
CHOOSING = frozenset(
    """max min max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d
    adaptive_max_pool3d""".split()
)

#: What is lowered and takes integers for places.
AT_PLACES = frozenset(
    """index_put _unsafe_index_put index_add index_fill scatter scatter_add gather embedding
    embedding_dense_backward nll_loss_forward nll_loss_backward nll_loss2d_forward
    nll_loss2d_backward""".split()
)


def functional(graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> torch.fx.Graph:
    """The graph without writes but those into inputs, by which it ends; its nodes keep their sources."""
    recorder = Recorder(inputs)
    with recorder:
        again = functionalize(torch.fx.Interpreter(graph).run)  # which passes the sources on
        found = again(*inputs)
    return recorder.ended(found)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A graph of the ATen calls below, and of what they give: under "val", without numbers.

    What floats decide, and is needed as a whole number or a place, is taken as it is, and the graph says so.
    make_fx does that, too; what it knows of symbols, subclasses and numbers that leave a trace costs as much
    as all the rest, and no graph that it has made has any of these.
    """

    def __init__(self, inputs: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = torch.fx.Graph()
        self._free: set[torch.fx.Node] = set()  # of floating-point inputs
        self._choices: set[torch.fx.Node] = set()  # indices of maxima
        self._fixed: dict[torch.fx.Node, torch.Tensor] = {}
        self._nodes = WeakTensorKeyDictionary()  # type: ignore[no-untyped-call]
        for number, tensor in enumerate(inputs):
            node = self.graph.placeholder(f"input_{number}")
            self._known(tensor, node)
            if not is_number(tensor):
                self._free.add(node)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is DECIDED:
            return self._decided(*args)
        given = tree_leaves((args, kwargs))
        asked = _floating(given) or any(map(self._undecided, given))
        taken_apart = decomposition(func) if asked else None
        if taken_apart is not None:
            with self:
                apart = taken_apart(*args, **kwargs)
            if apart is not NotImplemented:
                return apart
        found = func(*args, **kwargs)
        args, kwargs = self._with_places(func, found, args, kwargs)
        read = tree_map_only(torch.Tensor, self._node_of, (args, kwargs))
        node = self.graph.call_function(func, *read)
        node.meta["custom"] = traceback.get_current_meta().get("custom")
        random = torch.Tag.nondeterministic_seeded in func.tags
        if not random and self._free.issuperset(node.all_input_nodes):
            self._free.add(node)
            if isinstance(found, torch.Tensor) and _whole(func, found):
                node.meta[SETTLED] = found.clone()
        self._known(found, node)
        self._note_choices(func.overloadpacket.__name__, node)
        return found

    def _note_choices(self, name: str, node: torch.fx.Node) -> None:
        """Indices of maxima stay open, also where they are moved."""
        moved = name in MOVES and not self._choices.isdisjoint(node.all_input_nodes)
        if name in CHOOSING or moved:
            self._choices.update((node, *node.users))

    def _node_of(self, tensor: torch.Tensor) -> torch.fx.Node:
        """What makes a tensor; one that no call here has made is a constant of the graph."""
        if tensor not in self._nodes:
            node = self.graph.call_function(torch.ops.aten.lift_fresh_copy.default)
            node.meta[SETTLED] = tensor.clone()
            self._free.add(node)
            self._known(tensor, node)
        return self._nodes[tensor]  # type: ignore[no-any-return]

    def _open(self, *trees: Any) -> bool:
        """Whether floating-point inputs decide any of the tensors."""
        leaves = [leaf for leaf in tree_leaves(trees) if isinstance(leaf, torch.Tensor)]
        return any(self._node_of(leaf) not in self._free for leaf in leaves)

    def _decided(self, condition: torch.Tensor, what: str) -> torch.Tensor:
        """The outcome; where floats decide it, the graph notes that it holds for this one alone."""
        node = self._node_of(condition)
        if node in self._free:
            return condition
        if node not in self._fixed:
            taken = self._fixed[node] = condition.clone()
            noted = self.graph.call_function(DECIDED, (node, what))
            noted.meta["custom"] = traceback.get_current_meta().get("custom")
            noted.meta[TAKEN] = taken
            noted.meta["val"] = _without_numbers(taken)
        return self._fixed[node]

    def _with_places(self, func: Any, found: Any, args: Any, kwargs: Any) -> Any:
        """The arguments of a call, with what is taken for indices and masks that it needs as such."""
        name = func.overloadpacket.__name__
        lowered = name in LOWERINGS or name in MOVES
        if not lowered and not any(map(self._undecided, tree_leaves((args, kwargs)))):
            return args, kwargs
        placing = (not lowered and _counts(found)) or (
            name in PLACING and not _one_for_all(name, args)
        )

        def taken(leaf: torch.Tensor) -> torch.Tensor:
            if not self._undecided(leaf):
                return leaf
            if leaf.dtype == torch.bool:
                kept = not placing
            elif name in INDEXING:
                kept = leaf is args[0]
            elif self._nodes[leaf] in self._choices:
                kept = name in SELECTING or name in MOVES
            else:
                kept = lowered and name not in AT_PLACES
            return leaf if kept else self._decided(leaf, f"aten::{name}")

        return tree_map_only(torch.Tensor, taken, (args, kwargs))

    def _undecided(self, leaf: Any) -> bool:
        """Whether this is a tensor of integers or truth values that floats decide."""
        return isinstance(leaf, torch.Tensor) and not is_number(leaf) and self._open(leaf)

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


def _counts(found: Any) -> bool:
    """Whether all results are integers."""
    results = [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
    return bool(results) and not any(is_number(r) or r.dtype == torch.bool for r in results)


def _one_for_all(name: str, args: Any) -> bool:
    """Whether one value, or row, is put wherever a mask over the first axes is true: a choice, no place."""
    if not name.endswith("index_put"):
        return False
    x, (mask, *others), values = args[:3]
    if mask is None or mask.dtype != torch.bool or any(other is not None for other in others):
        return False
    behind = x.dim() - mask.dim()
    return bool(values.numel() == values.shape[values.dim() - behind :].numel())


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
