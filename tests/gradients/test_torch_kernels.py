"""torch's own kernels at inputs chosen against the bounds: they take the steps of the trace, rounding by rounding.

Each case broke the bounds of steps in another order, or of fewer roundings.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from problems import reference_and_bounds
from zoo import Z

import roundoff as ro
from roundoff.gradients.native import native_gradients
from roundoff.gradients.problem import Problem

#: float32's smallest number.
LEAST = 2.0**-149


def check(function, inputs, upstream, format="float32", wrt=None) -> None:
    given = (function, inputs, wrt, None, upstream)
    exact, bounds = reference_and_bounds(Problem(*given), format, "ball")
    computed = native_gradients(*given, format=format)
    for key, bound in bounds.items():
        with np.errstate(invalid="ignore"):
            error = np.abs((computed[key] - exact[key].high) - exact[key].low)
        assert ((error <= bound.certain + exact[key].error) | np.isinf(bound.certain)).all(), key


@pytest.mark.filterwarnings("ignore:index_reduce")
@pytest.mark.parametrize("name", Z)
@pytest.mark.parametrize("small", ["upstream", "inputs"])
def test_torch_is_within_the_bounds_among_subnormal_numbers(name, small) -> None:
    """Where every rounding is an absolute error, those that a lowering leaves out or reorders show."""
    if (name, small) == ("complex prod", "inputs"):
        pytest.skip("torch divides by products that underflow, and its gradient is no number")
    if (name, small) == ("masked_select", "inputs"):
        pytest.skip("nothing is above one half")
    function, inputs = Z[name]
    example = function(**{k: v.float() if v.is_floating_point() else v for k, v in inputs.items()})
    upstream = np.random.default_rng(1).standard_normal(tuple(example.shape))
    if small == "upstream":
        upstream *= 3000 * LEAST
    else:
        inputs = {
            k: v.double() * 3000 * LEAST if v.is_floating_point() else v for k, v in inputs.items()
        }
    try:
        check(function, inputs, upstream)
    except ro.UndecidedError as error:
        pytest.skip(f"numbers so small decide otherwise: {error}")
    except ro.UnsupportedError as error:
        if "equal eigenvalues" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.mark.parametrize("seed", range(6))
def test_normalisation_is_within_the_bounds_among_subnormal_numbers(seed) -> None:
    """Means are updated as they grow, and the gradient is scaled twice, in torch's kernels."""
    rng = np.random.default_rng(seed)
    x, w, b, g = (rng.standard_normal(shape) for shape in ((5, 32), 32, 32, (5, 32)))
    layer = lambda x, w, b: F.layer_norm(x, (32,), w, b)
    check(layer, {"x": x * 300 * LEAST, "w": w, "b": b}, g)
    mean, spread = (torch.from_numpy(v) for v in (rng.standard_normal(32), rng.random(32) + 0.01))
    batch = lambda x, w, b: F.batch_norm(x, mean.to(x), spread.to(x), w, b)
    check(batch, {"x": x, "w": w, "b": b}, g * 1e6 * LEAST)


def drawn(*shapes, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape) for shape in shapes]


@pytest.mark.parametrize(("format", "mean"), [("float32", 1e3), ("float64", 1e7)])
def test_group_norm_with_the_channels_last_squares_its_inputs(format, mean) -> None:
    x, w, b, g = drawn((2, 4, 5, 5), 4, 4, (2, 4, 5, 5))
    last = lambda x, w, b: F.group_norm(x.contiguous(memory_format=torch.channels_last), 2, w, b)
    check(last, {"x": x + mean, "w": w, "b": b}, g, format)


@pytest.mark.parametrize(("spread", "weight", "upstream", "eps"),
                         [(1e10, 1e12, 1e-33, 1e-5), (1e-10, 1e12, 1e-32, 1e-30), (1e10, 1e-32, 1e25, 1e-5)])  # fmt: skip
def test_norms_scale_their_gradients_in_the_order_of_the_kernels(
    spread, weight, upstream, eps
) -> None:
    for seed in range(3):
        x, w, b, g = drawn((2, 4, 5), 4, 4, (2, 4, 5), seed=seed)
        inputs = {"x": x * spread, "w": w * weight, "b": b}
        check(lambda x, w, b: F.group_norm(x, 2, w, b, eps), inputs, g * upstream)
        layer = lambda x, w, b: F.layer_norm(x, (4,), w, b, eps)
        check(layer, {**inputs, "x": x.swapaxes(1, 2) * spread}, g.swapaxes(1, 2) * upstream)


def test_batch_norm_of_a_strided_tensor_subtracts_first() -> None:
    x, mean, spread, w, b, c, g = drawn((2, 3, 4), 2, 2, 2, 2, (3, 2, 4), (3, 2, 4))
    strided = lambda x, m, v, w, b, c: (
        F.batch_norm(x.transpose(0, 1), m.detach(), v.detach(), w, b) * c
    )
    inputs = {"x": x * 1e-30, "m": mean * 1e-31, "v": abs(spread) * 1e20, "w": w * 1e20, "b": b * 1e-25,
              "c": c}  # fmt: skip
    check(strided, inputs, g, wrt=("x", "w", "b", "c"))


