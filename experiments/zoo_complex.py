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

Z = {name: (function, {"x": X}) for name, function in COMPLEX.items()}
