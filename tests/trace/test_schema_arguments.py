"""Every argument of every operation counts: none is ignored, rounded to an integer or given a default of ours."""

from __future__ import annotations

import dis
import inspect
from types import CodeType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import roundoff as ro
from roundoff.trace.lowering import LOWERINGS
from roundoff.trace.lowering.schema_arguments import STORAGE

aten = torch.ops.aten


def _numbers(*shape):
    return torch.from_numpy(np.random.default_rng(shape).standard_normal(shape))


def _weighted(out):
    """A loss that tells all elements and shapes apart, and depends on constants in the output, too."""
    outs = [o for o in (out if isinstance(out, tuple | list) else [out]) if o.is_floating_point()]
    weights = [1 + o.dim() + torch.arange(o.numel()).reshape(o.shape) % 7 for o in outs]
    return sum((w * o * o).sum() for w, o in zip(weights, outs, strict=True)) ** 2


def _pair(call, inputs):
    """The reference and torch's own float64 gradients of one call."""
    function = lambda **values: _weighted(call(**values))
    wrt = tuple(name for name, value in inputs.items() if value.is_floating_point())
    reference = ro.reference_gradients(function, inputs, wrt, format="float64", engine="mpmath")
    return reference, ro.native_gradients(function, inputs, wrt, format="float64")


def agrees(call, **inputs):
    """Torch's gradients, once they are found to be the reference's to within 2^-36 S."""
    reference, native = _pair(call, inputs)
    for name, found in native.items():
        gap = np.abs((found - reference[name].high) - reference[name].low)
        assert (gap <= 2.0**-36 * reference[name].scale).all(), name
    return native


# ------------------------------------------------------------------------------------- the schemas

FACTORIES = """ones_like new_ones zeros_like zero new_zeros empty_like new_empty new_empty_strided full_like
    fill new_full"""
POOLS = "max_pool2d_with_indices_backward max_pool3d_with_indices_backward"

#: Arguments that a lowering rightly does not read, by operation.
UNREAD = {
    "fft": "lengths",
    **dict.fromkeys(FACTORIES.split(), "self size stride"),  # they are told their result
    **dict.fromkeys(
        POOLS.split(), "kernel_size stride padding dilation ceil_mode"
    ),  # in the indices
    "nan_to_num": "nan",  # no reference is one
    "embedding": "padding_idx scale_grad_by_freq",  # of the gradient, which reads them
    "leaky_relu_backward": "self_is_result",  # a result has the sign of x
    "log_sigmoid_backward": "buffer",  # a workspace
    "convolution_backward": "bias_sizes output_padding",  # in the upstream gradient's shape
    "native_batch_norm_backward": "output_mask",  # a result that nobody asks for is not used
    "native_layer_norm_backward": "output_mask bias",
    "native_group_norm": "C HxW",  # in the shape
    "native_group_norm_backward": "output_mask HxW",
}

#: Overloads that are refused by their form.
REFUSED = {"mm.dtype", "bmm.dtype", "addmm.dtype", "baddbmm.dtype"}


def forms():
    """Every overload of tensors that may reach a lowering; those of TorchScript alone have no kernel."""
    key = torch._C.DispatchKey
    for name in LOWERINGS:
        packet = getattr(aten, name, None) or getattr(torch.ops.roundoff, name)
        for op in (getattr(packet, overload) for overload in packet.overloads()):
            tensors = any(str(a.type) == "Tensor" for a in op._schema.arguments)
            if not tensors or op._schema.is_mutable or "hacked_twin" in op._overloadname:
                continue
            if not op.has_kernel_for_dispatch_key(key.CompositeImplicitAutograd):
                yield f"{name}.{op._overloadname}", op


def _signature(name):
    parameters = list(inspect.signature(LOWERINGS[name]).parameters.values())[1:]  # the builder
    return inspect.Signature([p for p in parameters if p.name != "out"])


