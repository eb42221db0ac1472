"""What errors are ordinary: the limits from both sides, their power, and branches that rounding takes."""

from __future__ import annotations

import gc
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import stats
from test_thresholds import reference

import roundoff as ro
from roundoff.arithmetic.condition_scale import Scaled
from roundoff.judging.evidence import Judged
from roundoff.judging.ordinary import (
    BRANCHED,
    COMMON,
    FAILURE,
    ONE_ROUNDING,
    TIMES,
    Ordinary,
    Tipped,
)
from roundoff.judging.verdict import judge

SHAPE, SAMPLES = (6, 5), 16
RNG = np.random.default_rng(0)
EXACT = RNG.standard_normal(SHAPE) * 100
ALL = np.ones(SHAPE, bool)


def _ordinary(errors, exact=EXACT, terms=None, known=ALL, format="float32") -> Ordinary:
    prediction = ro.Prediction("x", ro.as_format(format), exact, errors)
    return Ordinary.of(prediction, exact, np.abs(exact) if terms is None else terms, known)


#: Of 0.01 in every element: far above u.
ERRORS = 0.01 * np.random.default_rng(1).standard_normal((SAMPLES, *SHAPE))


def test_a_norm_is_ordinary_up_to_so_many_times_the_predicted() -> None:
    found = _ordinary(ERRORS)
    rms = np.sqrt((ERRORS**2).mean(axis=0))
    spread = rms * np.where(np.arange(EXACT.size).reshape(SHAPE) % 2, 1, -1)
    spread -= EXACT * (spread * EXACT).sum() / (EXACT**2).sum()  # nothing along the result
    unit = spread / np.linalg.norm(spread) * np.linalg.norm(rms)
    assert found.beyond(0.99 * TIMES * unit, 0 * EXACT) == ""
    assert "in the 2-norm 8.08 times" in found.beyond(1.01 * TIMES * unit, 0 * EXACT)
    radius = np.full(SHAPE, 0.03 * TIMES * np.linalg.norm(rms) / np.sqrt(EXACT.size))
    assert found.beyond(1.01 * TIMES * unit, radius) == "", "the reference is no better known"


def test_one_element_is_ordinary_up_to_students_quantile() -> None:
    found, error = _ordinary(ERRORS), np.zeros(SHAPE)
    rms = np.sqrt((ERRORS**2).mean(axis=0))
    limit = stats.t.isf(FAILURE / (2 * EXACT.size), SAMPLES) * rms[2, 3]
    error[2, 3] = 0.999 * limit
    assert found.beyond(error, 0 * EXACT) == ""
    error[2, 3] = -1.001 * limit
    assert "at element [2, 3]" in found.beyond(error, 0 * EXACT)
    error[2, 3] = np.nan
    assert found.beyond(error, 0 * EXACT) == "", "overflows are told elsewhere"


def test_a_factor_is_noticed_before_the_norm_is() -> None:
    """Errors that cancel along the result: a factor of a quarter of their size is none of theirs."""
    found = _ordinary(ERRORS)
    parts = [(e * EXACT).sum() / (EXACT**2).sum() for e in ERRORS]
    limit = TIMES * np.sqrt(np.mean(np.square(parts)))
    assert found.beyond(0.99 * limit * EXACT, 0 * EXACT) == ""
    assert "by a factor of" in found.beyond(1.01 * limit * EXACT, 0 * EXACT)
    assert np.linalg.norm(1.01 * limit * EXACT) < found.norm / 2
    nothing = _ordinary(0 * ERRORS)
    assert nothing.along == COMMON * 2.0**-24


def test_a_kernel_may_round_once_where_the_trace_does_not() -> None:
    found = _ordinary(0 * ERRORS)
    u = 2.0**-24
    assert found.norm == pytest.approx(TIMES * ONE_ROUNDING * u * np.linalg.norm(EXACT))
    signs = np.where(np.arange(EXACT.size).reshape(SHAPE) % 2, 1, -1)
    assert found.beyond(u * np.abs(EXACT) * signs, 0 * EXACT) == ""
    assert found.beyond(20 * u * np.abs(EXACT) * signs, 0 * EXACT)
    zero = _ordinary(0 * ERRORS, exact=0 * EXACT)
    assert zero.beyond(0 * EXACT, 0 * EXACT) == ""
    assert "infinitely many times" in zero.beyond(0 * EXACT + 1e-30, 0 * EXACT)


def test_what_is_not_known_does_not_count() -> None:
    known = ALL.copy()
    known[0] = False
    errors = ERRORS.copy()
    errors[:, 0] = np.inf
    found = _ordinary(
        errors, exact=np.where(known, EXACT, np.nan), terms=np.abs(EXACT), known=known
    )
    assert not found.overflows and np.isfinite(found.norm)
    assert found.beyond(np.where(known, 0.0, 1e9), 0 * EXACT) == ""
    assert _ordinary(errors).overflows


@pytest.mark.parametrize("spread", [1e-6, 1e-3, 1.0])
def test_faults_beyond_the_power_are_noticed_whatever_the_error(spread) -> None:
    """Among them errors that hide the fault, as large as they may be."""
    found = _ordinary(spread * ERRORS)
    factor = found.power.factor
    assert 1 < factor < np.inf
    for fault in (1.0001 * factor, 1 / (1.0001 * factor), 0.0, -1.0):
        for hiding in (0.0, -0.999, 0.999):
            honest = hiding * min(found.along, found.norm / np.linalg.norm(EXACT)) * EXACT
            assert found.beyond(honest, 0 * EXACT) == ""
            assert found.beyond(fault * (EXACT + honest) - EXACT, 0 * EXACT)


