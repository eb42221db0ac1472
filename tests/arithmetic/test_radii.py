"""Radii from below: operands at the ends of their radii, where every term of a radius is needed.

Truths are rational numbers, or arb balls at many times the precision.
"""

from __future__ import annotations

import itertools
import math
import operator
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from flint import arb, ctx
from mpmath.libmp import from_man_exp, fzero
from rational import fraction, fractions

import roundoff as ro
from roundoff.arithmetic import exact_sums, expansions, float_words
from roundoff.arithmetic.float_words import Words
from roundoff.arithmetic.multiword import Multiword
from roundoff.gradients.reference import engines
from roundoff.gradients.reference.result import GradientReference
from roundoff.gradients.reference.rounding import float_up, nearest, split
from roundoff.trace.functions import FUNCTIONS
from roundoff.trace.steps import Contract, Map, Reduce


def one(value) -> np.ndarray:
    return np.array([value], np.float64)


def radius_at(found: Words, at: int = 0) -> Fraction:
    return Fraction(float(np.broadcast_to(found.radius, found.shape).ravel()[at]))


EXACT = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv,
         "maximum": max, "minimum": min, "abs": abs, "neg": operator.neg}  # fmt: skip


@pytest.mark.parametrize("name", EXACT)
def test_radii_hold_at_the_ends_of_wide_operands_and_no_more(name) -> None:
    """Wide radii, beside which nothing is lost: the largest deviation is the radius, almost."""
    rng = np.random.default_rng(1)
    arity = 1 if name in ("abs", "neg") else 2
    values = [rng.integers(-8, 9, 200).astype(np.float64) for _ in range(arity)]
    radii = [rng.integers(0, 9, 200).astype(np.float64) for _ in range(arity)]
    if name == "div":
        values[1] = 16.0 + np.abs(values[1])
    step = Map((200,), name, tuple(range(arity)))
    found = Multiword(3).map(step, [Words((v,), r) for v, r in zip(values, radii, strict=True)])
    mids = fractions(found.words)
    ratios = []
    for at in range(200):
        ends = [
            [Fraction(v[at]) + sign * Fraction(r[at]) for sign in (-1, 0, 1)]
            for v, r in zip(values, radii, strict=True)
        ]
        most = max(abs(EXACT[name](*xs) - mids[at]) for xs in itertools.product(*ends))
        assert most <= radius_at(found, at), (name, at)
        if most > 1e-3:
            ratios.append(most / radius_at(found, at))
    assert max(ratios) > 0.99
    assert min(ratios) > 0.3 or name in ("maximum", "minimum")  # of either of two, whichever it is


@pytest.mark.parametrize("radius", [0.0, 0.5])
def test_only_one_operand_has_a_radius(radius) -> None:
    """Which one it is does not matter."""
    for name, ab in (
        ("mul", (3.0, 5.0)),
        ("div", (3.0, 5.0)),
        ("add", (3.0, 5.0)),
        ("sub", (3.0, 5.0)),
    ):
        for first in (True, False):
            operands = [
                Words((one(v),), one(radius) if (k == 0) == first else 0.0)
                for k, v in enumerate(ab)
            ]
            found = Multiword(2).map(Map((1,), name, (0, 1)), operands)
            for sign in (-1, 1):
                xs = [Fraction(v) for v in ab]
                xs[0 if first else 1] += sign * Fraction(radius)
                assert abs(EXACT[name](*xs) - fraction(*(w[0] for w in found.words))) <= radius_at(
                    found
                )


