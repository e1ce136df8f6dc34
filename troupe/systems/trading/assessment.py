"""What a track is worth: the metrics of document 002 with intervals, and whether there is an edge at all.

A number without its uncertainty is no result. Each metric is a mean over seeds with a Student interval, which tells of
the seeds on these bars; the Sharpe ratio of a single track, and that of all seeds together as an equal-weight team, has
a block bootstrap interval, which tells of other bars. Beside them stands the smallest Sharpe ratio that a record of
this length could have shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from troupe.maths import finance, sharpe_tests, value_at_risk
from troupe.maths.block_bootstrap import sharpe_interval
from troupe.maths.edge import EdgeTest, edge_test
from troupe.maths.returns import is_ruined
from troupe.maths.statistics import Interval, mean_interval
from troupe.systems.trading.backtest import Track
from troupe.systems.trading.trips import round_trips

__all__ = ["ALPHA", "METRICS", "Assessment", "assess", "sharpe_per_bar"]

ALPHA = 0.01
"""Of the test for an edge."""

METRICS = (
    "annual return", "annual volatility", "sharpe", "sortino", "calmar", "max drawdown", "win rate", "bar win rate",
    "profit factor", "trades", "turnover", "cost", "exposure", "var compliance", "sharpe of the team",
)  # fmt: skip


@dataclass(frozen=True)
class Assessment:
    """One strategy on one stretch. `metrics` are per year where they can be."""

    name: str
    seeds: int
    years: float
    metrics: Mapping[str, Interval]  # means over the seeds that have it (a flat one has no Sharpe ratio, and where one
    # lost everything what it has none of is left out for all); of one, the Sharpe ratio is bootstrapped
    edge: EdgeTest  # of the mean of all seeds' returns: an equal-weight team of them
    significant: int  # seeds with an edge of their own
    probabilistic: float  # probability that the true Sharpe ratio of that mean is above 0
    deflated: float | None  # the same against the best of so many trials; None before any was recorded
    trials: int
    detectable: float  # smallest annual Sharpe ratio that so many years show with power 0.8 at 5 %
    kupiec: float | None  # p-value that the VaR forecast was right, of all seeds together; None without forecasts
    ruined: int

    @property
    def verdict(self) -> str:
        """In one sentence."""
        if self.edge.significant:
            return f"an edge at alpha {self.edge.alpha:g} (p = {self.edge.p_value:.2g})"
        return f"no edge at alpha {self.edge.alpha:g} (p = {self.edge.p_value:.2g})"


def assess(
    name: str,
    track: Track,
    generator: np.random.Generator,
    *,
    trials: np.ndarray | None = None,
    var_limit: float | None = None,
    var_confidence: float = 0.95,
) -> Assessment:
    """The track's accounts are seeds of one strategy. `trials`: Sharpe ratios per bar of all configurations that were
    tried on the same data, this one included."""
    per_year = track.periods_per_year
    rows = [_metrics(track, account, var_limit) for account in range(len(track.returns))]
    mean = track.returns.mean(0)
    moved, lost = bool(np.ptp(mean) > 0), is_ruined(track.returns)
    metrics = {key: mean_interval(found) for key in METRICS if (found := _found(rows, key, lost))}
    if moved and not lost.any():
        team = sharpe_interval(mean, per_year, generator)
        metrics |= {"sharpe": team} if len(rows) == 1 else {"sharpe of the team": team}
    years = track.returns.shape[1] / per_year
    tried = np.zeros(0) if trials is None else trials
    deflated = None
    if len(tried) > 1 and moved:
        deflated = sharpe_tests.deflated_sharpe(mean, len(tried), float(tried.var(ddof=1)))
    return Assessment(
        name, len(rows), years, metrics, edge_test(mean, ALPHA),
        sum(edge_test(returns, ALPHA).significant for returns in track.returns),
        sharpe_tests.probabilistic_sharpe(mean) if moved else 0.0, deflated, len(tried),
        sharpe_tests.smallest_detectable_sharpe(years), _kupiec(track, var_confidence), int(track.ruined.sum()),
    )  # fmt: skip


def _metrics(track: Track, account: int, var_limit: float | None) -> dict[str, float]:
    per_year, returns = track.periods_per_year, track.returns[account]
    trips = [trip.profit for trip in round_trips(track, account)]
    held = np.abs(track.weights[account]).sum(1)
    found = {
        "annual return": finance.cagr(returns, per_year),
        "annual volatility": finance.annual_volatility(returns, per_year),
        "sharpe": finance.sharpe(returns, per_year),
        "sortino": finance.sortino(returns, per_year),
        "calmar": finance.calmar(returns, per_year),
        "max drawdown": finance.max_drawdown(returns),
        "bar win rate": finance.bar_win_rate(returns),
        "trades": len(trips),
        "turnover": track.turnover[account].mean() * per_year,
        "cost": track.cost[account].mean() * per_year,
        "exposure": held.mean(),
    }
    if len(trips):
        found |= {"win rate": finance.win_rate(trips), "profit factor": finance.profit_factor(trips)}
    if var_limit is not None:
        found["var compliance"] = value_at_risk.var_compliance(track.value_at_risk[account], var_limit)
    return {key: float(value) for key, value in found.items() if np.isfinite(value)}


def _found(rows: list[dict[str, float]], key: str, lost: np.ndarray) -> list[float]:
    """One metric of all seeds that have it; of none where one that `lost` everything has it not: a mean over the
    survivors would speak for all."""
    fails = any(key not in row for row, gone in zip(rows, lost, strict=True) if gone)
    return [] if fails else [row[key] for row in rows if key in row]


def sharpe_per_bar(returns: np.ndarray) -> float:
    """Mean over standard deviation of a record `[T]`; 0 without spread."""
    deviation = float(returns.std(ddof=1))
    return float(returns.mean()) / deviation if deviation > 0 else 0.0


def _kupiec(track: Track, confidence: float) -> float | None:
    """Bar by bar: a day's forecast over the square root of its bars, against what the bar lost. Seeds trade the same
    bars, so their p-values are no independent ones: twice their mean is a p-value whatever ties them (Vovk and Wang
    2020, Biometrika 107:791)."""
    found: list[float] = []
    for returns, forecasts in zip(track.returns, track.value_at_risk / np.sqrt(track.periods_per_day), strict=True):
        hits = (returns < -forecasts)[forecasts > 0]
        if len(hits) > 1:
            found.append(value_at_risk.kupiec(hits, confidence).p_value)
    return min(1.0, (2.0 if len(found) > 1 else 1.0) * float(np.mean(found))) if found else None
