"""Exponents far apart and functions near their limits: every engine answers, or refuses in a sentence.

Truths are rational numbers, or arb balls at many times the precision.
"""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from elementary import ELEMENTARY
from flint import arb, ctx
from mpmath.libmp import finf, fnan, fninf, fone, from_man_exp, mpf_neg

import roundoff as ro
from roundoff.arithmetic.ball import Ball
from roundoff.arithmetic.multiprecision import MOST_BITS, Multiprecision
from roundoff.arithmetic.multiword import Multiword
from roundoff.errors import RoundoffError
from roundoff.trace.functions import FUNCTIONS, high_precision
from roundoff.trace.functions.table import RECORDS
from roundoff.trace.steps import Contract, Map, Reduce

ENGINES = ("mpmath", "ball", "multiword", "auto")
FORMATS = ("float16", "bfloat16", "float32", "float64")


def squares(out):
    return (out**2).sum()


def number(value) -> tuple:
    """A dyadic fraction as mpmath's raw number."""
    value = Fraction(value)
    return from_man_exp(value.numerator, 1 - value.denominator.bit_length())


def as_fraction(raw) -> Fraction:
    sign, mantissa, exponent, _ = raw
    return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** exponent


def as_arb(raw) -> arb:
    sign, mantissa, exponent, _ = raw
    return arb((-int(mantissa) if sign else int(mantissa), exponent))


def array(numbers) -> np.ndarray:
    found = np.empty(len(numbers), object)
    found[:] = numbers
    return found


# ---------------------------------------------------------------------------------------- masks


def attention(q, k, v, mask):
    return (q @ k.t() * 0.5 + mask).softmax(-1) @ v


def masked(value):
    rng = np.random.default_rng(0)
    given = {name: rng.standard_normal((4, 4)) for name in "qkv"}
    given["mask"] = np.triu(np.full((4, 4), value), 1)
    return dict(inputs=given, wrt=("q", "k", "v"), loss=squares)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("value", [-100.0, -700.0, -1e4, -1e9, -math.inf])
def test_attention_masks_have_references(value, format, engine) -> None:
    """Minus infinity stands for the smallest number of the format."""
    lowest = -ro.as_format(format).max
    value = max(value, lowest)
    if (engine, format) == ("multiword", "float64") and value == -700.0:
        # Four words, for gradients 300 bits below their terms.
        with pytest.raises(ro.PrecisionError, match="use engine='auto'"):
            ro.reference_gradients(attention, **masked(value), format=format, engine=engine)
        return
    found = ro.reference_gradients(attention, **masked(value), format=format, engine=engine)
    if format == "float64":
        truth = ro.reference_gradients(attention, **masked(value), format="float64", engine="ball")
        for name in "qkv":
            one, two = found[name], truth[name]
            gap = np.abs((one.high - two.high) + (one.low - two.low))
            assert (gap <= one.error + two.error).all()
            assert (one.error <= 2.0**-100).all()
    if value < -2000 and engine == "mpmath":
        shut = lambda q, k, v, mask: (
            (q @ k.t() * 0.5).masked_fill(mask < 0, -math.inf).softmax(-1) @ v
        )
        without = ro.reference_gradients(shut, **masked(value), format=format, engine="ball")
        for name in "qkv":
            one, two = found[name], without[name]
            gap = np.abs((one.high - two.high) + (one.low - two.low))
            assert (gap <= one.error + two.error).all(), "exp(-2000) is less than any radius"


