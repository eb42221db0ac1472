"""A function with some of its operations in a wider format: predicted, and run by PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest import mock

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch.utils._pytree import tree_leaves, tree_map

from roundoff.errors import UnsupportedError
from roundoff.gradients.native import native_dtype
from roundoff.gradients.prediction import Prediction
from roundoff.locks import TORCH
from roundoff.numbers.formats import Format
from roundoff.trace.exact_constants import attention
from roundoff.trace.in_place import storage_of
from roundoff.trace.lowering import MOVES
from roundoff.trace.source import Source
from roundoff.trace.source_finder import Sources
from roundoff.trace.users_function import evaluate

if TYPE_CHECKING:
    import pandas as pd

Array = npt.NDArray[np.float64]
Run = Callable[[], Mapping[str, Array]]


@dataclass(frozen=True, eq=False)
class Kept:
    """The errors of gradients before and after a source of them runs in a wider format.

    before, after: predicted; measured: by gradient the error of PyTorch's own results before and after, in
    the 2-norm, in u of the format; empty unless that was asked for.
    """

    name: str
    format: Format
    wider: Format
    before: Mapping[str, Prediction]
    after: Mapping[str, Prediction]
    measured: Mapping[str, tuple[float, float]]

    @property
    def table(self) -> pd.DataFrame:
        """One row per gradient: errors before and after in the 2-norm, in u, and how many times smaller."""
        import pandas as pd

        rows = []
        for name in self.before:
            sizes = [float(p[name].normwise[0]) for p in (self.before, self.after)]
            pairs = {"predicted": tuple(sizes)}
            if name in self.measured:
                pairs["measured"] = self.measured[name]
            row: dict[str, Any] = {"gradient": name}
            for kind, (before, after) in pairs.items():
                row |= {f"{kind} before": before, f"{kind} after": after}
                row[f"{kind} factor"] = before / after if after else np.inf if before else 1.0
            rows.append(row)
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        head = f"{self.name} in {self.wider}, all else in {self.format}: errors in the 2-norm, in u"
        return f"{head}\n{self.table.to_string(index=False, float_format='{:.3g}'.format)}"


class Wider(Sources):  # type: ignore[no-untyped-call]
    """Operations that are chosen compute in a wider type, and others read their results in that.

    Tensors keep the type that they have, as autograd checks it; the wider numbers are kept beside them.
    chosen: by source and name of the operation; met: whether any was.
    """

    def __init__(self, chosen: Callable[[Source, str], bool], wide: torch.dtype) -> None:
        super().__init__(evaluate.__code__)
        self.chosen, self.wide, self.met = chosen, wide, False
        self._beside: dict[Key, tuple[torch.Tensor, torch.Tensor]] = {}

    def called(self, func: Any, args: Any, kwargs: Any) -> Any:
        name = func.overloadpacket.__name__.removesuffix("_")
        chosen = self.inside and self.chosen(self.now, name)
        self.met |= chosen
        given = tree_leaves((args, kwargs))
        reads = any(_floats(leaf) and _key(leaf) in self._beside for leaf in given)
        found = func(*args, **kwargs) if not func._schema.is_mutable else None
        if not (chosen or reads):
            return func(*args, **kwargs) if found is None else found
        same = getattr(torch.ops.aten, name, None) if found is None else func
        overload = func._overloadname if found is None else ""
        wider = getattr(same, overload, None) if overload else same
        if wider is None or wider._schema.is_mutable:
            raise UnsupportedError(
                f"cannot run {func} in a wider format, as it writes into its arguments; use the operation "
                "that returns its result"
            )
        wide = wider(*tree_map(self._widened, args), **tree_map(self._widened, kwargs))
        keeps = chosen or name in (*MOVES, "detach")
        if found is None:
            found = args[0]
        for own, more in zip(tree_leaves(found), tree_leaves(wide), strict=True):
            if not _floats(own):
                continue
            if name not in MOVES:
                own.copy_(more)
            self._beside.pop(_key(own), None)
            if keeps and more.dtype != own.dtype:
                self._beside[_key(own)] = own, more
        return found

    def _widened(self, value: Any) -> Any:
        """The wider numbers of a tensor; a type, as an argument, is the wider one."""
        if isinstance(value, torch.dtype):
            narrow = value.is_floating_point and value.itemsize < self.wide.itemsize
            return self.wide if narrow else value
        if not _floats(value) or value.dtype.itemsize >= self.wide.itemsize:
            return value
        return self._beside[_key(value)][1] if _key(value) in self._beside else value.to(self.wide)


#: What tells tensors apart: memory, offset, shape and strides.
Key = tuple[int, int, tuple[int, ...], tuple[int, ...]]


def _key(tensor: torch.Tensor) -> Key:
    place = storage_of(tensor), int(tensor.storage_offset())
    return *place, tuple(tensor.shape), tuple(tensor.stride())


def _floats(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def runs_kept(
    run: Run, name: str, chosen: Callable[[Source, str], bool], wider: Format
) -> tuple[Mapping[str, Array], Mapping[str, Array]]:
    """The results of a run as it is, and with the chosen operations in a wider format.

    Raises: UnsupportedError where no operation is chosen: PyTorch runs it inside another one.
    """
    mode = Wider(chosen, native_dtype(wider))
    # Attention in operations that have a source each, as in the trace.
    with TORCH, mock.patch.object(F, "scaled_dot_product_attention", attention):
        before = run()
        with mode:
            after = run()
    if not mode.met:
        raise UnsupportedError(
            f"cannot run {name!r} in {wider}: PyTorch has no operation of that name here, as it fuses it "
            "with others; name its module or its line"
        )
    return before, after
