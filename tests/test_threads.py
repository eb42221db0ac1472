"""Every public call from eight threads at once gives what it gives alone."""

from __future__ import annotations

import inspect
import warnings
from concurrent.futures import ThreadPoolExecutor, wait

import flint
import matplotlib as mpl
import numpy as np
import pandas as pd
import slicing
import torch
import torch.nn.functional as F
from problems import squares

import roundoff as ro
from roundoff import files, study
from roundoff.gradients.native import threads
from roundoff.locks import NUMBERS

THREADS = 8


def conv_then_slice(weight, bias, x):
    return F.conv1d(x, weight, bias)[:, :, -5:]


def slice_then_conv(weight, bias, x):
    return F.conv1d(x[:, :, -5:], weight, bias)


def smooth(x):
    return x.exp().log1p() * torch.atan(x) + torch.erf(x)


def normal(*shape):
    return torch.from_numpy(np.random.default_rng(0).standard_normal(shape))


CONV = {"weight": normal(3, 3, 1), "bias": normal(3), "x": normal(1, 3, 10)}
LSTM = torch.nn.LSTM(3, 4)
ATTENTION = torch.nn.MultiheadAttention(4, 2, batch_first=True)
RECURRENT, STEPS = ro.functional(LSTM)
ATTENDED, PROJECTIONS = ro.functional(ATTENTION)
POINTS = {"x": normal(6)}


def _numbers(reference):
    return [
        (name, each.engine, each.mp().tolist(), each.error.tolist(), each.scale.tolist())
        for name, each in reference.items()
    ]


def _lists(arrays):
    return {name: np.asarray(value).tolist() for name, value in arrays.items()}


def _reference(engine):
    return lambda folder: _numbers(
        ro.reference_gradients(smooth, POINTS, None, squares, engine=engine)
    )


def _written(folder):
    result = ro.compare(slice_then_conv, conv_then_slice, CONV, None, squares, formats=("float32",))
    ro.write_report(result, folder)
    return sorted((path.name, path.read_bytes()) for path in folder.rglob("*.*") if path.is_file())


def _asserted(folder):
    found = {n: torch.tensor(v) for n, v in native(conv_then_slice, CONV).items()}
    ro.testing.assert_within_roundoff(found, conv_then_slice, CONV, loss=squares)
    ro.testing.assert_same_function(
        slice_then_conv, conv_then_slice, CONV, loss=squares, formats=("float32",)
    )
    return "passed"


def _explained(folder):
    why = ro.explain(slice_then_conv, conv_then_slice, inputs=CONV, wrt=("weight",), loss=squares)
    timed = ("aten::", "bytes past")  # kernels by their time, and where memory was free
    return [line for line in str(why).splitlines() if not any(word in line for word in timed)]


def native(function, inputs, **options):
    return _lists(ro.native_gradients(function, inputs, None, squares, **options))


def _functional(folder):
    module = torch.nn.BatchNorm1d(3)
    function, parameters = ro.functional(module)
    return _numbers(
        ro.reference_gradients(function, {**parameters, "input": normal(4, 3)}, None, squares)
    )


CALLS = {
    "seeded": lambda folder: (ro.seeded(torch.sin), np.ones(1))[1],  # it seeds the process's generator
    "reference_gradients": _reference("mpmath"),
    "reference_gradients, balls": _reference("ball"),
    "reference_gradients, words": _reference("multiword"),
    "reference_gradients, attention": lambda folder: _numbers(
        ro.reference_gradients(
            ATTENDED, {**PROJECTIONS, **dict.fromkeys(("query", "key", "value"), normal(1, 3, 4))},
            ("query",), squares, output=0,
        )
    ),
    "native_gradients": lambda folder: native(conv_then_slice, CONV),
    "native_gradients, lstm": lambda folder: native(
        RECURRENT, {**STEPS, "input": normal(5, 2, 3)}, output=0
    ),
    "functional": _functional,
    "attribute": lambda folder: str(ro.attribute(smooth, POINTS, None, squares)),
    "predict": lambda folder: _lists(
        {n: p.errors for n, p in ro.predict(smooth, POINTS, None, squares, samples=2).items()}
    ),
    "gradient_bounds": lambda folder: _lists(
        {n: b.certified for n, b in ro.gradient_bounds(smooth, POINTS, None, squares).items()}
    ),
    "compare": lambda folder: str(
        ro.compare(slice_then_conv, conv_then_slice, CONV, None, squares, formats=("float32",))
    ),
    "explain": _explained,
    "reveal": lambda folder: str(ro.reveal(torch.sum, n=40, dtype=torch.float32)),
    "reveal_gradient": lambda folder: str(ro.reveal_gradient(conv_then_slice, CONV, "weight")),
    "tolerance": lambda folder: str(ro.tolerance(conv_then_slice, CONV, None, squares)),
    "write_report": _written,
    "testing": _asserted,
    "sum_in_order": lambda folder: ro.sum_in_order(normal(3, 30), "pairwise", "bfloat16").tolist(),
    "dot_in_order": lambda folder: ro.dot_in_order(normal(30), normal(30), "fma", "float16").tolist(),
    "bounds": lambda folder: float(ro.bounds.sum(normal(30).numpy(), "float16").certified),
    "round_to": lambda folder: ro.round_to(normal(30), "float16").tolist(),
    "spacing": lambda folder: ro.spacing(normal(30).numpy(), 0.0, "float16").tolist(),
    "contracts": lambda folder: str(ro.contracts()).splitlines()[0],
    "as_format": lambda folder: str(ro.as_format(torch.float16)),
    "statistics": lambda folder: ro.statistics.median_interval(normal(12).numpy()),
}  # fmt: skip