@pytest.mark.parametrize("value", [-1e9, -(2.0**127)])
def test_masks_are_compared_and_have_tolerances(value, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ROUNDOFF_CACHE", str(tmp_path))
    added = lambda q, k, v: (q @ k.t() * 0.5 + torch.full((4, 4), value, dtype=q.dtype).triu(1)).softmax(-1) @ v  # fmt: skip
    hidden = torch.ones(4, 4).triu(1).bool()
    filled = lambda q, k, v: (q @ k.t() * 0.5).masked_fill(hidden, value).softmax(-1) @ v
    given = masked(value)["inputs"]
    problem = dict(inputs={name: given[name] for name in "qkv"}, loss=squares)
    formats = ("bfloat16", "float32", "float64")
    found = ro.compare(added, filled, **problem, formats=formats)
    assert set(found.table["verdict"]) <= {"IDENTICAL", "ROUNDOFF", "UNDECIDED"}
    assert (found.table[found.table["format"] == "float64"]["verdict"] != "UNDECIDED").all()
    shifted = lambda q, k, v: (q @ k.t() * 0.5).masked_fill(hidden.roll(1, 1), value).softmax(-1) @ v  # fmt: skip
    found = ro.compare(added, shifted, **problem, formats=formats)
    assert set(found.table["verdict"]) == {"DIFFERENT"}
    for format in formats:
        for of in ro.tolerance(added, **problem, format=format).values():
            assert not np.isnan(of.certified).any() and (of.certified >= 0).all()


# ------------------------------------------------------------------------- underflow in radii


@pytest.mark.parametrize("engine", ["auto", "mpmath", "ball"])
@pytest.mark.parametrize("x", [-700.0, -710.0, -745.0, -1000.0, -1e9, -1e300])
def test_what_underflows_is_zero_within_the_smallest_float64(x, engine) -> None:
    found = ro.reference_gradients(
        lambda x: torch.exp(x).sum(), {"x": [x, 1.0]}, format="float64", engine=engine
    )["x"]
    with ctx.workprec(2000):
        truth = arb(x).exp()
        gap = abs(truth - arb(float(found.high[0])) - arb(float(found.low[0])))
        assert gap <= arb(float(found.error[0]))
        assert abs(as_arb(found.numbers[0]) - truth) <= arb(2) ** -1100, "mp() has its digits"
    assert found.error[0] <= 2.0**-1074 and found.numbers[0][1]
    assert not found.exact


@pytest.mark.parametrize("value", [-1.0, 1.0])
def test_a_radius_is_the_sum_rounded_up_once(value) -> None:
    from roundoff.gradients.reference.rounding import float_up, split

    whole = number(Fraction(3, 2) * Fraction(2) ** -1074 * int(value))
    tiny = from_man_exp(1, -(10**9))
    assert split(whole, tiny)[2] == 2.0**-1074
    assert split(whole, number(Fraction(1, 2) * Fraction(2) ** -1074))[2] == 2.0**-1074
    assert split(whole, number(Fraction(3, 4) * Fraction(2) ** -1074))[2] == 2.0**-1073
    assert split(number(0), tiny) == (0.0, 0.0, 2.0**-1074)
    assert float_up(tiny) == 2.0**-1074 and float_up(number(0)) == 0.0
    huge = from_man_exp(3, 2**128)
    assert split(huge, tiny)[2] == math.inf


# ------------------------------------------------------------------------ sums of raw numbers


def total(bits, numbers):
    step = Reduce((1,), (0,), len(numbers))
    return Multiprecision(bits).reduce(step, array(numbers)[None])[0]


@pytest.mark.parametrize("seed", range(20))
def test_sums_are_exact_or_within_one_unit_of_each_number_cut_off(seed) -> None:
    rng, arithmetic = np.random.default_rng(seed), Multiprecision(100)
    spread = int(rng.choice([10, 2000, 5000, 20000]))
    values = [
        Fraction(int(rng.integers(-(2**40), 2**40))) * Fraction(2) ** int(rng.integers(-spread, 1))
        for _ in range(9)
    ]
    values = [*values, *(-v for v in values[:4])]
    truth, found = sum(values, Fraction(0)), as_fraction(total(100, list(map(number, values))))
    if spread <= 2000:
        assert found == truth
    top = max(map(abs, values))
    assert abs(found - truth) <= len(values) * top * Fraction(2) ** (1 - arithmetic.reach)
    a, b = values[0], values[1]
    for function, exact in (("add", a + b), ("sub", a - b), ("mul", a * b)):
        got = arithmetic.map(Map((1,), function, (0, 1)), [array([number(a)]), array([number(b)])])
        limit = max(abs(a), abs(b), abs(a * b)) * Fraction(2) ** (1 - arithmetic.reach)
        assert abs(as_fraction(got[0]) - exact) <= limit


def test_products_of_rows_and_columns_are_exact_or_cut_off_by_their_own_terms() -> None:
    far = Fraction(2) ** -30000
    rows = array([number(v) for v in (1, far, 3, 5)]).reshape(1, 2, 2)
    columns = array([number(v) for v in (0, 7, 1, 2)]).reshape(1, 2, 2)
    found = Multiprecision(100).contract(Contract((1, 2, 2), (0, 1), 2), rows, columns)
    assert as_fraction(found[0, 0, 0]) == far, "the first row's large element meets a zero"
    assert as_fraction(found[0, 1, 0]) == 5 and as_fraction(found[0, 1, 1]) == 31
    gap = as_fraction(found[0, 0, 1]) - 7
    assert 0 < gap <= Fraction(2) ** -4000, "not exact, and does not look it"


def test_what_is_cut_off_never_looks_exact() -> None:
    """1 + tiny - 1 keeps the sign of tiny, and changes with the precision."""
    for sign in (1, -1):
        tiny = from_man_exp(sign, -(10**9))
        left = []
        for bits in (100, 200):
            arithmetic = Multiprecision(bits)
            whole = arithmetic._add(fone, tiny)
            left.append(as_fraction(arithmetic._subtract(whole, fone)))
        assert all(sign * x > 0 for x in left) and left[0] != left[1]


def test_long_numbers_are_cut_off_too() -> None:
    arithmetic, x = Multiprecision(100), number(Fraction(2**53 - 1, 2**53))
    for _ in range(20):
        x = arithmetic._multiply(x, x)
    assert x[3] <= arithmetic.reach
    with ctx.workprec(8000):
        truth = (arb(2.0**53 - 1) / arb(2) ** 53) ** (2**20)
        assert abs(as_arb(x) / truth - 1) <= arb(2) ** (21 - arithmetic.reach)


@pytest.mark.parametrize("value", [finf, fninf, fnan])
def test_infinities_do_not_enter_sums(value) -> None:
    for numbers in ([fone, value], [value, fone]):
        with pytest.raises(ro.UnsupportedError, match="infinity or NaN enters a sum"):
            total(100, numbers)
        row, column = array(numbers)[None, None], array([fone, fone])[None, :, None]
        for first, second in ((row, column), (column.swapaxes(1, 2), row.swapaxes(1, 2))):
            with pytest.raises(ro.UnsupportedError, match="infinity or NaN enters a sum"):
                Multiprecision(100).contract(Contract((1, 1, 1), (0, 1), 2), first, second)


def test_exact_numbers_have_a_longest() -> None:
    """x^(2^16) has 53 2^16 bits: mpmath refuses with a remedy that works, and "auto" takes it."""

    def power(x):
        for _ in range(16):
            x = x * x
        return x.sum()

    given = {"x": [1 / 3 + 0.6660]}
    with pytest.raises(ro.PrecisionError, match=f"more than {MOST_BITS}; take engine='ball'"):
        ro.reference_gradients(power, given, format="float64", engine="mpmath")
    found = ro.reference_gradients(power, given, format="float64")
    assert found.engine == "ball" and found.rigorous and not found.exact
    with ctx.workprec(2000):
        truth = arb(2) ** 16 * arb(given["x"][0]) ** (2**16 - 1)
        gap = abs(truth - arb(float(found["x"].high[0])) - arb(float(found["x"].low[0])))
        assert gap <= arb(float(found["x"].error[0]))
    with pytest.raises(ro.PrecisionError, match="numbers of more similar sizes"):
        Multiprecision(0).reduce(
            Reduce((1,), (0,), 2), array([fone, from_man_exp(1, -(10**6))])[None]
        )
    apart = {"x": [2.0**-1000, 2.0**300]}
    fine = ro.reference_gradients(lambda x: x.sum() ** 3, apart, format="float64")["x"]
    assert fine.exact and as_fraction(fine.numbers[0]) == 3 * sum(map(Fraction, apart["x"])) ** 2


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_lost_below_and_amplified_is_not_zero(engine) -> None:
    """((1 + e^-y) - 1) e^y is 1, (e^x - 1 - x) / x^2 is 1/2: whoever answers says so."""
    cases = [
        (lambda x, w: (((1 + (-x).exp()) - 1) * x.exp() * w).sum(), 4000.0, 1.0),
        (lambda x, w: (((1 + (-x).exp()) - 1) * x.exp() * w).sum(), 1e6, 1.0),
        (lambda x, w: (((1 - (-x).exp()) - 1) * x.exp() * w).sum(), 1e9, -1.0),
        (lambda x, w: ((x.expm1() - x) / (x * x) * w).sum(), 2.0**-500, 0.5),
        (lambda x, w: ((x.log1p() - x) / (x * x) * w).sum(), 2.0**-500, -0.5),
        (lambda x, w: ((1 - x.tanh()) * (2 * x).exp() * w).sum(), 700.0, 2.0),
        (lambda x, w: ((1 - x.sigmoid()) * x.exp() * w).sum(), 1e4, 1.0),
        (lambda x, w: ((1 + x.erf()) * (x * x).exp() * -x * w).sum(), -100.0, math.pi**-0.5),
    ]
    for function, x, limit in cases:
        try:
            found = ro.reference_gradients(
                function, {"x": [x], "w": [1.0]}, ("w",), format="float64", engine=engine
            )["w"]
        except RoundoffError:
            continue
        gap = abs((found.high[0] - limit) + found.low[0])
        assert gap <= found.error[0] + 1e-4 and found.error[0] <= 1e-30, (x, limit)


# ---------------------------------------------------------------------------------- functions

LADDER = [
    *(2.0**k for k in range(-1000, 1001, 125)), 2.0**-1074, 2.0**-1022, 1.7976931348623157e308,
    1 + 2.0**-52, 1 - 2.0**-53, 0.5, 2.0, 3.0, 5.9, 8.3, 10.0, 21.0, 27.0, 30.0, 100.0, 355.0, 700.0,
    709.0, 710.0, 745.0, 3e4, 1e5, 1e9, 1e18, 1e22, 3.4e38, 1e300, 1e-300, math.pi, math.pi / 2,
    1 + 2.0**-40, 100 - 2.0**-40,
]  # fmt: skip
VALUES = [0.0, *LADDER, *(-x for x in LADDER)]
OF_ONE = sorted(f.name for f in RECORDS if f.arity == 1 and f.arb)  # others: test_special
GROWING = ("exp", "expm1", "sinh", "cosh")


def of(arithmetic, name, *values):
    """A function of numbers, or None where it is refused in a sentence."""
    loaded = [arithmetic.load(np.array([v])) for v in values]
    try:
        return arithmetic.map(Map((1,), name, tuple(range(len(values)))), loaded)
    except RoundoffError as error:
        told = str(error)
    assert "\n" not in told and len(told) < 300
    return None


def check_against(truth: arb, name: str, values: tuple, bits: int) -> None:
    """All engines at so many bits enclose a truth at many more; mpmath within two units."""
    raw = of(Multiprecision(bits), name, *values)
    ball = of(Ball(bits), name, *values)
    words = of(Multiword.of_bits(bits), name, *values)
    with ctx.workprec(4000):
        if ball is not None:
            assert ball[0].overlaps(truth)
        if not truth.is_finite():  # no value, or too large for balls
            assert ball is None
            assert raw is None or raw[0] in (finf, fninf) or name in GROWING or name == "pow"
            return
        assert raw is not None
        gap = abs(as_arb(raw[0]) - truth)
        allowed = abs(truth).abs_upper() * arb(2) ** (2 - bits) + arb(truth.rad()) * 2
        assert gap <= allowed, (values, gap.str(5))
        if words is not None:
            total = sum((arb(float(word[0])) for word in words.words), arb(0))
            radius = arb(float(np.broadcast_to(words.radius, (1,))[0]))
            assert abs(total - truth) <= radius + arb(truth.rad()) * 2, values


@pytest.mark.parametrize("name", OF_ONE)
@pytest.mark.parametrize("bits", [86, 170, 700])
def test_functions_agree_in_every_engine_from_the_smallest_to_the_largest_number(
    name, bits
) -> None:
    for x in VALUES:
        with ctx.workprec(3000):
            truth = FUNCTIONS[name].arb(arb(x))
        check_against(truth, name, (x,), bits)


@pytest.mark.parametrize("bits", [86, 700])
def test_powers_and_quotients_do(bits) -> None:
    bases = [2.0**-1074, 2.0**-500, 0.5, 1 - 2.0**-53, 1.0, 3.0, 4.0, 1e300, -2.0, -1e300]
    exponents = [-1e300, -1e9, -1.5, -1.0, -0.5, 2.0**-1074, 0.5, 1.0, 2.0, 2.5, 1e9, 1e300]
    for x in bases:
        for y in exponents:
            with ctx.workprec(3000):
                power, quotient = arb(x) ** arb(y), arb(x) / arb(y)
            if x > 0:  # arb has no power of a negative number to so large a whole one
                check_against(power, "pow", (x, y), bits)
            check_against(quotient, "div", (x, y), bits)
    assert value("pow", (number(-2), number(3)), bits) == number(-8)


def value(name, arguments, bits):
    return high_precision.value(FUNCTIONS[name], arguments, bits)


def test_results_are_rounded_to_odd() -> None:
    """Not exact, so their last bit is set; toward zero but for that bit.  Exact ones stay."""
    exact = {
        "div": [(1, 4, Fraction(1, 4)), (6, 3, 2)], "sqrt": [(4, 2), (Fraction(1, 4), Fraction(1, 2))],
        "pow": [(3, 4, 81), (4, Fraction(1, 2), 2), (2, -3, Fraction(1, 8))], "exp": [(0, 1)],
        "log": [(1, 0)], "log2": [(8, 3), (Fraction(1, 4), -2)], "log10": [(1000, 3), (1, 0)],
        "acos": [(1, 0)], "cos": [(0, 1)], "cosh": [(0, 1)], "erf": [(0, 0)], "erfc": [(0, 1)],
        "sigmoid": [(0, Fraction(1, 2))], "expm1": [(0, 0)], "log1p": [(0, 0)], "sin": [(0, 0)],
    }  # fmt: skip
    for name, cases in exact.items():
        for *given, result in cases:
            assert value(name, tuple(map(number, given)), 90) == number(result), name
    inexact = {
        "div": (1, 3),
        "sqrt": (2,),
        "pow": (3, Fraction(1, 2)),
        "log10": (20,),
        "log2": (6,),
        "log": (2,),
    }
    others = {name: (Fraction(1, 2),) for name in ELEMENTARY if name not in inexact}
    for name, given in {**inexact, **others}.items():
        for bits in (60, 90):
            found = value(name, tuple(map(number, given)), bits)
            assert found[3] == bits, name
            with ctx.workprec(400):
                truth = FUNCTIONS[name].arb(*(as_arb(number(v)) for v in given))
                unit = arb(2) ** found[2]
                assert abs(as_arb(found) - truth) < unit
                wide = value(name, tuple(map(number, given)), 200)
                assert (found[1] - 1) << (200 - bits) < wide[1] < (found[1] + 1) << (200 - bits)


def test_what_is_nearly_one_is_on_the_right_side_of_it() -> None:
    big = number(10**6)
    for bits in (60, 900):
        for name in ("erf", "tanh", "sigmoid"):
            assert 0 < 1 - as_fraction(value(name, (big,), bits)) <= Fraction(2) ** (2 - bits)
        assert as_fraction(value("tanh", (mpf_neg(big),), bits)) > -1
        assert as_fraction(value("erf", (mpf_neg(big),), bits)) > -1
        assert as_fraction(value("erfc", (mpf_neg(big),), bits)) < 2
        small = number(Fraction(1, 2**3000))
        assert as_fraction(value("exp", (small,), bits)) > 1
        assert as_fraction(value("exp", (mpf_neg(small),), bits)) < 1
        assert as_fraction(value("cos", (small,), bits)) < 1
        assert as_fraction(value("expm1", (small,), bits)) > as_fraction(small)
        assert as_fraction(value("log1p", (small,), bits)) < as_fraction(small)


@pytest.mark.parametrize("name", ["exp", "sin", "cosh", "pow", "sigmoid", "erfc"])
def test_numbers_without_bound_are_refused(name) -> None:
    """e^(e^(10^9)): no engine has the memory."""
    huge = from_man_exp(1, 10**9)
    given = (fone, huge) if name == "pow" else (mpf_neg(huge) if name == "sigmoid" else huge,)
    with pytest.raises(ro.UnsupportedError, match=r"beyond the range.*scale the inputs"):
        value(name, given, 100)
    for saturated in ("tanh", "erf"):
        assert as_fraction(value(saturated, (huge,), 100)) < 1
    assert value("log", (huge,), 100)[3] == 100


ACTIVATIONS = {
    "gelu": F.gelu, "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "mish": F.mish,
    "softplus": F.softplus, "logsigmoid": F.logsigmoid, "elu": F.elu, "tanh": torch.tanh,
    "softmax": lambda x: F.softmax(x, -1)[:, :1], "log_softmax": lambda x: F.log_softmax(x, -1)[:, :1],
    "logsumexp": lambda x: torch.logsumexp(x, -1),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("format", ["float32", "float64"])
def test_activations_at_large_arguments(name, format) -> None:
    x = np.array([-30.0, 30.0, -700.0, 3e4, -3e4, 1e5, -1e5, 1e9, -1e9, 1e30, -1e30])
    given = {"x": np.stack([x, np.full(x.shape, 1.5), x / 2 + 0.25], axis=-1)}
    function = lambda x: ACTIVATIONS[name](x).sum()
    first = ro.reference_gradients(function, given, format=format, engine="ball")["x"]
    assert np.isfinite(first.high).all()
    for engine in ("mpmath", "multiword", "auto"):
        refused = None
        try:
            found = ro.reference_gradients(function, given, format=format, engine=engine)["x"]
        except ro.RoundoffError as error:
            refused = str(error)
        if refused is not None:
            assert engine == "multiword" and "use engine='auto'" in refused
            continue
        gap = np.abs((found.high - first.high) + (found.low - first.low))
        assert (gap <= found.error + first.error).all()


def test_the_tail_of_gelu_keeps_its_digits() -> None:
    """x Phi(x) has the derivative Phi(x) + x phi(x)."""
    found = ro.reference_gradients(
        lambda x: F.gelu(x).sum(), {"x": [-30.0]}, format="float64", engine="mpmath"
    )["x"]
    with mpmath.workprec(200):
        x = mpmath.mpf(-30)
        truth = mpmath.erfc(-x / mpmath.sqrt(2)) / 2 + x * mpmath.npdf(x)
        assert abs(found.mp()[0] - truth) <= abs(truth) * mpmath.mpf(2) ** -72


@pytest.mark.parametrize("format", FORMATS)
def test_masks_that_are_inputs_are_compared_at_random_points(format) -> None:
    """The smallest number of the format times 1 + r would often be none."""
    kind = getattr(torch, format)
    hidden = torch.ones(4, 4).triu(1).bool()
    mask = torch.zeros(4, 4, dtype=kind).masked_fill(hidden, torch.finfo(kind).min)
    given = {n: torch.from_numpy(v).to(kind) for n, v in masked(0.0)["inputs"].items()}
    found = ro.compare(
        attention, lambda q, k, v, mask: (q * 0.5 @ k.t() + mask).softmax(-1) @ v,
        {**given, "mask": mask}, ("q", "k", "v"), squares, formats=format, seeds=2,
    )  # fmt: skip
    assert set(found.table["verdict"]) <= {"IDENTICAL", "ROUNDOFF"}
    assert any("agree at 1 random point" in note for note in found.notes)
    assert not any("no check" in note for note in found.notes)
