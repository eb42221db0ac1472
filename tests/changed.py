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


def tests_of(path: str) -> str:
    """A test file's own path, or the folder of a room's tests."""
    top, *parts = Path(path).parts
    if top == "tests" and parts[-1].startswith("test_"):
        return path
    if top == "experiments":
        return "tests/study"
    return f"tests/{parts[0]}" if top == "roundoff" and len(parts) > 1 else ""


if __name__ == "__main__":
    found = {tests_of(path) for path in changed()}
    there = sorted(path for path in found if path and (ROOT / path).exists())
    folders = [path for path in there if not path.endswith(".py")]
    files = [
        path for path in there if path not in folders and str(Path(path).parent) not in folders
    ]
    print(*dict.fromkeys(["tests/test_house.py", *folders, *files]))
