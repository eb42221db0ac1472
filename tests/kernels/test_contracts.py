"""Contracts: every fact has a stand-in that violates it, and what is claimed of real kernels holds."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro
from roundoff.gradients.native import native_gradients, threads
from roundoff.judging.evidence import evidence_of_trace
from roundoff.kernels import provenance
from roundoff.kernels.probes import kernel_of, probe_flush, probe_sums
from roundoff.kernels.this_machine import ProbedKernels
from roundoff.trace import UPSTREAM, trace_gradients
from roundoff.trace.lowering.calls import call_of
from roundoff.trace.prune import prune
from roundoff.trace.steps import Contract

aten = torch.ops.aten
HALVES = (torch.float16, torch.bfloat16)
SIZES = ((1, 2, 1), (3, 5, 4), (2, 90, 3), (16, 64, 16))


def addmm_call(dtype, rows, terms, columns):
    operands = [torch.empty(s, dtype=dtype) for s in (columns, (rows, terms), (terms, columns))]
    return call_of(aten.addmm.default, operands, {})


def kept(values, dtype):
    """What a stand-in gets: numbers of the dtype, in float32."""
    return [v.to(dtype).float() for v in values]


def flushed(x, dtype):
    return torch.where(x.abs() < torch.finfo(dtype).tiny, 0.0, x)


def honest(values, dtype):
    bias, a, b = kept(values, dtype)
    return [(bias.double() + a.double() @ b.double()).float().to(dtype)]


def backwards(values, dtype):
    """Float32 sums in another order, with rounded products, started by the bias."""
    bias, a, b = kept(values, dtype)
    total = bias.expand(a.shape[0], b.shape[1])
    for k in reversed(range(a.shape[1])):
        total = total + a[:, k, None] * b[None, k]
    return [total.to(dtype)]


def narrow(values, dtype):
    bias, a, b = kept(values, dtype)
    total = torch.zeros(a.shape[0], b.shape[1])
    for k in range(a.shape[1]):
        total = (total + a[:, k, None] * b[None, k]).to(dtype).float()
    return [(total + bias).to(dtype)]


def narrow_products(values, dtype):
    bias, a, b = kept(values, dtype)
    products = (a[:, :, None] * b[None]).to(dtype).float()
    return [(products.sum(1) + bias).to(dtype)]


def stored_between(values, dtype):
    """Two blocks, the first one's sum stored in 16 bits."""
    bias, a, b = kept(values, dtype)
    half = a.shape[1] // 2
    first = (a[:, :half] @ b[:half]).to(dtype).float()
    return [(first + a[:, half:] @ b[half:] + bias).to(dtype)]


def narrow_at_the_end(values, dtype):
    """One column of all is summed in 16 bits: mixed outcomes count as the weaker one."""
    found, other = honest(values, dtype)[0], narrow(values, dtype)[0]
    found[:, -1] = other[:, -1]
    return [found]


def bias_after(values, dtype):
    bias, a, b = kept(values, dtype)
    return [(a @ b).to(dtype) + bias.to(dtype)]


def reads_zero(values, dtype):
    return honest([flushed(v.to(dtype).double(), dtype) for v in values], dtype)


def returns_zero(values, dtype):
    return [flushed(honest(values, dtype)[0].double(), dtype).to(dtype)]


def products_zero(values, dtype):
    bias, a, b = kept(values, dtype)
    products = flushed(a[:, :, None].double() * b[None].double(), dtype)
    return [(products.sum(1) + bias.double()).float().to(dtype)]


@pytest.mark.parametrize("dtype", HALVES)
def test_each_fact_has_a_stand_in_that_violates_it(dtype):
    for size in SIZES:
        call = addmm_call(dtype, *size)

        def found(kernel, call=call, size=size):
            return probe_sums(call, size[1], lambda values: kernel(values, dtype))[0]

        for good in (honest, backwards):
            assert (found(good).accumulate.name, found(good).once) == ("float32", True), size
        for bad in (narrow, narrow_products, stored_between, narrow_at_the_end):
            fact = found(bad)
            assert fact.accumulate.name == str(dtype).removeprefix("torch."), (bad, size)
            assert not fact.once, (bad, size)
        assert (found(bias_after).accumulate.name, found(bias_after).once) == ("float32", False)


