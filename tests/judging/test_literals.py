"""Literals, doubles that a function brings along: honest spellings of one number, and another number."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from elementary import by_torch

import roundoff as ro
from roundoff.arithmetic.literal_errors import (
    DIRECTIONS,
    EXACT_BITS,
    ROUNDING,
    is_literal,
    of_literals,
    rounded,
)
from roundoff.gradients.reference import reference_of_trace
from roundoff.trace import FUNCTIONS, prune, trace_gradients
from roundoff.trace.functions import Kind


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape))


def table(make):
    """A tensor of frequencies."""
    return torch.tensor([make(k) for k in range(8)], dtype=torch.float64)


def turned(x, t, frequencies):
    """Rotary positions: pairs of x turned by t times the frequencies."""
    angle = t[:, None] * frequencies
    a, b = x[:, :8], x[:, 8:]
    return torch.cat([a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()], 1)


def heads(query, key, value, scaled):
    return scaled(query @ key.mT).softmax(-1) @ value


TIMES = {"t": torch.tensor([1.0, 17.0, 365.0, 3000.0, 131071.0], dtype=torch.float64)}
LARGE = {n: 10 * normal(4, 3, seed=k) for k, n in enumerate(("query", "key", "value"))}
TURNED = {"x": normal(5, 16), **TIMES}
BY_POWER, BY_EXP = lambda k: 1 / 10000 ** (k / 8), lambda k: math.exp(-math.log(10000) * k / 8)
TABLES = table(BY_POWER), table(BY_EXP)
HONEST = {
    **{f"frequency {k}": (lambda t, k=k: torch.sin(t * BY_EXP(k)), lambda t, k=k: torch.sin(t / 10000 ** (k / 8)),
                          TIMES) for k in (1, 2, 3, 5, 7)},
    "seasons": (lambda t: torch.sin(2 * math.pi * t / 365.25), lambda t: torch.sin(t * (2 * math.pi / 365.25)), TIMES),
    "attention": (lambda **v: heads(**v, scaled=lambda s: s / math.sqrt(3)),
                  lambda **v: heads(**v, scaled=lambda s: s * (1 / math.sqrt(3))), LARGE),
    "rotary": (lambda x, t: turned(x, t, table(BY_POWER)), lambda x, t: turned(x, t, table(BY_EXP)), TURNED),
    "captured": (lambda t: (t[:, None] * TABLES[0]).cos(), lambda t: (t[:, None] * TABLES[1]).cos(), TIMES),
    "standard deviations": (lambda x: (x - 0.485) / 0.229, lambda x: x / 0.229 - 0.485 / 0.229, {"x": normal(7)}),
    "degrees": (lambda x: torch.tan(x * math.pi / 180), lambda x: torch.tan(x * (math.pi / 180)), {"x": 40 * normal(9)}),
    "third": (lambda x: (x / 3).exp(), lambda x: (x * (1 / 3)).exp(), {"x": 300 * normal(5)}),
    "logarithm": (lambda x: torch.log2(x.abs() + 1), lambda x: torch.log(x.abs() + 1) * (1 / math.log(2)),
                  {"x": normal(5)}),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_honest_spellings_of_a_literal_are_no_other_function(name) -> None:
    first, second, inputs = HONEST[name]
    found = ro.compare(
        first, second, inputs, loss=lambda out: (out * out).sum(), formats=("float32", "float64")
    )
    for pair in found.pairs.values():
        assert pair.judgement.verdict != ro.Verdict.DIFFERENT, pair.judgement.reason
    assert "for literals rounded to double" in str(found)


#: Functions of x and a literal c, which they move by one part in one, 3000, or 40 of a millionth.
LADDERS = {
    "plain": lambda x, c: x * c,
    "amplified": lambda x, c: torch.sin(3000 * x * c),
    "cancelled": lambda x, c: (x * c - x * (1.1 + 2.0**-20)).exp(),
    "softmax": lambda x, c: (x[:, None] * x * 40 * c).softmax(-1),
    "twice": lambda x, c: (x * c).tanh() * c,
    "captured": lambda x, c: x * torch.tensor([c, 1.0, 2.0, 0.5, 3.0], dtype=torch.float64),
}


@pytest.mark.parametrize("name", LADDERS)
def test_a_literal_that_is_farther_off_than_rounding_is_another_one(name) -> None:
    function, inputs = LADDERS[name], {"x": normal(5)}
    # 2^-49.4 is one and a half of what each side is allowed, 2^-49 that of both.
    for e in (52, 50, 49.4, 48, 45, 40, 30):
        sides = [lambda x, c=c: function(x, c).square().sum() for c in (1.1, 1.1 * (1 + 2.0**-e))]
        for first, second in (sides, sides[::-1]):
            found = ro.compare(first, second, inputs, formats="float64", points=0)
            seen = found.verdict("output", "float64") == ro.Verdict.DIFFERENT
            assert seen == (e < 49), e


@pytest.mark.parametrize("points", [0, 1])
def test_random_points_allow_as_much(points) -> None:
    inputs = {"x": normal(5)}
    for e, expected in ((51, False), (45, True)):
        found = ro.compare(
            lambda x: torch.sin(300 * x * 1.1).sum(), lambda x, e=e: torch.sin(300 * x * (1.1 * (1 + 2.0**-e))).sum(),
            inputs, formats="float64", points=points,
        )  # fmt: skip
        assert (found.verdict("x", "float64") == ro.Verdict.DIFFERENT) == expected


def limits(function, inputs, shape=None):
    trace = prune(trace_gradients(function, inputs, forward=True))
    values = {name: value.numpy() for name, value in inputs.items()}
    return trace, values, of_literals(trace, values)


OF_ONE = [
    name for name, function in FUNCTIONS.items()
    if function.arity == 1 and function.kind in (Kind.ELEMENTARY, Kind.REFLECTION) and function.bounded
]  # fmt: skip
TORCHS = {"gelu_erf": torch.nn.functional.gelu, "trigamma": lambda x: torch.polygamma(1, x + 1)}
OF_TWO = {
    "add": lambda x, y: x + y, "sub": lambda x, y: x - y, "mul": lambda x, y: x * y, "div": lambda x, y: x / y,
    "div by": lambda x, y: y / x, "pow": lambda x, y: y**x, "pow of": lambda x, y: x**y, "maximum": torch.maximum,
    "minimum": torch.minimum, "where": lambda x, y: torch.where(y > 0, x, y), "product": lambda x, y: x @ y,
    "product of": lambda x, y: y @ x, "sum": lambda x, y: (x + y).sum(0, keepdim=True) + y,
}  # fmt: skip


@pytest.mark.parametrize("name", [*OF_ONE, *OF_TWO])
def test_the_first_order_is_the_difference_quotient_of_references(name) -> None:
    """Of one literal, exactly; by another engine, at twice the float64's bits."""
    y = torch.tensor([[0.3, 0.7], [0.4, 0.9]], dtype=torch.float64)

    def function(y, c):
        if name in OF_TWO:
            return (OF_TWO[name](y * c, y) * y).sum()
        of = TORCHS.get(name) or by_torch(name)
        return of(y * c).sum() if name != "acos" else of(y * c - 1).sum()

    step = 2.0**-26
    of = [
        limits(lambda y, c=c: function(y, c), {"y": y}) for c in (1.0625 + 2.0**-31, (1.0625 + 2.0**-31) * (1 + step))
    ]  # fmt: skip
    one, two = (reference_of_trace(t, v, format="float64", engine="ball") for t, v, _ in of)
    for gradient in ("output", "y"):
        moved = np.abs((two[gradient].high - one[gradient].high) / step)
        assert np.allclose(of[0][2][gradient] / ROUNDING, moved, rtol=2.0**-16, atol=2.0**-20)


