"""How a phase is judged, in the words of document 002: numbers with intervals over episodes, ready for JSON.

Legend: A episodes (accounts), T bars, M instruments, S sectors. Sharpe ratios are per year. A number that is not
defined is None.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from troupe.envs.market.regimes import REGIMES, regime_series
from troupe.maths import finance, value_at_risk
from troupe.maths.statistics import mean_interval, paired_difference
from troupe.systems.trading.backtest import Track
from troupe.systems.trading.hierarchy import HierarchyStrategy
from troupe.systems.trading.trips import round_trips

__all__ = ["PHASE_TARGETS", "episode_sharpes", "portfolio_metrics", "specialist_metrics", "team_metrics"]

PHASE_TARGETS: Mapping[int, Mapping[str, tuple[str, float]]] = {
    1: {"sharpe": ("> 1.5", 1.5), "max_drawdown": ("< 20 %", 0.20), "win_rate": ("> 55 %", 0.55)},
    2: {
        "sharpe": ("> 1.8", 1.8), "max_drawdown": ("< 18 %", 0.18), "win_rate": ("> 60 %", 0.60),
        "var_compliance": ("> 95 %", 0.95),
    },
    3: {
        "sharpe": ("> 2.0", 2.0), "max_drawdown": ("< 15 %", 0.15), "win_rate": ("> 65 %", 0.65),
        "var_compliance": ("> 98 %", 0.98),
    },
}  # fmt: skip
"""Document 002's targets: phase -> metric -> (as written, number). They are reported, never tuned to."""


def episode_sharpes(track: Track) -> np.ndarray:
    """Annual Sharpe ratio of each episode `[A]`, 0 of one that did nothing. Of one that was ruined it says little:
    gates refuse those (`judging.decide`)."""
    returns = track.returns
    deviation = returns.std(axis=1, ddof=1)
    ratio = np.where(np.ptp(returns, axis=1) > 0, returns.mean(1) / np.where(deviation > 0, deviation, 1.0), 0.0)
    return np.asarray(ratio * np.sqrt(track.periods_per_year))


def specialist_metrics(track: Track) -> dict[str, Any]:
    """Phase 1: of one specialist's portfolio, and of each instrument that it traded."""
    gains = _by_instrument(track)
    traded = [i for i in range(len(track.instruments)) if track.turnover.any() and np.abs(track.weights[:, :, i]).any()]
    return portfolio_metrics(track) | {
        "instruments": {
            track.instruments[i]: {
                "sharpe": _over(finance.sharpe(gains[:, :, i], track.periods_per_year)),
                "max_drawdown": _over(finance.max_drawdown(gains[:, :, i])),
                "win_rate": _win_rate(track, track.instruments[i]),
            }
            for i in traded
        }
    }


def portfolio_metrics(track: Track) -> dict[str, Any]:
    """Of the whole account: what the table of targets asks for, and risk-adjusted returns."""
    year, returns = track.periods_per_year, track.returns
    return {
        "episodes": len(returns), "bars": returns.shape[1],
        "sharpe": _over(episode_sharpes(track)),
        "sortino": _over(finance.sortino(returns, year)),
        "calmar": _over(finance.calmar(returns, year)),
        "annual_return": _over(finance.cagr(returns, year)),
        "annual_volatility": _over(finance.annual_volatility(returns, year)),
        "max_drawdown": _over(finance.max_drawdown(returns)),
        "win_rate": _win_rate(track),
        "bar_win_rate": _over(finance.bar_win_rate(returns)),
        "turnover_per_bar": _over(track.turnover.mean(1)),
        "cost_per_bar": _over(track.cost.mean(1)),
        "ruined": int(track.ruined.sum()),
    }  # fmt: skip


def team_metrics(
    track: Track, strategy: HierarchyStrategy, equal: Track, equal_gains: np.ndarray, *, var_limit: float | None,
    var_confidence: float = 0.95, drawdown_target: float | None = 0.15,
) -> dict[str, Any]:  # fmt: skip
    """Phases 2 and 3: the portfolio, and what makes it. `equal` is the same team with equal allocation on the same
    episodes, `equal_gains` its sectors' gains `[A, T, S]`."""
    return portfolio_metrics(track) | {
        "allocation_efficiency": _allocation(track, strategy, equal, equal_gains),
        "risk_compliance": _risk(track, var_limit, var_confidence, drawdown_target),
        "specialist_utilization": _utilization(track, strategy),
        "coordination_quality": _coordination(strategy),
        "robustness": _robustness(track),
    }


def _allocation(
    track: Track, strategy: HierarchyStrategy, equal: Track, equal_gains: np.ndarray
) -> dict[str, Any]:  # fmt: skip
    """How well capital goes to where it earns: the gain in Sharpe ratio over equal allocation of the same specialists,
    and the rank correlation, over the bars of an episode, of a sector's share with what the sector earns in the bar
    under equal allocation (averaged over sectors)."""
    ranks = [
        float(np.mean([_correlation(share[:, k], gain[:, k]) for k in range(share.shape[1])]))
        for share, gain in zip(strategy.shares, equal_gains, strict=True)
    ]
    gain = paired_difference(episode_sharpes(track).tolist(), episode_sharpes(equal).tolist())
    return {"sharpe_gain": _plain(gain), "information_coefficient": _over(ranks)}


