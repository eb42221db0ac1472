"""Series to draw inputs from: a real electrocardiogram, or a file of the user's own."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from roundoff.errors import ArgumentError

Array = npt.NDArray[np.float64]


@lru_cache(maxsize=4)
def series(name: str) -> Array:
    """A series as a float64 array of shape (channels, time), scaled to a largest magnitude of 1.

    name: "ecg" for the electrocardiogram that PyWavelets ships (1024 samples of one channel), or a
    .npy file whose last axis is time.

    Raises: ArgumentError for a file that cannot be read or holds something else than finite numbers.
    """
    values: Array = _ecg() if name == "ecg" else _file(Path(name))
    largest = float(np.abs(values).max(initial=0.0))
    if largest == 0.0:
        raise ArgumentError(f"data {name!r} holds only zeros; give a series with a signal in it")
    return np.asarray(values / largest)


def digest(values: Array) -> str:
    """A short hash of shape and bits, for provenance and for keys."""
    text = f"{values.shape} {values.dtype.str} ".encode()
    return hashlib.sha256(text + np.ascontiguousarray(values).tobytes()).hexdigest()[:16]


def windows(values: Array, shape: tuple[int, int, int], generator: np.random.Generator) -> Array:
    """(N, C, T) windows of a series, each from a channel and a start drawn at random.

    Raises: ArgumentError for a series shorter than T.
    """
    batch, channels, length = shape
    if values.shape[1] < length:
        raise ArgumentError(
            f"the data has {values.shape[1]} time points and T is {length}; give a T of at most "
            f"{values.shape[1]}, or longer data"
        )
    count = batch * channels
    starts = generator.integers(0, values.shape[1] - length + 1, count)
    rows = generator.integers(0, len(values), count)
    at = starts[:, None] + np.arange(length)
    return np.asarray(values[rows[:, None], at]).reshape(shape)


def _ecg() -> Array:
    try:
        import pywt
    except ImportError:
        raise ArgumentError(
            "data 'ecg' comes with PyWavelets, which is not installed; run pip install 'roundoff[ecg]'"
        ) from None
    return np.asarray(pywt.data.ecg(), np.float64)[None]


def _file(path: Path) -> Array:
    if path.suffix != ".npy":
        raise ArgumentError(f"unknown data {str(path)!r}; give ecg, uniform or a .npy file")
    try:
        values = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise ArgumentError(f"the data file {str(path)!r} does not exist; check the path") from None
    except (OSError, ValueError, EOFError):
        raise ArgumentError(
            f"the data file {str(path)!r} cannot be read as an array; save it with numpy.save"
        ) from None
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "iuf" or values.ndim == 0:
        kind = getattr(values, "dtype", type(values).__name__)
        raise ArgumentError(
            f"the data file {str(path)!r} holds {kind}; save an array of real numbers, time last"
        )
    rows = (
        values.astype(np.float64).reshape(-1, values.shape[-1]) if values.size else np.zeros((0, 0))
    )
    if not rows.size:
        raise ArgumentError(f"the data file {str(path)!r} is empty; give at least T time points")
    if not np.isfinite(rows).all():
        bad = rows[~np.isfinite(rows)][0]
        raise ArgumentError(
            f"the data file {str(path)!r} holds {bad}; remove or replace what is not finite"
        )
    return rows
