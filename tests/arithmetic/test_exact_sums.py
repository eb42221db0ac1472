"""Error-free steps and slices against rational numbers.

Bounds are checked in exact arithmetic everywhere.  The last part changes the constants whose proofs are
tight, one at a time, and shows that the checks above it notice.
"""

from __future__ import annotations

import itertools
import operator
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rational import dyadic_sum, fraction, fractions

from roundoff.arithmetic import exact_sums, expansions, slices

LARGE = 2.0**900
floats = st.floats(allow_nan=False, allow_infinity=False, max_value=LARGE, min_value=-LARGE)


def one(value) -> np.ndarray:
    return np.array([value], np.float64)


# ---------------------------------------------------------------------------- error-free steps


@given(floats, floats)
@settings(max_examples=500)
def test_a_sum_and_its_error_are_the_sum(a, b) -> None:
    s, e = expansions.two_sum(one(a), one(b))
    assert s[0] == a + b and fraction(s[0], e[0]) == Fraction(a) + Fraction(b)


medium = st.floats(allow_nan=False, min_value=-(2.0**500), max_value=2.0**500)


@given(st.lists(medium, min_size=1, max_size=3), st.lists(medium, min_size=1, max_size=3))
@settings(max_examples=500)
def test_products_are_exact_but_for_what_underflow_loses(a, b) -> None:
    check_products(a, b)


def check_products(a, b) -> None:
    terms, lost = expansions.products([one(x) for x in a], [one(x) for x in b])
    gap = abs(fraction(*(t[0] for t in terms)) - fraction(*a) * fraction(*b))
    assert gap <= fraction(float(np.max(lost)))


TINY_PAIRS = [([2.0**-540 * (1 + 2.0**-52)], [2.0**-530 * (1 + 2.0**-52)]),
              ([2.0**-500 * (1 + 2.0**-30)], [2.0**-560 * (1 + 2.0**-30)])]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), TINY_PAIRS)
def test_products_that_underflow_are_counted(a, b) -> None:
    check_products(a, b)


@given(st.lists(floats, min_size=1, max_size=9), st.integers(1, 4))
@settings(max_examples=500)
def test_shortened_sums_keep_their_value_to_within_the_bound(terms, words) -> None:
    kept, lost = expansions.shorten([one(t) for t in terms], words)
    assert len(kept) <= words
    gap = abs(fraction(*(w[0] for w in kept)) - fraction(*terms))
    assert gap <= fraction(float(np.max(lost)))
    behind = sum(abs(Fraction(float(w[0]))) for w in kept[1:])
    assert behind <= Fraction(2) ** -50 * abs(Fraction(float(kept[0][0])))
    if words >= len(terms):
        assert gap == 0


def test_enough_words_hold_any_sum() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        terms = rng.standard_normal(4) * 2.0 ** rng.integers(-200, 200, 4)
        kept, lost = expansions.shorten([one(t) for t in [*terms, *(-terms[:3])]], 4)
        assert np.max(lost) == 0 and fraction(*(w[0] for w in kept)) == Fraction(terms[3])


# --------------------------------------------------------------------------------------- slices


