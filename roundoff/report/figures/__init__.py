"""Rows to figures: each function takes tables of a study and returns a Plot.  The only room that draws."""

from roundoff.report.figures.base import REAL, Plot
from roundoff.report.figures.bounds import ratios
from roundoff.report.figures.distributions import ecdf, first_against_second, orders
from roundoff.report.figures.drawn_trees import trees
from roundoff.report.figures.maps import heat_map
from roundoff.report.figures.trends import bias_against_noise, error_against_n, precision_ladder

__all__ = [
    "REAL",
    "Plot",
    "bias_against_noise",
    "ecdf",
    "error_against_n",
    "first_against_second",
    "heat_map",
    "orders",
    "precision_ladder",
    "ratios",
    "trees",
]
