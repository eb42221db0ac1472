"""Elementwise functions: slopes, enclosures over float64's range, and torch's own errors, against mpmath."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import mpmath
import numpy as np
import pytest
import torch
from elementary import ELEMENTARY, by_mpmath, by_torch

import roundoff as ro
from roundoff.arithmetic.enclosed import Enclosed
from roundoff.arithmetic.running import Running
from roundoff.trace.functions import FUNCTIONS
from roundoff.trace.steps import Map

OF_TWO = ("add", "sub", "mul", "div", "pow")


@pytest.mark.parametrize("name", sorted(ELEMENTARY))
def test_steepest_slopes_are_upper_bounds(name) -> None:
    derivative = {
        "sigmoid": lambda x: mpmath.exp(-x) / (1 + mpmath.exp(-x)) ** 2,
        "log2": lambda x: 1 / (x * mpmath.log(2)), "log10": lambda x: 1 / (x * mpmath.log(10)),
        "log": lambda x: 1 / x, "log1p": lambda x: 1 / (1 + x), "sqrt": lambda x: 1 / (2 * mpmath.sqrt(x)),
        "exp": mpmath.exp, "expm1": mpmath.exp, "sin": mpmath.cos, "cos": mpmath.sin,
        "tan": lambda x: mpmath.sec(x) ** 2, "asin": lambda x: 1 / mpmath.sqrt(1 - x * x),
        "acos": lambda x: 1 / mpmath.sqrt(1 - x * x), "atan": lambda x: 1 / (1 + x * x),
        "sinh": mpmath.cosh, "cosh": mpmath.sinh, "tanh": lambda x: mpmath.sech(x) ** 2,
        "asinh": lambda x: 1 / mpmath.sqrt(1 + x * x),
        **dict.fromkeys(
            ("erf", "gelu_erf", "erfc"), lambda x: 2 / mpmath.sqrt(mpmath.pi) * mpmath.exp(-x * x)
        ),
    }.get(name) or partial(mpmath.diff, by_mpmath(name))  # fmt: skip
    rng = np.random.default_rng(0)
    low = rng.uniform(-2, 2, 300)
    width = 10.0 ** rng.uniform(-12, 0.3, 300)
    least, most = FUNCTIONS[name].domain
    if np.isfinite(most):
        low = (least + most) / 2 + low * (most - least) / 4.4
    elif np.isfinite(least):
        low = least + np.abs(low) + 1e-2
    with np.errstate(all="ignore"):
        found = FUNCTIONS[name].steepest[0](low, low + width)
    close = []
    for a, w, limit in zip(low, width, found, strict=True):
        inside = [a + w * t for t in np.linspace(0, 1, 11)]
        if a + w >= most:
            assert limit == np.inf
            continue
        largest = max(abs(derivative(mpmath.mpf(x))) for x in inside)
        assert largest <= limit * (1 + 2.0**-40)
        close.append(float(largest / limit) if np.isfinite(limit) else 1.0)
    assert np.median(close) > 0.9


def _of_any_size(rng, name, n):
    """Operands over float64's range, as far as the function is finite there, and near its edges."""
    exponents = {
        **dict.fromkeys(("exp", "expm1", "sinh", "cosh", "erf", "gelu_erf"), (-30, 10)),
        "erfc": (-40, 4),
        **dict.fromkeys(("tanh", "sigmoid"), (-40, 12)),
        **dict.fromkeys(("sin", "cos", "tan"), (-60, 60)),
    }.get(name, (-60, 1) if np.isfinite(FUNCTIONS[name].domain[1]) else (-1070, 1023))  # fmt: skip
    found = np.ldexp(rng.choice([-1, 1], n) * rng.uniform(1, 2, n), rng.integers(*exponents, n))
    if FUNCTIONS[name].domain[0] == 0:
        return np.abs(found)
    if np.isfinite(most := FUNCTIONS[name].domain[1]):
        return np.where(rng.random(n) < 0.5, most - np.ldexp(rng.integers(0, 64, n), -53), found)
    if name == "sigmoid":
        return np.where(rng.random(n) < 0.2, rng.uniform(-745, -700, n), found)
    return found


@pytest.mark.parametrize("name", [*OF_TWO, *ELEMENTARY])
def test_maps_enclose_exact_and_computed_values_of_any_size(name) -> None:
    """What an exact operand becomes is within `own`; what a computed one becomes is within `error` of it."""
    n, rng = 300, np.random.default_rng(len(name) + ord(name[0]))
    operands = [_of_any_size(rng, name, n)]
    if name in OF_TWO:
        operands.append(rng.normal(size=n) * 9 if name == "pow" else _of_any_size(rng, name, n))

    def radii(values):
        return np.where(rng.random(n) < 0.2, 0.0, np.abs(values) * 2.0 ** -rng.uniform(0, 80, n))

    enclosed = [Enclosed(v, radii(v), radii(v)) for v in operands]
    step = Map((n,), name, tuple(range(len(operands))))
    found = Running("float64").map(step, enclosed)
    known = np.isfinite(found.value) & np.isfinite(found.own) & np.isfinite(found.error)
    checked = 0
    with mpmath.workprec(2500):
        function = by_mpmath(name)
        for k in np.flatnonzero(known):
            at, computed = [], []
            for of in enclosed:
                value, own, error = (mpmath.mpf(float(v[k])) for v in (of.value, of.own, of.error))
                at.append(value + own * rng.choice([-1, 0, 1]))
                computed.append(at[-1] + error * rng.choice([-1, 0, 1]))
            exact, other = function(*at), function(*computed)
            assert abs(exact - mpmath.mpf(found.value[k])) <= mpmath.mpf(found.own[k])
            assert abs(exact - other) <= mpmath.mpf(found.error[k])
            checked += 1
    assert checked > n / 3


