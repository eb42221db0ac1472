"""What bounds need to know of the terms of sums: measured once, for every theorem."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from roundoff.bounds import theorems
from roundoff.bounds.exactness import lowest_bits, powers_of_two, without_rounding
from roundoff.bounds.random_errors import in_any_order, rounding_of_products
from roundoff.bounds.tree_errors import Recorder, Walked, along
from roundoff.errors import ArgumentError
from roundoff.numbers.formats import FLOAT64, Format, round_to
from roundoff.numbers.machines import Machine, machine, two_product
from roundoff.orders import Order, ReductionTree, dots, sums

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Kernel:
    """How sums are carried out.

    format: of inputs and result; wide: of products and partial sums; order: None for any; fused:
    products enter additions unrounded; products: whether terms are products; rounding: of ROUNDINGS.
    """

    format: Format
    wide: Format
    order: Order | None
    rounding: str = "nearest"
    products: bool = False
    fused: bool = False

    @property
    def nearest(self) -> bool:
        return self.rounding == "nearest"

    @property
    def unit(self) -> float:
        """Every rounding is a factor 1 + d with |d| at most this."""
        return self.wide.u / (1.0 + self.wide.u) if self.nearest else 2.0 * self.wide.u

    @property
    def step(self) -> float:
        """u, or 2u where rounding is not to nearest: what theorems take for u."""
        return self.wide.u if self.nearest else 2.0 * self.wide.u

    @property
    def underflow(self) -> float:
        """The most that a product loses to underflow; half of float64's smallest subnormal is no float64."""
        half = self.wide.smallest_subnormal * (0.5 if self.nearest else 1.0)
        return max(half, 2.0**-1074)

    @property
    def exact_products(self) -> bool:
        """Whether products of two numbers of the format fit the accumulator, underflow aside."""
        return 2 * self.format.precision <= self.wide.precision

    @property
    def compensation(self) -> str | None:
        return self.order.compensation if self.order else None


@dataclass(frozen=True, eq=False)
class Terms:
    """What bounds need to know of the terms of each sum.

    Shapes: (sums,) each; length is one number.
    count: non-zero terms; scale: S, rounded upward; total: at least |sum|; value: the sum in float64;
    squares: sum of the squares of the terms; tiny: products that may underflow; given: what rounding the
    inputs to the format changed; rounded: the part of S from products that are rounded; grid: the terms are
    added without error in any order; by_chance: `random_errors.in_any_order` of the terms; walked: partial
    sums along the tree, of computed products; rounded_squares: of the products that are rounded, and
    product_drift their predicted errors, added; depth_weighted, running, running_ufp: those bounds, before
    the final rounding; height, roundings: of the tree with its products.
    """

    length: int
    count: npt.NDArray[np.int64]
    scale: Array
    total: Array
    value: Array
    squares: Array
    tiny: npt.NDArray[np.int64]
    given: Array
    rounded: Array
    grid: Mask
    by_chance: Callable[[], tuple[Array, Array]]
    walked: Walked | None = None
    rounded_squares: Array | float = 0.0
    product_drift: Array | float = 0.0
    depth_weighted: Array | None = None
    running: Array | None = None
    running_ufp: Array | None = None
    computed: Array | None = None
    height: int = 0
    roundings: int = 0


def measure_products(x: Array, y: Array, kernel: Kernel, names: tuple[str, str]) -> Terms:
    """Terms that are products, over axis 0; the inputs are rounded to the format."""
    first, second = held(x, kernel.format, names[0]), held(y, kernel.format, names[1])
    dx, dy = np.abs(x - first), np.abs(y - second)
    given = (dx * np.abs(second) + np.abs(first) * dy + dx * dy).sum(axis=0)
    changed = ((dx > 0) & (y != 0)) | ((dy > 0) & (x != 0))
    given = given + changed.sum(axis=0) * 2.0**-1072  # these products may underflow in float64
    return measure(first, second, given * (1.0 + (len(x) + 8) * 2.0**-52), kernel)


