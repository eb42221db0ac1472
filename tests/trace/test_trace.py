"""Traced gradients, carried out exactly, against torch.autograd in float64."""

from __future__ import annotations

from dataclasses import replace

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro
from roundoff.arithmetic import walk
from roundoff.arithmetic.condition_scale import Scale
from roundoff.arithmetic.multiprecision import Multiprecision
from roundoff.gradients.inputs import float64_array
from roundoff.gradients.problem import Problem
from roundoff.trace import (
    LOWERINGS,
    UPSTREAM,
    Constant,
    Contract,
    Map,
    Reduce,
    Trace,
    prune,
    reads,
    structural_zeros,
    trace_gradients,
)
from roundoff.trace.steps import Move

U = 2.0**-53
SLACK = 200  # roundings of float64 autograd on these small problems


def squares(out):
    return (out * out).sum()


def uniform(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng([seed, *shape]).uniform(0.2, 1.2, shape))


def autograd(function, inputs, wrt, loss, upstream=None):
    values = {k: v.clone().requires_grad_(k in wrt) for k, v in inputs.items()}
    out = function(**values)
    out = out if loss is None else loss(out)
    grads = torch.autograd.grad(out, [values[k] for k in wrt], upstream, allow_unused=True)
    return [torch.zeros_like(values[k]) if g is None else g for k, g in zip(wrt, grads)]


def evaluate(trace, inputs, arithmetic):
    return walk(trace, arithmetic, {k: float64_array(v) for k, v in inputs.items()})


def check(function, loss=squares, wrt=None, upstream=None, **inputs):
    """Trace, prune, evaluate to 200 bits, compare with autograd in units of u S."""
    wrt = wrt or tuple(k for k, v in inputs.items() if v.is_floating_point())
    trace = trace_gradients(function, inputs, wrt, loss, upstream)
    given = dict(inputs) if upstream is None else {**inputs, UPSTREAM: upstream}
    floating = {k: v for k, v in given.items() if v.is_floating_point()}
    pruned = prune(trace)
    whole, numbers = (evaluate(t, floating, Multiprecision(200)) for t in (trace, pruned))
    scales = evaluate(pruned, floating, Scale())
    with mpmath.workprec(200):
        for name, grad in zip(wrt, autograd(function, inputs, wrt, loss, upstream), strict=True):
            assert numbers[name].shape == tuple(grad.shape) == trace.shape(name)
            assert numbers[name].tolist() == whole[name].tolist(), "pruning changed a number"
            scale = np.broadcast_to(scales[name].scale, grad.shape)
            for number, value, s in zip(
                numbers[name].ravel(), grad.ravel().tolist(), scale.ravel()
            ):
                exact = mpmath.mp.make_mpf(number)
                assert abs(mpmath.mpf(value) - exact) <= SLACK * U * max(s, abs(float(exact)))
    return trace


CONVOLUTIONS = [
    dict(),
    dict(stride=2),
    dict(padding=1),
    dict(dilation=2, padding=2),
    dict(groups=2),
    dict(stride=2, padding=2, dilation=2, groups=2),
]