def process():
    """What the process has once."""
    flags = torch.backends.mkldnn.enabled, torch.backends.cuda.flash_sdp_enabled()
    return (
        *flags,
        torch.get_num_threads(),
        flint.ctx.prec,
        list(warnings.filters),
        dict(mpl.rcParams),
    )


def test_the_calls_are_all_public_functions() -> None:
    public = {name for name in ro.__all__ if inspect.isfunction(getattr(ro, name))}
    assert public == {name.split(",")[0] for name in CALLS} & public


def test_every_public_call_from_eight_threads_gives_what_it_gives_alone(tmp_path) -> None:
    alone = {name: call(tmp_path / f"{name} alone") for name, call in CALLS.items()}
    before = process()
    names = [name for name in CALLS for _ in range(2)]  # the same call at once, too
    with ThreadPoolExecutor(THREADS) as pool:
        found = pool.map(lambda k: CALLS[names[k]](tmp_path / f"{names[k]} {k}"), range(len(names)))
        for name, each in zip(names, found, strict=True):
            assert each == alone[name], name
    assert process() == before


def test_a_native_run_sees_no_flag_of_a_trace_beside_it() -> None:
    seen = []

    def looking(x):
        if not torch._C._is_torch_function_mode_enabled():  # not while it is traced
            seen.append((torch.backends.mkldnn.enabled, torch.get_num_threads()))
        return (x * x).sum()

    def work(number):
        inputs = {"x": normal(3)}
        if number % 3 == 0:
            with threads(2):
                return ro.reference_gradients(looking, inputs, format="float64")["x"].hi.tolist()
        if number % 3 == 1:
            return ro.reference_gradients(looking, inputs, format="float64")["x"].hi.tolist()
        return ro.native_gradients(looking, inputs, format="float64")["x"].tolist()

    expected = torch.backends.mkldnn.enabled, torch.get_num_threads()
    with ThreadPoolExecutor(THREADS) as pool:
        assert all(found == (2 * normal(3)).tolist() for found in pool.map(work, range(60)))
    assert len(seen) == 20 and set(seen) == {expected}


def test_references_of_two_threads_take_turns_with_the_constants_that_mpmath_keeps() -> None:
    with ThreadPoolExecutor(1) as pool:
        with NUMBERS:
            other = pool.submit(CALLS["reference_gradients"], None)
            assert not wait([other], 0.3).done
        assert other.result() == CALLS["reference_gradients"](None)


def test_a_study_with_threads_has_the_rows_of_one_without(tmp_path) -> None:
    config = slicing.Slicing(N=1, CI=2, CO=2, T=8, keep=3)
    grid = study.cells(
        list(slicing.problems(config)), ("float16", "float32"), ("pairwise",), block=2
    )
    grid = grid[:8]
    with ThreadPoolExecutor(1) as one, ThreadPoolExecutor(THREADS) as many:
        alone, found = (
            study.run(grid, tmp_path / str(k), executor=pool, progress=False)
            for k, pool in enumerate((one, many))
        )
    assert all(found[name].equals(alone[name]) for name in study.TABLES)


def test_tables_written_at_once_leave_the_filters_of_warnings_alone(tmp_path) -> None:
    """pandas filters warnings while it turns a table into Parquet, for the whole process."""
    table = pd.DataFrame({"numbers": np.arange(30.0), "words": ["word"] * 30})
    content, before = files.parquet(table), list(warnings.filters)
    path = tmp_path / "table.parquet"
    path.write_bytes(content)
    with ThreadPoolExecutor(THREADS) as pool:
        assert set(pool.map(lambda _: files.parquet(table), range(200))) == {content}
        assert all(
            found.equals(table)
            for found in pool.map(lambda _: files.read_parquet(path), range(200))
        )
    assert list(warnings.filters) == before
