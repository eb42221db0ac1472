"""References: mpmath against balls against rational numbers; radii, precision, refusals."""

from __future__ import annotations

import itertools
import math
import pickle
from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro
from roundoff.gradients.reference import engines
from roundoff.gradients.reference.rounding import float_up, nearest, split
from roundoff.trace import prune, trace_gradients


def conv_then_slice(weight, bias, x):
    return F.conv1d(x, weight, bias)[:, :, -3:]


def squares(out):
    return (out**2).sum()


def problem(seed=0, n=2, ci=2, co=3, t=6):
    rng = np.random.default_rng(seed)
    inputs = {
        "weight": rng.uniform(-1, 1, (co, ci, 1)),
        "bias": rng.uniform(-1, 1, co),
        "x": rng.random((n, ci, t)),
    }
    return dict(inputs=inputs, wrt=("weight", "bias"), loss=squares)


def fraction_gradients(inputs, format):
    """The gradients of the sum of squares, written down by hand in rational numbers."""
    exact = {
        k: np.vectorize(Fraction, otypes=[object])(ro.round_to(v, format))
        for k, v in inputs.items()
    }
    w, b, x = exact["weight"][:, :, 0], exact["bias"], exact["x"]
    dw = np.full(w.shape, Fraction(0), object)
    db = np.full(b.shape, Fraction(0), object)
    for n, o, t in itertools.product(
        range(x.shape[0]), range(len(b)), range(x.shape[2] - 3, x.shape[2])
    ):
        out = b[o] + sum(w[o, c] * x[n, c, t] for c in range(x.shape[1]))
        db[o] += 2 * out
        for c in range(x.shape[1]):
            dw[o, c] += 2 * out * x[n, c, t]
    return {"weight": dw[:, :, None], "bias": db}


def as_fraction(number) -> Fraction:
    sign, mantissa, exponent, _ = number
    return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** exponent


@pytest.mark.parametrize("engine", ["mpmath", "ball", "multiword"])
@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32", "float64", ro.FLOAT8_E5M2])
def test_polynomials_are_exact(engine, format) -> None:
    given = problem()
    found = ro.reference_gradients(conv_then_slice, **given, format=format, engine=engine)
    expected = fraction_gradients(given["inputs"], format)
    assert found.exact and found.rigorous and found.engine == engine
    assert list(found) == ["weight", "bias"] and len(found) == 2
    for name, gradient in found.items():
        assert gradient.numbers.shape == expected[name].shape
        for number, truth, high, low, radius in zip(
            gradient.numbers.ravel(), expected[name].ravel(), gradient.high.ravel(),
            gradient.low.ravel(), gradient.error.ravel(), strict=True,
        ):  # fmt: skip
            assert as_fraction(number) == truth
            assert high == float(truth), "hi is the nearest float64"
            assert abs(truth - Fraction(high) - Fraction(low)) <= Fraction(radius)
            assert radius <= 2.0**-100 * abs(high)


def test_a_third_is_no_binary_number() -> None:
    """The gradient of a mean square has the factor 2/N."""
    for n, exact in ((4, True), (3, False)):
        inputs = {"input": np.arange(n) / 8, "target": np.ones(n)}
        trace = prune(trace_gradients(F.mse_loss, inputs, ("input",)))
        assert trace.polynomial == exact
        found = ro.reference_gradients(F.mse_loss, inputs, ("input",), engine="mpmath")["input"]
        assert found.exact == exact
        for k, (high, low, radius) in enumerate(
            zip(found.high, found.low, found.error, strict=True)
        ):
            gap = (
                Fraction(float(high)) + Fraction(float(low)) - Fraction(2, n) * (Fraction(k, 8) - 1)
            )
            assert abs(gap) <= Fraction(float(radius))


def test_balls_of_polynomials_are_raised_until_nothing_is_rounded() -> None:
    x = np.array([1 / 3, -0.1])
    found = ro.reference_gradients(
        lambda x: (x**6).sum(), {"x": x}, format="float64", engine="ball"
    )
    assert found.exact and found.bits > 170
    assert [as_fraction(n) for n in found["x"].numbers] == [6 * Fraction(v) ** 5 for v in x]


def functions(x, y):
    z = torch.exp(x) / (1 + y * y) + torch.tanh(x * y) * torch.sqrt(y) + torch.log(y) * torch.sin(x)
    return torch.sigmoid(z) + torch.erf(x) + torch.expm1(x * 1e-3) + y**1.5


