"""Every public callable with wrong types, shapes and values: one sentence, or a meaningful answer."""

from __future__ import annotations

import inspect
import warnings

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro
from roundoff import testing

WEIGHT, BIAS, X = torch.randn(2, 2, 1), torch.randn(2), torch.rand(1, 2, 4)


def slice_then_conv(weight, bias, x):
    return F.conv1d(x[:, :, -2:], weight, bias)


def conv_then_slice(weight, bias, x):
    return F.conv1d(x, weight, bias)[:, :, -2:]


def squares(out):
    return (out**2).sum()


PROBLEM = dict(
    inputs={"weight": WEIGHT, "bias": BIAS, "x": X}, wrt=("weight",), loss=squares, upstream=None
)
A, B = np.array([0.1, 0.2, 0.3, 0.7]), np.array([1.0, 2.0, -3.0, 0.5])
TREE = ro.orders.pairwise(4)
COUNT = dict(n=10, u=2.0**-24)
LIKELY = dict(**COUNT, failure=1e-3, outputs=1)
CONVOLVED = dict(x=np.ones((1, 2, 4)), weight=np.ones((2, 2, 1)), upstream=np.ones((1, 2, 4)))

#: One good call of every public callable, all of its arguments by name.
CALLS = {
    ro.Format: dict(name="f", precision=4, emin=-3, emax=4, largest=None, infinity=True),
    ro.ReductionTree: dict(n=TREE.n, children=TREE.children),
    ro.accuracy.bitwise_equal: dict(a=A, b=B),
    ro.accuracy.dot_backward: dict(computed=1.0, x=A, y=B),
    ro.accuracy.dot_condition: dict(x=A, y=B),
    ro.accuracy.dot_condition_normwise: dict(x=A, y=B),
    ro.accuracy.errors: dict(computed=A, hi=B, lo=0 * B, scale=abs(B), format="float32"),
    ro.accuracy.normwise: dict(computed=A, hi=B, lo=0 * B),
    ro.accuracy.normwise_rows: dict(computed=A[None], hi=B[None], lo=0 * B[None]),
    ro.accuracy.sum_backward: dict(computed=1.3, values=A),
    ro.accuracy.sum_condition: dict(values=A),
    ro.accuracy.sum_condition_normwise: dict(values=A),
    ro.accuracy.ulp_between: dict(a=A.astype(np.float32), b=B, format="float32"),
    ro.as_format: dict(what="float16"),
    ro.bounds.conv_gradients: dict(**CONVOLVED, format="float32", stride=1, padding=0, dilation=1,
                                   groups=1, algorithm="direct"),
    ro.bounds.depth_weighted: dict(depths=np.array([1, 2, 2]), u=2.0**-24),
    ro.bounds.dot: dict(x=A, y=B, format="float16", order=None, accumulate=None, fma=False,
                        rounding="nearest"),
    ro.bounds.dot2: COUNT,
    ro.bounds.gamma: COUNT,
    ro.bounds.hallman_ipsen: dict(squares=1.0, roundings=9, height=9, u=2.0**-24, failure=1e-3,
                                  outputs=1),
    ro.bounds.higham_mary: LIKELY,
    ro.bounds.higham_mary_lambda: LIKELY,
    ro.bounds.jeannerod_rump: COUNT,
    ro.bounds.kahan: COUNT,
    ro.bounds.lange_rump: COUNT,
    ro.bounds.linear_gradients: dict(x=np.ones((3, 2)), weight=np.ones((2, 2)),
                                     upstream=np.ones((3, 2)), format="float32"),
    ro.bounds.matmul: dict(a=np.ones((2, 3)), b=np.ones((3, 2)), format="float16", order=None,
                           accumulate=None, fma=False, rounding="nearest"),
    ro.bounds.matmul_gradients: dict(a=np.ones((3, 2)), b=np.ones((2, 2)), upstream=np.ones((3, 2)),
                                     format="float32"),
    ro.bounds.neumaier: COUNT,
    ro.bounds.stochastic_rounding: LIKELY,
    ro.bounds.sum: dict(values=A, format="float16", order=None, accumulate=None, rounding="nearest"),
    ro.bounds.sum2: COUNT,
    ro.compare: dict(first=slice_then_conv, second=conv_then_slice, **PROBLEM, formats="float32",
                     output=None, rename=None, accumulate=None, device="cpu", points=0, seeds=0, seed=0,
                     like=None),
    ro.contracts: {},
    ro.dot_in_order: dict(x=A, y=B, order="pairwise", format="float16", fma=False, accumulate=None),
    ro.explain: dict(first=conv_then_slice, second=conv_then_slice, **PROBLEM, format="float32",
                     output=None, device="cpu", names=None, trials=64, seed=0),
    ro.formats.as_float64: dict(x=A),
    ro.functional: dict(module=torch.nn.Linear(2, 2)),
    ro.seeded: dict(function=torch.sin, seed=1),
    ro.gradient_bounds: dict(function=conv_then_slice, **PROBLEM, format="float32", accumulate=None,
                             order=None),
    ro.native_gradients: dict(function=conv_then_slice, **PROBLEM, format="float32", device="cpu",
                              output=None, forward=False),
    ro.orders.accumulator: dict(format="float16", accumulate="float32"),
    ro.orders.as_order: dict(what="pairwise"),
    ro.orders.blocked: dict(n=8, block=4),
    ro.orders.describe: dict(tree=TREE),
    ro.orders.pairwise: dict(n=8),
    ro.orders.parting: dict(first=TREE, second=TREE),
    ro.orders.reverse: dict(n=8),
    ro.orders.sequential: dict(n=8),
    ro.orders.shuffled: dict(n=8, seed=0),
    ro.orders.strided: dict(n=8, lanes=4),
    ro.attribute: dict(function=conv_then_slice, **PROBLEM, format="float32", signs=1, seed=0, output=None),
    ro.predict: dict(function=conv_then_slice, **PROBLEM, format="float32", accumulate=None, order=None,
                     samples=2, seed=0, output=None, trees=None),
    ro.reference_gradients: dict(function=conv_then_slice, **PROBLEM, format="float32", engine="auto",
                                 output=None),
    ro.reveal: dict(callable=torch.sum, n=8, dtype=torch.float32, trials=64, seed=0),
    ro.reveal_gradient: dict(function=conv_then_slice, inputs=PROBLEM["inputs"], wrt="weight",
                             format="float32", upstream=None, others=None, output=None, device="cpu",
                             trials=64, seed=0),
    ro.round_to: dict(x=A, format="float16", mode="nearest_even"),
    ro.spacing: dict(hi=A, lo=0 * A, format="float16"),
    ro.statistics.correct: dict(p_values=[0.1, 0.2]),
    ro.statistics.dkw_band: dict(n=100, level=0.95),
    ro.statistics.ecdf: dict(values=A),
    ro.statistics.paired: dict(first=abs(A), second=abs(B)),
    ro.statistics.proportion_interval: dict(successes=3, n=10, level=0.95),
    ro.statistics.median_interval: dict(values=A, level=0.95),
    ro.statistics.quantiles: dict(values=A),
    ro.statistics.summarise: dict(values=A),
    ro.statistics.zero_failures: dict(n=1000, level=0.95),
    ro.sum_in_order: dict(values=A, order="pairwise", format="float16"),
    ro.tolerance: dict(function=conv_then_slice, **PROBLEM, format="float32", failure=1e-9,
                       accumulate=None, output=None),
    ro.write_report: dict(result=None, folder="unused"),
    testing.assert_same_function: dict(first=conv_then_slice, second=conv_then_slice, **PROBLEM,
                                       formats=("float32",)),
    testing.assert_within_roundoff: dict(
        actual={"weight": torch.ones(2, 2, 1)}, function=conv_then_slice, **PROBLEM,
        kind="probabilistic", failure=1e-9, accumulate=None, output=None),
}  # fmt: skip

