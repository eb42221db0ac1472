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

    @property
    def place(self) -> str:
        """Module and line, as far as they are known."""
        return ", ".join(filter(None, (self.module, self.line))) or "no known place"

    def __str__(self) -> str:
        return f"{self.place}, {self.phase}"