def test_balls_enclose_what_mpmath_finds() -> None:
    rng = np.random.default_rng(1)
    given = dict(inputs={"x": rng.uniform(0.1, 2, 5), "y": rng.uniform(0.1, 2, 5)}, loss=torch.sum)
    for format in ("float16", "float32", "float64"):
        ball = ro.reference_gradients(functions, **given, format=format, engine="ball")
        number = ro.reference_gradients(functions, **given, format=format, engine="mpmath")
        assert ball.rigorous and not ball.exact
        assert not number.rigorous and not number.exact and number.bits > ball.bits
        for name in ball:
            a, b = ball[name], number[name]
            with mpmath.workprec(2000):
                for p, q, ra, rb in zip(
                    a.mp().ravel(), b.mp().ravel(), a.error.ravel(), b.error.ravel()
                ):
                    assert abs(p - q) <= mpmath.mpf(float(ra)) + mpmath.mpf(float(rb))
            limit = 2.0**-20 * np.maximum(
                ro.spacing(a.high, a.low, format), 2 * ro.as_format(format).u * a.scale
            )
            assert (a.error <= limit).all() and (b.error <= limit).all()


def cancelling(x):
    return torch.exp(x) - 1 - x - 0.5 * x * x


@pytest.mark.parametrize("engine", ["ball", "mpmath"])
def test_precision_is_raised_until_it_suffices(engine, monkeypatch) -> None:
    # The gradient exp(x) - 1 - x is x^2/2 + x^3/6 + ...: 120 bits below its terms.
    given = dict(inputs={"x": 2.0**-60}, format="float64", engine=engine)
    loose = ro.reference_gradients(cancelling, **given)
    monkeypatch.setattr(engines, "RADIUS_FACTOR", 2.0**-160)
    tight = ro.reference_gradients(cancelling, **given)
    assert tight.bits > loose.bits
    x = Fraction(1, 2**60)
    truth = x**2 / 2 + x**3 / 6 + x**4 / 24 + x**5 / 120
    for found in (loose["x"], tight["x"]):
        gap = abs(truth - Fraction(float(found.high)) - Fraction(float(found.low)))
        assert gap <= Fraction(float(found.error)) + x**6
    assert tight["x"].error <= 2.0**-160 * 2.0**-52 * tight["x"].scale


@pytest.mark.parametrize("engine", ["ball", "mpmath"])
def test_a_limit_is_stated(engine, monkeypatch) -> None:
    monkeypatch.setattr(engines, "LIMIT_BITS", 200)
    monkeypatch.setattr(engines, "RADIUS_FACTOR", 2.0**-600)
    with pytest.raises(ro.PrecisionError, match="'x' at element .* 200 bits"):
        ro.reference_gradients(cancelling, {"x": 0.3}, format="float64", engine=engine)


def test_true_zeros_have_the_scaled_error_alone() -> None:
    found = ro.reference_gradients(
        lambda x: (torch.exp(x) - torch.exp(x)).sum(), {"x": [0.5, 2.0]}, engine="ball"
    )
    gradient = found["x"]
    assert (gradient.high == 0).all() and (gradient.scale > 1).all()
    assert (gradient.error <= 2.0**-20 * 2 * 2.0**-24 * gradient.scale).all()


def test_inputs_are_rounded_first() -> None:
    x = torch.tensor([1.0 + 2.0**-20, 3.0])
    found = ro.reference_gradients(lambda x: (x**3).sum(), {"x": x}, format="float16")
    assert found["x"].hi.tolist() == [3.0, 27.0] and found.format is ro.FLOAT16
    assert (
        ro.reference_gradients(lambda x: (x**3).sum(), {"x": x}, format="float32")["x"].hi[0] > 3.0
    )


def test_scale_is_the_gradient_of_absolute_values() -> None:
    given = problem(3)
    found = ro.reference_gradients(conv_then_slice, **given, format="float64")
    positive = {k: torch.tensor(np.abs(v), requires_grad=True) for k, v in given["inputs"].items()}
    squares(conv_then_slice(**positive)).backward()
    for name in ("weight", "bias"):
        np.testing.assert_allclose(found[name].S, positive[name].grad, rtol=100 * 2.0**-53)


def test_closures_have_a_type_of_their_own_and_are_taken_as_they_are() -> None:
    hidden = torch.tensor([1.0 + 2.0**-20], dtype=torch.float64)
    found = ro.reference_gradients(lambda x: (x * hidden).sum(), {"x": [1.0]}, format="float16")
    assert found["x"].hi.tolist() == [1.0 + 2.0**-20]