#: What no argument is meant to be; each may still be meaningful for some.
BAD = {
    "None": None, "no word": "", "a word": "nonsense", "-1": -1, "0": 0, "2.5": 2.5,
    "nan": float("nan"), "inf": float("inf"), "huge": 10**30, "True": True, "list": [], "dict": {},
    "object": object(), "bytes": b"ab", "complex": 1j, "empty": np.empty(0),
    "other shape": np.ones((2, 3, 5)), "strings": ["a", "b"], "ragged": [[1.0, 2.0], [3.0]],
    "meta": torch.empty(4, device="meta"), "sparse": torch.eye(3).to_sparse(),
    "with gradient": torch.ones(4, requires_grad=True), "complex tensor": torch.ones(4, dtype=torch.complex64),
    "string array": np.array("x"), "objects": np.array([None, 1], dtype=object),
    "nan array": np.array([np.nan, 1.0, 2.0, 3.0]), "inf array": np.array([np.inf, 1.0, 2.0, 3.0]),
}  # fmt: skip

#: Made by other public callables, not by users.
RESULTS = {ro.Bound, ro.Comparison, ro.Explanation, ro.GradientReference, ro.KernelTree, ro.Reference,
           ro.Report, ro.Revealed, ro.Tolerance, ro.Verdict}  # fmt: skip

#: Parts that other rooms are built of; they take what those have checked.
PARTS = {"add_up", "alike", "dots", "holds", "names", "rounder", "sums", "suspect", "Order"}


def public() -> set:
    """Every public callable that a user gives arguments to."""
    rooms = [ro, ro.accuracy, ro.bounds, ro.formats, ro.orders, ro.statistics, testing]
    found = set()
    for room in rooms:
        names = getattr(room, "__all__", None) or vars(room)
        for name in names:
            thing = getattr(room, name)
            home = getattr(thing, "__module__", "")
            own = home.startswith("roundoff" if hasattr(room, "__all__") else room.__name__)
            error = inspect.isclass(thing) and issubclass(thing, Exception)
            if callable(thing) and own and not error and name not in PARTS and name[0] != "_":
                found.add(thing)
    return found - RESULTS


def name_of(function) -> str:
    return f"{function.__module__.removeprefix('roundoff.')}.{function.__name__}"


def test_every_public_callable_is_swept() -> None:
    dataclasses = {each for each in public() if inspect.isclass(each)} - {
        ro.Format,
        ro.ReductionTree,
    }
    assert public() - dataclasses <= set(CALLS)


@pytest.mark.parametrize("function", CALLS, ids=name_of)
@pytest.mark.filterwarnings("ignore")
def test_a_bad_argument_gets_one_sentence(function, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    given = {**CALLS[function]}
    if function is ro.write_report:
        given = dict(result=ro.compare(conv_then_slice, conv_then_slice, **PROBLEM, formats="float32"),
                     folder=tmp_path / "report")  # fmt: skip
    for argument in given:
        for what, bad in BAD.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    function(**{**given, argument: bad})
                except ro.RoundoffError as error:
                    message = str(error)
                except AssertionError:
                    assert function.__module__ == "roundoff.testing.assertions", (
                        f"{argument} = {what}"
                    )
                    continue
                except Exception as error:
                    raise AssertionError(f"{argument} = {what}: {type(error).__name__}") from error
                else:
                    continue
            assert "\n" not in message and 10 < len(message) < 400, (
                f"{argument} = {what}: {message}"
            )
            assert "object at 0x" not in message and "np.float64(" not in message, message