def measure(x: Array, y: Array | None, given: Array, kernel: Kernel) -> Terms:
    """Terms over axis 0: the x, or the products x y."""
    n = len(x)
    with np.errstate(all="ignore"):
        terms = x.copy() if y is None else x * y
        sizes = np.abs(terms)
        # Sums of n float64 numbers err by less than n 2^-53 of their S; so does each product; and a
        # product that underflows in float64 by 2^-1075.
        scale = sizes.sum(axis=0) * (1.0 + (n + 4) * 2.0**-52)
        if y is not None:
            scale = scale + np.where(_least_size(x, y) < 2.0**-960, n * 2.0**-1073, 0.0)
        value = terms.sum(axis=0)
        total = np.minimum(np.abs(value) + (n + 4) * 2.0**-52 * scale, scale)
        present = (x != 0) if y is None else (x != 0) & (y != 0)
        tiny, rounded = np.zeros(terms.shape[1:], np.int64), np.zeros(terms.shape[1:])
        grid = lowest_bits(x).min(axis=0, initial=np.inf)
        if y is not None:
            powers = powers_of_two(x) | powers_of_two(y)
            limit = np.where(powers, kernel.wide.smallest_normal, _product_limit(kernel))
            tiny = (present & (sizes < limit * (1 + 2.0**-50))).sum(axis=0)
            if not kernel.exact_products:
                rounded = np.where(powers, 0.0, sizes).sum(axis=0) * (1.0 + (n + 4) * 2.0**-52)
            grid = (lowest_bits(x) * lowest_bits(y)).min(axis=0, initial=np.inf)
        known = Terms(
            length=n, count=present.sum(axis=0), scale=scale, total=total, value=value,
            squares=(terms * terms).sum(axis=0), tiny=tiny,
            given=given * (1.0 + (n + 4) * 2.0**-52), rounded=rounded,
            grid=without_rounding(sizes.sum(axis=0), grid, kernel.wide),
            by_chance=lambda: _by_chance(x, y, most_of(scale, total), kernel),
        )  # fmt: skip
        if kernel.order is None or kernel.compensation or n == 0:
            return known
        return _along_tree(known, terms, x, y, kernel)


def _least_size(x: Array, y: Array) -> Array:
    sizes = np.minimum(np.abs(x), 1.0) * np.minimum(np.abs(y), 1.0)
    result: Array = np.where((x != 0) & (y != 0), sizes, 1.0).min(axis=0, initial=1.0)
    return result


def _product_limit(kernel: Kernel) -> float:
    """Below it a product may lose bits to underflow.

    Rounded products lose none above the smallest normal number; what is rounded later, by a fused
    addition or as the error term of Dot2, must be a multiple of the smallest subnormal itself.
    """
    later = kernel.fused or kernel.compensation == "sum2"
    return kernel.wide.smallest_normal * (2.0 ** (kernel.wide.precision + 1) if later else 1.0)


def most_of(scale: Array, total: Array) -> Array:
    """No partial sum of computed terms exceeds (S + |s|) / 2 in any order, but for their own errors."""
    return 0.5 * (scale + total)


def _by_chance(x: Array, y: Array | None, most: Array, kernel: Kernel) -> tuple[Array, Array]:
    """`random_errors.in_any_order` of the terms; of products that round, of those too."""
    with np.errstate(all="ignore"):
        products, lost = (x, None) if y is None else two_product(x, y)
        rounded = None if kernel.exact_products else lost
        return in_any_order(products, most, kernel.wide.u, kernel.wide.precision, rounded)


