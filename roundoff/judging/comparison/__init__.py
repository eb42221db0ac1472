"""Two PyTorch computations, their gradients side by side, and a verdict on each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from roundoff.arguments import described, instance, whole
from roundoff.errors import ArgumentError
from roundoff.judging.comparison.comparing import Comparing
from roundoff.judging.comparison.pairs import Pair
from roundoff.judging.comparison.result import Comparison
from roundoff.judging.comparison.sides import two_sides
from roundoff.judging.power import Power
from roundoff.trace.checks import check_device, check_inputs

__all__ = ["Comparison", "Pair", "Power", "compare"]

#: Points and seeds beyond this would take days.
MOST = 1_000_000

FORMATS = ("float16", "bfloat16", "float32", "float64")


@np.errstate(all="ignore")  # infinities are judged
def compare(
    first: Any,
    second: Any,
    inputs: Mapping[str, Any],
    wrt: Sequence[str] | None = None,
    loss: Callable[..., Any] | None = None,
    upstream: Any = None,
    *,
    formats: Any = FORMATS,
    output: Any = None,
    rename: Mapping[str, str] | None = None,
    accumulate: Any = None,
    device: Any = "cpu",
    points: int = 1,
    seeds: int = 0,
    seed: int = 0,
    like: Callable[..., Any] | None = None,
) -> Comparison:
    """Whether two computations are the same function, and whether their difference is rounding.

    first, second: functions of the inputs by name, modules (matched by parameter name; rename maps the
    first's names to the second's; both run with the first's parameters), or an opaque side: a
    function that cannot be traced, or gradients by name ("output" among them) as tensors.  like: a function
    that can be traced, by which two opaque sides are judged; without it they are told apart, no more.  loss,
    upstream, wrt as in `reference_gradients`, wrt=() for outputs alone; with neither loss nor upstream, an
    output that is no scalar gets a random upstream gradient.  output: which of several outputs, an index or
    a key.

    formats: one or several.  accumulate: the format of sums, where known; points: random points of the
    inputs' signs and zeros at which the references are compared besides, and unless it is 0 points elsewhere
    are looked at, too, with other signs, zeros, magnitudes, integers and masks: what parts there alone is
    no verdict, but `elsewhere` in the result; seeds: further random inputs, for who is closer in general;
    seed: of all these.

    Raises: ArgumentError for arguments that do not fit; UnsupportedError where `like` cannot be traced.
    """
    for name, count in (("points", points), ("seeds", seeds)):
        whole(name, count, 0, MOST)
    whole("seed", seed, 0)
    check_device(device)
    check_inputs(inputs, wrt, loss)
    if like is not None and not callable(like):
        raise ArgumentError(f"like is {described(like)}; give a function that can be traced")
    if rename is not None:
        instance("rename", rename, Mapping, "a mapping from names to names")
    started = time.perf_counter()
    sides, values = two_sides(first, second, dict(inputs), rename)
    problem = Comparing(sides, values, wrt, loss, upstream, output, device, seed, formats, like)
    traced = time.perf_counter()
    elsewhere, notes = problem.elsewhere(points)
    checked = time.perf_counter()
    pairs = {}
    for target in problem.formats:
        for pair in problem.pairs(target, elsewhere[target], accumulate, seeds):
            pairs[pair.gradient, str(target)] = pair
    done = time.perf_counter()
    search = problem.search(list(pairs.values())) if points else None
    spent = {
        "tracing": traced - started,
        "random points": checked - traced,
        "formats": done - checked,
        "elsewhere": time.perf_counter() - done,
    }
    partings = {} if search is None else {each.gradient: each for each in search.found}
    if partings:
        notes = []
    if search is not None:
        notes = [*notes, *search.notes]
    return Comparison(
        (sides[0].name, sides[1].name), pairs, (*problem.notes, *notes), partings,
        {**spent, **problem.spent},
    )  # fmt: skip
