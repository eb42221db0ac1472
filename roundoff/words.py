"""Counts, rows of words and lines, as they are printed."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

#: Printed lines have no more columns, but for words and table rows that are longer.
WIDTH = 110


def counted(count: Any, one: str, many: str = "") -> str:
    """A count and its noun; many: the plural, if it takes more than an s.

    >>> counted(1, "output"), counted(2, "output"), counted(0, "match", "matches")
    ('1 output', '2 outputs', '0 matches')
    """
    return f"{count} {one if count == 1 else many or f'{one}s'}"


def listed(words: Iterable[str]) -> str:
    """Words in a row.

    >>> listed(["one", "two", "three"])
    'one, two and three'
    """
    *before, last = words
    return f"{', '.join(before)} and {last}" if before else last


def folded(line: str) -> str:
    """A line in lines of at most WIDTH columns, indented from the second on; folded at spaces alone."""
    return textwrap.fill(
        line, WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )  # fmt: skip


def told_apart(first: str, second: str) -> tuple[str, str]:
    """Two names, numbered where they are one.

    >>> told_apart("sum", "sum"), told_apart("sum", "mean")
    (('sum 1', 'sum 2'), ('sum', 'mean'))
    """
    return (f"{first} 1", f"{second} 2") if first == second else (first, second)


def called(function: Any, otherwise: str) -> str:
    """The name of a callable: that of what a partial or a wrapper holds; otherwise: that of a lambda.

    >>> from functools import partial
    >>> [called(each, "function") for each in (sorted, partial(sorted, key=len), lambda: 0)]
    ['sorted', 'sorted', 'function']
    """
    while not hasattr(function, "__name__") and hasattr(function, "func"):
        function = function.func
    name = str(getattr(function, "__name__", type(function).__name__))
    return otherwise if name == "<lambda>" else name
