"""The kernels in NumPy, one wave at a time over all slots: always there, and the measure of the compiled ones.

Inside, the trees lie flat: node n of slot b is row b * N + n, and one index is looked up twice as fast as two. Sums
over edges run from the first edge to the last, as a loop would (`_sum`): NumPy's own reductions add in another order,
and the compiled kernels must find the same bits.
"""

from __future__ import annotations

import numpy as np

from troupe.search.rule import TINY, Rule, exp
from troupe.search.tree import CHANCE, DECISION, PENDING, TERMINAL, Leaves, Steps, Tree, flat

__all__ = ["arrive", "gather", "select", "update"]

_GOES_ON = np.isin(np.arange(5), (DECISION, CHANCE))
"""By the kind of a node: whether a walk goes on from there."""


def select(
    tree: Tree,
    rule: Rule,
    slots: np.ndarray,
    starts: np.ndarray,
    root_scores: np.ndarray,
    considered: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, Steps]:
    """Walks down from `starts` (one node per slot, slots all different) to a leaf each: (nodes `[n]`, fresh `[n]`, the
    steps that make the new ones).

    A leaf is a new node, a node that waits for its evaluation, or the end of the game; `fresh` marks those that nobody
    has reached before. `root_scores` `[B, W]` is gumbel + logit and `considered` `[B]` the visit count at which
    sequential halving looks next (Gumbel alone).
    """
    first = slots * tree.kind.shape[1]
    tree = flat(tree)
    nodes = starts.astype(np.int64)
    kind = tree.kind[first + nodes]
    fresh = kind == PENDING
    active = _GOES_ON[kind].nonzero()[0]
    while len(active):
        s, top, p = slots[active], first[active], nodes[active]
        at = top + p
        edges = _choose(tree, rule, s, p, at, root_scores, considered)
        if rule.virtual:
            tree.inflight[at, edges] += 1
        children = tree.child[at, edges]
        new = children < 0
        if new.any():
            children[new] = _add(tree, s[new], top[new], p[new], edges[new])
            fresh[active[new]] = True
        nodes[active] = children
        active = active[_GOES_ON[tree.kind[top + children]]]
    made = (fresh & (nodes > 0)).nonzero()[0]
    at = first[made] + nodes[made]
    steps = Steps(made, slots[made], tree.parent[at].astype(np.int64), tree.edge[at].astype(np.int64), nodes[made])
    return nodes, fresh, steps


def _add(tree: Tree, slots: np.ndarray, first: np.ndarray, parents: np.ndarray, edges: np.ndarray) -> np.ndarray:
    nodes = tree.size[slots].astype(np.int64)
    tree.size[slots] += 1
    tree.child[first + parents, edges] = nodes
    at = first + nodes
    tree.parent[at] = parents
    tree.edge[at] = edges
    tree.kind[at] = PENDING
    return nodes


def arrive(
    tree: Tree,
    slots: np.ndarray,
    nodes: np.ndarray,
    reward: np.ndarray,
    done: np.ndarray,
    to_play: np.ndarray,
    legal: np.ndarray,
) -> None:
    """Notes what the steps into these nodes led to. `legal` bool `[n, W]` waits in the priors for the evaluation: -inf
    where nothing is legal, 0 elsewhere."""
    tree.reward[slots, nodes] = reward
    tree.to_play[slots, nodes] = to_play
    if done.any():
        tree.kind[slots[done], nodes[done]] = TERMINAL
    tree.prior[slots, nodes, : legal.shape[1]] = np.where(legal, 0.0, -np.inf)


def gather(tree: Tree, slots: np.ndarray, nodes: np.ndarray, fresh: np.ndarray, width: int) -> Leaves:
    """Which of these leaves are to be evaluated: those that are fresh and not the end of the game."""
    opens = fresh & (tree.kind[slots, nodes] == PENDING)
    rows = np.where(opens, opens.cumsum() - 1, -1)
    s, n = slots[opens], nodes[opens]
    return Leaves(opens, rows, s, n, tree.prior[s, n, :width] == 0.0, tree.to_play[s, n])


