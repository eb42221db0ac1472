"""An explanation in words."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from roundoff.judging.explanation.causes import Cause, Explained
from roundoff.orders.notation import pattern
from roundoff.orders.patterns import describe
from roundoff.probing import Revealed, TreeClass
from roundoff.probing.kernel_tree import detail, differences, roundings
from roundoff.trace.checks import OUTPUT
from roundoff.words import counted, listed


def sentence_of(why: Explained) -> str:
    """The answer, for a newcomer."""
    one, two = why.names
    apart = [c for c in why.causes.values() if c.equal < c.elements]
    if not apart:
        return f"There is nothing to explain: in {why.format} all gradients of {one} and {two} are equal."
    texts = []
    equal, of = why.forward
    if equal < of:
        texts.append(
            f"The outputs of {one} and {two} differ in {of - equal} of {counted(of, 'element')} "
            "already, and so does what the loss sends back."
        )
        if OUTPUT in why.sources:
            texts[-1] = f"{texts[-1][:-1]}: {why.sources[OUTPUT].words(why.names)}."
    after = [c for c in apart if c.common < c.elements]
    fine = [c for c in apart if c.common == c.elements]
    if fine:
        texts.append(
            f"Under one upstream gradient the {listed(c.name for c in fine)} "
            f"{'gradient is' if len(fine) == 1 else 'gradients are'} equal in every bit: the outputs are the "
            "only cause."
        )
    alike: dict[str, list[Cause]] = {}
    for cause in after:
        if cause.proven:
            alike.setdefault(reason_of(cause, why.names), []).append(cause)
    for reason, causes in alike.items():
        what = f"{listed(c.name for c in causes)} {'gradient' if len(causes) == 1 else 'gradients'}"
        texts.append(f"For the {what} both add the very same numbers {reason}.")
        if "order" in kinds_of(causes[0]):
            texts += _orders_in_words(causes[0], why.names)
    return " ".join([*texts, *_unproven([c for c in after if not c.proven], why)])


def _unproven(causes: Sequence[Cause], why: Explained) -> list[str]:
    """Sentences on gradients whose reason is not proven, those with one reason together."""
    alike: dict[str, list[Cause]] = {}
    for cause in causes:
        alike.setdefault(_missing(cause), []).append(cause)
    texts = []
    for missing, same in alike.items():
        what = f"{listed(c.name for c in same)} {'gradient' if len(same) == 1 else 'gradients'}"
        texts.append(f"For the {what} the reason is not proven: {missing}.")
        known = [why.sources[c.name] for c in same if c.name in why.sources]
        if known:
            apart = _span([each.apart for each in known])
            errors = _span([error for each in known for error in each.errors])
            ordinary = all(each.ordinary for each in known)
            verdict = "no more than rounding" if ordinary else "that is more than rounding makes"
            texts.append(
                f"Under one upstream gradient the two are {apart} u apart in the 2-norm, where errors of "
                f"{errors} u are predicted: {verdict}."
            )
    return texts


def _span(values: Sequence[float]) -> str:
    least, most = f"{min(values):.2g}", f"{max(values):.2g}"
    return least if least == most else f"{least} to {most}"


def kinds_of(cause: Cause) -> tuple[str, ...]:
    """In what the two sides' trees differ, for the elements whose bits differ."""
    return tuple(dict.fromkeys(kind for pair in cause.apart for kind in differences(*pair)))


def reason_of(cause: Cause, names: tuple[str, str]) -> str:
    """Why the bits of a proven gradient differ: what its trees differ in, and no more."""
    kinds = kinds_of(cause)
    details = [_detail(kind, cause, names) for kind in kinds if kind != "order"]
    if "order" in kinds:
        text = "in different orders"
        if details:
            text += f", and they round differently: {'; '.join(details)}"
        else:
            text += ", and rounding depends on the order"
    else:
        text = f"in the same order, but they round differently: {'; '.join(details)}"
    manner = "in the other's order" if kinds == ("order",) else "as the other adds them"
    return f"{text}; added {manner}, each gives exactly the other's bits"


def _detail(kind: str, cause: Cause, names: tuple[str, str]) -> str:
    pair = next(pair for pair in cause.apart if kind in differences(*pair))
    one, two = (detail(kind, kernel) for kernel in pair)
    return f"{names[0]} {one}, {names[1]} {two}"


