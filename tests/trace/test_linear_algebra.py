"""References against mpmath's own functions; verdicts on two ways to write one thing, and on a mistake."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

import roundoff as ro

L = torch.linalg
G = torch.Generator().manual_seed(3)
A = torch.randn(4, 4, generator=G)
B = torch.randn(4, 2, generator=G)


def _gradient_of(function, a):
    """Of a function of a matrix of mpmath's, by differences of 60 digits."""
    with mpmath.workdps(60):
        step = mpmath.mpf(10) ** -20
        at = mpmath.matrix(a.tolist())
        found = np.zeros(a.shape)
        for i, j in np.ndindex(*a.shape):
            up, down = at.copy(), at.copy()
            up[i, j] += step
            down[i, j] -= step
            found[i, j] = float((function(up) - function(down)) / (2 * step))
    return found


def _total(matrix):
    return mpmath.fsum(x**3 for x in matrix)


def _positive(a):
    return a @ a.mT + torch.eye(4, dtype=a.dtype)


def _positive_of(m):
    return m * m.T + mpmath.eye(4)


def _eigenvalues(m):
    return mpmath.eigsy(_positive_of(m), eigvals_only=True)


#: A loss in PyTorch, and the same one in mpmath.
SAME = {
    "det": (lambda a: L.det(a), mpmath.det),
    "inv": (lambda a: (L.inv(a) ** 3).sum(), lambda m: _total(m**-1)),
    "logdet": (lambda a: torch.logdet(_positive(a)), lambda m: mpmath.log(mpmath.det(_positive_of(m)))),
    "cholesky": (
        lambda a: (L.cholesky(_positive(a)) ** 3).sum(),
        lambda m: _total(mpmath.cholesky(_positive_of(m))),
    ),
    "qr": (lambda a: (L.qr(a)[1].diagonal() ** 2).sum(), lambda m: _diagonal(mpmath.qr(m)[1])),
    "eigvalsh": (lambda a: (L.eigvalsh(_positive(a)) ** 3).sum(), lambda m: _total(_eigenvalues(m))),
    "svdvals": (lambda a: (L.svdvals(a) ** 3).sum(), lambda m: _total(mpmath.svd_r(m, compute_uv=False))),
    "exp": (lambda a: (torch.matrix_exp(a) ** 3).sum(), lambda m: _total(mpmath.expm(m))),
    "pinv": (
        lambda a: (L.pinv(a[:, :2]) ** 3).sum(),
        lambda m: _total((m[:, :2].T * m[:, :2]) ** -1 * m[:, :2].T),
    ),
}  # fmt: skip


def _diagonal(m):
    return mpmath.fsum(m[k, k] ** 2 for k in range(4))


@pytest.mark.parametrize("name", SAME)
def test_references_are_what_mpmath_finds(name) -> None:
    function, known = SAME[name]
    found = ro.reference_gradients(function, {"a": A}, format="float64")["a"]
    exact = _gradient_of(known, A.double())
    assert np.allclose(found.high, exact, rtol=1e-14, atol=1e-14 * np.abs(exact).max())


def _squares(out):
    return (out * out).sum()


#: One function written in two ways, and another one.
WAYS = {
    "solution": (
        lambda a, b: L.solve(a, b),
        lambda a, b: L.inv(a) @ b,
        lambda a, b: L.solve(a.mT, b),
    ),
    "determinant": (
        lambda a, b: torch.logdet(_positive(a)),
        lambda a, b: 2 * L.cholesky(_positive(a)).diagonal().log().sum(),
        lambda a, b: L.cholesky(_positive(a)).diagonal().log().sum(),
    ),
    "system": (
        lambda a, b: torch.cholesky_solve(b, L.cholesky(_positive(a))),
        lambda a, b: L.solve(_positive(a), b),
        lambda a, b: L.solve(_positive(a) + 0.001, b),
    ),
    "values": (
        lambda a, b: L.svdvals(a).flip(0) ** 2 + 1,
        lambda a, b: L.eigvalsh(_positive(a)),
        lambda a, b: L.svdvals(a).flip(0) ** 2 + 2,
    ),
    "least squares": (
        lambda a, b: L.lstsq(a[:, :2], b).solution,
        lambda a, b: L.pinv(a[:, :2]) @ b,
        lambda a, b: L.pinv(a[:, 1:3]) @ b,
    ),
}


@pytest.mark.parametrize("name", WAYS)
def test_two_ways_differ_by_rounding_and_another_function_does_not(name) -> None:
    one, two, other = WAYS[name]
    inputs = {"a": A, "b": B}
    for function, expected in ((two, {"ROUNDOFF", "IDENTICAL"}), (other, {"DIFFERENT"})):
        result = ro.compare(one, function, inputs, ("a",), _squares, formats=("float32", "float64"))
        assert set(map(str, result.table["verdict"])) <= expected, str(result)


def test_equal_candidates_for_a_pivot_are_no_tie() -> None:
    a = torch.tensor([[2.0, 1.0], [2.0, 3.0]])
    found = ro.reference_gradients(lambda a: L.det(a), {"a": a})["a"]
    assert found.hi.tolist() == [[3.0, -2.0], [-1.0, 2.0]]


def test_matrices_without_factors_are_refused_by_name() -> None:
    with pytest.raises(ro.RoundoffError, match="cholesky"):
        ro.reference_gradients(lambda a: L.cholesky(a).sum(), {"a": -torch.eye(2)})
    with pytest.raises(ro.RoundoffError, match="equal eigenvalues"):
        ro.reference_gradients(lambda a: (L.eigh(a)[1] ** 3).sum(), {"a": torch.eye(3)})
    with pytest.raises(ro.RoundoffError, match="rtol or atol"):
        ro.reference_gradients(lambda a: L.pinv(a, rtol=0.9).sum(), {"a": A})


def test_bounds_of_what_is_refined_say_nothing() -> None:
    bounds = ro.gradient_bounds(lambda a: L.svdvals(a).sum(), {"a": A})
    assert torch.isinf(bounds["a"].certified).all()
