"""The user's function as PyTorch runs it: its inputs as tensors, its output and torch's own gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import numpy as np
import torch

from roundoff.arguments import described, instance
from roundoff.errors import ArgumentError
from roundoff.trace.checks import UPSTREAM

Loss = Callable[[torch.Tensor], torch.Tensor]


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


def check_elements(tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise ArgumentError for an input without elements."""
    for name, tensor in tensors.items():
        if tensor.numel() == 0:
            raise ArgumentError(
                f"input {name!r} of shape {tuple(tensor.shape)} is empty; give elements"
            )


def check_wrt(
    tensors: Mapping[str, torch.Tensor], wrt: Sequence[str] | None, *, outputs: bool = False
) -> tuple[str, ...]:
    """The names to differentiate by.  Raises: ArgumentError for one that has no gradient."""
    floating = tuple(name for name, t in tensors.items() if t.is_floating_point())
    given = wrt
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
    if not wrt and not (outputs and given is not None):
        other = ", or wrt=() to ask for the output alone" if outputs else ""
        raise ArgumentError(f"no floating-point input to differentiate by; give one{other}")
    return wrt


def evaluate(
    function: Callable[..., Any],
    tensors: Mapping[str, torch.Tensor],
    wrt: Sequence[str],
    loss: Loss | None,
    output: Any = None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """The function's output and torch's own gradients; used to trace and to run natively.

    Without names in wrt it is the output alone, and no loss is asked for.  A function that writes into its
    inputs gets copies; one with reentrant checkpoints is differentiated as these want it.  A complex
    output is taken as its real and imaginary parts, along a last axis, but by a loss.

    Raises: ArgumentError where the output is not one tensor, or not a scalar and there is no loss.
    """
    if not wrt:
        with torch.inference_mode(False), torch.no_grad():
            plain = {n: t.clone() if t.is_inference() else t for n, t in tensors.items()}
            plain.pop(UPSTREAM, None)
            return real_parts(call(function, plain, output)), ()
    versions = [tensor._version for tensor in tensors.values() if not tensor.is_inference()]
    try:
        return _differentiated(function, tensors, wrt, loss, output)
    except RuntimeError as error:
        first = str(error)
        if versions != [t._version for t in tensors.values() if not t.is_inference()]:
            raise  # what it has written on the way would be read again
        if "leaf Variable that requires grad" in first:
            return _differentiated(of_copies(function), tensors, wrt, loss, output)
        if "use_reentrant=True" in first:
            return _differentiated(function, tensors, wrt, loss, output, gradients=_accumulated)
        raise


def of_copies(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that may write into what it is given."""
    return lambda **values: function(**{name: value.clone() for name, value in values.items()})


def _accumulated(
    out: torch.Tensor, leaves: Sequence[torch.Tensor], grad_outputs: Any, **_: Any
) -> Any:
    """Gradients by `backward`, the only way with reentrant checkpoints."""
    torch.autograd.backward(out, grad_outputs)
    return [leaf.grad for leaf in leaves]


def _differentiated(
    function: Callable[..., Any], tensors: Mapping[str, torch.Tensor], wrt: Sequence[str],
    loss: Loss | None, output: Any, gradients: Callable[..., Any] = torch.autograd.grad,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:  # fmt: skip
    with torch.inference_mode(False), torch.enable_grad():
        plain = {n: t.clone() if t.is_inference() else t.detach() for n, t in tensors.items()}
        values = {name: t.requires_grad_() if name in wrt else t for name, t in plain.items()}
        upstream = values.pop(UPSTREAM, None)
        result = call(function, values, output)
        out = real_parts(result) if loss is None else _of_loss(loss, result)
        if not isinstance(out, torch.Tensor) or (upstream is None and out.numel() != 1):
            what = f"shape {tuple(out.shape)}" if isinstance(out, torch.Tensor) else "no tensor"
            whose = "the function's output" if loss is None else "the loss"
            remedy = (
                "give loss= or upstream=" if loss is None else "let it return one, as out.sum()"
            )
            raise ArgumentError(f"{whose} has {what}, not a scalar; {remedy}")
        if upstream is not None and upstream.shape != out.shape:
            raise ArgumentError(
                f"upstream has shape {tuple(upstream.shape)}, the output {tuple(out.shape)}; "
                "they must be equal"
            )
        if not out.requires_grad:
            raise ArgumentError(f"the output does not depend on any of {', '.join(wrt)}; check wrt")
        grads = gradients(
            out, [values[name] for name in wrt], grad_outputs=upstream, allow_unused=True
        )
    return real_parts(result), tuple(
        torch.zeros_like(values[name]) if g is None else g
        for name, g in zip(wrt, grads, strict=True)
    )


def real_parts(x: torch.Tensor) -> torch.Tensor:
    """A complex tensor as its real and imaginary parts along a last axis; any other as it is."""
    return torch.view_as_real(x.resolve_conj()) if x.is_complex() else x


def _of_loss(loss: Loss, result: torch.Tensor) -> Any:
    try:
        return loss(result)
    except TypeError as error:
        raise ArgumentError(
            f"the loss could not be called with the output alone: {error}"
        ) from error


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
        instance(
            "output", output, (Integral, str), "an index or a key of what the function returns"
        )
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
