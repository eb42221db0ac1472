"""Special functions, and others that are written with them."""

from __future__ import annotations

import torch

G = torch.Generator().manual_seed(13)
T = torch.special


def R(*shape):  # noqa: D103
    return torch.randn(*shape, generator=G)


def f(function, **inputs):  # noqa: D103
    return function, inputs


def wide(x):
    """Where kernels know no 16-bit numbers."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


Z = {}
Z["lgamma"] = f(lambda x: torch.lgamma(x.abs() + 0.5), x=R(5))
Z["digamma"] = f(lambda x: torch.digamma(wide(x)), x=R(5))
for n in (0, 1, 2, 3):
    Z[f"polygamma{n}"] = f(
        lambda x, n=n: torch.polygamma(n, wide(x)), x=torch.tensor([-1.4, 0.8, 1.25, -0.6, 2.5])
    )
Z["mvlgamma"] = f(lambda x: torch.mvlgamma(x.abs() + 2, 3), x=R(5))
Z["erfinv"] = f(lambda x: torch.erfinv(wide(x).tanh()), x=R(5))
Z["i0"] = f(lambda x: torch.i0(x), x=R(5))
for n in ("i0e", "i1", "i1e", "ndtri", "log_ndtr", "erfcx"):
    Z[n] = f(lambda x, n=n: getattr(T, n)(wide(x).sigmoid() if n == "ndtri" else wide(x)), x=R(5))
Z["xlog1py"] = f(lambda x, y: T.xlog1py(x, y * y), x=R(5), y=R(5))
Z["xlogy_of_a_number"] = f(lambda y: torch.xlogy(2.0, y * y + 1), y=R(5))
Z["logaddexp2"] = f(lambda x, y: torch.logaddexp2(wide(x), wide(y)), x=R(5), y=R(5))
Z["logcumsumexp"] = f(lambda x: torch.logcumsumexp(wide(x), 1), x=R(3, 4))
Z["atan2"] = f(lambda x, y: torch.atan2(x, y), x=R(12), y=R(12))
Z["copysign"] = f(lambda x, y: torch.copysign(x, y), x=R(5), y=R(5))
Z["degrees"] = f(lambda x: torch.deg2rad(x) * torch.rad2deg(x), x=R(5))
Z["ldexp"] = f(lambda x: torch.ldexp(x, torch.tensor([1, 2, -1, 0, 3])), x=R(5))