@pytest.mark.parametrize("dtype", HALVES)
def test_flushing_is_seen_wherever_it_happens_and_whatever_the_accumulator(dtype):
    for size in SIZES:
        call = addmm_call(dtype, *size)

        def lost(kernel, call=call, size=size):
            return probe_flush(call, size[1], lambda values: kernel(values, dtype))

        for kernel in (reads_zero, returns_zero, products_zero):
            assert lost(kernel) == (True,), (kernel, size)
        for kernel in (honest, backwards, narrow, narrow_products, stored_between, bias_after):
            assert lost(kernel) == (False,), (kernel, size)


def cumulative(values, dtype):
    (x,) = kept(values, dtype)
    total = torch.zeros(x.shape[0])
    for k in range(x.shape[1]):
        total = (total + x[:, k]).to(dtype).float()
    return [total.to(dtype)]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", ["sum", "mean"])
def test_sums_without_products(dtype, name):
    for rows, terms in ((4, 3), (1, 9), (2, 4000)):
        operation = {"sum": aten.sum.dim_IntList, "mean": aten.mean.dim}[name]
        call = call_of(operation, (torch.empty(rows, terms, dtype=dtype), [1]), {})
        scale = terms if name == "mean" else 1

        def exactly(v, scale=scale):
            return [(v[0].to(dtype).double().sum(1) / scale).float().to(dtype)]

        def narrowly(v, scale=scale):
            return [(cumulative(v, dtype)[0] / scale).to(dtype)]

        wide = probe_sums(call, terms, exactly)
        assert (wide[0].accumulate.name, wide[0].once) == ("float32", True)
        narrow = probe_sums(call, terms, narrowly)
        assert narrow[0].accumulate.name != "float32"
        if name == "sum":
            assert probe_flush(call, terms, lambda v: cumulative(v, dtype)) == (False,)
            assert probe_flush(call, terms, lambda v: [flushed(v[0].sum(1), dtype)]) == (True,)


@pytest.mark.parametrize("dtype", HALVES)
def test_a_bias_gradient_that_is_stored_after_every_sample_is_noticed(dtype):
    """It sums the upstream gradient alone, without products."""
    operands = [torch.empty(s, dtype=dtype) for s in ((2, 3, 4), (2, 2, 6), (3, 2, 3))]
    arguments = (*operands, [3], [1], [0], [1], False, [0], 1, [True, True, True])
    call = call_of(aten.convolution_backward.default, arguments, {})

    def by_sample(values):
        found = [v.float().to(dtype) for v in aten.convolution_backward(*values, *arguments[3:])]
        samples = [kept(values, dtype)[0][k].sum(-1).to(dtype) for k in range(2)]
        return [*found[:2], samples[0] + samples[1]]

    facts = probe_sums(call, 8, by_sample)
    assert [each.accumulate.name == "float32" for each in facts] == [True, True, False]


def test_strides_indices_and_absent_results_are_those_of_the_call():
    x = torch.empty(3, 8, dtype=torch.bfloat16).t()
    one = torch.empty(1, 1, dtype=torch.bfloat16).expand(3, 5)
    call = call_of(aten.mm.default, (x, one), {})
    assert [o.strides for o in call.operands] == [(1, 8), (0, 0)]
    seen = []

    def spy(values):
        seen.append([v.stride() for v in values])
        return kernel_of(call)(values)

    probe_sums(call, 3, spy)
    assert set(map(tuple, seen)) == {((1, 8), (0, 0))}
    index = torch.tensor([0, 0, 1, 0])
    call = call_of(
        aten.embedding_dense_backward.default,
        (torch.empty(4, 2, dtype=torch.float16), index, 3, -1, False), {},
    )  # fmt: skip
    found = kernel_of(call)([torch.ones(4, 2, dtype=torch.float64)])[0]
    assert found.tolist() == [[3.0, 3.0], [1.0, 1.0], [0.0, 0.0]]
    upstream, x, w = (
        torch.empty(s, dtype=torch.float16) for s in ((2, 3, 4), (2, 2, 6), (3, 2, 3))
    )
    geometry = ([1], [0], [1], False, [0], 1)
    call = call_of(
        aten.convolution_backward.default,
        (upstream, x, w, [3], *geometry, [False, True, True]), {},
    )  # fmt: skip
    facts = probe_sums(call, 8)
    assert facts[0] is None and None not in facts[1:]