@pytest.mark.parametrize("options", CONVOLUTIONS, ids=str)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolutions(dims, options) -> None:
    conv = (F.conv1d, F.conv2d, F.conv3d)[dims - 1]
    size, taps = {1: (9,), 2: (6, 5), 3: (5, 4, 6)}[dims], (3, 2, 2)[:dims]
    groups = options.get("groups", 1)
    check(
        lambda weight, bias, x: conv(x, weight, bias, **options),
        weight=uniform(4, 4 // groups, *taps) - 0.6,
        bias=uniform(4),
        x=uniform(2, 4, *size),
    )


@pytest.mark.parametrize(
    "options", [dict(), dict(stride=2, padding=1, output_padding=1), dict(groups=2, dilation=2)]
)
def test_transposed_convolutions(options) -> None:
    groups = options.get("groups", 1)
    check(
        lambda weight, bias, x: F.conv_transpose1d(x, weight, bias, **options),
        weight=uniform(4, 6 // groups, 3),
        bias=uniform(6),
        x=uniform(2, 4, 5),
    )


def test_linear_matmul_einsum() -> None:
    check(F.linear, input=uniform(3, 4), weight=uniform(5, 4), bias=uniform(5))
    check(torch.matmul, input=uniform(4), other=uniform(4), loss=lambda o: o * o)
    check(torch.matmul, input=uniform(2, 3, 4), other=uniform(4, 5))
    check(torch.matmul, input=uniform(3, 4), other=uniform(4))
    check(torch.matmul, input=uniform(2, 1, 3, 4), other=uniform(3, 4, 2))
    check(lambda a, b: torch.einsum("bij,kj->bik", a, b), a=uniform(2, 3, 4), b=uniform(5, 4))
    check(
        lambda a, b, c: torch.einsum("ij,jk,kl->il", a, b, c),
        a=uniform(2, 3),
        b=uniform(3, 4),
        c=uniform(4, 2),
    )
    check(
        lambda a, b, c: torch.addmm(c, a, b, beta=3, alpha=2),
        a=uniform(2, 3),
        b=uniform(3, 4),
        c=uniform(4),
    )


ELEMENTARY = """neg abs sqrt rsqrt exp expm1 log log1p log2 log10 sin cos tan asinh atan sinh cosh tanh erf
sigmoid reciprocal square relu""".split()


@pytest.mark.parametrize("name", ELEMENTARY)
def test_elementary_functions(name) -> None:
    check(getattr(torch, name), input=uniform(3, 2))


@pytest.mark.parametrize("name", ["asin", "acos"])
def test_elementary_functions_on_the_unit_interval(name) -> None:
    check(getattr(torch, name), input=uniform(3, 2) / 2)


def test_arithmetic() -> None:
    a, b = uniform(3, 4), uniform(4, seed=1)
    for function in (
        torch.add, torch.sub, torch.mul, torch.div, torch.maximum, torch.minimum,
        lambda input, other: torch.add(input, other, alpha=3),
        lambda input, other: 2 - input * other,
        lambda input, other: torch.where(input > other, input, other * 2),
        lambda input, other: (input - 0.7).clamp(-0.2, 0.3) * other,
    ):  # fmt: skip
        check(function, input=a, other=b)
    for power in (2, 3, -1, -2, 0.5, -0.5, 1.7, 0):
        check(lambda x, p=power: x**p + x, x=a)
    check(lambda x, y: x**y, x=a, y=uniform(3, 4, seed=2))


def test_sums_and_means() -> None:
    x = uniform(2, 3, 4)
    for options in (dict(), dict(dim=1), dict(dim=(0, 2)), dict(dim=-1, keepdim=True)):
        check(lambda x, o=options: x.sum(**o) * 1.5, x=x)
        check(lambda x, o=options: x.mean(**o), x=x)


MOVES = {
    "slice": lambda x: x[:, 1:, ::2],
    "select": lambda x: x[1, :, -1],
    "narrow": lambda x: x.narrow(1, 1, 2),
    "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: x.transpose(0, 2) * x.mT[0, 0, 0],
    "reshape": lambda x: x.permute(1, 0, 2).reshape(3, -1),
    "expand": lambda x: x[:, :1].expand(2, 3, 4) * x,
    "flip": lambda x: x.flip(0, 2),
    "roll": lambda x: x.roll(1, 1),
    "pad": lambda x: F.pad(x, (1, 2, 0, 1)),
    "pad with a value": lambda x: F.pad(x, (1, 2), value=0.5) ** 2,
    "cat": lambda x: torch.cat([x, 2 * x], 1),
    "stack": lambda x: torch.stack([x, x * x]),
    "split": lambda x: torch.cat(x.split([1, 2], 1)[::-1], 1),
    "unbind": lambda x: x.unbind(1)[0] * x.unbind(1)[2],
    "squeeze": lambda x: x[:, :1].squeeze(1).unsqueeze(0),
    "tril": lambda x: torch.tril(x) + torch.triu(x, 1) * 3,
    "diagonal": lambda x: torch.diagonal(x, dim1=1, dim2=2),
    "repeat": lambda x: x.repeat(1, 2, 1),
    "movedim": lambda x: x.movedim(0, -1).contiguous().view(3, 8),
    "index": lambda x: x[:, torch.tensor([0, 2, 0])] * 2,
    "index two axes": lambda x: x[torch.tensor([0, 1, 0]), :, torch.tensor([3, 1, 3])] ** 2,
    "gather": lambda x: torch.gather(x, 2, torch.tensor([[[0, 3, 0]] * 3] * 2)),
    "index_select": lambda x: torch.index_select(x, 1, torch.tensor([2, 2, 0])),
    "index_put": lambda x: x.index_put((torch.tensor([1]),), x[0]),
    "index_put accumulate": lambda x: x.index_put((torch.tensor([1, 1]),), x, accumulate=True),
    "scatter_add": lambda x: x.scatter_add(1, torch.arange(24).reshape(2, 3, 4) % 3, x * x),
    "index_add": lambda x: x.index_add(1, torch.tensor([0, 0, 2]), x * x, alpha=2),
    "clone": lambda x: x.clone().detach() * x,
}


@pytest.mark.parametrize("name", MOVES)
def test_moves(name) -> None:
    check(MOVES[name], x=uniform(2, 3, 4))
    check(MOVES[name], x=uniform(4, 3, 2).permute(2, 1, 0))  # strided operand


def test_in_place_code_closures_and_integer_inputs() -> None:
    scale = uniform(3)

    def in_place(x, k):
        y = x * 2
        y[0] = y[1] * scale
        y.mul_(3)
        return y[k]

    trace = check(in_place, x=uniform(4, 3), k=torch.tensor([1, 3, 1]))
    assert len(trace.closures) == 1


class Doubled(torch.autograd.Function):
    """A function whose own backward is not its derivative."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        return upstream * x * 7


def test_an_autograd_functions_own_backward_is_traced() -> None:
    trace = check(lambda x: Doubled.apply(x), x=uniform(3))
    values = evaluate(trace, {"x": torch.tensor([1.0, 2.0, 4.0])}, Scale())["x"].value
    assert values.tolist() == [14.0, 112.0, 896.0]  # 2 x^2 times 7 x


def test_upstream_unused_and_default_wrt() -> None:
    a, b = uniform(2, 3), uniform(2, 3, seed=1)
    check(lambda a, b: a * a, a=a, b=b, loss=None, upstream=b - 0.5)
    trace = trace_gradients(lambda a, b, k: (a * b).sum(), {"a": a, "b": b, "k": torch.tensor(3)})
    assert list(trace.outputs) == ["a", "b"]
    assert "return a:" in str(trace)


@pytest.mark.parametrize(
    ("function", "name"),
    [(torch.tan, "tan"), (lambda x: torch.cumsum(x, 0), "cumsum")],
)
def test_unknown_operations_are_refused_by_name(function, name, monkeypatch) -> None:
    monkeypatch.delitem(LOWERINGS, name)
    with pytest.raises(
        ro.UnsupportedError,
        match=rf"aten::\w*{name}.*known ones.*python -m roundoff.trace.operations lists",
    ):
        trace_gradients(lambda x: squares(function(x)), {"x": uniform(4)})


def test_a_pruned_trace_can_be_pruned_again() -> None:
    inputs = {"x": torch.arange(12.0).reshape(3, 4), "w": torch.arange(4.0)}
    for function in (
        lambda x, w: (torch.nn.functional.pad(x * w, (2, 1)).mean(-1) ** 2).sum(),
        lambda x, w: (torch.triu(x @ x.T, 1).sum(0) ** 2).sum() + (w * w).sum(),
    ):
        once = prune(trace_gradients(function, inputs))
        arrays = {name: value.double().numpy() for name, value in inputs.items()}
        for chosen in (["x"], ["w"], ["x", "w"]):
            again = walk(prune(once.select(chosen)), Scale(), arrays)
            expected = walk(once, Scale(), arrays)
            for name in chosen:
                assert np.array_equal(again[name].value, expected[name].value)
                assert np.array_equal(again[name].scale, expected[name].scale)


def test_bad_arguments_are_named() -> None:
    x, twice = uniform(3), torch.tensor([0, 0])
    for call, words in (
        (lambda: trace_gradients(lambda x: (x * torch.rand(3)).sum(), {"x": x}), "draws random.*seeded"),
        (lambda: trace_gradients(lambda x: F.dropout(x).sum(), {"x": x}), "draws random.*seeded"),
        (lambda: trace_gradients(lambda y: y.sum(), {"x": x}), "could not be called with the inputs x"),
        (lambda: trace_gradients(3, {"x": x}), "the function is 3; give a function"),
        (lambda: trace_gradients(torch.sum, [x]), "inputs is a list; give a mapping"),
        (lambda: trace_gradients(torch.sum, {"input": uniform(0)}), "'input' of shape \\(0,\\) is empty"),
        (lambda: trace_gradients(lambda x: x.index_put((twice,), x[:2]).sum(), {"x": x}), "occurs twice"),
        (lambda: trace_gradients(lambda x: x, {"x": x}), "shape \\(3,\\), not a scalar.*loss= or upstream="),
        (lambda: trace_gradients(lambda x: x.sum(), {"x": x}, ("y",)), "'y'; the inputs are x"),
        (lambda: trace_gradients(lambda x: x.sum(), {"x": torch.tensor(3)}), "no floating-point input"),
        (lambda: trace_gradients(lambda x: (x, x), {"x": x}), "returned a tuple"),
        (lambda: trace_gradients(lambda x: x * x.sum().item(), {"x": x}), "keep it a tensor"),
        (lambda: trace_gradients(lambda x: x.view(7), {"x": x}), "could not run"),
        (lambda: trace_gradients(lambda x: torch.ones(3).sum(), {"x": x}), "does not depend on any of x"),
        (lambda: trace_gradients(lambda x: x, {"x": x}, upstream=uniform(4)), "upstream has shape"),
        (lambda: trace_gradients(lambda x: x, {"x": x}, loss=squares, upstream=x), "both loss and upstream"),
        (lambda: trace_gradients(lambda x: x, {"x": "abc"}), "'x' is a str"),
        (lambda: trace_gradients(lambda x: x.abs(), {"x": x + 1j}), "'x' is complex .*real and imaginary"),
        (lambda: trace_gradients(lambda x: x.sum(), {"x": x.to_sparse()}), "'x' is sparse .*to_dense"),
        (lambda: trace_gradients(lambda x: (x, x), {"x": x}, output=5), "output is 5.*an index or a key"),
    ):  # fmt: skip
        with pytest.raises(ro.RoundoffError, match=words):
            call()


def conv_then_slice(weight, bias, x):
    return F.conv1d(x, weight, bias)[:, :, -5:]


def slice_then_conv(weight, bias, x):
    return F.conv1d(x[:, :, -5:], weight, bias)


def thread(taps=1):
    return {"weight": uniform(3, 3, taps), "bias": uniform(3), "x": uniform(1, 3, 10)}


@pytest.mark.parametrize("taps", [1, 3])
def test_which_time_points_matter(taps) -> None:
    trace = trace_gradients(conv_then_slice, thread(taps), ("weight", "bias"), squares)
    points = reads(trace, "x").any(axis=(0, 1))
    assert np.flatnonzero(points).tolist() == list(range(10 - 5 - taps + 1, 10))
    assert reads(trace, "weight").all()


def test_structural_zeros_take_a_place_in_the_tree() -> None:
    # The two methods differ by them: 5 leaves against 10.
    for function, leaves in ((slice_then_conv, 5), (conv_then_slice, 10)):
        trace = prune(trace_gradients(function, thread(), ("weight", "bias"), squares))
        sums = [s for s in trace.steps if isinstance(s, Contract | Reduce) and s.leaves == leaves]
        assert len(sums) == 2  # weight and bias
        for step in sums:
            present = step.leaves if step.kept is None else len(step.kept)
            assert present == 5


def test_structural_zeros_are_zero() -> None:
    trace = trace_gradients(lambda x: F.pad(x, (2, 1)) * 3, {"x": uniform(4)}, loss=squares)
    masks = structural_zeros(trace)
    values = [
        walk(t, Multiprecision(0), {"x": float64_array(uniform(4))}) for t in (trace, prune(trace))
    ]
    assert values[0]["x"].tolist() == values[1]["x"].tolist()
    assert any(mask.any() for mask in masks)


def test_every_lowering_has_a_lower_case_aten_name() -> None:
    known = set(dir(torch.ops.aten))
    known_to = torch.ops.aten, torch.ops.roundoff  # whose are our own
    missing = [name for name in LOWERINGS if not any(hasattr(ops, name) for ops in known_to)]
    assert not missing, missing
    assert known


@pytest.mark.parametrize(
    "leave",
    [
        lambda x: np.asarray(x.detach()),
        lambda x: x.detach().numpy(),
        lambda x: x.tolist(),
    ],
)
def test_values_that_leave_pytorch_are_refused(leave) -> None:
    with pytest.raises(ro.UnsupportedError, match="leave PyTorch"):
        trace_gradients(lambda x: (x * torch.as_tensor(leave(x))).sum(), {"x": uniform(3)})


def test_indices_that_depend_on_floats_choose_and_are_numbers_by_a_decision() -> None:
    rng = np.random.default_rng(1)
    x = torch.from_numpy(rng.standard_normal((3, 4)))
    check(lambda x: (x * 2).gather(1, x.max(1, keepdim=True).indices), x=x)
    trace = trace_gradients(lambda x: (x.max(1).indices.float() * x[:, 0]).sum(), {"x": x})
    assert trace.guards  # as numbers they are a decision


def test_pruning_twice_keeps_the_elements() -> None:
    x = torch.arange(1.0, 11.0)
    trace = prune(trace_gradients(lambda x: squares(x[4:] ** 2), {"x": x}))
    again = prune(trace.select(["x"]))
    one, two = (walk(t, Scale(), {"x": x.double().numpy()})["x"].value for t in (trace, again))
    assert np.array_equal(one, two) and one[5] == 4 * 6.0**3
    none = prune(prune(trace_gradients(lambda x, y: (2 * x * y).sum(), {"x": x, "y": x}, ("x",))))
    assert walk(none, Scale(), {"x": np.ones(10), "y": np.ones(10)})["x"].value[0] == 2


# ------------------------------------------------------------------------- formats and kernels


def named(trace):
    """(function or kind, format, kernel) of every step that rounds."""
    return {
        (getattr(step, "function", type(step).__name__), step.format, step.kernel)
        for step in trace.steps
        if isinstance(step, Map | Reduce | Contract)
    }


def test_steps_know_their_format_and_their_kernel_and_keep_them_when_pruned() -> None:
    def mixed(x, w):
        product = (x @ w).half()
        return ((product * product).float() + (x.double() * 0.1).to(x.dtype))[1:].sum()

    trace = prune(trace_gradients(mixed, {"x": uniform(3, 3), "w": uniform(3, 3)}, ("w",)))
    found = named(trace)
    assert found >= {
        ("Contract", None, "mm"),
        ("cast", "float16", "_to_copy"),
        ("mul", "float16", "mul"),
    }
    forward = prune(
        trace_gradients(mixed, {"x": uniform(3, 3), "w": uniform(3, 3)}, ("w",), forward=True)
    )
    assert named(forward) >= {
        ("mul", "float64", "mul"),
        ("cast", None, "_to_copy"),  # back to the declared format: a rounding
        ("Reduce", None, "sum"),
    }
    assert "in float16" in str(trace)
    constants = {s.format for s in forward.steps if isinstance(s, Constant) and s.value != 1}
    assert "float64" in constants


def test_autocast_leaves_its_casts_and_narrow_products() -> None:
    def cast(w, x):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return F.linear(x, w).float().sum()

    found = named(trace_gradients(cast, {"w": uniform(3, 4), "x": uniform(5, 4)}))
    assert found >= {
        ("cast", "bfloat16", "_to_copy"),
        ("Contract", "bfloat16", "mm"),
        ("Reduce", None, "sum"),
    }


def test_traces_may_differ_in_formats_and_kernels_alone() -> None:
    trace = trace_gradients(lambda x: (x * x).sum(), {"x": uniform(3)})

    def changed(**fields):
        steps = (replace(s, **fields) if isinstance(s, Map | Reduce) else s for s in trace.steps)
        return Trace(tuple(steps), trace.outputs, trace.closures)

    assert trace.equals(changed()) and trace.same_function(changed())
    for other in (changed(format="float16"), changed(kernel="mm")):
        assert not trace.equals(other) and trace.same_function(other)
    another = trace_gradients(lambda x: (x + x).sum(), {"x": uniform(3)})
    assert not trace.same_function(another)


def test_what_a_walk_leaves_on_steps_is_no_part_of_them() -> None:
    """Views are found out when they are first asked for."""
    one, two = (
        Problem(lambda x: x[1:].T @ x[1:], {"x": torch.ones(3, 3)}, None, torch.sum).trace(
            "float32"
        )
        for _ in range(2)
    )
    assert any(step.view for step in one.steps if isinstance(step, Move))
    assert one.same_function(two) and two.same_function(one) and one.equals(two)
