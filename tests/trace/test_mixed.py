"""Code that casts inside: every step in the format that it is computed in, and the trace in the judged type."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from zoo import Z, loss

import roundoff as ro
from roundoff.gradients.bounds import bounds_of_trace
from roundoff.gradients.inputs import float64_array, round_inputs
from roundoff.gradients.native import native_gradients
from roundoff.gradients.reference import reference_of_trace
from roundoff.trace import prune, trace_gradients

FORMATS = ("float16", "bfloat16", "float32", "float64")


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def total(out):
    return out.float().sum() if out.dtype != torch.float64 else out.sum()


def ratios(function, inputs, format, loss=None, engine="ball", upstream=None):
    """Error over certified bound of every element, by gradient and for the output; asserts that it holds."""
    trace = prune(
        trace_gradients(function, inputs, None, loss, upstream, format=format, forward=True)
    )
    given = dict(inputs) if upstream is None else {**inputs, "upstream gradient": upstream}
    arrays = {
        k: float64_array(torch.as_tensor(v)) if not isinstance(v, np.ndarray) else v
        for k, v in given.items()
    }
    exact = reference_of_trace(trace, arrays, format=format, engine=engine)
    bounds = bounds_of_trace(trace, round_inputs(trace, arrays, ro.as_format(format)), format)
    computed = native_gradients(function, inputs, None, loss, upstream, format=format, forward=True)
    found = {}
    for key, values in computed.items():
        error = np.abs((values - exact[key].high) - exact[key].low)
        limit = bounds[key].certain + exact[key].error
        assert ((error <= limit) | np.isinf(limit)).all(), (format, key, (error / limit).max())
        found[key] = np.where(error > 0, error / np.where(limit > 0, limit, 1), 0.0)
    return found


# ------------------------------------------------------------------- the whole zoo, cast inside


def within(dtype):
    def wrap(function):
        def cast(**values):
            given = {k: v.to(dtype) if v.is_floating_point() else v for k, v in values.items()}
            return function(**given).float()

        return cast

    return wrap


def autocast(function):
    def cast(**values):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return function(**values).float()

    return cast


#: How the function casts, and the format that is declared.
CASTS = {
    "half": (within(torch.float16), "float32"),
    "bfloat16": (within(torch.bfloat16), "float32"),
    "double": (within(torch.float64), "float32"),
    "float": (within(torch.float32), "float64"),
    "autocast": (autocast, "float32"),
}
#: torch's kernels that do not exist in a format, as of 2.13.
ABSENT = {("avgpool3", "half"), ("avgpool3", "bfloat16")}


LEFT_OUT = {
    ("bilinear_form", "autocast"), ("affine_grid0", "autocast"), ("affine_grid1", "autocast"),
    ("polygamma3", "half"),
}  # fmt: skip


@pytest.mark.parametrize("name", Z)
@pytest.mark.parametrize("cast", CASTS)
def test_torch_is_within_the_bounds_of_code_that_casts(cast, name) -> None:
    """Away from subnormal numbers, which some 16-bit kernels flush."""
    wrap, format = CASTS[cast]
    function, inputs = Z[name]
    if (name, cast) in LEFT_OUT:
        pytest.skip("autocast reaches products inside these kernels; or half overflows")
    if (name, cast) in ABSENT:
        with pytest.raises(ro.UnsupportedError, match="not implemented"):
            native_gradients(wrap(function), inputs, None, loss, format=format)
        return
    ratios(wrap(function), inputs, format, loss)


@pytest.mark.parametrize(
    "name", ["linear", "conv1", "layernorm", "softmax", "act_GELU", "mse", "lstm"]
)
def test_casts_are_the_identity_of_references(name) -> None:
    """A reference of code that casts is that of the code without casts, at the numbers it is given."""
    function, inputs = Z[name]

    def reference(f, format):
        return ro.reference_gradients(f, inputs, None, loss, format=format, engine="mpmath")

    plain = {format: reference(function, format) for format in ("float32", "float64")}
    for wrap, format in CASTS.values():
        one, two = reference(wrap(function), format), plain[format]
        for key in one:
            gap = np.abs((one[key].high - two[key].high) + (one[key].low - two[key].low))
            assert (gap <= one[key].error + two[key].error).all(), (format, key)


# ------------------------------------------------------------------------ from below: single steps

HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32
STEPS = {
    "cast": lambda x, y, d: x.to(d),
    "mul": lambda x, y, d: x.to(d) * y.to(d),
    "add": lambda x, y, d: x.to(d) + y.to(d),
    "div": lambda x, y, d: x.to(d) / y.to(d),
    "sqrt": lambda x, y, d: x.to(d).sqrt(),
    "exp": lambda x, y, d: x.to(d).exp(),
    "tanh": lambda x, y, d: x.to(d).tanh(),
    "sigmoid": lambda x, y, d: x.to(d).sigmoid(),
    "product": lambda x, y, d: (x.to(d)[:, None, None] @ y.to(d)[:, None, None])[:, 0, 0],
    "sum": lambda x, y, d: torch.stack([x, y], -1).to(d).sum(-1),
}


#: Their float32 kernels err by less, on some machines, than the ulps that are known of them.
GOOD = {("tanh", SINGLE), ("sigmoid", SINGLE), ("sqrt", SINGLE)}


@pytest.mark.parametrize(
    ("step", "dtype"), [p for p in product(STEPS, (HALF, BRAIN, SINGLE)) if p not in GOOD]
)
def test_bounds_of_single_narrow_steps_are_nearly_attained(step, dtype) -> None:
    """With the wide format's u, or with half the bound, one of 20 000 numbers in [1, 2) would exceed it."""
    wide = "float64" if dtype == SINGLE else "float32"
    x, y = np.random.default_rng(3).uniform(1.0, 2.0, (2, 20_000))

    def function(x, y):
        found = STEPS[step](x, y, dtype)
        return found.to(x.dtype)

    ones = np.ones(len(x))
    assert 0.5 < ratios(function, {"x": x, "y": y}, wide, upstream=ones)["output"].max() <= 1.0