def test_which_numbers_are_literals() -> None:
    exact = [0, 1, -3, 0.5, 1e9, 65504.0, float(np.float32(0.1)), 2.0**-1074, 2.0**EXACT_BITS - 1]
    off = [0.1, -1 / 3, math.pi, 1e-5, 10000 ** (2 / 6), 2.0**EXACT_BITS + 1, 0.1 * 2.0**900]
    assert not any(is_literal(Fraction(x)) for x in exact) and not rounded(np.array(exact)).any()
    assert all(is_literal(Fraction(x)) for x in off) and rounded(np.array(off)).all()
    assert not any(map(is_literal, (Fraction(1, 3), Fraction(2, 49 * 768), math.inf, -math.inf)))
    assert is_literal(1 / Fraction(0.1)) and is_literal(1 - Fraction(0.1))
    assert not rounded(np.array([np.inf, -np.inf, np.nan])).any()


def test_numbers_that_are_exact_and_inputs_owe_nothing() -> None:
    x = {"x": normal(4)}
    single = torch.tensor([0.1, 0.2, 0.3, 0.4])
    for function in (
        lambda x: (x.exp() * 3 / 7 - 0.5).mean(), lambda x: (x * single).sum(), lambda x: torch.var(x) * 1e9,
        lambda x: (x * 0.1).sum() - (x * 0.1).sum(), lambda x: (x * 0.1 * 2 - x * 0.2).sum(),
    ):  # fmt: skip
        assert not any(np.any(limit) for limit in limits(function, x)[2].values())


