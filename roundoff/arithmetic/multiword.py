"""References at the speed of float64 matrix products, with a proven radius.

Values are unevaluated sums of a few float64 arrays.  Sums and products of them are error-free
transformations; what does not fit is counted into the radius, element by element.  Matrix products and
reductions are made of slices whose float64 products are exact (roundoff.arithmetic.exact_sums).  Elementary
functions go through arb, element by element.

What leaves float64's range, or is not a number, is refused with `UnsupportedError`: balls can do it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
from flint import arb, ctx
from mpmath.libmp import from_float, mpf_abs, mpf_gt, mpf_sub

from roundoff.arithmetic import exact_sums, move_elements
from roundoff.arithmetic.ball import without_value
from roundoff.arithmetic.expansions import LOST, TINY, UPWARD, products, shorten
from roundoff.arithmetic.float_words import (
    Array,
    Mask,
    Words,
    balls_of,
    check_finite,
    check_range,
    in_blocks,
    is_exact,
    joined,
    matrix_of,
    nth_word,
    of_sign,
    plus,
    power_of_two,
    radius_of_product,
    slack,
    undefined_at,
    where,
    within_radius,
)
from roundoff.arithmetic.multiprecision import Multiprecision, Numbers, from_words
from roundoff.arithmetic.sharing import Sharing
from roundoff.errors import (
    PrecisionError,
    RoundoffError,
    UndecidedError,
    UnsupportedError,
    of_elements,
    undecided_comparison,
)
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.steps import Constant, Contract, Map, Move, Reduce

#: Outputs of every contraction and reduction that mpmath recomputes.
SAMPLE = 2


class Multiword(Sharing):
    """Arithmetic on unevaluated sums of at most `words` float64 arrays.

    bits: how far below the largest possible one products of slices and elementary functions reach; by
    default, as far as the words do.
    Every contraction and reduction is checked on a sample of its outputs, by mpmath, on the same exact
    operands.  product: a float64 matrix product of arrays (B, M, K) and (B, K, N).  Other walks at the same
    inputs get rounded values of matrix products, with their radii.

    Raises: PrecisionError where a check fails: it is an error of this file, or of the matrix product.
    """

    def __init__(
        self,
        words: int,
        product: exact_sums.Product = np.matmul,
        bits: int | None = None,
    ) -> None:
        if np.float64(2.0**-1074) + 0.0 == 0.0:
            raise UnsupportedError(
                "subnormal numbers are flushed to zero here; call torch.set_flush_denormal(False)"
            )
        self.words, self.product = words, product
        self.bits = bits or 53 * words + 8
        self.checked = 0

    @classmethod
    def of_bits(cls, bits: int, product: exact_sums.Product = np.matmul) -> Multiword:
        """As many words as hold so many bits, or nearly."""
        return cls(max(1, -(-(bits - 8) // 53)), product, bits)

    def load(self, values: Array) -> Words:
        return Words((np.asarray(values, order="C"),))

    def constant(self, step: Constant) -> Words:
        value, shape = step.value, step.shape
        if isinstance(value, float):
            return Words((np.full(shape, value),))
        left, found = value, list[float]()
        while left and len(found) < self.words:
            found.append(float(left))  # correctly rounded, but for subnormal results
            left -= Fraction(found[-1])
        words = tuple(np.full(shape, word) for word in found or [0.0])
        return Words(words, np.full(shape, abs(float(left)) * UPWARD + TINY) if left else 0.0)

    def move(self, step: Move, operands: Sequence[Any]) -> Any:
        if isinstance(operands[0], np.ndarray):
            return move_elements(step, operands, False)
        count = max(len(o.words) for o in operands)
        if count == 1 and all(is_exact(o.radius) for o in operands):
            found = self.findings(step)
            if found.moved is None:
                found.moved = move_elements(step, [o.words[0] for o in operands], 0.0)
            return Words((found.moved,))
        words = tuple(
            move_elements(step, [nth_word(o, k) for o in operands], 0.0) for k in range(count)
        )
        if all(is_exact(o.radius) for o in operands):
            return Words(words)
        radii = [np.broadcast_to(o.radius, o.shape) for o in operands]
        return Words(words, move_elements(step, radii, 0.0))

    # ------------------------------------------------------------------------------------- maps

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
        """The results of all blocks; what one refuses, by its elements' numbers among all."""
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
        """What float64 makes of an infinity is exact; the other elements as always."""
        first = [o.words[0] for o in operands]
        plain = function.float64(*first)
        unsure = infinite & np.logical_or.reduce(
            [within_radius(o.words[0], o.radius) for o in operands]
        )
        by_sign = function.kind in (Kind.PRODUCT, Kind.QUOTIENT)
        if function.limits is False or (by_sign and unsure.any()):
            raise UnsupportedError(
                f"an infinity enters {function.name}, which words do not hold exactly"
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
            words, rest = self._of_balls(balls)
        kept, lost = shorten([word.reshape(shape) for word in words], self.words)
        return Words(kept, plus(lost, rest.reshape(shape) if rest.any() else 0.0))

    # ------------------------------------------------------------------------------------- sums

    @np.errstate(over="ignore", invalid="ignore")  # what that leaves is refused
    def reduce(self, step: Reduce, operand: Words) -> Words:
        check_finite(operand)
        result = Words(*exact_sums.total(operand.words, self.words, self.bits))
        check_range(result, "a sum")
        self._check_sums(step, operand, result)
        if is_exact(operand.radius):
            return result
        n = max(1, operand.shape[-1])
        return Words(result.words, plus(result.radius, operand.radius.sum(axis=-1) * slack(n)))

    @np.errstate(over="ignore", invalid="ignore")
    def contract(self, step: Contract, first: Words, second: Words) -> Words:
        check_finite(first, second)
        found = exact_sums.multiply(first.words, second.words, self.words, self.bits, self.product)
        result = self._repaired(Words(*found), first, second)
        check_range(result, "a sum of products")
        self._check_products(step, first, second, result)
        by_operands = radius_of_product(first, second, np.matmul)
        if not is_exact(by_operands):
            whole = plus(result.radius, by_operands * slack(first.shape[-1]))
            result = Words(result.words, whole)
        behind = [np.abs(word) for word in result.words[1:]]
        self.findings(step).value = result.words[0], plus(result.radius, *behind)
        return result

    def _repaired(self, found: Words, first: Words, second: Words) -> Words:
        """Rows whose products the slices do not reach, for the spread of their exponents, by arb."""
        if is_exact(found.radius):
            return found
        with np.errstate(all="ignore"):
            wanted = (first.size @ second.size) * 2.0 ** (30 - self.bits)
        words = tuple(nth_word(found, k).copy() for k in range(self.words))
        radius = np.array(found.radius)
        for batch in np.flatnonzero((radius > wanted).any(axis=(1, 2))):
            rows = np.flatnonzero((radius[batch] > wanted[batch]).any(axis=1))
            with ctx.workprec(self.bits + 12):
                balls = matrix_of(first, (batch, rows)) * matrix_of(second, (batch,))
                values, rest = self._of_balls(balls.entries())
            shape = (len(rows), found.shape[2])
            for word, value in zip(words, values, strict=True):
                word[batch, rows] = value.reshape(shape)
            radius[batch, rows] = rest.reshape(shape)
        kept, lost = shorten(words, self.words)
        return Words(kept, plus(radius, lost))

    def _of_balls(self, balls: Sequence[arb]) -> tuple[tuple[Array, ...], Array]:
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

    # ----------------------------------------------------------------------------------- checks

    def _check_products(self, step: Contract, first: Words, second: Words, found: Words) -> None:
        one = replace(step, shape=(1, 1, 1))
        for at in self._sample(found):
            batch, row, column = np.unravel_index(at, found.shape)
            left = from_words([word[batch, row] for word in first.words])
            right = from_words([word[batch, :, column] for word in second.words])
            exact = Multiprecision(0).contract(one, left[None, None], right[None, :, None])
            _agree(found, at, exact[0])

    def _check_sums(self, step: Reduce, operand: Words, found: Words) -> None:
        one = replace(step, shape=(1,))
        rows = [word.reshape(found.words[0].size, operand.shape[-1]) for word in operand.words]
        for at in self._sample(found):
            _agree(
                found,
                at,
                Multiprecision(0).reduce(one, from_words([row[at] for row in rows])[None]),
            )

    def _sample(self, found: Words) -> list[int]:
        """Random numbers of outputs: other ones for other data."""
        size = found.words[0].size
        self.checked += 1
        bits = int(np.abs(found.words[0]).sum().view(np.int64)) if size else 0
        generator = np.random.default_rng([self.checked, bits])
        return [int(at) for at in generator.integers(0, size, SAMPLE if size else 0)]


def fastest_product() -> Callable[[Array, Array], Array]:
    """The float64 matrix product of a GPU, if there is one; it is exact on slices as any other is."""
    import torch

    if not torch.cuda.is_available():
        return np.matmul

    def product(first: Array, second: Array) -> Array:
        a, b = (torch.from_numpy(np.ascontiguousarray(x)).to("cuda") for x in (first, second))
        found: Array = (a @ b).cpu().numpy()
        return found

    return product


def _agree(found: Words, at: int, exact: Numbers) -> None:
    """Source of truth: mpmath's exact sum of the same operands."""
    words = from_words([np.atleast_1d(word.ravel()[at]) for word in found.words])
    radius = np.broadcast_to(found.radius, found.shape).ravel()[at]
    gap = mpf_abs(mpf_sub(exact.ravel()[0], words[0]))
    if np.isfinite(radius) and mpf_gt(gap, from_float(float(radius))):
        raise PrecisionError(
            f"mpmath and multiword disagree on element {at} of a sum by {mpmath.libmp.to_str(gap, 6)}, more "
            f"than the proven {radius:g}; an error of roundoff or of the matrix product, please report it"
        )
