"""Figures from synthetic tables: zeros keep their place, nothing is dropped unsaid, data match."""

from __future__ import annotations

import struct

import numpy as np
import pandas as pd
import pytest

from roundoff import figures
from roundoff.errors import ArgumentError
from roundoff.figures.base import LogWithZero, not_finite
from roundoff.formats import as_format

METHODS = ("slice_then_conv", "conv_then_slice")
ORDERS = ("native", "time permuted", "sequential", "kahan", "an order of tomorrow")


def errors_of(formats=("float16", "float32"), lengths=(5,), seeds=4):
    rng, rows = np.random.default_rng(0), []
    for name in formats:
        for n in lengths:
            for method in METHODS:
                for order in ORDERS:
                    for seed in range(seeds):
                        size = np.exp(rng.standard_normal()) * n**0.5
                        rows.append({
                            "n": n, "format": name, "gradient": "weight", "method": method, "order": order,
                            "accumulate": "" if order in figures.REAL else name, "seed": seed,
                            "max_scaled": 2 * size, "rms_scaled": size, "mean_scaled": 0.1 * size,
                            "normwise": size * as_format(name).u,
                        })  # fmt: skip
    return pd.DataFrame(rows)


def pairs_of(seeds=4, name="float32"):
    first = np.random.default_rng(1).uniform(1, 2, seeds) * as_format(name).u
    return pd.DataFrame({
        "format": name, "gradient": "weight", "seed": np.arange(seeds),
        "normwise_first": first, "normwise_second": first[::-1],
    })  # fmt: skip


