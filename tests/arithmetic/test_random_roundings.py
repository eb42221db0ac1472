"""Random roundings: their sizes against theory and against the emulated kernels, which share no code with them."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from elementary import by_mpmath
from scipy import stats

import roundoff as ro
from roundoff.arithmetic import move_elements
from roundoff.arithmetic.errors_of_digits import centred, spacing_at
from roundoff.arithmetic.simulated import Simulated, simulate
from roundoff.arithmetic.sum_roundings import (
    squares_in_turn,
    squares_of_partial_sums,
    squares_of_products_in_turn,
)
from roundoff.arithmetic.views import moved_back
from roundoff.gradients.prediction import predictions_of_trace
from roundoff.numbers.formats import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, FORMATS, round_to
from roundoff.trace.steps import Builder, Move, Trace
from roundoff.trace.views import as_view

HALF = 1 / np.sqrt(12)  # uniform within half a unit


def _trace(build, **shapes) -> Trace:
    builder = Builder()
    last = build(builder, **{name: builder.input(name, shape) for name, shape in shapes.items()})
    return Trace(tuple(builder.steps), {"y": last})


def _drawn(trace, inputs, format, samples=400, **how):
    return predictions_of_trace(trace, inputs, format, samples=samples, **how)["y"]


@pytest.mark.parametrize("target", [FLOAT16, BFLOAT16, FLOAT32, FLOAT64], ids=str)
def test_one_rounding_is_uniform_within_half_a_spacing(target) -> None:
    trace = _trace(lambda b, x, y: b.map("div", x, y), x=(50,), y=(50,))
    rng = np.random.default_rng(0)
    inputs = {name: round_to(1 + rng.random(50), target) for name in "xy"}
    found = _drawn(trace, inputs, target)
    with np.errstate(all="ignore"):
        unit = found.errors / spacing_at(found.value, target)
    held = round_to(found.value, target) == found.value
    assert np.abs(unit).max() <= 0.5 * (1 + 1e-5)
    inexact = unit[:, ~held] if target != FLOAT64 else unit
    assert np.abs(inexact).max() > 0.49
    assert abs(np.sqrt((inexact**2).mean()) / HALF - 1) < 0.02
    assert abs(inexact.mean()) < 0.01


@pytest.mark.parametrize("format", FORMATS, ids=str)
def test_the_spacing_is_that_of_the_format(format) -> None:
    values = np.array([1.0, -1.5, 2.0**-3, 0.75, format.smallest_subnormal])
    values = np.append(values, [format.max / 2, -format.smallest_normal])
    np.testing.assert_array_equal(spacing_at(values, format), ro.spacing(values, 0.0, format))
    np.testing.assert_array_equal(spacing_at(np.array([0.0, np.inf, -np.inf, np.nan]), format), 0.0)


def test_errors_are_those_of_the_numbers() -> None:
    """Equal for equal numbers, in proportion for those of the same digits, opposite for opposite ones."""
    trace = _trace(lambda b, x, y: b.map("div", x, y), x=(5,), y=(5,))
    x = np.array([1.0, 1.0, -2.0, 0.5, 1.25])
    found = _drawn(trace, {"x": x, "y": np.full(5, 3.0)}, FLOAT32, samples=50).errors
    np.testing.assert_allclose(found[:, 1:4], found[:, :1] * [1.0, -2.0, 0.5], rtol=1e-6)
    assert (found[:, 4] != 1.25 * found[:, 0]).all()


def test_digits_make_uniform_numbers() -> None:
    """Of neighbouring numbers, too; those of two keys have nothing to do with each other."""
    values = 1.0 + 2.0**-52 * np.arange(100_000)
    one, two = (centred(values, np.uint64(key)) for key in (1, 2))
    for drawn in (one, two):
        assert stats.kstest(drawn + 0.5, "uniform").pvalue > 1e-4
        assert abs(np.corrcoef(drawn[1:], drawn[:-1])[0, 1]) < 0.015
    assert abs(np.corrcoef(one, two)[0, 1]) < 0.015
    np.testing.assert_array_equal(centred(-values, np.uint64(1)), -one)
    assert centred(np.array(1.5), np.uint64(3)).shape == ()


EXACT = {
    "twice": lambda b, x, y: b.map("add", x, x),
    "times a power of two": lambda b, x, y: b.map("mul", x, b.constant(0.25, (40,))),
    "by a power of two": lambda b, x, y: b.map("div", x, b.constant(-8, (40,))),
    "zero added": lambda b, x, y: b.map("add", b.constant(0, (40,)), x),
    "larger": lambda b, x, y: b.map("maximum", x, y),
    "turned": lambda b, x, y: b.map("neg", b.reshape(x, (4, 10))),
}


@pytest.mark.parametrize("inexact", [False, True])
@pytest.mark.parametrize("name", EXACT)
def test_what_keeps_all_bits_has_no_error_of_its_own(name, inexact) -> None:
    """Of inputs, and of what was rounded before."""

    def build(b, x, y):
        first = (b.map("div", x, y), b.map("div", y, x)) if inexact else (x, y)
        one, two = EXACT[name](b, *first), b.map("mul", first[0], b.constant(1))
        return b.move((two, one), np.arange(1, 81))

    rng = np.random.default_rng(1)
    inputs = {n: round_to(1 + rng.random(40), FLOAT32) for n in "xy"}
    found = _drawn(_trace(build, x=(40,), y=(40,)), inputs, FLOAT32, samples=8)
    before, after = found.errors[:, :40], found.errors[:, 40:]
    assert bool(before.any()) == inexact
    sizes = np.abs(found.value[40:]) / np.abs(found.value[:40])
    if name == "larger":
        assert (np.isclose(np.abs(after), np.abs(before), rtol=1e-6) | (sizes != 1)).all()
    else:
        np.testing.assert_allclose(np.abs(after), np.abs(before) * sizes, rtol=1e-6, atol=0)


def test_a_rounding_after_a_wider_one_is_not_forgotten() -> None:
    """A division by 32 keeps all digits of a float32 number, and most of those are lost when it becomes a
    bfloat16 one."""

    def build(b, x):
        b.format = "float32"
        total = b.map("div", b.map("exp", x), b.constant(32, (30,)))
        b.format = None
        return b.map("cast", total)

    x = round_to(np.random.default_rng(0).random(30), BFLOAT16)
    found = _drawn(_trace(build, x=(30,)), {"x": x}, BFLOAT16)
    unit = found.rms / spacing_at(found.value, BFLOAT16)
    assert abs(np.sqrt((unit**2).mean()) / HALF - 1) < 0.03


def test_sums_on_a_grid_have_no_error() -> None:
    trace = _trace(lambda b, x: b.reduce(x), x=(20, 50))
    x = np.random.default_rng(0).integers(-9, 9, (20, 50)) * 0.5
    assert not _drawn(trace, {"x": x}, FLOAT16, samples=2).errors.any()
    assert _drawn(trace, {"x": x / 3}, FLOAT16, samples=2).errors.any()


@pytest.mark.parametrize("levels", [(), (4,), (4, 4), (16,), (1.0, 3.0)])
@pytest.mark.parametrize("mean", [0.0, 1.0])
def test_partial_sums_in_levels(levels, mean) -> None:
    """Against the sums of squares that random orders have."""
    rng, n = np.random.default_rng(2), 48
    terms = rng.standard_normal(n) + mean
    expected = squares_of_partial_sums(n, (terms**2).sum(), terms.sum(), levels)
    totals = []
    for _ in range(3000):
        sums, seen = rng.permutation(terms), 0.0
        for length in (*levels, n):
            size = min(int(length), len(sums))
            chains = np.cumsum(sums.reshape(-1, size), axis=1)
            seen += (chains[:, 1:] ** 2).sum()
            sums = chains[:, -1]
        totals.append(seen)
    error = np.std(totals) / np.sqrt(len(totals))
    assert abs(np.mean(totals) - expected) < 5 * error + 1e-9 * expected


ORDERS = ("sequential", "pairwise", "blocked(8)", "strided(4)", "fma")


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("target", [FLOAT16, FLOAT32], ids=str)
def test_errors_of_an_emulated_kernel_are_as_predicted(target, order) -> None:
    """A chain of products, sums and functions, in many trials; from above and from below."""

    def build(b, x, w):
        hidden = b.map("tanh", b.reshape(b.contract(x, w), (6, 24)))
        scaled = b.map("div", hidden, b.constant(3))
        return b.reduce(b.map("mul", scaled, scaled))

    trace = _trace(build, x=(1, 6, 40), w=(1, 40, 24))
    rng = np.random.default_rng(3)
    trials = 60
    inputs = {
        "x": round_to(rng.standard_normal((trials, 1, 6, 40)), target),
        "w": round_to(rng.standard_normal((trials, 1, 40, 24)) / 6, target),
    }
    computed = simulate(trace, Simulated(target, order), inputs)["y"]
    ratios = []
    for k in range(trials):
        found = _drawn(trace, {n: v[k] for n, v in inputs.items()}, target, samples=16, order=order)
        ratios.append((computed[k] - found.value) / found.rms)
    ratios = np.array(ratios)
    assert 0.8 < np.sqrt((ratios**2).mean()) < 1.25
    assert abs(ratios.mean()) < 0.25
    # 360 values of Student's t with 16 degrees of freedom: once in 1e4 above 5.
    assert np.abs(ratios).max() < 6


def test_errors_of_float64_are_drawn_larger_and_come_back() -> None:
    """The same function in two formats has errors in proportion to u."""
    trace = _trace(lambda b, x: b.reduce(b.map("exp", x)), x=(30, 40))
    x = round_to(np.random.default_rng(4).standard_normal((30, 40)), FLOAT16)
    sizes = [_drawn(trace, {"x": x}, f).norms.mean() for f in (FLOAT32, FLOAT64)]
    assert abs(sizes[0] / sizes[1] - 1) < 0.05


def test_an_infinite_number_stays_and_has_no_error() -> None:
    trace = _trace(lambda b, x: b.map("exp", b.map("mul", x, b.constant(0.3))), x=(3,))
    found = _drawn(trace, {"x": np.array([1.0, -np.inf, 2.0])}, FLOAT32, samples=4)
    assert np.isfinite(found.rms).all() and found.value[1] == 0


# ------------------------------------------------------------------------------------------- views


def test_views_are_moves() -> None:
    x = np.arange(1.0, 121).reshape(4, 5, 6)
    numbers = np.arange(1, 121).reshape(4, 5, 6)
    cases = [
        numbers, numbers[1:], numbers[:, ::2], numbers.transpose(2, 0, 1), numbers[2], numbers[..., 3],
        numbers[1:2, 1:2], np.broadcast_to(numbers[:, None], (4, 3, 5, 6)), numbers[:1].repeat(2, 0),
        np.lib.stride_tricks.sliding_window_view(numbers, 3, axis=2), numbers[:, :, 5:6].swapaxes(0, 1),
    ]  # fmt: skip
    for index in cases:
        index = np.ascontiguousarray(index)
        assert as_view(index) is not None
        step = Move(index.shape, (0,), index)
        np.testing.assert_array_equal(move_elements(step, [x], 0), index)
        turned = x.transpose(1, 0, 2).copy().transpose(1, 0, 2)
        np.testing.assert_array_equal(move_elements(step, [turned], 0), index)


def test_other_moves_are_none() -> None:
    numbers = np.arange(1, 25).reshape(4, 6)
    padded, swapped = np.pad(numbers, 1), numbers.copy()
    swapped[2, 3], swapped[2, 4] = swapped[2, 4], swapped[2, 3]
    for index in (padded, swapped, numbers[::-1], numbers[[0, 1, 3]], np.zeros((2, 2), np.int64)):
        index = np.ascontiguousarray(index)
        assert as_view(index) is None
        step, x = Move(index.shape, (0,), index), np.arange(1.0, 25)
        np.testing.assert_array_equal(move_elements(step, [x], 0), index)


def test_the_order_matters_as_it_does() -> None:
    """A loop errs more than a balanced tree, about as sqrt(n / log n)."""
    trace = _trace(lambda b, x: b.reduce(x), x=(20, 512))
    x = round_to(np.random.default_rng(5).random((20, 512)), FLOAT32)
    loop, tree = (
        _drawn(trace, {"x": x}, FLOAT32, samples=100, order=order).norms.mean()
        for order in ("sequential", "pairwise")
    )
    assert 3 < loop / tree < 30


def _partial_sums(terms, levels):
    """The definition: chains of terms, chains of their sums, with zeros skipped."""
    found, sums = 0.0, list(terms)
    for length in (*levels, len(terms)):
        chains = [sums[k : k + int(length)] for k in range(0, len(sums), int(length))]
        sums = []
        for chain in chains:
            whole = 0.0
            for term in chain:
                rounds, whole = whole != 0 and term != 0, whole + term
                found += whole**2 if rounds else 0.0
            sums.append(whole)
    return found


@pytest.mark.parametrize("levels", [(), (4,), (4, 3), (7.0,), (100,)])
@pytest.mark.parametrize("n", [1, 2, 5, 12, 30])
def test_partial_sums_of_terms_in_turn(levels, n) -> None:
    """Zeros and sorted terms among them."""
    rng = np.random.default_rng(n)
    some = np.where(rng.random(n) < 0.3, 0.0, rng.normal(size=n))
    for terms in (rng.normal(size=n), np.sort(rng.normal(size=n)), some):
        found = squares_in_turn(terms[None], levels)
        assert abs(found[0] - _partial_sums(terms, levels)) <= 1e-12 * (1 + found[0])


def test_runs_of_equal_terms_err_together() -> None:
    """1, 1, 1, then 2, 0, 2: partial sums 2, 3 and 5, 7; each run's are added before they are squared."""
    terms = np.array([1.0, 1.0, 1.0, 2.0, 0.0, 2.0])
    assert squares_in_turn(terms) == (2 + 3) ** 2 + (5 + 7) ** 2
    assert squares_in_turn(terms[:4], (2,)) == (2 + 0) ** 2 + 3**2 + 5**2
    assert squares_in_turn(np.ones(4), (2,)) == (2 + 2) ** 2 + 4**2


