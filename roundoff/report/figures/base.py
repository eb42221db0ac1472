"""What all figures share: the style, the palette, axes with places of their own for zero and infinity."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.layout_engine import PlaceHolderLayoutEngine
from matplotlib.ticker import FixedFormatter, FixedLocator, LogLocator, MaxNLocator, NullFormatter

from roundoff.errors import ArgumentError
from roundoff.locks import SETTINGS
from roundoff.numbers.formats import FORMATS
from roundoff.words import counted

Array = npt.NDArray[np.float64]

STYLE = Path(__file__).with_name("paper.mplstyle")
WIDTH = 6.6  # inches: the text width of the report
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
GREY = "#8a8a8a"

#: Orders that are the real kernel's, on the data as they are or on the same data in another order.
REAL = ("native", "batch permuted", "time permuted")


@dataclass(frozen=True, eq=False)
class Plot:
    """A figure, what it says, and exactly the numbers that are drawn."""

    name: str
    title: str
    caption: str
    figure: Figure
    data: pd.DataFrame

    def png(self) -> bytes:
        """200 dpi, the same bytes every time."""
        return self._render(FigureCanvasAgg, "print_png", {"Software": None})

    def svg(self) -> bytes:
        """Vector, text as outlines, the same bytes every time."""
        return self._render(FigureCanvasSVG, "print_svg", {"Date": None, "Creator": None})

    def _render(self, canvas: Any, method: str, metadata: dict[str, None]) -> bytes:
        buffer = io.BytesIO()
        with style():
            self._lay_out()
            dots = self.figure.dpi
            getattr(canvas(self.figure), method)(buffer, metadata=metadata)
            self.figure.dpi = dots  # print_svg leaves its own behind
        return buffer.getvalue()

    def _lay_out(self) -> None:
        """Lay out once, before the first file: the layout of a second drawing would differ."""
        engine = self.figure.get_layout_engine()
        if engine is not None and not isinstance(engine, PlaceHolderLayoutEngine):
            FigureCanvasAgg(self.figure)
            engine.execute(self.figure)
            self.figure.set_layout_engine("none")


@contextmanager
def style() -> Iterator[None]:
    """The style sheet, for the time of drawing only."""
    with SETTINGS, mpl.rc_context(fname=STYLE):
        yield


def panels(
    rows: int, columns: int, height: float, *, layout: Any = "constrained", **options: Any
) -> tuple[Figure, Any]:
    """A figure of the report's width and a (rows, columns) array of axes."""
    figure = Figure(figsize=(WIDTH, height), layout=layout)
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, axes


def in_order(values: pd.Series, known: Sequence[str]) -> list[str]:
    """The distinct values: the known ones in their order, then the others as they come."""
    found = list(dict.fromkeys(values))
    return [k for k in known if k in found] + [v for v in found if v not in known]


def formats_of(frame: pd.DataFrame) -> list[str]:
    """The formats of a table, narrowest significand first."""
    known = sorted(FORMATS, key=lambda format: (format.precision, format.emax))
    return in_order(frame["format"], [format.name for format in known])


def methods_of(frame: pd.DataFrame) -> list[str]:
    """The methods of a table, in a stable order."""
    return in_order(frame["method"], ("slice_then_conv", "conv_then_slice"))


def readable(name: str) -> str:
    """slice_then_conv as a reader would write it."""
    return name.replace("_", " ")


def usable(values: Any) -> Array:
    """The finite values."""
    array = np.asarray(values, np.float64)
    return array[np.isfinite(array)]


def largest(values: Any) -> float:
    """The largest finite magnitude; 0 where there is none."""
    return float(np.abs(usable(values)).max(initial=0.0))


def some(frame: pd.DataFrame, figure: str, what: str) -> pd.DataFrame:
    """The frame.  Raises: ArgumentError where it has no rows."""
    if not len(frame):
        raise ArgumentError(
            f"{figure}: the table has no rows of {what}; pass a table that has some"
        )
    return frame


