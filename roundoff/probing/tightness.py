"""What knowing the kernel's tree is worth: the error bound along it beside the one for any order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from roundoff.numbers.formats import FLOAT64
from roundoff.probing.kernel_tree import KernelTree

Array = npt.NDArray[np.float64]

#: Magnitudes are products of float64 numbers, summed in float64: a few roundings more, each of 2^-53.
_SLACK = 8 * FLOAT64.u


def along_tree(kernel: KernelTree, magnitudes: Array, products: bool) -> Array:
    """Bound on the error of the kernel's sums: each term's magnitude times the roundings that it passes.

    magnitudes: |term| of every leaf; products: whether terms are products, which may be rounded.
    With d roundings of unit u above a leaf its error is at most (1 + u)^d - 1 times its magnitude, for
    roundings of both formats likewise, and half a smallest subnormal for every one that may underflow.

    Shapes: (n, ...) to (...).
    Source: every leaf passes one rounding per addition above it; Higham, Accuracy and Stability of
    Numerical Algorithms, 2nd ed., 4.2.
    """
    n = kernel.n
    factor = np.zeros(2 * n - 1)
    for k in range(n - 2, -1, -1):
        factor[kernel.tree.children[k]] = factor[n + k] + _unit(kernel, k)
    growth = factor[:n] + _before(kernel, products) + _after(kernel)
    bound = np.tensordot(np.expm1(growth), magnitudes, axes=(0, 0))
    result: Array = (bound + _underflow(kernel, products)) * (1 + (n + 16) * _SLACK)
    return result


def any_order(kernel: KernelTree, magnitudes: Array, products: bool) -> Array:
    """The same without knowing the tree: n - 1 additions above every leaf, of the coarsest unit that occurs.

    Shapes: (n, ...) to (...).
    Source: Jeannerod and Rump 2013: (n - 1) u S for every order of nearest roundings, however large n u is.
    """
    n = kernel.n
    units = [_unit(kernel, k) for k in range(n - 2)] or [0.0]
    last = _unit(kernel, n - 2) if n > 1 else 0.0
    sums = (n - 2) * max(units) + max(last, max(units)) if n > 1 else 0.0
    start = np.expm1(float(_before(kernel, products).max(initial=0.0)) + _after(kernel))
    total = magnitudes.sum(axis=0)
    bound = ((1 + sums) * (1 + start) - 1) * total
    result: Array = (bound + _underflow(kernel, products)) * (1 + (n + 16) * _SLACK)
    return result


def _unit(kernel: KernelTree, k: int) -> float:
    """log(1 + u) at most, of all roundings of one addition."""
    if kernel.joined[k]:
        return 0.0
    found = kernel.accumulate.u
    if kernel.narrow[k] and kernel.accumulate != kernel.format:
        found += kernel.format.u
    if _several(kernel, k):
        # Up to n terms lose less than 2^-kept of the largest each; truncation doubles the rounding.
        found += kernel.n * 2.0**-kernel.kept + kernel.accumulate.u
    return found


def _several(kernel: KernelTree, k: int) -> bool:
    return any(c >= kernel.n and kernel.joined[c - kernel.n] for c in kernel.tree.children[k])


def _before(kernel: KernelTree, products: bool) -> Array:
    """Per leaf, the unit of its product's rounding."""
    if not products:
        return np.zeros(kernel.n)
    return np.where(kernel.fused, 0.0, kernel.format.u)


def _after(kernel: KernelTree) -> float:
    """The roundings of a mean's division and of the result."""
    divided = 0.0 if kernel.divisor is None else (1 + kernel.reciprocal) * kernel.accumulate.u
    return divided + (kernel.format.u if kernel.accumulate != kernel.format else 0.0)


def _underflow(kernel: KernelTree, products: bool) -> float:
    """Half a subnormal for every product, every narrow rounding and the last one."""
    rounded = kernel.n * products + int(kernel.narrow.sum()) + 2
    return rounded * kernel.format.smallest_subnormal
