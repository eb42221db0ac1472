"""References kept on disk: a file that is not what was written is as good as none, and is replaced."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from roundoff.gradients.inputs import float64_array
from roundoff.judging import reference_cache as disk
from roundoff.numbers.formats import FLOAT32
from roundoff.trace.capture import trace_gradients
from roundoff.trace.prune import prune

INPUTS = {"w": torch.tensor([1.5, -2.25]), "x": torch.tensor([0.5, 3.0])}
ARRAYS = {name: float64_array(value) for name, value in INPUTS.items()}


@pytest.fixture(scope="module")
def trace():
    return prune(trace_gradients(lambda w, x: (w * x).sum() ** 2, INPUTS, ("w",)))


@pytest.fixture
def computed(monkeypatch):
    """How often references were made."""
    made: list[int] = []
    real = disk._compute

    def counted(*arguments):
        made.append(1)
        return real(*arguments)

    monkeypatch.setattr(disk, "_compute", counted)
    return made


def ask(trace) -> dict[str, disk.Known]:
    return disk.remembered(trace, ARRAYS, FLOAT32, 1e-9, None)


def equal(one: dict[str, disk.Known], two: dict[str, disk.Known]) -> bool:
    return one.keys() == two.keys() and all(
        np.array_equal(getattr(one[name], field), getattr(two[name], field))
        for name in one
        for field in disk.Known.__dataclass_fields__
    )


def the_file() -> Path:
    (path,) = disk.folder().iterdir()
    return path


def test_what_is_kept_is_taken_and_is_what_was_made(trace, computed) -> None:
    first, second = ask(trace), ask(trace)
    assert len(computed) == 1 and equal(first, second)
    assert first["w"].high.tolist() == [2 * 0.5 * -6.0, 2 * 3.0 * -6.0]


def test_no_flipped_byte_and_no_truncation_is_read(trace) -> None:
    """Every byte of a file in turn, by one bit and by all, and every length: none of it is a reference."""
    ask(trace)
    path = the_file()
    key, whole = path.stem, path.read_bytes()
    assert disk._unpacked(key, whole, trace.outputs) is not None
    for at in range(len(whole)):
        for flip in (1, 255):
            damaged = bytearray(whole)
            damaged[at] ^= flip
            assert disk._unpacked(key, bytes(damaged), trace.outputs) is None
        assert disk._unpacked(key, whole[:at], trace.outputs) is None
    assert disk._unpacked(key, whole + b"\0", trace.outputs) is None
    assert disk._unpacked("0" * 64, whole, trace.outputs) is None  # another trace's file


def other_files(whole: bytes) -> dict[str, bytes]:
    def saved(save, *arrays, **named) -> bytes:
        buffer = io.BytesIO()
        save(buffer, *arrays, **named)
        return buffer.getvalue()

    fields = {f"{field} w": np.zeros(2) for field in disk.Known.__dataclass_fields__}
    return {
        "empty": b"",
        "text": b"broken",
        "half": whole[: len(whole) // 2],
        "a flipped byte": whole[:-300] + bytes([whole[-300] ^ 4]) + whole[-299:],
        "an array": saved(np.save, np.zeros(2)),
        "objects": saved(np.save, np.array([{}], object)),
        "an archive of others": saved(np.savez, a=np.zeros(2)),
        "an archive of the right names": saved(np.savez, **fields),
        "other shapes": saved(np.savez, **{name: np.zeros(3) for name in fields}),
        "other types": saved(np.savez, **{name: np.zeros(2, "<f4") for name in fields}),
    }


def test_other_files_are_made_anew_and_replaced(trace, computed) -> None:
    right = ask(trace)
    path = the_file()
    whole = path.read_bytes()
    for number, (name, content) in enumerate(other_files(whole).items(), 2):
        path.write_bytes(content)
        assert equal(ask(trace), right), name
        assert len(computed) == number, name
        assert disk._unpacked(path.stem, path.read_bytes(), trace.outputs) is not None, name
    assert equal(ask(trace), right) and len(computed) == number


def test_a_folder_of_the_files_name_is_no_reason_to_fail(trace, computed) -> None:
    right = ask(trace)
    path = the_file()
    path.unlink()
    path.mkdir()
    assert equal(ask(trace), right) and len(computed) == 2


@pytest.mark.parametrize(
    "place", ["a file", "below a file", "no folder", "no home", "not readable"]
)
def test_no_folder_to_keep_them_in(place, trace, computed, tmp_path, monkeypatch) -> None:
    taken = tmp_path / "taken"
    taken.write_text("")
    where = {"a file": taken, "below a file": taken / "deeper", "no folder": tmp_path / "a" / "b"}
    if place == "no home":
        monkeypatch.delenv(disk.VARIABLE)
        monkeypatch.setattr(Path, "home", no_home)
    elif place == "not readable":
        folder = tmp_path / "closed"
        folder.mkdir(mode=0)
        monkeypatch.setenv(disk.VARIABLE, str(folder))
    else:
        monkeypatch.setenv(disk.VARIABLE, str(where[place]))
    assert equal(ask(trace), ask(trace))
    assert len(computed) == (
        1 if place == "no folder" or (os.geteuid() == 0 and place == "not readable") else 2
    )


def no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_writers_at_the_same_time_leave_one_whole_file(trace) -> None:
    found: list[dict[str, disk.Known]] = []
    values = ARRAYS  # traced once: the threads only read and write
    threads = [
        threading.Thread(
            target=lambda: found.append(disk.remembered(trace, values, FLOAT32, 1e-9, None))
        )
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and all(equal(found[0], each) for each in found)
    path = the_file()  # and no temporary one beside it
    assert disk._unpacked(path.stem, path.read_bytes(), trace.outputs) is not None
