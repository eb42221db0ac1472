"""Where in the user's code an operation is asked for: its module, its line, forward or backward."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Source:
    """module: the path of the innermost module in the outermost one, the class of that where it is itself,
    "" outside all; line: as "model.py:12", "" where no line is known; backward: whether the gradient of
    what stands there asks for it.
    """

    module: str = ""
    line: str = ""
    backward: bool = False

    @property
    def phase(self) -> str:
        """In a word."""
        return "backward" if self.backward else "forward"

    def __str__(self) -> str:
        where = ", ".join(filter(None, (self.module, self.line))) or "no known place"
        return f"{where}, {self.phase}"
