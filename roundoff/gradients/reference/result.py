"""What a reference is: per gradient, numbers with a radius, and who made them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from roundoff.arithmetic.condition_scale import Scaled
from roundoff.arithmetic.expansions import swept
from roundoff.arithmetic.multiprecision import from_words
from roundoff.errors import ArgumentError, RoundoffError
from roundoff.numbers.formats import Format
from roundoff.trace.functions.high_precision import Number
from roundoff.words import counted

if TYPE_CHECKING:
    import torch

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GradientReference:
    """One reference gradient.

    Shapes: high, low, error, scale, terms, numbers and the arrays of own have the gradient's shape.
    high + low: the reference rounded to two float64; error: a bound (or, where the reference is not
    rigorous, an estimate) of |high + low - true|; own: the engine's own midpoint, as mpmath's raw tuples or
    as an unevaluated sum of float64 arrays; engine, exact: who made it, and whether `own` has no error at
    all; sizes: gives scale and terms, when they are first asked for; owed: likewise, `literals`.
    unknown: elements, by number in C order, of which no exact value is known, with what an engine says of
    each; high is NaN there and error infinite.
    """

    high: Array
    low: Array
    error: Array
    own: npt.NDArray[np.object_] | tuple[Array, ...]
    engine: str
    exact: bool
    sizes: Callable[[], Scaled]
    unknown: Mapping[int, RoundoffError] = field(default_factory=dict)
    owed: Callable[[], Array] | None = None

    @cached_property
    def known(self) -> npt.NDArray[np.bool_]:
        """Per element, whether there is an exact value."""
        known = np.ones(self.high.size, bool)
        known[list(self.unknown)] = False
        return known.reshape(self.high.shape)

    def why(self, at: tuple[int, ...]) -> str:
        """Why no exact value is known at an element."""
        error = self.unknown[int(np.ravel_multi_index(at, self.high.shape))]
        return error.brief or str(error)

    @cached_property
    def scale(self) -> Array:
        """The condition scale S."""
        return np.asarray(self.sizes().scale)

    @cached_property
    def terms(self) -> Array:
        """The sum of the |terms| of the last step alone."""
        return np.asarray(self.sizes().terms)

    @cached_property
    def literals(self) -> Array:
        """How far the function's literals, each a double some roundings off, may have moved it."""
        return np.zeros(self.high.shape) if self.owed is None else self.owed()

    @cached_property
    def numbers(self) -> npt.NDArray[np.object_]:
        """The engine's own midpoint as mpmath's raw tuples."""
        return from_words(self.own) if isinstance(self.own, tuple) else self.own

    def same_numbers(self, other: GradientReference) -> npt.NDArray[np.bool_]:
        """Per element, whether the engines' own midpoints are one number."""
        if not (isinstance(self.own, tuple) and isinstance(other.own, tuple)):
            pairs = zip(self.numbers.ravel(), other.numbers.ravel(), strict=True)
            return np.array([a == b for a, b in pairs], bool).reshape(self.high.shape)
        words = list(zip_longest(self.own, other.own, fillvalue=np.zeros(self.high.shape)))
        same = np.array(np.logical_and.reduce([a == b for a, b in words]))
        apart = ~same  # words are not unique: the difference decides, exactly
        difference = [word for a, b in words for word in (a[apart], -b[apart])]
        same[apart] = swept(difference)[0] == 0
        return same

    @property
    def hi(self) -> torch.Tensor:
        """The reference rounded to float64."""
        return _tensor(self.high)

    @property
    def lo(self) -> torch.Tensor:
        """What is missing from hi, rounded to float64."""
        return _tensor(self.low)

    @property
    def radius(self) -> torch.Tensor:
        """|hi + lo - true| <= radius per element.  Units: absolute."""
        return _tensor(self.error)

    @property
    def S(self) -> torch.Tensor:
        """The condition scale: the gradient from absolute values, where the trace is polynomial."""
        return _tensor(self.scale)

    def mp(self) -> npt.NDArray[np.object_]:
        """The engine's own numbers as an object array of mpmath.mpf."""
        import mpmath

        make: Callable[[Number], Any] = mpmath.mp.make_mpf
        return np.fromiter(map(make, self.numbers.ravel()), object, self.numbers.size).reshape(
            self.numbers.shape
        )


def _tensor(values: Array) -> torch.Tensor:
    import torch

    return torch.from_numpy(np.asarray(values, order="C"))


@dataclass(frozen=True, eq=False)
class Reference(Mapping[str, GradientReference]):
    """Reference gradients by name, and how they were made.

    bits: its precision; rigorous: the radius is proven, not estimated; format: what the inputs were
    rounded to first.
    """

    gradients: Mapping[str, GradientReference]
    bits: int
    rigorous: bool
    format: Format

    @property
    def engine(self) -> str:
        """ "mpmath", "ball" or "multiword"; where they differ, with the gradients each one made."""
        made: dict[str, list[str]] = {}
        for name, gradient in self.gradients.items():
            made.setdefault(gradient.engine, []).append(name)
        if len(made) < 2:
            return next(iter(made), "none")
        return ", ".join(f"{engine} ({', '.join(names)})" for engine, names in made.items())

    @property
    def exact(self) -> bool:
        """Whether mp() has no error at all."""
        return all(gradient.exact for gradient in self.gradients.values())

    def __getitem__(self, name: str) -> GradientReference:
        try:
            return self.gradients[name]
        except KeyError:
            known = ", ".join(self.gradients)
            raise ArgumentError(f"no gradient {name!r}; this reference has {known}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.gradients)

    def __len__(self) -> int:
        return len(self.gradients)

    def __str__(self) -> str:
        kind = (
            "exact" if self.exact else "rigorous" if self.rigorous else "checked at twice the bits"
        )
        names = ", ".join(self.gradients)
        text = (
            f"reference of {names} for {self.format} by {self.engine} at {self.bits} bits ({kind})"
        )
        for name, gradient in self.gradients.items():
            if gradient.unknown:
                at = tuple(int(i) for i in np.argwhere(~gradient.known)[0])
                text += (
                    f"; {name} has no value at {len(gradient.unknown)} of "
                    f"{counted(gradient.high.size, 'element')}, "
                    f"the first at {list(at)}: {gradient.why(at)}"
                )
        return text
