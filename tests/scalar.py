"""Rounding and compensated sums written out, one number at a time."""

from __future__ import annotations

import math
from fractions import Fraction

from roundoff.numbers.formats import Format


def by_rational(x: Fraction, target: Format) -> float:
    """x rounded once: numerator / denominator is correctly rounded by Python, then checked exact."""
    if x == 0:
        return 0.0
    exponent = max(target.emin, math.floor(math.log2(abs(x))) - 1)
    while abs(x) >= Fraction(2) ** (exponent + 1):
        exponent += 1
    unit = Fraction(2) ** (exponent - target.precision + 1)
    value = round(x / unit) * unit  # Python rounds half to even
    if abs(value) > Fraction(target.max):
        saturates = not target.infinity
        return math.copysign(target.max if saturates else math.inf, x)
    return float(value)


def scalar_compensated(values, target, name) -> float:
    """values: numbers of the format; for "sum2" exact products, too."""

    def add(a, b):
        return by_rational(Fraction(a) + Fraction(b), target)

    if name == "sum2":
        total = lost = None
        for x in values:
            term = by_rational(Fraction(x), target)
            rest = by_rational(Fraction(x) - Fraction(term), target)
            if total is None:
                total, lost = term, rest
                continue
            longer = add(total, term)
            error = Fraction(total) + Fraction(term) - Fraction(longer)  # a number of the format
            total, lost = longer, add(lost, add(error, rest))
        return add(total, lost)
    total, carry = 0.0, 0.0
    for x in map(float, values):
        if name == "kahan":
            y = add(x, -carry)
            t = add(total, y)
            carry = add(add(t, -total), -y)
        else:
            t = add(total, x)
            big, small = (total, x) if abs(total) >= abs(x) else (x, total)
            carry = add(carry, add(add(big, -t), small))
        total = t
    return total if name == "kahan" else add(total, carry)
