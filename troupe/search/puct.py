"""What AlphaZero does at the root (Silver et al. 2018): noise on the priors, actions drawn from visit counts.

The choice inside the tree, argmax of Q + c P sqrt(N) / (1 + n), stands with the kernels.
"""

from __future__ import annotations

import numpy as np

from troupe.search.config import SearchConfig

__all__ = ["dirichlet_mixed", "temperature_of", "visit_action", "visit_policy"]


def dirichlet_mixed(priors: np.ndarray, alpha: float, epsilon: float, generator: np.random.Generator) -> np.ndarray:
    """(1 - epsilon) P + epsilon Dirichlet(alpha) over the legal actions `[n, W]`; -inf stays -inf.

    One draw of gamma variates per row and place, whatever is legal: what a row gets does not depend on the others.
    """
    legal = ~np.isneginf(priors)
    gammas = np.maximum(generator.standard_gamma(alpha, priors.shape), 1e-30) * legal
    noise = gammas / gammas.sum(1, keepdims=True)
    return np.where(legal, (1 - epsilon) * np.where(legal, priors, 0.0) + epsilon * noise, -np.inf)


def temperature_of(config: SearchConfig, moves: np.ndarray) -> np.ndarray:
    """The temperature `[n]` of games in which so many moves have been made."""
    if config.temperature_moves is None:
        return np.full(len(moves), config.temperature)
    return np.where(moves < config.temperature_moves, config.temperature, config.final_temperature)


def visit_policy(visits: np.ndarray) -> np.ndarray:
    """Visit shares `[n, W]`: the target of the policy."""
    return visits / visits.sum(1, keepdims=True)


def visit_action(visits: np.ndarray, temperature: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Actions `[n]` drawn from visits^(1 / temperature) by `draws` in [0, 1); at 0 the most visited, lowest index."""
    greedy = temperature <= 0
    power = 1.0 / np.where(greedy, 1.0, temperature)
    relative = visits / visits.max(1, keepdims=True)
    cumulative = np.cumsum(relative ** power[:, None], axis=1)
    chosen = (cumulative > (draws * cumulative[:, -1])[:, None]).argmax(1)
    return np.where(greedy, visits.argmax(1), chosen)
