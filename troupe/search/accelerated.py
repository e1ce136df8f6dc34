"""The kernels compiled by numba (extra `accel`); imported only where they are asked for.

Line for line the arithmetic of `reference.py`: no fast-math, sums from the first edge to the last, the lowest index of
equals. Both leave the same bits in a tree, which `tests/search/test_kernels.py` compares. Arrays are passed one by one:
a tuple of them handed to an inner function costs a reference count for each, more than the walk itself.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from troupe.search.rule import LN2_HIGH, LN2_LOW, LOG2_E, POWERS, TAYLOR, TINY, Rule
from troupe.search.tree import CHANCE, DECISION, PENDING, TERMINAL, Leaves, Steps, Tree

__all__ = ["arrive", "back_up", "descend", "gather", "select", "update"]

_compiled: Any = njit(cache=True, error_model="numpy")


def select(
    tree: Tree, rule: Rule, slots: np.ndarray, starts: np.ndarray, root_scores: np.ndarray, considered: np.ndarray
) -> tuple[np.ndarray, np.ndarray, Steps]:
    """As `reference.select`."""
    n = len(slots)
    nodes, fresh, steps = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.bool_), np.empty((5, n), dtype=np.int64)
    made = _select(
        tree.kind, tree.parent, tree.edge, tree.value, tree.node_visits, tree.prior, tree.visits, tree.total,
        tree.child, tree.inflight, tree.size, tree.low, tree.high, rule, slots, starts, root_scores, considered, nodes,
        fresh, steps,
    )  # fmt: skip
    return nodes, fresh, Steps(*steps[:, :made])


def arrive(
    tree: Tree,
    slots: np.ndarray,
    nodes: np.ndarray,
    reward: np.ndarray,
    done: np.ndarray,
    to_play: np.ndarray,
    legal: np.ndarray,
) -> None:
    """As `reference.arrive`."""
    _arrive(tree.kind, tree.to_play, tree.reward, tree.prior, slots, nodes, reward, done, to_play, legal)


def gather(tree: Tree, slots: np.ndarray, nodes: np.ndarray, fresh: np.ndarray, width: int) -> Leaves:
    """As `reference.gather`."""
    n = len(slots)
    opens, rows, where = np.empty(n, dtype=np.bool_), np.empty(n, dtype=np.int64), np.empty((2, n), dtype=np.int64)
    legal, to_play = np.empty((n, width), dtype=np.bool_), np.empty(n, dtype=np.int8)
    k = _gather(tree.kind, tree.to_play, tree.prior, slots, nodes, fresh, opens, rows, where, legal, to_play)
    return Leaves(opens, rows, where[0, :k], where[1, :k], legal[:k], to_play[:k])


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
    """As `reference.update`; `groups` do not matter to a loop."""
    _update(
        tree.kind, tree.to_play, tree.parent, tree.edge, tree.reward, tree.value, tree.node_visits, tree.prior,
        tree.visits, tree.total, tree.inflight, tree.low, tree.high, rule, slots, nodes, rows, opens, priors, legal,
        values,
    )  # fmt: skip


@_compiled
def _exp(x):  # type: ignore[no-untyped-def]
    x = max(x, -708.0)
    k = math.floor(x * LOG2_E + 0.5)
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    result = TAYLOR[0]
    for i in range(1, len(TAYLOR)):
        result = result * r + TAYLOR[i]
    return result * POWERS[int(-k)]


@_compiled
def _normalised(q, low, high):  # type: ignore[no-untyped-def]
    if not high > low:
        return 0.0
    return min(max((q - low) / (high - low), 0.0), 1.0)


@_compiled
def _outcome(prior, visits, inflight, b, p):  # type: ignore[no-untyped-def]
    width = prior.shape[2]
    here = 1
    for e in range(width):
        here += visits[b, p, e] + inflight[b, p, e]
    best, best_score = 0, -np.inf
    for e in range(width):
        if prior[b, p, e] == -np.inf:
            continue
        score = here * prior[b, p, e] - (visits[b, p, e] + inflight[b, p, e])
        if score > best_score:
            best, best_score = e, score
    return best


@_compiled
def _puct(prior, visits, total, inflight, low, high, value, here, rule, b, p):  # type: ignore[no-untyped-def]
    width = prior.shape[2]
    first = 0.0
    if rule.fpu_parent:
        everything = total[b, p, 0]
        own = here - visits[b, p, 0]  # more than 1 where one wave reached it several times
        for e in range(1, width):
            everything += total[b, p, e]
            own -= visits[b, p, e]
        mean = (own * value + everything) / here
        if rule.single:
            mean = _normalised(mean, low, high)
        first = mean - rule.fpu_reduction
    loss = 0.0
    if rule.virtual:
        loss = low if math.isfinite(low) else 0.0
        for e in range(width):
            here += inflight[b, p, e]
    c = rule.c_puct * math.sqrt(here)
    best, best_score = 0, -np.inf
    for e in range(width):
        weight = prior[b, p, e]
        if weight == -np.inf:
            continue
        n, q = visits[b, p, e], total[b, p, e]
        if rule.virtual:
            q = q + inflight[b, p, e] * loss
            n = n + inflight[b, p, e]
        if n == 0:
            q = first
        else:
            q = q / n
            if rule.single:
                q = _normalised(q, low, high)
        score = q + (c * weight) / (1 + n)
        if score > best_score:
            best, best_score = e, score
    return best


@_compiled
def _gumbel(  # type: ignore[no-untyped-def]
    prior, visits, total, inflight, low, high, value, root_scores, considered, rule, b, p, counts, sigma
):
    width = prior.shape[2]
    loss = low if rule.virtual and math.isfinite(low) else 0.0
    known, weighted = 0.0, 0.0
    sum_n, max_n = 0, 0
    for e in range(width):
        n, q = visits[b, p, e], total[b, p, e]
        if rule.virtual:
            q = q + inflight[b, p, e] * loss
            n = n + inflight[b, p, e]
        counts[e] = n
        if n > 0:
            weight = max(prior[b, p, e], TINY)
            sigma[e] = q / n
            known += weight
            weighted += weight * sigma[e]
            sum_n += n
            max_n = max(max_n, n)
    weighted = weighted / (known if known > 0 else 1.0)
    mixed = (value + sum_n * weighted) / (sum_n + 1) if sum_n > 0 else value
    scale = (rule.c_visit + max_n) * rule.c_scale
    top = -np.inf
    for e in range(width):
        if prior[b, p, e] == -np.inf:
            continue
        q = sigma[e] if counts[e] > 0 else mixed
        q = _normalised(q, low, high) if rule.single else min(max((q + 1.0) * 0.5, 0.0), 1.0)
        sigma[e] = scale * q
        top = max(top, sigma[e])
    best, best_score = 0, -np.inf
    if p == 0:
        for e in range(width):
            if prior[b, p, e] == -np.inf or counts[e] != considered:
                continue
            score = root_scores[b, e] + sigma[e]
            if score > best_score:
                best, best_score = e, score
        return best
    everything = 0.0
    for e in range(width):
        if prior[b, p, e] == -np.inf:
            continue
        sigma[e] = max(prior[b, p, e], TINY) * _exp(sigma[e] - top)
        everything += sigma[e]
    for e in range(width):
        if prior[b, p, e] == -np.inf:
            continue
        score = sigma[e] / everything - counts[e] / (1 + sum_n)
        if score > best_score:
            best, best_score = e, score
    return best


@_compiled
def descend(  # type: ignore[no-untyped-def]
    kind, parent, edge, value, node_visits, prior, visits, total, child, inflight, size, low, high, rule, b, node,
    root_scores, considered, counts, sigma,
):  # fmt: skip
    """One walk: (leaf, whether it is new). `counts` and `sigma` are scratch of the tree's width."""
    what = kind[b, node]
    fresh = what == PENDING
    while what == DECISION or what == CHANCE:  # noqa: SIM109 (a tuple would be built at every level)
        if what == CHANCE:
            e = _outcome(prior, visits, inflight, b, node)
        elif rule.gumbel:
            e = _gumbel(
                prior, visits, total, inflight, low[b], high[b], value[b, node], root_scores, considered, rule, b, node,
                counts, sigma,
            )  # fmt: skip
        else:
            e = _puct(
                prior, visits, total, inflight, low[b], high[b], value[b, node], node_visits[b, node], rule, b, node
            )
        if rule.virtual:
            inflight[b, node, e] += 1
        below = np.int64(child[b, node, e])
        if below < 0:
            below = np.int64(size[b])
            size[b] = below + 1
            child[b, node, e] = below
            parent[b, below] = node
            edge[b, below] = e
            kind[b, below] = PENDING
            fresh = True
        node = below
        what = kind[b, node]
    return node, fresh


