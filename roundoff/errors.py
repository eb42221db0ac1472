"""The one exception base of the package: a message says what, with the value, and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar


class RoundoffError(Exception):
    """Base of every error that roundoff raises on purpose.

    elements: where an arithmetic refuses single elements of a step, what is said of each, by its number in C
    order; one such table for all operands of an elementwise function, one per operand of a sum.  brief: the
    cause in a few words.  lasting: more precision would not help.
    """

    elements: tuple[Mapping[int, RoundoffError], ...] = ()
    brief: str = ""
    lasting: bool = False


Error = TypeVar("Error", bound=RoundoffError)


def of_elements(*tables: Mapping[int, Error]) -> Error:
    """One error for several elements; its message is that of the first."""
    first = next(error for table in tables for error in table.values())
    first.elements = tables
    return first


class ArgumentError(RoundoffError, ValueError):
    """An argument that has no meaning here; the message names it, its value and the remedy."""


class UnsupportedError(RoundoffError, NotImplementedError):
    """A computation outside what roundoff can trace or emulate."""


def no_value(function: str, *arguments: str) -> UnsupportedError:
    """What to raise where a function is evaluated outside its domain, with the numbers it got."""
    brief = f"{function}({', '.join(arguments)})"
    error = UnsupportedError(
        f"the reference has no value: the function or its gradient evaluates {brief}, which is no finite "
        "real number; change the inputs that lead there"
    )
    error.brief = brief
    return error


def infinite_sum() -> UnsupportedError:
    """What to raise where an infinity would enter a sum."""
    error = UnsupportedError(
        "the reference has no value: an infinity or NaN enters a sum; check the inputs' range"
    )
    error.brief, error.lasting = "an infinity enters a sum", True
    return error


def too_large(function: str, *arguments: str) -> UnsupportedError:
    """What to raise where a value is a number, but beyond what any engine keeps."""
    brief = f"{function}({', '.join(arguments)})"
    error = UnsupportedError(
        f"the function or its gradient evaluates {brief}, which is beyond the range that references are "
        "computed in; scale the inputs that lead there"
    )
    error.brief, error.lasting = f"{brief} is beyond the range of references", True
    return error


class PrecisionError(RoundoffError):
    """A reference did not become precise enough within the stated limit."""


class UndecidedError(RoundoffError):
    """What cannot be decided: a comparison inside its own error, a check that could not have failed.

    It is no AssertionError: where a test expects a bug to be caught, a check without power caught nothing.
    """


class BrokenGuardError(UndecidedError):
    """A decision that a trace has taken (an order, a branch, a whole number) falls otherwise here."""


class InapplicableError(RoundoffError, ValueError):
    """A theorem whose conditions do not hold; the message says which one, and what to take instead."""


def infinite_value(value: str) -> UnsupportedError:
    """What is said of an output that is an infinity or no number."""
    error = UnsupportedError(
        f"the reference has no value: a gradient is {value}, no finite number; check the inputs' range"
    )
    error.brief, error.lasting = f"it is {value}", True
    return error


def undecided_comparison(first: str, second: str) -> UndecidedError:
    """What to raise where two numbers are equal to within the precision."""
    error = UndecidedError(
        f"a comparison of {first} with {second} cannot be decided: they are equal to within the "
        "precision; the function has a kink there, where conventions differ: move the inputs off it"
    )
    error.brief = f"a comparison of {first} with {second} cannot be decided"
    return error
