"""Multiword: error-free steps, slices and whole gradients against rational numbers and mpmath.

Radii are checked in exact arithmetic everywhere.  The last part changes the constants whose proofs are
tight, one at a time, and shows that the checks above it notice.
"""

from __future__ import annotations

import itertools
import operator
from fractions import Fraction
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from zoo import Z, loss

import roundoff as ro
from roundoff.arithmetic import exact_sums, expansions, multiword, slices, walk
from roundoff.arithmetic.multiprecision import Multiprecision, from_words
from roundoff.arithmetic.multiword import Multiword
from roundoff.arithmetic.scale import Scaled
from roundoff.arithmetic.words import Words
from roundoff.reference import engines, float64_array, round_inputs
from roundoff.reference.rounding import float_up
from roundoff.trace import prune, trace_gradients
from roundoff.trace.steps import Map

LARGE = 2.0**900
floats = st.floats(allow_nan=False, allow_infinity=False, max_value=LARGE, min_value=-LARGE)


def fraction(*words) -> Fraction:
    return sum((Fraction(float(word)) for word in words), Fraction(0))


def fractions(words) -> list[Fraction]:
    return [fraction(*each) for each in zip(*(w.ravel() for w in words), strict=True)]


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
        truth = sum(map(operator.mul, left[b, i], right[b, :, j]), Fraction(0))
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
        truth = sum(rows[at], Fraction(0))
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


# ----------------------------------------------------------------------------------- elementwise


def operand(rng, n, count, radius, positive):
    words, _ = expansions.shorten(
        [rng.standard_normal(n) * 2.0 ** (-50 * k) for k in range(count)], 4
    )
    if positive:
        words = tuple(np.where(words[0] < 0, -w, w) for w in words)
    return Words(words, rng.random(n) * 2.0**-110 if radius else 0.0)


EXACT = {"add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "abs": abs,
         "neg": operator.neg, "maximum": max, "minimum": min}  # fmt: skip
ROUNDED = ("sqrt", "exp", "log", "tanh", "erf", "sin", "expm1", "sigmoid")


@pytest.mark.parametrize("name", [*EXACT, *ROUNDED])
@pytest.mark.parametrize("words", [2, 3])
@pytest.mark.parametrize("radius", [False, True])
@pytest.mark.parametrize("scalar", [False, True])
def test_maps_enclose_every_value_of_their_operands(name, words, radius, scalar) -> None:
    rng, n = np.random.default_rng(5), 1 if scalar else 60
    arity = 2 if name in EXACT and name not in ("abs", "neg") else 1
    given = [operand(rng, n, words, radius, name in ("sqrt", "log")) for _ in range(arity)]
    if scalar:
        given = [
            Words(tuple(w[0] for w in o.words), o.radius if not radius else o.radius[0])
            for o in given
        ]
    shape = () if scalar else (n,)
    found = Multiword(words).map(Map(shape, name, tuple(range(arity))), given)
    radii = [np.broadcast_to(o.radius, n) for o in given]
    values, limits = fractions(np.atleast_1d(*[np.atleast_1d(w) for w in found.words]) if False else
                               [np.atleast_1d(w) for w in found.words]), np.broadcast_to(found.radius, n)  # fmt: skip
    with mpmath.workprec(800):
        for at in range(n):
            for sign in (-1, 1):
                xs = [
                    fractions([np.atleast_1d(w)[at] for w in o.words])[0]
                    + sign * Fraction(float(r[at]))
                    for o, r in zip(given, radii, strict=True)
                ]
                if name in EXACT:
                    assert abs(EXACT[name](*xs) - values[at]) <= Fraction(float(limits[at]))
                else:
                    x, y = (mpmath.mpf(v.numerator) / v.denominator for v in (xs[0], values[at]))
                    truth = (
                        1 / (1 + mpmath.exp(-x)) if name == "sigmoid" else getattr(mpmath, name)(x)
                    )
                    assert abs(truth - y) <= mpmath.mpf(float(limits[at])) + mpmath.mpf(2) ** -700