def test_the_table_names_every_kernel_that_was_probed(monkeypatch):
    inputs = {"x": torch.ones(3, 9), "w": torch.ones(2, 9)}
    trace = prune(trace_gradients(lambda x, w: ((x @ w.t()) ** 2).sum(), inputs))
    for name in ("float16", "bfloat16"):
        machine = ProbedKernels(trace, ro.as_format(name))
        for step in trace.steps:
            if isinstance(step, Contract):
                assert machine.place(step, machine.format).wide.precision in (8, 11, 24)
    shown = str(ro.contracts())
    assert "3x9 9x2 (1,9)" in shown
    assert {row[0] for row in ro.contracts().rows} >= {"mm"}
    monkeypatch.setattr(provenance, "_MANY", 10**6)
    assert any("mm 3x9" in name for name in provenance.contracts())
    monkeypatch.setattr(provenance, "_MANY", 0)
    together = provenance.contracts()
    assert not any("mm 3x9" in name for name in together)
    assert any(name.startswith("mm, ") and " call" in facts for name, facts in together.items())


INDEX = torch.from_numpy(np.random.default_rng(3).integers(0, 5, 60))


def convolved(dims, **geometry):
    convolve = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[dims]
    return lambda x, w, b: convolve(x, w, b, **geometry)


def channels_last(x, w, b):
    return F.conv2d(x.contiguous(memory_format=torch.channels_last), w, b, padding=1)


KERNELS = {
    "mm": (lambda a, b: a @ b, {"a": (16, 70), "b": (70, 5)}),
    "small mm": (lambda a, b: a @ b, {"a": (2, 3), "b": (3, 2)}),
    "mv": (lambda a, b: a @ b, {"a": (8, 90), "b": (90,)}),
    "dot": (lambda a, b: a.dot(b), {"a": (90,), "b": (90,)}),
    "linear": (F.linear, {"input": (2, 5, 32), "weight": (7, 32), "bias": (7,)}),
    "bmm": (lambda a, b: a @ b, {"a": (3, 4, 40), "b": (3, 40, 5)}),
    "addmm": (lambda a, b, c: torch.addmm(c, a, b), {"a": (8, 33), "b": (33, 4), "c": (8, 4)}),
    "baddbmm": (lambda a, b, c: torch.baddbmm(c, a, b), {"a": (2, 5, 33), "b": (2, 33, 4), "c": (2, 5, 4)}),
    "conv1d": (convolved(1), {"x": (3, 4, 30), "w": (6, 4, 3), "b": (6,)}),
    "conv1d, stride": (convolved(1, stride=2, padding=1), {"x": (2, 4, 30), "w": (6, 4, 3), "b": (6,)}),
    "conv2d, groups": (convolved(2, groups=2), {"x": (2, 4, 6, 6), "w": (6, 2, 3, 3), "b": (6,)}),
    "conv2d, dilation": (convolved(2, dilation=2), {"x": (2, 3, 7, 7), "w": (4, 3, 3, 3), "b": (4,)}),
    "conv2d, channels last": (channels_last, {"x": (2, 4, 5, 5), "w": (3, 4, 3, 3), "b": (3,)}),
    "conv3d": (convolved(3), {"x": (1, 2, 4, 4, 4), "w": (3, 2, 2, 2, 2), "b": (3,)}),
    "sum": (lambda x, y: (x * y).sum(1), {"x": (4, 90), "y": (4, 90)}),
    "mean": (lambda x, y: (x * y).mean(0), {"x": (90, 4), "y": (90, 4)}),
    "embedding": (lambda w: F.embedding(INDEX, w), {"w": (5, 4)}),
    "index_add": (lambda a, b: a.index_add(0, INDEX, b), {"a": (5, 4), "b": (60, 4)}),
}  # fmt: skip

