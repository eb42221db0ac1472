"""Elementwise functions of unevaluated sums of float64 arrays, with a radius per element.

+ - * are error-free transformations, quotients and roots are refined from those of float64, and all others
go through arb, element by element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from flint import arb, ctx

from roundoff.arithmetic.ball import without_value
from roundoff.arithmetic.expansions import LOST, TINY, UPWARD, products, shorten
from roundoff.arithmetic.float_words import (
    Array,
    Mask,
    Words,
    balls_of,
    check_range,
    in_blocks,
    is_exact,
    joined,
    of_sign,
    plus,
    power_of_two,
    radius_of_product,
    undefined_at,
    where,
    within_radius,
)
from roundoff.errors import (
    RoundoffError,
    UndecidedError,
    UnsupportedError,
    of_elements,
    undecided_comparison,
)
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.steps import Map


class WordMaps:
    """Elementwise functions of unevaluated sums of at most `words` float64 arrays.

    bits: how far below the largest possible result elementary functions reach.
    """

    def __init__(self, words: int, bits: int) -> None:
        self.words, self.bits = words, bits

    def map(self, step: Map, operands: Sequence[Any]) -> Any:
        function = FUNCTIONS[step.function]
        match function.kind:
            case Kind.CAST:
                return operands[0]
            case Kind.LOGICAL:
                return np.asarray(function.float64(*operands))
            case Kind.SELECTION:
                return where(*operands)
        with np.errstate(all="ignore"):
            return joined(self._blocks(function, operands), step.shape)

    def _blocks(self, function: Function, operands: Sequence[Words]) -> list[Any]:
        """The results of all blocks; refused elements are named by their number among all."""
        found, refused, start = [], dict[int, RoundoffError](), 0
        for part in in_blocks(operands):
            try:
                found.append(self._block(function, part))
            except (UnsupportedError, UndecidedError) as error:
                if not error.elements:
                    raise
                refused |= {start + at: each for at, each in error.elements[0].items()}
            start += part[0].words[0].size
        if refused:
            raise of_elements(refused)
        return found

    def _block(self, function: Function, operands: Sequence[Words]) -> Any:
        infinite = np.logical_or.reduce([np.isinf(o.words[0]) for o in operands])
        if not infinite.any():
            found = self._map(function, operands)
        else:
            found = self._with_infinities(function, operands, infinite)
        if not function.boolean:
            check_range(found, function.name, infinite)
        return found

    def _with_infinities(
        self, function: Function, operands: Sequence[Words], infinite: Mask
    ) -> Any:
        """Elements at infinity, of which float64's result is exact, apart from the others."""
        first = [o.words[0] for o in operands]
        plain = function.float64(*first)
        unsure = infinite & np.logical_or.reduce(
            [within_radius(o.words[0], o.radius) for o in operands]
        )
        by_sign = function.kind in (Kind.PRODUCT, Kind.QUOTIENT)
        if function.limits is False or (by_sign and unsure.any()):
            raise UnsupportedError(
                f"an infinity enters {function.name}, which engine 'multiword' cannot hold exactly; use "
                "engine='auto'"
            )
        if np.isnan(plain[infinite]).any():
            raise undefined_at(function.name, infinite & np.isnan(plain), *operands)
        finite = [
            Words(
                tuple(np.where(infinite, 1.0 if k == 0 else 0.0, w) for k, w in enumerate(o.words)),
                0.0 if is_exact(o.radius) else np.where(infinite, 0.0, o.radius),
            )
            for o in operands
        ]
        found = self._map(function, finite)
        if function.boolean:
            return np.where(infinite, plain, found)
        if function.kind is Kind.EXTREME:  # the other one, maybe, with all its words
            return where(infinite, where(np.equal(plain, first[0]), *operands), found)
        return where(infinite, Words((np.asarray(plain, np.float64),)), found)

    def _map(self, function: Function, operands: Sequence[Words]) -> Any:
        if function.kind in (Kind.COMPARISON, Kind.EXTREME):
            return self._compared(function, *operands)
        match function.name:
            case "add":
                return self._sum(*operands)
            case "sub":
                return self._sum(operands[0], operands[1].negated)
            case "neg":
                return operands[0].negated
            case "mul":
                return self._product(*operands)
            case "div":
                return self._quotient(*operands)
            case "sqrt":
                return self._root(*operands)
            case "abs" | "sign":
                return of_sign(function.name, *operands)
            case _:
                return self._by_arb(function, operands)

    def _sum(self, a: Words, b: Words) -> Words:
        count = max(len(a.words), len(b.words))
        terms = [o.words[k] for k in range(count) for o in (a, b) if k < len(o.words)]
        words, lost = shorten(terms, self.words)
        return Words(words, plus(lost, a.radius, b.radius))

    def _product(self, a: Words, b: Words) -> Words:
        for one, other in ((a, b), (b, a)):
            factor = power_of_two(one)
            if factor:  # exact, barring overflow
                radius = other.radius if is_exact(other.radius) else other.radius * factor
                return Words(tuple(word * factor for word in other.words), radius)
        terms, under = products(a.words, b.words)
        words, lost = shorten(terms, self.words)
        return Words(words, plus(lost, under, radius_of_product(a, b, np.multiply)))

    def _quotient(self, a: Words, b: Words) -> Words:
        """Long division.  |a/b - q| = |a - q b| / |b|, and a - q b is computed with an error bound."""
        quotient: list[Array] = []
        left, gone = a.words, []
        for _ in range(self.words):
            digit = left[0] / b.words[0]
            quotient.append(digit)
            terms, under = products([-digit], b.words)
            left, lost = shorten([*left, *terms], self.words + 1)
            gone += [under, lost]
            if not left[0].any():
                break
        missing = plus(*gone, *(np.abs(word) for word in left if word.any()))
        least = np.abs(b.words[0]) * (1.0 - 2.0**-50) - b.radius
        if not (least > 0).all():  # zero, or what the radius does not tell from it
            raise undefined_at("div", ~(least > 0), a, b)
        words, lost = shorten(quotient, self.words)
        radius = plus(missing, a.radius)
        if not is_exact(b.radius):
            by_divisor = Words(words).size * b.radius + LOST
            radius = plus(radius, np.where(np.equal(b.radius, 0), 0.0, by_divisor))
        if not is_exact(radius):
            radius = np.where(np.equal(radius, 0), 0.0, radius / least * UPWARD + TINY)
        return Words(words, plus(radius, lost))

    def _root(self, a: Words) -> Words:
        """Newton's steps.  |sqrt(a) - s| = |a - s s| / (sqrt(a) + s), at most |a - s s| / s."""
        zero = a.words[0] == 0
        outside = (a.words[0] < 0) | within_radius(a.words[0], a.radius)
        if outside.any():
            raise undefined_at("sqrt", outside, a)
        root: tuple[Array, ...] = (np.sqrt(a.words[0]),)
        half = np.where(zero, 1.0, 0.5 / np.where(zero, 1.0, root[0]))
        lost: Any = 0.0
        for _ in range(self.words):
            left, missing = self._residual(a, root)
            root, _ = shorten([*root, left[0] * half], self.words)  # corrections need not be exact
        left, missing = self._residual(a, root)
        missing = plus(missing, a.radius, *(np.abs(word) for word in left if word.any()))
        if not is_exact(missing):
            least = np.where(zero, 1.0, root[0] * (1.0 - 2.0**-50))
            lost = np.where(np.equal(missing, 0), 0.0, missing / least * UPWARD + TINY)
        return Words(root, lost)

    def _residual(self, a: Words, root: tuple[Array, ...]) -> tuple[tuple[Array, ...], Any]:
        terms, under = products([-word for word in root], root)
        left, lost = shorten([*a.words, *terms], self.words + 1)
        return left, plus(under, lost)

    def _compared(self, function: Function, a: Words, b: Words) -> Any:
        gap = self._sum(a, b.negated)
        check_range(gap, function.name)
        above = gap.words[0]
        undecided = within_radius(above, gap.radius)
        if function.kind is Kind.EXTREME:
            found = where(function.takes_first(above, 0.0), a, b)
            if not undecided.any():
                return found
            # Either: the other one is larger by no more than both radii and what the gap lost.
            return Words(found.words, np.where(undecided, gap.radius, found.radius))
        if undecided.any():
            x, y = a.words[0].ravel(), b.words[0].ravel()
            raise of_elements(
                {
                    at: undecided_comparison(f"{x[at]:.17g}", f"{y[at]:.17g}")
                    for at in np.flatnonzero(undecided).tolist()
                }
            )
        return np.asarray(function.float64(above, 0.0))

    def _by_arb(self, function: Function, operands: Sequence[Words]) -> Words:
        shape = operands[0].shape
        with ctx.workprec(self.bits + 12):
            given = [balls_of(o) for o in operands]
            balls = list(map(function.arb, *given))
            refused = {
                at: without_value(function, xs)
                for at, (ball, *xs) in enumerate(zip(balls, *given, strict=True))
                if not ball.is_finite()
            }
            if refused:
                raise of_elements(refused)
            words, rest = self.of_balls(balls)
        kept, lost = shorten([word.reshape(shape) for word in words], self.words)
        return Words(kept, plus(lost, rest.reshape(shape) if rest.any() else 0.0))

    def of_balls(self, balls: Sequence[arb]) -> tuple[tuple[Array, ...], Array]:
        """Words of balls and their radii; exact where the words hold a ball of radius zero."""
        found = np.zeros((self.words + 1, len(balls)))
        for number, ball in enumerate(balls):
            for word in range(self.words):
                found[word, number] = nearest = float(ball.mid())
                ball = ball - nearest
                if ball.is_zero():
                    break
            else:
                found[self.words, number] = float(ball.abs_upper()) * UPWARD + TINY
        return tuple(found[:-1]), found[-1]
