"""Multiword: maps and whole gradients against rational numbers and mpmath.

Radii are checked in exact arithmetic everywhere.
"""

from __future__ import annotations

import operator
from fractions import Fraction
from types import SimpleNamespace

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from rational import fractions
from zoo import Z, loss

import roundoff as ro
from roundoff.arithmetic import expansions, multiword, walk
from roundoff.arithmetic.condition_scale import Scaled
from roundoff.arithmetic.float_words import Words
from roundoff.arithmetic.multiprecision import Multiprecision, from_words
from roundoff.arithmetic.multiword import Multiword
from roundoff.gradients.inputs import float64_array, round_inputs
from roundoff.gradients.reference import engines
from roundoff.gradients.reference.rounding import float_up
from roundoff.trace import prune, trace_gradients
from roundoff.trace.steps import Map


def one(value) -> np.ndarray:
    return np.array([value], np.float64)


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
    values = fractions([np.atleast_1d(w) for w in found.words])
    limits = np.broadcast_to(found.radius, n)
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
    monkeypatch.setattr("roundoff.gradients.reference.size.POLYNOMIAL_WORK", 0)
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
    from roundoff.judging.verdict import same_reference

    one, other = (
        ro.reference_gradients(f, **problem(), engine="multiword")["weight"]
        for f in (conv, lambda weight, bias, x: conv(weight, bias, x + 0) * 1)
    )
    assert same_reference(one, other, exact=True).all()
    moved = SimpleNamespace(
        numbers=other.numbers.copy(), own=None, high=other.high, known=other.known
    )
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
