"""A batch of search trees as arrays: B slots, each a tree of at most N nodes with at most W edges a node.

The tree knows no game. It holds what a search measured; states live with the world that makes them. Node 0 is the root,
and a child's number is always larger than its parent's. The same arrays are worked on by the NumPy reference
(`reference.py`) and by the compiled kernels (`accelerated.py`), which must leave the very same numbers in them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

__all__ = [
    "CHANCE",
    "DECISION",
    "EMPTY",
    "PENDING",
    "TERMINAL",
    "Leaves",
    "Steps",
    "Tree",
    "allocate",
    "clear",
    "flat",
    "grow",
    "keep_subtree",
]

EMPTY, PENDING, DECISION, CHANCE, TERMINAL = range(5)
"""Kinds of nodes: unused; reached, but not evaluated; a player decides; chance decides; the game has ended."""

_NODE = np.dtype(
    [("kind", np.int8), ("to_play", np.int8), ("parent", np.int32), ("edge", np.int32), ("node_visits", np.int32),
     ("reward", np.float64), ("value", np.float64)],
    align=True,
)  # fmt: skip
_EDGE = np.dtype([("prior", np.float64), ("total", np.float64), ("visits", np.int32), ("child", np.int32)], align=True)
_PER_EDGE = ("prior", "visits", "total", "child", "inflight")
_PER_SLOT = ("size", "low", "high")
_FILL = {"prior": -np.inf, "child": -1, "parent": -1, "edge": -1}


class Tree(NamedTuple):
    """B trees. Every float is float64, so that two implementations can agree to the last bit.

    What belongs to a node lies side by side in memory, and so does what belongs to an edge: the arrays are fields of
    two arrays of records. A walk touches a tree in few places and waits for memory there more than for anything else.
    """

    kind: np.ndarray  # int8 [B, N]
    to_play: np.ndarray  # int8 [B, N]; a chance node keeps that of the player who moved into it
    parent: np.ndarray  # int32 [B, N]
    edge: np.ndarray  # int32 [B, N]: which edge of the parent leads here
    reward: np.ndarray  # float64 [B, N]: of the step into the node, as the parent's player sees it
    value: np.ndarray  # float64 [B, N]: the evaluation, as the node's player sees it
    node_visits: np.ndarray  # int32 [B, N]: the node's own evaluation counts as one
    prior: np.ndarray  # float64 [B, N, W]: -inf where there is no legal action
    visits: np.ndarray  # int32 [B, N, W]
    total: np.ndarray  # float64 [B, N, W]: sum of returns through the edge, as the node's player sees them
    child: np.ndarray  # int32 [B, N, W]: -1 before the first visit
    inflight: np.ndarray  # int32 [B, N, W]: visits under way (virtual losses)
    size: np.ndarray  # int32 [B]: nodes in use
    low: np.ndarray  # float64 [B]: the least and the greatest edge mean, for min-max Q; -1 and 1 for two players
    high: np.ndarray  # float64 [B]


class Steps(NamedTuple):
    """Edges that were walked for the first time; the world makes the states behind them. All int64 `[m]`."""

    at: np.ndarray  # which of the walks it was
    slots: np.ndarray
    parents: np.ndarray
    edges: np.ndarray
    nodes: np.ndarray


class Leaves(NamedTuple):
    """What L walks led to, and the n positions among it that are to be evaluated."""

    opens: np.ndarray  # bool [L]: evaluated and expanded
    rows: np.ndarray  # int64 [L]: which position that is; -1 for the others
    slots: np.ndarray  # int64 [n]
    nodes: np.ndarray  # int64 [n]
    legal: np.ndarray  # bool [n, W]
    to_play: np.ndarray  # int8 [n]


def allocate(slots: int, nodes: int, width: int, players: int) -> Tree:
    """Empty trees, with an unevaluated root each."""
    tree = _blank(slots, nodes, width)
    clear(tree, np.arange(slots), players)
    return tree


def _blank(slots: int, nodes: int, width: int) -> Tree:
    per_node, per_edge = np.empty((slots, nodes), _NODE), np.empty((slots, nodes, width), _EDGE)
    arrays = {name: per_node[name] for name in _NODE.names or ()} | {name: per_edge[name] for name in _EDGE.names or ()}
    arrays |= {"inflight": np.empty((slots, nodes, width), np.int32), "size": np.empty(slots, np.int32)}
    arrays |= {"low": np.empty(slots), "high": np.empty(slots)}
    for name, array in arrays.items():
        array[...] = _FILL.get(name, 0)
    return Tree(**arrays)


def clear(tree: Tree, slots: np.ndarray, players: int, returns: tuple[float, float] | None = None) -> None:
    """The trees of these slots become an unevaluated root alone. `returns` are the least and the greatest of a world of
    one player; None where its trees have to find out."""
    used = int(tree.size[slots].max(initial=0))
    for name, array in tree._asdict().items():
        if name not in _PER_SLOT:
            array[slots, :used] = _FILL.get(name, 0)
    tree.kind[slots, 0] = PENDING
    tree.size[slots] = 1
    unknown = (-1.0, 1.0) if players == 2 else (np.inf, -np.inf)
    tree.low[slots], tree.high[slots] = unknown if returns is None else returns


def flat(tree: Tree) -> Tree:
    """The same arrays, seen as `[B * N]` and `[B * N, W]`; `size`, `low` and `high` as they are."""
    rows, width = tree.kind.size, tree.prior.shape[2]
    wide = (rows, width)
    return Tree(
        tree.kind.reshape(rows), tree.to_play.reshape(rows), tree.parent.reshape(rows), tree.edge.reshape(rows),
        tree.reward.reshape(rows), tree.value.reshape(rows), tree.node_visits.reshape(rows), tree.prior.reshape(wide),
        tree.visits.reshape(wide), tree.total.reshape(wide), tree.child.reshape(wide), tree.inflight.reshape(wide),
        tree.size, tree.low, tree.high,
    )  # fmt: skip


def grow(tree: Tree, nodes: int, width: int) -> Tree:
    """The same trees with room for more."""

    slots, rows, edges = tree.prior.shape
    wide = _blank(slots, max(nodes, rows), max(width, edges))
    for old, new in zip(tree, wide, strict=True):
        new[tuple(slice(0, n) for n in old.shape)] = old
    return wide


def keep_subtree(tree: Tree, slot: int, edge: int) -> np.ndarray:
    """Makes the child behind a root's edge the root of its slot; the rest is forgotten.

    Returns the old numbers of the nodes kept, in order: entry i is now node i. Empty where the child was never
    evaluated: the tree is then what it was, and the caller clears it.
    """
    root = int(tree.child[slot, 0, edge])
    if root < 0 or tree.kind[slot, root] not in (DECISION, CHANCE):
        return np.zeros(0, dtype=np.int64)
    size = int(tree.size[slot])
    number = np.full(size, -1, dtype=np.int32)
    number[root] = 0
    parents, kept = tree.parent[slot], [root]
    for node in range(root + 1, size):  # parents come before their children
        if number[parents[node]] >= 0:
            number[node] = len(kept)
            kept.append(node)
    old = np.array(kept)
    for name, array in tree._asdict().items():
        if name not in _PER_SLOT:
            array[slot, : len(old)] = array[slot, old]
            array[slot, len(old) : size] = _FILL.get(name, 0)
    children = tree.child[slot, : len(old)]
    children[children >= 0] = number[children[children >= 0]]
    above = tree.parent[slot, : len(old)]
    above[1:] = number[above[1:]]
    above[0] = tree.edge[slot, 0] = -1
    tree.reward[slot, 0] = 0.0
    tree.size[slot] = len(old)
    return old