@pytest.mark.parametrize(
    "name", ["sqrt", "exp", "log", "sin", "tanh", "erf", "sigmoid", "asin", "log1p"]
)
def test_functions_of_wide_operands_enclose_their_ends(name) -> None:
    for value, radius in ((0.5, 0.25), (0.25, 2.0**-30), (0.75, 2.0**-60), (0.5, 0.0)):
        found = Multiword(2).map(Map((1,), name, (0,)), [Words((one(value),), one(radius))])
        with ctx.workprec(500):
            mid = sum((arb(float(w[0])) for w in found.words), arb(0))
            for sign in (-1, 1):
                truth = FUNCTIONS[name].arb(arb(value) + sign * arb(radius))
                assert abs(truth - mid) <= arb(float(radius_at(found)))


@pytest.mark.parametrize("centres", [0.0, 1.0])
def test_products_and_sums_of_wide_operands(centres) -> None:
    """Zeros within radii: only the product of both radii is left; with signs that all agree."""
    shape = (1, 2, 5)
    first = Words((np.full(shape, centres),), np.full(shape, 0.5))
    second = Words((np.full((1, 5, 3), centres),), np.full((1, 5, 3), 0.25))
    found = Multiword(2).contract(Contract((1, 2, 3), (0, 1), 5), first, second)
    most = 5 * (Fraction(centres) + Fraction(1, 2)) * (Fraction(centres) + Fraction(1, 4))
    truth = most - 5 * Fraction(centres) ** 2
    for at in range(6):
        assert truth <= radius_at(found, at) <= truth * (1 + Fraction(1, 2**30))
    for exact in (0, 1):
        given = [Words(o.words, 0.0) if k == exact else o for k, o in enumerate((first, second))]
        found = Multiword(2).contract(Contract((1, 2, 3), (0, 1), 5), *given)
        truth = 5 * Fraction(centres) * Fraction((0.25, 0.5)[exact])
        assert truth <= radius_at(found) <= truth * (1 + Fraction(1, 2**30)) + Fraction(2) ** -999
    total = Multiword(2).reduce(Reduce((1, 2), (0,), 5), first)
    assert Fraction(5, 2) <= radius_at(total) <= Fraction(5, 2) * (1 + Fraction(1, 2**30))
    tiny = Words((np.zeros(shape),), np.full(shape, 2.0**-600))
    other = Words((np.zeros((1, 5, 3)),), np.full((1, 5, 3), 2.0**-460))
    found = Multiword(2).contract(Contract((1, 2, 3), (0, 1), 5), tiny, other)
    assert radius_at(found) >= 5 * Fraction(2) ** -1060, "products of radii underflow"


def test_what_words_do_not_hold_is_in_the_radius() -> None:
    """One word: every sum, product, quotient, root and constant is off, and says how far."""
    rng = np.random.default_rng(2)
    a, b = (Words((1.0 + rng.random(300),)) for _ in range(2))
    step = lambda name, n=2: Map((300,), name, tuple(range(n)))
    xs, ys = fractions(a.words), fractions(b.words)
    for name in ("add", "mul", "div", "sub"):
        found = Multiword(1).map(step(name), [a, b])
        off = [
            (abs(EXACT[name](x, y) - m), radius_at(found, k))
            for k, (x, y, m) in enumerate(zip(xs, ys, fractions(found.words), strict=True))
        ]
        assert all(gap <= radius for gap, radius in off), name
        assert name == "sub" or any(gap > radius / 4 for gap, radius in off), "and not much farther"
    root = Multiword(1).map(step("sqrt", 1), [a])
    for k, (x, m) in enumerate(zip(xs, fractions(root.words), strict=True)):
        assert (m - radius_at(root, k)) ** 2 <= x <= (m + radius_at(root, k)) ** 2
    from roundoff.trace.steps import Constant

    for value in (Fraction(1, 3), Fraction(10**40, 7), Fraction(-1, 10**310), Fraction(2, 3**700)):
        for count in (1, 2, 3):
            found = Multiword(count).constant(Constant((1,), value))
            gap = abs(fraction(*(w[0] for w in found.words)) - value)
            assert gap <= radius_at(found)


