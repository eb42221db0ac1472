"""A grid of cells to tidy rows: two functions, their formats, orders and seeds.

A cell is a problem in one format over some seeds.  Its rows are written whole, under a key made of all
that they depend on; an interrupted study goes on where it stopped.
"""

from roundoff.study.grid import Cell, cells, run, run_cell
from roundoff.study.rows import TABLES, Tables, accumulators, passes
from roundoff.study.two_methods import Inputs, TwoMethods

__all__ = [
    "TABLES",
    "Cell",
    "Inputs",
    "Tables",
    "TwoMethods",
    "accumulators",
    "cells",
    "passes",
    "run",
    "run_cell",
]