def test_upstream_and_extreme_ranges() -> None:
    up = np.array([2.0**-300, -3.0])
    x = np.array([2.0**-700, 2.0**600])
    found = ro.reference_gradients(lambda x: x * x, {"x": x}, upstream=up, format="float64")["x"]
    assert found.high.tolist() == [2.0**-999, -6 * 2.0**600]
    tiny = ro.reference_gradients(lambda x: (x**3).sum(), {"x": [2.0**-600]}, format="float64")["x"]
    assert (
        tiny.high.tolist() == [0.0]
        and tiny.error[0] >= 0
        and tiny.mp()[0] == mpmath.mpf(3) * mpmath.mpf(2) ** -1200
    )


def test_mpmaths_global_context_is_left_alone() -> None:
    before = mpmath.mp.prec
    ro.reference_gradients(functions, {"x": [0.5], "y": [0.7]}, loss=torch.sum)
    assert mpmath.mp.prec == before


def test_references_can_cross_to_another_process() -> None:
    found = ro.reference_gradients(conv_then_slice, **problem())
    copy = pickle.loads(pickle.dumps(found["weight"]))
    assert copy.numbers.tolist() == found["weight"].numbers.tolist()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (dict(engine="abacus"), "'abacus'.*mpmath, ball, multiword, auto"),
        (dict(format="float12"), "float12.*bfloat16"),
        (dict(inputs={"x": [float("nan")]}), "'x' holds nan"),
        (dict(inputs={"x": [-float("inf")]}), "'x' holds -inf"),
        (dict(inputs={"x": [70000.0]}, format="float16"), "70000.*65504.*wider range"),
        (dict(inputs={"x": [500.0]}, format="float8_e4m3fn"), "500.*448"),
    ],
)
def test_bad_input_is_named(change, words) -> None:
    given = {"function": lambda x: (x * x).sum(), "inputs": {"x": [1.0]}, **change}
    with pytest.raises(ro.ArgumentError, match=words):
        ro.reference_gradients(**given)


def test_no_value_is_said() -> None:
    for engine in ("mpmath", "ball", "multiword"):
        with pytest.raises(ro.UnsupportedError, match="no value"):
            ro.reference_gradients(
                lambda x: (x * torch.log(x - 1)).sum(), {"x": [0.5]}, engine=engine
            )
        with pytest.raises(ro.UnsupportedError, match="no value"):
            ro.reference_gradients(lambda x: (1 / (x - 1)).sum(), {"x": [1.0]}, engine=engine)
    with pytest.raises(ro.ArgumentError, match="'z'.*has x"):
        ro.reference_gradients(lambda x: (x * x).sum(), {"x": [1.0]})["z"]


FUNCTIONS = {
    "sqrt": mpmath.sqrt, "exp": mpmath.exp, "expm1": mpmath.expm1, "log": mpmath.log, "log1p": mpmath.log1p,
    "log2": lambda x: mpmath.log(x, 2), "log10": mpmath.log10, "sin": mpmath.sin, "cos": mpmath.cos,
    "tan": mpmath.tan, "asin": mpmath.asin, "acos": mpmath.acos, "atan": mpmath.atan, "sinh": mpmath.sinh,
    "cosh": mpmath.cosh, "tanh": mpmath.tanh, "asinh": mpmath.asinh, "erf": mpmath.erf, "abs": abs,
    "sigmoid": lambda x: 1 / (1 + mpmath.exp(-x)), "sign": mpmath.sign, "relu": lambda x: max(x, 0),
}  # fmt: skip


