"""Expected errors, the condition scale and emulated machines, against derivatives and rational numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from elementary import ELEMENTARY

from roundoff import orders
from roundoff.arithmetic import enclosed
from roundoff.arithmetic.condition_scale import Scale, Scaled
from roundoff.arithmetic.enclosed import Enclosed
from roundoff.arithmetic.expected import Expected, Varied
from roundoff.numbers.formats import FLOAT64, Format, as_format, round_to
from roundoff.numbers.machines import Emulated, fused_multiply_add, machine, two_product, two_sum
from roundoff.trace.functions import FUNCTIONS
from roundoff.trace.steps import Map, Reduce

P4 = Format("p4", 4, -6, 8)
U = P4.u


def given(*values: float) -> Enclosed:
    return Enclosed(np.array(values), 0.0, 0.0)


def off(values: object, error: float) -> Enclosed:
    value = np.atleast_1d(np.asarray(values, np.float64))
    return Enclosed(value, 0.0, np.full(value.shape, error))


def numbers(target: Format = P4) -> np.ndarray:
    """One binade and the next."""
    return np.arange(2 ** (target.precision - 1), 2 ** (target.precision + 1)) * 2.0 ** (
        1 - target.precision
    )


# ------------------------------------------------------------------------------- models and S


def step_of(name: str, arity: int) -> Map:
    return Map((1,), name, tuple(range(arity)))


def derivatives(name: str, *at: float) -> list[float]:
    h = 2.0**-20
    found = []
    for k in range(len(at)):
        up, down = ([*at[:k], at[k] + s * h, *at[k + 1 :]] for s in (1, -1))
        found.append(
            float((FUNCTIONS[name].float64(*up) - FUNCTIONS[name].float64(*down)) / (2 * h))
        )
    return found


BINARY = ("add", "sub", "mul", "div", "pow")


@pytest.mark.parametrize("name", [*BINARY, *ELEMENTARY])
def test_variances_are_squared_derivatives(name) -> None:
    at = (0.7, 0.3) if name in BINARY else (0.7,)
    variances = (0.5, 0.25)[: len(at)]
    operands = [Varied(np.array([x]), np.array([s])) for x, s in zip(at, variances, strict=True)]
    found = Expected(FLOAT64).map(step_of(name, len(at)), operands).variance
    exact = sum(d * d * s for d, s in zip(derivatives(name, *at), variances, strict=True))
    assert found == pytest.approx(exact, rel=2.0**-15)
    for k in range(len(at)):
        alone = [Varied(o.value, o.variance * (i == k)) for i, o in enumerate(operands)]
        part = Expected(FLOAT64).map(step_of(name, len(at)), alone).variance
        assert part == pytest.approx(derivatives(name, *at)[k] ** 2 * variances[k], rel=2.0**-15)


@pytest.mark.parametrize("name", [*BINARY, *ELEMENTARY])
def test_scales_are_derivatives_times_scales(name) -> None:
    at = (-0.7, 0.3) if name in ("add", "sub", "mul", "div") else (0.7, 0.3)
    at = at if name in BINARY else at[:1]
    scales = (50.0, 80.0)[: len(at)]
    operands = [
        Scaled(np.array([x]), np.array([s]), np.array([s])) for x, s in zip(at, scales, strict=True)
    ]
    found = float(Scale().map(step_of(name, len(at)), operands).scale[0])
    exact = sum(abs(d) * s for d, s in zip(derivatives(name, *at), scales, strict=True))
    if name == "mul":
        exact = scales[0] * scales[1]
    assert found == pytest.approx(exact, rel=2.0**-15)


def test_the_model_rounds_once_per_step() -> None:
    once = (0.42466 * 2.0**-24) ** 2
    zero = [Varied(np.array([x]), np.zeros(1)) for x in (3.0, 5.0)]
    assert Expected("float32").map(step_of("mul", 2), zero).variance == pytest.approx(
        225 * once, rel=1e-4, abs=0
    )
    three = Varied(np.array([[0.1, 0.1, 0.1]]), np.zeros((1, 3)))
    step = Reduce((1,), (0,), 3)
    found = Expected("float32", "sequential").reduce(step, three).variance
    assert found == pytest.approx(0.13 * once, rel=1e-4, abs=0)
    ones = Varied(np.ones((1, 3)), np.zeros((1, 3)))
    assert Expected("float32", "sequential").reduce(step, ones).variance == 0, "they lie on a grid"


# ----------------------------------------------------------------------------------- machines


def test_an_emulated_machine_rounds_every_pair() -> None:
    target = as_format("float8_e4m3fn")
    every = np.arange(0, 128, dtype=np.uint8).view(np.uint8)
    import torch

    values = torch.from_numpy(every.copy()).view(torch.float8_e4m3fn).to(torch.float64).numpy()
    values = values[np.isfinite(values)]
    values = np.concatenate([values, -values])
    a, b = (v.ravel() for v in np.meshgrid(values, values))
    on = machine(target)
    assert isinstance(on, Emulated)
    for name, exact in (("add", a + b), ("subtract", a - b), ("multiply", a * b)):
        found = on.store(getattr(on, name)(on.load(a), on.load(b)))
        np.testing.assert_array_equal(found, round_to(exact, target))
    terms = on.load(np.stack([a, b]))
    np.testing.assert_array_equal(
        on.store(on.adder(terms)(terms[0], terms[1])), round_to(a + b, target)
    )


def test_error_free_steps_and_fused_ones() -> None:
    rng = np.random.default_rng(0)
    a, b, c = (rng.standard_normal(300) * 2.0 ** rng.integers(-20, 20, 300) for _ in range(3))
    for (high, low), exact in (
        (two_sum(a, b), lambda x, y: x + y),
        (two_product(a, b), lambda x, y: x * y),
    ):
        for k in range(300):
            assert Fraction(high[k]) + Fraction(low[k]) == exact(Fraction(a[k]), Fraction(b[k]))
    c = -a * b * (1 + 2.0**-50)
    found = fused_multiply_add(a, b, c, FLOAT64)
    for k in range(300):
        assert found[k] == float(Fraction(a[k]) * Fraction(b[k]) + Fraction(c[k]))


@pytest.mark.parametrize("order", ["kahan", "neumaier", "sum2"])
def test_compensated_sums_put_back_what_is_lost(order) -> None:
    x = np.array([1.0, *[2.0**-24] * 200])
    computed = float(orders.sum_in_order(x, order, "float32"))
    exact = math.fsum(x)
    assert abs(computed - exact) <= 2.0**-24 * exact
    y = np.full(201, 1.0)
    assert abs(float(orders.dot_in_order(x, y, order, "float32")) - exact) <= 2.0**-24 * exact
    if order != "kahan":  # a term above the sum: Kahan loses the sum
        assert float(orders.sum_in_order([1.0, 2.0**60, 1.0, -(2.0**60)], order, "float32")) == 2.0


def test_dot2_keeps_the_errors_of_products() -> None:
    x, y = [1 + 2.0**-12, 1.0], [1 + 2.0**-12, -1.0]
    exact = (1 + 2.0**-12) ** 2 - 1
    for each in (slice(None), slice(None, None, -1)):
        found = float(orders.dot_in_order(x[each], y[each], "sum2", "float32"))
        assert found == pytest.approx(exact, rel=2.0**-23, abs=0)
    assert float(orders.dot_in_order(x, y, "fma", "float32")) != 0
    assert enclosed.slack(10) > 1
