"""Special functions: two engines, slopes, and torch's own errors, against mpmath."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from flint import ctx

import roundoff as ro
from roundoff.trace.functions import FUNCTIONS
from roundoff.trace.functions.high_precision import value
from roundoff.trace.functions.special import SPECIAL

T = torch.special
RNG = np.random.default_rng(4)
NORMAL = RNG.standard_normal(300) * 2.0 ** RNG.uniform(-6, 4, 300)
NEAR = RNG.uniform(0.01, 5, 300)


def _ndtri(m):
    return lambda p: m.sqrt(2) * m.erfinv(2 * p - 1)


def _lgamma(m):
    return lambda x: m.log(abs(m.gamma(x)))


#: torch's, mpmath's in a context, and where they are looked at.
KNOWN = {
    "lgamma": (torch.lgamma, _lgamma, np.concatenate([NORMAL, NEAR])),
    "digamma": (torch.digamma, lambda m: m.digamma, np.abs(NORMAL)),
    "trigamma": (
        lambda x: torch.polygamma(1, x),
        lambda m: lambda x: m.psi(1, x),
        0.5 + np.abs(NORMAL),
    ),
    "erfinv": (torch.erfinv, lambda m: m.erfinv, np.tanh(NORMAL) * 0.9999),
    "special_ndtri": (T.ndtri, _ndtri, 1 / (1 + np.exp(-NORMAL)) * 0.9999),
    "i0": (torch.i0, lambda m: lambda x: m.besseli(0, x), NORMAL),
    "special_i0e": (
        T.i0e,
        lambda m: lambda x: m.besseli(0, x) * m.exp(-abs(x)),
        NORMAL,
    ),
    "special_i1": (T.i1, lambda m: lambda x: m.besseli(1, x), NORMAL),
    "special_i1e": (
        T.i1e,
        lambda m: lambda x: m.besseli(1, x) * m.exp(-abs(x)),
        NORMAL,
    ),
    "special_erfcx": (
        T.erfcx,
        lambda m: lambda x: m.exp(x * x) * m.erfc(x),
        np.maximum(NORMAL, -9.0),
    ),
}
ZETAS = [(s, q) for s in (2, 3, 6) for q in NEAR[:80]]


def test_every_record_is_looked_at() -> None:
    assert {record.name for record in SPECIAL} == {*KNOWN, "special_zeta"}


@pytest.mark.parametrize("name", KNOWN)
def test_both_engines_find_what_mpmath_does(name) -> None:
    record, (_, of, arguments) = FUNCTIONS[name], KNOWN[name]
    context = mpmath.mp.clone()
    context.prec = 300
    exact = of(context)
    for x in arguments[::10].tolist():
        number = context.mpf(x)
        found = context.make_mpf(value(record, (number._mpf_,), 120))
        wanted = exact(number)
        assert abs(found - wanted) <= abs(wanted) * context.mpf(2) ** -110
        with ctx.workprec(200):
            ball = record.arb(_ball(x))
        middle = context.make_mpf(mpmath.libmp.from_man_exp(*map(int, ball.mid().man_exp())))
        radius = context.mpf(float(ball.rad())) * 2 + context.mpf(2) ** -190 * abs(wanted)
        assert abs(middle - wanted) <= radius
        assert radius <= abs(wanted) * context.mpf(2) ** -60


def _ball(x):
    from flint import arb

    return arb(x)


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_slopes_and_the_steepest_ones(name) -> None:
    record, (_, of, arguments) = FUNCTIONS[name], KNOWN[name]
    context = mpmath.mp.clone()
    context.prec = 200
    exact, close = of(context), []
    for x in arguments[:60].tolist():
        slope = float(context.diff(exact, context.mpf(x)))
        at = np.array([x])
        found = float(record.slopes[0](at, record.float64(at))[0])
        assert found == pytest.approx(slope, rel=1e-7, abs=1e-9)
        low, high = np.array([x - abs(x) * 2.0**-20]), np.array([x + abs(x) * 2.0**-20])
        limit = float(np.broadcast_to(record.steepest[0](low, high), (1,))[0])
        assert abs(slope) <= limit * (1 + 2.0**-40)
        if np.isfinite(limit):
            close.append(abs(slope) / limit if limit else 1.0)
    assert len(close) > 20 and np.median(close) > 0.1


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", sorted(KNOWN))
def test_torchs_functions_are_within_the_table(name, format) -> None:
    record, (native, of, arguments) = FUNCTIONS[name], KNOWN[name]
    target = ro.as_format(format)
    x = torch.from_numpy(arguments).to(target.torch_dtype)
    values = x.double().numpy()
    least, most = record.domain
    inside = (values > least) & (values < most)
    try:
        computed = native(x).double().numpy()
    except NotImplementedError:
        assert target.precision < 24  # PyTorch has no such kernel
        return
    limit, besides = record.ulp_in(target), record.absolute(target)
    context = mpmath.mp.clone()
    context.prec = 160
    exact_function = of(context)
    for argument, result in zip(values[inside].tolist(), computed[inside].tolist(), strict=True):
        if not np.isfinite(result):
            continue
        exact = exact_function(context.mpf(argument))
        ulp = float(ro.spacing(float(exact), 0.0, target))
        if np.isfinite(ulp):
            assert abs(context.mpf(result) - exact) <= (limit * ulp + besides) * (1 + 2.0**-8)


def test_zeta_of_whole_numbers() -> None:
    record = FUNCTIONS["special_zeta"]
    context = mpmath.mp.clone()
    context.prec = 200
    for s, q in ZETAS:
        exact = context.zeta(s, context.mpf(q))
        number = context.make_mpf(value(record, (context.mpf(s)._mpf_, context.mpf(q)._mpf_), 120))
        assert abs(number - exact) <= abs(exact) * context.mpf(2) ** -110
        native = float(
            torch.special.zeta(torch.tensor(float(s)), torch.tensor(q, dtype=torch.float64))
        )
        assert abs(native - exact) <= record.ulp * float(np.spacing(float(exact)))
        slope = float(context.diff(lambda a, s=s: context.zeta(s, a), context.mpf(q)))
        assert record.slopes[1](float(s), q, 0.0) == pytest.approx(slope, rel=1e-8)


def test_where_there_is_no_value_is_told() -> None:
    for function, x in (
        (torch.lgamma, -2.0),
        (torch.digamma, 0.0),
        (torch.erfinv, 1.0),
        (T.ndtri, 0.0),
    ):
        with pytest.raises(ro.RoundoffError, match="has no value|cannot be decided|beyond"):
            ro.reference_gradients(lambda x, f=function: f(x).sum(), {"x": torch.tensor([x])})
