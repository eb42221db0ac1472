"""Reduction trees of real kernels: recovered by probing, proven by replay."""

from roundoff.probing.direct_trees import reveal
from roundoff.probing.gradient_trees import reveal_gradient
from roundoff.probing.kernel_tree import KernelTree
from roundoff.probing.revealed import Revealed, TreeClass

__all__ = ["KernelTree", "Revealed", "TreeClass", "reveal", "reveal_gradient"]
