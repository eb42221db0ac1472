"""Functions that take real tensors and compute with complex ones."""

from __future__ import annotations

import torch

G = torch.Generator().manual_seed(23)
X = torch.randn(3, 4, 2, generator=G, dtype=torch.float64)
TURNS = torch.polar(torch.ones(4, dtype=torch.float64), torch.arange(4, dtype=torch.float64))


def of(x):
    """Pairs along the last axis as complex numbers, which PyTorch has none of in bfloat16."""
    return torch.view_as_complex(wide(x))


def wide(x):
    """In float32 at least, as it is usual."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def parts(z):
    """The other way."""
    return torch.view_as_real(z)


def _type(x):
    return torch.complex128 if x.dtype == torch.float64 else torch.complex64


def rotary(x):
    """Rotary embedding: angles by position and by pair."""
    x = wide(x)
    places = torch.arange(x.shape[0], dtype=x.dtype)[:, None]
    speeds = 1 / 100.0 ** (torch.arange(x.shape[1], dtype=x.dtype) / x.shape[1])
    angles = places * speeds
    return parts(of(x) * torch.polar(torch.ones_like(angles), angles))


def _in_place(x):
    z = of(x).clone()
    z[1] *= 2j
    z[:, 0] = 1j
    z += 1
    return parts(z * z.conj().roll(1, 0))


def _filled(x):
    z, zeros = of(x), torch.zeros(3, 4, dtype=_type(x))
    zeros[:, 1:] = z[:, :3]
    new = z.new_zeros(3, 4)
    new[0] = z[1].real
    return parts(zeros * z + new + torch.full((3, 4), 2j, dtype=_type(x)) * torch.ones_like(z) * z)


def _chosen(x):
    z, right = of(x), x[..., 0] > 0
    return parts(torch.where(right, z, 2 * z) * z.masked_fill(~right, 2 + 1j))


COMPLEX = {
    "rotary": rotary,
    "complex products": lambda x: parts(of(x) * of(x).conj().roll(1, 0) * 1j + (2 - 0.5j)),
    "complex quotients": lambda x: parts(of(x) / (of(x).roll(1, 0) + 2) + x.sum() / of(x)),
    "complex constants": lambda x: parts(of(x) / (3 - 1j) + 0.3j / of(x) - 2 * of(x)),
    "complex from parts": lambda x: parts(torch.complex(*wide(x * 2).unbind(-1)) ** 2),
    "complex from polar": lambda x: parts(torch.polar(*wide(x).unbind(-1)) * of(x)),
    "complex size": lambda x: of(x).abs() * of(x).angle(),
    "complex sign": lambda x: parts(of(x).sgn() * of(x)),
    "complex exp": lambda x: parts(of(x).exp() * of(x).log()),
    "complex sqrt": lambda x: parts(of(x).sqrt() + of(x).rsqrt()),
    "complex sin": lambda x: parts(of(x).sin() + of(x).cos() * of(x).sinh() + of(x).cosh()),
    "complex tanh": lambda x: parts(of(x).tanh() + of(x).tan() + of(x).sigmoid()),
    "complex log10": lambda x: parts(of(x).log10() + of(x).log2()),
    "complex pow": lambda x: parts(of(x) ** 3 + of(x) ** 1.5 + of(x) ** of(x)),
    "complex reciprocal": lambda x: parts(of(x).reciprocal() + of(x) ** -2),
    "complex sums": lambda x: parts(of(x).sum(0) * of(x).mean(0) + of(x).cumsum(0)),
    "complex prod": lambda x: parts(of(x)[0].prod() * of(x).cumprod(0)),
    "complex var": lambda x: of(x).var(0) + of(x).std() * of(x).norm(),
    "complex matmul": lambda x: parts(of(x) @ of(x).mH),
    "complex einsum": lambda x: parts(torch.einsum("ij,kj->ik", of(x), of(x).conj())),
    "complex bmm": lambda x: parts(torch.bmm(of(x)[None], of(x).mT[None].conj())),
    "complex dot": lambda x: parts(of(x) @ of(x)[0] + torch.vdot(of(x)[1], of(x)[0])),
    "complex addmm": lambda x: parts(
        torch.addmm(of(x) @ of(x).mT, of(x), of(x).mT, beta=0.5, alpha=2j)
    ),
    "complex choices": _chosen,
    "complex moves": lambda x: parts(
        torch.cat([of(x), of(x).flip(0).conj()])[torch.tensor([0, 3, 3])].T.reshape(-1)
    ),
    "complex stack": lambda x: parts(torch.stack([of(x), of(x).conj() * 2], -1)[1:, :, 0]),
    "complex casts": lambda x: parts(x[..., 0].to(_type(x)) * of(x).to(torch.complex64)),
    "complex parts": lambda x: of(x).real * of(x).conj().imag,
    "complex in place": _in_place,
    "complex filled": _filled,
    "complex brought along": lambda x: parts(of(x) * TURNS.to(_type(x))),
}


def windowed(x):
    """Spectra of overlapping pieces, and back."""
    x = wide(x)
    window = torch.hann_window(8, dtype=x.dtype)
    z = torch.stft(x.reshape(-1), 8, 4, window=window, return_complex=True, normalized=True)
    return torch.istft(z * z.abs(), 8, 4, window=window, normalized=True)


def convolved(x, w):
    """A long convolution by spectra."""
    x, w = wide(x), wide(w)
    n = x.shape[-1] + w.shape[-1]
    return torch.fft.irfft(torch.fft.rfft(x, n=n) * torch.fft.rfft(w, n=n), n=n)[..., : x.shape[-1]]


def spectral(x):
    """Two axes, and back."""
    spectrum = torch.fft.rfft2(wide(x), s=(3, 6), dim=(0, 1))
    return torch.fft.irfft2(spectrum * spectrum.conj(), s=(3, 5), dim=(0, 1), norm="forward")


fft = torch.fft
FOURIER = {
    "fft": lambda x: parts(fft.fft(wide(x), dim=1)),
    "fft, padded": lambda x: parts(fft.fft(of(x), n=5, norm="ortho")),
    "fft of a prime": lambda x: parts(fft.fft(wide(x).reshape(-1), n=23)),
    "ifft": lambda x: parts(fft.ifft(of(x), dim=0)),
    "rfft": lambda x: parts(fft.rfft(wide(x).reshape(-1)) ** 2),
    "rfft, cut": lambda x: parts(fft.rfft(wide(x).reshape(2, 12), n=9, norm="forward")),
    "irfft": lambda x: fft.irfft(of(x)) ** 2,
    "irfft, odd": lambda x: fft.irfft(of(x), n=7, norm="ortho"),
    "fft2": lambda x: parts(fft.fft2(of(x))),
    "fftn": lambda x: parts(fft.fftn(wide(x), norm="ortho")),
    "rfftn": lambda x: parts(fft.rfftn(wide(x), dim=(0, 1)) * 2),
    "hfft": lambda x: fft.hfft(of(x), n=6),
    "ihfft": lambda x: parts(fft.ihfft(wide(x)[..., 0]).resolve_conj()),
    "hfftn": lambda x: fft.hfft2(of(x)),
    "fftshift": lambda x: parts(fft.fftshift(fft.fft(of(x)))),
    "one of a spectrum": lambda x: fft.fft(wide(x).reshape(2, 12))[:, 1].real,
    "stft": windowed,
    "spectral": spectral,
}

Z = {name: (function, {"x": X}) for name, function in (COMPLEX | FOURIER).items()}
W = torch.randn(5, generator=G, dtype=torch.float64)
Z["convolved"] = convolved, {"x": X[..., 0], "w": W}
