"""Trees in words: runs and lanes instead of a thousand parentheses, and where two trees part.

A pattern is one of

    7                       a leaf
    seq[0:35]               leaves 0 to 34, one after the other; seq[34::-1] backwards, seq[0:35:8] every 8th
    seq(A, 8 times, +64)    A, then the same shifted by 64, by 128, ..., one after the other
    pair(A, 8 times, +1)    the same, added in pairs, pairs of pairs, ...
    A then B, C             B is added to A, then C to that
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from roundoff.arguments import instance
from roundoff.orders.trees import ReductionTree
from roundoff.words import counted


@dataclass(frozen=True)
class _Forms:
    """Per id: its first leaf, number of leaves, height, and a number that is equal for shifted copies."""

    first: list[int]
    size: list[int]
    height: list[int]
    shape: list[int]


def _forms(tree: ReductionTree) -> _Forms:
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
    return _Forms(first, size, height, shape)


def _spine(tree: ReductionTree, forms: _Forms, node: int) -> list[int]:
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


def _adds(tree: ReductionTree, forms: _Forms, node: int, like: int) -> bool:
    """Whether the last addition below a node took a term as long as another."""
    if node < tree.n:
        return False
    return forms.size[like] in [
        forms.size[child] for child in tree.children[node - tree.n].tolist()
    ]


def _doubled(tree: ReductionTree, forms: _Forms, node: int) -> tuple[int, list[int]]:
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


def pattern(tree: ReductionTree) -> str:
    """The tree as runs, lanes and strides; see the module.

    >>> from roundoff.orders.families import strided
    >>> pattern(strided(64, 8))
    'pair(seq[0:64:8], 8 times, +1)'
    """
    if not tree.n:
        return ""
    forms = _forms(tree)
    return _text(tree, forms, tree.n + len(tree.children) - 1, 0)


def _text(tree: ReductionTree, forms: _Forms, node: int, depth: int) -> str:
    if node < tree.n:
        return str(node)
    if depth > 40:
        return f"a sum of {counted(forms.size[node], 'term')} from {forms.first[node]} on"
    spine = _spine(tree, forms, node)
    if len(spine) == 2 and forms.size[node] > 2:
        base, shifts = _doubled(tree, forms, node)
        if shifts:
            return f"pair({_text(tree, forms, base, depth + 1)}, {2 ** len(shifts)} times, {_steps(shifts)})"
    parts = []
    at = 0
    while at < len(spine):
        count, step = _run(forms, spine, at)
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


def _run(forms: _Forms, spine: list[int], at: int) -> tuple[int, int]:
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


def _steps(shifts: list[int]) -> str:
    """Shifts from the top level down: +1 if they are 1, 2, 4, ... from the bottom up."""
    unit = min(shifts)
    if [unit * 2**k for k in reversed(range(len(shifts)))] == shifts:
        return f"{unit:+d}"
    return "".join(f"{shift:+d}" for shift in shifts)


def describe(tree: ReductionTree) -> str:
    """The pattern's name in words: sequential, pairwise, 8 lanes, 3 blocks of 192, ...

    >>> from roundoff.orders.families import blocked, pairwise, reverse
    >>> describe(pairwise(64)), describe(reverse(10)), describe(blocked(96, 12))
    ('pairwise', 'sequential, backwards', '8 blocks of 12, sequential; the blocks in sequence')
    """
    instance("tree", tree, ReductionTree, "a ReductionTree")
    if tree.n < 3:
        return ("no terms", "one term", "two terms")[tree.n]
    forms = _forms(tree)
    return _words(tree, forms, tree.n + len(tree.children) - 1)


def _words(tree: ReductionTree, forms: _Forms, node: int) -> str:
    n, size = tree.n, forms.size[node]
    if node < n:
        return "one term"
    if size == 2:
        return "a pair"
    if size > 3 and forms.height[node] == (size - 1).bit_length():
        return "pairwise"
    spine = _spine(tree, forms, node)
    leaves = [t for t in spine if t < n]
    if len(leaves) == len(spine):
        steps = set(np.diff(leaves).tolist())
        if steps == {1}:
            return "sequential"
        if steps == {-1}:
            return "sequential, backwards"
        if len(steps) == 1:
            return f"sequential, every {steps.pop()}th"
        return (
            "sequential, odd-even pairs"
            if _pairs_swapped(leaves)
            else "sequential, in another order"
        )
    if len(spine) == 2:
        base, shifts = _doubled(tree, forms, node)
        if shifts:
            return _together(tree, forms, base, 2 ** len(shifts), shifts, "in pairs")
    count, step = _run(forms, spine, 0)
    if count == len(spine):
        return _together(tree, forms, spine[0], count, [step], "in sequence")
    if len({forms.size[t] for t in spine}) == 1 and len({forms.shape[t] for t in spine}) == 1:
        return f"{len(spine)} sums of {forms.size[spine[0]]}, {_words(tree, forms, spine[0])}"
    tail = 0
    while tail < len(spine) - 1 and spine[len(spine) - 1 - tail] < n:
        tail += 1
    if tail:
        below = node
        for _ in range(tail):
            left, right = tree.children[below - n].tolist()
            below = left if forms.size[left] >= forms.size[right] else right
        return f"{_words(tree, forms, below)}; then {counted(tail, 'term')} one by one"
    if len(spine) == 2:
        a, b = spine
        return (
            f"{counted(forms.size[a], 'term')} ({_words(tree, forms, a)}) plus {forms.size[b]} "
            f"({_words(tree, forms, b)})"
        )
    return _runs_in(tree, forms, node)


def _pairs_swapped(leaves: list[int]) -> bool:
    """Whether neighbours change places in pairs, in an otherwise ascending loop."""
    rank = np.argsort(np.argsort(leaves))
    moved = rank - np.arange(len(rank))
    return bool((np.abs(moved) <= 1).all())


def _runs_in(tree: ReductionTree, forms: _Forms, node: int) -> str:
    """In words, what is made of plain loops of nearly equal length."""
    lengths, steps, stack = [], set(), [node]
    while stack:
        top = stack.pop()
        spine = _spine(tree, forms, top)
        if all(term < tree.n for term in spine):
            gaps = set(np.diff(spine).tolist())
            lengths.append(len(spine))
            steps |= gaps if len(gaps) < 2 else {0}
        else:
            stack += tree.children[top - tree.n].tolist()
    what = "sums"
    if steps == {1}:
        what = "blocks"
    elif len(steps) == 1 and min(steps) > 1:
        what = "lanes"
    low, high = min(lengths), max(lengths)
    span = str(high) if low == high else f"{low} to {high}"
    return f"{len(lengths)} {what} of {span}, in an order of their own"


def _together(
    tree: ReductionTree, forms: _Forms, base: int, count: int, shifts: list[int], how: str
) -> str:
    """Copies of one sum, added in pairs or in sequence."""
    n, size = tree.n, forms.size[base]
    if base < n:
        if how == "in pairs" and _steps(shifts) == "+1":
            return "pairwise"
        return f"{counted(count, 'term')} {how} ({_steps(shifts)})"
    # Lanes interleave: a copy begins before the first one ends.
    steps = min(abs(shift) for shift in shifts)
    what = "lanes" if steps < size and size * count > steps * count else "blocks"
    if what == "lanes" and steps == 1:
        inner = f"{count} lanes of {size}"
    else:
        inner = f"{count} {what} of {size}, {_words(tree, forms, base)}"
    return f"{inner}; the {what} {how}"


def parting(first: ReductionTree, second: ReductionTree) -> str | None:
    """Where two trees over the same terms part first, in a sentence; None if they are the same.

    >>> from roundoff.orders.families import reverse, sequential
    >>> parting(sequential(3), reverse(3))
    'the first tree adds 0 and 1; the second adds the sum of 1, 2 to 0 before anything else, and 1 only later'
    """
    for tree in (first, second):
        instance("tree", tree, ReductionTree, "a ReductionTree")
    if first.n != second.n:
        return f"the first tree has {counted(first.n, 'term')}, the second {second.n}"
    keys = np.random.default_rng(first.n).integers(1, 2**62, first.n).tolist()
    sums = [_keyed(tree, keys) for tree in (first, second)]
    at = {key: node for node, key in enumerate(sums[1])}
    for node, (left, right) in enumerate(first.children.tolist(), first.n):
        if sums[0][node] in at:
            continue
        # Both operands are sums of the second tree, too: this is a lowest place.
        other = at[sums[0][left]]
        parent = int(np.flatnonzero((second.children == other).any(axis=1))[0])
        a, b = second.children[parent].tolist()
        sibling = b if a == other else a
        one, two = _brief(first, left), _brief(first, right)
        return (
            f"the first tree adds {one} and {two}; the second adds {_brief(second, sibling)} to {one} "
            f"before anything else, and {two} only later"
        )
    return None


def _keyed(tree: ReductionTree, keys: list[int]) -> list[int]:
    """Per id, a number that is equal for equal sets of leaves (and for others with chance 2^-62)."""
    found = list(keys)
    for left, right in tree.children.tolist():
        found.append(found[left] ^ found[right])
    return found


def _brief(tree: ReductionTree, node: int) -> str:
    """A subtree in few words."""
    if node < tree.n:
        return str(node)
    leaves, stack = [], [node]
    while stack:
        top = stack.pop()
        if top < tree.n:
            leaves.append(top)
        else:
            stack += tree.children[top - tree.n].tolist()
    leaves.sort()
    if len(leaves) <= 4:
        return "the sum of " + ", ".join(map(str, leaves))
    return f"a sum of {len(leaves)} terms ({leaves[0]}, {leaves[1]}, ..., {leaves[-1]})"
