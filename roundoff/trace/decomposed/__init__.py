"""ATen operations taken apart into others: one file per kind, one function of the call's arguments each.

What is written here is run and recorded while a graph is made functional: with tensors, out of place, in the types
that the operation has.
"""

from roundoff.trace.decomposed.registry import DECOMPOSED as DECOMPOSED
