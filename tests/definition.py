"""The readable definition of recovery: one pair of leaves per call of the kernel.

Source: Xie and others 2025, FPRev, USENIX ATC, the basic algorithm.
"""


def one_pair_per_call(leaves, left):
    """The tree over the leaves as nested frozensets.

    left(i, j, units): how many of the units survive +M at i and -M at j.
    """
    leaves = list(leaves)
    if len(leaves) == 1:
        return leaves[0]
    pivot, *others = leaves
    groups = {}
    for other in others:
        groups.setdefault(left(pivot, other, leaves), []).append(other)
    tree = pivot
    for count in sorted(groups, reverse=True):  # the closest relatives leave most units alone
        tree = frozenset([tree, one_pair_per_call(groups[count], left)])
    return tree