def update(
    tree: Tree,
    rule: Rule,
    slots: np.ndarray,
    nodes: np.ndarray,
    rows: np.ndarray,
    opens: np.ndarray,
    groups: tuple[int, ...],
    priors: np.ndarray,
    legal: np.ndarray,
    values: np.ndarray,
) -> None:
    """Expands the leaves that are marked in `opens`, and adds a value along every path to the root.

        G(edge into n) = r_n + gamma_n * sign * G(n),    gamma_n = 1 where chance decides in n, else the discount

    So gamma counts decisions: what chance pays after a move belongs to it, Q(s, a) = r + E[r' + gamma V(s')]. Leaf i
    has the prior and value of row `rows[i]`, or the value 0 where that is -1. No slot occurs twice between two ends in
    `groups`. Values are those of the player to move in the leaf.
    """
    first = slots * tree.kind.shape[1]
    tree = flat(tree)
    got = np.zeros(len(rows))
    valued = (rows >= 0).nonzero()[0]
    got[valued] = values[rows[valued]]
    new = opens.nonzero()[0]
    masked, begin = np.where(legal, priors, -np.inf), 0
    for end in groups:
        part = new if len(groups) == 1 else new[(new >= begin) & (new < end)]
        at = first[part] + nodes[part]
        tree.prior[at, : priors.shape[1]] = masked[rows[part]]
        tree.kind[at] = DECISION
        tree.value[at] = got[part]
        _back_up(tree, rule, slots[begin:end], first[begin:end], nodes[begin:end], got[begin:end])
        begin = end


def _back_up(tree: Tree, rule: Rule, s: np.ndarray, first: np.ndarray, n: np.ndarray, g: np.ndarray) -> None:
    at, width = first + n, tree.prior.shape[1]
    visits, total = tree.visits.reshape(-1), tree.total.reshape(-1)
    tree.node_visits[at] += 1
    player = tree.to_play[at]
    while True:
        if not n.all():
            inside = n > 0
            s, first, n, g = s[inside], first[inside], n[inside], g[inside]
            at, player = at[inside], player[inside]
        if not len(s):
            return
        p, e = tree.parent[at], tree.edge[at]
        above = first + p
        through = above * width + e
        mover = tree.to_play[above]
        g = np.where(player == mover, g, -g)
        if rule.discount < 1.0:
            g = np.where(tree.kind[at] == CHANCE, 1.0, rule.discount) * g
        g = tree.reward[at] + g
        visits[through] += 1
        total[through] += g
        tree.node_visits[above] += 1
        if rule.virtual:
            tree.inflight[above, e] -= 1
        if rule.single:
            mean = total[through] / visits[through]
            tree.low[s] = np.minimum(tree.low[s], mean)
            tree.high[s] = np.maximum(tree.high[s], mean)
        n, at, player = p, above, mover


def _choose(
    tree: Tree,
    rule: Rule,
    s: np.ndarray,
    p: np.ndarray,
    at: np.ndarray,
    root_scores: np.ndarray,
    considered: np.ndarray,
) -> np.ndarray:
    chance = tree.kind[at] == CHANCE
    if chance.any():
        edges = np.empty(len(s), dtype=np.int64)
        edges[chance] = _outcome(tree, at[chance])
        decided = ~chance
        if decided.any():
            edges[decided] = _choose(tree, rule, s[decided], p[decided], at[decided], root_scores, considered)
        return edges
    if not rule.gumbel:
        return _puct(tree, rule, s, at)
    score = _gumbel(tree, rule, s, at)
    root = p == 0
    if root.any():
        score[root] = _halving(tree, rule, s[root], at[root], root_scores, considered)
    return score.argmax(1)


def _outcome(tree: Tree, at: np.ndarray) -> np.ndarray:
    """The outcome that lags furthest behind its probability: n p_o - n_o is largest, n this visit included."""
    n = tree.visits[at] + tree.inflight[at]
    return ((n.sum(1) + 1)[:, None] * tree.prior[at] - n).argmax(1)