def test_a_step_in_a_wider_type_costs_the_declared_format_one_rounding() -> None:
    x, y = np.random.default_rng(4).uniform(1.0, 2.0, (2, 20_000))

    def function(x, y):
        return (x.double() * y.double() + x.double()).to(x.dtype)

    given = {"x": x, "y": y}
    assert 0.5 < ratios(function, given, "float32", upstream=np.ones(len(x)))["output"].max() <= 1
    trace = prune(
        trace_gradients(
            function, given, None, None, np.ones(len(x)), format="float32", forward=True
        )
    )
    arrays = round_inputs(
        trace, {**given, "upstream gradient": np.ones(len(x))}, ro.as_format("float32")
    )
    bound = bounds_of_trace(trace, arrays, "float32")["output"].certain
    assert (bound <= (1 + 2.0**-20) * 2.0**-24 * (x * y + x)).all()


# ------------------------------------------------------------- what was reported, and its kind


def llama(x, w):
    """RMSNorm as Llama has it: in float32 whatever the type of x."""
    wide = x.to(torch.float32)
    wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
    return loss(w * wide.to(x.dtype))


def llama_divided(x, w):
    wide = x.float()
    wide = wide / torch.sqrt((wide * wide).mean(-1, keepdim=True) + 1e-6)
    return loss(wide.to(x.dtype) * w)


def angles(size, like):
    position = torch.arange(size, dtype=torch.float32)
    rate = 1.0 / (100.0 ** (torch.arange(0, size, 2, dtype=torch.float32) / size))
    angle = torch.outer(position, rate)
    return angle.cos().to(like.dtype), angle.sin().to(like.dtype)


def rotary(x):
    cos, sin = angles(4, x)
    a, b = x[:, :2], x[:, 2:]
    return loss(torch.cat([a * cos - b * sin, a * sin + b * cos], -1))


def rotary_added(x):
    cos, sin = angles(4, x)
    a, b = x[:, :2], x[:, 2:]
    return loss(torch.cat([a * cos + b * -sin, b * cos + a * sin], -1))


TARGET = torch.from_numpy(normal(4, 6, seed=9)).float()
SCALE = torch.tensor(0.1)


def overwritten(x):
    narrow = torch.zeros(3, 4, dtype=torch.float16)
    narrow[1:] = x[1:]
    return loss(narrow.float())


