"""What is certain and predicted of sums of many products, from a sample: against all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from roundoff.arithmetic import products_by_chance
from roundoff.arithmetic.products_by_chance import MANY, ProductsByChance
from roundoff.numbers.formats import BFLOAT16, FLOAT32, FLOAT64, Format, round_to

Array = np.ndarray
Factors = tuple[Array, Array]
ROWS, N, COLUMNS = 96, 512, 128


def _normal(rng: np.random.Generator) -> Factors:
    return rng.standard_normal((2, ROWS, N)), rng.standard_normal((2, N, COLUMNS))


def _rectified(rng: np.random.Generator) -> Factors:
    a, b = _normal(rng)
    return np.maximum(a, 0), b


def _spread(rng: np.random.Generator) -> Factors:
    return tuple(np.exp(4 * v) for v in _normal(rng))  # type: ignore[return-value]


def _constant(rng: np.random.Generator) -> Factors:
    return np.full((2, ROWS, N), 0.1), np.full((2, N, COLUMNS), 0.7)


def _of_four(rng: np.random.Generator) -> Factors:
    return rng.choice([0.1, 0.3, 0.7, 1.1], (2, ROWS, N)), rng.choice(
        [0.2, 0.77, 1.3], (2, N, COLUMNS)
    )


def _integers(rng: np.random.Generator) -> Factors:
    return rng.integers(-9, 9, (2, ROWS, N)) * 1.0, rng.integers(-9, 9, (2, N, COLUMNS)) * 1.0


def _reciprocal(rng: np.random.Generator) -> Factors:
    a = rng.random((2, ROWS, N)) + 0.5
    return a, np.resize(1.0 / a, (2, COLUMNS, N)).swapaxes(1, 2)


def _one_huge(rng: np.random.Generator) -> Factors:
    a, b = (1 + 0.01 * rng.random(shape) for shape in ((2, ROWS, N), (2, N, COLUMNS)))
    b[:, 0] = 1e5
    return a, b


DATA = (_normal, _rectified, _spread, _constant, _of_four, _integers, _reciprocal, _one_huge)


def _most(a: Array, b: Array) -> Array:
    return 0.5 * (np.abs(a) @ np.abs(b) + np.abs(a @ b))


def _small(a: Array, b: Array, unit: float) -> Array:
    """Counted one by one."""
    limits, found = 4 * unit * _most(a, b), np.zeros((2, ROWS, COLUMNS))
    for k in range(N):
        sizes = np.abs(a[:, :, k, None] * b[:, k, None, :])
        found += (sizes > 0) & (sizes < limits)
    return found


def _bound(part: tuple[Array, Array], unit: float, most: Array) -> Array:
    """Of chance, of certain errors and of the drift together."""
    small, drift = part
    return (6.5 * np.sqrt(np.maximum(N - small, 0)) + small) * unit * most + drift


@pytest.mark.parametrize("wide", [FLOAT32, FLOAT64, BFLOAT16], ids=str)
@pytest.mark.parametrize("data", DATA)
def test_a_sample_stands_for_all(
    data: Callable[[np.random.Generator], Factors], wide: Format
) -> None:
    """Not below what all products say but by chance, and not far above; twice where many are small."""
    a, b = (round_to(v, wide) for v in data(np.random.default_rng(1)))
    most = _most(a, b)
    assert most.size * N > MANY, "or nothing is sampled"
    law = ProductsByChance(wide, held=2 * wide.precision <= 53, whole=False)
    sampled, full = law(a, b, most), law.of_each(a, b, most)
    counted = _small(a, b, wide.u)
    np.testing.assert_array_equal(full[0], counted)
    assert (sampled[0] >= counted).all()
    assert (sampled[1] >= full[1] * (1 - 1e-12)).mean() > 0.99
    ratio = _bound(sampled, wide.u, most) / _bound(full, wide.u, most)
    assert ratio.min() > 0.9 and np.median(ratio) < (1.6 if wide.precision > 20 else 2.2)


def test_few_small_factors_are_looked_at_one_by_one() -> None:
    a, b = (round_to(v, FLOAT32) for v in _normal(np.random.default_rng(1)))
    found = ProductsByChance(FLOAT32, held=True, whole=False)(a, b, _most(a, b))[0]
    counted = _small(a, b, FLOAT32.u)
    assert counted.sum() > 1000 and (found <= 2 * counted).all()
    assert found.sum() < 1.3 * counted.sum(), "twice only where both factors are small"


def test_repeated_numbers_of_one_row_and_one_column_are_found() -> None:
    """Whether the sample has that sum or not; and no others are taken to be like it."""
    for row, column in ((0, 0), (5, 17), (95, 127)):
        a, b = (round_to(v, FLOAT32) for v in _normal(np.random.default_rng(2)))
        a[1, row] = round_to(0.1 * (1 + 2.0**-22 * np.random.default_rng(3).random(N)), FLOAT32)
        b[1, :, column] = round_to(np.array(0.3), FLOAT32)
        most = _most(a, b)
        drift = ProductsByChance(FLOAT32, held=True, whole=False)(a, b, most)[1]
        alone = slice(1, 2), slice(row, row + 1), slice(column, column + 1)
        each = ProductsByChance(FLOAT32, held=True, whole=False).of_each(
            a[alone[0], alone[1]], b[alone[0], :, alone[2]], most[alone]
        )
        at = 1, row, column
        units = FLOAT32.u * most * np.sqrt(N)
        assert each[1].item() > 4 * units[at], "a sum that drifts"
        assert drift[at] == each[1].item()
        assert np.median(drift / units) < 4


def test_every_row_and_column_is_in_the_sample() -> None:
    for shape in ((1, 3, 7), (4, 7, 3), (2, 5, 5)):
        parts = list(products_by_chance._sample(shape, 4))
        found = [np.concatenate(part) for part in zip(*parts, strict=True)]
        assert all(len(part[0]) <= 4 for part in parts)
        for axis in (1, 2):
            pairs = set(zip(found[0].tolist(), found[axis].tolist(), strict=True))
            assert len(pairs) == shape[0] * shape[axis]


@pytest.mark.parametrize(
    ("rows", "n", "columns"),
    [(4, N, 3), (2, 0, 2), (1, MANY + 1, 1), (1, MANY // 4, 5), (5, MANY // 4, 1)],
)
def test_few_products_or_sums_are_all_looked_at(rows: int, n: int, columns: int) -> None:
    rng = np.random.default_rng(0)
    a, b = (round_to(rng.standard_normal(s), FLOAT32) for s in ((1, rows, n), (1, n, columns)))
    law = ProductsByChance(FLOAT32, held=True, whole=False)
    for one, other in zip(law(a, b, _most(a, b)), law.of_each(a, b, _most(a, b)), strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_array_equal(one, other)


def test_numbers_that_are_not_finite_spoil_their_own_sums_alone() -> None:
    a, b = _normal(np.random.default_rng(4))
    a[0, 3, 5], b[1, 7, 9], a[1, 2, 2] = np.inf, np.nan, 1e-320
    with np.errstate(all="ignore"):
        most = _most(a, b)
        small, drift = ProductsByChance(FLOAT64, held=False, whole=False)(a, b, most)
    good = np.isfinite(most)
    assert good.sum() == good.size - COLUMNS - ROWS
    assert np.isfinite(small[good]).all() and np.isfinite(drift[good]).all()
    assert not np.isfinite(drift[~good]).any()
