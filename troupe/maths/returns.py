"""A record of returns: what may be one, whether it ended in ruin, the equity and the drawdown that it made.

Legend: T bars, `...` any number of axes before them. A return is simple and per bar: 0.01 made one per cent of the
equity that the bar began with, after all costs. Every function of finance works along the last axis and gives
one figure per record, so `[T]` gives a number and `[N, T]` gives `[N]`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from troupe.errors import DataError

__all__ = [
    "autocovariances",
    "checked_returns",
    "drawdown_curve",
    "equity_curve",
    "is_ruined",
    "ratio",
    "ratio_or_cash",
    "spread",
]

ROUNDING = 1e-12
"""A drawdown below this is rounding: 1.1 * (1 / 1.1) need not be 1."""


def checked_returns(values: ArrayLike, what: str, minimum: int = 1) -> np.ndarray:
    """`values` as float64 `[..., T]`. Raises DataError for fewer than `minimum` bars or a value that is not finite;
    `what` names the caller in its sentence."""
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 0 or array.shape[-1] < minimum or array.size == 0:
        raise DataError(f"{what} needs {minimum} or more bars along the last axis, found shape {array.shape}")
    bad = ~np.isfinite(array)
    if bad.any():
        where = tuple(np.argwhere(bad)[0].tolist())
        raise DataError(
            f"{what} got {array[where]} at position {', '.join(map(str, where))}; leave out a bar without a value, "
            "on purpose"
        )
    return array


def autocovariances(sample: np.ndarray, highest: int) -> np.ndarray:
    """c_k = sum_t (x_t - m)(x_{t-k} - m) / T for k = 0..highest of one record `[T]`, m its mean: `[highest + 1]`."""
    centred = sample - sample.mean()
    t = len(sample)
    return np.array([centred[k:] @ centred[: t - k] / t for k in range(highest + 1)])


def is_ruined(returns: np.ndarray) -> np.ndarray:
    """bool `[...]`: some bar of the record lost all equity (a return of -1 or below)."""
    return np.any(returns <= -1, axis=-1)


def spread(returns: np.ndarray) -> np.ndarray:
    """Standard deviation per bar `[...]`, unbiased variance; exactly 0 for equal returns and nan for a single bar."""
    if returns.shape[-1] < 2:
        return np.full(returns.shape[:-1], np.nan)[()]
    # The mean of equal numbers is off by a rounding, which would leave 1e-17 to divide by.
    equal = returns.max(axis=-1) == returns.min(axis=-1)
    return np.where(equal, 0.0, returns.std(axis=-1, ddof=1))[()]


def ratio(numerator: ArrayLike, denominator: ArrayLike) -> np.ndarray:
    """numerator / denominator, nan where the denominator is not above 0: an undefined figure passes no threshold."""
    top, bottom = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    result = np.full(top.shape, np.nan)
    with np.errstate(over="ignore"):  # 1 / 1e-320 is inf, and says so itself
        np.divide(top, bottom, out=result, where=bottom > 0)
    return result[()]


def ratio_or_cash(mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """mean / deviation for ranking, where none may be missing: without spread, 0 for cash and +-inf for a sure gain or
    loss. Both arrays of one shape."""
    without_spread = np.where(mean == 0, 0.0, np.where(mean > 0, np.inf, -np.inf))
    return np.divide(mean, deviation, out=without_spread, where=deviation > 0)


def equity_curve(returns: ArrayLike, start: float = 1.0) -> np.ndarray:
    """Equity before the first bar and after each: `[..., T]` -> `[..., T + 1]`.

        E_0 = start;  E_t = E_{t-1} * max(1 + r_t, 0)

    A return of -1 or below ends the account: equity is 0 from there on, whatever follows. Raises DataError for no bar,
    a value that is not finite, or a start that is not above 0.
    """
    growth = np.maximum(1 + checked_returns(returns, "equity_curve"), 0)
    if not (np.isfinite(start) and start > 0):
        raise DataError(f"equity_curve starts from equity above 0, found {start}")
    first = np.full((*growth.shape[:-1], 1), float(start))
    return np.cumprod(np.concatenate([first, growth], axis=-1), axis=-1)


def drawdown_curve(returns: ArrayLike) -> np.ndarray:
    """Loss since the highest equity so far, as a share of it: 1 - E_t / max_{s <= t} E_s in [0, 1], `[..., T + 1]`.

    The start counts as a peak: a record that loses from its first bar is in drawdown. Raises as `equity_curve`.
    """
    equity = equity_curve(returns)
    loss = 1 - equity / np.maximum.accumulate(equity, axis=-1)
    return np.where(loss < ROUNDING, 0.0, loss)
