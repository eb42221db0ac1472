"""One probe per kernel: the very ATen call of a step, on numbers that give its roundings away.

Operands are whole numbers, few enough and small enough that float32 holds every sum of any of their products
without error, in any order, fused or not, yet 16 bits do not.  The same call in float64 is then exact, and a
kernel that keeps float32 sums (or wider ones) and rounds once returns that, rounded once, in every element;
one rounding of a product or of a partial sum to 16 bits changes a quarter or more of the elements that it
touches.  (An accumulator of 24 bits that truncates looks like one that rounds to nearest; no CPU has any.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from roundoff.kernels.facts import Facts
from roundoff.numbers.formats import FLOAT32, Format, as_format
from roundoff.trace.call import Call, Given, Operand

Results = Sequence[torch.Tensor | None]

#: A call as a function of the type of its floating-point operands and their numbers, in float64.
KernelCall = Callable[[Sequence[torch.Tensor]], Results]

#: Formats that torch's kernels compute in.
NATIVE = frozenset(("float16", "bfloat16", "float32", "float64"))

#: Linear in each floating-point operand, with whole coefficients (a mean: up to the final division).
LINEAR = frozenset(
    """mm bmm mv dot vdot addmm addmv baddbmm convolution convolution_backward sum mean trace cumsum
    embedding_dense_backward index_put _unsafe_index_put index_add scatter_add col2im unfold_backward
    upsample_nearest1d_backward upsample_nearest2d_backward upsample_nearest3d_backward
    reflection_pad1d_backward reflection_pad2d_backward reflection_pad3d_backward
    replication_pad1d_backward replication_pad2d_backward replication_pad3d_backward""".split()
)

#: Those that multiply operands with each other.
PRODUCTS = frozenset(
    "mm bmm mv dot vdot addmm addmv baddbmm convolution convolution_backward".split()
)

#: Which operand, if there are three, is added to the products.
ADDED = {"addmm": 0, "addmv": 0, "baddbmm": 0, "convolution": 2}

#: Factors of products are of so many bits: products have more than 16-bit formats hold.
FACTOR_BITS = 7

#: Factors of so few bits that 16-bit formats hold sums of some products.
FEW_BITS = 2

#: Sums of magnitudes stay below 2^22 units, a quarter of what float32 counts to.
MOST_UNITS = 1 << 22

#: A probe makes one call, and more until it has seen so many elements of every result, or drawn so many.
ELEMENTS, DRAWN = 512, 1 << 15

#: A quotient by the number of terms, or a product with its reciprocal, may round so much more.
QUOTIENT = 2.0**-22

#: Drawn anew for every probe.
SEED = 18


@dataclass(frozen=True)
class Operands:
    """How numbers are drawn: bits per operand, the share that is not zero, exponents of their units."""

    bits: tuple[int, ...]
    share: float
    units: tuple[int, ...]


def is_linear(call: Call) -> bool:
    """Whether whole operands give whole results: alpha and beta, where there are any, are 0 or 1.

    Sums of booleans (of a mask) are no sums of floats.
    """
    scalars = [value for name, value in call.keywords if name in ("alpha", "beta")]
    floats = all(operand.format in NATIVE for operand in call.operands)
    return floats and call.name in LINEAR and all(value in (0, 1) for value in scalars)


def kernel_of(call: Call) -> KernelCall:
    """The call itself, every operand in its format."""

    def run(values: Sequence[torch.Tensor]) -> Results:
        rest = iter(values)

        def fill(tree: Any) -> Any:
            if isinstance(tree, Operand):
                return next(rest).to(as_format(tree.format).torch_dtype)
            return _filled(tree, fill)

        return _call(call, fill)

    return run


def exact_kernel(call: Call) -> KernelCall:
    """The call in float64."""

    def run(values: Sequence[torch.Tensor]) -> Results:
        rest = iter(values)

        def fill(tree: Any) -> Any:
            return next(rest) if isinstance(tree, Operand) else _filled(tree, fill)

        return _call(call, fill, wide=True)

    return run


def _filled(tree: Any, fill: Callable[[Any], Any]) -> Any:
    if isinstance(tree, Given):
        found = torch.frombuffer(bytearray(tree.numbers), dtype=getattr(torch, tree.type))
        return found.reshape(tree.shape)
    return [fill(each) for each in tree] if isinstance(tree, tuple) else tree


def _call(call: Call, fill: Callable[[Any], Any], *, wide: bool = False) -> Results:
    _, packet, overload = call.operation.split(".")
    operation = getattr(getattr(torch.ops.aten, packet), overload)
    arguments = [fill(each) for each in call.arguments]
    keywords = {name: fill(value) for name, value in call.keywords}
    if wide and isinstance(keywords.get("dtype"), torch.dtype):
        keywords["dtype"] = torch.float64
    found = operation(*arguments, **keywords)
    return found if isinstance(found, tuple | list) else (found,)


def draws(call: Call, how: Operands, generator: np.random.Generator) -> list[torch.Tensor]:
    """Random operands of the call's shapes and strides, in float64."""
    return [
        _operand(operand, bits, how.share, unit, generator)
        for operand, bits, unit in zip(call.operands, how.bits, how.units, strict=True)
    ]


def _operand(
    operand: Operand, bits: int, share: float, unit: int, generator: np.random.Generator
) -> torch.Tensor:
    places = 1 + sum((size - 1) * step for size, step in zip(operand.shape, operand.strides))
    size = places if all(operand.shape) else 0
    numbers = generator.integers(1 - (1 << bits), 1 << bits, size=size).astype(np.float64)
    if share < 1:
        numbers *= generator.random(size) < share
    stored = torch.from_numpy(np.ldexp(numbers, unit))
    return stored.as_strided(operand.shape, operand.strides)