#: Exponents of factors: ordinary; products that are subnormal; subnormal numbers.
SCALES = {"float16": (0, -7, -16), "bfloat16": (0, -63, -128)}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("format", SCALES)
@np.errstate(all="ignore")
def test_kernels_stay_within_the_bounds_that_rest_on_their_contracts(kernel, format) -> None:
    function, shapes = KERNELS[kernel]
    generator = np.random.default_rng(11)
    trace = None  # numbers do not matter to it
    for exponent in SCALES[format]:
        for count in (1, 2):
            inputs = {
                name: generator.standard_normal(shape) * 2.0 ** (exponent + generator.integers(-4, 5, shape))
                for name, shape in shapes.items()
            }  # fmt: skip
            shape = function(**{name: torch.from_numpy(v) for name, v in inputs.items()}).shape
            upstream = generator.standard_normal(tuple(shape))
            if trace is None:
                trace = prune(trace_gradients(function, inputs, None, None, upstream, forward=True))
            with threads(count):
                found = evidence_of_trace(trace, {**inputs, UPSTREAM: upstream}, format)
                native = native_gradients(
                    function, inputs, None, None, upstream, format=format, forward=True
                )
                for name, computed in native.items():
                    of, bound = found.reference[name], found.bounds[name]
                    error = np.abs((computed - of.high) - of.low)
                    beyond = error > np.minimum(bound.certain, bound.likely(1e-9)) + of.error
                    assert not (beyond & np.isfinite(computed)).any(), (exponent, count, name)


def test_flushed_products_of_a_linear_layer_are_within_its_bounds() -> None:
    """On a CPU whose kernel flushes them the gradient is 0 in place of 1.9e-37."""
    inputs = {"x": np.full((32, 32), 2.0**-64), "w": np.full((32, 32), 2.0**-63)}
    problem = dict(inputs=inputs, loss=lambda o: (o * 2.0**-63).sum())
    result = ro.compare(
        lambda x, w: F.linear(x, w),
        lambda x, w: (x.float() @ w.float().t()).to(x.dtype),
        **problem, formats=("bfloat16",),
    )  # fmt: skip
    assert {str(v) for v in result.table["verdict"]} <= {"IDENTICAL", "ROUNDOFF", "UNDECIDED"}
    assert any("bounds in bfloat16: sums in" in note for note in result.notes)


def test_a_stated_accumulator_or_order_describes_a_kernel_and_nothing_is_probed() -> None:
    x = np.random.default_rng(2).standard_normal((3, 41))
    before = len(ro.contracts().entries)
    for how in ({"accumulate": "bfloat16"}, {"order": "sequential"}, {"accumulate": "float32"}):
        found = ro.gradient_bounds(lambda x: (x @ x.t()).sum(), {"x": x}, format="bfloat16", **how)[
            "x"
        ]
        assert "probed" not in str(found)
    assert len(ro.contracts().entries) == before
    wide = ro.gradient_bounds(lambda x: (x @ x.t()).sum(), {"x": x}, format="bfloat16")["x"]
    assert "probed on this machine" in str(wide) or "not probed" in str(wide)
    narrow = ro.gradient_bounds(
        lambda x: (x @ x.t()).sum(), {"x": x}, format="bfloat16", accumulate="bfloat16"
    )["x"]
    assert (wide.certain <= narrow.certain * (1 + 2.0**-20) + 2.0**-100).all()


@pytest.mark.parametrize("reduce", [torch.sum, torch.cumsum])
def test_a_call_that_names_the_declared_type_is_probed_in_the_format_that_is_judged(reduce) -> None:
    x = {"x": torch.rand(300, 4, generator=torch.Generator().manual_seed(0))}

    def function(x):
        return (reduce(x, 0, dtype=x.dtype) ** 2).sum()

    def bound(*formats):
        table = ro.compare(function, function, x, formats=formats).table
        return table.set_index(["gradient", "format"]).loc[("x", "float16"), "bound_certified"]

    assert bound("bfloat16", "float16") == bound("float16") == bound("float16", "bfloat16")


def test_a_stated_accumulator_leaves_flushing_to_the_probes() -> None:
    """Products of 2^-64 and 2^-63 are flushed on some CPUs: no bound of 0 condemns that, whoever states what."""
    inputs = {"x": torch.full((8, 8), 2.0**-64), "w": torch.full((8, 8), 2.0**-63)}
    problem = dict(loss=lambda out: (out * 2.0**-63).sum())
    wide = lambda x, w: (x.float() @ w.float().t()).to(x.dtype)
    for accumulate in (None, "float32"):
        found = ro.compare(
            lambda x, w: F.linear(x, w),
            wide,
            inputs,
            formats=("bfloat16",),
            accumulate=accumulate,
            **problem,
        )
        assert ro.Verdict.SUSPICIOUS not in {
            pair.judgement.verdict for pair in found.pairs.values()
        }
        assert 'accumulate="float32"' not in str(found)
