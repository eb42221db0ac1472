"""Assertions for test suites: a result is within round-off, two functions are the same.

Loaded on first use: pytest loads the plugin beside them in every run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roundoff.judging.power import LEAST
    from roundoff.testing.assertions import (
        KINDS,
        Usage,
        assert_same_function,
        assert_within_roundoff,
        suspect,
        usages,
    )

__all__ = [
    "KINDS",
    "LEAST",
    "Usage",
    "assert_same_function",
    "assert_within_roundoff",
    "suspect",
    "usages",
]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from roundoff.testing import assertions

        return getattr(assertions, name)
    raise AttributeError(f"module 'roundoff.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
