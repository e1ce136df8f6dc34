from __future__ import annotations

import numpy as np
import pytest

from troupe.search.tree import (
    CHANCE,
    DECISION,
    EMPTY,
    PENDING,
    TERMINAL,
    Tree,
    allocate,
    clear,
    flat,
    grow,
    keep_subtree,
)


def family() -> Tree:
    """Slot 1 of two: 0 -> 1 (edge 0), 2 (edge 1); 1 -> 3 (edge 1); 2 -> 4 (edge 0), 5 (edge 1); 4 -> 6 (edge 1)."""
    tree = allocate(2, 8, 2, 2)
    links = {1: (0, 0), 2: (0, 1), 3: (1, 1), 4: (2, 0), 5: (2, 1), 6: (4, 1)}
    tree.size[1] = 7
    tree.kind[1, :7] = [DECISION, DECISION, DECISION, TERMINAL, CHANCE, TERMINAL, PENDING]
    for node, (parent, edge) in links.items():
        tree.parent[1, node], tree.edge[1, node], tree.child[1, parent, edge] = parent, edge, node
    for array in (tree.reward, tree.value, tree.node_visits, tree.to_play):
        array[1, :7] = np.arange(7)
    tree.visits[1, :7] = np.arange(14).reshape(7, 2)
    tree.prior[1, :7] = 0.5
    return tree


def test_a_fresh_tree_is_a_root_that_waits() -> None:
    tree = allocate(3, 4, 2, 2)
    assert (tree.kind[:, 0] == PENDING).all() and (tree.kind[:, 1:] == EMPTY).all()
    assert tree.size.tolist() == [1, 1, 1]
    assert (tree.child == -1).all() and np.isneginf(tree.prior).all()
    assert (tree.low == -1).all() and (tree.high == 1).all()
    alone = allocate(1, 4, 2, 1)
    assert alone.low[0] == np.inf and alone.high[0] == -np.inf  # one player: no range yet


def test_clearing_leaves_the_other_slots_alone() -> None:
    tree, before = family(), family()
    clear(tree, np.array([0]), 2)
    for name, array in tree._asdict().items():
        np.testing.assert_array_equal(array, getattr(before, name), name)
    clear(tree, np.array([1]), 2)
    for name, array in tree._asdict().items():
        np.testing.assert_array_equal(array, getattr(allocate(2, 8, 2, 2), name), name)


def test_growing_keeps_what_is_there() -> None:
    tree = family()
    larger = grow(tree, 12, 5)
    assert larger.prior.shape == (2, 12, 5) and larger.kind.shape == (2, 12)
    assert (larger.child[:, :, 2:] == -1).all() and np.isneginf(larger.prior[:, :, 2:]).all()
    for name, array in tree._asdict().items():
        part = tuple(slice(0, n) for n in array.shape)
        np.testing.assert_array_equal(getattr(larger, name)[part], array, name)
        assert getattr(larger, name).dtype == array.dtype
    assert grow(tree, 3, 1).prior.shape == (2, 8, 2)  # never smaller


def test_a_subtree_is_renumbered_by_hand() -> None:
    tree = family()
    old = keep_subtree(tree, 1, 1)
    assert old.tolist() == [2, 4, 5, 6]
    assert tree.size.tolist() == [1, 4]
    assert tree.kind[1].tolist() == [DECISION, CHANCE, TERMINAL, PENDING, EMPTY, EMPTY, EMPTY, EMPTY]
    assert tree.parent[1, :4].tolist() == [-1, 0, 0, 1]
    assert tree.edge[1, :4].tolist() == [-1, 0, 1, 1]
    assert tree.child[1, :4].tolist() == [[1, 2], [-1, 3], [-1, -1], [-1, -1]]
    assert tree.reward[1, :4].tolist() == [0, 4, 5, 6]  # a root has no step into it
    assert tree.value[1, :4].tolist() == tree.node_visits[1, :4].tolist() == [2, 4, 5, 6]
    assert tree.visits[1, :4].tolist() == [[4, 5], [8, 9], [10, 11], [12, 13]]
    assert (tree.child[1, 4:] == -1).all() and np.isneginf(tree.prior[1, 4:]).all() and not tree.visits[1, 4:].any()


@pytest.mark.parametrize("kind", [TERMINAL, PENDING])
def test_nothing_is_kept_of_a_child_that_was_not_expanded(kind: int) -> None:
    tree, before = family(), family()
    tree.kind[1, 2] = before.kind[1, 2] = kind
    tree.child[1, 0, 0] = before.child[1, 0, 0] = -1
    for edge in (0, 1):
        assert not len(keep_subtree(tree, 1, edge))
        for name, array in tree._asdict().items():
            np.testing.assert_array_equal(array, getattr(before, name), name)


def test_the_flat_tree_is_the_same_memory() -> None:
    tree = family()
    for grown in (tree, grow(tree, 12, 3)):
        seen = flat(grown)
        for name, array in grown._asdict().items():
            assert np.shares_memory(array, getattr(seen, name)), name
        nodes = grown.kind.shape[1]
        seen.prior[nodes + 6, 1], seen.kind[nodes + 5] = 0.125, CHANCE
        assert grown.prior[1, 6, 1] == 0.125 and grown.kind[1, 5] == CHANCE
