"""A grid of cells to tidy rows: two functions, their formats, orders and seeds.

A cell is a problem in one format over some seeds.  Its rows are written whole, under a key made of all
that they depend on; an interrupted study goes on where it stopped.
"""

from roundoff.study.equivalences import FLAGS, Equivalence, equivalences
from roundoff.study.grid import Cell, cells, run, run_cell
from roundoff.study.kernels import Operation, kernels
from roundoff.study.layers import Layer, Measured, measured
from roundoff.study.problem import Inputs, Problem
from roundoff.study.rows import TABLES, Tables, accumulators, passes
from roundoff.study.sweep import attained, sweep

__all__ = [
    "FLAGS",
    "TABLES",
    "Cell",
    "Equivalence",
    "Inputs",
    "Layer",
    "Measured",
    "Operation",
    "Problem",
    "Tables",
    "accumulators",
    "attained",
    "cells",
    "equivalences",
    "kernels",
    "measured",
    "passes",
    "run",
    "run_cell",
    "sweep",
]
