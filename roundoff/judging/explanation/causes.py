"""What is known of two functions whose bits differ, gradient by gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from roundoff.judging.explanation.rounding_sources import Sources
from roundoff.numbers.formats import Format
from roundoff.probing import KernelTree, Revealed


@dataclass(frozen=True, eq=False)
class Cause:
    """What is known of one gradient.

    equal: how many elements of the two gradients have the same bits; common: the same under one upstream
    gradient, the first function's; elements: how many there are.  trees: what was recovered of each side
    (None where it could not be asked, with the reason in `refused`).  terms_alike: whether both add
    the same products; swapped: of the elements whose terms are the same, how many each side's terms
    give the other side's bits for, added in the other's tree: (first in second's, second in first's, of).
    parts: where the trees part first; alone: each side's order with one thread, where that is another.
    tighter: how many times smaller the bound along each side's tree is than that for any order, median.
    apart: of the elements whose bits differ, the pairs of both sides' trees over the same terms.
    """

    name: str
    elements: int
    equal: int
    common: int
    trees: tuple[Revealed | None, Revealed | None]
    refused: str
    terms_alike: bool
    swapped: tuple[int, int, int]
    parts: str
    alone: tuple[str, str]
    tighter: tuple[float, float]
    kernels: tuple[tuple[str, ...], tuple[str, ...]]
    apart: tuple[tuple[KernelTree, KernelTree], ...] = ()

    @property
    def proven(self) -> bool:
        """Whether both sides' trees are proven, and each gives the other's bits in the other's tree."""
        forth, back, of = self.swapped
        known = all(side is not None and side.proven for side in self.trees)
        return known and self.terms_alike and forth == back == of == self.elements


@dataclass(frozen=True, eq=False)
class Explained:
    """Why the gradients of two functions differ in their bits.

    forward: how many elements of the outputs have the same bits, and how many there are; trees: per
    gradient, what was recovered of both sides; environment: what else the kernels depend on.  sources: by
    gradient whose reason is not proven, and "output" if those differ: which roundings set them apart.
    """

    names: tuple[str, str]
    format: Format
    forward: tuple[int, int]
    causes: Mapping[str, Cause]
    environment: Mapping[str, str]
    sources: Mapping[str, Sources] = field(default_factory=dict)

    @property
    def proven(self) -> bool:
        """Whether every gradient's trees are proven on both sides, and account for every bit."""
        return all(cause.proven for cause in self.causes.values())

    @property
    def trees(self) -> dict[str, tuple[Revealed | None, Revealed | None]]:
        """Per gradient, the trees of both sides with the outputs that share them."""
        return {name: cause.trees for name, cause in self.causes.items()}
