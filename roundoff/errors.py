"""The one exception base of the package: a message says what, with the value, and what to do."""

from __future__ import annotations


class RoundoffError(Exception):
    """Base of every error that roundoff raises on purpose."""


class ArgumentError(RoundoffError, ValueError):
    """An argument that has no meaning here; the message names it, its value and the remedy."""


class UnsupportedError(RoundoffError, NotImplementedError):
    """A computation outside what roundoff can trace or emulate."""


def no_value(function: str, *arguments: str) -> UnsupportedError:
    """What to raise where a function is evaluated outside its domain, with the numbers it got."""
    return UnsupportedError(
        f"the reference has no value: the function or its gradient evaluates {function}"
        f"({', '.join(arguments)}), which is no finite real number; change the inputs that lead there"
    )


def too_large(function: str, *arguments: str) -> UnsupportedError:
    """What to raise where a value is a number, but beyond what any engine keeps."""
    return UnsupportedError(
        f"the function or its gradient evaluates {function}({', '.join(arguments)}), which is beyond the "
        "range that references are computed in; scale the inputs that lead there"
    )


class PrecisionError(RoundoffError):
    """A reference did not become precise enough within the stated limit."""


class UndecidedError(RoundoffError):
    """What cannot be decided: a comparison inside its own error, a check that could not have failed.

    It is no AssertionError: where a test expects a bug to be caught, a check without power caught nothing.
    """


class InapplicableError(RoundoffError, ValueError):
    """A theorem whose conditions do not hold; the message says which one, and what to take instead."""
