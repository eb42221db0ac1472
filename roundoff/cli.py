"""The command line of an experiment: flags from its configuration, errors in one sentence.

An experiment imports this before anything else: from then on an interruption ends in one sentence, too.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from roundoff.arguments import MOST_THREADS, whole
from roundoff.errors import RoundoffError

C = TypeVar("C")

#: What a shell reports of a program that an interruption ended.
INTERRUPTED = 128 + signal.SIGINT

#: What a shell reports of a program whose reader left, and of flags that cannot be parsed.
UNREAD, UNPARSED = 128 + 13, 2

_KEPT = "interrupted; finished cells are kept, run the same command again to go on"

#: Whole numbers that experiments share, and their limits.
LIMITS = {"seed": (0, 2**63 - 1), "seeds": (1, None), "threads": (1, MOST_THREADS)}


def _end(*_: Any) -> None:
    """End at once: while modules are loading there is nothing to clean up."""
    os.write(2, b"interrupted before anything was computed\n")
    os._exit(INTERRUPTED)


def guard() -> None:
    """From now on an interruption ends the program in a sentence; workers are started with it ignored."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _end)


def main(configuration: type[C], run: Callable[[C], Path]) -> None:
    """Parse the flags, run the experiment, print where its report is.

    An error that roundoff raises on purpose ends the program with one sentence and status 1, flags that
    cannot be parsed with one sentence and status 2, an interruption with status 130.
    """
    with _reader_may_leave():
        config = _parsed(configuration)
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        check_numbers(config)
        report = run(config)
    except RoundoffError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        print(_KEPT, file=sys.stderr)
        sys.exit(INTERRUPTED)
    with _reader_may_leave():
        print(report)


def _parsed(configuration: type[C]) -> C:
    """The flags.  What is wrong with them is told in one sentence, not in the box that tyro draws."""
    import tyro

    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(configuration)
    except SystemExit as stopped:
        if stopped.code == UNPARSED:
            print(f"{_sentence(box.getvalue())}; see {sys.argv[0]} --help", file=sys.stderr)
        raise


def _sentence(box: str) -> str:
    """The first paragraph of a box below its title, and the flag that its second part is about."""
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line).strip("│╰╯ ") for line in box.splitlines()[1:]]
    while lines and not lines[0].strip("─-"):
        del lines[0]
    rules = [place for place, line in enumerate(lines) if not line.strip("─-")]  # or empty
    end = rules[0] if rules else len(lines)
    flags = [line for line in lines[end:] if re.match("--[a-zA-Z]", line)]
    sentences = re.split(r"\. (?=[A-Z])", " ".join(lines[:end]).rstrip("."))
    what = "; ".join([sentences[0], *(s[0].lower() + s[1:] for s in sentences[1:])])
    return f"{what}; there is {flags[0]}" if flags else what


@contextlib.contextmanager
def _reader_may_leave() -> Iterator[None]:
    """Where what is printed is read no further (| head), the program ends without a word."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # flushed again at the end
        sys.exit(UNREAD)


def check_numbers(config: Any) -> None:
    """Raise ArgumentError for a flag of `LIMITS` that is out of them, before any work begins."""
    for name, (least, most) in LIMITS.items():
        value = getattr(config, name, None)
        for each in value if isinstance(value, tuple) else (value,):
            if each is not None:
                whole(name, each, least, most)
