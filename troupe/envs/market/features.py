"""Features of a market: causal, free of scale, computed once for all rows.

Legend: T bars, M instruments, F features of an instrument, G of the market. Row t uses rows up to t alone, and only
additions, multiplications, divisions and square roots in a fixed order (see `rolling`), so that it stays the same to
the bit whatever follows. No feature holds a price level, so that EURUSD at 1.05 and an index at 20,000 look alike.
Where history is shorter than a window, what there is is used; where nothing moved, a ratio is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from troupe.envs.market.bars import Bars
from troupe.envs.market.rolling import (
    counts,
    decayed_sum,
    rolling_correlation,
    rolling_covariance,
    rolling_max,
    rolling_min,
    rolling_sum,
    rolling_volatility,
    shifted,
    simple_returns,
)
from troupe.errors import ConfigError, DataError

__all__ = [
    "FEATURES",
    "Normaliser",
    "instrument_features",
    "market_feature_names",
    "market_features",
    "rolling_correlation",
    "rolling_covariance",
    "rolling_volatility",
    "simple_returns",
]

_LARGEST = 10.0
"""Ratios of volatilities and distances in them end here: a quiet week before a shock would give thousands."""


def instrument_features(bars: Bars) -> np.ndarray:
    """The features of each instrument, float64 `[T, M, F]`, in the order of `FEATURES`."""
    market = _Market(bars)
    return np.stack([feature(market) for feature in FEATURES.values()], axis=2)


class _Market:
    """Series `[T, M]` that several features share."""

    def __init__(self, bars: Bars) -> None:
        self.open, self.high, self.low, self.close = bars.open, bars.high, bars.low, bars.close
        self.volume = bars.volume
        self.returns = simple_returns(bars.close)
        self.deviation = {window: rolling_volatility(self.returns, window) for window in (5, 20)}
        self.before = np.concatenate([self.close[:1], self.close[:-1]])

    def mean(self, values: np.ndarray, window: int) -> np.ndarray:
        return rolling_sum(values, window) / counts(len(values), window)[:, None]

    def momentum(self, bars: int) -> np.ndarray:
        then = shifted(self.close, bars)
        return np.where(then > 0, self.close / np.where(then > 0, then, 1.0) - 1, self.close / self.close[:1] - 1)


def _ratio(above: np.ndarray, below: np.ndarray, largest: float = np.inf) -> np.ndarray:
    """above / below within +-largest, and 0 where `below` is 0."""
    quotient = np.where(below > 0, above, 0.0) / np.where(below > 0, below, 1.0)
    return np.clip(quotient, -largest, largest)


def _recent(market: _Market, window: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """For k = 0..W-1: close[t - k] relative to close[t] (exactly 0 where prices stand still), and whether it exists."""
    there = [np.arange(len(market.close)) >= k for k in range(window)]
    return [
        (np.where(has[:, None], shifted(market.close, k, 1.0) / market.close - 1, 0.0), has.astype(float)[:, None])
        for k, has in enumerate(there)
    ]


def _trend(market: _Market) -> np.ndarray:
    """Correlation of the last 20 closes with time."""
    n, time, squares, sums, products, spread = (np.zeros((1, 1)) for _ in range(6))
    for k, (x, has) in enumerate(_recent(market, 20)):
        n, time, squares = n + has, time - k * has, squares + k * k * has
        sums, products, spread = sums + x, products - k * x, spread + x * x
    across = products - time * sums / n
    along, height = squares - time * time / n, spread - sums * sums / n
    return np.clip(
        _ratio(across, np.sqrt(np.maximum(along * np.where(height > 1e-12 * spread, height, 0.0), 0))), -1, 1
    )


def _volume_ratio(market: _Market) -> np.ndarray:
    """(v - m) / (v + m), m the mean volume of the 20 bars before."""
    before = np.maximum(counts(len(market.volume), 21) - 1, 1)[:, None]
    usual = rolling_sum(shifted(market.volume, 1), 20) / before
    return _ratio(market.volume - usual, market.volume + usual)


def _range_position(market: _Market) -> np.ndarray:
    """Where the close lies between the 20-bar low (-1) and high (+1)."""
    high, low = rolling_max(market.high, 20), rolling_min(market.low, 20)
    return _ratio((market.close - low) - (high - market.close), high - low)


def _rsi(market: _Market) -> np.ndarray:
    """Relative strength of 14 bars with plain averages (Cutler), 2 RSI / 100 - 1: gains alone are 1, losses -1."""
    return _ratio(rolling_sum(market.returns, 14), rolling_sum(np.abs(market.returns), 14))


def _macd(market: _Market) -> np.ndarray:
    """(EMA_12 - EMA_26) of the close, in units of 20-bar volatility."""
    return _ratio(_averages_apart(market), market.close * market.deviation[20], _LARGEST)


def _macd_signal(market: _Market) -> np.ndarray:
    """MACD minus its EMA_9, in the same units."""
    apart = _averages_apart(market)
    return _ratio(apart - _average(apart, 9), market.close * market.deviation[20], _LARGEST)


def _averages_apart(market: _Market) -> np.ndarray:
    return _average(market.close, 12) - _average(market.close, 26)


def _average(values: np.ndarray, span: int) -> np.ndarray:
    """Exponential moving average of `span`, over the rows there are."""
    decay = 1 - 2 / (span + 1)
    return decayed_sum(values, decay) / decayed_sum(np.ones((len(values), 1)), decay)


def _bollinger(market: _Market) -> np.ndarray:
    """(close - mean) / (2 standard deviations) of the last 20 closes."""
    n, sums, spread = (np.zeros((1, 1)) for _ in range(3))
    for x, has in _recent(market, 20):
        n, sums, spread = n + has, sums + x, spread + x * x
    height = spread - sums * sums / n
    return _ratio(-sums / n, 2 * np.sqrt(np.where(height > 1e-12 * spread, height, 0.0) / n), _LARGEST)


def _true_range(market: _Market) -> np.ndarray:
    """Mean true range of 14 bars, relative to the close."""
    top, bottom = np.maximum(market.high, market.before), np.minimum(market.low, market.before)
    return market.mean((top - bottom) / market.close, 14)


FEATURES: Mapping[str, Callable[[_Market], np.ndarray]] = {
    "return": lambda market: market.returns,
    "mean_5": lambda market: market.mean(market.returns, 5),
    "mean_20": lambda market: market.mean(market.returns, 20),
    "std_5": lambda market: market.deviation[5],
    "std_20": lambda market: market.deviation[20],
    "momentum_5": lambda market: market.momentum(5),
    "momentum_10": lambda market: market.momentum(10),
    "momentum_20": lambda market: market.momentum(20),
    "volatility_ratio": lambda market: _ratio(market.deviation[5], market.deviation[20], _LARGEST),
    "trend": _trend,
    "volume_ratio": _volume_ratio,
    "range_position": _range_position,
    "rsi": _rsi,
    "macd": _macd,
    "macd_signal": _macd_signal,
    "bollinger": _bollinger,
    "true_range": _true_range,
    "gap": lambda market: market.open / market.before - 1,
    "bar_position": lambda market: _ratio(
        (market.close - market.low) - (market.high - market.close), market.high - market.low
    ),
    "drawdown_100": lambda market: market.close / rolling_max(market.close, 100) - 1,
}
"""Name and formula of each feature of an instrument; its function says what it is."""


_MARKET = (
    "market_return", "market_std_20", "market_std", "market_drawdown", "dispersion",
    "day_a", "day_b", "week_a", "week_b", "mean_correlation",
)  # fmt: skip


def market_feature_names(instruments: Sequence[str]) -> tuple[str, ...]:
    """Names of the columns of `market_features`."""
    pairs = [f"correlation_{a}_{b}" for k, a in enumerate(instruments) for b in instruments[k + 1 :]]
    return (*_MARKET, *pairs)


def market_features(bars: Bars, window: int = 100) -> np.ndarray:
    """What the instruments share, float64 `[T, G]`, in the order of `market_feature_names`.

    The return of equal weights, its volatility over 20 bars and over the window, its drawdown from the window's highest
    point, the spread of returns across instruments, the time of day and of week (two waves each, a quarter of a period
    apart, so that no two times look alike), and correlations over the window: their mean, and the upper triangle row by
    row (shrunk, see `rolling_covariance`).
    """
    returns = simple_returns(bars.close)
    size = len(bars.instruments)
    equal = _across(returns) / size
    wealth = np.cumprod(1 + equal)[:, None]  # front to back, so that later rows change nothing
    spread = _across(returns * returns) / size - equal * equal
    i, j = np.triu_indices(size, 1)
    pairs = rolling_correlation(returns, window)[:, i, j]
    mean = _across(pairs) / max(len(i), 1) if len(i) else np.zeros(len(bars))
    columns = [
        equal[:, None],
        rolling_volatility(equal[:, None], 20),
        rolling_volatility(equal[:, None], window),
        wealth / rolling_max(wealth, window) - 1,
        np.sqrt(np.maximum(spread, 0.0))[:, None],
        *(_wave(bars.times, period, lead) for period in (86_400, 7 * 86_400) for lead in (0, period // 4)),
        mean[:, None],
        pairs,
    ]
    return np.concatenate(columns, axis=1)


def _wave(times: np.ndarray, period: int, lead: int) -> np.ndarray:
    """A triangle of this period, from 1 through -1 to 1: a cosine without a library's rounding."""
    return np.abs((times + lead) % period / period * 4 - 2)[:, None] - 1


