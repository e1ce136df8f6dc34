"""Rows that share a prefix, computed once.

The eight answers of a group repeat their prompt eight times; a forward pass over the rows computes it eight times. Here
rows are merged into a trie, each trie is laid out as one sequence whose attention mask lets every node see its
ancestors only, and positions are depths. Log-probs and gradients are those of the plain rows (up to rounding): the tree
is how they are computed, not what is computed.

Legend: B rows, T columns, G trees, L nodes of the largest tree.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

__all__ = ["MAX_NODES", "TreeLayout", "partition", "tree_layout"]

MAX_NODES = 192
"""A tree closes at this size: attention is quadratic in the nodes, and a small model pays for it soon."""

_MIN_SHARE = 0.25
"""A row joins a tree when it shares at least this part of itself: less saves little and widens the attention."""


@dataclass(frozen=True, slots=True)
class TreeLayout:
    """The tries of some rows, side by side."""

    input_ids: Tensor  # long [G, L]
    position_ids: Tensor  # long [G, L]: depth in the trie
    attention_mask: Tensor  # bool [G, 1, L, L]: node i sees node j
    row: Tensor  # long [N]: row of each sampled token
    column: Tensor  # long [N]: column of each sampled token
    before: Tensor  # long [N]: flat index (tree * L + node) of the node before it, whose hidden state predicts it

    def to(self, device: torch.device) -> TreeLayout:
        return TreeLayout(*(getattr(self, name).to(device) for name in self.__slots__))


def tree_layout(ids: Tensor, mask: Tensor, lengths: Sequence[int], *, share: bool = True, max_nodes: int = MAX_NODES) -> TreeLayout:
    """Lays out rows `ids [B, T]` for the tokens where `mask [B, T]` is 1 (never in column 0).

    `share=False` makes every row a tree of its own, for models that take no custom mask or for very long rows.
    """
    table, sampled = ids.cpu().numpy(), mask.cpu().numpy()
    # A row is computed up to the token before its last sampled one: nothing after it predicts anything.
    needed = [max(1, int(np.flatnonzero(sampled[i]).max(initial=0))) for i in range(len(lengths))]
    trees = _grow(table, [min(n, m) for n, m in zip(lengths, needed, strict=True)], share, max_nodes)
    width = max(len(tree.tokens) for tree in trees)
    shape = (len(trees), width)
    tokens, depth = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    sees = np.zeros((*shape, width), bool)
    sees[:, np.arange(width), np.arange(width)] = True  # a padded node sees itself: an empty row of scores gives NaN
    paths: dict[int, tuple[int, np.ndarray]] = {}
    for g, tree in enumerate(trees):
        tokens[g, : len(tree.tokens)] = tree.tokens
        depth[g, : len(tree.depth)] = tree.depth
        for row, path in tree.paths:
            nodes = np.asarray(path)
            sees[g, nodes[:, None], nodes[None, :]] |= np.tri(len(nodes), dtype=bool)
            paths[row] = (g * width, nodes)
    rows, columns = np.nonzero(sampled)
    before = np.empty(len(rows), np.int64)
    for row in np.unique(rows):
        offset, nodes = paths[int(row)]
        chosen = rows == row
        before[chosen] = offset + nodes[columns[chosen] - 1]
    device = ids.device
    parts = (tokens, depth, sees[:, None], rows, columns, before)
    return TreeLayout(*(torch.from_numpy(part).to(device) for part in parts))


class _Tree:
    """One trie in insertion order, so that ancestors come first."""

    __slots__ = ("children", "depth", "paths", "tokens")

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.depth: list[int] = []
        self.children: dict[tuple[int, int], int] = {}
        self.paths: list[tuple[int, list[int]]] = []

    def insert(self, row: int, ids: list[int]) -> None:
        node, path = -1, []
        for level, token in enumerate(ids):
            child = self.children.get((node, token))
            if child is None:
                child = len(self.tokens)
                self.children[node, token] = child
                self.tokens.append(token)
                self.depth.append(level)
            path.append(child)
            node = child
        self.paths.append((row, path))


def _grow(table: np.ndarray, lengths: Sequence[int], share: bool, max_nodes: int) -> list[_Tree]:
    rows = [table[i, :n].tolist() for i, n in enumerate(lengths)]
    trees = []
    for members, _ in _clusters(rows, share, max_nodes):
        tree = _Tree()
        for i in members:
            tree.insert(i, rows[i])
        trees.append(tree)
    return trees


def _clusters(rows: Sequence[list[int]], share: bool, max_nodes: int) -> list[tuple[list[int], int]]:
    """Rows that share a prefix worth sharing, each cluster with the number of its nodes.

    In lexicographic order the longest prefix that a row shares with any other is the one it shares with a neighbour.
    """
    clusters: list[tuple[list[int], int]] = []
    previous: list[int] = []
    for i in sorted(range(len(rows)), key=lambda i: rows[i]):
        row = rows[i]
        shared = _common(previous, row) if share else 0
        if clusters and shared >= max(1, _MIN_SHARE * len(row)) and clusters[-1][1] + len(row) - shared <= max_nodes:
            members, nodes = clusters[-1]
            members.append(i)
            clusters[-1] = (members, nodes + len(row) - shared)
        else:
            clusters.append(([i], len(row)))
        previous = row
    return clusters


def _common(a: list[int], b: list[int]) -> int:
    n = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        n += 1
    return n


def partition(
    ids: Tensor, lengths: Sequence[int], budget: int, *, share: bool = True, max_nodes: int = MAX_NODES
) -> Iterator[list[int]]:
    """Micro-batches of row indices, at most `budget` padded nodes each (a single tree may be larger).

    Rows that share a prefix stay together, and trees of like size meet, so that little is padded.
    """
    table = ids.cpu().numpy()
    clusters = _clusters([table[i, :n].tolist() for i, n in enumerate(lengths)], share, max_nodes)
    part: list[int] = []
    trees = 0
    for members, nodes in sorted(clusters, key=lambda cluster: cluster[1]):  # ascending: the newest is the widest
        if part and (trees + 1) * nodes > budget:
            yield part
            part, trees = [], 0
        part += members
        trees += 1
    if part:
        yield part
