"""The kernels in NumPy, one wave at a time over all slots: always there, and the measure of the compiled ones.

Sums over edges run from the first edge to the last, as a loop would (`_sum`): NumPy's own reductions add in another
order, and the compiled kernels must find the same bits.
"""

from __future__ import annotations

import numpy as np

from troupe.search.rule import TINY, Rule, exp
from troupe.search.tree import CHANCE, DECISION, PENDING, Tree

__all__ = ["select", "update"]


def select(
    tree: Tree,
    rule: Rule,
    slots: np.ndarray,
    starts: np.ndarray,
    root_scores: np.ndarray,
    considered: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Walks down from `starts` (one node per slot, slots all different) to a leaf each: (nodes, fresh), both `[n]`.

    A leaf is a new node, a node that waits for its evaluation, or the end of the game; `fresh` marks those that nobody
    has reached before. `root_scores` `[B, W]` is gumbel + logit and `considered` `[B]` the visit count at which
    sequential halving looks next (Gumbel alone).
    """
    nodes = starts.astype(np.int64)
    fresh = tree.kind[slots, nodes] == PENDING
    active = np.flatnonzero(~fresh)
    while len(active):
        s, p = slots[active], nodes[active]
        edges = _choose(tree, rule, s, p, root_scores, considered)
        if rule.virtual:
            tree.inflight[s, p, edges] += 1
        children = tree.child[s, p, edges].astype(np.int64)
        new = children < 0
        if new.any():
            children[new] = _add(tree, s[new], p[new], edges[new])
            fresh[active[new]] = True
        nodes[active] = children
        kind = tree.kind[s, children]
        active = active[(kind == DECISION) | (kind == CHANCE)]
    return nodes, fresh


def _add(tree: Tree, slots: np.ndarray, parents: np.ndarray, edges: np.ndarray) -> np.ndarray:
    nodes = tree.size[slots].astype(np.int64)
    tree.size[slots] += 1
    tree.child[slots, parents, edges] = nodes
    tree.parent[slots, nodes] = parents
    tree.edge[slots, nodes] = edges
    tree.kind[slots, nodes] = PENDING
    return nodes


def update(
    tree: Tree,
    rule: Rule,
    slots: np.ndarray,
    nodes: np.ndarray,
    rows: np.ndarray,
    priors: np.ndarray,
    values: np.ndarray,
) -> None:
    """Expands the leaves that have a row in `priors` (-1: none), and adds `values` along every path to the root.

    Slots are all different. Values are those of the player to move in the leaf.
    """
    new = rows >= 0
    tree.prior[slots[new], nodes[new], : priors.shape[1]] = priors[rows[new]]
    tree.kind[slots[new], nodes[new]] = DECISION
    tree.value[slots[new], nodes[new]] = values[new]
    s, n, g = slots, nodes.astype(np.int64), values
    tree.node_visits[s, n] += 1
    while True:
        inside = n > 0
        if not inside.all():
            s, n, g = s[inside], n[inside], g[inside]
        if not len(s):
            return
        p, e = tree.parent[s, n].astype(np.int64), tree.edge[s, n]
        sign = np.where(tree.to_play[s, n] == tree.to_play[s, p], 1.0, -1.0)
        g = tree.reward[s, n] + rule.discount * (sign * g)
        tree.visits[s, p, e] += 1
        tree.total[s, p, e] += g
        tree.node_visits[s, p] += 1
        if rule.virtual:
            tree.inflight[s, p, e] -= 1
        if rule.single:
            mean = tree.total[s, p, e] / tree.visits[s, p, e]
            tree.low[s] = np.minimum(tree.low[s], mean)
            tree.high[s] = np.maximum(tree.high[s], mean)
        n = p


def _choose(
    tree: Tree, rule: Rule, s: np.ndarray, p: np.ndarray, root_scores: np.ndarray, considered: np.ndarray
) -> np.ndarray:
    chance = tree.kind[s, p] == CHANCE
    if chance.any():
        edges = np.empty(len(s), dtype=np.int64)
        edges[chance] = _outcome(tree, s[chance], p[chance])
        decided = ~chance
        if decided.any():
            edges[decided] = _choose(tree, rule, s[decided], p[decided], root_scores, considered)
        return edges
    if not rule.gumbel:
        return _puct(tree, rule, s, p)
    score = _gumbel(tree, rule, s, p)
    root = p == 0
    if root.any():
        score[root] = _halving(tree, rule, s[root], p[root], root_scores, considered)
    return score.argmax(1)


def _outcome(tree: Tree, s: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The outcome that lags furthest behind its probability: n p_o - n_o is largest, n this visit included."""
    n = tree.visits[s, p] + tree.inflight[s, p]
    return ((n.sum(1) + 1)[:, None] * tree.prior[s, p] - n).argmax(1)


def _counts(tree: Tree, rule: Rule, s: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(visits, mean returns) of the edges; visits under way count as the worst return there is."""
    n, total = tree.visits[s, p], tree.total[s, p]
    if rule.virtual:
        flying = tree.inflight[s, p]
        low = tree.low[s]
        total = total + flying * np.where(np.isfinite(low), low, 0.0)[:, None]
        n = n + flying
    return n, total / np.maximum(n, 1)


def _normalised(tree: Tree, rule: Rule, s: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Between 0 and 1 by the tree's own range (Schrittwieser et al. 2020, appendix B); 0 where it has none yet."""
    low, high = tree.low[s][:, None], tree.high[s][:, None]
    known = high > low
    span = np.where(known, high - low, 1.0)
    return np.where(known, np.minimum(np.maximum((q - np.where(known, low, 0.0)) / span, 0.0), 1.0), 0.0)


def _puct(tree: Tree, rule: Rule, s: np.ndarray, p: np.ndarray) -> np.ndarray:
    """argmax of Q + c P sqrt(N) / (1 + n) (Silver et al. 2018); N counts the node's own evaluation."""
    n, q = _counts(tree, rule, s, p)
    here = tree.node_visits[s, p]
    if rule.virtual:
        here = here + tree.inflight[s, p].sum(1)
    unvisited = n == 0
    if rule.single:
        q = _normalised(tree, rule, s, q)
    if rule.fpu_parent:
        own = tree.node_visits[s, p] - tree.visits[s, p].sum(1)  # more than 1 where one wave reached it several times
        mean = ((own * tree.value[s, p] + _sum(tree.total[s, p])) / tree.node_visits[s, p])[:, None]
        mean = _normalised(tree, rule, s, mean) if rule.single else mean
        q = np.where(unvisited, mean - rule.fpu_reduction, q)
    else:
        q = np.where(unvisited, 0.0, q)
    return (q + ((rule.c_puct * np.sqrt(here))[:, None] * tree.prior[s, p]) / (1 + n)).argmax(1)


def _sigma(tree: Tree, rule: Rule, s: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(visits, priors, sigma(completed Q)) of the edges (Danihelka et al. 2022, equations 8 and 33).

    Unvisited actions get the mixed value: the node's evaluation, and the visited actions' Q weighted by their priors.
    """
    n, q = _counts(tree, rule, s, p)
    raw = tree.prior[s, p]
    prior = np.where(np.isneginf(raw), 0.0, np.maximum(raw, TINY))
    visited = n > 0
    weight = np.where(visited, prior, 0.0)
    known, sum_n = _sum(weight), n.sum(1)
    weighted = _sum(weight * q) / np.where(known > 0, known, 1.0)
    value = tree.value[s, p]
    mixed = np.where(sum_n > 0, (value + sum_n * weighted) / (sum_n + 1), value)
    completed = np.where(visited, q, mixed[:, None])
    if rule.single:
        completed = _normalised(tree, rule, s, completed)
    else:
        completed = np.minimum(np.maximum((completed + 1.0) * 0.5, 0.0), 1.0)
    scale = (rule.c_visit + n.max(1)) * rule.c_scale
    return n, prior, scale[:, None] * completed


def _gumbel(tree: Tree, rule: Rule, s: np.ndarray, p: np.ndarray) -> np.ndarray:
    """pi'(a) - n(a) / (1 + sum n), pi' the improved policy (Danihelka et al. 2022, equation 14)."""
    n, prior, sigma = _sigma(tree, rule, s, p)
    illegal = prior == 0
    top = np.where(illegal, -np.inf, sigma).max(1)
    weight = np.where(illegal, 0.0, prior * exp(np.where(illegal, 0.0, sigma - top[:, None])))
    return np.where(illegal, -np.inf, weight / _sum(weight)[:, None] - n / (1 + n.sum(1))[:, None])


def _halving(
    tree: Tree, rule: Rule, s: np.ndarray, p: np.ndarray, root_scores: np.ndarray, considered: np.ndarray
) -> np.ndarray:
    """gumbel + logit + sigma(Q) of the actions that were visited as often as sequential halving asks for."""
    n, prior, sigma = _sigma(tree, rule, s, p)
    eligible = (n == considered[s][:, None]) & (prior > 0)
    return np.where(eligible, root_scores[s] + sigma, -np.inf)


def _sum(x: np.ndarray) -> np.ndarray:
    """Row sums, added from left to right."""
    return np.add.accumulate(x, axis=1)[:, -1]
