"""Locks for what threads must not use at the same time: torch's flags, the engines' precision, settings.

A thread that needs several takes them in the order in which they stand here.
"""

from __future__ import annotations

from contextlib import ContextDecorator
from threading import RLock
from types import TracebackType


class Exclusive(ContextDecorator):
    """A re-entrant lock, as a context or around a function."""

    def __init__(self) -> None:
        self._lock = RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._lock.release()


#: PyTorch's flags and number of threads, by which kernels are chosen, and the modules that tracing patches:
#: a kernel beside a trace, or beside another number of threads, may give other bits.
TORCH = Exclusive()

#: mpmath's constants, which it keeps and extends without a lock, and python-flint's one working precision.
NUMBERS = Exclusive()

#: matplotlib's settings, and the filters of Python's warnings.
SETTINGS = Exclusive()
