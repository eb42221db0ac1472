"""A PyTorch function and its gradients, captured by make_fx and lowered to steps.

Two passes, as measured on torch 2.13: make_fx over torch.autograd.grad, which follows in-place code
and a Python autograd.Function's own backward; then that graph once more, under functionalize.
"""

from __future__ import annotations

import contextlib
import operator
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.fx._lazy_graph_module import _use_lazy_graph_module
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.proxy_tensor import make_fx

from roundoff.errors import ArgumentError, RoundoffError, UnsupportedError
from roundoff.locks import TORCH
from roundoff.numbers.formats import Format, as_format, rounder
from roundoff.trace.checks import OUTPUT, UPSTREAM, check_output_apart, check_problem
from roundoff.trace.decided import DECIDED, TAKEN
from roundoff.trace.draws import Draws, check_the_same
from roundoff.trace.exact_constants import ExactConstants
from roundoff.trace.functional_graph import SETTLED, functional, parts_of
from roundoff.trace.in_place import PutBack, declare_updates, drop_last_writes, lift
from roundoff.trace.lowering import Value, computed_in, format_name, literal, lower, narrows, take
from roundoff.trace.settled import Settled
from roundoff.trace.source_finder import Sources, keeping_sources, source_of
from roundoff.trace.steps import Builder, Trace
from roundoff.trace.type_dependence import Run
from roundoff.trace.users_function import Loss, as_tensor, check_elements, check_wrt, evaluate

_NOT_RUN = "PyTorch could not run the function"


