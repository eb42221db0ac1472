"""Fourier transforms: against mpmath, against PyTorch's own, in bounds and in verdicts."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from zoo_complex import FOURIER, X, convolved

import roundoff as ro
from roundoff.bounds import theorems
from roundoff.gradients.native import native_gradients
from roundoff.gradients.reference import reference_of_trace
from roundoff.trace import prune, trace_gradients
from roundoff.trace.decomposed import fourier

G = torch.Generator().manual_seed(11)
FORMATS = ("float32", "float64")


def squares(out):
    return (out * out).sum()


def parts(z):
    return torch.view_as_real(z.resolve_conj())


def _normal(*shape):
    return torch.randn(*shape, generator=G, dtype=torch.float64)


def _exact(function, x, loss=squares):
    trace = trace_gradients(function, {"x": x}, (), loss, forward=True, format="float64")
    return reference_of_trace(prune(trace), {"x": x.numpy()}, format="float64")["output"]


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 8, 12, 15, 16, 20, 24])
def test_transforms_against_mpmath(n) -> None:
    x = _normal(n, 2)
    calls = {
        1: lambda x: parts(torch.fft.ifft(torch.view_as_complex(x), norm="forward")),
        -1: lambda x: parts(torch.fft.fft(torch.view_as_complex(x))),
    }
    with mpmath.workdps(60):
        given = [mpmath.mpc(float(a), float(b)) for a, b in x]
        for sign, function in calls.items():
            found = _exact(function, x)
            for k in range(n):
                turn = [mpmath.expjpi(mpmath.mpf(sign * 2 * j * k) / n) for j in range(n)]
                wanted = mpmath.fdot(given, turn)
                for place, part in enumerate((wanted.real, wanted.imag)):
                    got = mpmath.mpf(float(found.high[k, place])) + float(found.low[k, place])
                    assert abs(got - part) <= 2.0**-85 * n


@pytest.mark.parametrize("name", FOURIER)
def test_references_are_torchs_own_gradients(name) -> None:
    function = FOURIER[name]
    x = X.clone().requires_grad_()
    (native,) = torch.autograd.grad(squares(function(x)), x)
    found = ro.reference_gradients(function, {"x": X}, loss=squares, format="float64")["x"]
    assert np.allclose(found.high, native.numpy(), rtol=1e-11, atol=1e-11)


def test_cosines_are_exact_where_they_are_rational() -> None:
    """So that what cancels is 0: every other element of the transform of two equal numbers, n/2 apart."""
    n = 24
    x = torch.zeros(n, dtype=torch.float64)
    x[[3, 3 + n // 2]] = 1 / 3
    found = _exact(lambda x: parts(torch.fft.fft(x)), x)
    assert (found.high[1::2] == 0).all()
    for k in range(0, n, 2):
        quarters = {0: (2, 0), 1: (0, -2), 2: (-2, 0), 3: (0, 2)}
        wanted = np.array(quarters[k // 2 % 4]) * float(x[3])
        assert (found.high[k] == wanted).all()


@pytest.mark.parametrize("n", [12, 30, 96, 97, 100])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("places", [(1,), (1, 2, 5)])
def test_bounds_hold_where_an_element_does_not_depend_on_another(n, format, places) -> None:
    """A quarter of a turn made of others leaves rounding errors in zeros: bounds are never elementwise."""
    function = lambda x: torch.stack([torch.fft.fft(x)[k].real * (k + 1) for k in places])
    inputs = {"x": _normal(n)}
    exact = ro.reference_gradients(function, inputs, loss=torch.sum, format=format)["x"]
    bound = ro.gradient_bounds(function, inputs, loss=torch.sum, format=format)["x"].certified
    native = native_gradients(function, inputs, None, torch.sum, format=format)["x"]
    error = np.abs((native - exact.high) - exact.low)
    assert (error <= np.asarray(bound) + exact.error).all()
    assert (np.asarray(bound) > 0).all()


def test_the_bound_covers_unit_vectors_at_all_lengths() -> None:
    """The error of a number's way through a transform, in u of the number: K of the theorem at most."""
    u = 2.0**-24
    for n in (2, 3, 4, 6, 7, 9, 11, 13, 16, 17, 19, 23, 25, 30, 49, 64, 97, 121, 128, 143, 169):
        third = torch.full((n,), 1 / 3)
        found = torch.view_as_real(torch.fft.fft(third.diag())).double()
        exact = torch.view_as_real(torch.fft.fft(third.double().diag()))
        error = float((found - exact).abs().max() / third[0])
        assert error <= theorems.fourier([n], u) + 2.0**-50
        assert theorems.fourier([n], u) <= 4000 * u * np.log2(2 * n)