def test_many_literals_add_up_as_the_root_of_their_squares() -> None:
    rng = np.random.default_rng(3)
    x, numbers = {"x": normal(400)}, torch.from_numpy(rng.uniform(1, 2, (60, 400)))
    found = limits(lambda x: (x * numbers).sum(1).square().sum(), x)[2]["x"]
    c, v = numbers.numpy(), x["x"].numpy()
    rows = c @ v
    # By c_ij the gradient of x_k changes by 2 (row_i [k = j] + c_ik x_j).
    terms = 2 * (rows[:, None, None] * np.eye(400) + c[:, :, None] * v[None, None, :])
    expected = ROUNDING * np.sqrt(np.square(terms * c[:, None, :]).sum((0, 2)))
    ratio = found / expected
    assert 0.7 < np.sqrt(np.square(ratio).mean()) < 1.4 and 0.3 < ratio.min() <= ratio.max() < 2.5
    assert DIRECTIONS >= 16


def test_what_cancels_owes_nothing() -> None:
    """So slopes have signs: of these sums none depends on the literal."""
    x = {"x": torch.tensor([0.3, -0.6, 0.8], dtype=torch.float64)}
    for function in (
        lambda u: u.cos() ** 2 + u.sin() ** 2, lambda u: u.erf() + u.erfc(), lambda u: u.acos() + u.asin(),
        lambda u: u.cosh() ** 2 - u.sinh() ** 2, lambda u: u.sigmoid() + (-u).sigmoid(), lambda u: u.exp() * (-u).exp(),
    ):  # fmt: skip
        found = limits(lambda x, f=function: f(x * 1.1).sum(), x)[2]["output"]
        assert found <= ROUNDING * 2.0**-40


def test_tiny_gradients_owe_their_part() -> None:
    x = {"x": torch.tensor([-480.0, -460.0], dtype=torch.float64)}
    found = limits(lambda x: (x * 1.1).exp().sum(), x)[2]["output"]
    assert found == pytest.approx(ROUNDING * 460 * 1.1 * math.exp(-506), rel=1e-6)


def test_where_the_slope_vanishes_the_second_order_counts() -> None:
    t = {"t": torch.tensor([math.pi * (0.5 + 2e11) / 1.1], dtype=torch.float64)}
    found = limits(lambda t: (t * 1.1).sin().sum(), t)[2]["output"]
    moved = float(t["t"]) * 1.1 * ROUNDING
    assert moved**2 / 2 <= found <= 3 * moved**2


# ------------------------------------------------------------- literals here, data of a narrower type there

NARROW = ("float16", "bfloat16", "float32")
EQUAL = {ro.Verdict.IDENTICAL, ro.Verdict.ROUNDOFF}


def scaled(x):
    return x * 0.1


def filled(x):
    return x * torch.full((5,), 0.1)


def tensor(x):
    return x * torch.tensor([0.1] * 5)


def normalised(x):
    return (x - 0.485) / 0.229


def normalised_by_tensors(x):
    return (x - torch.tensor([0.485])) / torch.tensor([0.229])


def crossed(x):
    """A literal where the other has data, and the other way round."""
    return x.tanh() * 0.3 + torch.tensor([0.7] * 5)


def crossed_back(x):
    return x.tanh() * torch.tensor([0.3] * 5) + 0.7


def leaky(x):
    return torch.nn.functional.leaky_relu(x, 0.01)


def leaky_by_tensor(x):
    return torch.where(x > 0, x, x * torch.tensor([0.01] * 5))


AS_DATA = {
    "tensor": (scaled, tensor, "0.1"), "full": (filled, tensor, "0.1"),
    "normalised": (normalised, normalised_by_tensors, "0.485"), "crossed": (crossed, crossed_back, "0.3"),
    "leaky": (leaky, leaky_by_tensor, "0.01"),
    "amplified": (lambda x: (30 * scaled(x)).exp(), lambda x: (30 * tensor(x)).exp(), "0.1"),
}  # fmt: skip


def verdicts(first, second, formats=NARROW, **options):
    found = ro.compare(
        first, second, {"x": normal(5) / 4}, loss=torch.sum, formats=formats, **options
    )
    return found, {pair.judgement.verdict for pair in found.pairs.values()}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", AS_DATA)
def test_a_literal_that_the_other_side_holds_as_float32_data_is_no_difference_in_float32(
    name, swapped
) -> None:
    first, second, literal = AS_DATA[name]
    found, seen = verdicts(*((second, first) if swapped else (first, second)))
    assert seen <= EQUAL, str(found)
    text = " ".join(str(found).split())
    assert f"{literal} is a literal in" in text and "both are judged as that number" in text
    assert not found.elsewhere
    for pair in found.pairs.values():
        assert (
            pair.judgement.verdict != ro.Verdict.ROUNDOFF
            or "equal at these inputs" in pair.judgement.reason
        )


