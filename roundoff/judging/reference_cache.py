"""References and bounds kept on disk, found by a hash of trace and inputs: a test suite pays once."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff import __version__
from roundoff.errors import ArgumentError
from roundoff.files import make_folder, write_whole
from roundoff.gradients.inputs import round_inputs
from roundoff.judging.evidence import evidence_of_trace
from roundoff.judging.ordinary import Ordinary
from roundoff.numbers.formats import Format
from roundoff.trace.steps import Trace

Array = npt.NDArray[np.float64]

#: Where they are kept: this environment variable, or the user's cache folder.
VARIABLE = "ROUNDOFF_CACHE"

SUFFIX = "known"
_SEAL = hashlib.sha256().digest_size


@dataclass(frozen=True, eq=False)
class Known:
    """What is kept of one output.

    high + low: the exact values, NaN where there are none; error: of those; terms: sums of |terms|;
    certain, likely: bounds; rms, parts, asides, branched: of `Ordinary`, empty where nobody asked
    for a prediction.
    """

    high: Array
    low: Array
    error: Array
    terms: Array
    certain: Array
    likely: Array
    rms: Array
    parts: Array
    asides: Array
    branched: Array

    def ordinary(self, format: Format) -> Ordinary:
        """What errors are ordinary, where a prediction was asked for."""
        known = ~np.isnan(self.high)
        samples = self.rms, self.parts, self.asides, self.branched
        return Ordinary(format, self.high, self.terms, known, *samples)

    def distance(self, actual: Array) -> Array:
        """|actual - exact|; a NaN is infinitely far from a number, and a number from where there is none."""
        found = np.abs((actual - self.high) - self.low)
        found = np.where(np.isnan(self.high), np.where(np.isnan(actual), 0.0, np.inf), found)
        return np.where(np.isnan(found), np.inf, found)


def folder() -> Path:
    """Where references are kept."""
    given = os.environ.get(VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "roundoff"


def remembered(
    trace: Trace,
    inputs: Mapping[str, Array],
    target: Format,
    failure: float,
    accumulate: Any,
    *,
    predicted: bool = False,
    bounded: bool = False,
) -> dict[str, Known]:
    """The reference and the bounds of every output of a pruned trace, from disk if they are there.

    predicted: with what is predicted, too; bounded: with bounds on functions, too, where they take long and
    rarely decide; else they are infinite there.
    A file that cannot be read or written, or is not what was written, is as good as none: made anew.
    """
    rounded = round_inputs(trace, inputs, target)
    key = _key(trace, rounded, target, failure, accumulate, (predicted, bounded))
    path = None
    try:
        path = folder() / f"{key}.{SUFFIX}"
        kept = _unpacked(key, path.read_bytes(), trace.outputs)
    except (OSError, RuntimeError):  # no file, or no home to keep files in
        kept = None
    if kept is not None:
        return kept
    found = _compute(trace, rounded, target, failure, accumulate, predicted, bounded)
    if path is not None:
        # A disk that is full or read-only is no reason to fail.
        with contextlib.suppress(OSError, ArgumentError):
            make_folder(path.parent)
            write_whole(path, _packed(key, found))
    return found


def _packed(key: str, found: Mapping[str, Known]) -> bytes:
    """An archive of arrays behind its seal: the hash of the key and of all its bytes."""
    buffer = io.BytesIO()
    np.savez(
        buffer, **{f"{f} {n}": v for n, each in found.items() for f, v in asdict(each).items()}
    )
    return _seal(key, buffer.getvalue()) + buffer.getvalue()


def _unpacked(key: str, content: bytes, names: Iterable[str]) -> dict[str, Known] | None:
    """What `_packed` packed for this key; None for any other bytes, none of which is read as a number."""
    seal, archive = content[:_SEAL], content[_SEAL:]
    if seal != _seal(key, archive):
        return None
    with np.load(io.BytesIO(archive)) as stored:
        return {
            name: Known(**{field.name: stored[f"{field.name} {name}"] for field in fields(Known)})
            for name in names
        }


def _seal(key: str, archive: bytes) -> bytes:
    return hashlib.sha256(key.encode() + archive).digest()


def _compute(
    trace: Trace, rounded: Mapping[str, Array], target: Format, failure: float, accumulate: Any,
    predicted: bool, bounded: bool,
) -> dict[str, Known]:  # fmt: skip
    found = evidence_of_trace(trace, rounded, target, accumulate=accumulate)
    known = {}
    for name, each in found.reference.gradients.items():
        bound, samples = found.bounds[name], (np.zeros(0),) * 4
        certain, likely = np.full((2, *each.high.shape), np.inf)
        if bounded or found.bounded:
            certain, likely = bound.certain, bound.likely(failure)
        if predicted:
            of = found.ordinary()[name]
            samples = of.rms, of.parts, of.asides, of.branched
        known[name] = Known(each.high, each.low, each.error, each.terms, certain, likely, *samples)
    return known


@cache
def _source() -> str:
    """A hash of this package: what another version computed is not taken."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _key(
    trace: Trace, rounded: Mapping[str, Array], target: Format, failure: float, accumulate: Any,
    asked: tuple[bool, ...],
) -> str:  # fmt: skip
    from roundoff.kernels.this_machine import of_this_machine

    digest = hashlib.sha256()
    kernels = of_this_machine(trace, target, accumulate=accumulate)
    settings = (
        __version__,
        _source(),
        str(target),
        failure,
        str(accumulate),
        asked,
        None if kernels is None else kernels.key(),
        sorted(trace.outputs.items()),
    )
    digest.update(repr(settings).encode())
    for step in trace.steps:
        names = [field.name for field in fields(step) if field.name != "source"]  # a line, say
        told = {name: getattr(step, name) for name in names}
        digest.update(pickle.dumps((type(step).__name__, told), protocol=5))
    for guard in trace.guards:
        digest.update(repr((guard.step, guard.taken.shape)).encode() + guard.taken.tobytes())
    for name, values in sorted(rounded.items()):
        digest.update(
            name.encode() + repr(values.shape).encode() + np.ascontiguousarray(values).tobytes()
        )
    return digest.hexdigest()
