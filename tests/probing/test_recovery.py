"""Trees from counts of what survives: any tree comes back, and counts that are no tree are refused."""

import numpy as np
import pytest
from definition import one_pair_per_call
from hypothesis import given, settings
from hypothesis import strategies as st
from trees import nodes_of, random_nodes, subtrees

from roundoff import orders
from roundoff.probing.recovery import CountQuestion, NotATree, recover


class Swamping:
    """An ideal oracle: M swamps every unit that it meets before its opposite."""

    def __init__(self, nodes, n):
        self.nodes, self.n, self.asked = nodes, n, 0

    def __call__(self, questions):
        return [np.array([self.one(q, j) for j in q.others.tolist()]) for q in questions]

    def one(self, question, other):
        self.asked += 1
        values = {int(k): (0, 1) for k in question.units}  # (huge, units)
        values[question.pivot], values[other] = (1, 0), (-1, 0)
        sums = []
        for children in self.nodes:
            parts = [values.get(c, (0, 0)) if c >= 0 else sums[~c] for c in children]
            swamped = any(huge for huge, _ in parts)
            sums.append((sum(h for h, _ in parts), 0 if swamped else sum(u for _, u in parts)))
        return sums[-1][1]


@settings(deadline=None, max_examples=150)
@given(
    st.integers(2, 60), st.integers(2, 6), st.sampled_from([3, 7, 64, 10**6]), st.integers(0, 10**6)
)
def test_any_tree_is_recovered_whatever_can_be_counted(n, widest, most, seed):
    nodes = random_nodes(np.random.default_rng(seed), n, widest)
    assert subtrees(recover(np.arange(n), Swamping(nodes, n), most)) == subtrees(nodes)


@pytest.mark.parametrize(
    "family", ["sequential", "reverse", "pairwise", "blocked(7)", "strided(8)", "shuffled(3)"]
)
def test_a_thousand_leaves_take_few_questions(family):
    n = 1000
    tree = orders.as_order(family).tree(n)

    class Counting:
        """Ancestors' sizes by depth first numbers, for speed."""

        asked = 0

        def __call__(self, questions):
            return [self.answer(q) for q in questions]

        def answer(self, q):
            self.asked += len(q.others)
            units = np.zeros(n, bool)
            units[q.units] = True
            below = ancestors(tree)
            return np.array(
                [int(units.sum() - units[below(q.pivot, j)].sum()) for j in q.others.tolist()]
            )

    oracle = Counting()
    found = recover(np.arange(n), oracle, 10**6)
    assert subtrees(found) == subtrees(nodes_of(tree))
    assert oracle.asked < 16 * n


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.sampled_from([5, 10**6]), st.integers(0, 10**6))
def test_recovery_level_by_level_is_the_definition_one_pair_at_a_time(n, most, seed):
    nodes = random_nodes(np.random.default_rng(seed), n, 2)
    oracle = Swamping(nodes, n) if n > 1 else None
    nested = one_pair_per_call(
        range(n),
        lambda i, j, units: oracle.one(CountQuestion(i, np.array([j]), np.array(units)), j),
    )
    found = []
    for children in recover(np.arange(n), oracle, most):
        found.append(frozenset(c if c >= 0 else found[~c] for c in children))
    assert (found[-1] if found else 0) == nested


def ancestors(tree):
    """(i, j) to the leaves below their lowest common ancestor."""
    n = tree.n
    leaves = [np.array([k]) for k in range(n)]
    parent = np.zeros(2 * n - 1, int)
    for k, (left, right) in enumerate(tree.children.tolist()):
        leaves.append(np.concatenate([leaves[left], leaves[right]]))
        parent[[left, right]] = n + k

    def common(i, j):
        while i != j:
            i, j = (parent[i], j) if i < j else (i, parent[j])
        return leaves[i]

    return common


def test_reverse_sequential_of_many_leaves_needs_no_recursion():
    n = 100_000

    def ask(questions):
        # The ancestor of i and j in a loop from the last term to the first has the leaves from min(i, j) on.
        found = []
        for q in questions:
            units = np.sort(q.units)
            found.append(np.searchsorted(units, np.minimum(q.others, q.pivot)))
        return found

    nodes = recover(np.arange(n), ask, 10**7)
    assert len(nodes) == n - 1
    assert nodes[0] == [n - 2, n - 1] and nodes[-1] == [0, ~(n - 3)]


def test_counts_that_are_no_tree_are_refused():
    def ask(questions):
        return [np.ones(len(q.others), np.int64) for q in questions]

    with pytest.raises(NotATree, match="unit terms survive"):
        recover(np.arange(5), ask, 100)


def test_questions_are_counts_of_units_left():
    oracle = Swamping([[0, 1], [~0, 2]], 3)
    found = oracle([CountQuestion(0, np.array([1, 2]), np.arange(3))])
    assert found[0].tolist() == [1, 0]