def _across(values: np.ndarray) -> np.ndarray:
    """Sum over columns, `[T]`, from left to right: the order of NumPy's own sum may depend on the shape."""
    total = np.zeros(len(values))
    for column in values.T:
        total = total + column
    return total


@dataclass(frozen=True, eq=False)
class Normaliser:
    """(x - mean) / std within +-limit, with the mean and std of the rows it was fitted on: those of training alone."""

    mean: np.ndarray  # float64, the shape of one row
    std: np.ndarray  # float64, above 0
    limit: float

    @classmethod
    def fit(cls, features: np.ndarray, *, tail: float = 0.005, limit: float = 5.0) -> Normaliser:
        """From features `[N, ...]` of the training rows, column by column.

        Values beyond the `tail` and 1 - `tail` quantiles count as those, so that one crash does not set the scale. A
        column that does not vary keeps a std of 1. Raises DataError for fewer than two rows or a value that is not
        finite, ConfigError for another tail or limit.
        """
        if not (0 <= tail < 0.5 and 0 < limit < np.inf):
            raise ConfigError(f"tail={tail} must be at least 0 and below 0.5, limit={limit} above 0")
        if len(features) < 2 or not np.isfinite(features).all():
            raise DataError("a normaliser is fitted on two or more rows of finite features")
        rows = np.asarray(features, dtype=np.float64)
        low, high = np.quantile(rows, [tail, 1 - tail], axis=0)
        rows = np.clip(rows, low, high)
        mean, std = rows.mean(axis=0), rows.std(axis=0)
        return cls(mean, np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-30), std, 1.0), limit)

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """The features `[N, ...]` or one row of them, normalised. Raises DataError for rows of another shape."""
        if features.shape[features.ndim - self.mean.ndim :] != self.mean.shape:
            raise DataError(f"features have rows of shape {features.shape[1:]}, the normaliser {self.mean.shape}")
        return np.clip((features - self.mean) / self.std, -self.limit, self.limit)

    def state(self) -> dict[str, Any]:
        """What JSON can hold; `from_state` gives the same normaliser, to the bit."""
        return {"mean": self.mean.tolist(), "std": self.std.tolist(), "limit": self.limit}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Normaliser:
        """Raises DataError for what is not the state of a normaliser."""
        try:
            mean, std = (np.asarray(state[name], dtype=np.float64) for name in ("mean", "std"))
            limit = float(state["limit"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"this is no state of a normaliser: {error!r}; write what state() gave") from error
        if mean.shape != std.shape or not (np.isfinite(mean).all() and np.isfinite(std).all() and (std > 0).all()):
            raise DataError("the state of the normaliser has a mean and std that do not fit, or a std not above 0")
        return cls(mean, std, limit)
