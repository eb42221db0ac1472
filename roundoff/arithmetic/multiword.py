"""References at the speed of float64 matrix products, with a proven radius.

Values are unevaluated sums of a few float64 arrays.  Sums and products of them are error-free
transformations; what does not fit is counted into the radius, element by element.  Matrix products and
reductions are made of slices whose float64 products are exact (roundoff.arithmetic.exact_sums).  Elementary
functions go through arb, element by element.

What leaves float64's range, or is not a number, is refused with `UnsupportedError`: balls can do it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from flint import ctx

from roundoff.arithmetic import exact_sums, move_elements
from roundoff.arithmetic.expansions import TINY, UPWARD, shorten
from roundoff.arithmetic.float_words import (
    Array,
    Words,
    check_finite,
    check_range,
    is_exact,
    matrix_of,
    nth_word,
    plus,
    radius_of_product,
    slack,
)
from roundoff.arithmetic.sharing import Sharing
from roundoff.arithmetic.word_maps import WordMaps
from roundoff.arithmetic.word_samples import Samples
from roundoff.errors import UnsupportedError
from roundoff.trace.steps import Constant, Contract, Move, Reduce


class Multiword(WordMaps, Sharing):
    """Arithmetic on unevaluated sums of at most `words` float64 arrays.

    bits: how far below the largest possible one products of slices and elementary functions reach; by
    default, as far as the words do.
    Every contraction and reduction is checked on a sample of its outputs, by mpmath, on the same exact
    operands.  product: a float64 matrix product of arrays (B, M, K) and (B, K, N).  Other walks at the same
    inputs get rounded values of matrix products, with their radii.

    Raises: PrecisionError where a check fails: it is an error of this file, or of the matrix product.
    """

    def __init__(
        self, words: int, product: exact_sums.Product = np.matmul, bits: int | None = None
    ) -> None:
        if np.float64(2.0**-1074) + 0.0 == 0.0:
            raise UnsupportedError(
                "subnormal numbers are flushed to zero here; call torch.set_flush_denormal(False)"
            )
        super().__init__(words, bits or 53 * words + 8)
        self.product, self.samples = product, Samples()

    @classmethod
    def of_bits(cls, bits: int, product: exact_sums.Product = np.matmul) -> Multiword:
        """As many words as hold so many bits, or nearly."""
        return cls(max(1, -(-(bits - 8) // 53)), product, bits)

    def load(self, values: Array) -> Words:
        return Words((np.asarray(values, order="C"),))

    def constant(self, step: Constant) -> Words:
        value, shape = step.value, step.shape
        if isinstance(value, float):
            return Words((np.broadcast_to(value, shape),))
        left, found = value, list[float]()
        while left and len(found) < self.words:
            found.append(float(left))  # correctly rounded, but for subnormal results
            left -= Fraction(found[-1])
        words = tuple(np.broadcast_to(word, shape) for word in found or [0.0])
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

    # ------------------------------------------------------------------------------------- sums

    @np.errstate(over="ignore", invalid="ignore")  # what that leaves is refused
    def reduce(self, step: Reduce, operand: Words) -> Words:
        check_finite(operand)
        result = Words(*exact_sums.total(operand.words, self.words, self.bits))
        check_range(result, "a sum")
        self.samples.check_sums(step, operand, result)
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
        self.samples.check_products(step, first, second, result)
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
                values, rest = self.of_balls(balls.entries())
            shape = (len(rows), found.shape[2])
            for word, value in zip(words, values, strict=True):
                word[batch, rows] = value.reshape(shape)
            radius[batch, rows] = rest.reshape(shape)
        kept, lost = shorten(words, self.words)
        return Words(kept, plus(radius, lost))


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
