"""The command line of an experiment: flags from its configuration, errors in one sentence."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from roundoff.errors import RoundoffError

C = TypeVar("C")


def main(configuration: type[C], run: Callable[[C], Path]) -> None:
    """Parse the flags, run the experiment, print where its report is.

    An error that roundoff raises on purpose, or an interruption, ends the program with one sentence.
    """
    import tyro

    config = tyro.cli(configuration)
    try:
        print(run(config))
    except RoundoffError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; finished cells are kept, run the same command again to go on")
