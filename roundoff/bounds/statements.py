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
from roundoff.bounds.terms import Kernel, Terms
from roundoff.errors import InapplicableError

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_RUMP = "Rump 2012; Jeannerod and Rump 2013"
_HIGHAM = "Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed."
_INDEPENDENT = "rounding errors that are independent and of mean zero"


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

    def per_count(self, function: Callable[[int], float], less: int) -> Array:
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
        f"excluded for {count} of {values.size} elements, which have no finite bound"
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


def _certified(sheet: Sheet) -> None:
    terms, kernel = sheet.terms, sheet.kernel
    step, eta = kernel.step, _eta(sheet)
    less = 0 if kernel.products and not _products_exact(sheet) else 1

    def scaled(function: Callable[[int, float], float], less: int) -> Callable[[], Array]:
        def make() -> Array:
            factor = sheet.per_count(lambda n: function(n, step), less)
            return factor * terms.scale + (1.0 + factor) * eta

        return make

    n = "n - 1" if less else "n"
    sheet.state("gamma", "certified", scaled(theorems.gamma, less), f"{_HIGHAM}, 3.1, 4.2: gamma_({n}) S",
                "n u < 1")  # fmt: skip
    sheet.state("product of factors", "certified", scaled(_factors(kernel), less),
                f"every term passes at most {n} factors 1 + d")  # fmt: skip
    if kernel.nearest and less == 1:
        sheet.state("Jeannerod and Rump", "certified", scaled(theorems.jeannerod_rump, 1),
                    f"{_RUMP}: (n - 1) u S, any n, any order", "round to nearest")  # fmt: skip
        sheet.state("Lange and Rump", "certified", scaled(theorems.lange_rump, 1),
                    "Lange and Rump 2019: (n - 1) u / (1 + (n - 1) u) S", "round to nearest")  # fmt: skip
    elif kernel.nearest:
        if not kernel.fused:
            sheet.state(
                "Jeannerod and Rump", "certified",
                lambda: np.where(
                    terms.tiny > 0, np.nan,
                    sheet.per_count(lambda k: theorems.jeannerod_rump(k, step), 0) * terms.scale,
                ),
                f"{_RUMP}, Theorem 4.2: n u S, any n", "round to nearest, no underflow in products",
                _underflows(sheet),
            )  # fmt: skip
        sheet.state(
            "sum of computed products", "certified", scaled(theorems.dot, 0),
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
    return f"products may underflow in {count} of {sheet.terms.tiny.size} elements" if count else ""


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
    outputs = max(1, terms.count.size)
    stochastic = kernel.rounding == "stochastic"
    withheld = np.zeros(terms.count.shape, bool) if stochastic else _withheld(terms, kernel)
    reason = _reason(terms, kernel, withheld)
    assumes = "nothing: mean zero by construction" if stochastic else _INDEPENDENT
    eta = _eta(sheet)
    alone = 0 if kernel.products else 1  # a sum of one term is no addition

    def higham_mary(failure: float) -> Array:
        factor = sheet.per_count(
            lambda n: theorems.higham_mary(n, kernel.step, failure, outputs) if n > alone else 0.0,
            0,
        )
        found = sheet.finish(factor * terms.scale + (1.0 + factor) * eta)
        return np.where(withheld, np.nan, found).reshape(sheet.shape)

    source = "Connolly, Higham and Mary 2021" if stochastic else "Higham and Mary 2019, Theorem 3.1"
    name = source.partition(" 20")[0]
    empty = withheld.size and withheld.all()
    sheet.statements.append(
        Statement(
            name,
            "probabilistic",
            None if empty else higham_mary,
            f"{source}: any order",
            assumes,
            reason,
        )
    )
    if terms.walked is None:
        _any_order(sheet, withheld, assumes, reason)
        return
    walked = terms.walked

    def hallman_ipsen(failure: float) -> Array:
        error = theorems.hallman_ipsen(
            walked.squares + terms.rounded_squares,
            terms.roundings,
            terms.height,
            kernel.step,
            failure,
            outputs,
        )
        growth = theorems.compounded([terms.height], kernel.unit)[0]
        found = sheet.finish(error + (1.0 + growth) * eta, walked.peak)
        return np.where(withheld, np.nan, found).reshape(sheet.shape)

    sheet.statements.append(
        Statement(
            "Hallman and Ipsen", "probabilistic", None if empty else hallman_ipsen,
            "Hallman and Ipsen, arXiv 2107.01604, Theorem 2.6: partial sums of this tree", assumes, reason,
        )
    )  # fmt: skip


def _any_order(sheet: Sheet, withheld: Mask, assumes: str, reason: str) -> None:
    """Hallman and Ipsen without a tree: no partial sum exceeds (S + |s|) / 2 in any order."""
    terms, kernel = sheet.terms, sheet.kernel
    outputs, eta = max(1, terms.count.size), _eta(sheet)
    rounds = kernel.products and not _products_exact(sheet)
    products = terms.squares * (1.0 + (terms.length + 8) * 2.0**-52) if rounds else 0.0
    most = 0.5 * (terms.scale + terms.total)

    def make(failure: float) -> Array:
        n = max(1, int(terms.count.max(initial=0)))
        squares = np.maximum(terms.count - 1, 0) * most**2 + products
        height = n - 1 + rounds
        error = theorems.hallman_ipsen(squares, 2 * n, height, kernel.step, failure, outputs)
        growth = theorems.compounded([height], kernel.unit)[0]
        found = sheet.finish(error + (1.0 + growth) * eta)
        return np.where(withheld, np.nan, found).reshape(sheet.shape)

    empty = withheld.size and withheld.all()
    sheet.statements.append(
        Statement(
            "Hallman and Ipsen", "probabilistic", None if empty else make,
            "Hallman and Ipsen, arXiv 2107.01604, Theorem 2.6, with (S + |s|) / 2 for every partial sum: "
            "any order", assumes, reason,
        )
    )  # fmt: skip


def _withheld(terms: Terms, kernel: Kernel) -> Mask:
    """Where rounding errors are not of mean zero or not independent, as the data show.

    Stagnation: u times a partial sum exceeds half a typical term.  Without an order the largest partial
    sum of all orders counts, (S + |s|) / 2.
    """
    if terms.walked is not None:
        stagnant = terms.walked.stagnant
    else:
        stagnant = terms.count * (kernel.wide.u * (terms.scale + terms.total)) > terms.scale
        stagnant &= terms.count > 1
    return stagnant if terms.equal is None else stagnant | terms.equal


def _reason(terms: Terms, kernel: Kernel, withheld: Mask) -> str:
    count = int(withheld.sum())
    if not count:
        return ""
    equal = (
        ""
        if terms.equal is None or not terms.equal.any()
        else " or most terms are equal, or all of them few"
    )
    return (
        f"withheld for {count} of {withheld.size} elements: in {kernel.wide} a partial sum can swallow half "
        f"a typical term (stagnation){equal}, so errors have no mean of zero; use a wider accumulator"
    )


def _expected(sheet: Sheet) -> None:
    terms, kernel = sheet.terms, sheet.kernel
    if kernel.rounding != "nearest":
        sheet.statements.append(
            Statement("model", "expected", None, "", "", "the model is of rounding to nearest")
        )
        return
    withheld = np.zeros(terms.count.shape, bool)
    if not kernel.compensation:
        withheld = _withheld(terms, kernel)
    squares, text = _expected_squares(terms, kernel)
    rms = theorems.RMS_ROUNDING
    variance = (rms * kernel.wide.u) ** 2 * squares
    if kernel.wide != kernel.format:
        variance = variance + (rms * kernel.format.u * terms.value) ** 2
    value = np.where(withheld, np.nan, np.sqrt(variance)).reshape(sheet.shape)
    sheet.statements.append(
        Statement("root mean square", "expected", value, f"rms 0.42466 u per rounding, {text}",
                  "uncorrelated errors, log-uniform significands, no stagnation",
                  _reason(terms, kernel, withheld))
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
