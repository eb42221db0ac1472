"""Functions that part elsewhere: twins that given inputs hide, honest rewritings, and what is said of the rest."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from twins import TWINS, total

import roundoff as ro
from roundoff.arithmetic.kinks import never_crossed, sides
from roundoff.judging.comparison import elsewhere
from roundoff.judging.comparison.points import Points
from roundoff.testing import assert_same_function
from roundoff.trace import prune, trace_gradients

FLAGGED = {ro.Verdict.DIFFERENT, ro.Verdict.SUSPICIOUS}


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng([5, seed, *shape]).standard_normal(shape)).float()


def told(result):
    """What is printed, in one line."""
    return " ".join(str(result).split())


def flagged(result):
    return any(pair.judgement.verdict in FLAGGED for pair in result.pairs.values())


def compared(name, other, **options):
    first, honest, twin, inputs, wrt = TWINS[name]
    second = twin if other == "twin" else honest
    return ro.compare(first, second, inputs, wrt, total, formats="float32", **options)


def test_most_places_are_one_element_away_from_the_given_inputs() -> None:
    sizes = [
        len(p.changes)
        for name in (
            "squared bias",
            "clamp",
            "relu, leaky",
            "mask of zeros, added",
            "gate",
            "relu6",
            "mask of trues",
            "rows picked",
        )
        for p in compared(name, "twin").elsewhere.values()
    ]
    assert sizes and max(sizes) == 1


def test_gradients_that_differ_here_are_not_looked_for_elsewhere() -> None:
    found = ro.compare(
        lambda x, b: (x + b * b).exp(), lambda x, b: (x - b).exp(), {"x": normal(3), "b": torch.zeros(3)},
        loss=torch.sum, formats="float32",
    )  # fmt: skip
    assert found.verdict("b", "float32") == ro.Verdict.DIFFERENT
    assert set(found.elsewhere) == {"x", "output"}
    assert found.elsewhere["x"].changes[0][0] == "b"


def test_what_is_kept_is_told_and_which_kinks_were_not_crossed() -> None:
    x = {"x": normal(5).abs() + 0.1}
    found = ro.compare(
        lambda x: (x * x).log(), lambda x: 2 * x.log(), x, loss=torch.sum, formats="float32"
    )
    assert not found.elsewhere and "kept at all points: the signs of x" in told(found)
    assert "as far as both are defined" in told(found) and "fresh signs of" not in told(found)
    found = ro.compare(
        lambda x: F.relu(x) + x.log(), lambda x: x + x.log(), x, loss=torch.sum, formats="float32"
    )
    assert not found.elsewhere and "kinks never crossed: x > 0 was always true" in told(found)
    found = ro.compare(lambda x: x.exp(), lambda x: x.clamp(max=1e6).exp(), {"x": normal(4)}, loss=torch.sum,
                       formats="float32")  # fmt: skip
    assert "x <= 1e+06 was always true" in told(found) and "kept" not in told(found)
    found = ro.compare(
        lambda x, m: (x / (m + 1)).log1p(), lambda x, m: (x / (1 + m)).log1p(),
        {"x": normal(4).abs(), "m": torch.zeros(4)}, "x", torch.sum, formats="float32",
    )  # fmt: skip
    assert "the zeros of m" not in told(found) and not found.elsewhere


def test_functions_are_compared_elsewhere_where_both_are_defined() -> None:
    x = {"x": normal(6).abs() + 0.5, "y": normal(6)}
    found = ro.compare(
        lambda x, y: x.log() + F.relu(y.abs()), lambda x, y: x.log() + y.abs() + 0 * x.sqrt(), x,
        loss=torch.sum, formats="float32",
    )  # fmt: skip
    assert not found.elsewhere and "kept at all points: the signs of x" in told(found)
    found = ro.compare(
        lambda x, y: x.log() + y.abs(), lambda x, y: x.log() + y * torch.sign(y.detach().abs() - 2),
        {**x, "y": 10 + normal(6).abs()}, loss=torch.sum, formats="float32",
    )  # fmt: skip
    assert found.elsewhere["y"].changes[0][
        0
    ] == "y" and "kept at all points: the signs of x" in told(found)


def test_a_kink_at_the_given_inputs_is_no_other_function() -> None:
    x = {"x": torch.tensor([0.0, 1.0, -1.0])}
    found = ro.compare(
        lambda x: F.relu(x), lambda x: x.clamp(min=0), x, loss=torch.sum, formats="float32"
    )
    assert found.verdict("x", "float32") == ro.Verdict.UNDECIDED and not found.elsewhere
    found = ro.compare(
        lambda x: F.relu(x), lambda x: x.clamp(min=0, max=3), x, loss=torch.sum, formats="float32"
    )
    places = {at for _, at, _, _ in found.elsewhere["output"].changes}
    assert (0,) in places, "at zero conventions may set them apart, so it must move, too"


def test_a_place_is_not_brought_back_to_a_kink() -> None:
    """With x at 0 as given, moving the gate alone would show the conventions of relu and clamp."""
    inputs = {"x": torch.tensor([0.0, 1.0]), "g": torch.zeros(2)}
    found = ro.compare(
        lambda x, g: g * F.relu(x), lambda x, g: g * (x.clamp(min=0) + F.relu(x.abs() - 100)), inputs, "x",
        torch.sum, formats="float32",
    ).elsewhere["x"]  # fmt: skip
    assert {"x", "g"} == {name for name, *_ in found.changes}
    there = {at: value for name, at, value, _ in found.changes if name == "x"}
    assert abs(there[found.element]) > 100


def test_a_difference_below_the_format_is_none() -> None:
    """torch's softplus is the identity above 20, where it is off by exp(-20)."""
    sides = lambda x: F.softplus(x), lambda x: x.clamp(min=0) + (-x.abs()).exp().log1p()
    x = {"x": normal(6)}
    assert not ro.compare(*sides, x, loss=torch.sum, formats="float32").elsewhere
    found = ro.compare(*sides, x, loss=torch.sum, formats=("float32", "float64")).elsewhere["x"]
    assert all(value > 20 for _, _, value, _ in found.changes)


