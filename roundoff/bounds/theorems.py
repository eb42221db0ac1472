"""The named theorems: pure functions of n, u, depths and a failure probability.

Every number that comes back is a float64 not below the one of the theorem.  Factors are relative to
S = sum |terms| unless a docstring says otherwise.  u is the unit roundoff 2^-p under round to nearest;
for stochastic or directed rounding pass 2u to those theorems that say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from numbers import Integral
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import described, fraction, whole
from roundoff.errors import ArgumentError, InapplicableError
from roundoff.numbers.formats import as_float64

Array = npt.NDArray[np.float64]

#: 1 + 2^-48: covers the fewer than 16 float64 roundings, each below 2^-52, of a formula below.
MARGIN = 1.0 + 2.0**-48

#: Root mean square of a rounding error to nearest, in units of u and of the rounded number.  The
#: error is uniform over half a spacing either way, the significand m log-uniform in [1, 2):
#: sqrt(1/3 * mean of 1/m^2) = sqrt(1/3 * 3 / (8 ln 2)).
RMS_ROUNDING = math.sqrt(1.0 / (8.0 * math.log(2.0)))


# ---------------------------------------------------------------------------------- certified


def gamma(n: int, u: float) -> float:
    """gamma_n = n u / (1 - n u), rounded upward.

    It bounds |prod (1 + d_i)^(+-1) - 1| over n factors with |d_i| <= u.  Certified, whatever the
    order: times S it bounds the error of a sum of n + 1 terms or, without underflow in the products,
    of a dot product of n, fused multiply-add included.  Valid while n u < 1; for any rounding that is
    faithful with 2u in place of u.

    Units: relative to S.
    Raises: InapplicableError where n u >= 1; ArgumentError for a negative n and for u outside (0, 1).
    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., Lemma 3.1, 3.1, 4.2.

    >>> f"{gamma(1000, 2.0**-11):.10f}"
    '0.9541984733'
    """
    product = _count("gamma", n, u) * Fraction(u)
    if product >= 1:
        raise InapplicableError(
            f"gamma: n u = {n} * {u} = {float(product):.6g} is not below 1, so gamma_n "
            "says nothing; use a wider format or fewer terms"
        )
    return upward(product / (1 - product))


def jeannerod_rump(n: int, u: float) -> float:
    """n u, rounded upward: gamma_n without its higher-order term, for any n.

    Times S it bounds the error of a sum of n + 1 terms in any order (underflow is harmless), and of
    a dot product of n if no product underflows.  Round to nearest only.

    Units: relative to S.
    Raises: ArgumentError for a negative n and for u outside (0, 1).
    Source: Rump 2012, BIT 52, 201-220; Jeannerod and Rump 2013, SIAM J. Matrix Anal. Appl. 34(2),
    338-344 (dot products: Theorem 4.2).  Any tree, because a rounding error of a sum is neither above
    u times the sum nor above either operand.

    >>> jeannerod_rump(999, 2.0**-8)
    3.90234375
    """
    return upward(_count("jeannerod_rump", n, u) * Fraction(u))


def lange_rump(n: int, u: float) -> float:
    """n u / (1 + n u), rounded upward: sharp for sums of n + 1 terms in any order.

    1 + u + u + ... attains it.  Round to nearest; n is at most of size 1/u, taken here as
    n u <= 1/2 (inside which the tests run over every sum of small formats).

    Units: relative to S.
    Raises: InapplicableError where n u > 1/2; ArgumentError as `gamma`.
    Source: Lange and Rump 2019, Math. Comp. 88, 349-368: the estimate k u / (1 + k u).

    >>> f"{lange_rump(3, 0.125):.6f}"  # 3/11
    '0.272727'
    """
    product = _count("lange_rump", n, u) * Fraction(u)
    if product > Fraction(1, 2):
        raise InapplicableError(
            f"lange_rump: n u = {float(product):.6g} exceeds 1/2; take n u (jeannerod_rump)"
        )
    return upward(product / (1 + product))


def fourier(lengths: Sequence[int], u: float) -> float:
    """The factor of every element's error in a discrete Fourier transform over axes of these lengths.

    Relative to the sum of the magnitudes of all that is transformed: no element has its own scale, for what
    it does not depend on may pass through it with a weight of rounding errors.

    An axis of n = p_1 p_2 .. is transformed in stages.  A number passes one product with a twiddle factor and
    one with a weight per stage, 2 sqrt(2) u each and 2 u for the factor's own error, and p - 1 additions: a
    factor (1 + u)^(p + 9) covers it, and gamma of the sum over all stages all of them, in whatever order axes
    and stages are taken.  The weights of a DFT have magnitude 1, so magnitudes add up to at most those given.

    Lengths with prime factors beyond 13 may be taken by a convolution with a chirp (Bluestein), over
    m = 2^k >= 2 n elements: two transforms and one back, of which the errors count sqrt(2 n) times, as the
    mean magnitude of the transform of n to 2 n numbers of magnitude 1 is at most their 2-norm.

    Source: Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 24.1 (the same for 2-norms and
    powers of two), Lemma 3.5 (complex products).

    >>> f"{fourier([8], 2.0**-24) * 2.0**24:.4f}"
    '33.0001'
    """
    return gamma(sum(map(_fourier_roundings, lengths)), u)


def _fourier_roundings(n: int) -> int:
    primes = prime_factors(n)
    if max(primes, default=1) <= 13:
        return sum(p + 9 for p in primes)
    stages = (2 * n - 1).bit_length()
    return math.ceil(3 * 11 * stages * math.sqrt(2 * n)) + 20


def prime_factors(n: int) -> list[int]:
    """In ascending order; none of 1."""
    found, p = [], 2
    while n > 1:
        while n % p == 0:
            found.append(p)
            n //= p
        p += 1
    return found


def depth_weighted(depths: npt.ArrayLike, u: float) -> Array:
    """(1 + u/(1+u))^depth - 1 per term, rounded upward, for depths of any number of roundings.

    The sum over the terms of this times |x_i| bounds the error of a sum along a given tree, depth_i
    being the additions (and the product) that term i passes through.  Never worse than gamma of the
    height, and without its restriction on n.

    Shapes: those of depths.
    Source: every term passes that many factors 1 + d with |d| <= u/(1+u) (Jeannerod and Rump 2018,
    Math. Comp. 87, 803-819, for the size of d; Higham, 2nd ed., 4.2, for the argument).

    >>> depth_weighted([0, 1], 0.25).round(3).tolist()
    [0.0, 0.2]
    """
    found = as_float64(depths)[0]
    if found.size and (found < 0).any():
        raise ArgumentError(f"depth_weighted: a depth is {found.min()}; depths are not negative")
    _check(0, u)
    return compounded(found, u / (1.0 + u))


def compounded(depths: npt.ArrayLike, unit: float) -> Array:
    """(1 + unit)^depth - 1, rounded upward: that many factors 1 + d with |d| <= unit."""
    with np.errstate(over="ignore"):
        # log1p and expm1 err by an ulp or so, and relative errors of the exponent y grow by 1 + y: at most
        # 710 where the result is finite.
        exponent = np.asarray(depths) * (np.log1p(unit) * MARGIN)
        result: Array = np.expm1(exponent) * MARGIN
    return result


def kahan(n: int, u: float) -> tuple[float, float]:
    """Kahan's compensated sum of n terms: error <= a |sum| + b S; returns (a, b), rounded upward.

    a = u and b = 2u + O(n u^2), with every term written out.  With t_k the computed sums and c_k the
    computed carries, z_k = t_k - c_k obeys z_k = z_(k-1) + x_k + e1 + (e2 - c_k), where e1 and e2 are
    the errors of x_k - c_(k-1) and of the addition; c_k recovers e2 but for two roundings.  The three
    maxima of the carries C, of the sums T and the sum of all errors L are bounded by a linear
    system, solved here.  Barring overflow; n counts zero terms too.

    Raises: InapplicableError where the system has no positive solution (6 n u^2 about 1).
    Source: the argument of Goldberg 1991, ACM Computing Surveys 23(1), theorem 8, whose
    statement is (2u + O(n u^2)) S, and Higham, 2nd ed., (4.8).

    >>> a, b = kahan(100, 2.0**-24)
    >>> a == 2.0**-24, 2.0 < b * 2.0**24 < 2.0001
    (True, True)
    """
    n = _count("kahan", n, u)
    if n <= 1:
        return 0.0, 0.0
    r, steps = Fraction(u), n - 1
    both = r * (1 + (1 + r) ** 2)  # |e1| + |e2 - c| per |x| + |c|
    again = r * r * (2 + r)  # |e2 - c| per |t|
    last = r * (1 + r) ** 2  # |c| per |x| + |c|
    rest = 1 - last - r - again
    growth = 1 - steps * again - steps * (both + again) * (r + again) / rest
    if rest <= 0 or growth <= 0:
        raise InapplicableError(
            f"kahan: {n} terms are too many for u = {u}; the carries themselves are lost then, use a "
            "wider format"
        )
    lost = (both + steps * again + steps * (both + again) * (r + again + last) / rest) / growth
    return upward(r), upward((1 + r) * lost)


def neumaier(n: int, u: float) -> tuple[float, float]:
    """Neumaier's compensated sum of n terms: error <= a |sum| + b S; returns (a, b), rounded upward.

    a = u, b = (1 + u) (n - 1) (n - 2) u^2, for any n.  The carries are the exact errors of the
    additions; their magnitudes add up to at most (n - 1) u S, and their own sum errs by n - 2
    roundings.  Round to nearest, barring overflow.
    Source: Neumaier 1974, ZAMM 54, 39-51, for the algorithm; `jeannerod_rump` twice for the bound (its
    proof bounds the sum of the magnitudes of all local errors).

    >>> neumaier(2, 0.25)
    (0.25, 0.0)
    """
    n = _count("neumaier", n, u)
    if n <= 1:
        return 0.0, 0.0
    r = Fraction(u)
    return upward(r), upward((1 + r) * (n - 1) * (n - 2) * r * r)


def sum2(n: int, u: float) -> tuple[float, float]:
    """Sum2 of n terms: error <= a |sum| + b S with a = u, b = gamma_(n-1)^2; (a, b), rounded upward.

    Raises: InapplicableError where n u >= 1.
    Source: Ogita, Rump and Oishi 2005, SIAM J. Sci. Comput. 26(6), 1955-1988, section 4 (Sum2).
    """
    if _count("sum2", n, u) <= 1:
        return 0.0, 0.0
    return upward(Fraction(u)), upward(Fraction(gamma(n - 1, u)) ** 2)


def dot2(n: int, u: float) -> tuple[float, float]:
    """Dot2 of n products: error <= a |x.y| + b S with a = u, b = gamma_n^2; (a, b), rounded upward.

    Without underflow in the products and their errors.
    Raises: InapplicableError where n u >= 1.
    Source: Ogita, Rump and Oishi 2005, SIAM J. Sci. Comput. 26(6), 1955-1988, section 5 (Dot2).
    """
    most = gamma(n, u)
    return upward(Fraction(u)), upward(Fraction(most) ** 2)


# -------------------------------------------------------------------------------- probabilistic


def higham_mary_lambda(n: int, u: float, failure: float, outputs: int = 1) -> float:
    """The lambda at which `higham_mary` fails with probability at most `failure`, rounded upward.

    It solves outputs 2 n exp(-lambda^2 (1 - u)^2 / 2) = failure, the union bound over the n terms
    of each output.
    Raises: ArgumentError for n or outputs below 1, and for u or failure outside (0, 1).
    Source: Higham and Mary 2019, SIAM J. Sci. Comput. 41(5), A2815-A2835, Theorem 3.1.

    >>> f"{higham_mary_lambda(10**6, 2.0**-24, 1e-3):.3f}"
    '6.545'
    """
    n = _count("higham_mary", n, u)
    whole("higham_mary: n", n, 1)
    whole("outputs", outputs, 1)
    check_failure(failure)
    exponent = math.log(2 * n * int(outputs)) - math.log(failure)
    return math.sqrt(2.0 * exponent) / (1.0 - u) * MARGIN


def higham_mary(n: int, u: float, failure: float, outputs: int = 1) -> float:
    """gamma~_n(lambda) = exp(lambda sqrt(n) u + n u^2 / (1 - u)) - 1, rounded upward.

    Times S it bounds the error of a sum or dot product of n terms, in any order, and of all of
    `outputs` such sums at once, with probability at least 1 - failure; infinite where the exponential
    is.  Valid while the rounding errors are independent and of mean zero: not for truncating
    accumulators, nor under stagnation (u times a partial sum above half a typical term), nor for many
    equal terms, whose errors are equal too.  No underflow in products.

    Units: relative to S.
    Raises: ArgumentError as `higham_mary_lambda`.
    Source: Higham and Mary 2019, SIAM J. Sci. Comput. 41(5), A2815-A2835, Theorems 2.4 and 3.1:
    |ln(1 + d)| is at most u / (1 - u) and its mean u^2 / (1 - u), then Hoeffding's inequality.

    >>> 6.54 < higham_mary(10**6, 2.0**-24, 1e-3) / (2.0**-24 * 10**3) < 6.55
    True
    """
    return growth(n, u, higham_mary_lambda(n, u, failure, outputs))


def growth(n: int, u: float, factor: float) -> float:
    """exp(lambda sqrt(n) u + n u^2 / (1 - u)) - 1 for a given lambda, rounded upward."""
    try:
        exponent = (factor * math.sqrt(n) * u + n * u * u / (1.0 - u)) * MARGIN
        return math.expm1(exponent) * MARGIN
    except OverflowError:
        return math.inf


def stochastic_rounding(n: int, u: float, failure: float, outputs: int = 1) -> float:
    """The same as `higham_mary` with 2u, for stochastic rounding, rounded upward.

    There no assumption is left: rounding errors are of mean zero given all earlier ones, by
    construction.  u is the unit roundoff to nearest; stochastic rounding errs by less than 2u.

    Units: relative to S.
    Source: Connolly, Higham and Mary 2021, SIAM J. Sci. Comput. 43(1), A566-A585, section 4.
    """
    _check(0, u)
    return higham_mary(n, 2.0 * u, failure, outputs)


def hallman_ipsen(
    squares: Any, roundings: int, height: int, u: float, failure: float, outputs: int = 1
) -> Any:
    """u exp(l sqrt(h) u) sqrt(2 ln(2/delta)) sqrt(sum_v s_v^2), rounded upward: an absolute error.

    squares: sum over the internal nodes v of a tree of the squares of the exact partial sums s_v (for a
    dot product with the products as the lowest nodes; they add a rounding each, and one to the height).
    delta + eta = failure / outputs, nine parts to one; l = sqrt(2 ln(2 n / eta)), n = roundings + 1.
    Unlike `higham_mary` the probability of failure does not grow with n but in higher order.
    Valid for rounding errors of mean zero given the earlier ones; with 2u for stochastic rounding.

    Raises: ArgumentError for failure outside (0, 1).
    Source: Hallman and Ipsen, arXiv 2107.01604, Theorem 2.6.
    """
    check_failure(failure)
    _count("hallman_ipsen", roundings, u)
    whole("outputs", outputs, 1)
    whole("height", height, 0)
    share = failure / outputs
    delta, eta = 0.9 * share, 0.1 * share
    deviations = math.sqrt(2.0 * math.log(2.0 / delta))
    inner = math.sqrt(2.0 * math.log(2.0 * (roundings + 1) / eta))
    try:
        factor = u * math.exp(inner * math.sqrt(height) * u * MARGIN) * deviations * MARGIN
    except OverflowError:
        factor = math.inf
    squares = as_float64(squares)[0]
    with np.errstate(invalid="ignore"):
        return np.where(np.equal(squares, 0), 0.0, factor * np.sqrt(squares) * MARGIN)


# -------------------------------------------------------------------------------------- helpers


def check_failure(failure: float) -> None:
    """Raise unless a probability of failure is in (0, 1)."""
    fraction("failure", failure)


def upward(value: Fraction) -> float:
    """The smallest float64 not below a rational number."""
    try:
        nearest = float(value)
    except OverflowError:
        return math.inf
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)


def _count(name: str, n: Any, u: float) -> int:
    if not isinstance(n, Integral) and not (isinstance(n, float) and n.is_integer()):
        raise ArgumentError(f"{name}: n is {described(n)}; give a whole number of terms")
    _check(int(n), u)
    return int(n)


def _check(n: int, u: float) -> None:
    if n < 0:
        raise ArgumentError(f"bounds: n is {n}; a number of terms is not negative")
    fraction("the unit roundoff u", u)