def _orders_in_words(cause: Cause, names: tuple[str, str]) -> list[str]:
    orders = [_largest(side) for side in cause.trees]
    texts = []
    if orders[0] != orders[1]:
        texts.append(f"{names[0]} adds {orders[0]}; {names[1]} {orders[1]}.")
    for method, alone in zip(names, cause.alone, strict=True):
        if alone:
            texts.append(f"{method}'s sums are split over the threads: with one it adds {alone}.")
    return texts


def _largest(side: Revealed | None) -> str:
    """The order that most elements are added in."""
    if side is None or not side.classes:
        return "in an order that is not known"
    one = max(side.classes, key=lambda c: len(c.outputs))
    return f"{counted(one.tree.n, 'term')} ({order_in_words(side, one)})"


def _missing(cause: Cause) -> str:
    if cause.refused:
        return cause.refused
    for side, which in zip(cause.trees, ("first", "second"), strict=True):
        if side is not None and not side.proven:
            return f"the {which} function's kernel follows no fixed tree that we could prove"
    if not cause.terms_alike:
        return "the two do not add the same products"
    forth, back, of = cause.swapped
    return f"in each other's trees, {forth} and {back} of {counted(of, 'element')} come out as the other's"


def lines_of(why: Explained) -> list[str]:
    """All that is known, for print."""
    lines = [sentence_of(why), ""]
    equal, of = why.forward
    lines.append(f"outputs: {equal} of {counted(of, 'element')} equal in {why.format}")
    for cause in why.causes.values():
        equals = f"{cause.equal} of {counted(cause.elements, 'element')} equal"
        common = f"{cause.common} under one upstream gradient"
        lines += ["", f"gradient by {cause.name}: {equals}; {common}"]
        if cause.name in why.sources:
            lines.append(f"  {why.sources[cause.name].words(why.names)}")
        if cause.refused:
            lines.append(f"  {cause.refused}")
            continue
        for name, side, kernels, tighter, alone in zip(
            why.names, cause.trees, cause.kernels, cause.tighter, cause.alone, strict=True
        ):
            lines += _side(name, side, kernels, tighter)
            if alone:
                lines.append(
                    f"    split over {counted(torch.get_num_threads(), 'thread')}: with one "
                    f"thread it adds {alone}"
                )
        forth, back, of = cause.swapped
        if of:
            lines.append(
                f"  swapped: {why.names[0]}'s terms in {why.names[1]}'s trees give its bits for {forth} of "
                f"{counted(of, 'element')}, the other way round {back} of {of}"
            )
        if cause.parts:
            lines.append(f"  where they part: {cause.parts}")
    lines += ["", "; ".join(f"{key} {value}" for key, value in why.environment.items())]
    return lines


def _side(name: str, side: Revealed | None, kernels: Sequence[str], tighter: float) -> list[str]:
    if side is None:
        return []
    head, *rest = str(side).split("\n")
    lines = [f"  {name}: {head}", f"    kernels: {', '.join(kernels)}"]
    if not side.proven:
        lines += [f"  {line}" for line in rest if "tried" in line]
    for one in side.classes:
        lines.append(
            f"    {counted(len(one.outputs), 'element')} of {counted(one.tree.n, 'term')}: "
            f"{order_in_words(side, one)}"
        )
        text = str(one.tree) if one.tree.n <= 32 else pattern(one.tree.tree)
        lines.append(f"      {text if len(text) <= 300 else text[:297] + '...'}")
        lines.append(f"      {roundings(one.tree)}")
    if side.classes:
        lines.append(
            f"    the bound along this tree is {tighter:.3g} times smaller than that for any order"
        )
    return lines


def order_in_words(side: Revealed, one: TreeClass) -> str:
    """The order of a class; blocks that are the samples of the batch are called so."""
    text = describe(one.tree.tree)
    count = side.batch
    if count and count > 1 and text.startswith(f"{count} blocks of {one.tree.n // count},"):
        return text.replace(f"{count} blocks", f"{count} samples", 1).replace(
            "; the blocks", "; the samples"
        )
    return text