def elements_of(rows=3, columns=3):
    i, j = np.divmod(np.arange(rows * columns), columns)
    values = np.random.default_rng(2).standard_normal(i.size)
    parts = [
        pd.DataFrame({
            "gradient": "weight", "format": "float32", "seed": 0, "method": method, "i": i, "j": j,
            "exact": values, "scale": np.abs(values) + 1, "error_scaled": values / 4,
        })
        for method in METHODS
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def bounds_of(lengths=(5,)):
    kinds = ("certified", "probabilistic", "expected")
    rows = [("float32", n, kind, n + 9.0 + k) for n in lengths for k, kind in enumerate(kinds)]
    return pd.DataFrame(rows, columns=["format", "n", "bound", "value"])


def drawn(errors, pairs, elements):
    return {
        "ecdf": lambda: figures.ecdf(errors),
        "orders": lambda: figures.orders(errors),
        "error_against_n": lambda: figures.error_against_n(errors, bounds_of()),
        "precision_ladder": lambda: figures.precision_ladder(errors),
        "bias_against_noise": lambda: figures.bias_against_noise(errors),
        "first_against_second": lambda: figures.first_against_second(pairs),
        "heat_map": lambda: figures.heat_map(elements),
    }


NAMES = tuple(drawn(None, None, None))


def width_of(png: bytes) -> int:
    return struct.unpack(">I", png[16:20])[0]


def test_png_has_200_dots_per_inch() -> None:
    plot = figures.precision_ladder(errors_of())
    assert width_of(plot.png()) == round(200 * plot.figure.get_figwidth())


def test_drawing_twice_gives_the_same_bytes() -> None:
    plot, again = (figures.orders(errors_of()) for _ in range(2))
    png, svg = plot.png(), plot.svg()
    assert (png, svg) == (again.png(), again.svg()) == (plot.png(), plot.svg())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_a_table_of_one_odd_value(name, value) -> None:
    errors, pairs, elements = errors_of(seeds=2), pairs_of(), elements_of()
    odd = dict.fromkeys(("max_scaled", "rms_scaled", "mean_scaled", "normwise"), value)
    sides = {"normwise_first": value, "normwise_second": value}
    cells = {"exact": value, "scale": value, "error_scaled": value}
    plot = drawn(errors.assign(**odd), pairs.assign(**sides), elements.assign(**cells))[name]()
    assert plot.png().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_table_is_refused_in_one_sentence(name) -> None:
    make = drawn(errors_of()[:0], pairs_of()[:0], elements_of()[:0])[name]
    with pytest.raises(ArgumentError, match=f"{name}: the table has no rows of .*; pass a table"):
        make()


def test_orders_nobody_foresaw_are_drawn() -> None:
    for make in (figures.orders, figures.bias_against_noise):
        assert "an order of tomorrow" in set(make(errors_of()).data["order"])


def heights(plot, panel):
    return np.concatenate([line.get_ydata() for line in plot.figure.axes[panel].lines])


def test_zeros_have_their_own_place_and_nothing_is_left_out_unsaid() -> None:
    zero = errors_of(("float32",)).assign(max_scaled=0.0, normwise=0.0)
    for plot in (figures.error_against_n(zero, bounds_of()), figures.precision_ladder(zero)):
        axis = plot.figure.axes[0]
        assert "0" in [label.get_text() for label in axis.get_yticklabels()]
        assert np.isfinite(heights(plot, 0)).all() and (heights(plot, 0) >= 0).all()
    for value, words in (
        (np.inf, "are overflows: infinite errors"),
        (np.nan, "are NaN and left out"),
    ):
        holes = errors_of(("float32",))
        holes.loc[holes["seed"] == 1, ["max_scaled", "rms_scaled", "mean_scaled", "normwise"]] = (
            value
        )
        assert f"2 of 8 values {words}" in figures.precision_ladder(holes).caption
        assert words in figures.error_against_n(holes, bounds_of()).caption
        assert words in figures.orders(holes).caption
        assert words in figures.bias_against_noise(holes).caption
        assert words in figures.ecdf(holes).caption
        assert ("ends below 1" in figures.ecdf(holes).caption) == np.isnan(value)
    assert not_finite([0.0, 1.0]) == ""


def labels_of(axis) -> list[str]:
    return [label.get_text() for label in (*axis.get_xticklabels(), *axis.get_yticklabels())]


def test_infinite_errors_have_their_own_place() -> None:
    """Three overflows of four seeds: the quartiles, medians and points of the method stand at infinity."""
    errors = errors_of(("float32",))
    wild = (errors["method"] == METHODS[0]) & (errors["seed"] > 0)
    errors.loc[wild, ["max_scaled", "rms_scaled", "mean_scaled", "normwise"]] = np.inf
    pairs = pairs_of()
    pairs.loc[1:, "normwise_first"] = np.inf
    for plot in (
        figures.ecdf(errors), figures.orders(errors), figures.precision_ladder(errors),
        figures.error_against_n(errors, bounds_of(), method=METHODS[0]),
        figures.first_against_second(pairs),
    ):  # fmt: skip
        assert plot.png() and "∞" in labels_of(plot.figure.axes[0]), plot.name
    curve = figures.ecdf(errors).data
    assert curve[curve["method"] == METHODS[0]]["max_scaled"].tolist()[-1] == np.inf
    assert curve.groupby("method")["fraction"].max().tolist() == [1.0, 1.0]
    boxes = figures.orders(errors).data
    assert np.isinf(boxes[boxes["method"] == METHODS[0]]["p50"]).all()
    assert (boxes["seeds"] == 4).all()
    scatter = figures.first_against_second(pairs)
    drawn_at = scatter.figure.axes[0].lines[1].get_xdata()
    assert len(scatter.data) == 4 and np.isfinite(drawn_at).all() and len(set(drawn_at)) == 2
    bias = figures.bias_against_noise(errors)
    assert np.isinf(bias.data[bias.data["method"] == METHODS[0]]["bias"]).all()
    assert f"{len(ORDERS)} of {2 * len(ORDERS)} points" in bias.caption
    place = LogWithZero([0.0, 1.0, 10.0, np.inf])
    assert place.limits[0] < place(0.0) < 1.0 < 10.0 < place(np.inf) < place.limits[1]


@pytest.mark.parametrize("seeds", [4, 5, 6, 16])
def test_the_bias_has_an_interval_where_there_are_seeds_enough(seeds) -> None:
    data = figures.bias_against_noise(errors_of(("float32",), seeds=seeds)).data
    assert (data["low"].notna() == (seeds >= 6)).all()
    if seeds >= 6:
        assert (data["low"] <= data["bias"]).all() and (data["bias"] <= data["high"]).all()


def test_growth_data_are_what_is_drawn_bounds_included() -> None:
    lengths = (5, 16, 64)
    plot = figures.error_against_n(errors_of(("float32",), lengths), bounds_of(lengths))
    bounds = plot.data[plot.data["kind"] == "bound"]
    assert set(bounds["order"]) == {"certified", "probabilistic", "expected"}
    medians = plot.data["p50"].to_numpy()
    assert np.isin(medians, heights(plot, 0)).all() and len(medians) == 3 * (3 + 4)
    styles = {
        line.get_linestyle() for line in plot.figure.axes[0].lines if len(line.get_xdata()) == 3
    }
    assert len(styles) >= 2


def test_one_length_alone_shows_as_points() -> None:
    plot = figures.error_against_n(errors_of(("float32",)), bounds_of())
    points = [line for line in plot.figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert len(points) == 7 and all(line.get_marker() not in ("", "None") for line in points)


def test_scatter_counts_all_and_draws_a_thousand() -> None:
    pairs = pairs_of(3000)
    pairs.loc[0, "normwise_first"] = np.nan
    plot = figures.first_against_second(pairs, names=("one", "the_other"))
    first, second = pairs["normwise_first"], pairs["normwise_second"]
    text = plot.figure.axes[0].texts[0].get_text()
    assert (
        f"one closer: {(first < second).sum()}\nthe other closer: {(second < first).sum()}" in text
    )
    assert len(plot.data) <= 1000 and "a NaN: 1 of 3000 pairs" in plot.caption
    assert "points; all are counted" in plot.caption


@pytest.mark.parametrize("values", [[1.31, 1.33], [0.0, 3.3], [1e-300, 1e300], [7.0]])
def test_axes_have_labels_however_narrow(values) -> None:
    place = LogWithZero(values)
    shown = [t for t, _ in place._ticks() if place.limits[0] <= t <= place.limits[1]]
    assert len(shown) >= 1 and place.limits[0] < place.limits[1]
    assert (place(values) > 0).all()
