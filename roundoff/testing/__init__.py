"""Assertions for test suites: a result is within round-off, two functions are the same."""

from roundoff.testing.assertions import (
    KINDS,
    LEAST,
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
