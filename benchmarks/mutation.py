"""Do the tests notice?  Plants the one-line changes of mutations.toml, one at a time, and reports survivors.

    python benchmarks/mutation.py [--jobs 2] [--only REGEX]

Each change is made in a copy of the repository and judged by the tests that are named beside it, which must
pass without it.  A change is killed if they fail, or take more than ten times as long.  `equivalent` says why
a change alters no result that is promised; those are run, too, and not counted.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_name("mutations.toml")
COPIED = ("roundoff", "tests", "experiments", "benchmarks", "docs", "pyproject.toml", "README.md")

#: What the numerical rooms are to reach, in per cent.
ASKED = 85


@dataclass(frozen=True)
class Mutation:
    """`old`, which stands once in the file, becomes `new`; tests: what pytest is given."""

    file: str
    old: str
    new: str
    tests: str
    equivalent: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.old.split())}  ->  {' '.join(self.new.split())}"


def read() -> list[Mutation]:
    """The list.  Raises: ValueError for a change that no longer fits its file."""
    found = [Mutation(**each) for each in tomllib.loads(LIST.read_text())["mutation"]]
    for each in found:
        count = (ROOT / each.file).read_text().count(each.old)
        if count != 1 or each.old == each.new:
            raise ValueError(f"{each.file} has {each.old!r} {count} times; mend mutations.toml")
    return found


def run(folder: Path, tests: str, limit: float | None = None) -> tuple[bool, float]:
    """Whether the tests pass in a copy, and the seconds that they take."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", *tests.split()]
    plain = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=folder, env={**os.environ, **plain}, capture_output=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        return False, time.perf_counter() - began
    return done.returncode == 0, time.perf_counter() - began


def planted(mutation: Mutation, folder: Path, limit: float) -> bool:
    """Whether the tests pass with the change in place."""
    path = folder / mutation.file
    before = path.read_text()
    path.write_text(before.replace(mutation.old, mutation.new))
    try:
        return run(folder, mutation.tests, limit)[0]
    finally:
        path.write_text(before)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=2, help="copies that run at a time")
    parser.add_argument("--only", default="", help="regular expression for files")
    given = parser.parse_args()
    mutations = [each for each in read() if re.search(given.only, each.file)]
    with tempfile.TemporaryDirectory() as top, ThreadPoolExecutor(given.jobs) as pool:
        free: Queue[Path] = Queue()
        for number in range(given.jobs):
            folder = Path(top) / str(number)
            for name in COPIED:
                copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
                folder.mkdir(exist_ok=True)
                copy(ROOT / name, folder / name)
            free.put(folder)

        def borrowed(work, *args):
            folder = free.get()
            try:
                return work(folder, *args)
            finally:
                free.put(folder)

        names = sorted({each.tests for each in mutations})
        plain = dict(zip(names, pool.map(lambda tests: borrowed(run, tests), names), strict=True))
        for tests, (passes, _) in plain.items():
            if not passes:
                print(f"these tests fail without any change: {tests}")
                return 2

        def judge(folder: Path, each: Mutation) -> bool:
            survives = planted(each, folder, 10 * plain[each.tests][1])
            print("survives" if survives else "killed  ", each, flush=True)
            return survives

        survived = list(pool.map(lambda each: borrowed(judge, each), mutations))
    return report(mutations, survived)


def report(mutations: list[Mutation], survived: list[bool]) -> int:
    """Per room how many were killed, and every survivor.  Returns 1 where too many survive."""
    all_of = Counter(room(each) for each in mutations if not each.equivalent)
    killed = Counter(
        room(each)
        for each, alive in zip(mutations, survived, strict=True)
        if not (each.equivalent or alive)
    )
    print(f"\n{'room':<28} {'planted':>8} {'killed':>8} {'%':>6}")
    for name, count in sorted(all_of.items()):
        print(f"{name:<28} {count:8} {killed[name]:8} {100 * killed[name] / count:6.0f}")
    share = 100 * killed.total() / all_of.total()
    print(f"{'all':<28} {all_of.total():8} {killed.total():8} {share:6.0f}")
    for each, alive in zip(mutations, survived, strict=True):
        if alive:
            print(f"{'equivalent' if each.equivalent else 'untested'}: {each} {each.equivalent}")
        elif each.equivalent:
            print(f"called equivalent, yet killed: {each}")
    return int(share < ASKED)


def room(mutation: Mutation) -> str:
    """The package or file directly under roundoff."""
    return mutation.file.split("/")[1].removesuffix(".py")


if __name__ == "__main__":
    sys.exit(main())