@pytest.mark.parametrize("n", [30, 300])
def test_adding_one_number_again_and_again_errs_as_predicted(n) -> None:
    """In float32, many numbers; from above and from below."""
    numbers = np.random.default_rng(0).uniform(1, 2, 4000).astype(np.float32)
    total = np.zeros_like(numbers)
    for _ in range(n):
        total = total + numbers
    error = total.astype(float) - n * numbers.astype(float)
    repeated = np.repeat(numbers.astype(float)[:, None], n, axis=1)
    mean = (squares_in_turn(repeated) * (0.42466 * FLOAT32.u) ** 2).mean()
    assert 0.4 < np.sqrt((error**2).mean() / mean) < 1.1


def test_sums_that_layer_norm_keeps_in_16_bits_lose_small_terms_as_torch_does() -> None:
    """Terms of one sign, of which later ones are swallowed: an error to one side, in every sample."""
    x = torch.randn(600, 16, generator=torch.Generator().manual_seed(0))
    inputs = {"x": x, "w": torch.ones(16), "b": torch.zeros(16)}

    def function(x, w, b):
        return torch.nn.functional.layer_norm(x, (16,), w, b)

    found = ro.predict(function, inputs, ("w", "b"), lambda o: (o**2).sum(), format="bfloat16")["w"]
    along = (found.errors * found.value).sum(axis=1) / (found.value**2).sum()
    assert (along < -0.02).all() or (along > 0.02).all()
    assert np.std(along) < 0.5 * abs(np.mean(along))