def _risk(track: Track, var_limit: float | None, confidence: float, drawdown_target: float | None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "limits": {name: float(acted.mean()) for name, acted in track.fired.items()},
        "drawdown_compliance": None
        if drawdown_target is None
        else float((finance.max_drawdown(track.returns) <= drawdown_target).mean()),
        "var_compliance": None, "var_breaches": None, "var_breaches_expected": None,
    }  # fmt: skip
    if var_limit is None:
        return found
    forecasts = track.value_at_risk / np.sqrt(track.periods_per_day)
    held = forecasts > 0
    found["var_compliance"] = float(value_at_risk.var_compliance(track.value_at_risk.reshape(-1), var_limit))
    if held.any():
        found["var_breaches"] = float(value_at_risk.breaches(track.returns, forecasts)[held].mean())
        found["var_breaches_expected"] = 1.0 - confidence
    return found


def _utilization(track: Track, strategy: HierarchyStrategy) -> dict[str, Any]:
    """How effectively specialists are used: their shares, how evenly (effective number of sectors over all of them, by
    the entropy of each bar's shares), how much of their risk is called for, and when they hold anything."""
    shares, team = strategy.shares, strategy.team
    entropy = -(shares * np.log(np.maximum(shares, 1e-12))).sum(2)
    held = {
        sector: float((np.abs(track.weights[:, :, places]).sum(2) > 0).mean())
        for sector, places in _places(track.instruments, team.members).items()
    }
    return {
        "share": {sector: _over(shares[:, :, k].mean(1)) for k, sector in enumerate(team.sectors)},
        "effective_specialists": _over(np.exp(entropy).mean(1) / len(team.sectors)),
        "risk_appetite": _over(strategy.risk.mean(1)),
        "active": held,
    }


def _coordination(strategy: HierarchyStrategy) -> dict[str, Any]:
    """Whether sectors add to or cancel one another's risk: the volatility of the sum over the sum of volatilities (1:
    all move together), the mean correlation of their gains, and the share of bars in which they disagree."""
    gains = strategy.sector_gains
    spread = gains.std(1)
    together = gains.sum(2).std(1)
    ratio = np.where(spread.sum(1) > 0, together / np.where(spread.sum(1) > 0, spread.sum(1), 1.0), np.nan)
    sectors = gains.shape[2]
    pairs = [
        float(np.mean([_correlation(each[:, i], each[:, j], ranks=False) for i in range(sectors) for j in range(i)]))
        for each in gains
    ] if sectors > 1 else []  # fmt: skip
    both = (gains > 0).any(2) & (gains < 0).any(2)
    return {
        "diversification": _over(ratio), "correlation": _over(pairs), "disagreement": _over(both.mean(1)),
    }  # fmt: skip


def _robustness(track: Track) -> dict[str, Any]:
    """The Sharpe ratio by market regime, of all episodes' bars in it together, and the worst of them."""
    closes = track.closes if track.closes.ndim == 3 else track.closes[None]
    moves = np.diff(closes, axis=1) / closes[:, :-1]
    labels = regime_series(moves.mean(2).T).T
    returns = np.broadcast_to(track.returns[:, 1:], (len(track.returns), labels.shape[1]))
    labels = np.broadcast_to(labels, returns.shape)
    # A bar belongs to the regime that was known before it.
    known, after = labels[:, :-1], returns[:, 1:]
    found: dict[str, Any] = {}
    for number, name in enumerate(REGIMES):
        bars = after[known == number]
        moved = len(bars) > 1 and np.ptp(bars) > 0
        sharpe = float(bars.mean() / bars.std(ddof=1) * np.sqrt(track.periods_per_year)) if moved else None
        found[name] = {"bars": len(bars), "sharpe": sharpe}
    known_ratios = [each["sharpe"] for each in found.values() if each["sharpe"] is not None and each["bars"] >= 100]
    return {"regimes": found, "worst_sharpe": min(known_ratios) if known_ratios else None}


# ---------------------------------------------------------------------------------------------- small pieces


def _by_instrument(track: Track) -> np.ndarray:
    """Simple returns of the account by instrument `[A, T, M]`."""
    return np.asarray(track.profit / np.maximum(track.equity[:, :-1, None], 1e-12))


def _places(instruments: Sequence[str], members: Mapping[str, Sequence[str]]) -> dict[str, list[int]]:
    return {sector: [instruments.index(name) for name in names] for sector, names in members.items()}


def _win_rate(track: Track, instrument: str | None = None) -> dict[str, Any] | None:
    """Share of profitable round trips per episode that has any."""
    rates = []
    for account in range(len(track.returns)):
        trips = [t.profit for t in round_trips(track, account) if instrument in (None, t.instrument)]
        if trips:
            rates.append(float(finance.win_rate(trips)))
    return _over(rates)


def _over(values: Iterable[float] | np.ndarray) -> dict[str, Any] | None:
    """Mean over the episodes for which it is defined, 95 % interval, and how many those are."""
    known = [float(value) for value in values if np.isfinite(value)]
    return _plain(mean_interval(known)) if known else None


def _plain(interval: Any) -> dict[str, Any]:
    bounds = {
        side: (value if np.isfinite(value) else None)
        for side, value in (("low", interval.low), ("high", interval.high))
    }
    return {"mean": interval.mean, **bounds, "n": interval.n}


def _correlation(a: np.ndarray, b: np.ndarray, *, ranks: bool = True) -> float:
    """0 where one of the two stands still."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    if ranks:
        from scipy.stats import rankdata

        a, b = rankdata(a), rankdata(b)
    return float(np.corrcoef(a, b)[0, 1])
