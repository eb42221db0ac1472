"""Where one verdict ends and the next begins: every threshold from below and from above."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from roundoff.arithmetic.condition_scale import Scaled
from roundoff.errors import no_value
from roundoff.gradients.reference import GradientReference, Reference
from roundoff.judging.comparison.equality import Agreement, agreement_of, any_known, chance
from roundoff.judging.comparison.measures import (
    _closer,
    _in_general,
    _largest,
    measures,
    one_question,
)
from roundoff.judging.comparison.pairs import Pair
from roundoff.judging.comparison.points import VALUES, Points
from roundoff.judging.evidence import FAILURE, Judged, tolerance_pair
from roundoff.judging.verdict import (
    Judgement,
    Verdict,
    agree,
    by_literals,
    different,
    judge,
    same_reference,
)
from roundoff.numbers import accuracy
from roundoff.numbers.formats import as_format
from roundoff.study.rows import _bound_columns, _radius, _ratios, accumulators, passes

INFINITY = float("inf")
U = 2.0**-24


def reference(*high, low=0.0, radius=0.0, scale=None, terms=None, literals=0.0, lost=()):
    """Of float64 numbers; scale, terms: by default their absolute values."""
    values = np.array(high, np.float64)
    full = lambda x: np.array(np.broadcast_to(np.asarray(x, np.float64), values.shape))
    size = np.abs(values)
    found = GradientReference(
        values, full(low), full(radius), (values, full(low)), "multiword", not np.any(radius),
        lambda: Scaled(values, full(size if scale is None else scale), full(size if terms is None else terms)),
    )  # fmt: skip
    found.__dict__["literals"] = full(literals)
    if not lost:
        return found
    mask = np.zeros(values.shape, bool)
    mask[list(lost)] = True
    return replace(
        found, high=np.where(mask, np.nan, values), error=np.where(mask, INFINITY, found.error),
        unknown={at: no_value("div", "0", "0") for at in lost},
    )  # fmt: skip


def side(name, computed, of, certain=1.0, likely=None, format="float32", **options):
    shape = of.high.shape
    full = lambda x: np.array(np.broadcast_to(np.asarray(x, np.float64), shape))
    bound = SimpleNamespace(
        certain=full(certain), likely=lambda failure: full(certain if likely is None else likely),
        expected=full(certain), format=as_format(format),
    )  # fmt: skip
    options = {"exact": of.exact, "rigorous": True, **options}
    return Judged(name, np.array(computed, np.float64), of, bound, **options)


def verdict_of(computed, of, other=None, **options):
    """Of a side that is off, against one that is exactly right."""
    right = side("right", of.high if other is None else other, of, certain=1e-6)
    found = judge(side("off", computed, of, **options), right)
    again = judge(right, side("off", computed, of, **options))
    assert found.verdict == again.verdict
    return found.verdict


def test_the_certified_bound_is_the_limit_of_what_rounding_does() -> None:
    of = reference(100.0, 1.0)
    for excess, verdict in ((0.999, Verdict.ROUNDOFF), (1.001, Verdict.SUSPICIOUS)):
        for sign in (1, -1):
            computed = [100.0 + sign * 0.01 * excess, 1.0]
            found = verdict_of(computed, of, certain=0.01, likely=[0.0101, 0.0101])
            assert found is verdict


def test_the_radius_counts_on_the_side_of_the_computed_number() -> None:
    for error, verdict in ((0.0299, Verdict.ROUNDOFF), (0.0301, Verdict.SUSPICIOUS)):
        of = reference(100.0, radius=0.02)
        assert verdict_of([100.0 + error], of, certain=0.01) is verdict


def test_the_low_part_of_a_reference_counts() -> None:
    of = reference(1.0, low=2.0**-60)
    for computed, verdict in ((1.0, Verdict.ROUNDOFF), (1.0 + 2.0**-52, Verdict.SUSPICIOUS)):
        found = judge(
            side("off", [computed], of, certain=1.5 * 2.0**-60, format="float64"),
            side("other", [1.0 + 2.0**-51], of, certain=2.0**-40, format="float64"),
        )
        assert found.verdict is verdict
    for part, verdict in ((0.99, Verdict.SUSPICIOUS), (1.01, Verdict.ROUNDOFF)):
        found = judge(  # whose error is the low part alone
            side("off", [1.0], of, certain=part * 2.0**-60, format="float64"),
            side("other", [1.0 + 2.0**-51], of, certain=2.0**-40, format="float64"),
        )
        assert found.verdict is verdict


def test_literals_and_radii_explain_a_gap_together() -> None:
    one = reference(1.0, radius=0.01, literals=0.01)
    for gap, explained in ((0.0199, True), (0.0201, False)):
        assert by_literals(one, reference(1.0 + gap)).all() == explained
        assert agree(one, reference(1.0 + gap), exact=False) == explained


def test_nan_equals_nan_whatever_its_bits() -> None:
    nan = np.array([np.nan, 1.0])
    of = reference(1.0, 1.0, lost=[0])
    found = judge(side("one", nan, of), side("two", np.copysign(nan, [-1.0, 1.0]), of))
    assert found.verdict is Verdict.IDENTICAL


def test_the_reference_of_a_side_without_trace_is_not_compared() -> None:
    one = side("traced", [1.0], reference(1.0))
    opaque = side("opaque", [1.0 + 2.0**-23], reference(1.0 + 2.0**-23), traced=False)
    assert judge(one, opaque).verdict is not Verdict.DIFFERENT
    assert judge(opaque, one).verdict is not Verdict.DIFFERENT


def test_no_pair_covers_an_infinite_bound() -> None:
    of = reference(1.0, 2.0)
    one, two = (side(name, [1.0, 2.0], of, likely=[INFINITY, 1e-3]) for name in ("one", "two"))
    assert tolerance_pair(one, two) == (INFINITY, INFINITY)


def test_where_nothing_is_known_on_both_sides_nothing_was_compared() -> None:
    half, other = reference(1.0, 2.0, lost=[0]), reference(1.0, 2.0, lost=[1])
    assert any_known({"x": half}, {"x": half}) and not any_known({"x": half}, {"x": other})


def test_the_probabilistic_bound_is_the_next_limit() -> None:
    for error, verdict in ((0.00499, Verdict.ROUNDOFF), (0.00501, Verdict.SUSPICIOUS)):
        assert verdict_of([100.0 + error], reference(100.0), certain=0.01, likely=0.005) is verdict
    seen = []
    of = reference(100.0)
    one = side("one", [100.001], of)
    one.bound.likely = lambda failure: seen.append(failure) or np.array([0.01])
    judge(one, side("two", [100.0], of, certain=1e-6))
    assert set(seen) == {FAILURE} == {1e-9}


def test_an_eighth_of_the_terms_is_too_vague() -> None:
    """Per element of S, and in the largest element of the largest sum of terms."""
    for part, verdict in ((0.999, Verdict.ROUNDOFF), (1.001, Verdict.UNDECIDED)):
        of = reference(1.0, 64.0)
        likely = [part / 8, 1e-6]
        assert verdict_of([1.01, 64.0], of, certain=1e3, likely=likely) is verdict
        of = reference(1.0, 64.0, scale=1e6)
        assert verdict_of([1.01, 64.0], of, certain=1e3, likely=[8 * part, 1e-6]) is verdict
    nothing = reference(0.0, 64.0)  # no terms at all: the bound there says nothing of the others
    assert verdict_of([0.01, 64.0], nothing, certain=1e3, likely=[1.0, 1e-6]) is Verdict.ROUNDOFF
    found = judge(
        side("off", [1.01], reference(1.0), certain=1e3, likely=0.13),
        side("right", [1.0], reference(1.0), certain=1e-6),
    )
    assert (
        "overflows on the way" in found.reason and "float32" in found.reason
    )  # nothing is predicted


def test_rounding_may_overflow_as_far_as_the_certified_bound_reaches() -> None:
    most = as_format("float32").overflow_threshold
    for high in (most / 2, -most / 2):
        for reach, verdict in ((0.499, Verdict.SUSPICIOUS), (0.501, Verdict.ROUNDOFF)):
            of = reference(high, 1.0, terms=10 * most, scale=10 * most)
            sign = np.sign(high)
            found = verdict_of(
                [sign * INFINITY, 1.0], of, certain=[reach * most, 1e-9], likely=1e-9
            )
            assert found is verdict
    of = reference(1.0, 2.0)  # an infinite bound reaches nowhere: it proves nothing
    for lost in (INFINITY, -INFINITY, np.nan):
        assert verdict_of([lost, 2.0], of, certain=INFINITY, likely=1e-6) is Verdict.SUSPICIOUS
    beyond = reference(1.01 * most, 1.0)
    assert verdict_of([INFINITY, 1.0], beyond, certain=1e-6) is Verdict.ROUNDOFF
    below = reference(0.99 * most, 1.0)
    assert verdict_of([INFINITY, 1.0], below, certain=1e-6) is Verdict.SUSPICIOUS


def test_references_are_the_same_up_to_the_sum_of_their_radii() -> None:
    one = reference(1.0, 5.0, radius=[2.0**-20, 1.0])
    for gap, same in ((0.999, True), (1.001, False)):
        two = reference(1.0 + gap * 3 * 2.0**-20, 5.0, radius=[2.0**-19, 1.0])
        assert same_reference(one, two, exact=False).tolist() == [same, True]
        assert agree(one, two, exact=False) == same
        assert (different(one, two, exact=False, rigorous=True) is None) == same
    for gap, same in ((0.0, True), (2.0**-80, False)):
        two = reference(1.0, 5.0, low=[gap, 0.0])
        assert same_reference(reference(1.0, 5.0), two, exact=True).tolist() == [same, True]


def test_what_literals_explain_is_no_difference() -> None:
    one = reference(1.0, radius=2.0**-60, literals=2.0**-50)
    for gap, near in ((0.999, True), (1.001, False)):
        two = reference(
            1.0, low=gap * (3 * 2.0**-50 + 2 * 2.0**-60), radius=2.0**-60, literals=2.0**-49
        )
        assert by_literals(one, two).tolist() == [near]
        assert agree(one, two, exact=False) == near


def test_the_element_that_differs_is_named_with_digits_that_tell_it() -> None:
    one, two = reference(1.0, 2.0, 3.0), reference(1.0, 2.5, 4.0)
    found = different(one, two, exact=True, rigorous=True, where="here ", what="output")
    assert found == Judgement(
        Verdict.DIFFERENT,
        "different functions: here at element [1] the exact outputs are 2 and 2.5; 2 of 3 elements differ, "
        "by up to 1",
        "exact",
    )
    close = reference(1.0 + 2.0**-50, 2.0, 3.0)
    found = different(one, close, exact=True, rigorous=False)
    assert found.verdict is Verdict.UNDECIDED
    assert "1 and 1.0000000000000009; 1 of 3 elements differ" in found.reason
    lower = reference(1.0, 2.0, 3.0, low=[2.0**-70, 0.0, 0.0])
    assert (
        "1 and 1, which differ by 8.47e-22"
        in different(one, lower, exact=True, rigorous=True).reason
    )
    single = different(reference(1.0), reference(2.0), exact=True, rigorous=True)
    assert "elements differ" not in single.reason


def test_elements_without_a_value_are_no_difference() -> None:
    one, two = reference(1.0, 2.0, lost=[0]), reference(7.0, 2.0)
    for exact in (True, False):
        assert same_reference(one, two, exact=exact).all() and agree(one, two, exact=exact)
        assert different(one, reference(7.0, 3.0), exact=exact, rigorous=True).reason.endswith(
            "at element [1] the exact gradients are 2 and 3; 1 of 2 elements differs, by up to 1"
        )


def test_the_order_of_verdicts() -> None:
    of, nan = reference(100.0, 1.0), np.nan
    other = reference(100.5, 1.0)
    equal = ([100.0, 1.0], [100.0, 1.0])
    apart = ([100.0, 1.0], [100.0000001, 1.0])
    for first, second, computed, options, verdict in (
        (of, other, equal, {}, Verdict.DIFFERENT),
        (of, of, ([500.0, 1.0], [500.0, 1.0]), {"certain": 1.0}, Verdict.IDENTICAL),
        (of, of, ([nan, 1.0], [nan, 1.0]), {}, Verdict.IDENTICAL),
        (of, of, ([INFINITY, 1.0], [INFINITY, 1.0]), {}, Verdict.IDENTICAL),
        (of, of, ([nan, nan], [nan, nan]), {}, Verdict.SUSPICIOUS),
        (of, of, ([nan, 1.0], [INFINITY, 1.0]), {}, Verdict.SUSPICIOUS),
        (of, of, ([0.0, 1.0], [-0.0, 1.0]), {"certain": 1e3, "likely": 1e-3}, Verdict.SUSPICIOUS),
        (
            of,
            of,
            ([102.0, 1.0], [100.0, 1.0]),
            {"certain": 1.0, "likely": 50.0},
            Verdict.SUSPICIOUS,
        ),
        (of, of, ([100.5, 1.0], [100.0, 1.0]), {"certain": 1.0, "likely": 50.0}, Verdict.UNDECIDED),
        (of, of, apart, {"certain": 1e-3}, Verdict.ROUNDOFF),
    ):
        one, two = (
            side("one", computed[0], first, **options),
            side("two", computed[1], second, **options),
        )
        assert judge(one, two).verdict is verdict, (computed, options)


def test_where_one_side_has_no_value_the_other_is_the_measure() -> None:
    mine, theirs = reference(1.0, 2.0, lost=[0]), reference(1.0, 2.0)
    of = lambda value, **options: judge(
        side("mine", [value, 2.0], mine, certain=[INFINITY, 1e-6], **options),
        side("theirs", [1.0, 2.0], theirs, certain=0.01),
    )
    near = of(1.005)
    assert near.verdict is Verdict.ROUNDOFF
    assert (
        "no exact gradient of mine is known at element [0] (div(0, 0)): the exact gradient 1 of theirs"
        in near.reason
    )
    far = of(1.02)
    assert (
        far.verdict is Verdict.UNDECIDED and "of mine has no known value (div(0, 0))" in far.reason
    )
    assert "mine is 1.02 and theirs 1, where the exact gradient 1 of theirs is known" in far.reason
    lost = of(np.nan)
    assert lost.verdict is Verdict.SUSPICIOUS
    assert lost.reason == (
        "mine is nan at element [0], where the exact gradient 1 of theirs is an ordinary float32 number; "
        "its own has no value: div(0, 0)"
    )


def test_where_neither_side_has_a_value_only_bits_are_left() -> None:
    neither = reference(1.0, 2.0, 4.0, lost=[0])
    make = lambda name, first, last: side(
        name, [first, 2.0, last], neither, certain=[INFINITY, 1e-2, 1e-2]
    )
    for one, two, last, verdict in (
        (3.0, 3.0, 4.0, Verdict.IDENTICAL),
        (np.nan, np.nan, 4.0, Verdict.IDENTICAL),
        (3.0, 3.0, 4.001, Verdict.ROUNDOFF),
        (3.0, 3.0, 4.02, Verdict.SUSPICIOUS),
        (np.nan, 3.0, 4.0, Verdict.UNDECIDED),
        (3.0, 3.5, 4.001, Verdict.UNDECIDED),
        (np.nan, 3.0, 4.02, Verdict.SUSPICIOUS),
    ):
        found = judge(make("one", one, 4.0), make("two", two, last))
        assert found.verdict is verdict, (one, two, last)
        if verdict in (Verdict.ROUNDOFF, Verdict.UNDECIDED):
            assert "[0]" in found.reason and "div(0, 0)" in found.reason
    everything = reference(1.0, lost=[0])
    nothing = judge(side("one", [np.nan], everything), side("two", [np.nan], everything))
    assert nothing.verdict is Verdict.UNDECIDED


def test_the_worst_element_is_named_and_those_like_it_counted() -> None:
    of = reference(1.0, 1.0, 1.0, 1.0)
    found = judge(
        side("off", [1.3, 1.0, 1.9, 1.0], of, certain=0.1), side("right", of.high, of, certain=0.1)
    )
    assert (
        "off errs by 0.9 at element [2] (2 of 4 elements), where no order of rounded"
        in found.reason
    )
    assert found.reason.endswith("exceeds 0.1")


# ------------------------------------------------------------------------------------ rows and notes


def pair(first, second, verdict):
    return Pair("x", as_format("float32"), Judgement(verdict, ""), (first, second))


def test_who_is_closer_is_asked_where_both_are_measured_against_one_number() -> None:
    of, other = reference(1.0, 2.0), reference(1.0, 2.5)
    one, two = side("one", [1.0, 2.0], of), side("two", [1.0, 2.1], of)
    for verdict in Verdict:
        assert one_question(pair(one, two, verdict)) == (verdict != Verdict.DIFFERENT)
        opaque = replace(two, traced=False)
        for sides in ((one, opaque), (opaque, one)):
            good = verdict in (Verdict.ROUNDOFF, Verdict.IDENTICAL)
            assert one_question(pair(*sides, verdict)) == good
    assert not one_question(pair(one, side("two", [1.0, 2.5], other), Verdict.UNDECIDED))
    assert not one_question(Pair("x", as_format("float32"), Judgement(Verdict.UNDECIDED, "")))


def test_three_digits_tell_who_is_closer() -> None:
    names = ("one", "two")
    assert _closer((1.0, 1.004), names)[0] == "neither" and _closer((1.0, 1.006), names)[0] == "one"
    assert _closer((3.0, 1.5), names) == ("two", 2.0) and _closer((1.0, 4.0), names) == ("one", 4.0)
    assert (
        _closer((0.0, 1.0), names) == ("one", INFINITY)
        and _closer((0.0, 0.0), names)[0] == "neither"
    )
    assert _closer((np.nan, 1.0), names)[0] == "neither"


def test_in_general_the_ratio_is_the_farther_over_the_closer() -> None:
    near = [(1.0 + k / 100, 3.0 + k / 50) for k in range(12)]
    for seeds, who in ((near, "one"), ([(b, a) for a, b in near], "two")):
        found = _in_general(seeds, ("one", "two"))
        assert found["in_general"] == who and found["seeds"] == 12
        assert 2.5 < found["ratio_low"] <= found["ratio_in_general"] <= found["ratio_high"] < 3.2


def test_a_row_measures_in_the_units_that_it_names() -> None:
    of = reference(4.0, 8.0, terms=[16.0, 32.0])
    one = side(
        "one", [4.0 + 2.0**-21, 8.0], of, certain=[2.0**-18, 2.0**-19], likely=[2.0**-20, 2.0**-21]
    )
    two = side("two", [4.0, 8.0 - 2.0**-20], of, certain=2.0**-20, likely=2.0**-22)
    found = measures(one, two)
    assert found["ulp_between"] == 1.0 and found["relative_between"] == 2.0**-23
    assert found["scaled_between"] == 2.0**-20 / (U * 32)
    assert found["bound_certified"] == 2.0**-18 / (U * 16)
    assert found["bound_probabilistic"] == 2.0**-20 / (U * 16)
    size = np.hypot(4.0, 8.0)
    assert found["error_first"] == pytest.approx(2.0**-21 / size / U, rel=1e-12)
    assert found["error_second"] == pytest.approx(2.0**-20 / size / U, rel=1e-12)
    between = np.hypot(2.0**-21, 2.0**-20) / np.hypot(*two.computed)
    assert found["normwise_between"] == pytest.approx(between / U, rel=1e-12)
    assert found["fraction_equal"] == 0.0 and found["bitwise_equal"] is False
    rtol, atol = found["rtol"], found["atol"]
    cover = rtol * np.abs(of.high) + atol
    assert (cover >= 2 * np.array([2.0**-20, 2.0**-21])).all() and cover.max() < 4 * 2.0**-20
    assert tolerance_pair(one, two) == (rtol, atol) == tolerance_pair(two, one)


def test_elements_without_a_value_are_left_out_of_rows() -> None:
    of = reference(4.0, 1.0, terms=[16.0, 1.0], lost=[1])
    one = side("one", [4.0 + 2.0**-21, np.nan], of, certain=[2.0**-18, INFINITY])
    two = side("two", [4.0, np.nan], of, certain=[2.0**-18, INFINITY])
    found = measures(one, two)
    assert found["fraction_equal"] == 0.5 and found["error_second"] == 0
    assert found["error_first"] == pytest.approx(2.0**-23 / U) and found["normwise_between"] > 0
    for column in ("bound_certified", "bound_probabilistic", "rtol", "atol"):
        assert np.isfinite(found[column])
    unbounded = side("one", [4.0, np.nan], of, certain=INFINITY)
    assert tolerance_pair(unbounded, two) == tolerance_pair(two, unbounded) == (INFINITY, INFINITY)


def references(*gradients, exact=True):
    return Reference({f"g{k}": g for k, g in enumerate(gradients)}, 0, exact, as_format("float32"))


def test_the_least_agreement_of_all_gradients_counts() -> None:
    a, b = reference(1.0), reference(2.0, radius=2.0**-30)
    assert agreement_of(references(a, a), references(a, a)) is Agreement.EXACT
    assert agreement_of(references(a, b), references(a, b)) is Agreement.WITHIN
    far = reference(1.0 + 2.0**-50)
    assert agreement_of(references(a, a), references(a, far)) is Agreement.NEARLY


def test_the_chance_of_missing_a_difference() -> None:
    text = chance(2, 3, Agreement.EXACT, ["m"])
    assert f"{(3 / VALUES) ** 2:.1e}" in text and "all but m" in text and "2 random points" in text
    for degree, agreement in (
        (None, Agreement.EXACT),
        (3, Agreement.WITHIN),
        (3, Agreement.NEARLY),
    ):
        assert "probability" not in chance(1, degree, agreement, [])


def test_random_points_lie_where_they_are_said_to() -> None:
    values = {
        "x": np.array([0.0, 3.0, -1e-3] * 200),
        "m": np.array([0.0, 1.0] * 300),
        "k": np.arange(600.0),
    }
    points = Points(values, {"x", "m"}, ["x"], np.random.default_rng(0))
    assert points.masks == ["m"]
    moved = points.varied()
    factor = moved["x"][values["x"] != 0] / values["x"][values["x"] != 0]
    assert (moved["x"][values["x"] == 0] == 0).all() and (moved["k"] == values["k"]).all()
    assert (
        factor.min() < 0.55 and factor.max() > 1.45 and factor.min() >= 0.5 and factor.max() <= 1.5
    )
    off = points.varied(zeros=False)["x"][values["x"] == 0]
    assert (
        (off != 0).mean() > 0.99 and np.abs(off).max() <= 2.0**-11 and np.abs(off).max() > 2.0**-13
    )
    whole = points.whole()
    assert np.abs(whole["x"]).max() <= 1 and whole["x"].min() < -0.95 and whole["x"].max() > 0.95
    assert (whole["m"][values["m"] == 0] == 0).all() and (whole["k"] == values["k"]).all()


def test_the_columns_of_a_study_measure_in_u_s() -> None:
    of = reference(4.0, 8.0, scale=[16.0, 64.0], radius=2.0**-40)
    one = side(
        "one", [4.0 + 2.0**-20, 8.0], of, certain=[2.0**-18, 2.0**-19], likely=[2.0**-19, 2.0**-21]
    )
    two = side("two", [4.0, 8.0], of, certain=2.0**-20, likely=2.0**-22)
    columns = _bound_columns([one.bound, two.bound], of.scale)
    assert columns["bound_certified"] == columns["bound_expected"] == 2.0**-18 / (U * 16)
    assert columns["bound_probabilistic"] == 2.0**-19 / (U * 16)
    errors = [accuracy.errors(s.computed, of.high, of.low, of.scale, "float32") for s in (one, two)]
    ratios = _ratios([one.bound, two.bound], errors)
    assert (
        ratios["ratio_certified"] == ratios["ratio_expected"] == 0.25
        and ratios["ratio_probabilistic"] == 0.5
    )
    found = _radius(Reference({"g": of}, 0, True, as_format("float32")), "g", as_format("float32"))
    assert found == 2.0**-40 / 2.0**-21
    assert np.isnan(_largest(np.array([np.nan]))) and _largest(np.array([np.nan, 1.0, 3.0])) == 3.0
    assert [str(f) for f in accumulators(as_format("float16"))] == ["float16", "float32"]
    assert [str(f) for f in accumulators(as_format("float32"))] == ["float32"]
    checks = passes(np.array([1.0, 2.0]), np.array([1.0, 2.5]), as_format("float32"))
    assert checks == {"allclose": False, "fraction_allclose": 0.5, "assert_close": False}
