"""The record of an elementwise function: the rules that all arithmetics take from it.

Arithmetics give each kind its meaning; an elementary function is no more to them than its rules here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import inf
from typing import Any

from roundoff.errors import ArgumentError
from roundoff.numbers.formats import Format

Rule = Callable[..., Any]

#: A rule that the record's kind does without.
_NOT_GIVEN: Any = None

#: Patterns of structural zeros; "branches" are those that are selected from.
ZEROS = ("all", "any", "first", "branches", "never")


class Kind(Enum):
    """What a function does with its operands."""

    SUM = "sum"  # x + y, x - y
    PRODUCT = "product"
    QUOTIENT = "quotient"
    POWER = "power"
    ELEMENTARY = "elementary function"  # any other that has derivatives and is rounded
    REFLECTION = "reflection"  # -x, |x|
    SIGN = "sign"
    EXTREME = "extreme"  # the larger or smaller of two
    SELECTION = "selection"  # of the second or third operand, as the first one says
    COMPARISON = "comparison"  # true or false, of two numbers
    LOGICAL = "logical function"  # true or false, of such
    CAST = "cast"  # the same number in another format


_NOT_POLYNOMIAL = (Kind.QUOTIENT, Kind.POWER, Kind.ELEMENTARY)
_ROUNDED = (Kind.SUM, Kind.PRODUCT, *_NOT_POLYNOMIAL)

_FLOAT64 = ("float64", "ulp", "float64_ulp")
_ENGINES = ("mpmath", "arb")
_SLOPES = ("slopes", "limits")

#: The rules that each kind must have.  Sums and products are exact in the arithmetic of mpmath itself.
NEEDED: dict[Kind, tuple[str, ...]] = {
    Kind.SUM: (*_FLOAT64, "arb"),
    Kind.PRODUCT: (*_FLOAT64, "arb"),
    Kind.QUOTIENT: (*_FLOAT64, *_ENGINES),
    Kind.POWER: (*_FLOAT64, *_ENGINES, *_SLOPES),
    Kind.ELEMENTARY: (*_FLOAT64, *_ENGINES, *_SLOPES, "steepest"),
    Kind.REFLECTION: ("float64", *_ENGINES, "slopes"),
    Kind.SIGN: ("float64", *_ENGINES),
    Kind.EXTREME: ("float64", *_ENGINES, "takes_first"),
    Kind.COMPARISON: ("float64", *_ENGINES, "sides"),
    Kind.SELECTION: ("float64",),
    Kind.LOGICAL: ("float64",),
    Kind.CAST: (),
}


def _none(format: Format) -> float:
    return 0.0


@dataclass(frozen=True, eq=False)
class Function:
    """An elementwise function of `arity` numbers x, y, ...

    zero: which operands must be structural zeros for the result to be one, of ZEROS.  Rules, by use:

    float64: of arrays; float64_ulp: how many ulp of float64 that errs by, at most.
    ulp: how many ulp of a format the kernels of libraries err by, at most, 0.5 where they round correctly;
    absolute: what they err by besides, given the format.  usual: how many times as large as those of one
    rounding to nearest PyTorch's errors usually are, as root mean squares; a test of random roundings
    measures it.
    bounded: of a reflection, whether anything is known of what kernels return.
    mpmath: of mpmath's raw numbers, exact if polynomial; else with the bits of the result as one more
    argument, exact or rounded to odd (see `high_precision`).  work_grows: with the logarithm of the last
    operand's size.
    arb: of balls.  value_grows: it has a value at every number, so that only its size can be in the way.
    limits: whether float64 holds its values at infinite operands, where it has any.
    slopes: per operand the derivative by it, from the operands and the value.
    steepest: per operand its largest magnitude in a box, from the ends low, high of every operand; infinite
    where the box leaves the domain.
    modulus: |f(x) - f(y)| is at most that of |x - y|, in the domain; for slopes without bound.
    domain: where it is real, of each operand.
    sides: the comparison of x with y, or with 0, that tells the sides of its kink.
    takes_first: of x and y, whether the result is x.
    absorbing: the truth value of one operand that decides alone.

    Raises: ArgumentError for a record that lacks a rule of its kind.
    """

    name: str
    arity: int
    kind: Kind
    zero: str = "never"
    float64: Rule = _NOT_GIVEN
    float64_ulp: float = _NOT_GIVEN
    ulp: float = _NOT_GIVEN
    absolute: Callable[[Format], float] = _none
    bounded: bool = True
    usual: float = 1.0
    mpmath: Rule = _NOT_GIVEN
    work_grows: bool = False
    arb: Rule = _NOT_GIVEN
    value_grows: bool = False
    limits: bool = _NOT_GIVEN
    slopes: tuple[Rule, ...] = _NOT_GIVEN
    steepest: tuple[Rule, ...] = _NOT_GIVEN
    modulus: Rule | None = None
    domain: tuple[float, float] = (-inf, inf)
    sides: str = _NOT_GIVEN
    takes_first: Rule = _NOT_GIVEN
    absorbing: bool | None = None

    def __post_init__(self) -> None:
        missing = [rule for rule in NEEDED[self.kind] if getattr(self, rule) is None]
        if missing:
            self._refuse(
                f"no {' and no '.join(missing)}; every {self.kind.value} needs {', '.join(NEEDED[self.kind])}"
            )
        for rule in ("slopes", "steepest"):
            given = getattr(self, rule)
            if given is not None and len(given) != self.arity:
                self._refuse(f"{len(given)} {rule} and {self.arity} operands; give one per operand")
        if self.zero not in ZEROS:
            self._refuse(f"zero={self.zero!r}; take one of {', '.join(ZEROS)}")

    def _refuse(self, has: str) -> None:
        raise ArgumentError(f"the record of the function {self.name!r} has {has}")

    @property
    def boolean(self) -> bool:
        """Whether its results are true or false."""
        return self.kind in (Kind.COMPARISON, Kind.LOGICAL)

    @property
    def polynomial(self) -> bool:
        """Whether exact arithmetic carries it out, on the branch taken."""
        return self.kind not in _NOT_POLYNOMIAL

    @property
    def rounded(self) -> bool:
        """Whether its results have more bits than its operands; a cast is rounded by what it is."""
        return self.kind in _ROUNDED

    def ulp_in(self, format: Format) -> float:
        """How many ulp of the format the function errs by.

        Formats narrower than float32 are computed in float32 and rounded: half an ulp and little more.
        """
        if self.ulp == 0.5 or format.precision >= 24:
            return self.ulp
        return 0.5 + self.ulp * 2.0 ** (format.precision - 24)
