"""The user's own function, run by PyTorch in a format: the subject, never the judge."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from roundoff.arguments import MOST_THREADS, flag, whole
from roundoff.errors import ArgumentError, UnsupportedError
from roundoff.gradients.brought_along import BroughtAlong
from roundoff.gradients.inputs import float64_array
from roundoff.locks import TORCH
from roundoff.numbers.formats import Format, as_format, rounder
from roundoff.trace.checks import (
    OUTPUT,
    UPSTREAM,
    check_device,
    check_output_apart,
    check_problem,
)
from roundoff.trace.users_function import (
    as_tensor,
    call,
    check_wrt,
    evaluate,
    of_copies,
    real_parts,
)

Array = npt.NDArray[np.float64]


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Run torch with a stated number of threads; the former number comes back.

    The number is the process's: others of its threads wait to trace or to run natively meanwhile.

    Raises: ArgumentError for a count below one.
    """
    whole("threads", count, 1, MOST_THREADS)
    with TORCH:
        before = torch.get_num_threads()
        torch.set_num_threads(count)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@TORCH
def native_gradients(
    function: Callable[..., Any],
    inputs: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    loss: Callable[..., Any] | None = None,
    upstream: Any = None,
    *,
    format: Any = "float32",
    device: Any = "cpu",
    output: Any = None,
    forward: bool = False,
    along: bool = True,
) -> dict[str, Array]:
    """The gradients of loss(function(**inputs)) as PyTorch computes them in a format.

    Floating-point inputs are rounded to the format, once, and have its dtype; the others go as they are, and
    tensors that the function brings along (a module's weights, say) do where PyTorch takes them beside those
    of the format; else they are cast to it, unless along says no.  output: which of several outputs;
    forward: the result has the function's output, too, as "output".  The results are float64 arrays of the
    format's numbers.
    Thread count and numeric flags are torch's at the time: see `threads`.

    Raises: ArgumentError for arguments that do not fit; UnsupportedError for a format that torch does
    not compute in.
    """
    check_problem(function, inputs, wrt, loss)
    check_device(device)
    flag("forward", forward)
    target = as_format(format)
    dtype = native_dtype(target)
    values = dict(inputs) if upstream is None else {**inputs, UPSTREAM: upstream}
    try:
        tensors = {n: _cast(as_tensor(n, v), target, dtype, device) for n, v in values.items()}
    except (AssertionError, RuntimeError) as error:
        raise ArgumentError(
            f"cannot put the inputs on device {device!r}: {_first_line(error)}; use 'cpu'"
        ) from None
    apart = {n: t for n, t in tensors.items() if n != UPSTREAM}
    wrt = check_wrt(apart, wrt, outputs=forward)
    if forward:
        check_output_apart(wrt)
    try:
        out, found = _evaluated(function, tensors, wrt, loss, output, dtype if along else None)
    except RuntimeError as error:
        raise UnsupportedError(
            f"PyTorch could not compute the gradients in {target}: {_first_line(error)}; leave this "
            "format out"
        ) from error
    gradients = {name: float64_array(g) for name, g in zip(wrt, found, strict=True)}
    return {**gradients, OUTPUT: float64_array(out)} if forward else gradients


def _evaluated(
    function: Callable[..., Any], tensors: Mapping[str, torch.Tensor], wrt: Sequence[str],
    loss: Any, output: Any, dtype: torch.dtype | None,
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:  # fmt: skip
    """As it is; where that fails by types that do not go together, with what it brings along cast, too."""
    try:
        return evaluate(function, tensors, wrt, loss, output)
    except RuntimeError as error:
        told = str(error)
        if dtype is None or not ("dtype" in told or "scalar type" in told):
            raise
        with BroughtAlong(dtype, tensors.values()):
            return evaluate(function, tensors, wrt, loss, output)


@TORCH
def native_output(
    function: Callable[..., Any], inputs: Mapping[str, Any], *, output: Any = None
) -> torch.Tensor:
    """What the function returns for its inputs in float32; of complex numbers, the parts.

    Raises: ArgumentError where that is not one tensor; UnsupportedError where PyTorch cannot run it.
    """
    target = as_format("float32")
    tensors = {n: _cast(as_tensor(n, v), target, torch.float32, "cpu") for n, v in inputs.items()}
    try:
        try:
            found = call(function, tensors, output)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            for tensor in tensors.values():  # it takes gradients inside
                tensor.requires_grad_(tensor.is_floating_point())
            with torch.enable_grad():
                found = call(of_copies(function), tensors, output)
        return real_parts(found).detach()
    except RuntimeError as error:
        raise UnsupportedError(
            f"PyTorch could not run the function: {_first_line(error)}"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0]


def native_dtype(target: Format) -> torch.dtype:
    """torch's dtype for a format.  Raises: UnsupportedError where torch does not compute in it."""
    dtype = target.torch_dtype
    if dtype is None or dtype.itemsize < 2:
        raise UnsupportedError(
            f"torch does not compute gradients in {target}; simulate it, or run float16, bfloat16, "
            "float32 or float64"
        )
    return dtype


def as_native(values: Array, target: Format, device: Any = "cpu") -> torch.Tensor:
    """float64 numbers of a format as a tensor of its dtype."""
    return torch.from_numpy(np.array(values, np.float64)).to(device, native_dtype(target))


def _cast(tensor: torch.Tensor, target: Format, dtype: torch.dtype, device: Any) -> torch.Tensor:
    if not tensor.is_floating_point():
        return tensor.to(device, copy=True)  # the function may write into it
    # torch casts float64 to narrow formats by way of float32; the rounding here is the only one.
    values = np.array(float64_array(tensor), order="C")
    return as_native(rounder(target)(np.atleast_1d(values)).reshape(values.shape), target, device)
