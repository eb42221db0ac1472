"""What `explain` returns."""

from __future__ import annotations

from dataclasses import dataclass

from roundoff.judging.explanation.causes import Explained
from roundoff.judging.explanation.printed import lines_of, sentence_of


@dataclass(frozen=True, eq=False)
class Explanation(Explained):
    """Why the gradients of two functions differ in their bits; print it.

    forward: how many elements of the outputs have the same bits, and how many there are; trees: per
    gradient, what was recovered of both sides; environment: what else the kernels depend on.
    """

    @property
    def sentence(self) -> str:
        """The answer, for a newcomer."""
        return sentence_of(self)

    def __str__(self) -> str:
        return "\n".join(lines_of(self))
