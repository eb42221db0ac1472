"""Reduction trees of real kernels: recovered by probing, proven by replay."""

from roundoff.kernels.kernel_tree import KernelTree
from roundoff.kernels.revealed import Revealed, TreeClass, reveal, reveal_gradient

__all__ = ["KernelTree", "Revealed", "TreeClass", "reveal", "reveal_gradient"]