def test_literals_rounded_to_double_are_none_elsewhere_either() -> None:
    t = {"t": 3e5 * normal(6).abs()}
    found = ro.compare(
        lambda t: torch.sin(t * 0.017453292519943295), lambda t: torch.sin(t / 57.29577951308232), t,
        loss=torch.sum, formats="float64",
    )  # fmt: skip
    assert not flagged(found) and not found.elsewhere
    found = ro.compare(
        lambda t: torch.sin(t * 0.017453292519943295) + F.relu(t), lambda t: torch.sin(t * 0.017453292519943295) + t,
        t, loss=torch.sum, formats="float64",
    )  # fmt: skip
    assert not flagged(found) and set(found.elsewhere) == {"t", "output"}


def test_a_probability_is_told_over_what_was_varied() -> None:
    inputs = {"a": normal(3, 3), "e": torch.eye(3)}
    cube = lambda a, e: ((a @ e) ** 3).sum()
    notes = told(
        ro.compare(cube, lambda a, e: ((a @ e.t()) ** 3).sum(), inputs, "a", formats="float32")
    )
    assert "probability" not in notes and "not the same function elsewhere: at e[" in notes
    notes = told(ro.compare(cube, lambda a, e: (torch.einsum("ij,jk->ik", a, e) ** 3).sum() + 0 * a.sum(), inputs,
                           "a", formats="float32"))  # fmt: skip
    assert "probability at most 5.7e-06" in notes
    product = ro.compare(lambda a: a * a, lambda a: a**2 + 0 * a, {"a": normal(3)}, loss=torch.sum, points=2,
                         formats="float32")  # fmt: skip
    assert "probability at most 3.6e-12" in told(product) and "all but" not in told(product)
    assert "as functions of all but the zeros of e, which stayed" in notes
    assert "elsewhere they are the same: fresh signs and moved zeros" in notes


