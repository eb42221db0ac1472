"""The laws of sums by name: the source and the assumptions of each."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from roundoff.bounds import sum_laws
from roundoff.numbers.formats import Format
from roundoff.orders import Order

Array = npt.NDArray[np.float64]

_RUMP = "Rump 2012; Jeannerod and Rump 2013"
_HIGHAM = "Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed."
_INDEPENDENT = "rounding errors that are independent and of mean zero"
_UNBIASED = "nothing: mean zero by construction"
_CHANCE = (
    "operands below 4 u |partial sum| err by the most they can, a mean of the others' errors is predicted "
    "from the terms; what remains of each error has a mean of zero given the earlier ones"
)
_FREE = "; sums of several terms do not repeat, nor cancel far below their terms"
_COMPENSATED = {
    "kahan": ("Kahan", "Goldberg 1991 and Higham (4.8), with all terms: u |s| + (2u + O(n u^2)) S"),
    "neumaier": (
        "Neumaier", "Neumaier 1974; Jeannerod and Rump 2013 twice: u |s| + (n - 1)(n - 2) u^2 S",
    ),
    "sum2": ("Sum2", "Ogita, Rump and Oishi 2005: u |s| + gamma^2 S"),
}  # fmt: skip


@dataclass(frozen=True)
class Kernel:
    """How sums are carried out.

    format: of inputs and result; wide: of products and partial sums; order: None for any; rounding: as
    `sum_laws.Accumulator`; products: whether terms are products; fused: they may enter additions unrounded.
    """

    format: Format
    wide: Format
    order: Order | None
    rounding: str = "nearest"
    products: bool = False
    fused: bool = False

    @property
    def compensation(self) -> str | None:
        return self.order.compensation if self.order else None

    @property
    def words(self) -> str:
        """The order, and what is unusual about it, in words."""
        order = "any order" if self.order is None else f"order {self.order}"
        fused = ", fused multiply-add" if self.fused else ""
        rounding = self.rounding.replace("_", " ")
        return order + fused + ("" if rounding == "nearest" else f", rounding {rounding}")


@dataclass(frozen=True)
class Theorem:
    """A law with its source and assumptions; law: None where it does not apply, for the reason `refused`.

    kind, source, assumes as in `Statement`; missing: what is said of sums that it does not apply to.
    """

    name: str
    kind: str
    law: Callable[..., Any] | None
    source: str = ""
    assumes: str = ""
    missing: str = ""
    refused: str = ""


def theorems_for(kernel: Kernel) -> Iterator[Theorem]:
    """Every theorem on the sums of a kernel, certified ones first."""
    yield Theorem(
        "terms on one grid", "certified", sum_laws.on_a_grid,
        "all partial sums are numbers of the accumulator, in any order",
        "terms are multiples of a power of two of which S is at most 2^p",
    )  # fmt: skip
    if kernel.compensation:
        yield from _compensated(kernel.compensation)
        return
    yield from _in_any_order(kernel)
    yield from _along_a_tree(kernel)
    yield from _probabilistic(kernel)


def _in_any_order(kernel: Kernel) -> Iterator[Theorem]:
    exact = 2 * kernel.format.precision <= kernel.wide.precision
    n = "n" if kernel.products and not exact else "n - 1"
    yield Theorem(
        "gamma", "certified", sum_laws.gamma, f"{_HIGHAM}, 3.1, 4.2: gamma_({n}) S", "n u < 1"
    )
    yield Theorem("product of factors", "certified", sum_laws.factors,
                  f"every term passes at most {n} factors 1 + d")  # fmt: skip
    if kernel.rounding != "nearest":
        return
    yield Theorem("Jeannerod and Rump", "certified", sum_laws.jeannerod_rump,
                  f"{_RUMP}: ({n}) u S, any n, any order",
                  "round to nearest, no underflow in products that are rounded",
                  "" if kernel.fused else "products may underflow")  # fmt: skip
    yield Theorem("Lange and Rump", "certified", sum_laws.lange_rump,
                  "Lange and Rump 2019: (n - 1) u / (1 + (n - 1) u) S", "round to nearest")  # fmt: skip
    if kernel.products:
        source = f"{_RUMP}, for the computed products, underflow included"
        yield Theorem("sum of computed products", "certified", sum_laws.computed_products, source,
                      "round to nearest")  # fmt: skip


def _along_a_tree(kernel: Kernel) -> Iterator[Theorem]:
    if kernel.order is None:
        yield Theorem("running", "running", None,
                      refused="partial sums are known only in a stated order; pass order=")  # fmt: skip
        return
    yield Theorem("depth-weighted", "certified", sum_laws.depth_weighted,
                  f"{_HIGHAM}, 4.2: every term times (1 + u)^depth - 1")  # fmt: skip
    yield Theorem("partial sums", "certified", sum_laws.partial_sums,
                  f"{_HIGHAM}, 3.3 and 4.2: u times every partial sum, sizes from the data")  # fmt: skip
    if kernel.rounding != "nearest":
        return
    stated = "the stated order, carried out in the format"
    yield Theorem("running", "running", sum_laws.running,
                  f"Wilkinson; {_HIGHAM}, 3.3: u times every computed partial sum", stated)  # fmt: skip
    yield Theorem("running, ufp", "running", partial(sum_laws.running, binades=True),
                  f"Wilkinson; {_HIGHAM}, 3.3: u times the power of two below each", stated)  # fmt: skip


def _compensated(name: str) -> Iterator[Theorem]:
    title, source = _COMPENSATED[name]
    yield Theorem(
        title, "certified", sum_laws.compensated, source, "round to nearest, a plain loop"
    )
    for kind in ("running", "probabilistic"):
        reason = (
            f"{name} is compensated: its certified bound is of the size of one rounding already"
        )
        yield Theorem(kind, kind, None, refused=reason)


def _probabilistic(kernel: Kernel) -> Iterator[Theorem]:
    if kernel.rounding == "toward_zero":
        reason = (
            "truncation errs to one side, so errors are not of mean zero; take the certified bound"
        )
        yield Theorem("Higham and Mary", "probabilistic", None, refused=reason)
        return
    stochastic, stated = kernel.rounding == "stochastic", kernel.order is not None
    source = "Connolly, Higham and Mary 2021" if stochastic else "Higham and Mary 2019, Theorem 3.1"
    large = f"{_INDEPENDENT}; no mean beyond the predicted one, no operand below 4 u of its sum"
    yield Theorem(source.partition(" 20")[0], "probabilistic", sum_laws.higham_mary,
                  f"{source}: any order", _UNBIASED if stochastic else large)  # fmt: skip
    where = "partial sums of this tree" if stated else "(S + |s|) / 2 for every partial sum"
    yield Theorem("Hallman and Ipsen", "probabilistic", sum_laws.hallman_ipsen,
                  f"Hallman and Ipsen, arXiv 2107.01604, Theorem 2.6: {where}",
                  _UNBIASED if stochastic else _CHANCE + ("" if stated else _FREE))  # fmt: skip
