"""A graph run once more under functionalize and recorded anew: the same calls, none of which writes."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.func import functionalize
from torch.fx import traceback
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakTensorKeyDictionary

from roundoff.errors import RoundoffError, UnsupportedError
from roundoff.trace.decided import ASSURED, DECIDED, TAKEN
from roundoff.trace.decomposed.pairs import (
    OF_PAIRS,
    Pair,
    as_pair,
    is_complex,
    separately,
    whole,
)
from roundoff.trace.decompositions import decomposition
from roundoff.trace.lowering import LOWERINGS
from roundoff.trace.lowering.dispatch import SELECTING
from roundoff.trace.lowering.movement import INDEXING, MOVES
from roundoff.trace.settled import is_number

#: Under which a node has its numbers, where they are whole and no input decides them.
SETTLED = "settled"

#: An attribute of constants that are in a narrower type than their numbers.
PRECISE = "precise"

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

#: What is linear in what it is given, and acts on the real and the imaginary parts alike; so do moves.
SEPARATE = frozenset(
    """sum cumsum where masked_fill index_put _unsafe_index_put index_add scatter scatter_add gather
    new_empty_strided empty_strided as_strided_scatter trace""".split()
)


def functional(graph: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> torch.fx.Graph:
    """The graph without writes but those into inputs, by which it ends; its nodes keep their sources."""
    recorder = Recorder(inputs)
    with recorder:
        again = functionalize(torch.fx.Interpreter(graph).run)  # which passes the sources on
        try:
            found = again(*inputs)
        except RoundoffError as error:
            error.args = (str(error).split("\n")[0],)  # torch.fx adds the node to the message
            raise
    return recorder.ended(found)


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """A graph of the ATen calls below, and of what they give: under "val", without numbers.

    What floats decide, and is needed as a whole number or a place, is taken as it is, and the graph says so.
    Complex tensors are pairs of real ones: the graph has none.
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
        self._pairs = WeakTensorKeyDictionary()  # type: ignore[no-untyped-call]
        for number, tensor in enumerate(inputs):
            if tensor.is_complex():
                self._pairs[tensor] = parts = _parts(tensor)
                self._given(f"input_{number}_real", parts.re)
                self._given(f"input_{number}_imag", parts.im)
            else:
                self._given(f"input_{number}", tensor)

    def _given(self, name: str, tensor: torch.Tensor) -> None:
        node = self.graph.placeholder(name)
        self._known(tensor, node)
        if not is_number(tensor):
            self._free.add(node)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is DECIDED:
            return self._decided(*args)
        if func is ASSURED:
            return self._noted(args[0], torch.ones_like(args[0]), args[1])
        given = tree_leaves((args, kwargs))
        if any(map(is_complex, given)):
            return self._by_parts(func, func(*args, **kwargs), args, kwargs)
        asked = _floating(given) or any(map(self._undecided, given))
        taken_apart = decomposition(func) if asked else None
        if taken_apart is not None:
            with self:
                apart = taken_apart(*args, **kwargs)
            if apart is not NotImplemented:
                return apart
        found = func(*args, **kwargs)
        if any(map(is_complex, tree_leaves(found))):
            return self._by_parts(func, found, args, kwargs)
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

    def _by_parts(self, func: Any, found: Any, args: Any, kwargs: Any) -> Any:
        """A call with complex operands or results, of the pairs that stand for them.

        found: what PyTorch has made, which has the types and the strides that later calls see.
        Raises: UnsupportedError for an operation that is not known of pairs.
        """
        if func._schema.is_mutable:  # into inputs, at the end
            return found
        name, overload = func.overloadpacket.__name__, func._overloadname
        function = OF_PAIRS.get(f"{name}.{overload}") or OF_PAIRS.get(name)
        given, named = tree_map_only(torch.Tensor, self._pair_of, (args, kwargs))
        with self:
            made: Any = NotImplemented
            if function is not None:
                made = function(*tree_map_only(complex, as_pair, given), **named)
            elif name in SEPARATE or name in MOVES:
                made = separately(func, given, named, found)
            if made is NotImplemented:
                raise UnsupportedError(
                    f"cannot trace aten::{name} of complex numbers; write it with their real and imaginary "
                    "parts, or with products, quotients and elementary functions of them"
                )
            if isinstance(found, torch.Tensor):
                return self._held(found, made)
            return type(found)(map(self._held, found, made))

    def _held(self, found: torch.Tensor, made: Any) -> torch.Tensor:
        """A result, with what stands for it."""
        if not found.is_complex():
            return self._laid(whole(made, found), found)
        parts = Pair(whole(made.re, found), whole(made.im, found))
        self._pairs[found] = parts.map(lambda part: self._laid(part, found))
        return found

    def _laid(self, part: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """The same numbers with the strides of another tensor, on which later views depend."""
        if part.stride() == like.stride():
            return part
        node = self.graph.call_function(torch.ops.aten.clone.default, (self._node_of(part),))
        node.meta["custom"] = traceback.get_current_meta().get("custom")
        if self._nodes[part] in self._free:
            self._free.add(node)
        with torch._C._DisableTorchDispatch():
            found = _with_strides(part, like.stride())
        self._known(found, node)
        return found

    def _pair_of(self, tensor: torch.Tensor) -> Any:
        """The parts of a complex tensor; one that no call here has made is a constant."""
        if not tensor.is_complex():
            return tensor
        if tensor not in self._pairs:
            self._pairs[tensor] = _parts(tensor)
        return self._pairs[tensor]

    def _note_choices(self, name: str, node: torch.fx.Node) -> None:
        """Indices of maxima stay open, also where they are moved."""
        moved = name in MOVES and not self._choices.isdisjoint(node.all_input_nodes)
        if name in CHOOSING or moved:
            self._choices.update((node, *node.users))

    def _node_of(self, tensor: torch.Tensor) -> torch.fx.Node:
        """What makes a tensor; one that no call here has made is a constant of the graph."""
        if tensor not in self._nodes:
            node = self.graph.call_function(torch.ops.aten.lift_fresh_copy.default)
            node.meta[SETTLED] = getattr(tensor, PRECISE, tensor).clone()
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
            self._fixed[node] = self._noted(condition, condition.clone(), what)
        return self._fixed[node]

    def _noted(self, condition: torch.Tensor, taken: torch.Tensor, what: str) -> torch.Tensor:
        """The graph holds where a condition is what is taken for it."""
        noted = self.graph.call_function(DECIDED, (self._node_of(condition), what))
        noted.meta["custom"] = traceback.get_current_meta().get("custom")
        noted.meta[TAKEN] = taken
        noted.meta["val"] = _without_numbers(taken)
        return taken

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


def parts_of(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """By name, with two parts in place of each complex tensor: the inputs of a graph that is recorded."""
    found: dict[str, torch.Tensor] = {}
    for name, tensor in inputs.items():
        if tensor.is_complex():
            parts = _parts(tensor)
            found |= {f"{name}.real": parts.re, f"{name}.imag": parts.im}
        else:
            found[name] = tensor
    return found


def _with_strides(x: torch.Tensor, strides: Sequence[int]) -> torch.Tensor:
    """A copy; along axes of stride 0 all numbers are one."""
    first = x
    for axis, stride in enumerate(strides):
        if stride == 0 and x.shape[axis] > 1:
            first = first.narrow(axis, 0, 1)
    return torch.empty_strided(first.shape, strides, dtype=x.dtype).copy_(first).expand(x.shape)


def _parts(tensor: torch.Tensor) -> Pair:
    plain = tensor.detach().resolve_conj()
    return Pair(plain.real.clone(), plain.imag.clone())


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