def not_finite(values: Any) -> str:
    """Sentences for a caption on overflows, which stand at infinity, and on NaN; nothing where all is finite.

    >>> not_finite([1.0, float("nan")]), not_finite([1.0, float("inf")])
    (' 1 of 2 values is NaN and left out.', ' 1 of 2 values is an overflow: an infinite error.')
    """
    array = np.asarray(values, np.float64)
    text = ""
    for count, one, many in (
        (
            np.isinf(array).sum(),
            "is an overflow: an infinite error",
            "are overflows: infinite errors",
        ),
        (np.isnan(array).sum(), "is NaN and left out", "are NaN and left out"),
    ):
        if count:
            text += f" {count} of {counted(array.size, 'value')} {one if count == 1 else many}."
    return text


class LogWithZero:
    """A logarithmic axis with places of their own for exact zeros, below it, and infinities, above it."""

    def __init__(self, values: Any) -> None:
        known = np.abs(usable(values))
        positive = known[known > 0]
        self.low = float(positive.min()) if positive.size else 0.1
        self.high = float(positive.max()) if positive.size else 1.0
        self.has_zero = bool((known == 0).any())
        self.has_infinity = bool(np.isinf(np.asarray(values, np.float64)).any())
        span = min(max(self.high / self.low, 2.0), 1e100)
        self.zero, self.infinity = self.low / span**0.14, self.high * span**0.14
        self.limits = (
            self.zero / span**0.05 if self.has_zero else self.low / span**0.05,
            (self.infinity if self.has_infinity else self.high) * span**0.05,
        )

    def __call__(self, values: Any) -> Array:
        """The places of values on the axis."""
        magnitudes = np.abs(np.asarray(values, np.float64))
        found = np.where(magnitudes == 0, self.zero, magnitudes)
        return np.where(np.isinf(found), self.infinity, found)

    def apply(self, axis: Axes, which: str) -> None:
        """Scale, limits, decades, and ticks "0" and "∞" beyond faint lines."""
        getattr(axis, f"set_{which}scale")("log")
        getattr(axis, f"set_{which}lim")(*self.limits)
        handle = getattr(axis, f"{which}axis")
        handle.set_minor_formatter(NullFormatter())
        ticks = self._ticks()
        places, labels = [t for t, _ in ticks], [label for _, label in ticks]
        line = axis.axvline if which == "x" else axis.axhline
        for there, place, end, label in (
            (self.has_zero, self.zero, self.low, "0"),
            (self.has_infinity, self.infinity, self.high, "∞"),
        ):
            if there:
                places, labels = [place, *places], [label, *labels]
                between = float(np.sqrt(place) * np.sqrt(end))
                line(between, color="#cccccc", lw=0.5, ls=(0, (2, 2)))
        handle.set_major_locator(FixedLocator(places))
        handle.set_major_formatter(FixedFormatter(labels))
        handle.set_minor_locator(
            LogLocator(subs=tuple(range(2, 10))) if self.high / self.low < 1e4 else FixedLocator([])
        )

    def _ticks(self) -> list[tuple[float, str]]:
        top = self.high * 1.05 if self.has_infinity else self.limits[1]
        lowest, highest = np.log10(self.low), np.log10(top)
        decades = np.arange(np.ceil(lowest), np.floor(highest) + 1)
        step = max(1, -(-len(decades) // 5))
        ticks = [(10.0**d, _power(int(d))) for d in decades[::step]]
        if len(ticks) < 2:  # within a decade or so: 1, 2, 5
            fine = [
                m * 10.0**d for d in range(int(lowest) - 2, int(highest) + 3) for m in (1, 2, 5)
            ]
            ticks = [(t, f"{t:g}") for t in fine if self.low * 0.95 <= t <= top][-4:]
        if len(ticks) < 2:  # narrower still: evenly spaced round numbers
            even = MaxNLocator(3).tick_values(self.low, top)
            ticks = [(float(t), f"{t:.6g}") for t in even if self.low * 0.95 <= t <= top]
        return ticks


def _power(exponent: int) -> str:
    return f"{10.0**exponent:g}" if -2 <= exponent <= 3 else f"$10^{{{exponent}}}$"
