"""Reduction trees of real kernels: recovered by probing, proven by replay."""

from roundoff.probing.revealed import Revealed, TreeClass, reveal, reveal_gradient
from roundoff.probing.trees import KernelTree

__all__ = ["KernelTree", "Revealed", "TreeClass", "reveal", "reveal_gradient"]
