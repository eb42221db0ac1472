"""The whole quick study in a process of its own, and its peak memory."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "experiments" / "slicing.py"


def main() -> None:
    for flags, limit in ((["--quick"], "20 s"), ([], "120 s")):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            command = [sys.executable, str(SCRIPT), *flags, "--out", folder]
            subprocess.run(command, check=True, capture_output=True)
            wall = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        name = "quick study" if flags else "default study"
        asked = f"(asked: under {limit})"
        print(f"{name}: {wall:.1f} s {asked}; largest process so far {peak:.2f} GiB (2 GiB in all)")


if __name__ == "__main__":
    main()
