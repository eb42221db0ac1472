"""In how many levels kernels add their sums (chains of chains), for predictions; knows nothing of PyTorch.

A kernel adds in chains of chains; what was seen is of torch 2.13 on x86 CPUs (`experiments/kernels.py`
recovers the trees).  Where a machine's differ, a prediction is off by the root of the ratio of the depths.
"""

from __future__ import annotations

from math import prod

from roundoff.numbers.formats import FLOAT32, FLOAT64, Format
from roundoff.trace.call import Operand, Shape
from roundoff.trace.steps import Contract, Reduce, Rounded, present

#: A matrix product: one loop over each block of the inner dimension, the blocks in turn.
_PRODUCTS = (384.0,)

#: ATen's cascade_sum: chunks of vectors in a few levels.
_CASCADE = (16.0, 16.0)

#: One loop: layer norm's sums over rows; batch norm's forward, and for channels last; oneDNN's over all
#: positions, for a convolution's weight and bias.
_LOOP = ()

#: Kernels that add every term to the element that it goes to, one after the other.
_TERM_BY_TERM = frozenset(
    "index_add scatter_add index_put _unsafe_index_put embedding_dense_backward".split()
)

#: 16-bit kernels of pooling that add in their own type.
_NARROW = ("_adaptive_avg_pool3d", "_adaptive_avg_pool3d_backward")

#: ATen's own dot products, of convolutions in float64, keep so many sums side by side; so do batch norm's
#: sums over an image backward.
_LANES = 4


def levels(step: Reduce | Contract, format: Format) -> tuple[float, ...]:
    """The lengths of the chains that a kernel adds in, the innermost first; the last one takes the rest."""
    name = "" if step.call is None else step.call.name
    if name.startswith("convolution") and isinstance(step, Contract):
        if format == FLOAT64:
            return (max(1.0, present(step) / _LANES),)
        return _LOOP if _of_weight(step) else _PRODUCTS
    if isinstance(step, Contract):
        return _PRODUCTS
    if of_batch(step) and "backward" in name and not channels_last(step):
        return max(1.0, prod(_image(step)[2:]) / _LANES), _LANES
    if of_rows(step) or of_batch(step) or name in _TERM_BY_TERM:
        return _LOOP
    if format == FLOAT32 and name == "convolution_backward":
        return _LOOP
    return _CASCADE


def of_rows(step: Rounded) -> bool:
    """Whether it is one of layer norm's sums over rows, for weight or bias."""
    call = step.call
    return call is not None and call.name == "native_layer_norm_backward" and 0 not in call.results


def narrow(step: Rounded) -> bool:
    """Whether its 16-bit kernel keeps sums in the format itself."""
    return of_rows(step) or (step.call is not None and step.call.name in _NARROW)


def of_batch(step: Rounded) -> bool:
    """Whether it is one of batch norm's sums."""
    return step.call is not None and "native_batch_norm" in step.call.name


def channels_last(step: Rounded) -> bool:
    """Whether the call's first tensor of several dimensions has its channels, the second, last in memory."""
    image = _tensor(step)
    return image is not None and image.shape[1] > 1 and image.strides[1] == 1


def _image(step: Rounded) -> Shape:
    image = _tensor(step)
    return () if image is None else image.shape


def _tensor(step: Rounded) -> Operand | None:
    operands = step.call.operands if step.call is not None else []
    return next((each for each in operands if len(each.shape) > 2), None)


def _of_weight(step: Contract) -> bool:
    call = step.call
    return call is not None and call.name == "convolution_backward" and call.results == (1,)