def _along_tree(known: Terms, terms: Array, x: Array, y: Array | None, kernel: Kernel) -> Terms:
    order = cast(Order, kernel.order)
    tree = order.tree(known.length)
    rounded = rounded_products(tree, kernel.fused) if y is not None else np.zeros(tree.n, bool)
    exact = y is None or (kernel.exact_products and not known.tiny.any())
    powers = powers_of_two(x) | powers_of_two(x if y is None else y)
    rounds = (rounded & (not exact))[:, None] & ~powers
    unrounded = ~(rounded[:, None] | powers) if kernel.fused and not exact else None
    weights = [theorems.compounded(tree.depths + k, kernel.unit)[:, None] for k in (0, 1)]
    weighted = np.abs(terms) * np.where(rounds, weights[1], weights[0])
    depth = weighted.sum(axis=0) * (1.0 + (tree.n + 8) * 2.0**-52)
    own = np.zeros_like(terms)
    if y is not None and 2 * kernel.format.precision > FLOAT64.precision:
        own = FLOAT64.u * np.abs(terms) + 2.0**-1074
        own[terms == 0] = np.where((x == 0) | (y == 0), 0.0, 2.0**-1074)[terms == 0]
    error = np.zeros_like(terms)
    if y is not None and not exact:
        limit = _product_limit(kernel) * (1 + 2.0**-50)
        small = np.where(np.abs(terms) < limit, kernel.underflow, 0.0)
        error = np.where(rounds, kernel.unit * (np.abs(terms) + own), 0.0)
        error += np.where(rounded[:, None] | kernel.fused, small, 0.0)
        error[(x == 0) | (y == 0)] = 0.0
    # The roundings of products, as nodes of the tree.
    products = np.where(rounds, terms * terms, 0.0).sum(axis=0) * (1.0 + tree.n * 2.0**-50)
    drift = np.zeros_like(products)
    if y is not None and rounds.any():
        drift = np.abs(
            np.where(rounds, rounding_of_products(x, y, kernel.wide.precision), 0.0).sum(axis=0)
        )
    walked = along(
        terms,
        own,
        error,
        tree,
        kernel.unit,
        kernel.wide.precision,
        nearest=kernel.nearest,
        fused=unrounded,
    )
    running = _running(x, y, order, tree, kernel) if kernel.nearest else {}
    known_to_walk: dict[str, Any] = {
        "walked": walked,
        "rounded_squares": products,
        "product_drift": drift,
        "depth_weighted": depth,
        "height": tree.height + int(rounds.any()),
        "roundings": max(1, tree.n - 1 + int(rounds.any(axis=1).sum())),
        **running,
    }
    return replace(known, **known_to_walk)


def rounded_products(tree: ReductionTree, fused: bool) -> Mask:
    """Which products are rounded before they are added (see orders.multiply_and_add)."""
    if not fused or tree.n == 1:
        return np.ones(tree.n, bool)
    both = (tree.children < tree.n).all(axis=1)
    rounded = np.zeros(tree.n, bool)
    rounded[tree.children[both, 0]] = True
    return rounded


def _running(
    x: Array, y: Array | None, order: Order, tree: ReductionTree, kernel: Kernel
) -> dict[str, Array]:
    recorder = Recorder(machine(kernel.wide), x.shape[1])
    on = cast(Machine, recorder)
    if y is None:
        found = sums(on.load(x, exact=True), order, tree, on)
    else:
        found = dots(x, y, order, tree, on, kernel.fused)
    known = recorder.store(found)
    u = kernel.wide.u
    # As many float64 additions of non-negative numbers as there are nodes and products.
    slack = 1.0 + (2 * tree.n + 16) * 2.0**-52
    eta = 0.0
    if y is not None and (np.abs(x * y)[(x != 0) & (y != 0)] < _product_limit(kernel)).any():
        eta = tree.n * kernel.underflow
    return {
        "running": recorder.sizes * u * slack + eta,
        "running_ufp": recorder.binades * u * slack + eta,
        "computed": known,
    }


