"""Numbers as unevaluated sums of float64 arrays (words), with a radius per element; checks of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from flint import arb, arb_mat

from roundoff.arithmetic import slices
from roundoff.arithmetic.expansions import TINY, UPWARD, above
from roundoff.errors import UnsupportedError, infinite_sum, no_value, of_elements
from roundoff.trace.steps import Shape

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Words:
    """|sum of words - true| <= radius, per element; the float 0.0 in place of an array: exact everywhere.

    The first word is nearly the sum, as `shorten` leaves it: what is behind is at most 2^-50 of it.  An
    infinite first word stands for an infinity that a function brought along; the others are 0 there.
    """

    words: tuple[Array, ...]
    radius: Any = 0.0

    @property
    def shape(self) -> Shape:
        return tuple(self.words[0].shape)

    @property
    def size(self) -> Array:
        """At least |value|, without the radius."""
        size: Array = above([np.abs(word) for word in self.words])
        return size

    @property
    def negated(self) -> Words:
        return Words(tuple(-word for word in self.words), self.radius)


def plus(*radii: Any) -> Any:
    """An upper bound of a sum of radii, 0.0 where all are."""
    given = [r for r in radii if not is_exact(r)]
    return above(given) if given else 0.0


def in_blocks(operands: Sequence[Words]) -> Iterator[Sequence[Words]]:
    """Operands of one shape, so many elements at a time that a processor's cache holds them."""
    size = operands[0].words[0].size
    if size <= slices.BLOCK:
        yield operands
        return
    flat = []
    for of in operands:
        radius = of.radius if is_exact(of.radius) else np.broadcast_to(of.radius, of.shape).ravel()
        flat.append(([word.ravel() for word in of.words], radius))
    for start in range(0, size, slices.BLOCK):
        here = slice(start, start + slices.BLOCK)
        yield [
            Words(tuple(word[here] for word in words), radius if is_exact(radius) else radius[here])
            for words, radius in flat
        ]


