"""Reduction trees of real kernels: recovered by probing, proven by replay."""

from roundoff.probing.kernel_tree import KernelTree
from roundoff.probing.revealed import Revealed, TreeClass, reveal, reveal_gradient

__all__ = ["KernelTree", "Revealed", "TreeClass", "reveal", "reveal_gradient"]
