"""Bounds on sums, dot products and matrix products of given data."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import choice, flag
from roundoff.bounds.bound import Bound
from roundoff.bounds.statements import make_bound
from roundoff.bounds.terms import (
    Kernel,
    Terms,
    columns,
    contraction,
    held,
    joined,
    measure,
    measure_products,
)
from roundoff.errors import ArgumentError
from roundoff.formats import as_float64, as_format
from roundoff.orders import Order, ReductionTree, accumulator, as_order
from roundoff.words import counted

Array = npt.NDArray[np.float64]

ROUNDINGS = ("nearest", "stochastic", "toward_zero")

#: Products of a matrix product held at a time: some ten arrays of 16 MiB.
BLOCK = 1 << 21


def sum(
    values: Any,
    format: Any,
    order: Any = None,
    *,
    accumulate: Any = None,
    rounding: str = "nearest",
) -> Bound:
    """Bounds on the error of sums over the last axis.

    values: numbers; those that the format does not hold are rounded to it, and the bounds include that.
    order: None for any order, else a name, an Order or a ReductionTree; accumulate: the format of the
    partial sums (default: the format), which is rounded to the format at the end; rounding: of the
    partial sums, "nearest", "stochastic" or "toward_zero".  Zero terms do not count.

    Shapes: (..., n) to (...); n may be 0.
    Raises: ArgumentError for NaN, infinities, numbers beyond the format and trees of another size.

    >>> b = sum([1.0, 2.0**60, 1.0, -(2.0**60)], "float32", "kahan")
    >>> float(b.certified) >= 2.0
    True
    """
    kernel = _kernel(format, order, accumulate, rounding)
    numbers, give_back = as_float64(values)
    _check_rank("sum", "values", numbers, 1)
    _check_tree(order, numbers.shape[-1])
    rounded = held(numbers, kernel.format, "values")
    flat = columns(rounded)
    given = np.abs(columns(numbers) - flat).sum(axis=0)
    terms = measure(flat, None, given, kernel)
    n = numbers.shape[-1]
    return make_bound(
        f"a sum of {counted(n, 'term')}", terms, kernel, numbers.shape[:-1], give_back
    )


def dot(
    x: Any,
    y: Any,
    format: Any,
    order: Any = None,
    *,
    accumulate: Any = None,
    fma: bool = False,
    rounding: str = "nearest",
) -> Bound:
    """Bounds on the error of dot products over the last axis; arguments as `sum`.

    Products and partial sums are kept in `accumulate`.  fma: products may enter their addition
    unrounded.  x and y broadcast.

    Shapes: (..., n) and (..., n) to (...).

    >>> b = dot([1.0, 2.0], [3.0, 4.0], "float16", accumulate="float32")
    >>> float(b.certified / b.S) < 1.001 * 2.0**-11
    True
    """
    kernel = _kernel(format, order, accumulate, rounding, products=True, fma=fma)
    (a, give_back), (b, _) = as_float64(x), as_float64(y)
    _check_rank("dot", "x", a, 1)
    _check_rank("dot", "y", b, 1)
    try:
        first, second = np.broadcast_arrays(a, b)
    except ValueError:
        first = None
    if first is None or a.shape[-1] != b.shape[-1]:
        raise ArgumentError(
            f"dot: x has shape {a.shape} and y {b.shape}; pass arrays that broadcast, with as many terms "
            "along the last axis"
        )
    _check_tree(order, first.shape[-1])
    held(a, kernel.format, "x")  # for the place in the message
    held(b, kernel.format, "y")
    terms = measure_products(columns(first), columns(second), kernel, ("x", "y"))
    n = first.shape[-1]
    return make_bound(
        f"a dot product of {counted(n, 'term')}", terms, kernel, first.shape[:-1], give_back
    )


def matmul(
    a: Any,
    b: Any,
    format: Any,
    order: Any = None,
    *,
    accumulate: Any = None,
    fma: bool = False,
    rounding: str = "nearest",
) -> Bound:
    """Bounds on the error of every element of a @ b; arguments as `dot`.

    Valid for kernels that form each element as a sum of products in some order: not for Strassen's or
    Winograd's algorithm, which satisfy normwise bounds only.

    Shapes: (..., m, k) and (..., k, n) to (..., m, n).

    >>> matmul(np.ones((2, 3)), np.ones((3, 4)), "float32").certified.shape
    (2, 4)
    """
    kernel = _kernel(format, order, accumulate, rounding, products=True, fma=fma)
    (x, give_back), (y, _) = as_float64(a), as_float64(b)
    _check_rank("matmul", "a", x, 2)
    _check_rank("matmul", "b", y, 2)
    if x.shape[-1] != y.shape[-2]:
        raise ArgumentError(
            f"matmul: a has shape {x.shape} and b {y.shape}; the last axis of a has as many elements as "
            "the last but one of b"
        )
    k = x.shape[-1]
    _check_tree(order, k)
    held(x, kernel.format, "a")
    held(y, kernel.format, "b")
    try:
        batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    except ValueError:
        raise ArgumentError(
            f"matmul: the leading axes of a {x.shape} and b {y.shape} do not broadcast"
        ) from None
    shape = (*batch, x.shape[-2], y.shape[-1])
    measured = (
        contraction(x, y, kernel) if kernel.order is None else _in_blocks(x, y, shape, kernel)
    )
    return make_bound(
        f"a matrix product over {counted(k, 'term')}", measured, kernel, shape, give_back
    )


def _in_blocks(x: Array, y: Array, shape: tuple[int, ...], kernel: Kernel) -> Terms:
    """All products of a matrix product along its order, some rows of the result at a time."""
    k, (m, n) = x.shape[-1], shape[-2:]
    step = max(1, BLOCK // max(1, k * n * int(np.prod(shape[:-2]))))
    right = np.swapaxes(y, -1, -2)[..., None, :, :]
    parts, shapes = [], []
    for start in range(0, max(1, m), step):
        left = x[..., start : start + step, None, :]
        size = (*shape[:-2], left.shape[-3], n)
        rows = [columns(np.broadcast_to(v, (*size, k))) for v in (left, right)]
        parts.append(measure_products(rows[0], rows[1], kernel, ("a", "b")))
        shapes.append(size)
    return joined(parts, shapes)


# ------------------------------------------------------------------------------------ arguments


def _kernel(
    format: Any,
    order: Any,
    accumulate: Any,
    rounding: str,
    *,
    products: bool = False,
    fma: bool = False,
) -> Kernel:
    choice("rounding", rounding, ROUNDINGS)
    flag("fma", fma)
    target = as_format(format)
    wide = accumulator(target, accumulate)
    if isinstance(order, ReductionTree):
        tree = order
        found: Order | None = Order("the given tree", lambda _: tree)
    else:
        found = None if order is None else as_order(order)
    fused = fma or bool(found and found.fused)
    if fma and found is not None and found.compensation:
        raise ArgumentError(
            f"order {found} has products of its own; leave out fma, or take order 'fma'"
        )
    if rounding != "nearest" and found is not None and found.compensation:
        raise ArgumentError(
            f"order {found} is compensated, which is analysed for rounding to nearest only"
        )
    return Kernel(target, wide, found, rounding, products, fused and products)


def _check_tree(order: Any, n: int) -> None:
    if isinstance(order, ReductionTree) and order.n != n:
        raise ArgumentError(
            f"a tree of {counted(order.n, 'leaf', 'leaves')} for {counted(n, 'term')}; make the tree for {n}"
        )


def _check_rank(function: str, name: str, values: Array, least: int) -> None:
    if values.ndim < least:
        hint = "; for a number of terms alone use bounds.gamma(n, u) and its neighbours"
        raise ArgumentError(
            f"{function}: {name} has shape {values.shape}; give an array of at least {least} "
            f"ax{'is' if least == 1 else 'es'}{hint if least == 1 else ''}"
        )