def test_the_theorem_adds_up_axes() -> None:
    u = 2.0**-24
    assert theorems.fourier([8, 9], u) == theorems.gamma(3 * 11 + 2 * 12, u)
    assert theorems.fourier([1], u) == 0
    assert theorems.fourier([17], u) > 10 * theorems.fourier([16], u)
    assert [theorems.prime_factors(n) for n in (1, 2, 12, 97)] == [[], [2], [2, 2, 3], [97]]


def by_matrix(x):
    """The transform by its matrix."""
    n = x.shape[-1]
    numbers = torch.arange(n)
    pi = 4 * torch.ones((), dtype=x.dtype).atan()
    angles = 2 * pi * (numbers[:, None] * numbers % n).to(x.dtype) / n
    waves = torch.complex(angles.cos(), -angles.sin())
    return parts(x.to(waves.dtype) @ waves)


def _verdicts(first, second, inputs):
    found = ro.compare(first, second, inputs, loss=squares, formats=FORMATS)
    return {str(pair.judgement.verdict) for pair in found.pairs.values()}


@pytest.mark.parametrize("n", [8, 30, 97, 100])
def test_a_transform_is_its_matrix(n) -> None:
    one = torch.eye(n, dtype=torch.float64)[3:4] / 3
    for x in (_normal(3, n), one):
        found = _verdicts(lambda x: parts(torch.fft.fft(x)), by_matrix, {"x": x})
        assert found <= {"ROUNDOFF", "IDENTICAL"}


def direct(x, w):
    """A causal convolution."""
    n = w.shape[-1]
    return F.conv1d(F.pad(x[:, None], (n - 1, 0)), w.flip(-1)[None, None])[:, 0]


def correlated(x, w):
    """The conjugate that a convolution does not have."""
    n = x.shape[-1] + w.shape[-1]
    spectrum = torch.fft.rfft(x, n=n) * torch.fft.rfft(w, n=n).conj()
    return torch.fft.irfft(spectrum, n=n)[..., : x.shape[-1]]


def test_a_convolution_by_spectra_and_its_bug() -> None:
    inputs = {"x": _normal(3, 40), "w": _normal(7)}
    assert _verdicts(convolved, direct, inputs) <= {"ROUNDOFF", "IDENTICAL"}
    assert _verdicts(correlated, direct, inputs) == {"DIFFERENT"}


def test_long_transforms_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(fourier, "LONGEST", 20)
    with pytest.raises(ro.UnsupportedError, match="of 21 elements.* at most 20 along an axis"):
        ro.reference_gradients(lambda x: torch.fft.fft(x).abs(), {"x": _normal(21)}, loss=squares)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("n", [8, 30, 64, 97])
def test_native_errors_are_of_the_predicted_size(n, format) -> None:
    function, inputs = lambda x: parts(torch.fft.fft(x)), {"x": _normal(8, n)}
    predicted = ro.predict(function, inputs, None, squares, format=format)["x"]
    exact = ro.reference_gradients(function, inputs, None, squares, format=format)["x"]
    native = native_gradients(function, inputs, None, squares, format=format)["x"]
    error = (native - exact.high) - exact.low
    assert 1 / 6 < np.sqrt((error**2).sum() / (predicted.rms**2).sum()) < 6


def test_zeros_of_a_transform_have_predicted_errors() -> None:
    x = {"x": _normal(100)}
    found = ro.predict(lambda x: torch.fft.fft(x)[1].real * 3, x, None, torch.sum, format="float32")
    exact = ro.reference_gradients(lambda x: torch.fft.fft(x)[1].real * 3, x, loss=torch.sum)["x"]
    assert (exact.high[[25, 75]] == 0).all()
    assert (found["x"].rms[[25, 75]] > 2.0**-26).all()