def test_an_error_that_another_branch_explains_is_undecided() -> None:
    """Errors drawn larger take it, and are as large; twice that is too much."""
    bound = SimpleNamespace(
        certain=0 * EXACT + np.inf, likely=lambda failure: 0 * EXACT + np.inf, format=ro.FLOAT32
    )
    wild = ro.Prediction("x", ro.FLOAT32, EXACT, 100 * ERRORS[:2], ("", "relu"))
    usual = _ordinary(ERRORS)
    flat = reference(*EXACT.ravel())
    of = replace(
        flat, high=EXACT, low=0 * EXACT, error=0 * EXACT, own=(EXACT, 0 * EXACT),
        sizes=lambda: Scaled(EXACT, np.abs(EXACT), np.abs(EXACT)),
    )  # fmt: skip
    of.__dict__["literals"] = 0 * EXACT
    most = max(np.linalg.norm(e) for e in wild.drawn)
    signs = np.where(np.arange(EXACT.size).reshape(SHAPE) % 2, 1, -1) / np.sqrt(EXACT.size)
    for size, verdict in ((0.99, ro.Verdict.UNDECIDED), (1.01, ro.Verdict.SUSPICIOUS)):
        for branching in (wild, replace(wild, branch=("", ""))):
            sides = [
                Judged(
                    name, EXACT + error, of, bound, True, True, usually=lambda: usual,
                    tipped=lambda branching=branching: Tipped.of(branching, ALL),
                )
                for name, error in (("one", 0.0), ("two", 2 * size * most * signs))
            ]  # fmt: skip
            found = judge(*sides)
            expected = verdict if any(branching.branch) else ro.Verdict.SUSPICIOUS
            assert found.verdict == expected, found.reason
            assert ("another branch (relu)" in found.reason) == (expected == ro.Verdict.UNDECIDED)


def test_samples_that_take_another_branch_are_set_aside() -> None:
    """Where two numbers differ in the last bit, either is larger after a dozen roundings."""
    x = torch.tensor([[1.0, 1.0 + 2**-23], [2.0, 0.5]])

    def steep(x):
        for k in (3.0, 7.0, 11.0, 13.0, 17.0, 19.0):
            x = x / k * (k + 2)
        return torch.relu((x[:, 0] - x[:, 1]) * 1e9)

    found = ro.predict(steep, {"x": x}, loss=torch.sum, samples=32)["x"]
    assert set(found.branch) == {"relu", ""} and len(found.drawn) == 32
    assert found.samples == found.branch.count("") < 32
    smooth = ro.predict(lambda x: steep(x[1:]), {"x": x}, loss=torch.sum, samples=32)["x"]
    assert not any(smooth.branch) and smooth.samples == 32


def test_errors_to_one_side_are_noticed_before_the_norm_is() -> None:
    """As truncation makes them: a third of the usual size in each element, of one sign."""
    shape = (40, 50)
    errors = 0.01 * np.random.default_rng(2).standard_normal((SAMPLES, *shape))
    exact = np.random.default_rng(3).standard_normal(shape)
    found = _ordinary(errors, exact, known=np.ones(shape, bool))
    rms = np.sqrt((errors**2).mean(axis=0))
    asides = [(sample / rms).mean() for sample in errors]
    limit = TIMES * np.sqrt(np.mean(np.square(asides)))
    assert found.beyond(0.99 * limit * rms, 0 * exact) == ""
    assert "to one side" in found.beyond(-1.01 * limit * rms, 0 * exact)
    assert found.beyond(1.01 * limit * rms, 0.02 * limit * rms) == ""
    assert 1.01 * limit * np.linalg.norm(rms) < 0.1 * found.norm


def test_a_rounding_that_all_elements_share_is_to_no_side() -> None:
    exact = np.abs(EXACT)
    found = _ordinary(1e-9 * ERRORS, exact, terms=exact)
    u = ro.as_format("float32").u
    assert found.beyond(0.99 * COMMON * u * exact, 0 * exact) == ""


def test_another_branch_is_ordinary_where_samples_take_one() -> None:
    """As far as the samples that take it err, at whichever element that is."""
    errors = ERRORS.copy()
    errors[3, 1, 1] += 7.0
    error = np.zeros(SHAPE)
    error[4, 2] = -6.0
    branch = tuple("relu" if k == 3 else "" for k in range(SAMPLES))
    known = ro.Prediction("x", ro.as_format("float32"), EXACT, errors, branch)
    found = Ordinary.of(known, EXACT, np.abs(EXACT), ALL)
    assert found.beyond(error, 0 * EXACT) == ""
    assert found.beyond(0.99 * BRANCHED * 7 / 6 * error, 0 * EXACT) == ""
    assert "in the 2-norm" in found.beyond(1.02 * BRANCHED * 7 / 6 * error, 0 * EXACT)
    strict = _ordinary(np.delete(errors, 3, axis=0))
    assert strict.beyond(error, 0 * EXACT) != ""
    assert found.power.factor > strict.power.factor


def test_a_comparison_keeps_no_samples() -> None:
    """They are many numbers, as many as all gradients have elements, times 16."""
    x = torch.randn(8, 6)
    result = ro.compare(
        lambda x: x.softmax(-1).log(), lambda x: x.log_softmax(-1), {"x": x}, formats="bfloat16"
    )
    assert "predicted" in set(result.table["evidence"])
    assert np.isfinite(result.table["predicted"].astype(float)).any()
    gc.collect()
    assert not [each for each in gc.get_objects() if type(each) is ro.Prediction]