def narrowest(call: Call) -> Format:
    """The format of a call: the narrowest of its operands'."""
    return min((as_format(o.format) for o in call.operands), key=lambda each: each.precision)


def probe_sums(call: Call, terms: int, run: KernelCall | None = None) -> tuple[Facts | None, ...]:
    """What each result of a linear call does with its sums, by one probe; None: nothing can be said.

    call: with the format of every operand; terms: of the longest sum; run: in place of the kernel, a
    stand-in for tests.
    """
    native, exact, format = run or kernel_of(call), exact_kernel(call), narrowest(call)
    how = _ordinary(call, format, terms)
    once = _agreements(call, native, exact, how)
    added = ADDED.get(call.name)
    alone = once
    if added is not None and len(call.operands) > 2 and not all(once):
        bits = tuple(0 if k == added else each for k, each in enumerate(how.bits))
        alone = _agreements(call, native, exact, Operands(bits, how.share, how.units))
    return tuple(
        None if sums is None else Facts(FLOAT32 if sums else format, bool(whole))
        for sums, whole in zip(alone, once, strict=True)
    )


def _ordinary(call: Call, format: Format, terms: int) -> Operands:
    """Numbers in the middle of the range."""
    count = len(call.operands)
    if call.name not in PRODUCTS:
        share = min(1.0, MOST_UNITS / max(1, terms) / (1 << (format.precision - 1)))
        return Operands((format.precision,) * count, share, (-10,) * count)
    added = ADDED.get(call.name) if count > 2 else None
    bits, units = [FACTOR_BITS] * count, [-4] * count
    # The first factor has all the bits of the format: a bias gradient sums that alone.
    bits[1 if added == 0 else 0] = format.precision
    size = 1 << (format.precision + FACTOR_BITS - 2)  # of a product, on average
    share = min(1.0, math.sqrt(MOST_UNITS / size / max(1, terms)))
    if added is not None:
        bits[added], units[added] = format.precision, -8
    return Operands(tuple(bits), share, tuple(units))


def _agreements(
    call: Call, native: KernelCall, exact: KernelCall, how: Operands
) -> list[bool | None]:
    """Per result, whether all elements are the exact ones rounded once; None where nothing was compared."""
    generator = np.random.default_rng([SEED, *call.operands[0].shape])
    agree: list[bool | None] = []
    seen = drawn = calls = 0
    while calls < 1 or (seen < ELEMENTS and drawn < DRAWN and any(agree)):
        values = draws(call, how, generator)
        found, wanted = native(values), exact(values)
        this = [_same(f, w, call) for f, w in zip(found, wanted, strict=True)]
        agree = this if not agree else [_both(a, b) for a, b in zip(agree, this, strict=True)]
        seen += min((f.numel() for f in found if f is not None), default=ELEMENTS)
        drawn, calls = drawn + sum(v.numel() for v in values), calls + 1
    return agree


def _both(one: bool | None, two: bool | None) -> bool | None:
    return None if one is None or two is None else one and two


def _same(found: torch.Tensor | None, wanted: torch.Tensor | None, call: Call) -> bool | None:
    if found is None or wanted is None or not found.is_floating_point():
        return None
    known = wanted.abs() < torch.finfo(found.dtype).max / 2
    if not known.any():
        return None
    slack = QUOTIENT if call.name == "mean" else 0.0
    ends = [_rounded(wanted * factor, found.dtype) for factor in (1 - slack, 1 + slack)]
    inside = (found >= torch.minimum(*ends)) & (found <= torch.maximum(*ends))
    return bool((inside | ~known).all())


def _rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Rounded once: numbers that float32 holds pass through it without error."""
    return values.to(torch.float32).to(dtype) if dtype.itemsize < 4 else values.to(dtype)


def probe_flush(call: Call, terms: int, run: KernelCall | None = None) -> tuple[bool | None, ...]:
    """Whether a result of a linear call shows that a number below the smallest normal one was taken for zero.

    Each factor below it in turn, the others large; then all factors above it, their products and sums below.
    So few bits that the format itself holds every sum: the accumulator does not matter here.
    """
    native, exact = run or kernel_of(call), exact_kernel(call)
    shown: list[bool | None] = []
    for how in _small(call, terms):
        this = [None if a is None else not a for a in _agreements(call, native, exact, how)]
        shown = this if not shown else [_either(a, b) for a, b in zip(shown, this, strict=True)]
    return tuple(shown)


def _small(call: Call, terms: int) -> list[Operands]:
    format, count = narrowest(call), len(call.operands)
    low = round(math.log2(format.smallest_subnormal))
    held = 1 << (format.precision - 2)  # units that sums have, on average at most
    bits = (FEW_BITS,) * count
    if call.name not in PRODUCTS:
        return [Operands(bits, min(1.0, held / (2 * max(1, terms))), (low,) * count)]
    share = min(1.0, math.sqrt(held / (4 * max(1, terms))))
    large = min(-low - 8, round(math.log2(format.max)) - 3)
    added = ADDED.get(call.name) if count > 2 else None
    first, *others = [k for k in range(count) if k != added]

    def regime(units: Mapping[int, int], sums: int) -> Operands:
        return Operands(bits, share, tuple(units.get(k, sums) for k in range(count)))

    # Every product has the first factor in it.
    return [
        regime({first: one, **dict.fromkeys(others, other)}, one + other)
        for one, other in ((low, large), (large, low), (low // 2, low - low // 2))
    ]


def _either(one: bool | None, two: bool | None) -> bool | None:
    found = [each for each in (one, two) if each is not None]
    return any(found) if found else None
