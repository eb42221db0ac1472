"""Records of elementwise functions: what lacks a rule is refused, what is stated of limits and domains is so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from elementary import ELEMENTARY
from flint import arb, ctx

import roundoff as ro
from roundoff.trace.functions import FUNCTIONS, Function, Kind
from roundoff.trace.functions.record import NEEDED
from roundoff.trace.functions.special import SPECIAL
from roundoff.trace.functions.table import RECORDS


def test_no_two_records_have_one_name() -> None:
    assert list(FUNCTIONS) == [record.name for record in (*RECORDS, *SPECIAL)]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_record_without_a_rule_is_refused_in_a_sentence(name) -> None:
    record = FUNCTIONS[name]
    for rule in NEEDED[record.kind]:
        with pytest.raises(ro.ArgumentError, match=f"function '{name}' has no {rule};"):
            replace(record, **{rule: None})


def test_a_record_says_all_that_it_lacks() -> None:
    lacking = "ulp and no float64_ulp and no mpmath and no slopes and no steepest; every elementary function"
    with pytest.raises(ro.ArgumentError, match=f"'softsign' has no {lacking}"):
        Function(
            "softsign", 1, Kind.ELEMENTARY,
            float64=lambda x: x / (1 + abs(x)), arb=lambda x: x / (1 + abs(x)), limits=False,
        )  # fmt: skip


def test_slopes_are_one_per_operand_and_zeros_a_known_pattern() -> None:
    for rule in ("slopes", "steepest"):
        with pytest.raises(ro.ArgumentError, match=f"'exp' has 2 {rule} and 1 operands"):
            replace(FUNCTIONS["exp"], **{rule: (np.exp, np.exp)})
    with pytest.raises(ro.ArgumentError, match="'exp' has zero='both'; take one of all, any"):
        replace(FUNCTIONS["exp"], zero="both")


@pytest.mark.parametrize("name", ELEMENTARY)
def test_float64_holds_the_limits_of_functions_that_say_so(name) -> None:
    """Far out, by balls: within 2^-800 of a finite limit, and growing to an infinite one."""
    function, held = FUNCTIONS[name], []
    for sign in (-1.0, 1.0):
        with np.errstate(invalid="ignore"):
            limit = float(function.float64(np.float64(sign * np.inf)))
        if np.isnan(limit):
            continue
        with ctx.workprec(2000):
            near, far = (function.arb(arb(sign * 2.0**k)) for k in (400, 900))
            if np.isinf(limit):
                held.append(bool(abs(far) > abs(near) > 1) or not far.is_finite())
                assert not far.is_finite() or (far > 0) == (limit > 0)
            else:
                held.append(bool(abs(far - arb(limit)) < arb(2) ** -800))
    assert all(held) == function.limits


@pytest.mark.parametrize("name", ELEMENTARY)
def test_domains_are_where_float64_has_numbers(name) -> None:
    function = FUNCTIONS[name]
    x = np.array([-1e3, -2, -1.25, -1, -0.75, -0.25, 0, 0.25, 0.75, 1, 1.25, 2])
    with np.errstate(all="ignore"):
        real = ~np.isnan(function.float64(x))
    least, most = function.domain
    np.testing.assert_array_equal(real, (x >= least) & (x <= most))
