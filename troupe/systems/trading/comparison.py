"""What every evaluation does with what was learned: trade it under other costs, beside simple strategies, and count it.

Legend: A accounts, T bars.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np

from troupe.envs.market.build import Market
from troupe.errors import ConfigError
from troupe.maths.finance import cagr, sharpe
from troupe.maths.returns import is_ruined
from troupe.maths.statistics import Interval, mean_interval
from troupe.systems.trading.assessment import Assessment, assess, sharpe_per_bar
from troupe.systems.trading.backtest import Strategy, Track
from troupe.systems.trading.baselines import BASELINES, RandomMatched
from troupe.systems.trading.trials import Trials, config_hash, market_setting

__all__ = ["CostPoint", "assessed", "checked_sweep", "cost_point", "counted", "rivals"]


@dataclass(frozen=True)
class CostPoint:
    """The learned policies under costs times `factor`."""

    factor: float
    sharpe: Interval  # over seeds, annual; nan where it is not defined
    annual_return: Interval


def rivals(
    trade: Callable[[Strategy, int], Track], learned: Track, accounts: int, seed: int
) -> dict[str, Track]:  # fmt: skip
    """The baselines, and `accounts` random accounts with the turnover of what was learned; `trade(strategy, accounts)`
    is a backtest on the same bars."""
    made = {name: trade(make(), 1) for name, make in BASELINES.items()}
    generator = np.random.default_rng(np.random.SeedSequence([seed, 71]))
    return made | {"random, same turnover": trade(RandomMatched(generator, float(learned.turnover.mean())), accounts)}


def counted(file: Path, data: str, tried: Mapping[str, Any], market: Market, learned: Track) -> np.ndarray:
    """Writes an evaluation down, and returns the Sharpe ratios per bar of all that were made on the same `data`, which
    is a hash of bars; `tried` is what was chosen, besides the market."""
    trials = Trials(file)
    settings = {**tried, "market": market_setting(market)}
    trials.add(data, config_hash(settings), sharpe_per_bar(learned.returns.mean(0)))
    return trials.sharpes(data)


def assessed(
    tracks: Mapping[str, Track], learned: str, trials: np.ndarray, market: Market, seed: int
) -> dict[str, Assessment]:
    """Of every track; `trials` belong to the learned one."""
    rules, found = market.rules, {}
    for number, (name, track) in enumerate(tracks.items()):
        generator = np.random.default_rng(np.random.SeedSequence([seed, 72, number]))
        found[name] = assess(
            name, track, generator, trials=trials if name == learned else None, var_limit=rules.max_portfolio_var,
            var_confidence=rules.var_confidence,
        )  # fmt: skip
    return found


def checked_sweep(factors: Sequence[float]) -> tuple[float, ...]:
    """Factors on all costs. Raises ConfigError unless they are different and 1 is among them."""
    if 1.0 not in factors or len(set(factors)) < len(factors) or not all(isfinite(f) and f >= 0 for f in factors):
        raise ConfigError(f"cost_sweep={tuple(factors)} needs different factors of 0 or more, and 1 among them")
    return tuple(factors)


def cost_point(factor: float, track: Track) -> CostPoint:
    """Of the learned strategy under costs times `factor`."""
    ratios = [float(sharpe(returns, track.periods_per_year)) for returns in track.returns]
    grown = [float(cagr(returns, track.periods_per_year)) for returns in track.returns]
    return CostPoint(factor, _mean_of_defined(ratios, is_ruined(track.returns)), mean_interval(grown))


def _mean_of_defined(ratios: list[float], lost: np.ndarray) -> Interval:
    """Over the seeds that have a Sharpe ratio; not defined (nan) where none has, or where one has `lost` everything."""
    defined = [] if lost.any() else [ratio for ratio in ratios if np.isfinite(ratio)]
    return mean_interval(defined) if defined else Interval(np.nan, -np.inf, np.inf, len(ratios))
