"""Simulated kernels against scalar loops in rational numbers, and against float32 loops in NumPy."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scalar import by_rational, scalar_compensated

import roundoff as ro
from roundoff import orders
from roundoff.arithmetic.simulated import Simulated, simulate
from roundoff.numbers.formats import Format
from roundoff.trace import Constant, Contract, Input, Map, Move, Reduce, prune, trace_gradients

TOY = Format("toy", 5, -14, 15)


def conv_then_slice(weight, bias, x):
    return F.conv1d(x, weight, bias, padding=1)[:, :, -4:]


def squares(out):
    return (out**2).sum()


class Scalar:
    """A trace carried out one element at a time; sums over every leaf, structural zeros included."""

    def __init__(self, target, wide, order) -> None:
        self.target, self.wide, self.order = target, wide, orders.as_order(order)

    def round(self, value) -> Fraction:
        return Fraction(by_rational(Fraction(value), self.target))

    def add_up(self, terms) -> Fraction:
        def rounded(x):
            return Fraction(by_rational(x, self.wide))

        node = [rounded(t) for t in terms]
        if self.order.compensation == "sum2":
            return self.round(scalar_compensated(terms, self.wide, "sum2"))
        if self.order.compensation:
            return self.round(scalar_compensated(node, self.wide, self.order.compensation))
        for left, right in self.order.tree(len(terms)).children.tolist():
            leaf = terms[right] if self.order.fused and right < len(terms) else node[right]
            node.append(rounded(node[left] + leaf))
        return self.round(node[-1])

    def walk(self, trace, inputs):
        values = []
        for step in trace.steps:
            of = [values[o] for o in step.operands]
            values.append(np.array(self.step(step, of, inputs), object).reshape(step.shape))
        return {name: values[number] for name, number in trace.outputs.items()}

    def step(self, step, of, inputs):
        match step:
            case Input():
                return np.vectorize(Fraction, otypes=[object])(inputs[step.name])
            case Constant():
                return np.full(step.shape, self.round(step.value), object)
            case Move():
                flat = [Fraction(0), *itertools.chain(*(v.ravel() for v in of))]
                index = np.arange(1, len(flat)) if step.index is None else step.index.ravel()
                return [flat[k] for k in index]
            case Map():
                function = {"add": lambda a, b: a + b, "mul": lambda a, b: a * b}[step.function]
                return [
                    self.round(function(*xs)) for xs in zip(*(v.ravel() for v in of), strict=True)
                ]
            case Reduce():
                return [self.add_up(list(row)) for row in of[0].reshape(-1, step.leaves)]
            case Contract():
                a, b = of
                return [
                    self.add_up([p * q for p, q in zip(a[k, i], b[k, :, j], strict=True)])
                    for k, i, j in np.ndindex(*step.shape)
                ]


@pytest.mark.parametrize("name", orders.names())
@pytest.mark.parametrize(
    ("target", "wide"),
    [
        (ro.FLOAT32, ro.FLOAT32), (ro.FLOAT64, ro.FLOAT64), (ro.FLOAT16, ro.FLOAT16),
        (ro.FLOAT16, ro.FLOAT32), (ro.BFLOAT16, ro.FLOAT32), (TOY, TOY),
    ],
    ids=str,
)  # fmt: skip
def test_gradients_are_scalar_gradients(target, wide, name) -> None:
    rng = np.random.default_rng(5)
    draws = {
        "weight": rng.uniform(-1, 1, (3, 2, 2, 3)),
        "bias": rng.uniform(-1, 1, (3, 2)),
        "x": rng.random((3, 2, 2, 6)),
    }
    draws = {k: ro.round_to(v, target) for k, v in draws.items()}
    one = {k: v[0] for k, v in draws.items()}
    whole = trace_gradients(conv_then_slice, one, ("weight", "bias"), squares)
    found = simulate(prune(whole), Simulated(target, name, wide), draws)
    for k in range(3):
        expected = Scalar(target, wide, name).walk(whole, {n: v[k] for n, v in draws.items()})
        for gradient, values in expected.items():
            np.testing.assert_array_equal(found[gradient][k], values.astype(np.float64))


def test_a_linear_layer_is_a_numpy_loop() -> None:
    rng = np.random.default_rng(6)
    draws = {
        n: rng.standard_normal((5, *s)).astype(np.float32)
        for n, s in (("x", (4, 7)), ("w", (3, 7)))
    }
    up = rng.standard_normal((5, 4, 3)).astype(np.float32)
    one = {k: torch.from_numpy(v[0]) for k, v in draws.items()}
    trace = prune(trace_gradients(lambda x, w: x @ w.T, one, ("x", "w"), None, up[0]))
    given = {k: v.astype(np.float64) for k, v in (*draws.items(), ("upstream gradient", up))}
    found = simulate(trace, Simulated("float32", "sequential"), given)
    for k in range(5):
        dw = np.zeros((3, 7), np.float32)
        for n in range(4):
            dw = dw + np.multiply.outer(up[k, n], draws["x"][k, n])
        np.testing.assert_array_equal(found["w"][k], dw)
        dx = np.zeros((4, 7), np.float32)
        for o in range(3):
            dx = dx + np.multiply.outer(up[k, :, o], draws["w"][k, o])
        np.testing.assert_array_equal(found["x"][k], dx)


def test_structural_zeros_change_blocks_but_no_plain_loop() -> None:
    # Ten leaves of which the last five count: a plain loop adds the same; blocks of four are cut elsewhere.
    kept = np.arange(5, 10)
    same = orders.as_order("sequential").restricted(10, kept)
    assert same.same_as(orders.sequential(5))
    assert not orders.as_order("blocked(4)").restricted(10, kept).same_as(orders.blocked(5, 4))


def test_functions_are_rounded_once() -> None:
    x = np.linspace(0.1, 2, 50)[None]
    trace = prune(trace_gradients(lambda x: torch.sqrt(x) / x, {"x": x[0]}, None, torch.sum))
    inputs = {"x": ro.round_to(x, "float16")}
    found = simulate(trace, Simulated("float16"), inputs)["x"]
    exact = ro.reference_gradients(
        lambda x: torch.sqrt(x) / x, {"x": x[0]}, loss=torch.sum, format="float16"
    )["x"]
    assert (np.abs(found[0] - exact.high) <= 12 * 2.0**-11 * exact.scale).all()
    assert (ro.round_to(found, "float16") == found).all()


def test_chunks_do_not_show(monkeypatch) -> None:
    from roundoff.arithmetic import simulated

    rng = np.random.default_rng(7)
    draws = {"a": rng.random((2, 9, 8)), "b": rng.random((2, 8, 5))}
    trace = trace_gradients(
        torch.matmul, {"input": draws["a"][0], "other": draws["b"][0]}, None, squares
    )
    given = {"input": draws["a"], "other": draws["b"]}
    whole = simulate(trace, Simulated("float64", "pairwise"), given)
    monkeypatch.setattr(simulated, "CHUNK", 100)
    parts = simulate(trace, Simulated("float64", "pairwise"), given)
    for name in whole:
        np.testing.assert_array_equal(whole[name], parts[name])


def test_bad_input_is_named() -> None:
    with pytest.raises(ro.ArgumentError, match="float16 cannot hold"):
        Simulated("float32", "sequential", "float16")
    with pytest.raises(ro.UnsupportedError, match="p <= 25"):
        Simulated(Format("long", 40, -100, 100))
