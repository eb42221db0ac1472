"""From the rows of the slicing study to its report: the answer in a sentence, tables, figures, notes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from roundoff.judging.explanation import Explanation
from roundoff.judging.verdict import Verdict
from roundoff.kernels import provenance
from roundoff.numbers.formats import as_format
from roundoff.report import figures
from roundoff.report.document import Report, Table, number, percent, upward
from roundoff.report.figures import Plot
from roundoff.report.findings.verdicts import ENOUGH, Question, by_order, summary, verdicts
from roundoff.report.findings.why import why_figure, why_notes, why_tables
from roundoff.study import Inputs, Tables, TwoMethods
from roundoff.study.series import digest
from roundoff.words import counted, listed


def slicing_report(
    question: Question,
    configuration: Any,
    problems: Sequence[TwoMethods],
    tables: Tables,
    why: Mapping[tuple[str, str], Explanation],
) -> Report:
    """The report of the slicing study; why: explanations of one seed by problem and format."""
    errors, pairs = tables["errors"], tables["pairs"]
    names = problems[0].names
    found = verdicts(pairs, names)
    counts = summary(errors)
    main = problems[0]
    thread = _of(counts, main)
    settings = {k: v for k, v in vars(configuration).items() if k != "out"}
    settings["data"] = str(settings["data"]).replace("\\", "/").rsplit("/", 1)[-1]
    return Report(
        title=question.title,
        question=question.text,
        answer=answer(found, main),
        tables=[
            *_verdict_tables(found, names, main),
            _order_table(thread, main),
            *why_tables(why),
            _errors_table(counts),
            Table("summary", "Every order, method and format, over the seeds.", counts, columns={}),
        ],
        figures=[*(_judged(plot, pairs) for plot in _plots(tables, problems)), *why_figure(why)],
        notes=[
            *_notes(question, found, counts, problems, pairs, tables["reads"]),
            *why_notes(why),
        ],
        provenance=provenance.collect(
            seed=configuration.seed,
            configuration=settings,
            input_hashes={
                f"{p.case}; {p.shape}": _digests(p.inputs(configuration.seed, 0)) for p in problems
            },
            engine="; ".join(dict.fromkeys(pairs["reference_engine"])),
            radius=f"{number(pairs['reference_radius'].max())} ulp",
            threads=configuration.threads,
        ),
    )


def _digests(inputs: Inputs) -> str:
    return ", ".join(f"{name} {digest(values)}" for name, values in inputs.items())


def _of(frame: pd.DataFrame, problem: TwoMethods) -> pd.DataFrame:
    return frame[(frame["case"] == problem.case) & (frame["shape"] == problem.shape)]


def answer(found: pd.DataFrame, main: TwoMethods) -> str:
    """The answer, from the verdicts: same function?  how far apart?  who is closer?"""
    one = _of(found, main)
    if (one["verdict"] == Verdict.DIFFERENT).any():
        return (
            "No: the exact gradients differ, so the two are different functions, and no rounding is "
            "to blame."
        )
    seeds = int(one["seeds"].max())
    all_seeds = f"all {seeds} seeds" if seeds > 1 else "the one seed"
    sentences = [
        f"Yes, they are the same function: {_agreement(one)} in every element at {all_seeds}, "
        f"and what PyTorch returns differs {_span(one)}."
    ]
    grave = one[one["verdict"].isin([Verdict.SUSPICIOUS, Verdict.UNDECIDED])]
    if len(grave):
        sentences.append(f"Not all is settled: {'; '.join(dict.fromkeys(grave['reason']))}.")
    others = found[(found["case"] != main.case) | (found["shape"] != main.shape)]
    sentences.append(_who(one, others))
    for case, text in (("halo kept", "keeping the halo"), ("halo cut", "cutting it off")):
        part = found[found["case"] == case]
        if len(part):
            sentences.append(f"With a larger kernel, {text} gives {_function(part)}.")
    return " ".join(sentences)


def _function(part: pd.DataFrame) -> str:
    """What a case is, from all its gradients and formats: one that differs makes it different."""
    different = part[part["verdict"] == Verdict.DIFFERENT]
    if not len(different):
        return "the same function again"
    gradients = list(dict.fromkeys(different["gradient"]))
    if set(gradients) == set(part["gradient"]):
        return "a different function"
    return f"a different function (another gradient by the {listed(gradients)})"


def _agreement(one: pd.DataFrame) -> str:
    if one["exact"].all():
        return "in exact arithmetic the gradients agree"
    return "the gradients agree to within the proven radius of their references"


def _span(one: pd.DataFrame) -> str:
    if (one["bitwise_equal"] == 1).all():
        return "in no bit, on this machine"
    equal, apart = [], []
    for name, rows in one.groupby("format", sort=False):
        if rows["bitwise_equal"].min() == 1:
            equal.append(str(name))
        else:
            apart.append(f"{number(rows['max_ulp_between'].max())} ulp in {name}")
    none = f", and in no bit in {listed(equal)}" if equal else ""
    return f"by rounding: by at most {listed(apart)}{none}"


def _who(one: pd.DataFrame, others: pd.DataFrame) -> str:
    here, there = (rows[~rows["closer"].isin(["neither", "no question"])] for rows in (one, others))
    text = "Neither is reliably closer to the exact gradient"
    if one["seeds"].max() < ENOUGH:
        seeds = int(one["seeds"].max())
        few = f"{counted(seeds, 'seed')} {'is' if seeds == 1 else 'are'}"
        text = f"{few} too few to say which is closer"
    if len(here):
        text = f"Closer to the exact gradient is {_closer(here)}"
        text += "; elsewhere neither" if len(here) < len(one) else ""
    if len(there):
        text += f"; over the other shapes and lengths, closer is {_closer(there)}"
    return text + "."


def _closer(rows: pd.DataFrame) -> str:
    """Who, for which gradient, in which formats, by how much."""
    parts = []
    for (name, gradient), part in rows.groupby(["closer", "gradient"], sort=False):
        formats = listed(list(dict.fromkeys(part["format"])))
        low, high = part["ratio"].min(), part["ratio"].max()
        span = f"{low:.2f}" if len(part) == 1 else f"{low:.2f} to {high:.2f}"
        if len(part) == 1:
            span += f" ({part['ratio_low'].iloc[0]:.2f} to {part['ratio_high'].iloc[0]:.2f})"
        parts.append(
            f"{str(name).replace('_', ' ')} for the {gradient} in {formats}, by a factor of {span}"
        )
    return listed(parts)


def _verdict_tables(
    found: pd.DataFrame, names: tuple[str, str], main: TwoMethods
) -> Iterable[Table]:
    columns = {
        "gradient": "gradient",
        "format": "format",
        "verdict": "verdict",
        "bitwise_equal": "bits equal",
        "max_ulp_between": "ulp between",
        "error_first": "error 1 (u)",
        "error_second": "error 2 (u)",
        "closer": "closer",
        "ratio": "ratio",
        "bound_probabilistic": "bound (u S)",
        "passes": "passes a, b",
        "tolerance": "tolerance",
    }
    short = {names[0]: "1", names[1]: "2", "neither": "neither", "no question": "–"}
    show = {
        "bitwise_equal": percent,
        "closer": lambda name: short[name],
        "ratio": lambda value: f"{value:.2f}" if np.isfinite(value) else number(value),
        "error_first": lambda value: number(value),
    }
    explained = (
        f"Method 1 is {names[0].replace('_', ' ')}, method 2 {names[1].replace('_', ' ')}. Bits equal: "
        "part of the seeds in which the whole gradient is; passes: parts that pass (a) torch.allclose and "
        "(b) torch.testing.assert_close with their default tolerances. Error: relative, 2-norm, median over "
        "seeds. Closer: by a signed-rank test paired over seeds, at a false discovery rate of 1 % over all "
        "rows. Bound: probabilistic (1e-9) on one error, largest element. Tolerance: for assert_close, "
        "what two results within that bound satisfy; none where it exceeds S/8."
    )
    frame = found.assign(
        passes=[
            f"{percent(a)}, {percent(b)}"
            for a, b in zip(found["allclose"], found["assert_close"], strict=True)
        ],
        tolerance=[
            f"rtol={upward(r)}, atol={upward(a)}"
            for r, a in zip(found["rtol"], found["atol"], strict=True)
        ],
    )
    u = np.array([as_format(name).u for name in frame["format"]])
    useless = (frame["verdict"] == Verdict.DIFFERENT) | ~(frame["bound_probabilistic"] * u <= 1 / 8)
    frame.loc[useless, "tolerance"] = "–"
    frame.loc[frame["verdict"] == Verdict.DIFFERENT, "ratio"] = np.nan
    order = list(dict.fromkeys(zip(frame["case"], frame["shape"], strict=True)))
    swept = [key for key in order if key[0] == "length sweep"]
    for k, (case, shape) in enumerate(key for key in order if key not in swept):
        part = frame[(frame["case"] == case) & (frame["shape"] == shape)]
        yield Table(
            name=f"verdicts_{k + 1}_{case.replace(' ', '_')}",
            caption=f"Verdicts: {case}, {shape}; {counted(part['seeds'].max(), 'seed')}. "
            + (explained if k == 0 else "Columns as in Table 1."),
            frame=part.sort_values("gradient", key=_rank, kind="stable").reset_index(drop=True),
            columns=columns,
            show=show,
            group="gradient",
            first=True,
            size=6.6,
        )
    if swept:
        rows = frame[frame["case"] == "length sweep"].sort_values(
            ["gradient", "n"], key=_rank, kind="stable"
        )
        yield Table(
            name="verdicts_length_sweep",
            caption="Verdicts over the length: columns as in Table 1.",
            frame=rows.reset_index(drop=True),
            columns={"n": "n", **columns},
            show=show,
            group="n",
            size=6.4,
        )


def _rank(column: pd.Series) -> pd.Series:
    """Values in the order in which they first come."""
    return column.map({value: k for k, value in enumerate(dict.fromkeys(column))})


def _order_table(counts: pd.DataFrame, main: TwoMethods) -> Table:
    frame = by_order(counts, main.wrt[0], main.names[1])
    formats = [column for column in frame.columns if column not in ("order", "sums")]
    frame = frame.sort_values(["sums", formats[-1]], ascending=[False, True], kind="stable")
    return Table(
        name="orders",
        caption=f"Median over seeds of the rms error of the {main.wrt[0]} gradient, in u S, per order "
        f"({main.names[1].replace('_', ' ')}; {main.case}, {main.shape}).",
        frame=frame.reset_index(drop=True),
        columns={"order": "order", "sums": "sums kept", **{f: f for f in formats}},
        group="sums",
    )


def _errors_table(counts: pd.DataFrame) -> Table:
    native = counts[(counts["order"] == "native") & (counts["case"] != "length sweep")]
    return Table(
        name="errors",
        caption="Errors of the real kernel over the seeds: largest in ulp, median of the largest and of "
        "the rms in u S, mean signed, and how many elements overflowed or were NaN.",
        frame=native.reset_index(drop=True),
        columns={
            "case": "case", "n": "n", "format": "format", "gradient": "gradient",
            "method": "method", "max_ulp": "max ulp", "median_max_scaled": "max (u S)",
            "median_rms_scaled": "rms (u S)", "mean_scaled": "mean (u S)",
            "overflow": "overflow", "nan": "NaN",
        },
        group="shape",
        size=6.2,
    )  # fmt: skip


def _plots(tables: Tables, problems: Sequence[TwoMethods]) -> Iterable[Plot]:
    errors, pairs, elements = tables["errors"], tables["pairs"], tables["elements"]
    same = [p for p in problems if p.case == "kernel 1"]
    main, last = same[0], same[-1]
    one = _of(errors, main)
    yield _placed(figures.ecdf(one), main)
    yield _placed(figures.first_against_second(_of(pairs, main)), main)
    yield _placed(figures.orders(one), main)
    sweep = [p for p in problems if p.case == "length sweep"]
    if len(sweep) > 1:
        rows = errors[errors["case"] == "length sweep"]
        yield figures.error_against_n(rows, _bounds(pairs[pairs["case"] == "length sweep"]))
    if last is not main:
        plot = _placed(figures.orders(_of(errors, last)), last)
        yield replace(plot, name="orders_large", title="And with longer sums?")
    yield figures.ratios(pairs)
    yield _placed(figures.bias_against_noise(_of(errors, last)), last)
    part = _of(elements, main)
    part = part[part["gradient"] == main.wrt[0]]
    chosen = "float32" if "float32" in set(part["format"]) else part["format"].iloc[-1]
    yield _placed(figures.heat_map(part[part["format"] == chosen]), main)
    if one["format"].nunique() > 1:
        yield _placed(figures.precision_ladder(one), main)


def _judged(plot: Plot, pairs: pd.DataFrame) -> Plot:
    return replace(plot, caption=f"{plot.caption} Reference: {_engines(pairs)}.")


def _engines(pairs: pd.DataFrame) -> str:
    return listed(list(dict.fromkeys(pairs["reference_engine"])))


def _placed(plot: Plot, problem: TwoMethods) -> Plot:
    return replace(plot, caption=f"{plot.caption} {problem.shape}, {problem.case}.")


def _bounds(pairs: pd.DataFrame) -> pd.DataFrame:
    """Median bounds per format and length, as rows; of kernels that sum in the format."""
    names = {
        "described_certified": "certified", "bound_loop": "certified, plain loop",
        "described_probabilistic": "probabilistic", "described_expected": "expected",
    }  # fmt: skip
    chosen = pairs[pairs["gradient"] == "weight"].rename(columns=names)
    wide = chosen.groupby(["format", "n"])[list(names.values())].median().reset_index()
    rows = wide.melt(["format", "n"], var_name="bound", value_name="value")
    finite: pd.DataFrame = rows[np.isfinite(rows["value"])].reset_index(drop=True)
    return finite


def _notes(
    question: Question,
    found: pd.DataFrame,
    counts: pd.DataFrame,
    problems: Sequence[TwoMethods],
    pairs: pd.DataFrame,
    reads: pd.DataFrame,
) -> Iterable[tuple[str, str]]:
    yield ("Do earlier time points influence the gradient?", _influence(problems, reads))
    yield ("How sure is “the same function”?", _sure(found, pairs))
    failing = found[
        (found["allclose"] < 1) & found["verdict"].isin([Verdict.ROUNDOFF, Verdict.IDENTICAL])
    ]
    failing = failing[failing["case"] != "length sweep"]
    if len(failing):
        worst = failing.sort_values("allclose", kind="stable").iloc[0]
        text = (
            f"torch.allclose with its default tolerances rejects the {worst['gradient']} gradients in "
            f"{worst['format']} ({worst['shape']}) in {percent(1 - worst['allclose'])} of the seeds, "
            "although both are right to within rounding. The tolerances in the tables hold whatever the "
            "order of the sums, at a failure rate of 1e-9."
        )
        yield ("Does allclose say so too?", text)
    undecided = found[found["verdict"] == Verdict.UNDECIDED]
    if len(undecided):
        formats = listed(list(dict.fromkeys(undecided["format"])))
        yield (
            "Undecided.",
            f"In {formats} some sums are so long that rounding alone may change an eighth of S: the exact "
            "gradients are equal, but the computed ones could hide a bug.",
        )
    if question.data:
        yield ("Data.", question.data)
    yield ("Counted.", _counted(counts))


def _influence(problems: Sequence[TwoMethods], reads: pd.DataFrame) -> str:
    parts = []
    for problem in problems:
        length = int(problem.parameters["T"])
        if problem.case not in ("kernel 1", "halo kept") or length != problems[0].parameters["T"]:
            continue
        rows = _of(reads, problem)
        row = rows[(rows["method"] == problem.names[1]) & (rows["input"] == "x")].iloc[0]
        parts.append(
            f"with kernel size {problem.parameters['taps']}, of the {length} time points 0 to {length - 1} "
            f"the gradients of {problem.names[1].replace('_', ' ')} depend on {row['positions']}"
            + (" alone" if row["count"] < length else "")
        )
    text = "Read off the traced computation, for all inputs and without tolerance: "
    return text + "; ".join(parts) + "."


def _sure(found: pd.DataFrame, pairs: pd.DataFrame) -> str:
    different = found[found["verdict"] == Verdict.DIFFERENT]
    text = (
        f"The exact gradients (engine: {_engines(pairs)}) are compared, not the computed ones. They are "
        "polynomials of degree 3 at most: two different ones agree at a random point, of whose "
        "coordinates none takes a value with a probability above p, with probability at most 3 p "
        "(Schwartz and Zippel), and at k such points with at most (3 p)^k. For numbers drawn uniformly and "
        "rounded to float32, p is 2^-24; where x is data, weight and bias are the coordinates."
    )
    if len(different):
        largest = pairs.loc[pairs["verdict"] == Verdict.DIFFERENT, "reference_gap"]
        text += (
            f" Where the verdict is DIFFERENT, the exact gradients are apart by "
            f"{number(largest.min())} to {number(largest.max())} of S."
        )
    return text


def _counted(counts: pd.DataFrame) -> str:
    parts = []
    for name, what in (("overflow", "overflowed"), ("nan", "were NaN")):
        bad = counts[counts[name] > 0]
        if len(bad):
            formats = listed(list(dict.fromkeys(bad["format"])))
            parts.append(
                f"{counted(int(bad[name].sum()), 'element')} "
                f"{what if name == 'overflow' or bad[name].sum() > 1 else 'was NaN'} ({formats})"
            )
    total = int((counts["seeds"]).sum())
    return (
        f"{listed(parts)}; each counts as an infinite error."
        if parts
        else f"No element of any gradient overflowed or was NaN, in {counted(total, 'gradient')} computed."
    )
