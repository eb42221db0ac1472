"""The default and the quick study, each in processes of its own: wall time and memory of all of them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "experiments" / "slicing.py"


def children(parent: int) -> list[int]:
    """A process and its descendants."""
    found = [parent]
    for task in Path(f"/proc/{parent}/task").glob("*/children"):
        for child in task.read_text().split():
            found += children(int(child))
    return found


def memory(parent: int) -> float:
    """GiB of all processes together, shared pages counted once (Linux: proportional set size)."""
    total = 0
    for process in children(parent):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue  # it has just ended
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 2**20


def main() -> None:
    for flags, limit in ((["--quick"], "20 s"), ([], "120 s")):
        with tempfile.TemporaryDirectory() as folder:
            start, peak = time.perf_counter(), 0.0
            command = [sys.executable, str(SCRIPT), *flags, "--out", folder]
            run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while run.poll() is None:
                peak = max(peak, memory(run.pid))
                time.sleep(0.2)
            wall = time.perf_counter() - start
        name = "quick study" if flags else "default study"
        print(f"{name}: {wall:.1f} s (asked: under {limit}), {peak:.2f} GiB (asked: under 2 GiB)")


if __name__ == "__main__":
    main()
