"""How far rounding moves sums: one function per theorem, of what is known of the sums (`known_sums`).

A law takes the `Sums` of a step and returns a bound on the error of each, errors of its terms included; NaN
where it does not apply.  Every theorem on sums of given numbers holds for the computed terms, whose
magnitudes add up to at most `size`; what these terms err by is `before`, and adds to it.  What products
lose to underflow is `lost`: it passes the additions above it, which multiply it by 1 + growth.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.bounds import theorems
from roundoff.bounds.known_sums import Sums, Tree, nothing
from roundoff.errors import InapplicableError

Array = npt.NDArray[np.float64]


Law = Callable[[Sums], Array]


def per_count(function: Callable[[int], Any], counts: Any) -> Array:
    """function(count) per element, NaN where it refuses; refused for all counts, it raises."""
    counts = np.asarray(counts, np.int64)
    factors, refusals = np.full(int(counts.max(initial=0)) + 1, np.nan), []
    for count in np.flatnonzero(np.bincount(counts.ravel())).tolist():
        try:
            factors[count] = function(count)
        except InapplicableError as error:
            refusals.append(error)
    found: Array = factors[counts]
    if refusals and np.isnan(found).all():
        raise refusals[-1]
    return found


# ---------------------------------------------------------------------------------- certified


def on_a_grid(sums: Sums) -> Array:
    """Terms that are multiples of a power of two of which S is at most 2^p: nothing is rounded."""
    return np.where(sums.exact, sums.before + sums.lost, np.nan)


def _scaled(sums: Sums, factor: Any) -> Array:
    result: Array = sums.before + factor * sums.size + (1.0 + factor) * sums.lost
    return result


def _factors(sums: Sums) -> Any:
    """How many factors 1 + d a term passes at most: of the additions, and of its product where that
    rounds."""
    return np.maximum(np.asarray(sums.count) - np.where(sums.plain, 1, 0), 0)


def gamma(sums: Sums) -> Array:
    """`theorems.gamma` of all factors."""
    step = sums.accumulator.step
    return _scaled(sums, per_count(lambda n: theorems.gamma(n, step), _factors(sums)))


def factors(sums: Sums) -> Array:
    """(1 + unit)^n - 1: every term passes at most n factors, in any tree, fused or not."""
    return _scaled(sums, theorems.compounded(_factors(sums), sums.accumulator.unit))


def jeannerod_rump(sums: Sums) -> Array:
    """n u S, where no product underflows, nor is fused, of those that round."""
    step = sums.accumulator.step
    found = _scaled(sums, per_count(lambda n: theorems.jeannerod_rump(n, step), _factors(sums)))
    return np.where(sums.plain | (np.equal(sums.lost, 0) & (not sums.fused)), found, np.nan)


def lange_rump(sums: Sums) -> Array:
    """n u / (1 + n u) S, for terms that are given, or products that do not round.

    Not where an earlier step's product may be fused into the sum: its rounding error is in `before`
    already, but the term is then no number of the format, which the theorem asks for and n u S does not: a
    fused addition errs by no more than the product, whatever the other operand is.
    """
    step = sums.accumulator.step
    if not (sums.given and np.any(sums.plain)):
        return np.full(np.shape(sums.size), np.nan)
    counts = np.where(sums.plain, _factors(sums), 0)
    found = _scaled(sums, per_count(lambda n: theorems.lange_rump(n, step), counts))
    return np.where(sums.plain, found, np.nan)


def computed_products(sums: Sums) -> Array:
    """(n - 1) u times the magnitudes of computed products, whose own errors come first.

    A fused product's rounding counts as well, so that it also holds where some are fused and some are not.
    """
    products = sums.accumulator.unit * sums.rounded + sums.lost
    additions = np.maximum(np.asarray(sums.count) - 1, 0) * sums.accumulator.step
    found = sums.before + products + additions * (sums.size + products)
    return np.where(sums.plain, np.nan, found)


def depth_weighted(sums: Sums) -> Array:
    """Every term times (1 + unit)^depth - 1."""
    tree = _tree(sums)
    growth = theorems.compounded([tree.height], sums.accumulator.unit)[0]
    result: Array = tree.weighted + sums.before + (1.0 + growth) * tree.lost
    return result


def partial_sums(sums: Sums) -> Array:
    """The walk along the tree, node by node."""
    return _tree(sums).walked.error


def compensated(sums: Sums) -> Array:
    """The theorem of the stated compensation.

    Products are rounded first, which is an error of the terms; but Dot2 keeps their errors.  Its error term
    of a product that underflows is within half the smallest subnormal of the error, which is in `lost`;
    these halves pass through the sum of the error terms, 1 + gamma_n.  Zeros take part in Kahan's carries;
    in the others they change nothing.
    """
    name, target = str(sums.compensation), sums.accumulator.format
    whole = name == "sum2" and sums.products
    theorem = theorems.dot2 if whole else getattr(theorems, name)
    counts = np.broadcast_to(sums.count, np.shape(sums.size))
    if name == "kahan":
        counts = np.where(counts > 1, sums.length, counts)
    on_sum = per_count(lambda n: theorem(n, target.u)[0], counts)
    on_scale = per_count(lambda n: theorem(n, target.u)[1], counts)
    first = sums.lost + (0.0 if whole else sums.accumulator.unit * sums.rounded)
    again = np.sqrt(on_scale) * counts * target.smallest_subnormal if whole else 0.0
    total = np.minimum(sums.total, sums.size) + first
    found = sums.before + first + on_sum * total + on_scale * (sums.size + first)
    found = found + np.where(np.equal(sums.lost, 0), 0.0, again)
    alone = (counts <= 1) & sums.plain & np.equal(sums.lost, 0)
    return np.asarray(np.where(alone, sums.before, found))


def certified(sums: Sums) -> Array:
    """The smallest bound that is never exceeded; infinite where no law applies."""
    laws: list[Law] = [on_a_grid]
    if sums.compensation:
        laws += [compensated]
    else:
        laws += [factors]
        laws += [jeannerod_rump, lange_rump, computed_products] if sums.accumulator.nearest else []
        laws += [partial_sums] if sums.tree is not None else []
    found = np.full(np.shape(sums.size), np.nan)
    for law in laws:
        try:
            found = np.fmin(found, law(sums))
        except InapplicableError:
            continue
    return np.where(np.isnan(found), np.inf, found)


def running(sums: Sums, binades: bool = False) -> Array:
    """u times every computed partial sum, or times the power of two below each."""
    if sums.recorded is None:
        raise InapplicableError("partial sums are known only in a stated order; pass order=")
    found = sums.recorded()[int(binades)]
    result: Array = sums.accumulator.format.u * found + sums.length * np.sign(sums.lost) * (
        sums.accumulator.underflow
    )
    return result


# ------------------------------------------------------------------------------ probabilistic


@dataclass(frozen=True, eq=False)
class _Chance:
    """A sum's errors as `random_errors` sorts them: certain, predicted (drift), and random by their squares.

    roundings, height: of the tree; in any order of a plain loop, for each sum.
    """

    certain: Any
    drift: Any
    squares: Any
    roundings: Any
    height: Any


def _by_chance(sums: Sums) -> _Chance:
    stochastic = sums.accumulator.rounding == "stochastic"
    if sums.tree is not None:
        tree = sums.tree()
        walked = tree.walked
        certain, drift = walked.certain, walked.drift + tree.drift
        if stochastic:
            certain, drift = np.zeros_like(certain), np.zeros_like(certain)
        # The theorem's partial sums are those of the terms as they are: exact ones, or these with errors.
        free = np.where(np.equal(sums.before, 0), walked.independent, walked.independent_large)
        return _Chance(certain, drift, free + tree.squares, tree.roundings, tree.height)
    # No partial sum of the computed terms exceeds (S + |s|) / 2 in any order, but for its own errors.
    most = 0.5 * (sums.size + sums.total) * theorems.MARGIN
    small, drift = nothing(most) if stochastic else sums.by_chance(most)
    # Nor does a term: the squares of products add up to no more than this times their sum, nor its square.
    squares = sums.rounded * np.minimum(most, sums.rounded)
    if sums.squares is not None:
        squares = np.minimum(squares, sums.squares())
    count = np.broadcast_to(np.asarray(sums.count, np.int64), np.shape(most))
    free = np.maximum(count - 1 - small, 0) * most**2 + np.where(sums.plain, 0.0, squares)
    n, rounds = np.maximum(count, 1), int(not np.all(sums.plain))
    return _Chance(small * sums.accumulator.step * most, drift, free, 2 * n, n - 1 + rounds)


def hallman_ipsen(sums: Sums, failure: float, outputs: int) -> Array:
    """Hallman and Ipsen's with the partial sums of the tree, or with (S + |s|) / 2 for each in any order.

    What underflow takes passes the additions above it, or is an error of the terms that are added.
    """
    found, height = _deviation(sums, failure, outputs)
    if not np.any(sums.lost):
        return found
    lost = sums.lost if sums.tree is None else sums.tree().lost
    growth = theorems.compounded([height], sums.accumulator.unit)[0]
    total = np.minimum(sums.total + lost, sums.size + lost)
    other = replace(sums, before=sums.before + lost, size=sums.size + lost, total=total, lost=0.0)
    again = _deviation(other, failure, outputs)[0]
    return np.asarray(np.fmin(found + (1.0 + growth) * lost, again))


def _deviation(sums: Sums, failure: float, outputs: int) -> tuple[Array, int]:
    """Hallman and Ipsen's bound without underflow, and the largest height of a tree."""
    parts, step = _by_chance(sums), sums.accumulator.step
    if sums.tree is not None:
        error = theorems.hallman_ipsen(
            parts.squares, parts.roundings, parts.height, step, failure, outputs
        )
    else:
        rounds = int(not np.all(sums.plain))
        factor = per_count(
            lambda n: theorems.hallman_ipsen(1.0, 2 * n, n - 1 + rounds, step, failure, outputs),
            parts.roundings // 2,
        )
        error = np.where(parts.squares == 0, 0.0, factor * np.sqrt(parts.squares) * theorems.MARGIN)
    found = sums.before + error + parts.certain + parts.drift
    return found, int(np.max(parts.height, initial=0))


def higham_mary(sums: Sums, failure: float, outputs: int) -> Array:
    """Higham and Mary's, where no operand is small beside its sum."""
    alone = 0 if sums.products else 1  # a sum of one term is no addition
    step = sums.accumulator.step
    factor = per_count(
        lambda n: theorems.higham_mary(n, step, failure, outputs) if n > alone else 0.0,
        np.broadcast_to(sums.count, np.shape(sums.size)),
    )
    parts = _by_chance(sums)
    return np.where(parts.certain > 0, np.nan, _scaled(sums, factor) + parts.drift)


def likely(sums: Sums, failure: float, outputs: int) -> Array:
    """Exceeded with probability at most `failure` by any of so many sums; never above `certified`.

    The rounding errors inside each sum are told apart by `random_errors`: certain, predicted, or of mean zero
    given the earlier ones.  Errors of earlier steps are propagated by absolute values, so nothing is assumed
    of how they combine.
    """
    certain = certified(sums)
    if sums.compensation:
        return certain
    return np.fmin(certain, hallman_ipsen(sums, failure, outputs))


def _tree(sums: Sums) -> Tree:
    if sums.tree is None:
        raise InapplicableError("partial sums are known only in a stated order; pass order=")
    return sums.tree()
