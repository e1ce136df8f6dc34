"""A backtest: some accounts trade a stretch of the tape by a strategy, and everything they did is written down.

Legend: A accounts side by side, T bars traded, M instruments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from troupe.envs.market.core import MarketCore, MarketState
from troupe.errors import DataError

__all__ = ["Strategy", "Track", "backtest", "episodes"]

Strategy = Callable[[MarketCore, MarketState], Any]
"""Chooses actions `[A, M]` in [-1, 1] (weights in units of the largest position) from what is known at the bar. One
with a method `begin(core, accounts)` is told of a beginning, one with `after(state, outcome)` what a bar brought to
accounts that stood at `state`."""


@dataclass(frozen=True, eq=False)
class Track:
    """What a strategy did. Index t stands for the bar in which the decision of bar t was filled and marked."""

    instruments: tuple[str, ...]
    periods_per_year: float
    periods_per_day: float
    capital: float
    times: np.ndarray  # int64 [T]: closes at which the equity is marked; [A, T] where accounts began at different bars
    returns: np.ndarray  # float64 [A, T], after costs
    cost: np.ndarray  # float64 [A, T], share of the equity before
    turnover: np.ndarray  # float64 [A, T]
    weights: np.ndarray  # float64 [A, T, M]: held at the close
    units: np.ndarray  # float64 [A, T, M]: held at the close
    amounts: np.ndarray  # float64 [A, T, M]: filled
    fills: np.ndarray  # float64 [A, T, M]: at these prices
    profit: np.ndarray  # float64 [A, T, M]: of each instrument, after its costs
    charges: np.ndarray  # float64 [A, T, M]: those costs, swap included
    closes: np.ndarray  # float64 [T, M], or [A, T, M]
    value_at_risk: np.ndarray  # float64 [A, T]: one-day forecasts
    fired: Mapping[str, np.ndarray]  # limit -> bool [A, T]
    ruined: np.ndarray  # bool [A]: went below the ruin level; the account does nothing afterwards

    @property
    def equity(self) -> np.ndarray:
        """float64 `[A, T + 1]`, beginning with the capital."""
        growth = np.cumprod(1.0 + self.returns, axis=1)
        return self.capital * np.concatenate([np.ones((len(growth), 1)), growth], axis=1)

    def __add__(self, other: Track) -> Track:
        """The two stretches one after the other, as stitched out-of-sample folds."""
        if other.times[0] <= self.times[-1]:
            raise DataError("stretches that are put together must follow one another")
        along = {name: np.concatenate([getattr(self, name), getattr(other, name)], axis=1) for name in _KEPT}
        first = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in ("times", "closes")}
        fired = {name: np.concatenate([self.fired[name], other.fired[name]], axis=1) for name in self.fired}
        joined: dict[str, Any] = {**first, **along}
        return replace(self, fired=fired, ruined=self.ruined | other.ruined, **joined)

    def beside(self, other: Track) -> Track:
        """The accounts of both over the same bars."""
        if self.times.tolist() != other.times.tolist():
            raise DataError("accounts that stand side by side trade the same bars")
        names = (*_KEPT, "ruined")
        joined: dict[str, Any] = {name: np.concatenate([getattr(self, name), getattr(other, name)]) for name in names}
        fired = {name: np.concatenate([self.fired[name], other.fired[name]]) for name in self.fired}
        return replace(self, fired=fired, **joined)


def backtest(core: MarketCore, strategy: Strategy, start: int, stop: int, accounts: int = 1) -> Track:
    """Decisions at the rows `start` to `stop - 1`, so that the last one is filled and marked at row `stop`.

    A ruined account stays in cash. Raises DataError for rows that are no stretch of one path.
    """
    if not 0 <= start < stop < len(core.tape):
        raise DataError(f"a backtest from row {start} to {stop} does not fit bars 0 to {len(core.tape) - 1}")
    if np.searchsorted(core.tape.first, start, "right") != np.searchsorted(core.tape.first, stop, "right"):
        raise DataError(f"rows {start} and {stop} belong to different paths")
    rows = np.arange(start + 1, stop + 1)
    return _traded(core, strategy, np.full(accounts, start), stop - start, rows)


def episodes(core: MarketCore, strategy: Strategy, starts: np.ndarray, bars: int) -> Track:
    """Accounts that begin at different rows, `bars` bars each. Raises DataError for one that leaves its path."""
    starts = np.asarray(starts, dtype=np.int64)
    if bars < 1 or not len(starts) or (starts < 0).any() or (starts + bars >= len(core.tape)).any():
        raise DataError(f"episodes of {bars} bars do not fit bars 0 to {len(core.tape) - 1}")
    if (
        np.searchsorted(core.tape.first, starts, "right") != np.searchsorted(core.tape.first, starts + bars, "right")
    ).any():
        raise DataError(f"an episode of {bars} bars would leave its path")
    return _traded(core, strategy, starts, bars, starts[:, None] + np.arange(1, bars + 1))


def _traded(core: MarketCore, strategy: Strategy, starts: np.ndarray, bars: int, rows: np.ndarray) -> Track:
    """`rows` `[T]` or `[A, T]`: where the accounts are marked."""
    if hasattr(strategy, "begin"):
        strategy.begin(core, len(starts))
    state = core.begin(starts)
    kept: dict[str, list[np.ndarray]] = {name: [] for name in _KEPT}
    fired: dict[str, list[np.ndarray]] = {}
    ruined = np.zeros(len(starts), dtype=bool)
    for _ in range(bars):
        if ruined.any():  # what is left is settled: no bar moves it any more
            state = core.merge(state, ruined, core.begin(state.row))
        actions = np.where(ruined[:, None], 0.0, np.asarray(strategy(core, state), dtype=np.float64))
        before = state
        state, outcome = core.step(state, actions, detail=True)
        if hasattr(strategy, "after"):
            strategy.after(before, outcome)
        ruined = ruined | outcome.terminated
        row = (
            outcome.gain, outcome.cost, outcome.turnover, _weights(core, state), state.book.units, outcome.amounts,
            outcome.fills, outcome.profit, outcome.charges, outcome.value_at_risk,
        )  # fmt: skip
        for name, values in zip(_KEPT, row, strict=True):
            kept[name].append(values)
        for name, values in outcome.fired.items():
            fired.setdefault(name, []).append(values)
    stacked = {name: np.stack(values, axis=1) for name, values in kept.items()}
    return Track(
        instruments=core.instruments, periods_per_year=core.tape.periods_per_year,
        periods_per_day=core.tape.periods_per_day, capital=core.rules.initial_capital,
        times=core.tape.times[rows], closes=core.tape.close[rows],
        fired={n: np.stack(v, axis=1) for n, v in fired.items()}, ruined=ruined, **stacked,
    )  # fmt: skip


def _weights(core: MarketCore, state: MarketState) -> np.ndarray:
    """Held `[A, M]`; 0 for an account without equity, which has none to share."""
    solvent = state.equity > 0
    held = core.weights(state._replace(equity=np.where(solvent, state.equity, 1.0)))
    return np.where(solvent[:, None], held, 0.0)


_KEPT = ("returns", "cost", "turnover", "weights", "units", "amounts", "fills", "profit", "charges", "value_at_risk")