CODE = {
    "sigmoid of a product in half": (
        lambda x, w: total(torch.sigmoid((x @ w).half())), {"x": normal(4, 6), "w": normal(6, 4)},
    ),
    "exp of half": (lambda x: total(x.half().exp()), {"x": normal(256)}),
    "square in half": (lambda x: total(x.half() * x.half()), {"x": normal(256)}),
    "tanh of bfloat16": (lambda x: total(torch.tanh(x.bfloat16())), {"x": normal(256)}),
    "batch norm of bfloat16": (
        lambda x, w, b: loss(F.batch_norm(x.bfloat16(), None, None, w.bfloat16(), b.bfloat16(), True).float()),
        {"x": normal(8, 3, 4), "w": normal(3), "b": normal(3)},
    ),
    "llama": (llama, {"x": normal(4, 8), "w": normal(8)}),
    "rotary": (rotary, {"x": normal(4, 4)}),
    "captured target": (lambda x: F.mse_loss(x, TARGET), {"x": normal(4, 6)}),
    "captured number": (lambda x: loss(SCALE * x), {"x": normal(6)}),
    "written into half": (overwritten, {"x": normal(3, 4)}),
    "literal in half": (
        lambda x: loss(torch.full((), 0.1, dtype=torch.float16).float() * x), {"x": normal(6)},
    ),
    "array in the own type": (
        lambda x: loss(torch.tensor([0.1, 0.2, 0.3], dtype=x.dtype) * x), {"x": normal(3)},
    ),
    "window": (
        lambda x: loss(torch.hann_window(8, periodic=False, dtype=x.dtype) * x), {"x": normal(8)},
    ),
    "even steps": (
        lambda x: loss(
            torch.linspace(-1, 1, 23, dtype=x.dtype) * x + torch.linspace(0.1, 3, 23, dtype=x.dtype)
        ),
        {"x": normal(23)},
    ),
    "broken steps": (
        lambda x: loss(
            torch.arange(-1, 1, 0.1, dtype=x.dtype) * x + torch.arange(20, dtype=x.dtype) / 7
        ),
        {"x": normal(20)},
    ),
    "own eps": (
        lambda x: (x / (x.norm() + torch.finfo(x.dtype).eps))[0], {"x": normal(6)},
    ),
    "rms norm": (lambda x, w: loss(F.rms_norm(x, (8,), w)), {"x": normal(4, 8), "w": normal(8)}),
    "sum in another type": (
        lambda x: x.sum(dtype=torch.float64).to(x.dtype) + total(x.mean(0, dtype=torch.float32)),
        {"x": normal(5, 4)},
    ),
    "islands": (
        lambda x, w: total(F.softmax((x.half() @ w.half()).float(), -1).bfloat16() * x),
        {"x": normal(4, 4), "w": normal(4, 4)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", CODE)
def test_code_of_mixed_types_is_within_its_bounds(name, format) -> None:
    function, inputs = CODE[name]
    for found in ratios(function, inputs, format).values():
        assert (found <= 1).all()


HONEST = {
    "llama": (llama, llama_divided, {"x": normal(4, 8), "w": normal(8)}),
    "rotary": (rotary, rotary_added, {"x": normal(4, 4)}),
    "captured target": (
        lambda x: F.mse_loss(x, TARGET), lambda x: ((x - TARGET) ** 2).mean(), {"x": normal(4, 6)},
    ),
    "tanh": (
        lambda x: total(torch.tanh(x.bfloat16())), lambda x: total(torch.tanh(x)), {"x": normal(50)},
    ),
    "eps": (
        lambda x: (x / (x.norm() + torch.finfo(x.dtype).eps))[0],
        lambda x: x[0] / (torch.finfo(x.dtype).eps + (x * x).sum().sqrt()), {"x": normal(6)},
    ),
    "rms norm": (
        lambda x: loss(F.rms_norm(x, (8,))),
        lambda x: loss(
            (x.to(torch.promote_types(x.dtype, SINGLE)) / (
                x.to(torch.promote_types(x.dtype, SINGLE)).square().mean(-1, True)
                + torch.finfo(torch.promote_types(x.dtype, SINGLE)).eps
            ).sqrt()).to(x.dtype)
        ),
        {"x": normal(4, 8)},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HONEST)
def test_honest_rewrites_of_mixed_code_differ_by_rounding(name) -> None:
    first, second, inputs = HONEST[name]
    found = ro.compare(first, second, inputs, formats=FORMATS)
    assert {str(pair.judgement.verdict) for pair in found.pairs.values()} <= {
        "IDENTICAL",
        "ROUNDOFF",
    }, found