class Subject:
    """What is traced: the gradients of loss(function(**inputs)), and the output where `forward` says so.

    Raises: ArgumentError for arguments that do not fit each other.
    """

    def __init__(
        self, function: Callable[..., Any], inputs: Mapping[str, Any], wrt: Sequence[str] | None,
        loss: Loss | None, upstream: Any, output: Any, *, forward: bool,
    ) -> None:  # fmt: skip
        check_problem(function, inputs, wrt, loss)
        tensors = {name: as_tensor(name, value) for name, value in inputs.items()}
        check_elements(tensors)
        self.wrt = check_wrt(tensors, wrt, outputs=forward)
        if forward:
            check_output_apart(self.wrt)
        if upstream is not None:
            if loss is not None:
                raise ArgumentError("both loss and upstream are given; give one of them")
            tensors[UPSTREAM] = as_tensor(UPSTREAM, upstream)
        self.function, self.loss, self.output, self.forward = function, loss, output, forward
        self.tensors = tensors

    def examples(self, dtype: torch.dtype, target: Format | None = None) -> list[torch.Tensor]:
        """The inputs in a floating-point type, rounded to a format first; integers as they are."""
        return [
            _rounded(t, target).to(
                device="cpu", dtype=dtype if t.is_floating_point() else t.dtype, copy=True
            )
            for t in self.tensors.values()
        ]

    def gradients(self, *values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The gradients, and the output where it is wanted."""
        given = dict(zip(self.tensors, values, strict=True))
        out, found = evaluate(self.function, given, self.wrt, self.loss, self.output)
        return (*found, out.detach()) if self.forward else found

    def trace(self, dtype: torch.dtype, target: Format | None = None) -> Trace:
        """The trace of a run in a type, at the inputs rounded to a format (None: to the type).

        Raises: NotRunError where PyTorch cannot; UnsupportedError.
        """
        examples = self.examples(dtype, target)
        graph, brought = _capture(self.gradients, examples)
        given = dict(zip(self.tensors, examples, strict=True))
        outputs = (*self.wrt, OUTPUT) if self.forward else self.wrt
        return _lower_graph(graph, given, brought, outputs, format_name(dtype))

    def run(self, dtype: torch.dtype) -> Run:
        """What a run in a type asks of PyTorch.  Raises: NotRunError where PyTorch cannot."""
        examples = self.examples(dtype)
        made = Run(dtype, examples)
        settled, told = Settled(), _told(NotRunError, _NOT_RUN)
        with _plain_kernels(), ExactConstants(settled), told, PutBack(), made, settled, Draws():
            self.gradients(*examples)
        return made


def _rounded(tensor: torch.Tensor, target: Format | None) -> torch.Tensor:
    if target is None or not tensor.is_floating_point():
        return tensor.detach()
    values = tensor.detach().to(device="cpu", dtype=torch.float64).numpy(force=True)
    return torch.from_numpy(rounder(target)(np.atleast_1d(values).copy()).reshape(values.shape))


@TORCH
def trace_gradients(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    loss: Loss | None = None,
    upstream: Any = None,
    *,
    output: Any = None,
    forward: bool = False,
    format: Any = "float32",
) -> Trace:
    """The gradients of loss(function(**inputs)) as a Trace with one output per name in wrt.

    The function runs in the format's own type, so a step that it does not cast has the format None.  Where
    torch computes no gradients in it, the trace is that of float32.

    inputs: tensors, arrays or numbers; their values matter where the function decides by them, which the
    trace guards.  Tensors that the function brings along are inputs of the trace, too, in the type that they
    have.
    wrt: names of floating-point inputs (default: all of them).  loss maps the output to a scalar; without
    it the output itself is the scalar, or upstream is its fixed upstream gradient (an input of the trace
    then).  output: which of several outputs, an index or a key; forward: the trace has the function's
    output beside the gradients, as "output".

    Raises: ArgumentError for arguments that do not fit each other; UnsupportedError for what cannot
    be traced, by name.
    """
    subject = Subject(function, inputs, wrt, loss, upstream, output, forward=forward)
    target = as_format(format)
    own = target.torch_dtype
    if own is not None and own.itemsize > 1:
        with contextlib.suppress(NotRunError):
            return subject.trace(own)
    return for_format(subject.trace(torch.float32, target), target)


class NotRunError(ArgumentError):
    """PyTorch raised an error where it ran the function."""


def for_format(trace: Trace, target: Format) -> Trace:
    """The float32 trace for a format that torch does not run the function in, with rounded closures.

    Raises: ArgumentError where that overflows.
    """
    for name, values in trace.closures.items():
        most = np.abs(values).max(initial=0.0)
        if target.overflow_threshold <= most < np.inf:
            raise ArgumentError(
                f"a tensor that the function brings along ({name}) holds {most:g}, beyond the largest "
                f"{target} number {target.max:g}; scale it, or take a format with a wider range"
            )
    to_format = rounder(target)
    copies = {name: np.array(v, np.float64) for name, v in trace.closures.items()}  # overwritten
    closures = {n: to_format(np.atleast_1d(v)).reshape(v.shape) for n, v in copies.items()}
    return replace(trace, closures=closures) if closures else trace


@contextlib.contextmanager
def _plain_kernels() -> Iterator[None]:
    """Fused operations off, in the whole process: mkldnn leaks its own, attention has many backends.

    What `torch.compile` has made runs as it was written.
    """
    from torch.nn.attention import SDPBackend, sdpa_kernel

    before = torch._C._get_mkldnn_enabled()
    with sdpa_kernel(SDPBackend.MATH), _uncompiled():
        torch._C._set_mkldnn_enabled(False)
        try:
            yield
        finally:
            torch._C._set_mkldnn_enabled(before)


@contextlib.contextmanager
def _uncompiled() -> Iterator[None]:
    if "torch._dynamo" not in sys.modules:  # nothing was compiled
        yield
        return
    from torch._dynamo import config

    with torch.compiler.set_stance("force_eager"), config.patch(error_on_nested_fx_trace=False):  # type: ignore[attr-defined]
        yield


#: What PyTorch raises where a shape depends on numbers; sizes that it does not know are called u0, u1, ...
_SHAPES = "DataDependentOutputException DynamicOutputShapeException GuardOnDataDependentSymNode"


@contextlib.contextmanager
def _told(kind: type[RoundoffError], what: str) -> Iterator[None]:
    """Turn whatever PyTorch raises here into an error of ours: one sentence, with its cause."""
    try:
        yield
    except RoundoffError:
        raise
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        if "get value out of a tracing tensor" in first:
            raise UnsupportedError(
                "the function turns a floating-point tensor into a Python number (float() or .item()), which "
                "no trace can follow; keep it a tensor, or compare it before it is read: bool(x > 1)"
            ) from error
        if type(error).__name__ in _SHAPES.split() or re.search(r"\bu\d+\b", first):
            raise UnsupportedError(
                "the shape of a result depends on numbers (a mask as an index, nonzero, masked_select), "
                "which no trace can follow; keep the shape, with torch.where"
            ) from error
        name = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        hint = "; let it copy first, x.clone()" if "in-place" in first else ""
        raise kind(f"{what}: {name}{first}{hint}") from error


@contextlib.contextmanager
def _calls_alone() -> Iterator[None]:
    """make_fx notes calls, without fake results and without code: these two take longer than all else."""
    with (
        mock.patch.object(proxy_tensor, "set_meta", lambda proxy, value: proxy),
        _use_lazy_graph_module(True),
    ):
        yield


def _capture(
    function: Callable[..., Any], examples: list[torch.Tensor]
) -> tuple[torch.fx.Graph, dict[str, torch.Tensor]]:
    """A graph without writes, and what it takes behind the examples: what the function brings along."""
    settled, sources, draws = Settled(), Sources(evaluate.__code__), Draws()

    def run(*values: torch.Tensor) -> Any:
        with settled, sources, draws:
            return function(*values)

    with _plain_kernels(), ExactConstants(settled), _calls_alone(), keeping_sources():
        with _told(NotRunError, _NOT_RUN), PutBack() as writes:
            graph = make_fx(run, _disable_torch_fn_metadata_mode=True)(*examples)
        if draws.states:
            with PutBack():
                check_the_same(lambda: function(*examples), draws)
        declare_updates(graph.graph)
        brought = lift(graph, writes.storages)
        with _told(UnsupportedError, "cannot trace the function"), PutBack():
            functional_graph = functional(graph, [*examples, *brought.values()])
        drop_last_writes(functional_graph)
        functional_graph.eliminate_dead_code()
    return functional_graph, parts_of(brought)


def _lower_graph(
    graph: torch.fx.Graph,
    examples: Mapping[str, torch.Tensor],
    brought: Mapping[str, torch.Tensor],
    wrt: Sequence[str],
    declared: str,
) -> Trace:
    build = Builder(declared)
    closures: dict[str, np.ndarray[Any, Any]] = {}
    values: dict[torch.fx.Node, Any] = {}
    given, behind = list(examples.items()), list(brought.items())
    result: Any = ()

    def argument(tree: Any, out: Any = None) -> Any:
        own = computed_in(out)
        return torch.fx.node.map_arg(tree, lambda node: _as_read(values[node], node, own))

    for node in graph.nodes:
        if node.op == "placeholder":
            if given:
                values[node] = _placeholder(build, *given.pop(0))
            else:
                name, tensor = behind.pop(0)
                values[node] = _closure(build, f"closure {name}", tensor, closures)
        elif SETTLED in node.meta:
            values[node] = node.meta[SETTLED]
        elif node.op == "call_function" and node.target is operator.getitem:
            values[node] = argument(node.args[0])[node.args[1]]
        elif node.target is DECIDED:
            build.source, (condition, what) = source_of(node), node.args
            values[node] = take(build, values[condition], node.meta[TAKEN], str(what))
        elif node.op == "call_function":
            out = node.meta.get("val")
            args, kwargs = argument(node.args, out), argument(node.kwargs, out)
            build.source = source_of(node)
            values[node] = lower(build, node.target, args, kwargs, out)
        elif node.op == "output":
            result = argument(node.args[0])
    steps = {
        name: value.step if isinstance(value, Value) else _constant_output(build, value)
        for name, value in zip(wrt, result, strict=True)
    }
    return Trace(tuple(build.steps), steps, closures, tuple(build.guards))


def _as_read(value: Any, node: torch.fx.Node, own: torch.dtype | None) -> Any:
    """A folded tensor of literals, as a call in a wider type reads it: rounded to the type that it has."""
    folded = isinstance(value, torch.Tensor) and value.is_floating_point()
    stored = node.meta["val"].dtype if folded and "val" in node.meta else None
    return value.to(stored).to(value.dtype) if narrows(own, stored) else value


def _constant_output(build: Builder, value: torch.Tensor) -> int:
    return literal(build, value).step


def _placeholder(build: Builder, name: str, example: torch.Tensor) -> Any:
    """Integer inputs are folded: the trace is for these values of them."""
    if not example.is_floating_point():
        return example
    shape = tuple(example.shape)
    return Value(build.input(name, shape), shape, tuple(example.stride()), example.dtype)


def _closure(build: Builder, name: str, tensor: torch.Tensor, closures: dict[str, Any]) -> Any:
    if not tensor.is_floating_point():
        return tensor
    if torch.isinf(tensor).any():  # a mask
        return literal(build, tensor)
    closures[name] = tensor.detach().to(device="cpu", dtype=torch.float64).numpy().copy()
    shape = tuple(tensor.shape)
    return Value(build.input(name, shape), shape, tuple(tensor.stride()), tensor.dtype)
