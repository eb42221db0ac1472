"""What a study compares: two functions, and how to draw their inputs."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.arguments import instance
from roundoff.numbers.formats import as_float64
from roundoff.trace import UPSTREAM, Trace, Traces

Array = npt.NDArray[np.float64]
Inputs = dict[str, Array]


@dataclass(frozen=True, eq=False)
class TwoMethods:
    """Two functions with the same gradients, perhaps, and how to draw their inputs.

    case, shape: labels; n: non-zero terms of one sum of the first gradient; methods: two functions
    by name; draw: inputs from a generator, an "upstream gradient" among them where there is no
    loss; permutations: by name, the same data in another order (whose gradients are the same);
    parameters: all that the above depends on, as JSON.  Functions must be importable by name.
    """

    case: str
    shape: str
    n: int
    methods: Mapping[str, Callable[..., Any]]
    draw: Callable[[np.random.Generator], Inputs]
    wrt: tuple[str, ...]
    loss: Callable[..., Any] | None
    seeds: int
    parameters: Mapping[str, Any]
    permutations: Mapping[str, Callable[[Inputs, np.random.Generator], Inputs]] = field(
        default_factory=dict
    )

    @property
    def names(self) -> tuple[str, str]:
        """The two methods."""
        first, second = self.methods
        return first, second

    @property
    def block(self) -> int:
        """How many seeds make a cell: some seconds of work."""
        terms = max(1, sum(value.size for value in self.inputs(0, 0).values()))
        return max(4, 40_000 // terms)

    @cached_property
    def digest(self) -> bytes:
        """A hash of the parameters."""
        text = json.dumps([self.case, self.shape, dict(self.parameters)], sort_keys=True)
        return hashlib.sha256(text.encode()).digest()

    @cached_property
    def source(self) -> str:
        """A hash of the files that define the functions: an edited method makes new rows."""
        functions = [*self.methods.values(), self.draw, self.loss, *self.permutations.values()]
        files = {file for function in functions if (file := _file(function))}
        digest = hashlib.sha256()
        for file in sorted(files):
            digest.update(Path(file).read_bytes())
        return digest.hexdigest()

    def inputs(self, base: int, seed: int) -> Inputs:
        """The inputs of one seed.  No other seed, problem or format changes them.

        Raises: ArgumentError where draw gives no numbers by name.
        """
        drawn = self.draw(self.generator(base, seed, 0))
        instance("what draw returns", drawn, Mapping, "a mapping from names to arrays")
        return {name: _array(values) for name, values in drawn.items()}

    def generator(self, base: int, seed: int, stream: int) -> np.random.Generator:
        """A generator of this problem's own."""
        own = int.from_bytes(self.digest[:8], "big")
        return np.random.default_rng([base, own, seed, stream])

    def traces(self, format: Any) -> dict[str, Trace]:
        """The pruned trace of each method in a format; shapes are those of the first seed."""
        return {name: traces.of(format) for name, traces in _traced(self).items()}


def _array(values: Any) -> Array:
    """Numbers in float64; integers and booleans as they are."""
    found = as_float64(values)[0]
    own = values.dtype if hasattr(values, "detach") else np.asarray(values).dtype
    name = str(own).removeprefix("torch.")
    return found.astype(name) if name.startswith(("int", "uint", "bool")) else found


def _file(function: Any) -> str | None:
    while isinstance(function, partial):
        function = function.func
    try:
        return inspect.getsourcefile(function if inspect.isroutine(function) else type(function))
    except TypeError:  # built in
        return None


_TRACES: dict[bytes, dict[str, Traces]] = {}


def _traced(problem: TwoMethods) -> dict[str, Traces]:
    if problem.digest not in _TRACES:
        example = problem.inputs(0, 0)
        upstream = example.pop(UPSTREAM, None)
        _TRACES[problem.digest] = {
            name: Traces(function, example, problem.wrt, problem.loss, upstream)
            for name, function in problem.methods.items()
        }
    return _TRACES[problem.digest]
