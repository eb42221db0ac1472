"""Rows to figures: each function takes tables of a study and returns a Plot.  The only room that draws."""

from roundoff.report.figures.base import REAL, Plot
from roundoff.report.figures.bounds import LOOKS, bounds_against_n, ratios, tightness
from roundoff.report.figures.distributions import ecdf, first_against_second, orders
from roundoff.report.figures.drawn_trees import trees
from roundoff.report.figures.equivalences import apart
from roundoff.report.figures.layers import layer_errors
from roundoff.report.figures.maps import heat_map
from roundoff.report.figures.trends import bias_against_noise, error_against_n, precision_ladder

__all__ = [
    "LOOKS",
    "REAL",
    "Plot",
    "apart",
    "bias_against_noise",
    "bounds_against_n",
    "ecdf",
    "error_against_n",
    "first_against_second",
    "heat_map",
    "layer_errors",
    "orders",
    "precision_ladder",
    "ratios",
    "tightness",
    "trees",
]
