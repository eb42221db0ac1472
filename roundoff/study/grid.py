"""Cells, and running them: any executor, a progress bar, resume after an interruption."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from roundoff.errors import ArgumentError, RoundoffError
from roundoff.files import make_folder, parquet, read_parquet, unwritable
from roundoff.gradients.native import native_dtype, threads
from roundoff.numbers.formats import Format, as_format
from roundoff.orders import as_order
from roundoff.study.rows import TABLES, CellRows, Tables
from roundoff.study.two_methods import TwoMethods
from roundoff.words import counted


@dataclass(frozen=True, eq=False)
class Cell:
    """One problem in one format over a range of seeds."""

    problem: TwoMethods
    format: Format
    first: int
    last: int
    orders: tuple[str, ...]
    base: int
    threads: int

    @cached_property
    def key(self) -> str:
        """A hash of all that the rows depend on: parameters, versions, and the code itself."""
        parts = [
            self.problem.digest.hex(), str(self.format), self.first, self.last, self.orders,
            self.base, self.threads, code_fingerprint(), self.problem.source,
        ]  # fmt: skip
        text = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
        case = self.problem.case.replace(" ", "-")
        return f"{case}_{self.format}_{self.first}_{text}"

    def run(self) -> Tables:
        """The rows of this cell, by table."""
        with threads(self.threads):
            seeds = range(self.first, self.last)
            measured = CellRows(self.problem, self.format, seeds, self.orders, self.base)
            return measured.tables()


#: Rooms that come after the rows: what they say of them does not change them.
AFTERWARDS = ("report", "kernels/provenance.py", "cli.py")


def code_fingerprint() -> str:
    """A hash of the source that rows are made by, and of torch's and numpy's versions."""
    import torch

    digest = hashlib.sha256(f"{torch.__version__} {np.__version__}".encode())
    package = Path(__file__).parents[1]
    for path in sorted(package.rglob("*.py")):
        if not path.relative_to(package).as_posix().startswith(AFTERWARDS):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def cells(
    problems: Sequence[TwoMethods],
    formats: Sequence[Any],
    orders: Sequence[str],
    *,
    seed: int = 0,
    threads: int = 1,
    block: int = 250,
) -> list[Cell]:
    """The grid: every problem in every format, its seeds in blocks of at most `block`.

    Formats and orders that are given twice count once.

    Raises: ArgumentError where there is nothing to run; UnsupportedError for a format that torch does not
    compute gradients in.
    """
    if not problems or not formats:
        raise ArgumentError("nothing to study: give at least one problem and one format")
    formats = tuple(dict.fromkeys(map(as_format, formats)))
    for format in formats:
        native_dtype(format)  # before any process is started
    orders = tuple(dict.fromkeys(str(as_order(order)) for order in orders))
    found = []
    for problem in problems:
        if problem.seeds < 1:
            raise ArgumentError(
                f"{problem.case}: {counted(problem.seeds, 'seed')}; give at least one"
            )
        size = max(1, min(block, problem.block))
        for format in formats:
            for first in range(0, problem.seeds, size):
                last = min(first + size, problem.seeds)
                found.append(Cell(problem, format, first, last, orders, seed, threads))
    return found


def run(
    grid: Sequence[Cell],
    folder: Path | str,
    *,
    executor: Executor | None = None,
    progress: bool = True,
) -> Tables:
    """Run the cells that are not done yet and return all rows, in the order of the grid.

    Rows are kept under folder/cells/KEY, one Parquet file a table.  executor: any; by default
    spawned processes, one per core.  Threads of one process take turns, as torch has one number of threads.

    Raises: ArgumentError where the folder cannot be written; RoundoffError from a cell, and where a
    worker died.
    """
    from tqdm import tqdm

    store = make_folder(Path(folder) / "cells")
    todo = [cell for cell in grid if not _done(store / cell.key)]
    with tqdm(
        total=len(grid), initial=len(grid) - len(todo), unit="cell", disable=not progress
    ) as bar:
        if len(todo) > 1:
            _submit(todo, store, executor, bar.update)
        else:
            for cell in todo:
                run_cell(cell, store)
                bar.update()
    return {table: _gathered(store, grid, table) for table in TABLES}


def _gathered(store: Path, grid: Sequence[Cell], table: str) -> pd.DataFrame:
    """The rows of one table, in the order of the grid, whoever computed them when."""
    frames = [_read(store / cell.key, table) for cell in grid]
    return pd.concat([frame for frame in frames if len(frame)], ignore_index=True)


def _submit(
    todo: Sequence[Cell], store: Path, executor: Executor | None, done: Callable[[], Any]
) -> None:
    with _workers(executor, len(todo)) as pool:
        others = set(multiprocessing.active_children())
        with _uninterrupted():  # workers start here, and do as their parent does
            futures = [pool.submit(run_cell, cell, store) for cell in todo]
        try:
            for future in as_completed(futures):
                future.result()
                done()
        except BrokenProcessPool:
            raise RoundoffError(
                "a worker process died (killed, or out of memory); the finished cells are kept, run "
                "the same command again to go on"
            ) from None
        except KeyboardInterrupt:
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            if executor is None:
                pool.shutdown()  # before futures are cancelled, whose pool would complain
            raise
        finally:
            for future in futures:
                future.cancel()


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore an interruption, also in the processes that are started meanwhile: one sentence is enough."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread has a say in this
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _workers(executor: Executor | None, most: int) -> Iterator[Executor]:
    if executor is not None:
        yield executor
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    count = min(cores or 1, most)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_end_with_parent) as pool:
        yield pool


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work forever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def run_cell(cell: Cell, store: Path) -> None:
    """Run one cell and write its rows whole: a folder is renamed into place when all is in it."""
    tables = cell.run()
    final = store / cell.key
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{cell.key}.", dir=store))
        temporary.chmod(0o755)
    except OSError as error:
        raise unwritable(store, error) from None
    try:
        for name, frame in tables.items():
            (temporary / f"{name}.parquet").write_bytes(parquet(frame))
        if not _done(final):  # another run on this folder may have been first, with the same rows
            shutil.rmtree(final, ignore_errors=True)
            temporary.rename(final)
    except OSError as error:
        raise unwritable(store, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _done(folder: Path) -> bool:
    try:
        for table in TABLES:
            _read(folder, table)
    except (OSError, ValueError):
        return False
    return True


def _read(folder: Path, table: str) -> pd.DataFrame:
    return read_parquet(folder / f"{table}.parquet")
