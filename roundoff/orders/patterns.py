"""Trees in words, and where two trees part."""

from __future__ import annotations

import numpy as np

from roundoff.arguments import instance
from roundoff.orders.notation import Forms, doubled, forms_of, run_from, shift_text, spine_of
from roundoff.orders.trees import ReductionTree
from roundoff.words import counted


def describe(tree: ReductionTree) -> str:
    """The pattern's name in words: sequential, pairwise, 8 lanes, 3 blocks of 192, ...

    >>> from roundoff.orders.families import blocked, pairwise, reverse
    >>> describe(pairwise(64)), describe(reverse(10)), describe(blocked(96, 12))
    ('pairwise', 'sequential, backwards', '8 blocks of 12, sequential; the blocks in sequence')
    """
    instance("tree", tree, ReductionTree, "a ReductionTree")
    if tree.n < 3:
        return ("no terms", "one term", "two terms")[tree.n]
    forms = forms_of(tree)
    return _words(tree, forms, tree.n + len(tree.children) - 1)


def _words(tree: ReductionTree, forms: Forms, node: int) -> str:
    n, size = tree.n, forms.size[node]
    if node < n:
        return "one term"
    if size == 2:
        return "a pair"
    if size > 3 and forms.height[node] == (size - 1).bit_length():
        return "pairwise"
    spine = spine_of(tree, forms, node)
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
        base, shifts = doubled(tree, forms, node)
        if shifts:
            return _together(tree, forms, base, 2 ** len(shifts), shifts, "in pairs")
    count, step = run_from(forms, spine, 0)
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


def _runs_in(tree: ReductionTree, forms: Forms, node: int) -> str:
    """In words, what is made of plain loops of nearly equal length."""
    lengths, steps, stack = [], set(), [node]
    while stack:
        top = stack.pop()
        spine = spine_of(tree, forms, top)
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
    tree: ReductionTree, forms: Forms, base: int, count: int, shifts: list[int], how: str
) -> str:
    """Copies of one sum, added in pairs or in sequence."""
    n, size = tree.n, forms.size[base]
    if base < n:
        if how == "in pairs" and shift_text(shifts) == "+1":
            return "pairwise"
        return f"{counted(count, 'term')} {how} ({shift_text(shifts)})"
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
