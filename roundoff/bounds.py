"""Closed-form bounds on rounding errors: pure functions of n, u, trees and data.

A bound that is stated here is a float64 not below the number that the theorem gives.
"""

from __future__ import annotations

import math
from fractions import Fraction

from roundoff.errors import ArgumentError

__all__ = ["gamma", "higham_mary", "higham_mary_lambda"]

#: 1 + 2^-48: covers the fewer than 16 float64 roundings, each below 2^-52, of a formula below.
_MARGIN = 1.0 + 2.0**-48


def gamma(n: int, u: float) -> float:
    """gamma_n = n u / (1 - n u), rounded upward.

    It bounds |prod (1 + d_i)^(+-1) - 1| over n factors with |d_i| <= u.  Certified, whatever the
    order: times S = sum |terms| it bounds the error of a sum of n + 1 terms or, without underflow
    in the products, of a dot product of n.  Valid while n u < 1.

    Units: relative to S.
    Raises: ArgumentError where n u >= 1, for a negative n, and for u outside (0, 1).
    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., Lemma 3.1, 3.1, 4.2.

    >>> f"{gamma(1000, 2.0**-11):.10f}"
    '0.9541984733'
    """
    _check(n, u)
    product = n * Fraction(u)
    if product >= 1:
        raise ArgumentError(
            f"gamma: n u = {n} * {u} = {float(product):.6g} is not below 1, so gamma_n "
            "says nothing; use a wider format or fewer terms"
        )
    return _upward(product / (1 - product))


def higham_mary_lambda(n: int, u: float, failure: float, outputs: int = 1) -> float:
    """The lambda at which `higham_mary` fails with probability at most `failure`, rounded upward.

    It solves outputs 2 n exp(-lambda^2 (1 - u)^2 / 2) = failure, the union bound over the n terms
    of each output.
    Raises: ArgumentError for n or outputs below 1, and for u or failure outside (0, 1).
    Source: Higham and Mary 2019, SIAM J. Sci. Comput. 41(5), A2815-A2835, Theorem 3.1.

    >>> f"{higham_mary_lambda(10**6, 2.0**-24, 1e-3):.3f}"
    '6.545'
    """
    _check(n, u)
    if n < 1 or outputs < 1:
        raise ArgumentError(f"higham_mary: n is {n} and outputs {outputs}; both start at 1")
    if not 0.0 < failure < 1.0:
        raise ArgumentError(f"higham_mary: failure is {failure}; it is a probability in (0, 1)")
    exponent = math.log(2 * n * outputs) - math.log(failure)
    return math.sqrt(2.0 * exponent) / (1.0 - u) * _MARGIN


def higham_mary(n: int, u: float, failure: float, outputs: int = 1) -> float:
    """gamma~_n(lambda) = exp(lambda sqrt(n) u + n u^2 / (1 - u)) - 1, rounded upward.

    Times S = sum |terms| it bounds the error of a sum or dot product of n terms, in any order, and
    of all of `outputs` such sums at once, with probability at least 1 - failure; infinite where the
    exponential is.  Valid while the rounding errors are independent and of mean zero: not for
    truncating accumulators, nor under stagnation (u times a partial sum above half a typical
    term).  No underflow in products.

    Units: relative to S.
    Raises: ArgumentError as `higham_mary_lambda`.
    Source: Higham and Mary 2019, SIAM J. Sci. Comput. 41(5), A2815-A2835, Theorems 2.4 and 3.1:
    |ln(1 + d)| is at most u / (1 - u) and its mean u^2 / (1 - u), then Hoeffding's inequality.

    >>> 6.54 < higham_mary(10**6, 2.0**-24, 1e-3) / (2.0**-24 * 10**3) < 6.55
    True
    """
    factor = higham_mary_lambda(n, u, failure, outputs)
    exponent = (factor * math.sqrt(n) * u + n * u * u / (1.0 - u)) * _MARGIN
    try:
        return math.expm1(exponent) * _MARGIN
    except OverflowError:
        return math.inf


def _check(n: int, u: float) -> None:
    if n < 0:
        raise ArgumentError(f"bounds: n is {n}; a number of terms is not negative")
    if not 0.0 < u < 1.0:
        raise ArgumentError(f"bounds: u is {u}; the unit roundoff 2^-p is in (0, 1)")


def _upward(value: Fraction) -> float:
    nearest = float(value)
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)