def test_a_product_in_one_word_of_tiny_numbers_counts_what_underflows() -> None:
    tiny = 2.0**-540 * (1 + 2.0**-52)
    for count in (1, 2, 4):
        found = Multiword(count).map(
            Map((1,), "mul", (0, 1)), [Words((one(tiny),)), Words((one(tiny),))]
        )
        assert abs(Fraction(tiny) ** 2 - fraction(*(w[0] for w in found.words))) <= radius_at(found)
    a = np.array([[[tiny, 0.0]]])
    found = Multiword(2).contract(
        Contract((1, 1, 1), (0, 1), 2), Words((a,)), Words((a.swapaxes(1, 2),))
    )
    assert abs(Fraction(tiny) ** 2 - fractions(found.words)[0]) <= radius_at(found)


def test_sums_in_one_word_count_their_own_rounding_beside_that_of_their_operands() -> None:
    rng = np.random.default_rng(3)
    a, b = (Words((1.0 + rng.random((1, 4, 4)),), np.full((1, 4, 4), 2.0**-200)) for _ in range(2))
    left, right = (np.array(fractions(o.words), object).reshape(4, 4) for o in (a, b))
    product = Multiword(1).contract(Contract((1, 4, 4), (0, 1), 4), a, b)
    total = Multiword(1).reduce(Reduce((1, 4), (0,), 4), a)
    for found, truth in ((product, (left @ right).ravel()), (total, left.sum(axis=-1))):
        gaps = [abs(x - y) for x, y in zip(fractions(found.words), truth, strict=True)]
        assert max(gaps) > 0
        assert all(gap <= radius_at(found, at) for at, gap in enumerate(gaps))


@pytest.mark.parametrize("bits", [10, 40, 60, 100])
def test_products_of_slices_left_out_are_counted_on_either_side(bits) -> None:
    """Numbers whose last bits are beyond the slices: all ones, all of one sign, on one side or both."""
    full, short = 2.0 - 2.0**-52, 1.0
    for left, right in ((full, short), (short, full), (full, full)):
        first, second = np.full((1, 2, 7), left), np.full((1, 7, 2), right)
        found, own = exact_sums.multiply((first,), (second,), 2, bits)
        gap = abs(fractions(found)[0] - 7 * Fraction(left) * Fraction(right))
        assert gap <= Fraction(float(np.broadcast_to(own, (1, 2, 2)).flat[0]))
        if bits < 53 - 14:
            assert gap > 0, "something is left out"
    found, own = exact_sums.total((np.full((2, 7), full),), 2, bits)
    gap = abs(fractions(found)[0] - 7 * Fraction(full))
    assert gap <= Fraction(float(np.broadcast_to(own, (2,))[0]))


def test_a_running_sum_counts_what_falls_off_its_end() -> None:
    for most in (1, 2):
        sums = expansions.RunningSum(most)
        terms = [1.0, 2.0**-60, 2.0**-120, 2.0**-121, -(2.0**-122)]
        for term in terms:
            sums.add(one(term))
        kept, lost = sums.total((1,))
        gap = abs(fraction(*(w[0] for w in kept)) - sum(map(Fraction, terms)))
        assert 0 < gap <= fraction(float(np.max(lost)))
    assert expansions.added([one(1.0), one(2.0**-53), one(2.0**-53)])[0] >= 1.0 + 2.0**-52
    kept, lost = expansions.shorten([one(1.0), one(2.0**-60), one(-(2.0**-120))], 1)
    assert fraction(float(lost[0])) >= Fraction(2) ** -60 - Fraction(2) ** -120


def test_numbers_below_the_deepest_slice_are_counted() -> None:
    x = np.array([[[1.0, 2.0**-950 * (1 + 2.0**-52)]]])
    cut = exact_sums.Rows((x,), -1).cut(20, 1000)
    assert cut.rest[0, 0, 0] * 2.0 ** int(cut.exponent[0, 0, 0]) >= 2.0**-950
    found, own = exact_sums.total((x[0],), 2, 1000)
    gap = abs(fractions(found)[0] - Fraction(1) - Fraction(x[0, 0, 1]))
    assert gap <= Fraction(float(np.broadcast_to(own, (1,))[0]))


