"""Matrix products of values with radii: the radius of the result, and which products round or underflow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.enclosed import Enclosed, exact, slack
from roundoff.arithmetic.exact_operations import given, known_powers
from roundoff.bounds.exactness import lowest_bits, without_rounding
from roundoff.numbers.formats import FLOAT64, Format
from roundoff.trace.steps import Contract, present

Array = npt.NDArray[np.float64]

#: Products held at a time along a stated order: several arrays of 8 MiB.
CHUNK = 1 << 20

#: Products that are made together: a processor's cache holds them, which takes half the time of a chunk.
TOGETHER = 1 << 16


def product(a: Any, b: Any) -> Any:
    """The matrix product of radii, one of which may be 0.0 for all."""
    return 0.0 if exact(a) or exact(b) else a @ b


def nonzero(sums: Array, first: Enclosed, second: Enclosed) -> Any:
    """Where a sum may have a product that is not zero, underflow of its size in float64 included."""
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


def own_of_product(first: Enclosed, second: Enclosed, sizes: Array, n: int) -> Array:
    """The radius of a float64 matrix product, and of all its partial sums; sizes: the product of magnitudes.

    By Cauchy and Schwarz, norms instead of products, where the operands have radii.
    """
    if exact(first.own) and exact(second.own) and exact(first.error) and exact(second.error):
        some = np.where(nonzero(sizes, first, second), n * 2.0**-1073, 0.0)
        return np.asarray(n * FLOAT64.u * sizes * slack(n) + some)
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


def few(step: Contract) -> bool:
    """Whether there are so few products that looking at each costs nothing."""
    return prod(step.shape) * present(step) <= CHUNK


def tiny_products(
    step: Contract, first: Enclosed, second: Enclosed, rounded: Any, limit: float, normal: float,
    each: bool,
) -> Any:  # fmt: skip
    """How many products of each sum may be so small that they lose bits.

    Those below the limit; of those that do not round, below the smallest normal number.  each: look at
    every product; else all of a sum count if the smallest factors of its row and its column say so.
    """
    sides, none = [], np.broadcast_to(np.equal(rounded, 0), step.shape)
    for v in (first, second):
        low = np.maximum(np.abs(v.value) - v.own - v.error, 0.0) * (1.0 - 2.0**-50)
        sides.append((np.where(np.asarray(v.computed) > 0, low, np.inf), known_powers(v)))
    if not each:
        tiny = _least_factors(sides[0][0], sides[1][0]) < np.where(none, normal, limit)
        return count_products(first, second, present(step)) * tiny if tiny.any() else 0
    found = np.zeros(step.shape)
    for at, (a, powers), (b, others) in blocks(step, sides[0], sides[1]):
        limits = np.where(powers | others | none[at], normal, limit)
        found[at] = (np.isfinite(a) & np.isfinite(b) & (a * b < limits)).sum(axis=0)
    return found


def products_on_a_grid(
    step: Contract, a: Enclosed, b: Enclosed, sizes: Array, target: Format, each: bool
) -> Any:
    """Which sums of products of known numbers are added without error, in any order; sizes: of the
    magnitudes.

    each: the grid is that of every product; else of the grids of the row and the column.
    """
    if not (given(a) and given(b)):
        return False
    sides = lowest_bits(a.value), lowest_bits(b.value)
    if not each:
        return without_rounding(sizes, _least_factors(*sides), target)
    grid = np.empty(step.shape)
    for at, left, right in blocks(step, sides[:1], sides[1:]):
        grid[at] = (left[0] * right[0]).min(axis=0, initial=np.inf)
    return without_rounding(sizes, grid, target)


def _least_factors(a: Array, b: Array) -> Array:
    """The smallest factor of each row times that of each column."""
    rows = a.min(axis=-1, initial=np.inf)[..., :, None]
    return np.asarray(rows * b.min(axis=-2, initial=np.inf)[..., None, :])


def blocks(
    step: Contract, first: Sequence[Array], second: Sequence[Array]
) -> Iterator[tuple[Any, list[Any], list[Any]]]:
    """Where blocks of the results are, and their factors: (terms, batch, rows, 1) and (terms, batch, 1,
    columns)."""
    batch, rows, columns = step.shape
    one = max(1, present(step) * columns)
    height = min(max(1, TOGETHER // one), max(1, rows))
    some = max(1, TOGETHER // (one * height)) if height >= rows else 1
    for b in range(0, batch, some):
        right = [np.moveaxis(v[b : b + some], 1, 0)[:, :, None, :] for v in second]
        for start in range(0, rows, height):
            part = (slice(b, b + some), slice(start, start + height))
            yield part, [np.moveaxis(v[part], 2, 0)[..., None] for v in first], right
