"""Gumbel AlphaZero (Danihelka et al. 2022, "Policy improvement by planning with Gumbel", ICLR).

The root draws actions without replacement by the Gumbel-top-k trick and shares its simulations among them by sequential
halving; the policy improves even with very few simulations, if the values are right. The choice inside the tree stands
with the kernels.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from troupe.search.config import SearchConfig
from troupe.search.rule import TINY

__all__ = ["completed_q", "considered_visits", "gumbel_action", "improved_policy", "root_scores", "schedules"]


@cache
def considered_visits(actions: int, simulations: int) -> tuple[int, ...]:
    """Sequential halving as a table: at simulation i the root looks among the actions visited exactly so often.

    With m actions, ceil(log2 m) phases share the simulations; in each phase every action left is visited alike, and
    half of them go on. With one action simulation i finds it visited i times.
    """
    if actions <= 1:
        return tuple(range(simulations))
    phases = (actions - 1).bit_length()
    sequence: list[int] = []
    visits, left = [0] * actions, actions
    while len(sequence) < simulations:
        for _ in range(max(1, simulations // (phases * left))):
            sequence.extend(visits[:left])
            visits[:left] = [n + 1 for n in visits[:left]]
        left = max(2, left // 2)
    return tuple(sequence[:simulations])


@cache
def schedules(considered: int, simulations: int) -> np.ndarray:
    """int32 `[considered + 1, simulations]`: row m is `considered_visits(m)`."""
    return np.array([considered_visits(m, simulations) for m in range(considered + 1)], dtype=np.int32)


def root_scores(priors: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """gumbel + logit `[n, W]`; -inf where `priors` is (no legal action)."""
    legal = ~np.isneginf(priors)
    return np.where(legal, noise + np.log(np.where(legal, np.maximum(priors, TINY), 1.0)), -np.inf)


def completed_q(
    config: SearchConfig,
    priors: np.ndarray,
    visits: np.ndarray,
    q: np.ndarray,
    values: np.ndarray,
    low: np.ndarray,
    high: np.ndarray,
) -> np.ndarray:
    """sigma(completed Q) `[n, W]` of roots (equations 8 and 33).

    Unvisited actions get the mixed value of the root: its evaluation `values` `[n]`, and the visited actions' mean
    returns `q` weighted by their priors. `low` and `high` `[n]` are the range that Q is brought to 0..1 from.
    """
    legal = ~np.isneginf(priors)
    weight = np.where(legal & (visits > 0), np.maximum(priors, TINY), 0.0)
    known, sum_n = weight.sum(1), visits.sum(1)
    weighted = (weight * q).sum(1) / np.where(known > 0, known, 1.0)
    mixed = np.where(sum_n > 0, (values + sum_n * weighted) / (sum_n + 1), values)
    completed = np.where(visits > 0, q, mixed[:, None])
    spread = (high > low)[:, None]
    span = np.where(spread, (high - low)[:, None], 1.0)
    unit = np.where(spread, np.clip((completed - np.where(spread, low[:, None], 0.0)) / span, 0.0, 1.0), 0.0)
    return ((config.c_visit + visits.max(1)) * config.c_scale)[:, None] * unit


def improved_policy(priors: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """softmax(logit + sigma(completed Q)) `[n, W]`: the target of the policy (equation 11)."""
    legal = ~np.isneginf(priors)
    top = np.where(legal, sigma, -np.inf).max(1, keepdims=True)
    weight = np.where(legal, np.maximum(priors, TINY) * np.exp(np.where(legal, sigma - top, 0.0)), 0.0)
    return weight / weight.sum(1, keepdims=True)


def gumbel_action(scores: np.ndarray, sigma: np.ndarray, visits: np.ndarray) -> np.ndarray:
    """The action to play `[n]`: of those visited most, the one with the largest gumbel + logit + sigma(Q)."""
    most = visits == visits.max(1, keepdims=True)
    return np.where(most, scores + sigma, -np.inf).argmax(1)