@pytest.mark.parametrize("name", Z)
def test_whole_gradients_are_mpmaths_at_400_bits(name) -> None:
    function, inputs = Z[name]
    trace = prune(trace_gradients(function, inputs, None, loss))
    arrays = {key: float64_array(value) for key, value in inputs.items()}
    rounded = round_inputs(trace, arrays, ro.FLOAT32)
    truth = walk(trace, Multiprecision(400), rounded)
    for words in (2, 4):
        found = walk(trace, Multiword(words), rounded)
        for key, exact in truth.items():
            mids = from_words(found[key].words).ravel()
            radii = np.broadcast_to(found[key].radius, found[key].shape).ravel()
            for number, mid, radius in zip(exact.ravel(), mids, radii, strict=True):
                gap = mpmath.libmp.mpf_abs(mpmath.libmp.mpf_sub(number, mid))
                # mpmath's own error: some hundred roundings of 2^-400 of numbers below 2^40
                assert float_up(gap) <= radius + 2.0**-350, (key, words)


# ------------------------------------------------------------------------------------- engines


def conv(weight, bias, x):
    return F.conv2d(x, weight, bias, padding=1)


def squares(out):
    return (out**2).sum()


def problem(scale=1.0):
    rng = np.random.default_rng(6)
    inputs = {
        "weight": rng.standard_normal((4, 3, 3, 3)) * scale,
        "bias": rng.standard_normal(4) * scale,
        "x": rng.standard_normal((2, 3, 5, 5)) * scale,
    }
    return dict(inputs=inputs, wrt=("weight", "bias"), loss=squares)


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32", "float64", ro.FLOAT8_E4M3FN])
def test_polynomials_are_exact_and_the_same_as_mpmaths(format) -> None:
    one, two = (
        ro.reference_gradients(conv, **problem(), format=format, engine=engine)
        for engine in ("multiword", "mpmath")
    )
    assert one.exact and one.rigorous and one.engine == "multiword"
    for name in one:
        assert (one[name].numbers == two[name].numbers).all()
        assert np.array_equal(one[name].high, two[name].high)
        gap = np.abs(one[name].low - two[name].low)
        assert (gap <= one[name].error + two[name].error).all()


def test_auto_takes_words_for_large_work_and_balls_where_they_fail(monkeypatch) -> None:
    monkeypatch.setattr("roundoff.reference.size.POLYNOMIAL_WORK", 0)
    assert ro.reference_gradients(conv, **problem()).engine == "multiword"
    deep = {"x": [2.0**-338, 3 * 2.0**-338]}  # errors of its products underflow
    wide = ro.reference_gradients(lambda x: (x**4).sum(), deep, format="float64")
    assert (
        wide.engine == "ball" and wide.exact and wide["x"].mp()[1] == 108 * mpmath.mpf(2) ** -1014
    )
    given = {"x": np.linspace(1.0, 2.0, 5), "y": [2.0**-338, 3 * 2.0**-338]}
    mixed = ro.reference_gradients(
        lambda x, y: (x * x).sum() + (y**4).sum(), given, format="float64"
    )
    assert mixed.engine == "multiword (x), ball (y)" and mixed.rigorous
    assert mixed["x"].exact and mixed["y"].engine == "ball"


def test_as_many_bits_are_taken_as_the_radius_lacked(monkeypatch) -> None:
    tried = []

    class Spy(multiword.Multiword):
        def __init__(self, words, *others) -> None:
            super().__init__(words, *others)
            tried.append((words, self.bits))

    monkeypatch.setattr(multiword, "Multiword", Spy)
    given = dict(inputs={"x": np.linspace(0.5, 1.0, 4) * 2.0**-40}, format="float64")
    cancelling = lambda x: (torch.exp(x) - 1 - x - 0.5 * x * x).sum()
    found, ball = (
        ro.reference_gradients(cancelling, **given, engine=e)["x"] for e in ("multiword", "ball")
    )
    gap = np.abs((found.high - ball.high) + (found.low - ball.low))
    assert (gap <= found.error + ball.error).all()
    first = 53 + 20 + engines.GROWTH
    assert tried == [(3, first)]
    monkeypatch.setattr(engines, "GROWTH", -20)  # two words, which are not enough
    tried.clear()
    again = ro.reference_gradients(cancelling, **given, engine="multiword")["x"]
    assert tried[0] == (1, 53) and len(tried) == 2 and 53 < tried[1][1] < engines.MOST_BITS
    assert (np.abs(again.high - ball.high) <= again.error + ball.error).all()
    tried.clear()
    monkeypatch.setattr(engines, "RADIUS_FACTOR", 2.0**-300)
    with pytest.raises(ro.PrecisionError, match="too much for this format"):
        ro.reference_gradients(cancelling, **given, engine="multiword")
    assert tried[-1] == (4, engines.MOST_BITS)


