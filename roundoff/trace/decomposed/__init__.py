"""ATen operations taken apart into others: one file per kind, one function of the call's arguments each.

They are run and recorded while a graph is made functional: on tensors, out of place, in the types that the
operation has.
"""

from roundoff.trace.decomposed import (
    affine,
    bags,
    batch_norm,
    complex_functions,
    complex_numbers,
    ctc,
    distances,
    elimination,
    fourier,
    fractional,
    losses,
    missing_numbers,
    orders,
    places,
    products,
    reflections,
    special,
    spectral,
    triangles,
    weight_norm,
    whole_numbers,
)
from roundoff.trace.decomposed.registry import DECOMPOSED

__all__ = [
    "DECOMPOSED",
    "affine",
    "bags",
    "batch_norm",
    "complex_functions",
    "complex_numbers",
    "ctc",
    "distances",
    "elimination",
    "fourier",
    "fractional",
    "losses",
    "missing_numbers",
    "orders",
    "places",
    "products",
    "reflections",
    "special",
    "spectral",
    "triangles",
    "weight_norm",
    "whole_numbers",
]
