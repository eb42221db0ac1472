"""Every covered module and function: two engines, torch's own gradients, and the bounds between them."""

from __future__ import annotations

from pathlib import Path

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
from roundoff.trace import Traces, functional_graph
from roundoff.trace.decomposed import DECOMPOSED as TAKEN_APART
from roundoff.trace.decompositions import CHECKED, decomposition
from roundoff.trace.lowering import dispatch
from roundoff.trace.operations import table

#: float64's own kernels are within bounds too: the reference's radius is far below them.
FORMATS = ("float64", "float32", "bfloat16")
#: torch's kernels that do not exist in a format, as of 2.13.
ABSENT = {("avgpool3", "bfloat16")}
#: Those with a constant of a narrower format: see test_a_kernel_with_a_narrow_constant.
NARROW = {("act_Hardsigmoid", "float64")}


@pytest.mark.parametrize("name", Z)
def test_engines_agree_and_torch_is_within_the_bounds(name) -> None:
    function, inputs = Z[name]
    traces = Traces(function, inputs, None, loss)
    arrays = {key: float64_array(value) for key, value in inputs.items()}
    for format in FORMATS:
        trace = traces.of(format)
        first, *others = (
            reference_of_trace(trace, arrays, format=format, engine=engine)
            for engine in ("mpmath", "ball", "multiword")
        )
        for key, of in first.items():
            for other in (second[key] for second in others):
                gap = np.abs((of.high - other.high) + (of.low - other.low))
                assert (gap <= (of.error + other.error) * (1 + 2.0**-40)).all(), (format, key)
        if (name, format) in ABSENT | NARROW:
            continue
        computed = native_gradients(function, inputs, None, loss, format=format)
        bounds = bounds_of_trace(trace, round_inputs(trace, arrays, ro.as_format(format)), format)
        for key, found in computed.items():
            error = np.abs((found - first[key].high) - first[key].low)
            assert (error <= bounds[key].certain + first[key].error).all(), (format, key)


#: Decomposed before a trace sees them.
DECOMPOSED = set("contiguous expand_as movedim narrow reshape square view_as".split())


def test_all_listed_operations_are_in_the_zoo(monkeypatch) -> None:
    seen, lowered = set(), dispatch._lowered

    def noted(build, target, *rest):
        seen.add(target.overloadpacket.__name__)
        return lowered(build, target, *rest)

    monkeypatch.setattr(dispatch, "_lowered", noted)
    for function, inputs in Z.values():
        Traces(function, inputs, None, loss).of("float64")
    listed = set().union(*dispatch.listed().values())
    missing = sorted(listed - {name.lstrip("_") for name in seen} - DECOMPOSED)
    assert not missing, f"add to experiments/zoo.py a function that calls {', '.join(missing)}"


def test_all_that_is_taken_apart_is_in_the_zoo(monkeypatch) -> None:
    seen = set()

    def noted(call):
        found = decomposition(call)
        if found is not None:
            seen.add(call.overloadpacket.__name__)
        return found

    monkeypatch.setattr(functional_graph, "decomposition", noted)
    for name in ("dist", "entr", "nansum", "sinc"):
        Traces(*Z[name], None, loss).of("float32")
    assert seen >= CHECKED, CHECKED - seen


def test_what_is_taken_apart_by_nobody_is_refused_by_name(monkeypatch) -> None:
    monkeypatch.delitem(TAKEN_APART, "renorm")
    with pytest.raises(ro.UnsupportedError, match="aten::renorm"):
        Traces(lambda x: torch.renorm(x, 2, 0, 0.5), {"x": torch.ones(3, 4)}, None, loss).of(
            "float32"
        )


def test_float64_bounds_are_finite_and_not_vacuous() -> None:
    for name in ("tel", "lstm", "bn2", "layernorm", "ce", "maxpool2", "act_GELU"):
        function, inputs = Z[name]
        for key, bound in ro.gradient_bounds(
            function, inputs, None, loss, format="float64"
        ).items():
            assert (bound.certain <= 2.0**-30 * (1 + bound.scale)).all(), (name, key)


def _gap(first, second, inputs, loss=None):
    of = [ro.reference_gradients(f, inputs, None, loss, format="float64") for f in (first, second)]
    return max(
        float(np.abs((a.high - b.high) + (a.low - b.low)).max() / np.abs(a.high).max())
        for a, b in ((of[0][k], of[1][k]) for k in of[0])
    )


def test_constants_that_come_from_shapes_are_exact() -> None:
    rng = np.random.default_rng(0)
    x, y = (torch.from_numpy(rng.standard_normal((3, 7))) for _ in range(2))
    pair = {"x": x, "y": y}
    assert _gap(F.mse_loss, lambda input, target: ((input - target) ** 2).mean(),
                {"input": x, "target": y}) < 2.0**-90  # fmt: skip
    both = lambda x, y: x.var(1).sum() + y.var()
    own = lambda x, y: (
        ((x - x.mean(1, keepdim=True)) ** 2).sum() / 6 + ((y - y.mean()) ** 2).sum() / 20
    )
    assert _gap(both, own, pair) < 2.0**-90
    q, k, v = (torch.from_numpy(rng.standard_normal((1, 2, 4, 3))) for _ in range(3))
    root = torch.full((), 3.0)
    fused = lambda q, k, v: F.scaled_dot_product_attention(q, k, v)
    explicit = lambda q, k, v: (q @ k.mT / root.to(q).sqrt()).softmax(-1) @ v
    assert _gap(fused, explicit, {"q": q, "k": k, "v": v}, loss) < 2.0**-90
    gelu = lambda x: (x / 2 * (1 + torch.erf(x / torch.full((), 2.0).to(x).sqrt()))).sum()
    assert _gap(lambda x: F.gelu(x).sum(), gelu, {"x": x}) < 2.0**-90


def test_a_kernel_with_a_narrow_constant_is_not_within_the_bounds() -> None:
    # torch 2.13 multiplies by 1.0f / 6.0f in the float64 gradient of hardsigmoid; its exact twin divides.
    x = {"x": torch.linspace(-2, 2, 9, dtype=torch.float64)}
    narrow = float(np.float32(1.0) / np.float32(6.0))
    exact = ro.reference_gradients(F.hardsigmoid, {"input": x["x"]}, None, loss, format="float64")
    bound = ro.gradient_bounds(F.hardsigmoid, {"input": x["x"]}, None, loss, format="float64")
    planted = 2.0 * F.hardsigmoid(x["x"]).numpy() * narrow
    assert (np.abs(planted - exact["input"].high) > bound["input"].certain).all()


def test_functional_keeps_buffers_and_names() -> None:
    module = torch.nn.BatchNorm1d(3)
    function, parameters = ro.functional(module)
    before = module.running_mean.clone()
    function(**parameters, input=torch.randn(5, 3))
    assert torch.equal(module.running_mean, before)
    with pytest.raises(ro.ArgumentError, match="'weight'"):
        function(input=torch.randn(5, 3))
    with pytest.raises(ro.ArgumentError, match="give a torch.nn.Module"):
        ro.functional(F.relu)


def test_the_table_of_operations_is_current() -> None:
    found = Path(__file__).parents[2] / "docs" / "operations.md"
    assert found.read_text() == table(), "run make docs"
