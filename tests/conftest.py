"""References that tests keep on disk go to a folder of their own."""

from __future__ import annotations

import pytest

from roundoff.judging.reference_cache import VARIABLE


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path / "references"))
