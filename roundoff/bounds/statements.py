"""Every theorem that applies to measured terms: a line each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from roundoff.bounds import theorems
from roundoff.bounds.bound import Bound, Statement
from roundoff.bounds.terms import Kernel, Terms, most_of
from roundoff.errors import InapplicableError
from roundoff.words import counted

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_RUMP = "Rump 2012; Jeannerod and Rump 2013"
_HIGHAM = "Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed."
_INDEPENDENT = "rounding errors that are independent and of mean zero"
_UNBIASED = "nothing: mean zero by construction"
_CHANCE = (
    "operands below 4 u |partial sum| err by the most they can, a mean of the others' errors is predicted "
    "from the terms; what remains of each error has a mean of zero given the earlier ones"
)
_FREE = "; sums of several terms do not repeat, nor cancel far below their terms"


@dataclass
class Sheet:
    """Collects statements; adds what every bound has in common."""

    terms: Terms
    kernel: Kernel
    shape: tuple[int, ...]
    statements: list[Statement] = field(default_factory=list)

    def finish(self, error: Array, peak: Array | None = None) -> Array:
        """An error of the accumulation to an error of the result.

        Final rounding: at most u/(1+u) of the accumulated number, or half the smallest subnormal.
        """
        terms, kernel = self.terms, self.kernel
        with np.errstate(all="ignore"):
            largest = terms.scale + error if peak is None else peak
            over = ~(largest < kernel.wide.max)
            if kernel.wide != kernel.format:
                result = terms.total + error
                over |= ~(result < kernel.format.overflow_threshold)
                unit = kernel.format.u / (1 + kernel.format.u)
                error = error + np.maximum(
                    unit * result, max(kernel.format.smallest_subnormal / 2, 2.0**-1074)
                )
            error = (error + terms.given) * theorems.MARGIN
            # A few units for products that are rounded in float64's own subnormal range.
            error = np.where(error > 0, error + 2.0**-1070, error)
            return np.where(over & (terms.count > 0) & ~np.isnan(error), np.inf, error)

    def state(
        self, name: str, kind: str, make: Callable[[], Any], source: str, assumes: str = "",
        refused: str = "", peak: Array | None = None,
    ) -> None:  # fmt: skip
        """Add a statement; a theorem that raises InapplicableError is recorded as refused."""
        try:
            found = make()
        except InapplicableError as error:
            self.statements.append(Statement(name, kind, None, source, assumes, str(error)))
            return
        if not callable(found):
            found = self.finish(found, peak).reshape(self.shape)
            refused = refused or _overflow(found, self.kernel)
        self.statements.append(Statement(name, kind, found, source, assumes, refused))

    def per_count(self, function: Callable[[int], float], less: Any) -> Array:
        """function(count - less) per element, NaN where it refuses; refused for all counts, it raises."""
        counts = np.maximum(self.terms.count - less, 0)
        factors, refusals = np.full(counts.shape, np.nan), []
        for count in np.unique(counts).tolist():
            try:
                factors[counts == count] = function(int(count))
            except InapplicableError as error:
                refusals.append(error)
        if refusals and np.isnan(factors).all():
            raise refusals[-1]
        return factors


def _overflow(values: Array, kernel: Kernel) -> str:
    count = int(np.isinf(values).sum())
    if not count:
        return ""
    return (
        f"an overflow of {' or '.join(dict.fromkeys((str(kernel.wide), str(kernel.format))))} cannot be "
        f"excluded for {count} of {counted(values.size, 'element')}, which have no finite bound"
    )


def make_bound(
    what: str,
    terms: Terms,
    kernel: Kernel,
    shape: tuple[int, ...],
    give_back: Callable[[Array], Any],
) -> Bound:
    """The bound on measured terms; what: the computation in words."""
    sheet = Sheet(terms, kernel, shape)
    with np.errstate(all="ignore"):
        if terms.grid.any():
            _on_one_grid(sheet)
        if kernel.compensation:
            _compensated(sheet)
        else:
            _certified(sheet)
            _probabilistic(sheet)
        _expected(sheet)
    order = "any order" if kernel.order is None else f"order {kernel.order}"
    extra = "" if kernel.nearest else f", rounding {kernel.rounding.replace('_', ' ')}"
    size = int(np.prod(shape))
    many = what if size == 1 else f"{size} elements, each {what}"
    fused = ", fused multiply-add" if kernel.fused else ""
    return Bound(
        many, kernel.format, kernel.wide, order + fused + extra, shape, tuple(sheet.statements),
        terms.scale, give_back,
    )  # fmt: skip


def _on_one_grid(sheet: Sheet) -> None:
    sheet.state("terms on one grid", "certified", lambda: np.where(sheet.terms.grid, 0.0, np.nan),
                "all partial sums are numbers of the accumulator, in any order",
                "terms are multiples of a power of two of which S is at most 2^p")  # fmt: skip


def _certified(sheet: Sheet) -> None:
    terms, kernel = sheet.terms, sheet.kernel
    step, eta = kernel.step, _eta(sheet)
    plain = terms.rounded == 0  # no product is rounded
    less = np.where(plain, 1, 0)

    def scaled(function: Callable[[int, float], float], applies: Any = True) -> Callable[[], Array]:
        def make() -> Array:
            factor = sheet.per_count(lambda n: function(n, step), less)
            return np.where(applies, factor * terms.scale + (1.0 + factor) * eta, np.nan)

        return make

    def of_products() -> Array:
        products = kernel.unit * terms.rounded + eta
        additions = np.maximum(terms.count - 1, 0) * step
        return np.where(plain, np.nan, products + additions * (terms.scale + products))

    n = "n - 1" if plain.all() else "n"
    sheet.state("gamma", "certified", scaled(theorems.gamma), f"{_HIGHAM}, 3.1, 4.2: gamma_({n}) S",
                "n u < 1")  # fmt: skip
    sheet.state("product of factors", "certified", scaled(_factors(kernel)),
                f"every term passes at most {n} factors 1 + d")  # fmt: skip
    if kernel.nearest:
        direct = plain | ((terms.tiny == 0) & (not kernel.fused))
        sheet.state("Jeannerod and Rump", "certified", scaled(theorems.jeannerod_rump, direct),
                    f"{_RUMP}: ({n}) u S, any n, any order",
                    "round to nearest, no underflow in products that are rounded",
                    "" if direct.all() else _underflows(sheet))  # fmt: skip
        if plain.any():
            sheet.state("Lange and Rump", "certified", scaled(theorems.lange_rump, plain),
                        "Lange and Rump 2019: (n - 1) u / (1 + (n - 1) u) S", "round to nearest")  # fmt: skip
        if not plain.all():
            sheet.state(
                "sum of computed products", "certified", of_products,
                f"{_RUMP}, for the computed products, underflow included", "round to nearest",
            )  # fmt: skip
    walked = terms.walked
    if walked is not None and terms.depth_weighted is not None:
        depth = terms.depth_weighted
        growth = theorems.compounded([terms.height], kernel.unit)[0]
        sheet.state("depth-weighted", "certified", lambda: depth + (1.0 + growth) * eta,
                    f"{_HIGHAM}, 4.2: every term times (1 + u)^depth - 1")  # fmt: skip
        sheet.state("partial sums", "certified", lambda: walked.error,
                    f"{_HIGHAM}, 3.3 and 4.2: u times every partial sum, sizes from the data",
                    peak=walked.peak)  # fmt: skip
    if kernel.order is None:
        reason = "partial sums are known only in a stated order; pass order="
        sheet.statements.append(Statement("running", "running", None, "", "", reason))
    if walked is not None and terms.running is not None and terms.running_ufp is not None:
        for name, found, text in (
            ("running", terms.running, "u times every computed partial sum"),
            ("running, ufp", terms.running_ufp, "u times the power of two below each"),
        ):
            value = np.where(np.isfinite(cast(Array, terms.computed)), found, np.inf)
            sheet.state(name, "running", partial(np.copy, value), f"Wilkinson; {_HIGHAM}, 3.3: {text}",
                        "the stated order, carried out in the format", peak=walked.peak)  # fmt: skip


def _factors(kernel: Kernel) -> Callable[[int, float], float]:
    return lambda n, _: float(theorems.compounded(n, kernel.unit))


def _eta(sheet: Sheet) -> Array:
    """Absolute errors of products that underflow."""
    return np.asarray(sheet.terms.tiny * sheet.kernel.underflow, np.float64)


def _products_exact(sheet: Sheet) -> bool:
    return sheet.kernel.exact_products and not sheet.terms.tiny.any()


def _underflows(sheet: Sheet) -> str:
    count = int((sheet.terms.tiny > 0).sum())
    return (
        f"products may underflow in {count} of {counted(sheet.terms.tiny.size, 'element')}"
        if count
        else ""
    )


def _compensated(sheet: Sheet) -> None:
    terms, kernel = sheet.terms, sheet.kernel
    u, v = kernel.wide.u, kernel.unit
    name = str(kernel.compensation)
    # Zeros take part in Kahan's carries; in the others they change nothing.
    n = terms.length if name == "kahan" else int(terms.count.max(initial=0))
    sources = {
        "kahan": "Goldberg 1991 and Higham (4.8), with all terms: u |s| + (2u + O(n u^2)) S",
        "neumaier": "Neumaier 1974; Jeannerod and Rump 2013 twice: u |s| + (n - 1)(n - 2) u^2 S",
        "sum2": "Ogita, Rump and Oishi 2005: u |s| + gamma^2 S",
    }

    def make() -> Array:
        if name == "sum2" and kernel.products:
            on_sum, on_scale = theorems.dot2(n, u)
            found = on_sum * terms.total + on_scale * terms.scale
            return np.where(terms.tiny > 0, np.nan, found)
        on_sum, on_scale = getattr(theorems, name)(n, u)
        # Products are rounded first: that is an error of the terms.
        first = (
            v * terms.scale + _eta(sheet) if kernel.products and not _products_exact(sheet) else 0.0
        )
        result = first + on_sum * (terms.total + first) + on_scale * (terms.scale + first)
        return np.asarray(result, np.float64)

    # Differences of partial sums pass through the largest twice over.
    peak = 2.0 * terms.scale * (1.0 + 4.0 * terms.length * u)
    refused = _underflows(sheet) if name == "sum2" else ""
    sheet.state({"sum2": "Sum2"}.get(name, name.title()), "certified", make, sources[name],
                "round to nearest, a plain loop", refused, peak=peak)  # fmt: skip
    for kind in ("running", "probabilistic"):
        reason = (
            f"{name} is compensated: its certified bound is of the size of one rounding already"
        )
        sheet.statements.append(Statement(kind, kind, None, "", "", reason))


def _probabilistic(sheet: Sheet) -> None:
    terms, kernel = sheet.terms, sheet.kernel
    if kernel.rounding == "toward_zero":
        reason = (
            "truncation errs to one side, so errors are not of mean zero; take the certified bound"
        )
        sheet.statements.append(Statement("Higham and Mary", "probabilistic", None, "", "", reason))
        return
    outputs, eta = max(1, terms.count.size), _eta(sheet)
    stochastic = kernel.rounding == "stochastic"
    alone = 0 if kernel.products else 1  # a sum of one term is no addition

    def higham_mary(failure: float) -> Array:
        factor = sheet.per_count(
            lambda n: theorems.higham_mary(n, kernel.step, failure, outputs) if n > alone else 0.0,
            0,
        )
        parts = _parts(terms, kernel)
        found = sheet.finish(factor * terms.scale + (1.0 + factor) * eta + parts.drift)
        return np.where(parts.certain > 0, np.nan, found).reshape(sheet.shape)

    def hallman_ipsen(failure: float) -> Array:
        parts = _parts(terms, kernel)
        error = theorems.hallman_ipsen(
            parts.squares, parts.roundings, parts.height, kernel.step, failure, outputs
        )
        growth = theorems.compounded([parts.height], kernel.unit)[0]
        error = error + parts.certain + parts.drift + (1.0 + growth) * eta
        return sheet.finish(error, parts.peak).reshape(sheet.shape)

    source = "Connolly, Higham and Mary 2021" if stochastic else "Higham and Mary 2019, Theorem 3.1"
    name = source.partition(" 20")[0]
    large = "no mean beyond the predicted one, no operand below 4 u of its sum"
    sheet.statements.append(
        Statement(name, "probabilistic", higham_mary, f"{source}: any order",
                  _UNBIASED if stochastic else f"{_INDEPENDENT}; {large}")
    )  # fmt: skip
    where = "partial sums of this tree" if terms.walked else "(S + |s|) / 2 for every partial sum"
    sheet.statements.append(
        Statement("Hallman and Ipsen", "probabilistic", hallman_ipsen,
                  f"Hallman and Ipsen, arXiv 2107.01604, Theorem 2.6: {where}",
                  _UNBIASED if stochastic else _CHANCE + ("" if terms.walked else _FREE))
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Parts:
    """A sum's errors by `chance`: certain, drift, and squares of the partial sums that are left."""

    certain: Array
    drift: Array
    squares: Array
    roundings: int
    height: int
    peak: Array | None


