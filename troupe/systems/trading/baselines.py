"""What a trader must beat: simple strategies in the same engine, under the same costs and limits.

All use what was known at the bar alone. Each is a class or function whose call gives actions `[A, M]`, weights in units
of the largest position. Those that hold a portfolio give it as large as `max_position_size` allows its largest weight
to be, unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from troupe.envs.market.core import MarketCore, MarketState
from troupe.systems.trading.backtest import Strategy

__all__ = ["BASELINES", "BuyAndHold", "RandomMatched", "cash", "equal_risk", "equal_weight", "inverse_volatility",
           "momentum", "risk_parity_weights"]  # fmt: skip


def cash(core: MarketCore, state: MarketState) -> np.ndarray:
    """Holds nothing."""
    return np.zeros(state.book.units.shape)


def equal_weight(core: MarketCore, state: MarketState) -> np.ndarray:
    """1/N (DeMiguel et al. 2009): every instrument long with the same weight, rebalanced at each bar."""
    return np.ones(state.book.units.shape)


class BuyAndHold:
    """Buys equal weights at the first bar of each instrument, and then asks for what it already holds: only the limits
    make it trade again, where a position has grown beyond them, or where they have closed everything. `size` is the
    first weight in units of the largest position."""

    def __init__(self, size: float = 1.0) -> None:
        self.size = size
        self._bought = np.zeros((0, 0), dtype=bool)

    def begin(self, core: MarketCore, accounts: int) -> None:
        self._bought = np.zeros((accounts, len(core.instruments)), dtype=bool)

    def __call__(self, core: MarketCore, state: MarketState) -> np.ndarray:
        held = state.book.units != 0
        self._bought = np.where(held.any(1, keepdims=True), self._bought | held, False)
        return np.where(self._bought, core.weights(state) / core.rules.max_position_size, self.size)


def inverse_volatility(core: MarketCore, state: MarketState) -> np.ndarray:
    """Weights in proportion to 1 / volatility over the window."""
    return _scaled(1.0 / _deviations(core, state))


def equal_risk(core: MarketCore, state: MarketState) -> np.ndarray:
    """Every instrument contributes the same to the portfolio's variance (Maillard, Roncalli and Teiletche 2010)."""
    return _scaled(np.stack([risk_parity_weights(covariance) for covariance in _covariance(core, state)]))


def risk_parity_weights(covariance: np.ndarray, rounds: int = 100) -> np.ndarray:
    """Long-only weights `[M]`, summing to 1, with equal risk contributions: cyclical coordinate descent on
    1/2 w'Cw - sum log w / M (Griveau-Billion, Richard and Roncalli 2013, equation 9)."""
    size = len(covariance)
    weights = 1.0 / np.sqrt(np.maximum(np.diag(covariance), 1e-16))
    weights /= weights.sum()
    scaled = covariance / np.maximum(np.trace(covariance) / size, 1e-16)
    for _ in range(rounds):
        before = weights.copy()
        for i in range(size):
            own = max(scaled[i, i], 1e-12)
            others = scaled[i] @ weights - scaled[i, i] * weights[i]
            weights[i] = (-others + np.sqrt(others * others + 4.0 * own / size)) / (2.0 * own)
        if np.abs(weights - before).max() < 1e-10:
            break
    return weights / weights.sum()


def momentum(core: MarketCore, state: MarketState, lookback: int = 100) -> np.ndarray:
    """Time-series momentum (Moskowitz, Ooi and Pedersen 2012): long what rose over the lookback, short what fell, each
    with weights in proportion to 1 / volatility."""
    rows = np.asarray(state.row)
    first = core.tape.first[np.searchsorted(core.tape.first, rows, "right") - 1]
    before = np.maximum(rows - lookback, first)
    side = np.sign(core.tape.close[rows] - core.tape.close[before])
    return _scaled(1.0 / _deviations(core, state)) * side


class RandomMatched:
    """Random sides with the same turnover as somebody else: each position is drawn anew (long, short or none) with a
    probability that is found so that the traded value per bar agrees."""

    def __init__(self, generator: np.random.Generator, turnover: float) -> None:
        self._generator, self._turnover = generator, turnover
        self._sides = np.zeros((0, 0))

    def begin(self, core: MarketCore, accounts: int) -> None:
        self._sides = self._generator.integers(-1, 2, (accounts, len(core.instruments))).astype(float)

    def __call__(self, core: MarketCore, state: MarketState) -> np.ndarray:
        # A redraw moves a side by 8/9 on average: E|a - b| for a, b uniform on {-1, 0, 1}.
        moved = len(core.instruments) * core.rules.max_position_size * 8 / 9
        again = self._generator.random(self._sides.shape) < min(1.0, self._turnover / moved)
        drawn = self._generator.integers(-1, 2, self._sides.shape)
        held = core.weights(state) / core.rules.max_position_size
        begun = (np.asarray(state.row) == np.asarray(state.begun))[:, None]
        self._sides = np.where(again, drawn, self._sides)
        return np.where(again | begun, self._sides, held)  # what is not drawn anew is not traded either


BASELINES: Mapping[str, Callable[[], Strategy]] = {
    "cash": lambda: cash,
    "buy and hold": BuyAndHold,
    "1/N": lambda: equal_weight,
    "inverse volatility": lambda: inverse_volatility,
    "equal risk contribution": lambda: equal_risk,
    "momentum": lambda: momentum,
}
"""By the name that tables give them; `RandomMatched` needs a turnover to match."""


def _past_returns(core: MarketCore, state: MarketState) -> np.ndarray:
    """Returns `[A, W, M]` of the window up to the bar, within its path."""
    rows, window = np.asarray(state.row), core.rules.correlation_window
    first = core.tape.first[np.searchsorted(core.tape.first, rows, "right") - 1]
    past = rows[:, None] - np.arange(window)[None, ::-1]
    now, before = np.maximum(past, first[:, None]), np.maximum(past - 1, first[:, None])
    return core.tape.close[now] / core.tape.close[before] - 1.0


def _covariance(core: MarketCore, state: MarketState) -> np.ndarray:
    returns = _past_returns(core, state)
    centred = returns - returns.mean(1, keepdims=True)
    return np.einsum("awi,awj->aij", centred, centred) / (returns.shape[1] - 1)


def _deviations(core: MarketCore, state: MarketState) -> np.ndarray:
    """Standard deviations `[A, M]`; an instrument that stood still counts as the calmest of those that moved."""
    found = _past_returns(core, state).std(1)
    calmest = np.where(found > 0, found, np.inf).min(1, keepdims=True)
    return np.where(found > 0, found, np.where(np.isfinite(calmest), calmest, 1.0))


def _scaled(weights: np.ndarray) -> np.ndarray:
    """The largest weight becomes 1."""
    return weights / weights.max(1, keepdims=True)