@pytest.mark.parametrize(
    ("function", "inputs", "words"),
    [
        (lambda x: (1 / (x - 1)).sum(), [1.0], r"div\(1, 0\)"),
        (lambda x: torch.sqrt(x - 2).sum(), [1.0], r"sqrt\(-1\)"),
        (lambda x: (x * torch.log(x - 2)).sum(), [1.0], r"log\(-1"),
        (lambda x: (x**4).sum(), [1e150], "range of float64"),
    ],
)
def test_what_words_cannot_hold_is_refused(function, inputs, words) -> None:
    with pytest.raises(ro.UnsupportedError, match=words):
        ro.reference_gradients(function, {"x": inputs}, format="float64", engine="multiword")


def _agree_with_mpmath(function, inputs, name, format="float32") -> None:
    """What multiword finds is right, or left to balls."""
    exact = ro.reference_gradients(function, inputs, name, format=format, engine="mpmath")[name]
    for engine in ("multiword", "auto"):
        try:
            found = ro.reference_gradients(function, inputs, name, format=format, engine=engine)[
                name
            ]
        except (ro.UnsupportedError, ro.UndecidedError):
            assert engine == "multiword"
            continue
        gaps = [
            abs(Fraction(float(a)) + Fraction(float(b)) - Fraction(float(c)) - Fraction(float(d)))
            for a, b, c, d in zip(found.high.ravel(), found.low.ravel(), exact.high.ravel(),
                                  exact.low.ravel(), strict=True)
        ]  # fmt: skip
        radii = found.error.ravel() + exact.error.ravel()
        assert all(gap <= Fraction(float(radius)) for gap, radius in zip(gaps, radii, strict=True))


def test_the_larger_one_is_found_beside_infinities_too() -> None:
    x = torch.full((1, 1, 3, 3), 1 + 2.0**-20)
    t = torch.zeros(1, 1, 3, 3)
    t[0, 0, 0] = torch.tensor([0.0, 2.0, 1.0]) * 2.0**-60
    pooled = lambda x, t: F.max_pool2d(x * x * x + t, 3, stride=1, padding=1).sum()
    _agree_with_mpmath(pooled, {"x": x, "t": t}, "t")
    row = ro.reference_gradients(pooled, {"x": x, "t": t}, "t", engine="multiword")["t"].high[
        0, 0, 0
    ]
    assert row.tolist() == [0, 6, 0]


def test_infinities_whose_image_is_not_a_float64_are_left_to_balls() -> None:
    inputs = {"w": np.ones(2), "x": np.array([1.0, 0.5]), "y": np.array([2.0, 3.0])}
    filled = lambda x: x.masked_fill(torch.tensor([True, False]), np.inf)
    for function in (
        lambda w, x, y: w * filled(x).atan(), lambda w, x, y: w * (-filled(x)).atan(),
        lambda w, x, y: w * y ** (-filled(x)),
    ):  # fmt: skip
        summed = lambda w, x, y, f=function: f(w, x, y).sum()
        _agree_with_mpmath(summed, inputs, "w", "float64")
        with pytest.raises(ro.UnsupportedError, match="infinity enters"):
            ro.reference_gradients(summed, inputs, "w", format="float64", engine="multiword")
    unsure = Words((one(1e-20),), one(1.0))
    with pytest.raises(ro.UnsupportedError, match="infinity enters mul"):
        Multiword(2).map(Map((1,), "mul", (0, 1)), [Words((one(np.inf),)), unsure])


def test_overflow_between_is_refused() -> None:
    inputs = {"a": np.array([[2.0**1020, 2.0**512, 0]]), "c": np.array([[1.0, 1.0]]),
              "b": np.array([[16.0, 0], [1, 1], [2.0**1020, 2.0**1020]])}  # fmt: skip
    larger = lambda a, b, c: torch.maximum(a @ b, c).sum()
    _agree_with_mpmath(larger, inputs, "c", "float64")
    with pytest.raises(ro.UnsupportedError, match="range of float64 in a sum of products"):
        ro.reference_gradients(larger, inputs, "c", format="float64", engine="multiword")
    wide = {"a": np.array([2.0**1000]), "b": np.array([3.0]), "c": np.array([1.0])}
    for function in (
        lambda a, b, c: (a / b * b > a - 1).double() * c,
        lambda a, b, c: torch.relu(a / b) * c,
    ):
        _agree_with_mpmath(lambda a, b, c, f=function: f(a, b, c).sum(), wide, "c", "float64")