# ------------------------------------------------------------------------------------- choices


def test_a_number_within_its_radius_has_no_sign() -> None:
    for value, radius, known in (
        (1.0, 0.5, True),
        (1.0, 1.0, False),
        (1.0, 2.0, False),
        (-1.0, 0.5, True),
    ):
        found = float_words.of_sign("sign", Words((one(value),), one(radius)))
        if known:
            assert found.words[0][0] == np.sign(value) and radius_at(found) == 0
        else:
            assert found.words[0][0] == 0 and radius_at(found) == 1
    assert float_words.within_radius(one(1.0), one(1.0 - 2.0**-52))[0], (
        "what is behind the first word counts"
    )
    assert not float_words.within_radius(one(0.0), one(0.0))[0]


def test_of_two_the_chosen_one_brings_its_radius() -> None:
    a, b = (
        Words((np.zeros(2),), np.array([1.0, 2.0])),
        Words((np.ones(2), np.full(2, 2.0**-60)), np.array([3.0, 4.0])),
    )
    found = float_words.where(np.array([True, False]), a, b)
    assert found.radius.tolist() == [1.0, 4.0]
    assert fractions(found.words) == [0, 1 + Fraction(2) ** -60]
    plain = float_words.where(np.array([True, False]), Words(a.words), b)
    assert plain.radius.tolist() == [0.0, 4.0]


# ---------------------------------------------------------------------------------- references


def reference(high, error, scale=0.0, terms=0.0, exact=False, engine="ball") -> GradientReference:
    sizes = lambda: SimpleNamespace(scale=one(scale), terms=one(terms))
    return GradientReference(one(high), one(0.0), one(error), (one(high),), engine, exact, sizes)


@pytest.mark.parametrize(
    ("given", "allowed"),
    [
        (dict(high=1.0), 2.0**-20 * 2.0**-23),  # by the ulp
        (dict(high=1.0, scale=2.0**60, terms=2.0), 2.0**-20 * 2.0**-22),  # by the terms, not S
        (dict(high=1.0, scale=2.0**60, terms=0.0), 2.0**-20 * 2.0**37),  # S where there are no terms
        (dict(high=1.0, scale=2.0, terms=2.0**60), 2.0**-20 * 2.0**-22),  # the smaller of the two
        (dict(high=0.0, scale=4.0, terms=4.0), 2.0**-20 * 2.0**-21),  # a true zero
        (dict(high=1.0, scale=np.finfo(float).max, terms=np.finfo(float).max), 2.0**-43),  # overflowed
    ],
)  # fmt: skip
def test_radii_are_small_against_the_ulp_or_the_last_terms(given, allowed) -> None:
    for target, factor in ((ro.FLOAT32, 1.0), (ro.FLOAT16, 2.0**13)):
        limit = allowed * factor
        assert engines.precise(reference(error=limit, **given), target)
        above = reference(error=limit * (1 + 2.0**-50), **given)
        assert not engines.precise(above, target)
        assert engines._shortfall(reference(error=limit, **given), target) == 0
        assert engines._shortfall(reference(error=limit * 7.9, **given), target) == 3
        with pytest.raises(ro.PrecisionError, match=r"'x' at element \[0\]"):
            raise engines.not_precise({"x": above}, target)


