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


def tree_layout(
    ids: Tensor, mask: Tensor, lengths: Sequence[int], *, share: bool = True, max_nodes: int = MAX_NODES
) -> TreeLayout:
    """Lays out rows `ids [B, T]` for the tokens where `mask [B, T]` is 1 (never in column 0).

    `share=False` makes every row a tree of its own, for models that take no custom mask or for very long rows.
    """
    table, sampled = ids.cpu().numpy(), mask.cpu().numpy() > 0
    # A row is computed up to the token before its last sampled one: nothing after it predicts anything.
    last = np.where(sampled, np.arange(table.shape[1]), 0).max(1)
    needed = np.minimum(np.asarray(lengths), np.maximum(last, 1))
    clusters = _clusters(table, needed, share, max_nodes)
    width = max(cluster.nodes for cluster in clusters)
    shape = (len(clusters), width)
    tokens, depth = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    sees = np.zeros((*shape, width), bool)
    sees[:, np.arange(width), np.arange(width)] = True  # a padded node sees itself: an empty row of scores gives NaN
    node = np.zeros(table.shape, np.int64)  # flat index of each token's node
    below = np.tri(width, dtype=bool)
    for g, cluster in enumerate(clusters):
        path, end = np.empty(0, np.int64), 0
        for row, shared in zip(cluster.members, cluster.shared, strict=True):
            new = slice(end, end + needed[row] - shared)  # the row's own nodes; the others are its predecessor's
            tokens[g, new] = table[row, shared : needed[row]]
            depth[g, new] = np.arange(shared, needed[row])
            sees[g, new, new] = below[: new.stop - end, : new.stop - end]
            path = path[:shared]
            sees[g][new, path] = True
            path = np.concatenate([path, np.arange(end, new.stop)])
            node[row, : needed[row]] = g * width + path
            end = new.stop
    rows, columns = np.nonzero(sampled)
    parts = (tokens, depth, sees[:, None], rows, columns, node[rows, columns - 1])
    return TreeLayout(*(torch.from_numpy(part).to(ids.device) for part in parts))


@dataclass(slots=True)
class _Cluster:
    """Rows of one tree in lexicographic order, and how many tokens each shares with the one before it."""

    members: list[int]
    shared: list[int]
    nodes: int


def _clusters(table: np.ndarray, lengths: np.ndarray, share: bool, max_nodes: int) -> list[_Cluster]:
    """Rows that share a prefix worth sharing.

    In lexicographic order the longest prefix that a row shares with any earlier one is that of its predecessor.
    """
    rows = [row[:n] for row, n in zip(table.tolist(), lengths.tolist(), strict=True)]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    common = _common(table[order], lengths[order]) if share else [0] * len(order)
    clusters: list[_Cluster] = []
    for i, shared in zip(order, common, strict=True):
        size = len(rows[i])
        own = size - shared
        if clusters and shared >= max(1, _MIN_SHARE * size) and clusters[-1].nodes + own <= max_nodes:
            clusters[-1].members.append(i)
            clusters[-1].shared.append(shared)
            clusters[-1].nodes += own
        else:
            clusters.append(_Cluster([i], [0], size))
    return clusters


def _common(table: np.ndarray, lengths: np.ndarray) -> list[int]:
    """How many tokens each row shares with the row before it; 0 for the first."""
    same = np.zeros((len(table), table.shape[1] + 1), bool)
    same[1:, :-1] = table[1:] == table[:-1]
    until_difference = (~same).argmax(1)  # the last column never agrees
    return np.minimum(until_difference, np.minimum(lengths, np.roll(lengths, 1))).tolist()


def partition(
    ids: Tensor, lengths: Sequence[int], budget: int, *, share: bool = True, max_nodes: int = MAX_NODES
) -> Iterator[list[int]]:
    """Micro-batches of row indices, at most `budget` padded nodes each (a single tree may be larger).

    Rows that share a prefix stay together, and trees of like size meet, so that little is padded.
    """
    clusters = _clusters(ids.cpu().numpy(), np.asarray(lengths), share, max_nodes)
    part: list[int] = []
    trees = 0
    for cluster in sorted(clusters, key=lambda cluster: cluster.nodes):  # ascending: the newest is the widest
        if part and (trees + 1) * cluster.nodes > budget:
            yield part
            part, trees = [], 0
        part += cluster.members
        trees += 1
    if part:
        yield part
