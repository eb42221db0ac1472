"""The command line of an experiment: flags from its configuration, errors in one sentence.

An experiment imports this before anything else: from then on an interruption ends in one sentence, too.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from roundoff.arguments import whole
from roundoff.errors import RoundoffError

C = TypeVar("C")

#: What a shell reports of a program that an interruption ended.
INTERRUPTED = 128 + signal.SIGINT

_KEPT = "interrupted; finished cells are kept, run the same command again to go on"

#: Whole numbers that experiments share, and their limits.
LIMITS = {"seed": (0, 2**63 - 1), "seeds": (1, None), "threads": (1, 1024)}


def _end(*_: Any) -> None:
    """While modules are loading there is nothing to put in order."""
    os.write(2, b"interrupted before anything was computed\n")
    os._exit(INTERRUPTED)


def guard() -> None:
    """From now on an interruption ends the program in a sentence; workers are started with it ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)


def main(configuration: type[C], run: Callable[[C], Path]) -> None:
    """Parse the flags, run the experiment, print where its report is.

    An error that roundoff raises on purpose ends the program with one sentence and status 1, an
    interruption with status 130.
    """
    import tyro

    config = tyro.cli(configuration)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        check_numbers(config)
        print(run(config))
    except RoundoffError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(_KEPT, file=sys.stderr)
        sys.exit(INTERRUPTED)


def check_numbers(config: Any) -> None:
    """Raise ArgumentError for a flag of `LIMITS` that is out of them, before any work begins."""
    for name, (least, most) in LIMITS.items():
        value = getattr(config, name, None)
        for each in value if isinstance(value, tuple) else (value,):
            if each is not None:
                whole(name, each, least, most)