def _read(code: CodeType) -> set:
    found = {i.argval for i in dis.get_instructions(code) if i.opname.startswith("LOAD")}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            found |= _read(constant)
    return found


def test_every_lowering_takes_and_reads_every_argument_of_its_schemas() -> None:
    refused, unread, checked = set(), set(), 0
    for form, op in forms():
        name = form.split(".")[0]
        arguments = [a for a in op._schema.arguments if a.name not in STORAGE]
        positional = [a for a in arguments if not a.kwarg_only]
        named = {a.name: a for a in arguments if a.kwarg_only}
        try:
            bound = _signature(name).bind(*positional, **named).arguments
        except TypeError:
            refused.add(form)
            continue
        read = _read(inspect.unwrap(LOWERINGS[name]).__code__)
        for parameter, given in bound.items():
            given = given if isinstance(given, tuple) else (given,)
            unread |= {(name, a.name) for a in given if parameter not in read}
            checked += len(given)
    allowed = {(name, argument) for name, all in UNREAD.items() for argument in all.split()}
    assert unread <= allowed, unread - allowed
    assert refused == REFUSED
    assert checked > 600


# ----------------------------------------------------------------------------------- what they do

X, Y = _numbers(4, 6), _numbers(6, 4).mT.contiguous()
IMAGE, KERNEL = _numbers(1, 4, 7, 6), _numbers(4, 2, 3, 2)
LABELS = torch.tensor([1, 0, 3, 1])
LOGITS = _numbers(4, 5)
SHARES = torch.sigmoid(X)
ROW = _numbers(6)