def joined(parts: Sequence[Any], shape: Shape) -> Any:
    """The inverse of `in_blocks`: the blocks put together."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts).reshape(shape)
    count = max(len(part.words) for part in parts)
    words = (np.concatenate([nth_word(part, k) for part in parts]) for k in range(count))
    radius: Any = 0.0
    if not all(is_exact(part.radius) for part in parts):
        radii = [np.broadcast_to(part.radius, part.shape) for part in parts]
        radius = np.concatenate(radii).reshape(shape)
    return Words(tuple(word.reshape(shape) for word in words), radius)


def nth_word(of: Words, number: int) -> Array:
    """A word by number, zeros behind the last."""
    return of.words[number] if number < len(of.words) else np.zeros(of.shape)


def is_exact(radius: Any) -> bool:
    """Whether a radius is 0.0 for all elements (a NumPy scalar is a float, too)."""
    return isinstance(radius, float) and radius == 0.0


def slack(n: int) -> float:
    """Covers the roundings of a sum of n products of non-negative numbers, in any order."""
    return 1.0 + (2 * n + 64) * 2.0**-52


def radius_of_product(a: Words, b: Words, product: Callable[[Any, Any], Any]) -> Any:
    """|a b - a^ b^| <= |a^| |b - b^| + |a - a^| (|b^| + |b - b^|), as elements or as matrices."""
    if is_exact(a.radius) and is_exact(b.radius):
        return 0.0
    parts, lost = [], 0.0
    for left, right in ((a.size, b.radius), (a.radius, (b.size + b.radius) * UPWARD)):
        if not (is_exact(left) or is_exact(right)):
            parts.append(product(left, right))
            lost += 0.0 if _least(left) * _least(right) > 2.0**-1000 else TINY
    return above(parts) + lost if parts else 0.0


def power_of_two(of: Words) -> float:
    """The one number that all elements are, if it is exactly a power of two of at least 1; else 0.0."""
    if len(of.words) > 1 or not is_exact(of.radius) or not of.words[0].size:
        return 0.0
    first = float(of.words[0].flat[0])
    plain = first >= 1.0 and math.frexp(first)[0] == 0.5
    return first if plain and bool((of.words[0] == first).all()) else 0.0


def _least(sizes: Any) -> float:
    """The smallest that is not zero."""
    return float(np.min(sizes, initial=np.inf, where=np.greater(sizes, 0)))


def where(chosen: Mask, a: Words, b: Words) -> Words:
    """One of two, per element."""
    count = max(len(a.words), len(b.words))
    words = tuple(np.where(chosen, nth_word(a, k), nth_word(b, k)) for k in range(count))
    if is_exact(a.radius) and is_exact(b.radius):
        return Words(words)
    return Words(words, np.where(chosen, a.radius, b.radius))


def within_radius(first: Array, radius: Any) -> Mask:
    """Whether a number may be zero, by its first word; true for a radius that is not a number."""
    found: Mask = ~(np.abs(first) * (1.0 - 2.0**-50) > radius) & ~np.equal(radius, 0)
    return found


def of_sign(name: str, a: Words) -> Words:
    """The absolute value ("abs") or the sign, 0 within 1 where that is not known."""
    if name == "abs":  # no farther apart than the operands are
        return Words(tuple(np.where(a.words[0] < 0, -word, word) for word in a.words), a.radius)
    unknown = within_radius(a.words[0], a.radius)
    sign = np.where(unknown, 0.0, np.sign(a.words[0]))
    return Words((sign,), unknown.astype(np.float64) if unknown.any() else 0.0)


def undefined_at(name: str, where: Mask, *operands: Words) -> UnsupportedError:
    """What to raise for a function without value at some elements: of each the operands with radii."""
    radii = [np.broadcast_to(of.radius, of.shape).ravel() for of in operands]
    refused = {}
    for at in np.flatnonzero(where).tolist():
        texts = []
        for of, radius in zip(operands, radii, strict=True):
            about = f" +/- {radius[at]:.2g}" if radius[at] else ""
            texts.append(f"{of.words[0].flat[at]:.6g}{about}")
        refused[at] = no_value(name, *texts)
        refused[at].lasting = not any(radius[at] for radius in radii)
    return of_elements(refused)


def check_finite(*operands: Words) -> None:
    """Raises: UnsupportedError where an infinity would enter a sum."""
    refused = [
        {int(at): infinite_sum() for at in np.flatnonzero(np.isinf(of.words[0]))} for of in operands
    ]
    if any(refused):
        raise of_elements(*refused)


def check_range(found: Words, name: str, infinite: Any = False) -> None:
    """Raises: UnsupportedError for a number that is not finite, unless the function put that infinity in.

    So it does where no radius is known: products beyond the range, in between, leave one that is no number.
    """
    if not (np.isfinite(found.words[0]) | infinite).all() or np.isnan(found.radius).any():
        raise UnsupportedError(
            f"the reference leaves the range of float64 in {name}; use engine='auto', or scale the inputs"
        )


def balls_of(of: Words) -> list[arb]:
    """Exact, or nearly, at the present precision; radii included."""
    columns = [word.ravel().tolist() for word in of.words]
    if not is_exact(of.radius):
        radii = np.broadcast_to(of.radius, of.shape).ravel().tolist()
        return [
            sum(map(arb, rest), arb(first, radius))
            for first, *rest, radius in zip(*columns, radii, strict=True)
        ]
    return [sum(map(arb, rest), arb(first)) for first, *rest in zip(*columns, strict=True)]


def matrix_of(of: Words, at: tuple[Any, ...]) -> arb_mat:
    """The midpoints of some rows of one of a batch of matrices."""
    part = Words(tuple(word[at] for word in of.words))
    rows, columns = part.shape
    return arb_mat(rows, columns, balls_of(part))