@pytest.mark.parametrize(("format", "small"), [("float64", 1e-200), ("bfloat16", 1e-30)])
def test_cumulative_products_underflow_one_after_another(format, small) -> None:
    factors = np.array([small, small, 1 / small, 1 / small])
    up_to = lambda x, c: x.detach().cumprod(0) * c
    check(up_to, {"x": factors, "c": np.ones(4)}, np.ones(4), format, ("c",))
    check(lambda x: x.prod(1), {"x": np.append(factors, 0.0)[None]}, np.ones(1), format)


def test_a_zero_anywhere_changes_the_gradient_of_all_products() -> None:
    x = np.array([[2e-20, 3e-20, 5e18, 7e18, 1.1], [0, 1, 1, 1, 1]])
    for seed in range(20):
        (noise,) = drawn((2, 5), seed=seed)
        check(lambda x: x.prod(1), {"x": x * (1 + noise / 8)}, np.ones(2))


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32", "float64"])
def test_what_is_added_to_a_number_is_rounded_at_its_size_each_time(format) -> None:
    values = np.full(200, 0.96 * ro.as_format(format).u)
    into_one = lambda x, w: w.index_add(0, torch.zeros(200, dtype=torch.int64), x)
    scattered = lambda x, w: w.scatter_add(0, torch.zeros(200, dtype=torch.int64), x)
    put = lambda x, w: w.index_put((torch.zeros(200, dtype=torch.int64),), x, accumulate=True)
    product = lambda x, w: torch.addmm(w, x[None], torch.ones_like(x)[:, None], alpha=0.5)
    for function, one, scale in (
        (into_one, 1, 1),
        (scattered, 1, 1),
        (put, 1, 1),
        (product, (1, 1), 2),
    ):
        weighted = lambda x, w, c, f=function: f(x, w) * c
        inputs = {"x": values * scale, "w": np.ones(one), "c": np.ones(one)}
        check(weighted, inputs, np.ones(one), format, ("c",))


def test_activations_at_their_edges() -> None:
    edges = np.array([-3.0, 3.0, -2.9, 2.9, 0.5])
    for format in ("float16", "float32", "float64"):
        check(F.hardswish, {"input": edges}, np.ones(5), format)
    (x,) = drawn(2000)
    check(F.hardsigmoid, {"input": x}, drawn(2000, seed=1)[0])


def test_the_weights_of_classes_come_after_the_division() -> None:
    x, w, g = drawn((6, 5), 5, 1)
    target = torch.tensor([0, 1, 2, 3, 4, 0])
    loss = lambda x, w: F.nll_loss(x, target, w.detach()).reshape(1)
    check(loss, {"x": x, "w": abs(w) * 1e5}, g * 1e-37, wrt=("x",))


@pytest.mark.parametrize("value", [1e-25, 1e19])
@pytest.mark.parametrize("name", ["addcmul", "addcdiv"])
def test_factors_of_products_and_quotients_come_first(name, value) -> None:
    x, y, z, c, g = drawn(300, 300, 300, 300, 300)
    size = 1e-20 if value < 1 else 1e19
    function = lambda x, y, z, c: getattr(torch, name)(x, y, z, value=value) * c
    z = z * 1e20 if (value < 1) == (name == "addcmul") else z * 1e-20
    inputs = {"x": x * 1e-25, "y": y * size, "z": z, "c": c}
    check(function, inputs, g, wrt=("c",))


def test_small_smooth_losses_are_halved_first() -> None:
    x, y, c, g = drawn(500, 500, 500, 500)
    loss = lambda x, y, c: F.smooth_l1_loss(x, y, reduction="none", beta=1e-3) * c
    check(loss, {"x": y + x * 1e-3, "y": y, "c": c}, g, "float16", ("c",))


def test_powers_err_by_an_ulp_of_subnormal_numbers() -> None:
    x, c = drawn(2000, 2000)
    for power in (4, 5, 6):
        size = (5000 * LEAST) ** (1 / power)
        inputs = {"x": x * size, "c": c}
        check(lambda x, c, n=power: x.detach() ** n * c, inputs, np.full(2000, 1e30), wrt=("c",))


@pytest.mark.parametrize("format", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("aligned", [False, True])
@pytest.mark.parametrize(
    ("mode", "shape", "sizes"),
    [
        ("linear", (1, 3, 50), (129,)),
        ("bilinear", (1, 2, 17, 15), (9, 24)),
        ("trilinear", (1, 1, 5, 4, 6), (8, 5, 8)),
        ("bicubic", (1, 1, 8, 9), (13, 20)),
    ],
)
def test_interpolation_in_all_modes(mode, shape, sizes, aligned, format) -> None:
    """Outputs, too: 16-bit kernels may keep weights in their own format, or in float32."""
    x = np.random.default_rng(0).normal(size=shape)
    upstream = np.random.default_rng(1).normal(size=(*shape[:2], *sizes))

    def interpolated(x):
        return F.interpolate(x, sizes, mode=mode, align_corners=aligned)

    check(interpolated, {"x": x}, upstream, format)
    given = (interpolated, {"x": torch.from_numpy(x)}, (), None, None)
    exact, bounds = reference_and_bounds(Problem(*given, forward=True), format, "ball")
    (computed,) = native_gradients(*given, format=format, forward=True).values()
    error = np.abs((computed - exact["output"].high) - exact["output"].low)
    assert (error <= bounds["output"].certain + exact["output"].error).all()