@pytest.mark.parametrize("engine", ["ball", "mpmath", "multiword"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_mpmaths(name, engine) -> None:
    x = np.array([0.03125, 0.3, 0.9])
    x = x if name in ("sqrt", "log", "log2", "log10", "acos") else np.concatenate([x, -x[:2]])
    found = ro.reference_gradients(
        lambda x, y: (getattr(torch, name)(x) * y).sum(),
        {"x": x, "y": np.ones(x.size)}, ("y",), format="float64", engine=engine,
    )["y"]  # fmt: skip
    with mpmath.workprec(400):
        for value, number, radius in zip(x, found.mp(), found.error, strict=True):
            assert (
                abs(FUNCTIONS[name](mpmath.mpf(float(value))) - number) <= float(radius) + 2.0**-380
            )


@pytest.mark.parametrize("engine", ["ball", "mpmath", "multiword"])
def test_small_arguments_keep_their_bits(engine) -> None:
    x = 2.0**-300
    for function in (torch.expm1, torch.log1p):  # x times f(x): the gradient holds f(x) itself
        found = ro.reference_gradients(
            lambda x, y, f=function: (f(x) * y).sum(),
            {"x": [x], "y": [1.0]},
            ("y",),
            format="float64",
            engine=engine,
        )["y"]
        assert found.high[0] == x and found.error[0] <= 2.0**-50 * x


def test_a_kink_inside_the_error_is_undecided() -> None:
    def kinked(x):
        return torch.relu(torch.log(x) - torch.log(x)).sum()

    with pytest.raises(ro.UndecidedError, match="kink"):
        ro.reference_gradients(kinked, {"x": [3.0]}, engine="ball")


@pytest.mark.parametrize(
    "value", [Fraction(1, 3), Fraction(-1, 10**320), Fraction(3, 2**1075), Fraction(10**308)]
)
def test_splitting_is_nearest_with_a_true_bound(value) -> None:
    scale = 2**3000
    number = mpmath.libmp.from_man_exp(int(value * scale), -3000)
    truth = as_fraction(number)
    high, low, rest = split(number)
    assert high == nearest(number) == float(truth)
    assert abs(truth - Fraction(high) - Fraction(low)) <= Fraction(rest)
    assert Fraction(float_up(mpmath.libmp.mpf_abs(number))) >= abs(truth)
    assert math.isinf(nearest(mpmath.libmp.from_man_exp(1, 1024)))


def test_the_spot_check_passes_and_can_fail(monkeypatch) -> None:
    from dataclasses import replace

    from roundoff.gradients.reference import reference_of_trace, spot_check
    from roundoff.trace import prune, trace_gradients

    rng = np.random.default_rng(5)
    inputs = {"x": rng.standard_normal((4, 6)), "y": rng.standard_normal((6, 3))}
    trace = prune(
        trace_gradients(
            lambda x, y: (x @ y).softmax(-1), inputs, loss=lambda o: (o * o).sum(), forward=True
        )
    )
    found = reference_of_trace(trace, inputs, format="float32", engine="ball")
    assert spot_check(trace, inputs, found, "output", [0, 11]) == "mpmath"
    assert spot_check(trace, inputs, found, "y", [5]) == "mpmath"
    good = found["output"]
    shifted = good.low.copy()
    shifted.flat[11] += 4 * good.error.flat[11] + 2.0**-90
    wrong = replace(found, gradients={**found.gradients, "output": replace(good, low=shifted)})
    for engine, limit in (("mpmath", 10**6), ("ball", 0)):
        monkeypatch.setattr("roundoff.gradients.reference.size.OTHER_WORK", limit)
        assert spot_check(trace, inputs, wrong, "output", [0]) == engine
        with pytest.raises(ro.PrecisionError, match=f"{engine} and ball disagree on element 11"):
            spot_check(trace, inputs, wrong, "output", [11])


@pytest.mark.parametrize("engine", ["auto", "mpmath", "ball"])
@pytest.mark.parametrize(
    ("function", "value", "told"),
    [
        (lambda x: (x * x).square().sum(), 1e300, "beyond float64's range"),
        (lambda x: torch.exp(x).sum(), 1000.0, "beyond float64's range"),
    ],
)
def test_gradients_that_float64_cannot_keep_are_refused(function, value, told, engine) -> None:
    """4e900 and e^1000: hi + lo would be infinite."""
    with pytest.raises(ro.PrecisionError, match=rf"'x' at element \[0\].*{told}.*scale the inputs"):
        ro.reference_gradients(function, {"x": [value, 1.0]}, format="float64", engine=engine)


@pytest.mark.parametrize("engine", ["auto", "mpmath", "ball"])
def test_exact_gradients_below_float64s_range_keep_their_number(engine: str) -> None:
    found = ro.reference_gradients(
        lambda x: (x**3).sum(), {"x": [2.0**-600, 1.0]}, format="float64", engine=engine
    )["x"]
    assert found.exact and found.mp()[0] == mpmath.mpf(3) * mpmath.mpf(2) ** -1200
    assert found.high[0] == 0.0 and found.error[0] == 2.0**-1074


_LEFT_OUT = torch.tensor([True, False])


@pytest.mark.parametrize("engine", ["auto", "mpmath", "ball", "multiword"])
@pytest.mark.parametrize(
    "factor",
    [
        lambda x: x.masked_fill(_LEFT_OUT, math.inf),
        lambda x: x.masked_fill(_LEFT_OUT, -math.inf),
        lambda x: (x - x).log(),
        lambda x: x.masked_fill(_LEFT_OUT, math.inf) - x.masked_fill(_LEFT_OUT, math.inf),
        lambda x: torch.relu((x - x) * x.masked_fill(_LEFT_OUT, math.inf)),
    ],
)
def test_gradients_that_are_infinite_or_no_number_are_unknown(factor, engine) -> None:
    """As the gradient of w: no zero stands for an infinity; the elements beside them are known."""
    inputs = {"w": torch.ones(2), "x": torch.tensor([1.0, 0.5])}
    weighted = lambda w, x: (w * factor(x)).sum()
    if factor(inputs["x"])[1].isinf():
        with pytest.raises(ro.UnsupportedError, match="no value"):  # neither element is known
            ro.reference_gradients(weighted, inputs, ["w"], engine=engine)
        return
    found = ro.reference_gradients(weighted, inputs, ["w"], engine=engine)["w"]
    value = torch.autograd.grad(weighted(w := torch.ones(2).requires_grad_(), inputs["x"]), w)[0]
    assert (found.known == np.isfinite(value.numpy())).all() and found.unknown
    assert np.isnan(found.high[~found.known]).all() and np.isinf(found.error[~found.known]).all()
    assert (found.high[found.known] == value.numpy()[found.known]).all()
    assert all("no value" in str(error) for error in found.unknown.values())
    assert found.why((int(np.argmin(found.known)),)) in (
        "it is inf",
        "it is -inf",
        "sub(inf, inf)",
        "mul(0, inf)",
    )


@pytest.mark.parametrize("engine", ["mpmath", "ball", "multiword"])
def test_numbers_and_empty_intermediates_are_taken(engine) -> None:
    rng = np.random.default_rng(7)
    number = ro.reference_gradients(
        lambda a, b: (a * b) ** 2, {"a": 3.0, "b": 0.5}, format="float64", engine=engine
    )
    assert number["a"].hi.shape == () and number["a"].hi == 1.5 and number["b"].hi == 9.0
    heat = {"x": rng.random((3, 4)), "t": torch.tensor(2.0)}
    softened = lambda x, t: (torch.softmax(x / t, -1) ** 2).sum()
    found = ro.reference_gradients(softened, heat, engine=engine)
    assert found["t"].hi.shape == () and found["x"].hi.shape == (3, 4)
    inputs = {"x": rng.random((3, 2, 5)), "w": rng.random((2, 2, 3))}
    for function in (
        lambda x, w: torch.cat([c.tanh() for c in x.split([0, 3])]).sum() + w.sum(),
        lambda x, w: F.conv1d(x[:0], w).sum() + (x * x).sum() + w.sum(),
        lambda x, w: F.conv_transpose1d(x[:0], w).sum() + (x * x).sum() + w.sum(),
        lambda x, w: torch.softmax(x[:0], -1).sum() + (x * x).sum() + w.sum(),
    ):
        found = ro.reference_gradients(function, inputs, format="float32", engine=engine)
        assert found["x"].hi.shape == (3, 2, 5) and (found["w"].hi == 1).all()
        for order in (None, "pairwise"):
            bound = ro.gradient_bounds(function, inputs, format="float32", order=order)
            assert torch.isfinite(bound["x"].certified).all()


def test_balls_are_made_smaller_where_cancellation_asks_for_it() -> None:
    inputs = {"x": torch.tensor([1.25, 1.5])}
    cancelled = lambda x: torch.log(torch.exp(x * 200) + 3 - torch.exp(x * 200)).sum()
    with pytest.raises(ro.UnsupportedError, match="finite"):
        ro.reference_gradients(cancelled, inputs, engine="multiword")
    found = ro.reference_gradients(cancelled, inputs, engine="ball")
    assert found.bits > 400 and (np.abs(found["x"].high) <= found["x"].error).all()
    tied = lambda x: torch.relu(torch.exp(x) - torch.exp(x.sin().asin())).sum()
    with pytest.raises(ro.UndecidedError, match="move the inputs off it"):
        ro.reference_gradients(tied, inputs, engine="ball")
