"""Random trees as lists of nodes, and what tells two trees apart."""


def nodes_of(tree):
    """A binary ReductionTree as lists of children."""
    n = tree.n
    return [[c if c < n else ~(c - n) for c in pair] for pair in tree.children.tolist()]


def random_nodes(generator, n, widest):
    """A random tree whose nodes have up to `widest` children."""
    pool, nodes = list(range(n)), []
    while len(pool) > 1:
        count = min(len(pool), int(generator.integers(2, widest + 1)))
        chosen = {int(k) for k in generator.choice(len(pool), count, replace=False)}
        nodes.append([pool[k] for k in sorted(chosen)])
        pool = [p for k, p in enumerate(pool) if k not in chosen] + [~(len(nodes) - 1)]
    return nodes


def subtrees(nodes):
    """The set of the leaf sets of all nodes, which is the tree."""
    found = []
    for children in nodes:
        found.append(frozenset().union(*({c} if c >= 0 else found[~c] for c in children)))
    return set(found)


def kernel_subtrees(kernel):
    """The same of a KernelTree: joined additions are no nodes of their own."""
    found = [frozenset({k}) for k in range(kernel.n)]
    for left, right in kernel.tree.children.tolist():
        found.append(found[left] | found[right])
    inner = found[kernel.n :]
    return {s for s, joined in zip(inner, kernel.joined, strict=True) if not joined}