@_compiled
def back_up(  # type: ignore[no-untyped-def]
    kind, to_play, parent, edge, reward, node_visits, visits, total, inflight, low, high, rule, b, n, g
):
    """Adds a leaf's value along its path; gamma counts decisions, so an edge into chance has none."""
    node_visits[b, n] += 1
    while n > 0:
        p, e = np.int64(parent[b, n]), edge[b, n]
        if to_play[b, n] != to_play[b, p]:
            g = -g
        if kind[b, n] != CHANCE:
            g = rule.discount * g
        g = reward[b, n] + g
        visits[b, p, e] += 1
        total[b, p, e] += g
        node_visits[b, p] += 1
        if rule.virtual:
            inflight[b, p, e] -= 1
        if rule.single:
            mean = total[b, p, e] / visits[b, p, e]
            low[b] = min(low[b], mean)
            high[b] = max(high[b], mean)
        n = p


@_compiled
def _select(  # type: ignore[no-untyped-def]
    kind, parent, edge, value, node_visits, prior, visits, total, child, inflight, size, low, high, rule, slots, starts,
    root_scores, considered, nodes, fresh, steps,
):  # fmt: skip
    counts, sigma = np.zeros(prior.shape[2], dtype=np.int64), np.zeros(prior.shape[2])
    made = 0
    for i in range(len(slots)):
        nodes[i], fresh[i] = descend(
            kind, parent, edge, value, node_visits, prior, visits, total, child, inflight, size, low, high, rule,
            slots[i], starts[i], root_scores, considered[slots[i]], counts, sigma,
        )  # fmt: skip
        if fresh[i] and nodes[i] > 0:
            b, n = slots[i], nodes[i]
            steps[0, made], steps[1, made], steps[4, made] = i, b, n
            steps[2, made], steps[3, made] = parent[b, n], edge[b, n]
            made += 1
    return made


