"""Was the best of many trials luck? The probability of backtest overfitting."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from troupe.errors import DataError
from troupe.maths.returns import checked_returns, ratio_or_cash

__all__ = ["Overfitting", "backtest_overfitting"]


@dataclass(frozen=True, slots=True, eq=False)
class Overfitting:
    """What became of the trial that was best in one half of the record, in the other half; C splits."""

    probability: float  # share of the splits in which it was no better than the median trial
    logits: np.ndarray  # [C]: ln(w / (1 - w)), w its relative rank in the other half; above 0 is better than the median
    in_sample: np.ndarray  # [C]: its Sharpe ratio per bar in the half that chose it
    out_of_sample: np.ndarray  # [C]: in the other half
    loss_probability: float  # share of the splits in which it lost money in the other half


def backtest_overfitting(trials: ArrayLike, blocks: int = 16) -> Overfitting:
    """Probability of backtest overfitting by combinatorially symmetric cross-validation (Bailey, Borwein, Lopez de
    Prado and Zhu 2017, Journal of Computational Finance 20:39).

    The record is cut into `blocks` equal blocks; each of the C(blocks, blocks / 2) choices of half of them picks the
    trial with the highest Sharpe ratio there, and w = rank / (N + 1) is its place among the N trials on the other half
    (1 the worst, equal ratios share their mean rank). The probability is the share of choices with a logit <= 0.

    `trials` are the returns `[N, T]` of *all* configurations that were tried, on the same bars; the first T modulo
    `blocks` bars are left out. Near 0.5 for trials without an edge, near 0 if one is really the best. A flat trial
    ranks as 0. Raises DataError for fewer than 2 trials, an odd number of blocks, one outside 2..20, or fewer than
    2 bars a block.
    """
    returns = checked_returns(trials, "backtest_overfitting")
    if returns.ndim != 2 or len(returns) < 2:
        raise DataError(f"backtest_overfitting compares 2 or more trials [N, T], found shape {returns.shape}")
    if blocks % 2 or not 2 <= blocks <= 20 or returns.shape[1] < 2 * blocks:
        raise DataError(
            "backtest_overfitting needs an even number of blocks from 2 to 20 and 2 bars in each, found "
            f"{blocks} blocks for {returns.shape[1]} bars"
        )
    inside, outside = _half_sharpes(returns, blocks)
    best = inside.argmax(axis=1)[:, None]
    chosen = np.take_along_axis(outside, best, axis=1)
    rank = (outside < chosen).sum(axis=1) + ((outside == chosen).sum(axis=1) + 1) / 2
    logits = np.log(rank / (len(returns) + 1 - rank))
    out = chosen[:, 0]
    picked = np.take_along_axis(inside, best, axis=1)[:, 0]
    return Overfitting(float((logits <= 0).mean()), logits, picked, out, float((out < 0).mean()))


def _half_sharpes(returns: np.ndarray, blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Sharpe ratios per bar `[C, N]` of every half of the blocks, and of what it leaves."""
    length = returns.shape[1] // blocks
    cut = returns[:, returns.shape[1] - length * blocks :].reshape(len(returns), blocks, length)
    sums, squares = cut.sum(axis=2).T, (cut**2).sum(axis=2).T  # [blocks, N]: a half's moments are sums of these
    halves = list(combinations(range(blocks), blocks // 2))
    member = np.zeros((len(halves), blocks))
    np.put_along_axis(member, np.array(halves), 1.0, axis=1)
    n = length * blocks // 2
    return _sharpes(member @ sums, member @ squares, n), _sharpes((1 - member) @ sums, (1 - member) @ squares, n)


def _sharpes(total: np.ndarray, squares: np.ndarray, n: int) -> np.ndarray:
    mean = total / n
    variance = (squares - n * mean**2) / (n - 1)
    # Below a rounding of the squares there is no spread.
    deviation = np.sqrt(np.where(variance > 1e-12 * squares / n, variance, 0))
    return ratio_or_cash(mean, deviation)
