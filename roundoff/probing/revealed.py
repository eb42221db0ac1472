"""What was recovered of a reduction: its trees, their outputs, and whether replay has proven them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.errors import ArgumentError, UndecidedError
from roundoff.gradients.inputs import float64_array
from roundoff.numbers.formats import round_to
from roundoff.orders import ReductionTree
from roundoff.probing.gate import replay_direct, same
from roundoff.probing.kernel_tree import KernelTree, roundings
from roundoff.probing.recovery import Ids
from roundoff.trace.users_function import as_tensor
from roundoff.words import counted

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class TreeClass:
    """Outputs that share one tree.

    tree: over the terms that are present; leaves: their places among all terms of the reduction,
    structural zeros counted; outputs: element numbers in C order; matched: how many of the `replayed`
    results, trials times outputs, the replay gave bit for bit.
    """

    tree: KernelTree
    leaves: Ids
    outputs: Ids
    replayed: int
    matched: int

    @property
    def proven(self) -> bool:
        """Whether every replay gave the kernel's bits."""
        return self.matched == self.replayed > 0


@dataclass(frozen=True, eq=False)
class Revealed:
    """What was recovered of a reduction.

    classes: proven trees with their outputs; failures: why outputs are in none; trials: random data
    sets that every output was replayed on, the user's own not counted; calls: runs of the kernel;
    products: whether terms are products; batch: the length of a gradient's first axis upstream; terms: the
    length of the vectors of a callable, 0 for a gradient.

    Shapes: the outputs of all classes are element numbers of `shape` in C order.
    """

    classes: tuple[TreeClass, ...]
    failures: tuple[str, ...]
    unproven: Ids
    shape: tuple[int, ...]
    trials: int
    calls: int
    what: str = "the reduction"
    products: bool = False
    batch: int | None = None
    terms: int = 0

    @property
    def proven(self) -> bool:
        """Whether every output has a tree, and every replay of it gave the kernel's bits."""
        return not self.failures and not len(self.unproven)

    @property
    def tree(self) -> ReductionTree:
        """The tree, where all outputs share one: the order alone; the roundings are in `kernel` and `replay`.

        Raises: UndecidedError where there are several, or none is proven.
        """
        return self.kernel.tree

    @property
    def kernel(self) -> KernelTree:
        """The tree with its roundings, where all outputs share one.  Raises: as `tree`."""
        if not self.proven:
            raise UndecidedError(str(self))
        if len(self.classes) != 1:
            raise UndecidedError(
                f"the outputs have {len(self.classes)} different trees; look at them in `classes`"
            )
        return self.classes[0].tree

    def replay(self, x: Any, y: Any = None) -> Array:
        """What the callable that was revealed returns for these vectors: every rounding, bit for bit.

        That is for contiguous vectors at the start of their memory, as the revealed ones were: a kernel may
        add a row that starts off the alignment in another order.
        y: the second vector, of reductions that multiply.

        Shapes: x, y (..., n); the result is (..., *shape of what the callable returns).
        Raises: UndecidedError where an output has no proven tree; ArgumentError for vectors that do not
        fit, for numbers that are not of the kernel's format, and for what `reveal_gradient` returned, whose
        terms are products of several tensors.
        """
        if not self.terms:
            raise ArgumentError(
                f"{self.what} adds products of its upstream gradient and an input; only what `reveal` "
                "returned can be replayed"
            )
        if not self.proven:
            raise UndecidedError(str(self))
        given = [
            np.asarray(float64_array(as_tensor(n, v)))
            for n, v in (("x", x), ("y", y))
            if v is not None
        ]
        format = self.classes[0].tree.format
        for name, values in zip("xy", given, strict=False):
            if values.ndim < 1 or values.shape != (*given[0].shape[:-1], self.terms):
                raise ArgumentError(
                    f"{name} has shape {values.shape}; the last axis holds {counted(self.terms, 'term')}"
                )
            if not same(round_to(values, format), values).all():
                raise ArgumentError(
                    f"{name} holds numbers that are not of {format}; round them first"
                )
        if len(given) != 1 + self.products:
            raise ArgumentError(
                f"{self.what} takes {counted(1 + self.products, 'vector')}, not {len(given)}"
            )
        rows = [values.reshape(-1, self.terms) for values in given]
        found = np.empty((len(rows[0]), int(np.prod(self.shape, dtype=int))))
        for one in self.classes:
            result = replay_direct(
                one.tree, one.leaves, rows[0], rows[1] if self.products else None
            )
            found[:, one.outputs] = result[:, None]
        return found.reshape((*given[0].shape[:-1], *self.shape))

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> list[str]:
        lines = []
        count = sum(c.replayed for c in self.classes)
        if self.proven:
            size = int(np.prod(self.shape, dtype=int))
            lines.append(
                f"{self.what}: proven, {counted(len(self.classes), 'tree')} for "
                f"{counted(size, 'output')}; {count} of {counted(count, 'replay')} equal bit for bit "
                f"({counted(self.trials, 'random trial')}), {counted(self.calls, 'kernel run')}"
            )
        else:
            lines.append(
                f"{self.what}: not a fixed tree on this path, for {len(self.unproven)} of "
                f"{counted(int(np.prod(self.shape, dtype=int)), 'output')}"
            )
            lines += [f"  tried: {failure}" for failure in dict.fromkeys(self.failures)]
        for one in self.classes:
            lines.append(
                f"  {counted(len(one.outputs), 'output')}, {counted(one.tree.n, 'term')}: {one.tree}"
            )
            lines.append(f"    {roundings(one.tree)}")
        return lines


def merged(classes: Sequence[TreeClass]) -> list[TreeClass]:
    """The classes, those with equal trees over equal leaves as one."""
    found: list[TreeClass] = []
    for one in classes:
        for k, other in enumerate(found):
            if np.array_equal(one.leaves, other.leaves) and (
                one.tree is other.tree or one.tree.same_as(other.tree)
            ):
                found[k] = replace(
                    other,
                    outputs=np.sort(np.concatenate([other.outputs, one.outputs])),
                    replayed=other.replayed + one.replayed,
                    matched=other.matched + one.matched,
                )
                break
        else:
            found.append(one)
    return found