def _counts(tree: Tree, rule: Rule, s: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(visits, mean returns) of the edges; visits under way count as the worst return there is."""
    n, total = tree.visits[at], tree.total[at]
    if rule.virtual:
        flying = tree.inflight[at]
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


def _puct(tree: Tree, rule: Rule, s: np.ndarray, at: np.ndarray) -> np.ndarray:
    """argmax of Q + c P sqrt(N) / (1 + n) (Silver et al. 2018); N counts the node's own evaluation."""
    n, q = _counts(tree, rule, s, at)
    here = tree.node_visits[at]
    if rule.virtual:
        here = here + tree.inflight[at].sum(1)
    if rule.single:
        q = _normalised(tree, rule, s, q)
    if rule.fpu_parent:
        own = tree.node_visits[at] - tree.visits[at].sum(1)  # more than 1 where one wave reached it several times
        mean = ((own * tree.value[at] + _sum(tree.total[at])) / tree.node_visits[at])[:, None]
        mean = _normalised(tree, rule, s, mean) if rule.single else mean
        q = np.where(n == 0, mean - rule.fpu_reduction, q)
    elif rule.single:  # with two players the mean of no returns is 0 as it stands
        q = np.where(n == 0, 0.0, q)
    return (q + ((rule.c_puct * np.sqrt(here))[:, None] * tree.prior[at]) / (1 + n)).argmax(1)


def _sigma(tree: Tree, rule: Rule, s: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(visits, priors, sigma(completed Q)) of the edges (Danihelka et al. 2022, equations 8 and 33).

    Unvisited actions get the mixed value: the node's evaluation, and the visited actions' Q weighted by their priors.
    """
    n, q = _counts(tree, rule, s, at)
    raw = tree.prior[at]
    prior = np.where(np.isneginf(raw), 0.0, np.maximum(raw, TINY))
    visited = n > 0
    weight = np.where(visited, prior, 0.0)
    known, sum_n = _sum(weight), n.sum(1)
    weighted = _sum(weight * q) / np.where(known > 0, known, 1.0)
    value = tree.value[at]
    mixed = np.where(sum_n > 0, (value + sum_n * weighted) / (sum_n + 1), value)
    completed = np.where(visited, q, mixed[:, None])
    if rule.single:
        completed = _normalised(tree, rule, s, completed)
    else:
        completed = np.minimum(np.maximum((completed + 1.0) * 0.5, 0.0), 1.0)
    scale = (rule.c_visit + n.max(1)) * rule.c_scale
    return n, prior, scale[:, None] * completed


def _gumbel(tree: Tree, rule: Rule, s: np.ndarray, at: np.ndarray) -> np.ndarray:
    """pi'(a) - n(a) / (1 + sum n), pi' the improved policy (Danihelka et al. 2022, equation 14)."""
    n, prior, sigma = _sigma(tree, rule, s, at)
    illegal = prior == 0
    top = np.where(illegal, -np.inf, sigma).max(1)
    weight = np.where(illegal, 0.0, prior * exp(np.where(illegal, 0.0, sigma - top[:, None])))
    return np.where(illegal, -np.inf, weight / _sum(weight)[:, None] - n / (1 + n.sum(1))[:, None])


def _halving(
    tree: Tree, rule: Rule, s: np.ndarray, at: np.ndarray, root_scores: np.ndarray, considered: np.ndarray
) -> np.ndarray:
    """gumbel + logit + sigma(Q) of the actions that were visited as often as sequential halving asks for."""
    n, prior, sigma = _sigma(tree, rule, s, at)
    eligible = (n == considered[s][:, None]) & (prior > 0)
    return np.where(eligible, root_scores[s] + sigma, -np.inf)


def _sum(x: np.ndarray) -> np.ndarray:
    """Row sums, added from left to right."""
    return np.add.accumulate(x, axis=1)[:, -1]