#: A call of named inputs, and per argument another value than the one it has here.
CALLS = {
    "var": (lambda x, **a: torch.var(x, **{"dim": 0, **a}), {"x": X},
            {"correction": 1.3, "keepdim": True, "dim": (0, 1), "unbiased": False}),
    "std": (lambda x, **a: torch.std(x, **{"dim": 0, **a}), {"x": X},
            {"correction": -0.7, "keepdim": True, "dim": 1, "unbiased": False}),
    "var_mean": (lambda x, **a: torch.var_mean(x, **{"dim": 0, **a}), {"x": X}, {"correction": 0.5, "dim": 1}),
    "std_mean": (lambda x, **a: torch.std_mean(x, **{"dim": 0, **a}), {"x": X}, {"correction": 2, "dim": 1}),
    "add": (torch.add, {"input": X, "other": Y}, {"alpha": 1.3}),
    "sub": (torch.sub, {"input": X, "other": Y}, {"alpha": 1.3}),
    "rsub": (torch.rsub, {"input": X, "other": Y}, {"alpha": 1.3}),
    "addcmul": (lambda x, y, **a: torch.addcmul(x, x, y, **a), {"x": X, "y": Y}, {"value": 1.3}),
    "addcdiv": (lambda x, y, **a: torch.addcdiv(x, x, y, **a), {"x": X, "y": Y}, {"value": 1.3}),
    "addmm": (lambda x, y, **a: torch.addmm(x[:, :4], x, y.mT, **a), {"x": X, "y": Y},
              {"beta": 0.3, "alpha": 1.3}),
    "baddbmm": (lambda x, y, **a: torch.baddbmm(x[None, :, :4], x[None], y.mT[None], **a), {"x": X, "y": Y},
                {"beta": 0.3, "alpha": 1.3}),
    "addmv": (lambda x, y, **a: torch.addmv(x[:, 0], x, y[0], **a), {"x": X, "y": Y}, {"beta": 0.3, "alpha": 1.3}),
    "lerp": (lambda x, y, weight=0.3: torch.lerp(x, y, weight), {"x": X, "y": Y}, {"weight": 0.8}),
    "clamp": (lambda x, **a: torch.clamp(x, **{"min": -1, **a}), {"x": X}, {"min": -0.3, "max": 0.4}),
    "logit": (torch.logit, {"input": SHARES}, {"eps": 0.3}),
    "nan_to_num": (lambda x, **a: x.masked_fill(x > 1, torch.inf).nan_to_num(**{"posinf": 1.5, **a}), {"x": X}, {"posinf": 2.5}),
    "sum": (lambda x, **a: torch.sum(x, **{"dim": 0, **a}), {"x": X}, {"dim": 1, "keepdim": True}),
    "mean": (lambda x, **a: torch.mean(x, **{"dim": 0, **a}), {"x": X}, {"dim": 1, "keepdim": True}),
    "prod": (lambda x, **a: torch.prod(x, **{"dim": 0, **a}), {"x": X}, {"dim": 1, "keepdim": True}),
    "cumsum": (lambda x, dim=0: torch.cumsum(x, dim), {"x": X}, {"dim": 1}),
    "logsumexp": (lambda x, **a: torch.logsumexp(x, **{"dim": 0, **a}), {"x": X}, {"dim": 1, "keepdim": True}),
    "softmax": (lambda x, dim=0: torch.softmax(x, dim), {"x": X}, {"dim": 1}),
    "log_softmax": (lambda x, dim=0: torch.log_softmax(x, dim), {"x": X}, {"dim": 1}),
    "norm": (lambda x, **a: torch.linalg.vector_norm(x, **{"dim": 0, **a}), {"x": X},
             {"ord": 2.5, "dim": 1, "keepdim": True}),
    "norm, infinite": (lambda x, ord=2: torch.linalg.vector_norm(x, ord, 0), {"x": X}, {"ord": torch.inf}),
    "norm, one": (lambda x, ord=2: torch.linalg.vector_norm(x, ord, 0), {"x": X}, {"ord": 1}),
    "norm, three": (lambda x, ord=2: torch.linalg.vector_norm(x, ord, 0), {"x": X}, {"ord": 3}),
    "amax": (lambda x, **a: torch.amax(x, **{"dim": 0, **a}), {"x": X}, {"dim": 1, "keepdim": True}),
    "max": (lambda x, **a: torch.max(x, **{"dim": 0, **a})[0], {"x": X}, {"dim": 1, "keepdim": True}),
    "min": (lambda x, **a: torch.min(x, **{"dim": 0, **a})[0], {"x": X}, {"dim": 1, "keepdim": True}),
    "leaky_relu": (F.leaky_relu, {"input": X}, {"negative_slope": 0.3}),
    "elu": (F.elu, {"input": X}, {"alpha": 0.3}),
    "elu, aten": (lambda x, alpha=1, scale=1, inner=1: aten.elu(x, alpha, scale, inner), {"x": X},
                  {"alpha": 0.3, "scale": 1.3, "inner": 0.7}),
    # Torch takes alpha in float32, in the gradient of float64, too: here a number that it holds.
    "celu": (F.celu, {"input": X}, {"alpha": 0.25}),
    "softplus": (F.softplus, {"input": X}, {"beta": 2.5, "threshold": 0.3}),
    "hardtanh": (F.hardtanh, {"input": X}, {"min_val": -0.3, "max_val": 0.4}),
    "softshrink": (F.softshrink, {"input": X}, {"lambd": 0.1}),
    "hardshrink": (F.hardshrink, {"input": X}, {"lambd": 0.1}),
    "threshold": (lambda input, **a: F.threshold(input, **{"threshold": 0.1, "value": 0.2, **a}), {"input": X},
                  {"threshold": -0.5, "value": -3.0}),
    "glu": (F.glu, {"input": X}, {"dim": 0}),
    "gelu": (F.gelu, {"input": X}, {"approximate": "tanh"}),
    "prelu": (lambda x, weight: F.prelu(x, weight), {"x": X, "weight": ROW}, {}),
    "mse_loss": (F.mse_loss, {"input": X, "target": Y}, {"reduction": "sum"}),
    "smooth_l1_loss": (F.smooth_l1_loss, {"input": X, "target": Y}, {"reduction": "none", "beta": 0.3}),
    "huber_loss": (F.huber_loss, {"input": X, "target": Y}, {"reduction": "none", "delta": 0.3}),
    "binary_cross_entropy": (F.binary_cross_entropy, {"input": SHARES, "target": SHARES.flip(0)},
                             {"reduction": "none", "weight": Y.abs()}),
    "cross_entropy": (lambda x, **a: F.cross_entropy(x, LABELS, **a), {"x": LOGITS},
                      {"reduction": "none", "weight": _numbers(5).abs(), "ignore_index": 3, "label_smoothing": 0.3}),
    "nll_loss": (lambda x, **a: F.nll_loss(x, LABELS, **a), {"x": LOGITS},
                 {"reduction": "sum", "weight": _numbers(5).abs(), "ignore_index": 3}),
    "kl_div": (lambda x, y, **a: F.kl_div(x, y, **{"reduction": "sum", **a}), {"x": X, "y": SHARES},
               {"reduction": "none", "log_target": True}),
    "conv2d": (lambda x, w, **a: F.conv2d(x, w, **{"groups": 2, **a}), {"x": IMAGE, "w": KERNEL},
               {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2), "bias": _numbers(4)}),
    "conv2d, short lists": (lambda x, w, **a: F.conv2d(x, w, **{"groups": 2, **a}), {"x": IMAGE, "w": KERNEL},
                            {"stride": [2], "padding": [2], "dilation": [2]}),
    "conv2d, words": (lambda x, w, **a: F.conv2d(x, w, **{"groups": 2, **a}), {"x": IMAGE, "w": KERNEL[..., :1]},
                      {"padding": "same"}),
    "conv2d, groups": (lambda x, w, **a: F.conv2d(x, w[:, :1] if "groups" in a else w, **{"groups": 2, **a}),
                       {"x": IMAGE, "w": KERNEL}, {"groups": 4}),
    "conv3d": (lambda x, w, **a: F.conv3d(x, w, **a), {"x": _numbers(1, 1, 3, 4, 10), "w": _numbers(1, 1, 1, 2, 4)},
               {"stride": [2], "padding": [1], "dilation": [2]}),
    "conv_transpose2d": (lambda x, w, **a: F.conv_transpose2d(x, w, **{"stride": 2, **a}),
                         {"x": IMAGE, "w": KERNEL},
                         {"stride": [3], "padding": [1], "output_padding": [1], "dilation": [2]}),
    "avg_pool2d": (lambda x, **a: F.avg_pool2d(x, **{"kernel_size": 2, **a}), {"x": IMAGE},
                   {"kernel_size": [3], "stride": [1], "padding": [1], "ceil_mode": True, "divisor_override": 3}),
    "avg_pool2d, padded": (lambda x, **a: F.avg_pool2d(x, 2, padding=1, **a), {"x": IMAGE}, {"count_include_pad": False}),
    "max_pool2d": (lambda x, **a: F.max_pool2d(x, **{"kernel_size": 2, **a}), {"x": IMAGE},
                   {"kernel_size": [3], "stride": [1], "padding": [1], "dilation": [2], "ceil_mode": True}),
    "lp_pool2d": (lambda x, **a: F.lp_pool2d(x.abs() + 1, **{"norm_type": 2, "kernel_size": 2, **a}), {"x": IMAGE},
                  {"norm_type": 3, "kernel_size": 3, "stride": 1}),
    "adaptive_avg_pool2d": (lambda x, output_size=2: F.adaptive_avg_pool2d(x, output_size), {"x": IMAGE},
                            {"output_size": (3, None)}),
    "adaptive_max_pool2d": (lambda x, output_size=2: F.adaptive_max_pool2d(x, output_size), {"x": IMAGE},
                            {"output_size": (3, None)}),
    "pad": (lambda x, **a: F.pad(x, (1, 2, 0, 1), **a), {"x": IMAGE},
            {"value": 0.7, "mode": "reflect"}),
    "interpolate": (lambda x, **a: F.interpolate(x, **{"scale_factor": 2, **a}), {"x": IMAGE},
                    {"scale_factor": (1.5, 2)}),
    "unfold": (lambda x, **a: F.unfold(x, **{"kernel_size": 2, **a}), {"x": IMAGE},
               {"kernel_size": (3, 1), "stride": 2, "padding": 1, "dilation": 2}),
    "fold": (lambda x, **a: F.fold(x, (4, 5), **{"kernel_size": (2, 3), **a}), {"x": _numbers(1, 12, 9)}, {}),
    "layer_norm": (lambda x, **a: F.layer_norm(x, (6,), **a), {"x": X},
                   {"weight": ROW, "bias": ROW, "eps": 0.3}),
    "group_norm": (lambda x, num_groups=2, **a: F.group_norm(x, num_groups, **a), {"x": IMAGE},
                   {"num_groups": 4, "weight": _numbers(4), "bias": _numbers(4), "eps": 0.3}),
    "batch_norm": (lambda x, **a: F.batch_norm(x, 1 * ROW.to(x), ROW.to(x).abs(), **{"training": True, **a}), {"x": X},
                   {"weight": ROW, "bias": ROW, "eps": 0.3, "training": False}),
    "rms_norm": (lambda x, **a: F.rms_norm(x, (6,), **{"eps": 0.1, **a}), {"x": X}, {"weight": ROW, "eps": 0.3}),
    "attention": (lambda q, k, **a: F.scaled_dot_product_attention(q, k, k, **a),
                  {"q": _numbers(1, 2, 4, 3), "k": _numbers(1, 2, 4, 3)},
                  {"scale": 0.3, "is_causal": True, "attn_mask": _numbers(4, 4)}),
    "embedding": (lambda x, **a: F.embedding(LABELS, x, **a), {"x": X}, {"padding_idx": 1}),
    "index_add": (lambda x, y, **a: torch.index_add(x, 0, LABELS, y, **a), {"x": X, "y": Y}, {"alpha": 1.3}),
    "scatter": (lambda x, value=0.3: x.scatter(0, LABELS[None, :], value), {"x": X}, {"value": 1.3}),
    "gather": (lambda x, dim=0: x.gather(dim, LABELS[None, :]), {"x": X}, {"dim": 1}),
    "roll": (lambda x, **a: torch.roll(x, **{"shifts": 1, **a}), {"x": X}, {"shifts": 2, "dims": 0}),
    "tril": (torch.tril, {"input": X}, {"diagonal": 2}),
    "diagonal": (torch.diagonal, {"input": X}, {"offset": 2}),
    "pow": (lambda x, exponent=2: (x * x + 1).pow(exponent), {"x": X}, {"exponent": 2.3}),
    "pow, integer": (lambda x, exponent=2: x.pow(exponent), {"x": X}, {"exponent": -3}),
    "cosine_similarity": (F.cosine_similarity, {"x1": X, "x2": Y}, {"dim": 0}),
    "normalize": (F.normalize, {"input": X}, {"p": 3.0, "dim": 0}),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_every_argument_has_the_effect_that_it_has_in_torch(name) -> None:
    call, inputs, others = CALLS[name]
    plain = agrees(call, **inputs)
    for argument, value in others.items():

        def other(argument=argument, value=value, **given):
            if isinstance(value, torch.Tensor):
                value = value.to(next(iter(given.values())))
            return call(**given, **{argument: value})

        changed = agrees(other, **inputs)
        same = [
            changed[n].shape == plain[n].shape and np.allclose(changed[n], plain[n], 1e-6, 1e-6)
            for n in plain
        ]
        assert not all(same), f"{argument} was to make a difference"