def contraction(
    x: Array, y: Array, kernel: Kernel, axis_names: Sequence[str] = ("a", "b")
) -> Terms:
    """The measures of every element of x @ y, by matrix products."""
    first, second = held(x, kernel.format, axis_names[0]), held(y, kernel.format, axis_names[1])
    k = x.shape[-1]
    a, b, dx, dy = np.abs(first), np.abs(second), np.abs(x - first), np.abs(y - second)
    slack = 1.0 + (k + 8) * 2.0**-52
    with np.errstate(all="ignore"):
        present = (a > 0).astype(np.float64) @ (b > 0).astype(np.float64)
        least_a = np.where(a > 0, a, np.inf).min(axis=-1, initial=np.inf)[..., :, None]
        least_b = np.where(b > 0, b, np.inf).min(axis=-2, initial=np.inf)[..., None, :]
        smallest = least_a * least_b
        scale = (a @ b) * slack + np.where(smallest < 2.0**-960, k * 2.0**-1073, 0.0)
        value = first @ second
        total = np.minimum(np.abs(value) + (k + 4) * 2.0**-52 * scale, scale)
        changed = np.zeros_like(scale)
        if dx.any() or dy.any():
            changed = (dx @ (b + dy) + a @ dy) * slack + k * 2.0**-1071
        tiny = np.where(smallest < _product_limit(kernel) * (1 + 2.0**-50), present, 0.0)
        rounded = np.zeros_like(scale)
        if not kernel.exact_products:
            kept = [np.where(powers_of_two(v), 0.0, v) for v in (a, b)]
            rounded = (kept[0] @ kept[1]) * slack
        grid = lowest_bits(first).min(axis=-1, initial=np.inf)[..., :, None]
        grid = grid * lowest_bits(second).min(axis=-2, initial=np.inf)[..., None, :]
        flat = [v.ravel() for v in (present, scale, total, value, (a * a) @ (b * b), tiny, changed)]

    @cache
    def by_chance() -> tuple[Array, Array]:
        return _products_by_chance(first, second, most_of(scale, total), kernel)

    return Terms(
        length=k, count=flat[0].astype(np.int64), scale=flat[1], total=flat[2], value=flat[3],
        squares=flat[4], tiny=flat[5].astype(np.int64), given=flat[6], rounded=rounded.ravel(),
        grid=without_rounding(a @ b, grid, kernel.wide).ravel(), by_chance=by_chance,
    )  # fmt: skip


def _products_by_chance(x: Array, y: Array, most: Array, kernel: Kernel) -> tuple[Array, Array]:
    """The same for every element of x @ y, a row at a time."""
    found = np.zeros(most.shape), np.zeros(most.shape)
    for at in np.ndindex(most.shape[:-1]):
        columns_ = np.broadcast_to(y, (*most.shape[:-2], *y.shape[-2:]))[at[:-1]]
        row = np.broadcast_to(x, (*most.shape[:-2], *x.shape[-2:]))[at]
        part = _by_chance(np.broadcast_to(row[:, None], columns_.shape), columns_, most[at], kernel)
        for result, one in zip(found, part, strict=True):
            result[at] = one
    return found[0].ravel(), found[1].ravel()


def joined(parts: Sequence[Terms], shapes: Sequence[tuple[int, ...]]) -> Terms:
    """The measures of blocks of rows of a matrix of sums; shapes: of each block, (..., rows, columns)."""

    def one(values: Sequence[Any]) -> Any:
        first = values[0]
        if isinstance(first, Walked):
            return Walked(**{k: one([getattr(v, k) for v in values]) for k in vars(first)})
        if not isinstance(first, np.ndarray):
            return max(values) if isinstance(first, int) else first
        blocks = [v.reshape(shape) for v, shape in zip(values, shapes, strict=True)]
        return np.concatenate(blocks, axis=-2).ravel()

    return Terms(**{name: one([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def held(values: Array, format: Format, name: str) -> Array:
    """Values rounded to the format.  Raises: ArgumentError where they do not fit its range."""
    known = np.abs(values) < format.overflow_threshold
    if not known.all():
        at = tuple(int(i) for i in np.argwhere(~known)[0])
        remedy = "a bound needs numbers, remove it first"
        if np.isfinite(values[at]):
            remedy = f"{format} ends at {format.max:g}, use a wider format or scale the data"
        raise ArgumentError(f"{name} holds {values[at]:g} at {list(at)}; {remedy}")
    return round_to(values, format)


def columns(values: Array) -> Array:
    """(terms, sums) in memory, a copy."""
    n = values.shape[-1]
    sums_ = int(np.prod(values.shape[:-1]))
    return np.array(values.reshape(sums_, n).T, order="C")
