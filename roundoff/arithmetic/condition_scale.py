"""S, the condition scale (design decision 7), beside a float64 value.

On a polynomial trace S is the same expression with absolute values throughout; u S is then the
natural unit of an error.  The values are plain float64 and serve derivatives and branches only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from roundoff.arithmetic import move_elements
from roundoff.arithmetic.memo import Alone, Shared
from roundoff.errors import UnsupportedError
from roundoff.trace.steps import BOOLEAN, Constant, Contract, Map, Move, Reduce

Array = npt.NDArray[np.float64]
Rule = Callable[[Sequence[Any], Sequence[Any], Any], Any]


@dataclass(frozen=True, eq=False)
class Scaled:
    """A float64 value, its condition scale S, and the scale of its last sums, of one shape.

    terms: the sum of the |terms| of the last sum alone, as computed, products resetting it: what the
    value was made of in its last step.  S compounds over a trace, and soon says little of a deep one.
    """

    value: Any
    scale: Any
    terms: Any


#: float64 functions for the maps that are one numpy or scipy call.
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "where": np.where,
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "logical_and": np.logical_and,
    "logical_or": np.logical_or,
    "logical_not": np.logical_not,
    "sigmoid": special.expit,
    "erf": special.erf,
    "gelu_erf": special.erf,
    "erfc": special.erfc,
    "pow": np.power,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "asinh": np.arcsinh,
    **{
        name: getattr(np, name)
        for name in "sqrt exp expm1 log log1p log2 log10 sin cos tan sinh cosh tanh".split()
    },
}

#: f' from x and f(x).
SLOPES: dict[str, Callable[[Array, Array], Array]] = {
    "sqrt": lambda x, y: 0.5 / y,
    "exp": lambda x, y: y,
    "expm1": lambda x, y: y + 1.0,
    "log": lambda x, y: 1.0 / x,
    "log1p": lambda x, y: 1.0 / (1.0 + x),
    "log2": lambda x, y: 1.0 / (x * np.log(2.0)),
    "log10": lambda x, y: 1.0 / (x * np.log(10.0)),
    "sin": lambda x, y: np.cos(x),
    "cos": lambda x, y: -np.sin(x),
    "tan": lambda x, y: 1.0 + y * y,
    "asin": lambda x, y: 1.0 / np.sqrt(1.0 - x * x),
    "acos": lambda x, y: -1.0 / np.sqrt(1.0 - x * x),
    "atan": lambda x, y: 1.0 / (1.0 + x * x),
    "sinh": lambda x, y: np.cosh(x),
    "cosh": lambda x, y: np.sinh(x),
    "tanh": lambda x, y: 1.0 - y * y,
    "asinh": lambda x, y: 1.0 / np.sqrt(1.0 + x * x),
    **dict.fromkeys(("erf", "gelu_erf"), lambda x, y: 2.0 / np.sqrt(np.pi) * np.exp(-x * x)),
    "erfc": lambda x, y: -2.0 / np.sqrt(np.pi) * np.exp(-x * x),
    "sigmoid": lambda x, y: y * (1.0 - y),
}


class Scale:
    """The arithmetic that carries S."""

    def __init__(self, shared: Shared | None = None) -> None:
        self.shared = shared or Alone()

    def load(self, values: Array) -> Scaled:
        size = np.abs(values)
        return Scaled(values, size, size)

    def constant(self, step: Constant) -> Scaled:
        full = np.full(step.shape, float(step.value))
        size = np.where(np.isinf(full), 0.0, np.abs(full))  # infinities carry no error
        return Scaled(full, size, size)

    def move(self, step: Move, operands: Sequence[Scaled]) -> Scaled:
        value = self.shared.known(step, "moved")
        if value is None:
            value = move_elements(step, [o.value for o in operands], 0)
        scale = move_elements(step, [o.scale for o in operands], 0)
        if all(o.scale is o.terms for o in operands):
            return Scaled(value, scale, scale)
        return Scaled(value, scale, move_elements(step, [o.terms for o in operands], 0))

    def map(self, step: Map, operands: Sequence[Scaled]) -> Scaled:
        x, s = [o.value for o in operands], [o.scale for o in operands]
        if step.function == "cast":
            return operands[0]
        if step.function not in RULES:
            raise UnsupportedError(
                f"no condition scale S of {step.function!r} is known; add a rule to RULES"
            )
        with np.errstate(all="ignore"):
            value = FUNCTIONS[step.function](*x)
            terms = np.abs(value)
            if step.function in ("add", "sub"):
                terms = operands[0].terms + operands[1].terms
            elif step.function in ("neg", "abs"):
                terms = operands[0].terms
            scale = RULES[step.function](x, s, value)
            return Scaled(value, _finite(scale), _finite(terms))

    def reduce(self, step: Reduce, operand: Scaled) -> Scaled:
        with np.errstate(all="ignore"):
            sums = (v.sum(axis=-1) for v in (operand.value, operand.scale, operand.terms))
            value, scale, terms = sums
        return Scaled(value, _finite(scale), terms)

    def contract(self, step: Contract, first: Scaled, second: Scaled) -> Scaled:
        with np.errstate(all="ignore"):
            scale = first.scale @ second.scale
            plain = all(
                of.scale is of.terms for of in (first, second)
            )  # |value|, both: inputs, moved
            terms = scale if plain else np.abs(first.value) @ np.abs(second.value)
            value, _ = self.shared.once(step, "value", lambda: (first.value @ second.value, 0.0))
            return Scaled(value, _finite(scale), terms)


def _finite(scale: Any) -> Any:
    """The largest float64 stands for more: S grows without limit in deep traces."""
    return np.nan_to_num(scale, nan=np.finfo(np.float64).max, posinf=np.finfo(np.float64).max)


def _by_slope(slope: Callable[[Array, Array], Array]) -> Rule:
    return lambda x, s, y: np.maximum(np.abs(y), np.abs(slope(x[0], y)) * s[0])


def _of_power(x: Sequence[Any], s: Sequence[Any], y: Any) -> Any:
    by_base = np.abs(x[1] * y / x[0]) * s[0]
    return np.maximum(np.abs(y), by_base + np.abs(np.log(x[0]) * y) * s[1])


#: S of every map from its operands' values x, their scales s, and its value y.
RULES: dict[str, Rule] = {
    **dict.fromkeys(("add", "sub"), lambda x, s, y: s[0] + s[1]),
    "mul": lambda x, s, y: s[0] * s[1],
    "div": lambda x, s, y: s[0] / np.abs(x[1]) + np.abs(x[0]) * s[1] / x[1] ** 2,
    **dict.fromkeys(("neg", "abs"), lambda x, s, y: s[0]),
    "where": lambda x, s, y: np.where(x[0], s[1], s[2]),
    "maximum": lambda x, s, y: np.where(x[0] >= x[1], s[0], s[1]),
    "minimum": lambda x, s, y: np.where(x[0] <= x[1], s[0], s[1]),
    "pow": _of_power,
    **{name: _by_slope(slope) for name, slope in SLOPES.items()},
    # Constant but for jumps: no error of the operands reaches them.
    **dict.fromkeys(("sign", *BOOLEAN), lambda x, s, y: np.abs(y)),
}
