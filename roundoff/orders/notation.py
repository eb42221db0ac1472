"""A notation for trees: runs and lanes instead of a thousand parentheses.

A pattern is one of

    7                       a leaf
    seq[0:35]               leaves 0 to 34, one after the other; seq[34::-1] backwards, seq[0:35:8] every 8th
    seq(A, 8 times, +64)    A, then the same shifted by 64, by 128, ..., one after the other
    pair(A, 8 times, +1)    the same, added in pairs, pairs of pairs, ...
    A then B, C             B is added to A, then C to that
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from roundoff.words import counted


class Additions(Protocol):
    """What a notation needs to know of a tree; ids as in `ReductionTree`."""

    @property
    def n(self) -> int: ...

    @property
    def children(self) -> npt.NDArray[np.int64]: ...


@dataclass(frozen=True)
class Forms:
    """Per id: its first leaf, number of leaves, height, and a number that is equal for shifted copies."""

    first: list[int]
    size: list[int]
    height: list[int]
    shape: list[int]


def forms_of(tree: Additions) -> Forms:
    """Numbers that tell the sums of a tree apart, leaves first."""
    first, size = list(range(tree.n)), [1] * tree.n
    height, shape = [0] * tree.n, [0] * tree.n
    known: dict[tuple[int, int, int], int] = {}
    for left, right in tree.children.tolist():
        a, b = (left, right) if first[left] <= first[right] else (right, left)
        key = (shape[a], shape[b], first[b] - first[a])
        first.append(first[a])
        size.append(size[a] + size[b])
        height.append(1 + max(height[a], height[b]))
        shape.append(known.setdefault(key, len(known) + 1))
    return Forms(first, size, height, shape)


def spine_of(tree: Additions, forms: Forms, node: int) -> list[int]:
    """The terms of a sum that is built one after the other: the first two meet first."""
    n, terms = tree.n, []
    while node >= n:
        left, right = tree.children[node - n].tolist()
        # The longer sum is what the other is added to; of equal ones, the one that starts first.
        if (forms.size[right], -forms.first[right]) > (forms.size[left], -forms.first[left]):
            left, right = right, left
        terms.append(right)
        large = 2 * forms.size[right] > forms.size[left]
        if forms.size[left] == forms.size[right] or (large and not _adds(tree, forms, left, right)):
            node = left
            break
        node = left
    spine = [node, *reversed(terms)]
    # The first two meet as equals: the one that goes on evenly stands second.
    if len(spine) > 2 and forms.size[spine[0]] == forms.size[spine[1]]:
        a, b, c = (forms.first[term] for term in spine[:3])
        if a - b == c - a:
            spine[:2] = spine[1], spine[0]
    return spine


def _adds(tree: Additions, forms: Forms, node: int, like: int) -> bool:
    """Whether the last addition below a node took a term as long as another."""
    if node < tree.n:
        return False
    return forms.size[like] in [
        forms.size[child] for child in tree.children[node - tree.n].tolist()
    ]


def doubled(tree: Additions, forms: Forms, node: int) -> tuple[int, list[int]]:
    """What is added in pairs and pairs of pairs: the first copy, and the shift of each level, top first."""
    n, shifts = tree.n, []
    while node >= n:
        left, right = tree.children[node - n].tolist()
        if forms.first[right] < forms.first[left]:
            left, right = right, left
        if forms.shape[left] != forms.shape[right]:
            break
        shifts.append(forms.first[right] - forms.first[left])
        node = left
    return node, shifts


def pattern(tree: Additions) -> str:
    """The tree as runs, lanes and strides; see the module.

    >>> from roundoff.orders.families import strided
    >>> pattern(strided(64, 8))
    'pair(seq[0:64:8], 8 times, +1)'
    """
    if not tree.n:
        return ""
    forms = forms_of(tree)
    return _text(tree, forms, tree.n + len(tree.children) - 1, 0)


def _text(tree: Additions, forms: Forms, node: int, depth: int) -> str:
    if node < tree.n:
        return str(node)
    if depth > 40:
        return f"a sum of {counted(forms.size[node], 'term')} from {forms.first[node]} on"
    spine = spine_of(tree, forms, node)
    if len(spine) == 2 and forms.size[node] > 2:
        base, shifts = doubled(tree, forms, node)
        if shifts:
            inner = _text(tree, forms, base, depth + 1)
            return f"pair({inner}, {2 ** len(shifts)} times, {shift_text(shifts)})"
    parts = []
    at = 0
    while at < len(spine):
        count, step = run_from(forms, spine, at)
        leaf = spine[at] < tree.n
        if leaf and count > 1:
            stop = min(spine[at] + count * step, tree.n)
            text = f"[{spine[at]}:{stop if stop >= 0 else ''}{f':{step}' if step != 1 else ''}]"
            parts.append(f"seq{text}" if at == 0 else text)
        elif count > 1:
            parts.append(
                f"seq({_text(tree, forms, spine[at], depth + 1)}, {count} times, {step:+d})"
            )
        else:
            parts.append(_text(tree, forms, spine[at], depth + 1))
        at += count
    return parts[0] if len(parts) == 1 else f"({parts[0]} then {', '.join(parts[1:])})"


def run_from(forms: Forms, spine: list[int], at: int) -> tuple[int, int]:
    """How many terms from here on are the same, evenly shifted, and by how much."""
    if at + 1 >= len(spine) or forms.shape[spine[at]] != forms.shape[spine[at + 1]]:
        return 1, 0
    step = forms.first[spine[at + 1]] - forms.first[spine[at]]
    count = 2
    while (
        at + count < len(spine)
        and forms.shape[spine[at + count]] == forms.shape[spine[at]]
        and forms.first[spine[at + count]] - forms.first[spine[at + count - 1]] == step
    ):
        count += 1
    # Two terms alone are no run, unless there is nothing else.
    return (count, step) if count > 2 or len(spine) == 2 else (1, 0)


def shift_text(shifts: list[int]) -> str:
    """Shifts from the top level down: +1 if they are 1, 2, 4, ... from the bottom up."""
    unit = min(shifts)
    if [unit * 2**k for k in reversed(range(len(shifts)))] == shifts:
        return f"{unit:+d}"
    return "".join(f"{shift:+d}" for shift in shifts)
