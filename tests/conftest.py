"""What all tests share: references on disk in a folder of their own, and threads that leave each other the cores."""

from __future__ import annotations

import gc
import os

import pytest

# Read when PyTorch and NumPy are loaded.  OpenMP's threads otherwise wait for each other by spinning: with a worker
# per core, a kernel on two threads took seven times as long.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from roundoff.judging.reference_cache import VARIABLE


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "references"))


def pytest_collection_finish() -> None:
    """Modules live until the end; the garbage collector need not look at them again and again."""
    gc.collect()
    gc.freeze()