@pytest.mark.parametrize("levels", [(), (24.0,), (5.0,)])
@pytest.mark.parametrize("n", [1, 2, 7, 8, 9, 64, 100])
def test_partial_sums_of_products_in_turn(levels, n) -> None:
    """Those that are known are exact; in between random order is assumed: in the mean within a tenth."""
    rng = np.random.default_rng(n)
    a = rng.normal(size=(2, 30, n))
    b = np.sort(rng.normal(size=(2, n, 20)), axis=1) + 0.3
    terms = np.moveaxis(a[:, :, :, None] * b[:, None, :, :], 2, -1)
    exact = squares_in_turn(terms, levels)
    found = squares_of_products_in_turn(a, b, levels)
    if n <= 8 or (levels and levels[0] <= 8):
        assert np.allclose(found, exact, rtol=1e-9, atol=1e-12)
    assert abs(found.sum() - exact.sum()) <= 0.1 * exact.sum()


def test_terms_that_come_sorted_err_as_a_loop_over_them_does() -> None:
    """As layer norm's 16-bit sums over rows of a ramp, say: in random order errors would be a fifth."""
    ramp = np.linspace(-1.0, 1.0, 512).reshape(512, 1) * np.ones(40) * 0.7
    trace = _trace(lambda b, x: b.reduce(x), x=(40, 512))
    found = _drawn(trace, {"x": ramp.T}, FLOAT16, samples=64, order="sequential")
    turn = squares_in_turn(ramp.T)
    random = squares_of_partial_sums(512, (ramp.T**2).sum(1), ramp.T.sum(1))
    ratio = np.sqrt((found.errors**2).mean() / (turn.mean() * (0.42466 * FLOAT16.u) ** 2))
    assert 0.8 < ratio < 1.25
    assert turn.mean() > 25 * random.mean()


