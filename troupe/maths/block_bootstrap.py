"""Resampling of dependent returns in blocks of random length: the stationary bootstrap, and an interval of Sharpe.

A bootstrap that draws single bars destroys what makes a record of returns uncertain, its autocorrelation and its
clusters of volatility; blocks keep both.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from troupe.errors import DataError
from troupe.maths.finance import sharpe
from troupe.maths.returns import autocovariances, checked_returns, ratio_or_cash, spread
from troupe.maths.statistics import Interval

__all__ = ["automatic_block_length", "sharpe_interval", "stationary_indices"]

CELLS = 2_000_000
"""Resampled bars held at once: 16 MB an array, whatever the record's length."""


def stationary_indices(n: int, block: float, generator: np.random.Generator, resamples: int) -> np.ndarray:
    """Rows of the stationary bootstrap (Politis and Romano 1994, JASA 89:1303): int `[resamples, n]` in 0..n - 1.

    Each row continues with the next bar, or with probability 1 / `block` jumps to any: blocks have geometric lengths
    with this mean and wrap around the end, so that a resample is as stationary as the record. Block 1 draws lone bars.
    """
    if n < 1 or resamples < 1 or not block >= 1:
        raise DataError(f"a stationary bootstrap needs n, resamples and block >= 1, found {n}, {resamples} and {block}")
    position = np.arange(n)
    jumps = generator.random((resamples, n)) < 1 / block
    jumps[:, 0] = True
    starts = generator.integers(0, n, (resamples, n))
    begun = np.maximum.accumulate(np.where(jumps, position, 0), axis=1)
    return (np.take_along_axis(starts, begun, axis=1) + position - begun) % n


def automatic_block_length(values: ArrayLike) -> float:
    """Mean block length of the stationary bootstrap that is best for the mean of `values` `[T]`, at least 1.

        b = (2 G^2 / D)^(1/3) T^(1/3),  G = sum_k w_k |k| R_k,  D = 2 (sum_k w_k R_k)^2,  w_k = min(1, 2 (1 - |k| / M))

    R_k are the autocovariances and w the flat-top window up to M, twice the lag after which the autocorrelations stay
    below 2 sqrt(log10(T) / T) for max(5, sqrt(log10 T)) lags (Politis and White 2004, Econometric Reviews 23:53, with D
    as corrected by Patton, Politis and White 2009, 28:372). Never above min(3 sqrt(T), T / 3). 1 for equal values.
    """
    sample = checked_returns(values, "automatic_block_length", 2)
    if sample.ndim != 1:
        raise DataError(f"automatic_block_length takes one record [T], found shape {sample.shape}")
    t = len(sample)
    if sample.min() == sample.max():
        return 1.0
    run = max(5, int(math.sqrt(math.log10(t))))
    highest = min(math.ceil(math.sqrt(t)) + run, t - 1)
    covariances = autocovariances(sample, highest)
    m = min(2 * _last_correlated_lag(covariances / covariances[0], t, run), highest)
    lags = np.arange(1, m + 1)
    window = np.minimum(1, 2 * (1 - lags / max(m, 1)))
    g = 2 * (window * lags * covariances[1 : m + 1]).sum()
    long_run = covariances[0] + 2 * (window * covariances[1 : m + 1]).sum()
    most = math.ceil(min(3 * math.sqrt(t), t / 3))
    if long_run == 0:
        return float(most)
    return float(np.clip(np.cbrt((g / long_run) ** 2 * t), 1, most))


def sharpe_interval(
    returns: ArrayLike,
    periods_per_year: float,
    generator: np.random.Generator,
    *,
    n: int = 2000,
    confidence: float = 0.95,
    block: float | None = None,
) -> Interval:
    """Percentile interval of the annual Sharpe ratio of one record `[T]`, from `n` stationary resamples.

    `block` is the mean block length; left out, `automatic_block_length` of the bars' influence on the ratio,
    z_t - SR (z_t^2 - 1) / 2 with z_t the standardised return and SR that per bar: it is their dependence that counts. A
    record without spread or one that was ruined has no Sharpe ratio: nan within an infinite interval.
    Raises DataError for a single bar, one that is not finite, n < 1 or a confidence outside 0 to 1.
    """
    record = checked_returns(returns, "sharpe_interval", 2)
    if record.ndim != 1 or n < 1 or not 0 < confidence < 1:
        raise DataError(
            "sharpe_interval takes one record [T], n >= 1 and a confidence between 0 and 1, found shape "
            f"{record.shape}, n={n} and confidence={confidence}"
        )
    estimate = float(sharpe(record, periods_per_year))
    if math.isnan(estimate):
        return Interval(math.nan, -math.inf, math.inf, len(record))
    length = automatic_block_length(_influence(record)) if block is None else block
    samples = np.concatenate(list(_resampled_sharpes(record, length, generator, n))) * math.sqrt(periods_per_year)
    low, high = np.quantile(samples, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate), len(record))


def _resampled_sharpes(
    record: np.ndarray, block: float, generator: np.random.Generator, n: int
) -> Iterator[np.ndarray]:
    rows = max(1, CELLS // len(record))
    for start in range(0, n, rows):
        resampled = record[stationary_indices(len(record), block, generator, min(rows, n - start))]
        # A mostly flat record has resamples without any trade; those are cash.
        yield ratio_or_cash(resampled.mean(axis=1), spread(resampled))


def _influence(record: np.ndarray) -> np.ndarray:
    z = (record - record.mean()) / record.std()
    return z - record.mean() / record.std() * (z * z - 1) / 2


def _last_correlated_lag(correlations: np.ndarray, t: int, run: int) -> int:
    """The largest lag before the first `run` lags in a row without correlation; if there is none, the last with any."""
    clear = np.abs(correlations[1:]) < 2 * math.sqrt(math.log10(t) / t)
    for lag in range(len(clear) - run + 1):
        if clear[lag : lag + run].all():
            return max(lag, 1)
    correlated = np.flatnonzero(~clear)
    return int(correlated[-1]) + 1 if len(correlated) else 1
