"""Floating-point formats as data, and rounding to them.

A format is its precision p and exponent range: the finite numbers are m 2^(e - p + 1) with an integer
|m| < 2^p and emin <= e <= emax.  Everything else (unit roundoff, largest number, subnormals) is derived.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from roundoff.arguments import choice, described, finite, instance, whole
from roundoff.errors import ArgumentError

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]

MODES = ("nearest_even", "nearest_away", "toward_zero", "upward", "downward")


@dataclass(frozen=True)
class Format:
    """A binary floating-point format with subnormals.

    precision: significand bits p, the hidden one included; emin, emax: exponents of the smallest
    and the largest normal binade; largest: the largest finite number where it is not
    (2 - 2^(1-p)) 2^emax; infinity: whether overflow gives infinity (otherwise it saturates, as
    torch's cast to float8_e4m3fn does).

    >>> Format("toy", 3, -2, 3).max
    14.0
    """

    name: str
    precision: int
    emin: int
    emax: int
    largest: float | None = None
    infinity: bool = True

    def __post_init__(self) -> None:
        instance("a format's name", self.name, str, "a word")
        for field in ("precision", "emin", "emax"):
            whole(f"format {self.name!r}: {field}", getattr(self, field))
        if not 2 <= self.precision <= 53:
            raise ArgumentError(
                f"format {self.name!r}: precision is {self.precision}; 2 to 53 bits can be emulated"
            )
        if not -1022 <= self.emin <= 0 <= self.emax <= 1023:
            raise ArgumentError(
                f"format {self.name!r}: emin, emax are {self.emin}, {self.emax}; "
                "-1022 <= emin <= 0 <= emax <= 1023 can be emulated"
            )
        if self.emin - self.precision + 1 < -1074:
            raise ArgumentError(
                f"format {self.name!r}: its smallest subnormal is below 2^-1074; raise emin"
            )
        if self.largest is not None:
            self._check_largest(finite(f"format {self.name!r}: largest", self.largest))

    def _check_largest(self, largest: float) -> None:
        top = (2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.emax
        if not 2.0**self.emax <= largest <= top or largest % 2.0 ** (
            self.emax - self.precision + 1
        ):
            raise ArgumentError(
                f"format {self.name!r}: largest is {largest}; give a number of the format's top binade, "
                f"{2.0**self.emax} to {top}"
            )

    @property
    def u(self) -> float:
        """Unit roundoff 2^-p under round to nearest."""
        return 2.0**-self.precision

    @property
    def max(self) -> float:
        """The largest finite number."""
        if self.largest is not None:
            return self.largest
        return (2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.emax

    @property
    def smallest_normal(self) -> float:
        """2^emin."""
        return 2.0**self.emin

    @property
    def smallest_subnormal(self) -> float:
        """2^(emin - p + 1), the spacing at zero."""
        return float(np.ldexp(1.0, self.emin - self.precision + 1))

    @property
    def overflow_threshold(self) -> float:
        """The smallest magnitude that rounds beyond `max` to nearest (infinite: none in float64)."""
        with np.errstate(over="ignore"):
            top = np.frexp(self.max)[1] - self.precision
            return float(np.float64(self.max) + np.ldexp(0.5, int(top)))

    @property
    def torch_dtype(self) -> torch.dtype | None:
        """The torch dtype of the same numbers, if torch has one."""
        import torch

        if self not in FORMATS:
            return None
        found = getattr(torch, self.name, None)
        return found if isinstance(found, torch.dtype) else None

    @property
    def numpy_dtype(self) -> np.dtype[Any] | None:
        """The numpy dtype of the same numbers, if numpy has one."""
        if self in FORMATS and self.name in ("float16", "float32", "float64"):
            return np.dtype(self.name)
        return None

    def __str__(self) -> str:
        return self.name


FLOAT64 = Format("float64", 53, -1022, 1023)
FLOAT32 = Format("float32", 24, -126, 127)
TFLOAT32 = Format("tfloat32", 11, -126, 127)
BFLOAT16 = Format("bfloat16", 8, -126, 127)
FLOAT16 = Format("float16", 11, -14, 15)
FLOAT8_E4M3FN = Format("float8_e4m3fn", 4, -6, 8, largest=448.0, infinity=False)
FLOAT8_E5M2 = Format("float8_e5m2", 3, -14, 15)

#: Every named format, widest first; tests, the study and the report run over this list.
FORMATS = (FLOAT64, FLOAT32, TFLOAT32, BFLOAT16, FLOAT16, FLOAT8_E4M3FN, FLOAT8_E5M2)


def as_format(what: Any) -> Format:
    """The format meant by a name, a torch dtype, a numpy dtype or a Format.

    Raises: ArgumentError for anything else, with the names that are known.

    >>> as_format("bfloat16").precision
    8
    """
    if isinstance(what, Format):
        return what
    name = what if isinstance(what, str) else str(what).removeprefix("torch.")
    if not isinstance(what, str) and not name.startswith(("float", "bfloat")) and what is not None:
        try:
            name = np.dtype(what).name
        except (TypeError, ValueError):
            name = ""
    for known in FORMATS:
        if known.name == name:
            return known
    names = ", ".join(known.name for known in FORMATS)
    raise ArgumentError(
        f"unknown format {described(what)}; use a roundoff.Format or one of: {names}"
    )


@overload
def round_to(x: torch.Tensor, format: Any, mode: str = ...) -> torch.Tensor: ...
@overload
def round_to(x: npt.ArrayLike, format: Any, mode: str = ...) -> Array: ...
def round_to(x: Any, format: Any, mode: str = "nearest_even") -> Any:
    """x rounded once to a format, subnormals, signed zeros and overflow included.

    x is a number, an array or a tensor whose values are float64 numbers or narrower; what comes
    back is float64 (a tensor for a tensor).  Modes: nearest_even, nearest_away, toward_zero,
    upward, downward.  Overflow follows IEEE 754-2019, 7.4: to nearest it gives infinity, a directed
    mode stops at the largest finite number on the side that it rounds away from; a format without
    infinities saturates, infinite x included (OCP OFP8's saturating conversion, and torch's).

    Raises: ArgumentError for an unknown format or mode, and for x that float64 does not hold.

    >>> float(round_to(65519.0, "float16")), float(round_to(65520.0, "float16"))
    (65504.0, inf)
    """
    target = as_format(format)
    choice("rounding mode", mode, MODES)
    values, give_back = as_float64(x)
    return give_back(_round(values, target, mode))


def as_float64(x: Any) -> tuple[Array, Callable[[Array], Any]]:
    """The numbers of x in float64, exactly, and a function that makes a result of x's kind.

    A tensor's results are tensors, on its device; everything else's are arrays.
    Raises: ArgumentError for values that float64 does not hold.
    """
    if hasattr(x, "detach"):
        import torch

        if x.layout != torch.strided or x.is_meta or x.is_complex():
            kind = (
                "a meta tensor without numbers"
                if x.is_meta
                else f"a tensor of {x.dtype}, {x.layout}"
            )
            raise ArgumentError(f"the values are {kind}; give a dense tensor of real numbers")

        def tensor(result: Array) -> Any:
            return torch.from_numpy(np.array(result)).to(x.device)

        if not x.is_floating_point():
            return _as_float64(x.detach().cpu().numpy()), tensor
        return x.detach().to(device="cpu", dtype=torch.float64).numpy(), tensor
    return _as_float64(x), lambda result: result


def _as_float64(x: Any) -> Array:
    try:
        values = np.asarray(x)
    except (ValueError, TypeError, RuntimeError):
        raise ArgumentError("the values are no rectangular array of numbers; pass one") from None
    if (
        values.dtype.kind in "iu"
        and values.size
        and np.abs(values.astype(object).ravel()).max() > 2**53
    ):
        raise ArgumentError("an integer above 2^53 is not a float64; pass it as a float")
    if values.dtype.kind not in "iufb" or values.dtype.itemsize > 8:
        raise ArgumentError(
            f"values of type {values.dtype} are not float64 numbers; convert them first"
        )
    return values.astype(np.float64)


def alike(**arrays: Any) -> list[Array]:
    """Numbers in float64, broadcast to one shape.  Raises: ArgumentError naming shapes that do not fit."""
    found = {name: as_float64(x)[0] for name, x in arrays.items()}
    try:
        return list(np.broadcast_arrays(*found.values()))
    except ValueError:
        shapes = ", ".join(f"{name} {x.shape}" for name, x in found.items())
        raise ArgumentError(
            f"the shapes do not fit each other ({shapes}); make them alike"
        ) from None


def _round(values: Array, target: Format, mode: str) -> Array:
    """The readable definition: scale the last kept bit to 1, round to an integer, scale back."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        exponent = np.maximum(np.frexp(values)[1] - 1, target.emin)
        last = (exponent - target.precision + 1).astype(np.int64)
        # |values| < 2^(exponent + 1), so the scaled number is below 2^p: exact, and an integer after.
        scaled = _scale(values, -last)
        rounded = np.copysign(_scale(_to_integer(scaled, mode), last), values)
        return _overflow(values, rounded, target, mode)


def _scale(values: Array, exponent: npt.NDArray[np.int64]) -> Array:
    # In two steps: 2^1074 is not a float64, though the scaled number is one.
    half = exponent // 2
    return np.ldexp(np.ldexp(values, half.astype(np.int32)), (exponent - half).astype(np.int32))


def _to_integer(scaled: Array, mode: str) -> Array:
    if mode == "nearest_even":
        return np.rint(scaled)
    if mode == "nearest_away":
        whole = np.trunc(scaled)
        return whole + np.where(np.abs(scaled - whole) >= 0.5, np.sign(scaled), 0.0)
    functions: dict[str, Callable[[Array], Array]] = {
        "toward_zero": np.trunc,
        "upward": np.ceil,
        "downward": np.floor,
    }
    return functions[mode](scaled)


def _overflow(values: Array, rounded: Array, target: Format, mode: str) -> Array:
    over = np.abs(rounded) > target.max
    if not over.any():
        return rounded
    finite = over & np.isfinite(values)
    stays = {
        "toward_zero": finite,
        "upward": finite & (values < 0),
        "downward": finite & (values > 0),
    }.get(mode, np.zeros_like(over))
    if not target.infinity:
        stays = over
    beyond = np.copysign(np.inf, values)
    return np.where(stays, np.copysign(target.max, values), np.where(over, beyond, rounded))


Rounder = Callable[[Array], Array]


def rounder(target: Format) -> Rounder:
    """A fast in-place rounding of float64 arrays to nearest even, equal to `round_to`.

    The array that is passed is overwritten and returned.  Adding and subtracting 1.5 2^(e+53-p)
    rounds to p bits by the hardware's own rounding; e is read from the exponent bits and held
    at emin, which makes subnormals right.  Scratch memory is kept between calls on one shape.
    """
    if target == FLOAT64:
        return lambda values: values
    # 1.5 2^(emax + 53 - p) must be a float64, and p + 2 bits must fit beside the leading one.
    if target.precision > 50 or target.emax > 960:
        return lambda values: _into(values, _round(values, target, "nearest_even"))
    lowest = np.float64(2.0**target.emin)
    magic = np.float64(1.5 * 2.0 ** (53 - target.precision))
    exponent_bits = np.int64(0x7FF0000000000000)
    limit = target.max
    scratch = [np.empty(0), np.empty(0)]

    def apply(values: Array) -> Array:
        if not (values.max(initial=0.0) <= limit and values.min(initial=0.0) >= -limit):
            return _into(values, _round(values, target, "nearest_even"))
        if scratch[0].shape != values.shape:
            scratch[:] = [np.empty(values.shape), np.empty(values.shape)]
        shift, rounded = scratch
        np.bitwise_and(values.view(np.int64), exponent_bits, out=shift.view(np.int64))
        np.maximum(shift, lowest, out=shift)
        np.multiply(shift, magic, out=shift)
        np.add(values, shift, out=rounded)
        np.subtract(rounded, shift, out=rounded)
        return np.copysign(rounded, values, out=values)

    return apply


def _into(values: Array, result: Array) -> Array:
    values[...] = result
    return values


def spacing(hi: npt.ArrayLike, lo: npt.ArrayLike, format: Any) -> Array:
    """ulp: the spacing of a format in the binade of the exact value hi + lo, per element.

    Units: absolute.  Not below the smallest subnormal; NaN where |hi + lo| exceeds the largest finite
    number or is NaN.  Where hi is a power of two and lo points to zero, the binade is the one below.
    Source: Muller et al., Handbook of Floating-Point Arithmetic, 2nd ed., 2.3.2.

    >>> float(spacing(1.0, -2.0**-60, "float32")) == 2.0**-24
    True
    """
    target = as_format(format)
    high, low = alike(hi=hi, lo=lo)
    fraction, exponent = np.frexp(high)
    direction = np.sign(low) * np.sign(high)
    below = (np.abs(fraction) == 0.5) & (direction < 0)
    binade = np.where(high == 0, target.emin, np.maximum(exponent - 1 - below, target.emin))
    beyond = (np.abs(high) > target.max) | ((np.abs(high) == target.max) & (direction > 0))
    ulp = np.ldexp(1.0, binade - target.precision + 1)
    return np.where(beyond | ~np.isfinite(high), np.nan, ulp)