def test_the_assertion_fails_where_functions_part_elsewhere() -> None:
    first, _, twin, inputs, wrt = TWINS["squared bias"]
    with pytest.raises(AssertionError, match=r"elsewhere: at b\[.*elsewhere=False"):
        assert_same_function(first, twin, inputs, wrt, total)
    assert_same_function(first, twin, inputs, wrt, total, elsewhere=False)
    with pytest.raises(AssertionError, match="DIFFERENT"):
        assert_same_function(first, lambda x, b: (x + 1).exp(), inputs, "x", total, elsewhere=False)


def test_without_points_or_without_a_trace_nothing_is_looked_at() -> None:
    assert not compared("squared bias", "twin", points=0).elsewhere
    first, _, _, inputs, _ = TWINS["clamp"]
    found = ro.compare(first, {"output": first(**inputs)}, inputs, loss=total)
    assert not found.elsewhere and "elsewhere" not in told(found)


def test_the_table_tells_it_per_gradient() -> None:
    table = compared("squared bias", "twin").table.set_index("gradient")
    assert "not the same function elsewhere: at b[" in table.loc["x", "elsewhere"]
    assert set(compared("squared bias", "honest").table["elsewhere"]) == {""}


def test_the_same_trace_is_the_same_at_other_numbers_alone() -> None:
    inputs = {"x": normal(4, 3), "k": torch.tensor([0, 1, 3])}
    same = ro.compare(
        lambda x, k: x[k].exp(), lambda x, k: x[k].exp(), inputs, loss=torch.sum, formats="float32"
    )
    assert "are equal everywhere at the given k" in told(same) and not same.elsewhere
    assert "elsewhere they are the same: integers permuted" in told(same)
    x = {"x": inputs["x"]}
    same = ro.compare(lambda x: x.exp(), lambda x: x.exp(), x, loss=torch.sum, formats="float32")
    assert "are equal everywhere" in told(same) and "at the given" not in told(same)
    assert "elsewhere they" not in told(same)


def test_of_large_functions_one_point_is_screened(monkeypatch) -> None:
    monkeypatch.setattr(elsewhere, "is_large", lambda trace: True)
    count = 0
    real = elsewhere.proven_reference

    def counted(*args):
        nonlocal count
        count += 1
        return real(*args)

    monkeypatch.setattr(elsewhere, "proven_reference", counted)
    found = compared("squared bias", "honest")
    assert count == 0 and "one point elsewhere was looked at" in told(found)
    found = compared("squared bias", "twin")
    assert found.elsewhere and count == 4


def test_points_elsewhere_move_what_they_say() -> None:
    values = {
        "x": np.array([1.5, -2.25, 0.0, 3.0]),
        "z": np.zeros(3),
        "k": np.array([4.0, 4, 2]),
        "m": np.array([1.0, 1, 1]),
    }
    points = Points(values, {"x", "z"}, {"x"}, np.random.default_rng(0))
    for _ in range(50):
        moved = points.elsewhere("x")
        assert moved.all() and (np.sign(moved) != np.sign(values["x"]))[[0, 1, 3]].sum() >= 1
        assert (np.abs(moved[[0, 1, 3]]) <= 1.5 * np.abs(values["x"][[0, 1, 3]])).all()
        assert (np.float32(moved) == moved).all()
        still = points.elsewhere("x", signs=False, zeros=False, exponent=-8)
        assert (np.sign(still) == np.sign(values["x"])).all()
        assert (np.abs(still) <= 1.5 * 2.0**-8 * np.abs(values["x"])).all()
        assert points.elsewhere("z").all() and (np.abs(points.elsewhere("z")) <= 1).all()
        assert sorted(points.rechosen("k", permuted=True)) == [2, 4, 4]
        redrawn = set(points.rechosen("k", permuted=False))
        assert 0 in redrawn and redrawn <= {0, 1, 2, 3, 4}
        assert set(points.rechosen("m", permuted=True)) <= {0, 1}
    drawn = np.array([points.rechosen("m", permuted=True) for _ in range(20)])
    assert (drawn == 0).any(axis=0).all() and (drawn == 1).any(axis=0).all()
    assert points.elsewhere("x", exponent=8).max() > 100
    assert points.chosen == ["k", "m"] and points.masks == ["z"]
    assert points.kept == ["the zeros of z", "the integers of k", "the integers of m"]
    least = np.array([float(np.finfo(np.float32).min), 0.0])
    mask = Points({"m": least}, {"m"}, set(), np.random.default_rng(0))
    assert np.isfinite(mask.elsewhere("m", signs=False, exponent=8)).all()
    single = Points({"x": np.array(2.0)}, {"x"}, {"x"}, np.random.default_rng(0))
    assert all(single.elsewhere("x") < 0 for _ in range(20))