MOVES = {
    "transposed": lambda n: np.swapaxes(n, 0, 1),
    "sliced": lambda n: n[1:, ::2],
    "expanded": lambda n: np.broadcast_to(n[:1, None], (1, 3, n.shape[1])),
    "windows": lambda n: np.lib.stride_tricks.sliding_window_view(n, 2, axis=1),
    "flipped": lambda n: n[:, ::-1],
}


@pytest.mark.parametrize("name", MOVES)
def test_views_back_are_sums_over_where_elements_went(name) -> None:
    numbers = np.arange(1, 21).reshape(4, 5)
    index = np.ascontiguousarray(MOVES[name](numbers))
    step = Move(index.shape, (0,), index)
    values = np.random.default_rng(0).normal(size=index.shape)
    found = moved_back(step, values, 20)
    if name in ("windows", "flipped"):
        assert found is None
    else:
        assert np.allclose(found, np.bincount(index.ravel(), values.ravel(), 21)[1:], rtol=1e-12)


@pytest.mark.parametrize("name", ["sigmoid", "exp", "tanh", "erf", "log"])
@pytest.mark.parametrize("format", ["float32", "float64"])
def test_elementary_functions_err_as_they_usually_do(name, format) -> None:
    """Libraries differ between machines: by a factor of 1.6 at most."""
    x = torch.from_numpy(0.1 + np.abs(np.random.default_rng(0).normal(size=3000)))
    x = x.to(getattr(torch, format)).double()
    found = ro.predict(lambda x: getattr(x, name)(), {"x": x}, ("x",), torch.sum, format=format)
    context = mpmath.MPContext()
    context.prec = 120
    exact = by_mpmath(name, context)
    native = getattr(torch, name)(x.to(getattr(torch, format))).double().tolist()
    errors = [
        float(context.mpf(y) - exact(context.mpf(v)))
        for y, v in zip(native, x.tolist(), strict=True)
    ]
    ratio = np.linalg.norm(errors) / np.linalg.norm(found["output"].rms)
    assert 1 / 1.6 < ratio < 1.6, ratio


@pytest.mark.parametrize("function", ["leaky_relu", "celu"])
def test_what_a_selection_takes_as_it_is_has_no_error(function) -> None:
    """A number of the format, in a kernel that computes the other branch in float32; upstream likewise."""
    x = round_to(np.random.default_rng(0).normal(size=40), BFLOAT16)
    upstream = round_to(np.random.default_rng(1).normal(size=40), BFLOAT16)
    found = ro.predict(getattr(torch.nn.functional, function), {"input": x}, None, None, upstream,
                       format="bfloat16")  # fmt: skip
    for each in found.values():
        assert (each.rms[x > 0] == 0).all() and (each.rms[x < 0] > 0).all()
