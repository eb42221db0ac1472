"""A PyTorch function and its gradients, captured by make_fx and lowered to steps.

Two passes, as measured on torch 2.13: make_fx over torch.autograd.grad, which follows in-place code
and a Python autograd.Function's own backward; then make_fx over functionalize of that graph.
"""

from __future__ import annotations

import contextlib
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from roundoff.arguments import described
from roundoff.errors import ArgumentError, RoundoffError, UnsupportedError
from roundoff.exclusive import TORCH
from roundoff.trace.exactly import ExactConstants
from roundoff.trace.lowering import Value, literal, lower
from roundoff.trace.problem import check_problem
from roundoff.trace.steps import Builder, Trace
from roundoff.trace.writes import PutBack, declare_updates, drop_last_writes, lift

Loss = Callable[[torch.Tensor], torch.Tensor]
UPSTREAM = "upstream gradient"
OUTPUT = "output"


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
) -> Trace:
    """The gradients of loss(function(**inputs)) as a Trace with one output per name in wrt.

    inputs: tensors, arrays or numbers; their values do not matter, only shapes and types.
    wrt: names of floating-point inputs (default: all of them).  loss maps the output to a scalar; without
    it the output itself is the scalar, or upstream is its fixed upstream gradient (an input of the trace
    then).  output: which of several outputs, an index or a key; forward: the trace has the function's
    output beside the gradients, as "output".

    Raises: ArgumentError for arguments that do not fit each other; UnsupportedError for what cannot
    be traced, by name.
    """
    check_problem(function, inputs, wrt, loss)
    tensors = {name: as_tensor(name, value) for name, value in inputs.items()}
    for name, tensor in tensors.items():
        if tensor.numel() == 0:
            raise ArgumentError(
                f"input {name!r} of shape {tuple(tensor.shape)} is empty; give elements"
            )
    wrt = check_wrt(tensors, wrt)
    if upstream is not None:
        if loss is not None:
            raise ArgumentError("both loss and upstream are given; give one of them")
        tensors[UPSTREAM] = as_tensor(UPSTREAM, upstream)
    names = list(tensors)
    examples = [
        t.detach().to("cpu", torch.float32 if t.is_floating_point() else t.dtype, copy=True)
        for t in tensors.values()
    ]

    def gradients(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        given = dict(zip(names, values, strict=True))
        out, found = evaluate(function, given, wrt, loss, output)
        return (*found, out.detach()) if forward else found

    graph, brought = _capture(gradients, examples)
    outputs = (*wrt, OUTPUT) if forward else wrt
    return _lower_graph(graph, dict(zip(names, examples, strict=True)), brought, outputs)


def as_tensor(name: str, value: Any) -> torch.Tensor:
    """A tensor of any input.  Raises: ArgumentError naming the input that cannot be one."""
    found: torch.Tensor = value
    if not isinstance(value, torch.Tensor):
        try:
            found = torch.as_tensor(np.asarray(value))  # a Python float is a float64
        except (TypeError, ValueError, RuntimeError):
            raise ArgumentError(
                f"input {name!r} is a {type(value).__name__}; give a tensor, an array or a number"
            ) from None
    if found.is_complex():
        raise ArgumentError(
            f"input {name!r} is complex ({found.dtype}); give its real and imaginary parts"
        )
    if found.is_meta:
        raise ArgumentError(f"input {name!r} is a meta tensor, without numbers; give a real one")
    if found.layout != torch.strided:
        raise ArgumentError(f"input {name!r} is sparse ({found.layout}); give x.to_dense()")
    return found


def check_wrt(tensors: Mapping[str, torch.Tensor], wrt: Sequence[str] | None) -> tuple[str, ...]:
    """The names to differentiate by.  Raises: ArgumentError for one that has no gradient."""
    floating = tuple(name for name, t in tensors.items() if t.is_floating_point())
    if wrt is None:
        wrt = floating
    wrt = (wrt,) if isinstance(wrt, str) else tuple(wrt)
    for name in wrt:
        if name not in tensors:
            raise ArgumentError(f"wrt names {name!r}; the inputs are {', '.join(tensors)}")
        if name not in floating:
            raise ArgumentError(
                f"input {name!r} is of type {tensors[name].dtype}, which has no gradient; "
                "leave it out of wrt"
            )
    if not wrt:
        raise ArgumentError("no floating-point input to differentiate by; give one")
    return wrt


def evaluate(
    function: Callable[..., Any],
    tensors: Mapping[str, torch.Tensor],
    wrt: Sequence[str],
    loss: Loss | None,
    output: Any = None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """The function's output and torch's own gradients; used to trace and to run natively.

    Raises: ArgumentError where the output is not one tensor, or not a scalar and there is no loss.
    """
    with torch.enable_grad():
        values = {
            name: t.detach().requires_grad_() if name in wrt else t.detach()
            for name, t in tensors.items()
        }
        upstream = values.pop(UPSTREAM, None)
        result = call(function, values, output)
        out = result if loss is None else loss(result)
        if not isinstance(out, torch.Tensor) or (upstream is None and out.numel() != 1):
            what = f"shape {tuple(out.shape)}" if isinstance(out, torch.Tensor) else "no tensor"
            whose = "the function's output" if loss is None else "the loss"
            raise ArgumentError(f"{whose} has {what}, not a scalar; give loss= or upstream=")
        if upstream is not None and upstream.shape != out.shape:
            raise ArgumentError(
                f"upstream has shape {tuple(upstream.shape)}, the output {tuple(out.shape)}; "
                "they must be equal"
            )
        if not out.requires_grad:
            raise ArgumentError(f"the output does not depend on any of {', '.join(wrt)}; check wrt")
        grads = torch.autograd.grad(
            out, [values[name] for name in wrt], grad_outputs=upstream, allow_unused=True
        )
    return result, tuple(
        torch.zeros_like(values[name]) if g is None else g
        for name, g in zip(wrt, grads, strict=True)
    )


def call(
    function: Callable[..., Any], values: Mapping[str, torch.Tensor], output: Any = None
) -> torch.Tensor:
    """The function's one output, or the chosen one.

    Raises: ArgumentError where it cannot be called, or does not return what is asked for.
    """
    try:
        out = function(**values)
    except TypeError as error:
        raise ArgumentError(
            f"the function could not be called with the inputs {', '.join(values)}: {error}"
        ) from error
    if output is not None:
        try:
            out = out[output]
        except (IndexError, KeyError, TypeError, ValueError, RuntimeError):
            raise ArgumentError(
                f"output is {described(output)}, but the function returned a {type(out).__name__} without "
                "that; give an index or a key that it has"
            ) from None
    if not isinstance(out, torch.Tensor):
        several = isinstance(out, tuple | list | Mapping)
        hint = f" of {len(out)}; pick one with output=" if several else "; return one tensor"
        raise ArgumentError(f"the function returned a {type(out).__name__}{hint}")
    return out


@contextlib.contextmanager
def _plain_kernels() -> Iterator[None]:
    """Fused operations off, in the whole process: mkldnn leaks its own, attention has many backends."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    before = torch._C._get_mkldnn_enabled()
    with sdpa_kernel(SDPBackend.MATH):
        torch._C._set_mkldnn_enabled(False)
        try:
            yield
        finally:
            torch._C._set_mkldnn_enabled(before)


#: What PyTorch raises where a shape depends on numbers; sizes that it does not know are called u0, u1, ...
_SHAPES = "DataDependentOutputException DynamicOutputShapeException GuardOnDataDependentSymNode"


@contextlib.contextmanager
def _told(kind: type[RoundoffError], what: str) -> Iterator[None]:
    """Whatever PyTorch raises here, as an error of ours in one sentence, with its cause."""
    try:
        yield
    except RoundoffError:
        raise
    except Exception as error:
        first = str(error).strip().split("\n")[0]
        if "get value out of a tracing tensor" in first:
            raise UnsupportedError(
                "the function turns a tensor into a Python number (an if, float() or .item() on "
                "data), which no trace can follow; keep it a tensor, with torch.where for an if"
            ) from error
        if type(error).__name__ in _SHAPES.split() or re.search(r"\bu\d+\b", first):
            raise UnsupportedError(
                "the shape of a result depends on numbers (a mask as an index, nonzero, masked_select), "
                "which no trace can follow; keep the shape, with torch.where"
            ) from error
        name = "" if isinstance(error, RuntimeError) else f"{type(error).__name__}: "
        hint = "; let it copy first, x.clone()" if "in-place" in first else ""
        raise kind(f"{what}: {name}{first}{hint}") from error


def _capture(
    function: Callable[..., Any], examples: list[torch.Tensor]
) -> tuple[torch.fx.GraphModule, dict[str, torch.Tensor]]:
    """A graph without writes, and what it takes behind the examples: what the function brings along."""
    with _plain_kernels(), ExactConstants():
        with _told(ArgumentError, "PyTorch could not run the function"), PutBack() as writes:
            graph = make_fx(function)(*examples)
        declare_updates(graph.graph)
        brought = lift(graph, writes.storages)
        graph.recompile()
        with _told(UnsupportedError, "cannot trace the function"):
            graph = make_fx(functionalize(graph), tracing_mode="fake", _allow_non_fake_inputs=True)(
                *examples, *brought.values()
            )
    drop_last_writes(graph.graph)
    graph.graph.eliminate_dead_code()
    return graph, brought


def _lower_graph(
    module: torch.fx.GraphModule,
    examples: Mapping[str, torch.Tensor],
    brought: Mapping[str, torch.Tensor],
    wrt: Sequence[str],
) -> Trace:
    build = Builder()
    closures: dict[str, np.ndarray[Any, Any]] = {}
    values: dict[torch.fx.Node, Any] = {}
    given, behind = list(examples.items()), list(brought.items())
    result: Any = ()

    def argument(tree: Any) -> Any:
        return torch.fx.node.map_arg(tree, values.__getitem__)

    for node in module.graph.nodes:
        if node.op == "placeholder":
            if given:
                values[node] = _placeholder(build, *given.pop(0))
            else:
                name, tensor = behind.pop(0)
                values[node] = _closure(build, f"closure {name}", tensor, closures)
        elif node.op == "get_attr":
            tensor = getattr(module, str(node.target))
            values[node] = _closure(build, f"closure {node.target}", tensor, closures)
        elif node.op == "call_function" and node.target is operator.getitem:
            values[node] = argument(node.args[0])[node.args[1]]
        elif node.op == "call_function":
            args, kwargs = argument(node.args), argument(node.kwargs)
            values[node] = lower(build, node.target, args, kwargs, node.meta.get("val"))
        elif node.op == "output":
            result = argument(node.args[0])
    steps = {
        name: value.step if isinstance(value, Value) else _constant_output(build, value)
        for name, value in zip(wrt, result, strict=True)
    }
    return Trace(tuple(build.steps), steps, closures)


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
