"""Rolling windows over rows, covariance and correlation: strictly causal, and to the bit.

Every number at row t is made of rows up to t, by additions in an order that does not depend on how many rows follow:
cutting or changing the future leaves it as it is, bit for bit. Nothing is subtracted from a running total, so that a
still market has a variance of exactly 0. Legend: T rows, M instruments, W the window.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from troupe.errors import ConfigError, DataError

__all__ = [
    "counts",
    "decayed_sum",
    "rolling_correlation",
    "rolling_covariance",
    "rolling_max",
    "rolling_min",
    "rolling_sum",
    "rolling_volatility",
    "shifted",
    "simple_returns",
]

_STILL = 1e-12
"""A variance below this share of the mean square is rounding."""


def simple_returns(close: np.ndarray) -> np.ndarray:
    """Simple returns `[T, M]` of closes `[T, M]`; 0 in the first row, which has none."""
    returns = np.zeros(close.shape)
    returns[1:] = close[1:] / close[:-1] - 1
    return returns


def shifted(values: np.ndarray, rows: int, fill: float = 0.0) -> np.ndarray:
    """`values[t - rows]` at row t, and `fill` before there is one."""
    moved = np.full(values.shape, fill, dtype=values.dtype)
    moved[rows:] = values[: max(len(values) - rows, 0)]
    return moved


def counts(rows: int, window: int) -> np.ndarray:
    """How many rows a window holds at each row: 1, 2, ..., W, W, ... as float64 `[T]`."""
    return np.minimum(np.arange(1.0, rows + 1), window)


def rolling_sum(values: np.ndarray, window: int) -> np.ndarray:
    """Sum of the last W rows (of fewer at the beginning). Windows are doubled: W = 100 is 64 + 32 + 4."""
    return _doubled(values, window, np.add, 0.0)


def rolling_max(values: np.ndarray, window: int) -> np.ndarray:
    """Largest of the last W rows (of fewer at the beginning)."""
    return _doubled(values, window, np.maximum, -np.inf)


def rolling_min(values: np.ndarray, window: int) -> np.ndarray:
    """Smallest of the last W rows (of fewer at the beginning)."""
    return _doubled(values, window, np.minimum, np.inf)


def _doubled(values: np.ndarray, window: int, join: Callable[..., np.ndarray], nothing: float) -> np.ndarray:
    _check_window(window)
    total = np.full(values.shape, nothing)
    part, size, done = values, 1, 0  # `part` covers `size` rows
    while True:
        if window & size:
            total = join(total, shifted(part, done, nothing))
            done += size
        if done == window:
            return total
        part = join(part, shifted(part, size, nothing))
        size *= 2


def decayed_sum(values: np.ndarray, decay: float, doublings: int = 8) -> np.ndarray:
    """sum_k decay^k values[t - k] over the last 2^doublings rows, the weights of an exponential moving average."""
    total, size = values, 1
    for _ in range(doublings):
        total = total + decay**size * shifted(total, size)
        size *= 2
    return total


def rolling_volatility(returns: np.ndarray, window: int = 100) -> np.ndarray:
    """Standard deviation `[T, M]` of the last W returns, per bar; divisor n - 1, 0 with fewer than two returns.

    `returns` as of `simple_returns`: the first row holds none and is not read. Raises DataError for another shape.
    """
    returns = _checked(returns, window)
    rows, columns = returns.shape
    n = _observed(rows, window)
    both = rolling_sum(np.concatenate([returns, returns * returns], axis=1), window)
    return np.sqrt(_variance(both[:, :columns], both[:, columns:], n))


def rolling_covariance(returns: np.ndarray, window: int = 100, *, prior: float | None = None) -> np.ndarray:
    """Covariance `[T, M, M]` of the last W returns, per bar, shrunk towards no correlation.

        S_ij = (sum x_i x_j - sum x_i sum x_j / n) / (n - 1),   cov_ij = n / (n + prior) S_ij,   cov_ii = S_ii

    That is the posterior mean under an inverse Wishart prior worth `prior` returns without correlation (Haff 1980, Ann.
    Statist. 8:586); None takes M. Few returns of many instruments show correlations that are not there, and a singular
    S hides risk; with a prior above 0 the result is positive definite wherever no variance is 0. `returns` as of
    `simple_returns`: the first row holds none and is not read. Fewer than two give 0. Raises DataError for another
    shape, ConfigError for a window below 2 or a prior below 0.
    """
    correlation, deviation = _shrunk(returns, window, prior)
    return correlation * (deviation[:, :, None] * deviation[:, None, :])


def rolling_correlation(returns: np.ndarray, window: int = 100, *, prior: float | None = None) -> np.ndarray:
    """Correlation `[T, M, M]` of the last W returns, shrunk as in `rolling_covariance`.

    The diagonal is 1, and 0 stands beside it where an instrument did not move.
    """
    return _shrunk(returns, window, prior)[0]


def _shrunk(returns: np.ndarray, window: int, prior: float | None) -> tuple[np.ndarray, np.ndarray]:
    """Correlation `[T, M, M]` after shrinkage, and standard deviations `[T, M]`."""
    returns = _checked(returns, window)
    rows, columns = returns.shape
    prior = columns if prior is None else prior
    if not (0 <= prior < np.inf):
        raise ConfigError(f"prior={prior} must be 0 or more returns")
    n = _observed(rows, window)
    i, j = np.triu_indices(columns)
    sums = rolling_sum(returns, window)
    products = rolling_sum(returns[:, i] * returns[:, j], window)
    deviation = np.sqrt(_variance(sums, products[:, i == j], n))
    joint = (products - sums[:, i] * sums[:, j] / np.maximum(n, 1.0)[:, None]) / np.maximum(n - 1, 1.0)[:, None]
    scale = deviation[:, i] * deviation[:, j]
    moved = scale > 0
    rho = np.clip(np.where(moved, joint, 0.0) / np.where(moved, scale, 1.0), -1.0, 1.0)
    rho *= (n / np.maximum(n + prior, 1.0))[:, None]
    rho[:, i == j] = 1.0
    correlation = np.empty((rows, columns, columns))
    correlation[:, i, j] = correlation[:, j, i] = rho
    return correlation, deviation


def _variance(sums: np.ndarray, squares: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Variance `[T, M]` of n `[T]` values from their sum and sum of squares; exactly 0 where they do not vary."""
    n = n[:, None]
    spread = squares - sums * sums / np.maximum(n, 1.0)
    return np.where((spread > _STILL * squares) & (n > 1), spread, 0.0) / np.maximum(n - 1, 1.0)


def _observed(rows: int, window: int) -> np.ndarray:
    """Returns in the window: 0, 1, ..., W; the first row holds none."""
    return np.minimum(np.arange(float(rows)), window)


def _checked(returns: np.ndarray, window: int) -> np.ndarray:
    if returns.ndim != 2 or len(returns) == 0:
        raise DataError(f"returns have shape {returns.shape}; they must be [bars, instruments]")
    if window < 2:
        raise ConfigError(f"window={window} holds no variance; write 2 or more bars")
    returns = np.array(returns, dtype=np.float64)
    returns[0] = 0.0
    return returns


def _check_window(window: int) -> None:
    if window < 1:
        raise ConfigError(f"window={window} must be 1 bar or more")