def _parts(terms: Terms, kernel: Kernel) -> Parts:
    nothing, walked = np.zeros(terms.count.shape), terms.walked
    if walked is not None:
        certain, drift = walked.certain, walked.drift + terms.product_drift
        if kernel.rounding == "stochastic":
            certain, drift = nothing, nothing
        return Parts(certain, drift, walked.independent + terms.rounded_squares,
                     terms.roundings, terms.height, walked.peak)  # fmt: skip
    small, drift = nothing, nothing
    if kernel.rounding != "stochastic":
        small, drift = terms.by_chance()
    rounds = int((terms.rounded > 0).any())
    # No square of a product exceeds the product times the largest sum.
    most = most_of(terms.scale, terms.total) * (1.0 + kernel.step)
    products = np.minimum(
        terms.squares * (1.0 + (terms.length + 8) * 2.0**-52), terms.rounded * most
    )
    n = max(1, int(terms.count.max(initial=0)))
    additions = np.maximum(terms.count - 1 - small, 0)
    return Parts(small * kernel.step * most, drift, additions * most**2 + products,
                 2 * n, n - 1 + rounds, None)  # fmt: skip


def _expected(sheet: Sheet) -> None:
    terms, kernel = sheet.terms, sheet.kernel
    if kernel.rounding != "nearest":
        sheet.statements.append(
            Statement("model", "expected", None, "", "", "the model is of rounding to nearest")
        )
        return
    squares, text = _expected_squares(terms, kernel)
    rms = theorems.RMS_ROUNDING
    variance = (rms * kernel.wide.u) ** 2 * squares
    if terms.walked is not None:
        variance = variance + terms.walked.swallowed**2
    if kernel.wide != kernel.format:
        variance = variance + (rms * kernel.format.u * terms.value) ** 2
    value, refused = (
        np.where(terms.grid & (kernel.wide == kernel.format), 0.0, np.sqrt(variance)),
        "",
    )
    if terms.walked is None and not kernel.compensation:
        # In a plain loop over terms in random order u |partial sum| may be half a term of mean size.
        typical = np.abs(terms.value) + np.sqrt(terms.squares)
        lost = (2.0 * kernel.wide.u * terms.count * typical > terms.scale) & (value > 0)
        value = np.where(lost, np.nan, value)
        if lost.any():
            refused = (
                f"withheld for {int(lost.sum())} of {counted(lost.size, 'element')}: in "
                f"{kernel.wide} a partial sum can "
                "swallow half a term of mean size (stagnation), how many depends on the order; pass order="
            )
    sheet.statements.append(
        Statement("root mean square", "expected", value.reshape(sheet.shape),
                  f"rms 0.42466 u per rounding, {text}", "uncorrelated errors, log-uniform significands",
                  refused)
    )  # fmt: skip


def _expected_squares(terms: Terms, kernel: Kernel) -> tuple[Array, str]:
    """The mean of the sum of the squares of all that is rounded in the accumulator."""
    if kernel.compensation:
        products = terms.squares if kernel.products and kernel.compensation != "sum2" else 0.0
        return terms.value**2 + products, "the last addition alone"
    if terms.walked is not None:
        return terms.walked.squares + terms.rounded_squares, "partial sums of this tree"
    n, x2, s2 = terms.count, terms.squares, terms.value**2
    # A plain loop over the terms in random order: E s_k^2 = k/n X + k(k-1)/(n(n-1)) (s^2 - X).
    first = ((n * (n + 1.0)) / 2.0 - 1.0) / np.maximum(n, 1)
    found = np.where(n > 1, first * x2 + (n + 1.0) / 3.0 * (s2 - x2), 0.0)
    rounded = x2 if kernel.products and not kernel.fused and not kernel.exact_products else 0.0
    return np.maximum(found, 0.0) + rounded, "a plain loop over the terms in random order"