def test_what_an_infinity_leaves_is_exact_only_where_it_is() -> None:
    mask, problem = torch.tensor([True]), {"upstream": np.ones(1), "format": "float32"}
    x = np.array([0.3])
    arc = ro.gradient_bounds(
        lambda x: x * x.masked_fill(mask, np.inf).atan(), {"x": x}, **problem
    )["x"].certified  # fmt: skip
    assert arc > np.spacing(np.float32(np.pi / 2)) / 4
    power = lambda a, b, c, y: c * ((a * b) ** y.masked_fill(mask, np.inf))
    inputs = {"a": 1 + 2.0**-23, "b": 1 - 2.0**-23, "c": 1.0, "y": 1.0}
    inputs = {name: np.array([value]) for name, value in inputs.items()}
    assert torch.isinf(ro.gradient_bounds(power, inputs, ["c"], **problem)["c"].certified).all()
    for function in (lambda x: x * 1e6 * 1e-6, lambda x: (x - x + 8.0).expand(6).prod() * x):
        narrow = ro.gradient_bounds(
            function, {"x": x}, upstream=np.ones(1), format="float16"
        )["x"].certified  # fmt: skip
        assert torch.isinf(narrow).all()


def test_tiny_numbers_that_a_large_factor_awaits_are_not_lost() -> None:
    inputs = {
        "a": np.ones((1, 2)),
        "y": np.array([[3.3e-320, -1.3e-319]]),
        "z": np.array([[0.3, 0.7]]),
    }
    function = lambda a, y, z: a @ torch.cat([y, z * z])
    upstream = np.array([[3.1e150, 7.7e149]])
    problem = {"upstream": upstream, "format": "float64"}
    bound = ro.gradient_bounds(function, inputs, ["a"], **problem)["a"].certified.numpy()
    exact = ro.reference_gradients(function, inputs, ["a"], **problem)["a"]
    gap = np.abs(upstream @ inputs["y"].T - exact.high[:, :1] - exact.low[:, :1])
    assert (gap <= bound[:, :1] + exact.error[:, :1]).all() and (bound > 0).all()


def test_quotients_by_small_numbers_count_what_underflowed() -> None:
    rng = np.random.default_rng(0)
    inputs = {"x": rng.normal(size=50) * 2.0**-1040, "c": np.full(50, 2.0**400),
              "p": rng.normal(size=(50, 200)) * 2.0**-250, "q": rng.normal(size=200) * 2.0**-250}  # fmt: skip
    function = lambda x, p, q, c: (x / (p @ q) * c).sum()
    bound = ro.gradient_bounds(function, inputs, ["c"], format="float64")["c"].certified
    ref = ro.reference_gradients(function, inputs, ["c"], format="float64", engine="mpmath")["c"]
    native = {k: torch.tensor(v, requires_grad=k == "c") for k, v in inputs.items()}
    (gradient,) = torch.autograd.grad(function(**native), native["c"])
    for g, high, low, radius, limit in zip(gradient.tolist(), *(
        v.tolist() for v in (ref.high, ref.low, ref.error, bound)), strict=True):  # fmt: skip
        gap = abs(Fraction(g) - Fraction(high) - Fraction(low))
        assert gap <= Fraction(limit) + Fraction(radius)


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", sorted(set(ELEMENTARY) - {"gelu_erf"}))
def test_torchs_functions_are_within_the_table(name, format) -> None:
    """Every finite 16-bit number; samples of the wider ones, against 80 digits."""
    target = ro.as_format(format)
    dtype = target.torch_dtype
    if dtype.itemsize == 2:
        bits = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16)
        x = bits.view(dtype)
    else:
        rng = np.random.default_rng([1, *name.encode()])
        drawn = rng.standard_normal(3000 if format == "float32" else 600) * 2.0 ** rng.uniform(
            -6, 4
        )
        x = torch.from_numpy(drawn).to(dtype)
    values = x.double().numpy()
    least, most = FUNCTIONS[name].domain
    domain = (values >= least) & (values <= most) & np.isfinite(values)
    x, values = x[torch.from_numpy(domain)], values[domain]
    if len(values) > 4000:  # every eighth is enough of a check, and mpmath is slow
        x, values = x[::17], values[::17]
    computed = by_torch(name)(x).double().numpy()
    limit, besides = FUNCTIONS[name].ulp_in(target), FUNCTIONS[name].absolute(target)
    context = mpmath.mp.clone()
    context.prec = 200
    exact_function = by_mpmath(name, context)
    for value, result in zip(values.tolist(), computed.tolist(), strict=True):
        if not np.isfinite(result):
            continue
        exact = exact_function(context.mpf(value))
        ulp = ro.spacing(float(exact), 0.0, target)
        if np.isfinite(ulp):
            allowed = limit * float(ulp) + besides
            assert abs(context.mpf(result) - exact) <= allowed * (1 + 2.0**-8)
