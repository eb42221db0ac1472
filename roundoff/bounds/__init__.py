"""Bounds on rounding errors of sums, dot products and matrix products, and the theorems behind them.

`sum`, `dot` and `matmul` return a `Bound`; the theorems are plain functions of n, u, trees and
failure probabilities.
"""

from __future__ import annotations

from roundoff.bounds.bound import Bound, Statement
from roundoff.bounds.layers import conv_gradients, linear_gradients, matmul_gradients
from roundoff.bounds.sums import dot as dot
from roundoff.bounds.sums import matmul, sum
from roundoff.bounds.theorems import (
    depth_weighted,
    dot2,
    gamma,
    hallman_ipsen,
    higham_mary,
    higham_mary_lambda,
    jeannerod_rump,
    kahan,
    lange_rump,
    neumaier,
    stochastic_rounding,
    sum2,
)

__all__ = [
    "Bound",
    "Statement",
    "conv_gradients",
    "depth_weighted",
    "dot",
    "dot2",
    "gamma",
    "hallman_ipsen",
    "higham_mary",
    "higham_mary_lambda",
    "jeannerod_rump",
    "kahan",
    "lange_rump",
    "linear_gradients",
    "matmul",
    "matmul_gradients",
    "neumaier",
    "stochastic_rounding",
    "sum",
    "sum2",
]
