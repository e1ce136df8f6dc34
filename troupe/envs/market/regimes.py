"""Which regime a market is in, from returns so far: volatile, bull, bear or neutral, as document 002 names them.

    volatile   the volatility of the last `window` bars is above `ratio` times that of the last `long`
    bull       else, their mean is above z standard errors, z s / sqrt(window)
    bear       else, it is below -z of them
    neutral    else, and before there are `window` bars

That document compares a standard deviation with 0.03 and a mean with 0.005, whatever the bars. Such thresholds fit one
market and one length of bars: an hourly currency pair moves by about 0.001 a bar, so that nothing but neutral would
ever be said of it. Here each record is compared with itself, and multiplying all returns by a positive number changes
no label. With z = 2 some 5 % of the bars of a market without any drift are called bull or bear.

Legend: T bars, N records (accounts, instruments, sectors) beside each other.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from troupe.envs.market.rolling import counts, rolling_sum, rolling_volatility
from troupe.errors import ConfigError, DataError

__all__ = ["REGIMES", "detect_market_regime", "regime_series"]

REGIMES = ("volatile", "bull", "bear", "neutral")
"""By the numbers that `regime_series` gives."""

_VOLATILE, _BULL, _BEAR, _NEUTRAL = range(4)


def detect_market_regime(
    returns: ArrayLike, *, window: int = 50, long: int = 500, ratio: float = 1.5, z: float = 2.0
) -> str | tuple[str, ...]:
    """The regime at the last bar of returns `[T]`, or one for each column of `[T, N]`.

    Only the last `long` bars are read. Raises as `regime_series`.
    """
    record = _checked(returns, window, long, ratio, z)
    last = regime_series(record[-long:], window=window, long=long, ratio=ratio, z=z)[-1]
    return REGIMES[int(last)] if record.ndim == 1 else tuple(REGIMES[int(number)] for number in last)


def regime_series(
    returns: ArrayLike, *, window: int = 50, long: int = 500, ratio: float = 1.5, z: float = 2.0
) -> np.ndarray:
    """Numbers of `REGIMES` at every bar, int8 of the shape of `returns`, `[T]` or `[T, N]` simple returns.

    Row t is made of the rows up to t, and stays the same to the bit whatever follows. Raises DataError for returns of
    another shape or not finite, ConfigError for windows that do not hold each other, or a `ratio` or `z` that is not
    above 0.
    """
    record = _checked(returns, window, long, ratio, z)
    rows = record if record.ndim == 2 else record[:, None]
    recent, usual = (_volatility(rows, size) for size in (window, long))
    mean = rolling_sum(rows, window) / counts(len(rows), window)[:, None]
    beyond = z * recent / np.sqrt(window)
    labels = np.full(rows.shape, _NEUTRAL, dtype=np.int8)
    labels[mean > beyond] = _BULL
    labels[mean < -beyond] = _BEAR
    labels[recent > ratio * usual] = _VOLATILE
    labels[: window - 1] = _NEUTRAL
    return labels.reshape(record.shape)


def _volatility(rows: np.ndarray, window: int) -> np.ndarray:
    """Standard deviation `[T, N]`; `rolling_volatility` does not read the first row, so that one is put before it."""
    return rolling_volatility(np.concatenate([rows[:1], rows]), window)[1:]


def _checked(returns: ArrayLike, window: int, long: int, ratio: float, z: float) -> np.ndarray:
    if not 2 <= window < long:
        raise ConfigError(f"window={window}, long={long}: write a window of 2 or more bars, and a longer one")
    for name, value in (("ratio", ratio), ("z", z)):
        if not 0 < value < np.inf:
            raise ConfigError(f"{name}={value} must be above 0 and finite")
    record = np.asarray(returns, dtype=np.float64)
    if record.ndim not in (1, 2) or record.size == 0:
        raise DataError(f"returns have shape {record.shape}; a regime needs [bars], or [bars, records]")
    if not np.isfinite(record).all():
        raise DataError(f"return {tuple(np.argwhere(~np.isfinite(record))[0].tolist())} is not finite")
    return record