def test_the_smallest_radius_is_small_enough_in_float64_alone() -> None:
    assert engines.precise(reference(high=0.0, error=2.0**-1074), ro.FLOAT64)
    assert not engines.precise(reference(high=0.0, error=2.0**-1073), ro.FLOAT64)
    assert engines.precise(reference(high=0.0, error=2.0**-169), ro.FLOAT32)
    assert not engines.precise(reference(high=0.0, error=2.0**-168), ro.FLOAT32)
    for exact in (True, False):
        assert not engines.precise(
            reference(high=1.0, error=np.inf, scale=1e300, exact=exact), ro.FLOAT64
        )
        assert engines.precise(reference(high=1.0, error=0.0, exact=exact), ro.FLOAT64)
    assert engines.precise(reference(high=2.0**-1030, error=2.0**-1070, exact=True), ro.FLOAT64)


def test_the_radius_of_a_ball_is_that_of_its_reference() -> None:
    balls = np.array([arb(1.0, 0.25), arb(3.0)], object)
    found = engines._from_balls(balls, lambda: None, {})
    assert found.high.tolist() == [1.0, 3.0] and not found.exact
    assert 0.25 <= found.error[0] <= 0.25 * (1 + 2.0**-20) and found.error[1] == 0.0
    assert engines._from_balls(balls[1:], lambda: None, {}).exact


def test_two_words_of_many_count_the_others() -> None:
    given = Words((one(1.0), one(2.0**-60), one(2.0**-120), one(2.0**-180)), one(2.0**-150))
    found = engines._from_words(given, lambda: None, {})
    total = fraction(1.0, 2.0**-60, 2.0**-120, 2.0**-180)
    gap = abs(total - Fraction(found.high[0]) - Fraction(found.low[0])) + Fraction(2) ** -150
    assert gap <= Fraction(found.error[0]) <= gap * (1 + Fraction(1, 2**30)) and not found.exact
    assert engines._from_words(Words((one(1.0),)), lambda: None, {}).exact


@pytest.mark.parametrize("seed", range(5))
def test_roundings_of_raw_numbers_are_upward_and_nearest(seed) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(100):
        mantissa = int(rng.integers(1, 2**62)) << int(rng.integers(0, 90)) | 1
        exponent = int(rng.integers(-1250, 850))
        value = Fraction(mantissa) * Fraction(2) ** exponent
        raw = from_man_exp(mantissa, exponent)
        up = Fraction(float_up(raw))
        assert up >= value and (up == value or Fraction(math.nextafter(float(up), 0.0)) < value)
        error = Fraction(int(rng.integers(1, 2**40))) * Fraction(2) ** (
            exponent - int(rng.integers(0, 99))
        )
        number = from_man_exp(error.numerator, 1 - error.denominator.bit_length())
        high, low, radius = split(raw, number)
        assert high == nearest(raw) == float(value)
        whole = abs(value - Fraction(high) - Fraction(low)) + error
        assert whole <= Fraction(radius)
        assert Fraction(math.nextafter(radius, 0.0)) <= whole * (1 + Fraction(1, 2**60)), "once"
        assert split(raw) == split(raw, fzero)


def test_estimates_are_twice_the_change() -> None:
    numbers = [np.array([from_man_exp(n, -3), None], object)[:1] for n in (8, 11)]
    (found,) = engines._differences(*numbers)
    assert float_up(found) == 0.75
    far = [np.array([from_man_exp(1, e), None], object)[:1] for e in (0, -(10**9))]
    assert float_up(next(iter(engines._differences(*far)))) >= 2.0


def test_numbers_are_the_same_whatever_their_words() -> None:
    def of(*values) -> GradientReference:
        found = reference(values[0], 0.0, exact=True)
        return GradientReference(found.high, found.low, found.error, tuple(map(one, values)), "multiword", True, found.sizes)  # fmt: skip

    assert of(1.0, 2.0**-60).same_numbers(of(1.0 + 2.0**-52, 2.0**-60 - 2.0**-52))[0]
    assert not of(1.0, 2.0**-60).same_numbers(of(1.0, 2.0**-61))[0]
    assert not of(1.0, 2.0**-60).same_numbers(of(1.0))[0]
    assert of(1.0).same_numbers(of(1.0, 0.0))[0]
