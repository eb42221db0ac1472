"""Matrix products of enclosed values: magnitudes, radii, what is counted, and blocks of single products."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.enclosed import Enclosed, exact, slack
from roundoff.arithmetic.exact_operations import known_powers
from roundoff.arithmetic.sum_laws import present
from roundoff.numbers.formats import FLOAT64, Format
from roundoff.trace.steps import Contract

Array = npt.NDArray[np.float64]

#: Products held at a time along a stated order: several arrays of 8 MiB.
CHUNK = 1 << 20


def product(a: Any, b: Any) -> Any:
    """The matrix product of radii, one of which may be 0.0 for all."""
    return 0.0 if exact(a) or exact(b) else a @ b


def nonzero(sums: Array, first: Enclosed, second: Enclosed) -> Any:
    """Which sums of products may have any: those that are positive, unless float64 itself may underflow."""
    if (sums > 0).all():
        return True
    sizes = [np.where(v.computed > 0, v.computed, np.inf) for v in (first, second)]
    least = sizes[0].min(initial=np.inf) * sizes[1].min(initial=np.inf)
    if least > 2.0**-900:
        return sums > 0
    return (first.computed > 0).any(axis=-1)[..., None] & (second.computed > 0).any(axis=-2)[
        ..., None, :
    ]


def _norm(radius: Any, axis: int, n: int) -> Any:
    """Upper bounds of 2-norms; squares that underflow lose less than sqrt(n) 2^-536 in all."""
    if exact(radius):
        return 0.0
    squares = np.einsum("bmk,bmk->bm" if axis == -1 else "bkn,bkn->bn", radius, radius)
    return np.expand_dims(np.sqrt(squares) * slack(n) + np.sqrt(n) * 2.0**-536, axis)


def own_of_product(first: Enclosed, second: Enclosed, n: int) -> Array:
    """The radius of a float64 matrix product, and of all its partial sums.

    By Cauchy and Schwarz: norms instead of products.
    """
    rows, columns = _norm(first.size, -1, n), _norm(second.size, -2, n)
    own = n * FLOAT64.u * rows * columns
    own = own + _norm(first.own, -1, n) * columns + rows * _norm(second.own, -2, n)
    result: Array = own * slack(n) + n * 2.0**-1073
    return result


def enclosed_products(a: Enclosed, b: Enclosed) -> tuple[Array, Array, Array]:
    """Enclosures of exact products; errors of the operands alone."""
    value = a.value * b.value
    own = np.abs(a.value) * b.own + a.own * b.size + FLOAT64.u * np.abs(value)
    own = np.where((a.size > 0) & (b.size > 0), own + 2.0**-1074, own) * slack(1)
    error = (a.size * b.error + a.error * b.computed) * slack(1)
    found = np.broadcast_arrays(value, own, error)
    return found[0], found[1], found[2]


def count_products(first: Enclosed, second: Enclosed, n: int) -> Any:
    """How many products of each sum are not zero."""
    here = [np.asarray(v.computed) > 0 for v in (first, second)]
    if all(one.all() for one in here):
        return n
    return here[0].astype(np.float64) @ here[1].astype(np.float64)


def rounding_part(first: Enclosed, second: Enclosed, sizes: Array) -> Array:
    """The part of the magnitudes that comes from products that round: of no power of two."""
    powers = [known_powers(v) for v in (first, second)]
    if not any(map(np.any, powers)):
        return sizes
    found: Array = np.where(powers[0], 0.0, first.computed) @ np.where(
        powers[1], 0.0, second.computed
    )
    return found


def normal_products(first: Enclosed, second: Enclosed, target: Format) -> Any:
    """Whether no product of a sum can be subnormal."""
    least = []
    for v, axis in ((first, -1), (second, -2)):
        low = np.abs(v.value) - v.own - v.error
        least.append(np.where(v.computed > 0, low, np.inf).min(axis=axis, initial=np.inf))
    return least[0][..., :, None] * least[1][..., None, :] >= 2.0 * target.smallest_normal


def blocks(
    step: Contract, first: Sequence[Array], second: Sequence[Array]
) -> Iterator[tuple[Any, list[Any], list[Any]]]:
    """Where blocks of the results are, and their factors as (terms, rows, 1) and (terms, 1, columns)."""
    batch, rows, columns = step.shape
    block = max(1, CHUNK // max(1, present(step) * columns))
    for b in range(batch):
        right = [v[b][:, None, :] for v in second]
        for start in range(0, rows, block):
            left = [v[b, start : start + block].T[:, :, None] for v in first]
            yield (b, slice(start, start + block)), left, right