def drawn(kind, rng, shape, factor=0):
    """float64 arrays, as an unevaluated sum; factor: 0 for the first and 1 for the second of a product."""
    x = rng.standard_normal(shape)
    sign = np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    match kind:
        case "normal":
            return (x,)
        case "float32":
            return (x.astype(np.float32).astype(np.float64),)
        case "two words":
            return (x, x * rng.uniform(-1, 1, shape) * 2.0**-54)
        case (
            "largest digits"
        ):  # of two slices of any width from 14 on, odd at one place, even at all others
            largest = np.full(shape, 1.0 - 2.0**-53)
            odd = 2.0 ** -np.array(list(itertools.product(range(13, 28), repeat=2)), np.float64)
            count = min(len(odd), shape[-1])
            largest[..., :count] = 1.0 - odd[:count, factor]
            return (largest,)
        case "halves":  # the first digit leaves a tie, and the second word what it can
            small = 2.0**-54 * (1 - rng.integers(1, 2**20, shape) * 2.0**-50)
            return sign * (0.5 + 2.0**-slices.WIDEST), sign * small
        case "spread":
            return (x * 2.0 ** rng.integers(-480, 480, shape),)
        case "range":
            return (np.ldexp(x / 8, rng.integers(-1074, 1024, shape)),)
        case "subnormal":
            return (sign * rng.integers(0, 2**20, shape) * 2.0**-1074,)
        case "mixed":
            return (np.where(rng.random(shape) < 0.5, x, x * 2.0**-1000),)
        case "two ends":
            return (sign * np.where(rng.random(shape) < 0.5, 2.0**1000, 2.0**-1000),)
        case "cancelling":
            half = x[..., : shape[-1] // 2]
            return (np.concatenate([half, -half, x[..., 2 * (shape[-1] // 2) :] * 0], axis=-1),)
    return (np.zeros(shape),)


KINDS = ["normal", "float32", "two words", "largest digits", "halves", "spread", "range", "subnormal",
         "mixed", "two ends", "cancelling", "zeros"]  # fmt: skip
FACTORS = [(k, k) for k in KINDS] + [
    ("cancelling", "float32"),
    ("float32", "spread"),
    ("mixed", "halves"),
]


def power(exponent) -> Fraction:
    return Fraction(2) ** int(exponent)


def digits_of(cut, shape, axis) -> list[np.ndarray]:
    """All of them as arrays: the sparse ones have batches in blocks, rows first."""
    batches, rows, terms = shape if axis == -1 else (shape[0], shape[2], shape[1])
    found = []
    for digit in cut.digits:
        if not isinstance(digit, np.ndarray):
            blocks = digit.toarray().reshape(batches, rows, batches, terms)
            assert digit.nnz == sum(np.count_nonzero(blocks[b, :, b]) for b in range(batches))
            digit = np.array([blocks[b, :, b] for b in range(batches)]).reshape(
                batches, rows, terms
            )
            digit = digit if axis == -1 else digit.swapaxes(1, 2)
        found.append(digit)
    return found


def check_cut(words, width, bits=114, axis=-1) -> int:
    """Returns how many slices are sparse."""
    if axis == -2:
        words = tuple(np.ascontiguousarray(w.swapaxes(1, 2)) for w in words)
    shape = words[0].shape
    cut = slices.Rows(words, axis).cut(width, bits)
    half = 2.0 ** (width - 1)
    digits = [d.ravel() for d in digits_of(cut, shape, axis)]
    assert all((np.abs(d) <= half).all() and (d == np.rint(d)).all() for d in digits)
    exponents = np.broadcast_to(cut.exponent, shape).ravel()
    rests = np.broadcast_to(cut.rest, shape).ravel()
    sizes = np.broadcast_to(cut.size, shape).ravel()
    for at, value in enumerate(fractions(words)):
        found = sum(
            (Fraction(d[at]) * power(1 - (t + 1) * width) for t, d in enumerate(digits)),
            Fraction(0),
        )
        scaled = value / power(exponents[at])
        assert abs(scaled - found) <= Fraction(float(rests[at]))
        assert max(abs(scaled), abs(found)) <= Fraction(float(sizes[at]))
        assert (
            Fraction(float(rests[at])) <= power(-min(bits, 890)) * 4 or width * len(digits) < bits
        )
    return sum(not isinstance(d, np.ndarray) for d in cut.digits)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("width", [15, 19, 22, 26, slices.WIDEST])
@pytest.mark.parametrize("axis", [-1, -2])
def test_slices_are_whole_narrow_and_add_up(kind, width, axis) -> None:
    check_cut(drawn(kind, np.random.default_rng(1), (2, 3, 40)), width, axis=axis)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axis", [-1, -2])
def test_last_slices_of_few_numbers_are_sparse(kind, axis, monkeypatch) -> None:
    monkeypatch.setattr(slices, "SAMPLE", 100)
    monkeypatch.setattr(slices, "FEW", 1 / 4)
    monkeypatch.setattr(slices, "BLOCK", 90)
    given = drawn(kind, np.random.default_rng(1), (2, 3, 40))
    for bits in (60, 114, 1000):
        found = check_cut(given, 19, bits, axis)
        assert found or bits == 60 or kind != "normal", "some normal numbers have small last bits"


def check_multiply(kinds, shape, words, bits=None) -> bool:
    """Returns whether all products are exact."""
    rng = np.random.default_rng(2)
    batch, rows, terms, columns = shape
    first = drawn(kinds[0], rng, (batch, rows, terms))
    second = tuple(
        np.ascontiguousarray(w.swapaxes(1, 2))
        for w in drawn(kinds[1], rng, (batch, columns, terms), 1)
    )
    with np.errstate(all="ignore"):
        found, own = exact_sums.multiply(first, second, words, bits or 53 * words + 8)
    left, right = (np.array(fractions(w), object).reshape(w[0].shape) for w in (first, second))
    own = np.broadcast_to(own, (batch, rows, columns))
    for b, i, j in np.ndindex(batch, rows, columns):
        truth = dyadic_sum(map(operator.mul, left[b, i], right[b, :, j]))
        most = max(map(abs, left[b, i])) * max(map(abs, right[b, :, j]))
        if not np.isfinite([own[b, i, j], *(w[b, i, j] for w in found)]).all():
            assert 4 * terms * most >= power(1024), "beyond float64's range"
            continue
        bound = Fraction(float(own[b, i, j]))
        assert abs(fraction(*(w[b, i, j] for w in found)) - truth) <= bound, (b, i, j)
        if bits is None:
            assert bound <= terms * most * power(8 - 53 * words) + power(-990)
    return not own.any()


@pytest.mark.parametrize("kinds", FACTORS, ids="-".join)
@pytest.mark.parametrize("shape", [(2, 3, 24, 2), (1, 2, 1, 3), (1, 1, 513, 1)], ids=str)
@pytest.mark.parametrize("words", [1, 2, 4])
def test_products_of_slices_are_within_their_bound(kinds, shape, words) -> None:
    exact = check_multiply(kinds, shape, words)
    wide = {"spread", "range", "subnormal", "mixed", "two words", "two ends"}
    assert exact or words < 4 or wide & set(kinds), "four words hold these"


@pytest.mark.parametrize("kinds", FACTORS, ids="-".join)
@pytest.mark.parametrize("bits", [40, 114, 400])
def test_products_of_sparse_slices_in_panels_are_within_their_bound(
    kinds, bits, monkeypatch
) -> None:
    for name, value in {"SAMPLE": 100, "FEW": 1 / 4, "BLOCK": 6}.items():
        monkeypatch.setattr(slices, name, value)
    monkeypatch.setattr(exact_sums, "PANEL", 10)
    check_multiply(kinds, (3, 4, 20, 5), 3, bits)
    monkeypatch.setattr(exact_sums, "PANEL", 50)  # two batches at a time
    check_multiply(kinds, (3, 4, 20, 5), 3, bits)


@pytest.mark.parametrize("kind", ["float32", "largest digits", "cancelling", "spread"])
def test_long_dot_products_are_within_their_bound(kind) -> None:
    check_multiply((kind, kind), (1, 1, 100_000, 1), 2)


@pytest.mark.parametrize("shape", [(1, 2, 0, 3), (0, 2, 3, 1), (1, 0, 4, 2), (2, 3, 4, 0)], ids=str)
def test_empty_products_are_zero(shape) -> None:
    batch, rows, terms, columns = shape
    found, own = exact_sums.multiply(
        (np.ones((batch, rows, terms)),), (np.ones((batch, terms, columns)),), 2, 114
    )
    assert (
        found[0].shape == (batch, rows, columns)
        and not found[0].any()
        and np.max(own, initial=0) == 0
    )


def check_total(kind, shape, words) -> None:
    given = drawn(kind, np.random.default_rng(3), shape)
    with np.errstate(all="ignore"):
        found, own = exact_sums.total(given, words, 53 * words + 8)
    rows = np.array(fractions(given), object).reshape(shape)
    own = np.broadcast_to(own, shape[:-1])
    for at in np.ndindex(*shape[:-1]):
        truth = dyadic_sum(rows[at])
        if np.isfinite(found[0][at]):
            assert abs(fraction(*(w[at] for w in found)) - truth) <= Fraction(float(own[at]))
        else:
            assert 2 * shape[-1] * max(map(abs, rows[at])) >= power(1024)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(3, 1), (4, 37), (1, 100_000)], ids=str)
def test_sums_of_slices_are_within_their_bound(kind, shape) -> None:
    check_total(kind, shape, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_sums_of_sparse_slices_are_within_their_bound(kind, monkeypatch) -> None:
    for name, value in {"SAMPLE": 100, "FEW": 1 / 4, "BLOCK": 90}.items():
        monkeypatch.setattr(slices, name, value)
    check_total(kind, (7, 2, 30), 3)


def test_products_may_be_added_in_any_order() -> None:
    rng = np.random.default_rng(4)
    first, second = drawn("normal", rng, (1, 4, 300)), drawn("normal", rng, (1, 300, 5))

    def backwards(a, b):
        total = np.zeros((*a.shape[:-1], b.shape[-1]))
        for k in reversed(range(a.shape[-1])):
            total = total + a[..., :, k, None] * b[..., None, k, :]
        return total

    plain = exact_sums.multiply(first, second, 3, 167)
    other = exact_sums.multiply(first, second, 3, 167, backwards)
    assert all(np.array_equal(a, b) for a, b in zip(plain[0], other[0], strict=True))


# ------------------------------------------------------------------------------ mutation checks


def widths_for_one_bit_more(terms, *spans):
    a, b = original_widths(terms, *spans)
    return a, b + 1


def halves_of_29_bits(a):
    c = (2.0**24 + 1) * a
    high = c - (c - a)
    return high, a - high


original_widths = slices.product_widths

MUTATIONS = {
    "slices one bit wider": (slices, "product_widths", widths_for_one_bit_more),
    "2^54 for 2^53": (slices, "WHOLE", slices.WHOLE + 1),
    "the logarithm of k rounded down": (slices, "_log2", lambda k: max(k, 1).bit_length() - 1),
    "slices of 28 bits": (slices, "WIDEST", slices.WIDEST + 1),
    "underflow in scaling": (slices, "DEEPEST", 0.0),
    "products exact below 2^-960": (expansions, "LEAST_PRODUCT", 2.0**-1060),
    "nothing lost below": (expansions, "LOST", 0.0),
    "halves of 29 bits": (expansions, "_halves", halves_of_29_bits),
}


def battery() -> None:
    """The checks above that the constants are for."""
    for a, b in TINY_PAIRS:
        check_products(a, b)
    rng = np.random.default_rng(9)
    for _ in range(20):
        check_products(rng.standard_normal(1), rng.standard_normal(1))
    for kind in KINDS:
        check_cut(
            drawn(kind, np.random.default_rng(1), (1, 3, 40)),
            min(slices.WIDEST, slices.sum_width(40)),
        )
    for kind in ("largest digits", "normal", "mixed"):
        for terms in (24, 513, 1024):
            check_multiply((kind, kind), (1, 2, terms, 2), 4)


def test_the_battery_passes() -> None:
    battery()


@pytest.mark.parametrize("change", MUTATIONS)
def test_a_changed_constant_is_noticed(change, monkeypatch) -> None:
    module, name, value = MUTATIONS[change]
    monkeypatch.setattr(module, name, value)
    with pytest.raises(AssertionError):
        battery()
