"""Formats against hardware casts, gfloat and a definition in rational numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import gfloat
import numpy as np
import pytest
import torch
from gfloat import formats as known
from hypothesis import given
from hypothesis import strategies as st

import roundoff as ro
from roundoff.numbers.formats import FORMATS, MODES, Format, rounder

TOY = Format("toy", 5, -3, 4)
BYTES = [
    (ro.FLOAT8_E4M3FN, torch.float8_e4m3fn, torch.uint8),
    (ro.FLOAT8_E5M2, torch.float8_e5m2, torch.uint8),
]
WORDS = [(ro.FLOAT16, torch.float16, torch.uint16), (ro.BFLOAT16, torch.bfloat16, torch.uint16)]


def all_values(dtype, integers) -> np.ndarray:
    """Every number of an 8- or 16-bit dtype, in float64."""
    bits = 8 * torch.empty(0, dtype=dtype).element_size()
    return torch.arange(2**bits).to(integers).view(dtype).to(torch.float64).numpy()


def probes(values: np.ndarray) -> np.ndarray:
    """All values, all midpoints, and the float32 numbers on both sides of each midpoint."""
    finite = np.unique(values[np.isfinite(values)])
    middles = (finite[1:] + finite[:-1]) / 2
    assert (middles.astype(np.float32) == middles).all()
    near = middles.astype(np.float32)
    sides = [np.nextafter(near, np.float32(s * np.inf)).astype(np.float64) for s in (-1, 1)]
    edge = np.abs(finite).max() * np.array([1.0, 1.001, 1.03, 1.06, 1.07, 1.2, 2.0])
    return np.concatenate([values, middles, *sides, edge, -edge, [-0.0, np.inf, -np.inf]])


def bits_equal(a, b) -> bool:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    same = a.view(np.int64) == b.view(np.int64)
    return bool((same | (np.isnan(a) & np.isnan(b))).all())


@pytest.mark.parametrize(("target", "dtype", "integers"), BYTES + WORDS, ids=str)
def test_rounding_is_the_cast_for_every_value_midpoint_and_neighbour(
    target, dtype, integers
) -> None:
    with np.errstate(over="ignore"):
        x = probes(all_values(dtype, integers)).astype(np.float32).astype(np.float64)
    cast = torch.from_numpy(x).float().to(dtype).double().numpy()
    assert bits_equal(ro.round_to(x, target), cast)
    assert bits_equal(rounder(target)(x.copy()), cast)


def test_rounding_to_float32_is_the_cast() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(-(2**63), 2**63 - 1, 200_000, dtype=np.int64).view(np.float64)
    x = np.concatenate([x, rng.standard_normal(100_000) * 2.0 ** rng.integers(-160, 130, 100_000)])
    with np.errstate(all="ignore"):
        cast = x.astype(np.float32).astype(np.float64)
    assert bits_equal(ro.round_to(x, "float32"), cast)
    assert bits_equal(rounder(ro.FLOAT32)(x.copy()), cast)


def nearest_by_definition(x: float, target: Format, mode: str) -> float:
    """Try the two neighbouring multiples of the spacing at x, as rationals."""
    if math.isnan(x) or math.isinf(x) or x == 0:
        return x if target.infinity or not math.isinf(x) else math.copysign(target.max, x)
    exact = Fraction(x)
    exponent = target.emin
    while abs(exact) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    unit = Fraction(2) ** (exponent - target.precision + 1)
    low = exact // unit
    rest = exact / unit - low
    pick = {
        "nearest_even": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and low % 2 == 1),
        "nearest_away": rest > Fraction(1, 2) or (rest == Fraction(1, 2) and exact > 0),
        "toward_zero": exact < 0 and rest > 0,
        "upward": rest > 0,
        "downward": False,
    }[mode]
    result = (low + int(pick)) * unit
    if abs(result) > Fraction(target.max):
        nearest = mode.startswith("nearest")
        outward = (mode == "upward" and x > 0) or (mode == "downward" and x < 0)
        if target.infinity and (nearest or outward):
            return math.copysign(math.inf, x)
        return math.copysign(target.max, x)
    return math.copysign(float(result), x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "target", [TOY, ro.FLOAT16, ro.FLOAT8_E4M3FN, ro.TFLOAT32, ro.BFLOAT16], ids=str
)
@given(x=st.floats(allow_nan=False), shift=st.integers(-40, 40))
def test_rounding_is_the_definition(target, mode, x, shift) -> None:
    for value in (x, math.ldexp(math.frexp(x)[0], shift) if math.isfinite(x) else x):
        assert bits_equal(
            ro.round_to(value, target, mode), nearest_by_definition(value, target, mode)
        )


GFLOAT = {
    "nearest_even": gfloat.RoundMode.TiesToEven,
    "nearest_away": gfloat.RoundMode.TiesToAway,
    "toward_zero": gfloat.RoundMode.TowardZero,
    "upward": gfloat.RoundMode.TowardPositive,
    "downward": gfloat.RoundMode.TowardNegative,
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("target", "info"),
    [(ro.FLOAT8_E5M2, known.format_info_ocp_e5m2), (ro.FLOAT16, known.format_info_binary16)],
    ids=str,
)
def test_rounding_is_gfloats(target, info, mode) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal(300) * 2.0 ** rng.integers(target.emin - 6, target.emax + 2, 300)
    theirs = [gfloat.round_float(info, float(v), GFLOAT[mode]) for v in x]
    assert bits_equal(ro.round_to(x, target, mode), theirs)


@pytest.mark.parametrize("target", [*FORMATS, TOY, Format("wide", 30, -200, 200)], ids=str)
@given(values=st.lists(st.floats(), min_size=1, max_size=30))
def test_the_fast_rounder_is_the_readable_one(target, values) -> None:
    x = np.array(values)
    assert bits_equal(rounder(target)(x.copy()), ro.round_to(x, target))


def test_table_of_formats() -> None:
    # FACTS of the formats: p, emin, emax, smallest subnormal, largest; IEEE 754-2019 and OCP OFP8.
    facts = {
        "float64": (53, -1022, 1023, -1074, 1.7976931348623157e308),
        "float32": (24, -126, 127, -149, 3.4028234663852886e38),
        "tfloat32": (11, -126, 127, -136, (2 - 2.0**-10) * 2.0**127),
        "bfloat16": (8, -126, 127, -133, 3.3895313892515355e38),
        "float16": (11, -14, 15, -24, 65504.0),
        "float8_e4m3fn": (4, -6, 8, -9, 448.0),
        "float8_e5m2": (3, -14, 15, -16, 57344.0),
    }
    assert set(facts) == {target.name for target in FORMATS}
    for target in FORMATS:
        assert getattr(ro, target.name.upper()) is target
        p, emin, emax, subnormal, largest = facts[target.name]
        assert (target.precision, target.emin, target.emax, target.max) == (p, emin, emax, largest)
        assert target.smallest_subnormal == math.ldexp(1.0, subnormal)
        assert target.u == math.ldexp(1.0, -p)
    assert ro.FLOAT16.overflow_threshold == 65520.0
    assert ro.FLOAT8_E5M2.overflow_threshold == 61440.0


def test_tfloat32_is_not_rounded_twice() -> None:
    # Emulated in float32 this product gives 56 units.
    assert ro.round_to(1238 * 1469 * 2.0**-151, "tfloat32") == 55 * 2.0**-136


def test_spacing_in_the_binade_of_the_exact_value() -> None:
    assert ro.spacing(1.0, 0.0, "float32") == 2.0**-23
    assert ro.spacing(1.0, 2.0**-60, "float32") == 2.0**-23
    assert ro.spacing(1.0, -(2.0**-60), "float32") == 2.0**-24
    assert ro.spacing(-1.0, 2.0**-60, "float32") == 2.0**-24
    assert ro.spacing(1.0, -(2.0**-60), "float64") == 2.0**-53
    assert ro.spacing(0.0, 0.0, "float16") == 2.0**-24
    assert np.isnan(ro.spacing(65505.0, 0.0, "float16"))


def test_as_format() -> None:
    for what in ("float16", torch.float16, np.float16, np.dtype("float16"), ro.FLOAT16):
        assert ro.as_format(what) is ro.FLOAT16
    assert ro.as_format(torch.float8_e5m2) is ro.FLOAT8_E5M2
    for bad in ("float17", torch.int64, 3, None):
        with pytest.raises(ro.ArgumentError, match="float16"):
            ro.as_format(bad)


def test_bad_input_is_named() -> None:
    with pytest.raises(ro.ArgumentError, match="'sideways'.*nearest_even"):
        ro.round_to(1.0, "float16", "sideways")
    with pytest.raises(ro.ArgumentError, match="complex128"):
        ro.round_to(1j, "float16")
    for tensor, words in (
        (torch.tensor([1j]), "complex"),
        (torch.tensor([2**53 + 1]), "above 2\\^53"),
    ):
        with pytest.raises(ro.ArgumentError, match=words):
            ro.round_to(tensor, "float16")
    with pytest.raises(ro.ArgumentError, match="precision is 60"):
        Format("x", 60, -3, 3)
    with pytest.raises(ro.ArgumentError, match="emin"):
        Format("x", 5, 3, 4)


def test_tensors_come_back_as_tensors() -> None:
    rounded = ro.round_to(torch.tensor([1.0 + 2.0**-20], requires_grad=True), "float16")
    assert isinstance(rounded, torch.Tensor) and rounded.dtype == torch.float64
    assert rounded.tolist() == [1.0]