@pytest.mark.parametrize("name", [n for n in AS_DATA if n != "full"])
def test_in_float64_it_is_one_and_the_note_says_why(name) -> None:
    first, second, literal = AS_DATA[name]
    found, seen = verdicts(first, second, "float64")
    assert ro.Verdict.DIFFERENT in seen
    text = " ".join(str(found).split())
    assert f"{literal} is a literal in" in text and "that alone sets them apart" in text


def test_the_note_has_the_numbers() -> None:
    text = " ".join(str(verdicts(filled, tensor)[0]).split())
    assert (
        "0.1 is a literal in filled, the double 0.1000000000000000056, and float32 data in tensor, "
        "0.100000001490116, which differs by 1.49e-09"
    ) in text
    assert "literal" not in str(verdicts(filled, tensor, "float64")[0])


def by(number, dtype=torch.float32):
    """Its product with a tensor of that number."""
    data = torch.tensor([number] * 5, dtype=dtype)
    return lambda x: x * data


def other_literals():
    up = float(np.nextafter(np.float32(0.1), np.float32(1)))
    for number in (0.11, 0.1001, 0.1 * (1 + 2.0**-20), up, 0.1 * (1 - 2.0**-22)):
        yield f"data {number!r}", lambda x: x * 0.1, by(number), NARROW
        yield f"literal {number!r}", lambda x: x * 0.1, lambda x, c=number: x * c, NARROW
    for e in (24, 30, 40):
        yield (
            f"literal 2^-{e}",
            lambda x: x * 0.1,
            lambda x, e=e: x * (0.1 * (1 + 2.0**-e)),
            ("float32", "float64"),
        )
        yield (
            f"literal near 1, 2^-{e}",
            lambda x, e=e: x * (1 + 2.0**-e),
            by(1.0),
            (*NARROW, "float64"),
        )
    yield "literal near 1.5", lambda x: x * (1.5 + 2.0**-30), by(1.5), (*NARROW, "float64")
    for dtype in (torch.bfloat16, torch.float16):
        yield f"data of {dtype}", lambda x: x * 0.1, by(0.1, dtype), ("float32", "float64")
    yield "twice", lambda x: x * 0.1 + 0.1, lambda x: x * torch.tensor([0.1] * 5) + 0.11, NARROW
    yield "elsewhere", lambda x: x * 0.1 + 1, lambda x: x + torch.tensor([0.1] * 5), NARROW
    yield (
        "wide steps",
        lambda x: (x.double() * 0.1).to(x),
        lambda x: (x.double() * torch.tensor([0.1] * 5)).to(x),
        ("float32",),
    )


OTHER = {name: rest for name, *rest in other_literals()}


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", OTHER)
def test_other_numbers_stay_another_function_in_every_format(name, swapped) -> None:
    first, second, formats = OTHER[name]
    found = ro.compare(*((second, first) if swapped else (first, second)), {"x": normal(5)}, loss=torch.sum,
                       formats=formats, points=0)  # fmt: skip
    for format in formats:
        assert found.verdict("output", format) == ro.Verdict.DIFFERENT, str(found)


def test_a_literal_beside_data_of_the_same_number_is_none_of_it() -> None:
    """Rounding the literal would part these: x / 10 and 0.1 x are one function but for a rounding to double."""
    data = torch.tensor([0.1] * 5)
    found, seen = verdicts(lambda x: x * 0.1 + data, lambda x: x / 10 + data, "float64")
    assert seen <= EQUAL and "is a literal in" not in str(found), str(found)
    found, seen = verdicts(lambda x: x * 0.1 + data, lambda x: x / 10 + data)
    assert seen <= EQUAL and "is a literal in" not in str(found), str(found)


@pytest.mark.parametrize("alpha", [0.7, 1.3])
def test_celu_by_hand_is_celu(alpha) -> None:
    """PyTorch 2.13 divides by alpha in float32 there, in float64, too, where that is a fault."""

    def by_hand(x):
        return torch.where(x > 0, x, alpha * torch.expm1(x / alpha))

    x = torch.linspace(-2, 2, 20)
    found = ro.compare(
        lambda x: torch.celu(x, alpha), by_hand, {"x": x}, loss=lambda o: (o**2).sum()
    )
    for format in ("float16", "bfloat16", "float32"):
        assert found.verdict("x", format) == ro.Verdict.ROUNDOFF, found.reason("x", format)
    assert found.verdict("x", "float64") == ro.Verdict.SUSPICIOUS