def test_a_comparison_whose_gap_overflows_is_refused() -> None:
    inputs = {"a": np.array([1.5e308]), "b": np.array([-1.5e308]), "c": np.array([2.0])}
    for function in (
        lambda a, b, c: torch.where(a > b, c * 2, c * 3),
        lambda a, b, c: torch.where(a == b, c * 2, c * 3),
        lambda a, b, c: c * torch.maximum(a, b) * 2.0**-1000,
        lambda a, b, c: c * torch.minimum(a, b) * 2.0**-1000,
    ):
        summed = lambda a, b, c, f=function: f(a, b, c).sum()
        _agree_with_mpmath(summed, inputs, "c", "float64")
        with pytest.raises(ro.UnsupportedError, match="range of float64"):
            ro.reference_gradients(summed, inputs, "c", format="float64", engine="multiword")


def test_the_radius_of_a_quotient_does_not_underflow() -> None:
    inputs = {"x": np.array([2.0**-900]), "t": np.array([2.0**-300]), "c": np.array([1.0])}
    kinked = lambda x, t, c: torch.relu(1 - (x / torch.exp(t)) * 2.0**900) * 2.0**300 * c
    _agree_with_mpmath(lambda x, t, c: kinked(x, t, c).sum(), inputs, "c", "float64")
    a, b = Words((one(2.0**-900),)), Words((one(1.0),), one(2.0**-300))
    for bits in (53, 106, 220):
        found = Multiword.of_bits(bits).map(Map((1,), "div", (0, 1)), [a, b])
        assert float(found.radius[0]) >= 2.0**-1074


def test_either_of_two_that_are_close() -> None:
    """The larger of two within their radii, whichever is taken."""
    rng = np.random.default_rng(5)
    a = Words(
        (rng.integers(-2, 3, 400).astype(np.float64),), rng.integers(0, 3, 400).astype(np.float64)
    )
    b = Words(
        (rng.integers(-2, 3, 400).astype(np.float64),), rng.integers(0, 3, 400).astype(np.float64)
    )
    for name, larger in (("maximum", max), ("minimum", min)):
        found = Multiword(2).map(Map((400,), name, (0, 1)), [a, b])
        for x, r, y, s, z, t in zip(a.words[0], a.radius, b.words[0], b.radius, found.words[0], found.radius,
                                    strict=True):  # fmt: skip
            assert all(
                abs(larger(x + p * r, y + q * s) - z) <= t for p in (-1, 0, 1) for q in (-1, 0, 1)
            )
            if abs(x - y) > r + s:
                assert t == (r if z == x else s)


def test_a_root_of_what_may_be_negative_has_no_value() -> None:
    step = Map((1,), "sqrt", (0,))
    for value, radius in ((1e-20, 1e-19), (0.0, 1e-300), (1.0, np.nan)):
        with pytest.raises(ro.RoundoffError, match="sqrt"):
            Multiword(2).map(step, [Words((one(value),), one(radius))])


def test_kinks_are_undecided() -> None:
    kinked = lambda x: torch.relu(torch.log(x) - torch.log(x)).sum()
    with pytest.raises(ro.UndecidedError, match="kink"):
        ro.reference_gradients(kinked, {"x": [3.0]}, engine="multiword")
    plain = ro.reference_gradients(
        lambda x: torch.relu(x).sum(), {"x": [0.0, 1.0]}, engine="multiword"
    )
    assert plain["x"].high.tolist() == [0.0, 1.0]


