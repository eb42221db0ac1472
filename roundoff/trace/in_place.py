"""In-place operations: what they write is traced, and the tensors get their old numbers back afterwards.

functionalize, by which a graph loses its writes, knows those that a schema declares, into inputs of the graph
and what is made of them.  The rest is done here: batch norm updates its statistics undeclared, and
tensors that a function brings along are no inputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from roundoff.errors import UnsupportedError

aten = torch.ops.aten


class PutBack(TorchDispatchMode):
    """Tensors that were there before, and are written into, get their numbers back at the end.

    storages: of those tensors.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.storages: set[int] = set()
        self._made: set[int] = set()
        self._kept: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for tensor in _written(function, args, kwargs):
            if storage_of(tensor) not in self._made:
                self.storages.add(storage_of(tensor))
                with _disable_current_modes():  # a trace is made above this one
                    self._kept.append((tensor, tensor.detach().clone()))
        result = function(*args, **kwargs)
        if all(value.alias_info is None for value in function._schema.returns):
            self._made.update(map(storage_of, _tensors(result)))
        return result

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for tensor, values in reversed(self._kept):
                tensor.copy_(values)


def storage_of(tensor: torch.Tensor) -> int:
    """The memory that a tensor shares with its views, by number; 0 where it has none."""
    return tensor.untyped_storage()._cdata if tensor.layout == torch.strided else 0


def _tensors(tree: Any) -> list[torch.Tensor]:
    leaves = torch.utils._pytree.tree_leaves(tree)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _updates(function: Any, args: Any) -> bool:
    """Whether this is a batch norm that updates its running statistics."""
    return function is aten.native_batch_norm.default and args[3] is not None and bool(args[5])


def _written(function: Any, args: Any, kwargs: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    if _updates(function, args):
        yield from _tensors(args[3:5])
    for place, argument in enumerate(function._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            given = args[place] if place < len(args) else kwargs.get(argument.name)
            yield from _tensors(given)


def declare_updates(graph: torch.fx.Graph) -> None:
    """Batch norm by the operation whose schema says that it writes."""
    for node in graph.nodes:
        if node.op == "call_function" and _updates(node.target, node.args):
            node.target = aten._native_batch_norm_legit.default


def lift(module: torch.fx.GraphModule, written: set[int]) -> dict[str, torch.Tensor]:
    """Turn the tensors that the function brought along into inputs, behind the others.

    Returns them by the name of their attribute.  written: storages.

    Raises: UnsupportedError where two of them share memory that is written into.
    """
    found: dict[str, torch.Tensor] = {}
    inputs: dict[str, torch.fx.Node] = {}
    nodes = list(module.graph.nodes)
    last = [node for node in nodes if node.op == "placeholder"][-1]
    for node in nodes:
        if node.op != "get_attr":
            continue
        name = str(node.target)
        if name not in inputs:
            found[name] = getattr(module, name)
            with module.graph.inserting_after(last):
                last = inputs[name] = module.graph.placeholder(name)
        node.replace_all_uses_with(inputs[name])
        module.graph.erase_node(node)
    storages = [storage_of(tensor) for tensor in found.values()]
    if any(storages.count(storage) > 1 for storage in written):
        raise UnsupportedError(
            "the function writes into a tensor that it brings along, and reads the same memory by another "
            "one; let it bring one of them, and take views of that inside"
        )
    return found


def drop_last_writes(graph: torch.fx.Graph) -> None:
    """Without the copies into inputs by which a functional graph ends: nobody reads those again."""
    for node in reversed(list(graph.nodes)):
        into = node.target is aten.copy_.default and node.args[0].op == "placeholder"
        if into and not node.users:
            graph.erase_node(node)