def test_kinks_and_their_sides() -> None:
    def function(x, y):
        return (torch.where(x > 2, x, y) + y.clamp(max=5) + x.abs() + torch.maximum(x * y, y)).sum()

    trace = prune(trace_gradients(function, {"x": normal(3), "y": normal(3)}, forward=True))
    low = {"x": np.array([1.0, 1.5, 0.5]), "y": np.array([1.0, 2.0, 3.0])}
    seen = sides(trace, low)[1]
    words = never_crossed(trace, [seen])
    assert "x > 2 was never true" in words and "x >= 0 was always true" in words
    assert any("y" in w and "5" in w for w in words) and not any("mul" in w for w in words)
    more = [seen, sides(trace, {"x": np.array([3.0, -1, 1]), "y": np.array([6.0, 1, 1])})[1]]
    assert not any(
        w.startswith(("x > 2", "x >= 0")) or "5" in w for w in never_crossed(trace, more)
    )


def test_the_same_seed_finds_the_same_place() -> None:
    one, two, other = (
        compared("relu, leaky", "twin", seed=seed).elsewhere["x"] for seed in (1, 1, 2)
    )
    assert one == two and one != other


@pytest.mark.parametrize("name", TWINS)
def test_honest_rewritings_are_the_same_elsewhere(name) -> None:
    found = compared(name, "honest")
    assert not flagged(found) and not found.elsewhere, str(found)
    assert "not the same" not in told(found)


@pytest.mark.parametrize("name", TWINS)
def test_twins_are_found_and_the_place_shows_it_in_torch_itself(name) -> None:
    found = compared(name, "twin")
    assert flagged(found) or found.elsewhere, str(found)
    first, _, twin, inputs, wrt = TWINS[name]
    for gradient, parting in found.elsewhere.items():
        assert parting.changes and parting.values[0] != parting.values[1]
        there = {k: v.double() if v.is_floating_point() else v.clone() for k, v in inputs.items()}
        for key, at, value, given in parting.changes:
            assert there[key][at] == given != value
            there[key][at] = value
        for function, exact in zip((first, twin), parting.values, strict=True):
            torchs = ro.native_gradients(
                function, there, wrt, total, format="float64", forward=True
            )[gradient][parting.element]
            assert torchs == pytest.approx(exact, rel=1e-6, abs=1e-9)
        assert all(part in told(found) for part in str(parting).split("): "))


def test_redrawn_integers_reach_zero() -> None:
    x = {
        "j": torch.tensor([1, 2, 3]),
        "w": torch.rand(4, 3, generator=torch.Generator().manual_seed(0)),
    }
    found = ro.compare(
        lambda j, w: torch.nn.functional.embedding(j, w, padding_idx=0),
        lambda j, w: torch.nn.functional.embedding(j, w),
        x,
        formats="float32",
    )
    assert found.verdict("w", "float32") == "IDENTICAL"
    assert any(
        "j[" in str(parting) and "= 0" in str(parting) for parting in found.elsewhere.values()
    )


def test_large_functions_that_part_at_random_points_are_different() -> None:
    """They are screened in float64 there, and proven where that tells them apart; they agree where x is 1."""
    x = {"x": torch.ones(90, 90)}

    def one(x):
        return (x @ x / 90.0).tanh().sum()

    found = ro.compare(one, lambda x: one(x) + ((x - 1) ** 3).sum(), x, formats=("float32",))
    assert found.verdict("x", "float32") == ro.Verdict.DIFFERENT
    assert "at random point 1 " in found.reason("x", "float32")
    alike = ro.compare(one, lambda x: one(x) * 1.0, x, formats=("float32",))
    assert alike.verdict("x", "float32") != ro.Verdict.DIFFERENT
    assert any("float64 values agree at 1 random point, to 2^-40" in note for note in alike.notes)