def test_rows_of_wide_spread_go_through_balls() -> None:
    # Row by column the products are near 1, although their factors span 2^-300 to 2^300.
    rng = np.random.default_rng(7)
    shift = 2.0 ** rng.integers(-300, 300, 12)
    a, b = rng.standard_normal((3, 12)) * shift, rng.standard_normal((12, 2)) / shift[:, None]
    found = ro.reference_gradients(
        lambda a, b, c: ((a @ b) * c).sum(), {"a": a, "b": b, "c": np.ones((3, 2))}, "c",
        format="float64", engine="multiword",
    )["c"]  # fmt: skip
    left, right = (np.vectorize(Fraction, otypes=[object])(v) for v in (a, b))
    for at, truth in np.ndenumerate(left @ right):
        gap = abs(truth - Fraction(found.high[at]) - Fraction(found.low[at]))
        assert gap <= Fraction(found.error[at]) and found.error[at] <= 2.0**-100


def test_views_and_expanded_inputs_are_taken() -> None:
    base = torch.from_numpy(np.random.default_rng(8).standard_normal((6, 8)))
    for x in (base.T, base[::2, ::3], base[:1].expand(5, 8), base.flip(0)):
        one, two = (
            ro.reference_gradients(
                lambda x: (torch.tanh(x @ x.T)).sum(), {"x": x}, format="float64", engine=engine
            )["x"]
            for engine in ("multiword", "ball")
        )
        gap = np.abs((one.high - two.high) + (one.low - two.low))
        assert (gap <= one.error + two.error).all()


def test_a_wrong_matrix_product_is_noticed(monkeypatch) -> None:
    wrong = lambda a, b: np.matmul(a, b) * (1 + 2.0**-40)
    monkeypatch.setattr(engines, "fastest_product", lambda: wrong, raising=False)
    monkeypatch.setattr(multiword, "fastest_product", lambda: wrong)
    with pytest.raises(ro.PrecisionError, match="mpmath and multiword disagree"):
        ro.reference_gradients(conv, **problem(), engine="multiword")


def test_a_gpu_is_used_where_there_is_one(monkeypatch) -> None:
    calls = []

    def cuda(tensor, device):
        calls.append(device)
        return tensor

    assert multiword.fastest_product() is np.matmul or torch.cuda.is_available()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "to", cuda)
    found = multiword.fastest_product()(np.eye(3)[None], np.arange(9.0).reshape(1, 3, 3))
    assert np.array_equal(found[0], np.arange(9.0).reshape(3, 3)) and calls == ["cuda", "cuda"]


def test_flushed_subnormals_are_refused() -> None:
    if not torch.set_flush_denormal(True):
        pytest.skip("this processor cannot flush subnormals")
    try:
        with pytest.raises(ro.UnsupportedError, match="set_flush_denormal"):
            Multiword(2)
    finally:
        torch.set_flush_denormal(False)


def test_references_of_words_are_compared_exactly() -> None:
    from roundoff.verdict import same_reference

    one, other = (
        ro.reference_gradients(f, **problem(), engine="multiword")["weight"]
        for f in (conv, lambda weight, bias, x: conv(weight, bias, x + 0) * 1)
    )
    assert same_reference(one, other, exact=True).all()
    moved = SimpleNamespace(numbers=other.numbers.copy(), own=None, high=other.high)
    moved.numbers.flat[3] = mpmath.libmp.mpf_add(
        moved.numbers.flat[3], mpmath.libmp.from_man_exp(1, -900)
    )
    assert np.flatnonzero(~same_reference(one, moved, exact=True)).tolist() == [3]


def of_words(*words) -> ro.GradientReference:
    parts = tuple(np.asarray(w, dtype=np.float64) for w in words)
    zero = np.zeros(parts[0].shape)
    sizes = lambda: Scaled(parts[0], zero, zero)
    return ro.GradientReference(parts[0], zero, zero, parts, "multiword", True, sizes)


def test_numbers_not_words_are_compared() -> None:
    tiny = 2.0**-60
    assert of_words(1.0).same_numbers(of_words(1.0)).shape == ()
    assert of_words(1.0, tiny).same_numbers(of_words(1.0, tiny / 2, tiny / 2))
    assert not of_words(1.0).same_numbers(of_words(1.0, 2.0**-1074))
    one = of_words([1.0, 3.0, 2.0**1023], [-(2.0**-53), tiny, 0.0], [0.0, tiny, 0.0])
    other = of_words([1 - 2.0**-53, 3.0, -(2.0**1023)], [0.0, 2 * tiny, 0.0])
    with np.errstate(all="ignore"):
        assert one.same_numbers(other).tolist() == [True, True, False]


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
