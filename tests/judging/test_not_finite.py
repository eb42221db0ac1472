"""Elements at which one side is no finite number: counted, named, and the largest error."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import roundoff as ro
from roundoff.numbers.formats import as_format
from roundoff.study.rows import CellRows
from roundoff.study.two_methods import TwoMethods


def root(x):
    """NaN by x where x is not positive: 0 times an infinite slope."""
    return torch.where(x > 0, x.sqrt(), torch.zeros_like(x))


def masked(x):
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), torch.zeros_like(x))


def half(x):
    """Masked, and its gradient off by one part in 100, which is DIFFERENT."""
    return masked(x * 1.01)


def unsafe(x):
    return x * x.abs() / x.abs()


#: NaN on the first side at so many elements: functions and inputs.
LOST = {
    "root": (root, masked, [0.0, 2, 3, -1, 0.3], "x", 2),
    "quotient": (lambda x: torch.where(x == 0, x, unsafe(x)), lambda x: x * 1, [0.0, 2, 3], "x", 1),
    "norm": (
        lambda x: torch.where(x.abs() > 1e-3, (x * x).sqrt(), 0 * x), lambda x: torch.where(x.abs() > 1e-3, x.abs(), 0 * x),
        [0.0, 0.5, -3, 1], "x", 1,
    ),
    "logarithm": (
        lambda x: torch.where(x > 0, x * x.log(), 0 * x),
        lambda x: torch.where(x > 0, x * torch.where(x > 0, x, 1.0).log(), 0 * x), [0.0, 0.5, 3, 1], "x", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", LOST)
def test_a_nan_where_the_other_side_has_a_value_is_the_largest_error(name, swapped, format) -> None:
    first, second, values, gradient, count = LOST[name]
    sides = {"first": second, "second": first} if swapped else {"first": first, "second": second}
    for key, side in sides.items():
        side = sides[key] = (lambda f: lambda x: f(x))(side)
        side.__name__ = key
    bad, good = ("second", "first") if swapped else ("first", "second")
    found = ro.compare(*sides.values(), {"x": torch.tensor(values)}, loss=torch.sum, formats=format)
    row = found.table.set_index("gradient").loc[gradient]
    assert row[f"error_{bad}"] == np.inf and np.isfinite(row[f"error_{good}"])
    assert row["closer"] == good and row["ratio"] == np.inf
    assert (row[f"not_finite_{bad}"], row[f"not_finite_{good}"]) == (count, 0)
    assert row["without_value"] == 0 and row["verdict"] == "SUSPICIOUS"
    size = len(values)
    assert f"not finite: {bad} at {count} of {size} elements [x {format}]" in str(found)
    assert f"not finite: {good}" not in str(found)


@pytest.mark.parametrize("format", ["float16", "float32"])
def test_studies_measure_it_likewise(format) -> None:
    problem = TwoMethods(
        "root", "", 1, {"root": root, "masked": masked},
        lambda _: {"x": np.array([0.0, 2, 3, -1, 0.3])}, ("x",), torch.sum, 1, {"name": "root"}, {},
    )  # fmt: skip
    row = CellRows(problem, as_format(format), range(1), (), 0).tables()["pairs"].iloc[0]
    assert row["normwise_first"] == np.inf and np.isfinite(row["normwise_second"])


def test_in_general_too() -> None:
    found = ro.compare(root, masked, {"x": torch.tensor([0.0, 2, 3, -1, 0.3])}, loss=torch.sum, seeds=6,
                       formats="float32")  # fmt: skip
    assert all(pair == (np.inf, pair[1]) and pair[1] < 1 for pair in found["x", "float32"].seeds)


def test_of_different_functions_nobodys_value_is_the_others() -> None:
    found = ro.compare(
        root, half, {"x": torch.tensor([0.0, 2, 3, -1, 0.3])}, loss=torch.sum, formats="float32"
    )
    row = found.table.set_index("gradient").loc["x"]
    assert row["verdict"] == "DIFFERENT" and row["closer"] == "no question"
    assert np.isfinite(row["error_first"]) and row["not_finite_first"] == 2
    assert "not finite: root at 2 of 5 elements [x float32]" in str(found)


def test_without_a_value_on_either_side_an_element_is_left_out_and_counted() -> None:
    found = ro.compare(root, lambda x: 1 * root(x), {"x": torch.tensor([0.0, 2, 3])}, loss=torch.sum,
                       formats="float32")  # fmt: skip
    row = found.table.set_index("gradient").loc["x"]
    assert (
        row["verdict"] == "IDENTICAL"
        and row["without_value"] == 1
        and np.isfinite(row["error_first"])
    )
    assert "left out of errors, as no exact value is known: 1 of 3 elements [x float32]" in str(
        found
    )


def test_finite_sides_have_no_such_line() -> None:
    text = str(ro.compare(masked, masked, {"x": torch.tensor([0.0, 2])}, loss=torch.sum))
    assert "not finite" not in text and "left out" not in text


def test_what_is_not_finite_beside_an_overflow_is_undecided() -> None:
    """The exact gradients overflow float16: infinities of their signs are right, anything else tells nothing."""

    def function(x, w):
        return x @ w.T

    def squares(out):
        return (out**2).sum()

    generator = torch.Generator().manual_seed(0)
    inputs = {
        name: 200 * (1 + torch.rand(n, 6, generator=generator)) for name, n in (("x", 4), ("w", 3))
    }
    right = {"w": torch.full((3, 6), float("inf")).half()}
    assert ro.compare(right, function, inputs, None, squares, formats="float16").verdict(
        "w", "float16"
    ) in ("IDENTICAL", "ROUNDOFF")
    for value in (float("nan"), float("-inf")):
        given = {"w": torch.full((3, 6), value).half()}
        found = ro.compare(given, function, inputs, None, squares, formats="float16")
        assert found.verdict("w", "float16") == "UNDECIDED"
        assert "take smaller inputs, or a wider format" in found.reason("w", "float16")
