"""Studies without worker processes."""

from __future__ import annotations

from concurrent.futures import Executor, Future

import slicing

from roundoff import study


class Inline(Executor):
    """Runs what is submitted at once; stops after `most` cells, as an interruption would."""

    def __init__(self, most=10**9) -> None:
        self.left = most

    def submit(self, function, /, *arguments, **options):
        future: Future = Future()
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:
            future.set_exception(error)
        return future


def grid_of(config):
    return study.cells(
        list(slicing.problems(config)),
        config.formats,
        config.orders,
        seed=config.seed,
        threads=config.threads,
    )
