"""The tests of what was changed since the last commit or, if nothing was, by it: `make check` runs them."""

from __future__ import annotations

import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[1]


def changed() -> list[str]:
    """The paths of changed and new files."""

    def git(*arguments: str) -> list[str]:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()

    now = git("diff", "--name-only", "HEAD") + git("ls-files", "--others", "--exclude-standard")
    return now or git("diff", "--name-only", "HEAD~1", "HEAD")


#: Tests of other rooms that run over a table: where the table is, and they.
OVER_TABLES = {
    "roundoff/numbers/formats.py": ("tests/orders/test_orders.py",),
    "roundoff/orders/families.py": ("tests/arithmetic/test_simulated.py",),
    "roundoff/trace/functions": (
        "tests/arithmetic/test_maps.py",
        "tests/arithmetic/test_elementwise.py",
    ),
    "experiments/zoo.py": ("tests/trace/test_coverage.py", "tests/arithmetic/test_adjoints.py"),
}


def tests_of(path: str) -> list[str]:
    """A test file's own path, or the folder of a room's tests and the tests over the path's tables."""
    top, *parts = Path(path).parts
    if top == "tests" and parts[-1].startswith("test_"):
        return [path]
    found = [
        test for table, tests in OVER_TABLES.items() if path.startswith(table) for test in tests
    ]
    if top == "experiments":
        return ["tests/study", *found]
    return [f"tests/{parts[0]}", *found] if top == "roundoff" and len(parts) > 1 else found


if __name__ == "__main__":
    found = {test for path in changed() for test in tests_of(path)}
    there = sorted(path for path in found if (ROOT / path).exists())
    folders = [path for path in there if not path.endswith(".py")]
    files = [
        path for path in there if path not in folders and str(Path(path).parent) not in folders
    ]
    print(*dict.fromkeys(["tests/test_house.py", *folders, *files]))
