"""The command line of an experiment: what is wrong with flags in one sentence, readers that leave."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from roundoff.cli import UNREAD, main

SCRIPT = Path(__file__).parents[1] / "experiments" / "bounds.py"


@dataclass(frozen=True)
class Flags:
    """What it does."""

    seed: int = 0
    """the base of all random numbers, which is told in words that do not fit into one line of a terminal"""
    N: int | None = None
    """a size"""
    share: float = 0.5
    """a share"""
    formats: tuple[str, ...] = ("float32",)
    """names"""
    upstream: Literal["squares", "random"] = "squares"
    """one of two"""
    quick: bool = False
    """less"""


BAD = [
    (["--foo", "3"], "Unrecognized options: --foo, 3"),
    (["pos"], "Unrecognized options: pos"),
    (["--quick", "3"], "Unrecognized options: 3"),
    (["--quik"], "Unrecognized options: --quik; there is --quick, --no-quick"),
    (["--no-quik", "--foo", "a"], "--no-quik, --foo, a; there is --quick, --no-quick"),
    (["--formats", "a", "--Foo" * 60], "Unrecognized options: (--Foo ?)+"),
    (["--seed", "x"], "--seed: .*'x'; there is --seed INT"),
    (["--seed", "0.5"], "--seed: .*'0.5'; there is --seed INT"),
    (["--share", "half"], "--share: .*'half'; there is --share FLOAT"),
    (["--N", "3.5"], "--N: .*3.5.*there is --N"),
    (["--upstream", "both"], "'both' for argument '--upstream'; expected one of .*'random'"),
    (["--seed"], "Missing value for argument '--seed'; expected 1 values"),
    (["--seed", "1", "--seed"], "Missing value for argument '--seed'"),
]


@pytest.mark.parametrize("boxes", ["utf-8", "ascii"])
@pytest.mark.parametrize(("flags", "words"), BAD, ids=lambda v: v if isinstance(v, str) else "")
def test_flags_that_cannot_be_parsed_are_one_sentence(
    flags, words, boxes, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(sys, "argv", ["study.py", *flags])
    monkeypatch.setattr("tyro._fmtlib._FORCE_UTF8_BOXES", boxes == "utf-8", raising=False)
    with pytest.raises(SystemExit) as stopped:
        main(Flags, lambda config: pytest.fail("it ran"))
    told = capsys.readouterr()
    assert stopped.value.code == 2 and told.out == ""
    assert told.err.count("\n") == 1 and told.err.endswith("; see study.py --help\n")
    assert re.match(f".*{words}", told.err), told.err
    assert not set("│─╭╰╮╯") & set(told.err)


def test_help_is_not_touched(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["study.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        main(Flags, lambda config: pytest.fail("it ran"))
    told = capsys.readouterr()
    assert stopped.value.code == 0 and told.err == ""
    assert all(name in told.out for name in ("--seed", "--share", "--quick", "What it does"))


def test_good_flags_run_and_name_the_report(monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys, "argv", ["study.py", "--seed", "7"])
    main(Flags, lambda config: Path(f"report-{config.seed}"))
    assert capsys.readouterr().out == "report-7\n"


@pytest.mark.parametrize("code", [None, "print_report"])
def test_a_reader_that_left_is_no_error(code) -> None:
    script = (
        "import sys; from pathlib import Path; from dataclasses import make_dataclass;"
        "from roundoff.cli import main;"
        "main(make_dataclass('Flags', []), lambda config: Path('report'))"
    )
    command = (
        [sys.executable, str(SCRIPT), "--help"] if code is None else [sys.executable, "-c", script]
    )
    reader, writer = os.pipe()
    os.close(reader)
    found = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writer)
    assert found.stderr == "" and found.returncode == UNREAD