@_compiled
def _arrive(kind, to_play, reward, prior, slots, nodes, rewards, dones, players, legal):  # type: ignore[no-untyped-def]
    for i in range(len(slots)):
        b, n = slots[i], nodes[i]
        reward[b, n], to_play[b, n] = rewards[i], players[i]
        if dones[i]:
            kind[b, n] = TERMINAL
        for e in range(legal.shape[1]):
            prior[b, n, e] = 0.0 if legal[i, e] else -np.inf


@_compiled
def _gather(  # type: ignore[no-untyped-def]
    kind, to_play, prior, slots, nodes, fresh, opens, rows, where, legal, players
):
    k = 0
    for i in range(len(slots)):
        b, n = slots[i], nodes[i]
        opens[i] = fresh[i] and kind[b, n] == PENDING
        rows[i] = k if opens[i] else -1
        if opens[i]:
            where[0, k], where[1, k], players[k] = b, n, to_play[b, n]
            for e in range(legal.shape[1]):
                legal[k, e] = prior[b, n, e] == 0.0
            k += 1
    return k


@_compiled
def _update(  # type: ignore[no-untyped-def]
    kind, to_play, parent, edge, reward, value, node_visits, prior, visits, total, inflight, low, high, rule, slots,
    nodes, rows, opens, priors, legal, values,
):  # fmt: skip
    for i in range(len(slots)):
        b, n, row = slots[i], nodes[i], rows[i]
        g = values[row] if row >= 0 else 0.0
        if opens[i]:
            for e in range(priors.shape[1]):
                prior[b, n, e] = priors[row, e] if legal[row, e] else -np.inf
            kind[b, n] = DECISION
            value[b, n] = g
        back_up(kind, to_play, parent, edge, reward, node_visits, visits, total, inflight, low, high, rule, b, n, g)
