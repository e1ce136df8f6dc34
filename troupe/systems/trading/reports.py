"""What the messages of a trading hierarchy say, measured: a specialist's report, and what two of them should know.

    record = sector_record(track, 0, team.sectors, sector_of, shares, rates=rates)
    reports = performance_reports(record, means, deviations, timestamp=int(track.times[-1]))
    signals = coordination_signals(record.gains, net, team.sectors, value_at_risk=0.012, drawdown=0.04, timestamp=bar)

Pure functions of arrays of one account. Legend: T bars so far, S sectors (a specialist each), M instruments. Row t
stands for the bar in which the decision of bar t was filled and marked, as in `backtest.Track`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from troupe.envs.market import ledger
from troupe.envs.market.team import META
from troupe.errors import ConfigError, DataError
from troupe.maths.returns import ratio, spread
from troupe.systems.trading.backtest import Track
from troupe.systems.trading.messages import CoordinationSignal, PerformanceReport

__all__ = [
    "CoordinationLimits",
    "SectorRecord",
    "coordination_signals",
    "performance_reports",
    "sector_record",
    "unrealized_profit",
]


# --- reports ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class SectorRecord:
    """One account that a hierarchy trades, from its beginning in cash until now. Raises DataError for arrays that do
    not fit together."""

    sectors: tuple[str, ...]
    sector_of: np.ndarray  # int [M]: place in `sectors`
    capital: float  # equity before the first bar, account currency
    periods_per_year: float
    gains: np.ndarray  # float64 [T, S]: what each sector added, a share of the equity before; together the return
    shares: np.ndarray  # float64 [T, S]: of the risk, as they were allocated; 0 of a sector that does not trade
    weights: np.ndarray  # float64 [T, M]: held at the close, signed
    unrealized: np.ndarray  # float64 [M]: open positions' profit now, account currency

    def __post_init__(self) -> None:
        t, s, m = len(self.gains), len(self.sectors), len(self.sector_of)
        for name, shape in (("gains", (t, s)), ("shares", (t, s)), ("weights", (t, m)), ("unrealized", (m,))):
            object.__setattr__(self, name, _finite(getattr(self, name), name, shape))
        if t == 0:
            raise DataError("a report needs a bar that was traded; the record has none")
        if np.unique(self.sector_of).tolist() != list(range(s)):
            found = np.asarray(self.sector_of).tolist()
            raise DataError(f"sector_of numbers the sectors 0 to {s - 1}, each of an instrument or more, found {found}")
        if not ((self.shares >= 0) & (self.shares <= 1)).all():
            raise DataError("shares of the risk lie between 0 and 1; give those that were allocated")

    @property
    def equity(self) -> np.ndarray:
        """float64 `[T]`, before each bar."""
        growth = np.cumprod(1.0 + self.gains.sum(axis=1))
        return self.capital * np.concatenate([[1.0], growth[:-1]])

    def by_sector(self, values: np.ndarray) -> np.ndarray:
        """Sums `[..., M]` over each sector's instruments, `[..., S]`."""
        return values @ _sums(self.sector_of, len(self.sectors))


def performance_reports(
    record: SectorRecord, means: np.ndarray, deviations: np.ndarray, *, timestamp: int, window: int = 100
) -> dict[str, PerformanceReport]:
    """Each specialist's report at the end of the record. `means` and `deviations` `[M]` are those of the Gaussian that
    its policy now has over each instrument's signal.

    Of the whole record, in the account's currency after costs:

        unrealized_pnl = sum of its open positions' profit
        realized_pnl   = sum_t gain_t * equity_t - unrealized_pnl       (costs count as realised when they are paid)

    Of the last `window` bars:

        sharpe_ratio     = sqrt(periods_per_year) * mean(gain_t) / s, s unbiased; 0 without spread or from one bar
        win_rate         = share of the bars with a position that earned; 0 without one
        risk_utilization = mean(its part of the gross exposure) / mean(its share), over the bars in which the account
                           holds anything: 1 is just what it was allocated; 0 where it never does

    and of the policy now, with Phi the normal distribution:

        confidence_score = mean over its instruments of 2 Phi(|mean| / deviation) - 1

    which is a probability, that the policy's noise is smaller than its mean, and not a number that a network was
    trained to say: the chance that a drawn signal keeps the sign of its mean, less the chance that it turns.
    Raises DataError for a deviation below 0, arrays of another shape and a window below 1.
    """
    if window < 1:
        raise DataError(f"a window of {window} bars shows nothing; write 1 or more")
    kept = slice(-window, None)
    gains, gross = record.gains[kept], record.by_sector(np.abs(record.weights))[kept]
    held = (gross > 0) | (gains != 0)  # what was sold at the bar's open, or stopped out, was held in it, too
    unrealized = record.by_sector(record.unrealized)
    numbers = np.stack(
        [
            _confidence(record, means, deviations),
            record.equity @ record.gains - unrealized,
            unrealized,
            np.nan_to_num(ratio(gains.mean(0), spread(gains.T)) * math.sqrt(record.periods_per_year)),
            np.nan_to_num(ratio((gains > 0).sum(0), held.sum(0))),
            _utilization(gross, record.shares[kept]),
        ],
        axis=1,
    )  # [S, 6], in the order of the report's fields
    named = zip(record.sectors, numbers, strict=True)
    return {sector: PerformanceReport(sector, *row.tolist(), timestamp=timestamp) for sector, row in named}


def sector_record(
    track: Track,
    account: int,
    sectors: Sequence[str],
    sector_of: np.ndarray,
    shares: np.ndarray,
    *,
    rates: np.ndarray | None = None,
) -> SectorRecord:
    """The record of one account of a track. `shares` `[T, S]` are those that were allocated at each decision, `rates`
    `[T, M]` the account's currency per quote unit at the closes (None: all quotes are the account's)."""
    profit = _finite(track.profit[account], "profit", (len(track.times), len(sector_of)))
    earned = profit @ _sums(sector_of, len(sectors))
    gains = np.nan_to_num(ratio(earned, track.equity[account, :-1, None]))  # who lost everything gains 0 of nothing
    open_profit = unrealized_profit(
        track.units[account], track.amounts[account], track.fills[account], track.closes, rates
    )
    return SectorRecord(
        tuple(sectors), np.asarray(sector_of), track.capital, track.periods_per_year, gains, shares,
        track.weights[account], open_profit[-1],
    )  # fmt: skip


def unrealized_profit(
    units: np.ndarray, amounts: np.ndarray, fills: np.ndarray, closes: np.ndarray, rates: np.ndarray | None = None
) -> np.ndarray:
    """Profit of what is held against its average entry price, before costs: `[T, M]` each, in the account's currency.

        unrealized_t = units_t * (close_t - entry_t) * rate_t

    `amounts` were filled at `fills` and left `units` at the close; a position that a stop or a margin call closed is 0
    there. The entry is averaged where a position grows and kept where it shrinks, and what it sold is realised.
    Raises DataError where the amounts do not lead to the units: stretches that were put together begin anew.
    """
    entry, before = np.zeros(units.shape[1]), np.zeros(units.shape[1])
    entries = np.empty(units.shape)
    for t, (now, amount, fill) in enumerate(zip(units, amounts, fills, strict=True)):
        expected, largest = before + amount, np.abs(before) + np.abs(amount)
        if not ((now == 0) | (np.abs(now - expected) <= 1e-9 * largest)).all():
            raise DataError(f"in bar {t} the amounts do not lead to the units; give one stretch that begins in cash")
        entry = ledger.average_entry(np, entry, before, amount, fill)
        entries[t], before = entry, now
    profit: np.ndarray = units * (closes - entries)
    return profit if rates is None else profit * rates


def _confidence(record: SectorRecord, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    count = (len(record.sector_of),)
    means, deviations = _finite(means, "means", count), _finite(deviations, "deviations", count)
    if (deviations < 0).any():
        raise DataError(f"a standard deviation of {deviations.min()} is none; give exp(log_std)")
    # A policy without noise is sure, unless it has no opinion either.
    scores = np.where(means != 0, np.inf, 0.0)
    np.divide(np.abs(means), deviations, out=scores, where=deviations > 0)
    sure = np.array([math.erf(score / math.sqrt(2.0)) for score in scores])
    return record.by_sector(sure) / record.by_sector(np.ones(count))


def _sums(sector_of: np.ndarray, count: int) -> np.ndarray:
    """float64 `[M, S]`: 1 where the instrument is of the sector."""
    return (np.asarray(sector_of)[:, None] == np.arange(count)).astype(np.float64)


def _utilization(gross: np.ndarray, shares: np.ndarray) -> np.ndarray:
    total = gross.sum(axis=1)
    invested = total > 0
    if not invested.any():
        return np.zeros(gross.shape[1])
    used = gross[invested] / total[invested, None]
    given = shares[invested].mean(axis=0)
    return np.where(given > 0, used.mean(axis=0) / np.where(given > 0, given, 1.0), 0.0)


# --- signals ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CoordinationLimits:
    """When a signal is sent. Raises ConfigError for a limit that cannot be one."""

    correlation: float = 0.7
    """Of two sectors' profits, above which one could hedge the other: the document's max_correlation_exposure."""
    exposure: float = 0.05
    """Net weight, a multiple of equity, from which a sector's position counts as large."""
    change: float = 0.3
    """Of the correlation between the long and the recent window: the document's 30 %."""
    recent: int = 100
    """Bars of the recent window: the document's correlation_window."""
    long: int = 500
    """Bars before the recent ones that it is compared with; fewer do, from `recent` on."""
    value_at_risk: float = 0.02
    """The limit of one day's value at risk."""
    value_at_risk_use: float = 0.9
    drawdown: float = 0.15
    """The document's max_drawdown_target."""
    drawdown_use: float = 0.8

    def __post_init__(self) -> None:
        if self.recent < 3 or self.long < self.recent:
            raise ConfigError(
                f"windows of {self.recent} and {self.long} bars do not do; recent is 3 or more, long at least as long"
            )
        if not 0 <= self.correlation < 1 or not 0 <= self.change < 2 or self.exposure < 0:
            raise ConfigError(
                f"correlation={self.correlation}, change={self.change} and exposure={self.exposure} lie from 0 to 1, "
                "0 to 2, and at 0 or above"
            )
        for name in ("value_at_risk", "value_at_risk_use", "drawdown", "drawdown_use"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")


def coordination_signals(
    gains: np.ndarray,
    exposures: np.ndarray,
    sectors: Sequence[str],
    *,
    value_at_risk: float | None,
    drawdown: float,
    timestamp: int,
    limits: CoordinationLimits | None = None,
) -> tuple[CoordinationSignal, ...]:
    """What the specialists should know of one another at the end of `gains` `[T, S]` (what each sector added per bar, a
    multiple of equity), with net weights `exposures` `[S]` held now. The numbers stand in each signal's `data`.

    - `hedge_opportunity`: over the recent window the profits of two sectors correlate above `correlation`, and both
      hold a large net position: together they are one bet. Of the two, the one whose profits spread more speaks to the
      other, which could be its hedge: with its positions times `factor` = -cov / var, the variance of both together is
      least. Profits, not prices: a long and a short of things that move together earn against one another, and are a
      hedge already. Priority: the correlation.
    - `correlation_alert`: the correlation of their profits differs by more than `change` between the recent window and
      the bars before it. The windows do not overlap, so that a change is not compared with itself; of 100 bars against
      500, independent profits of a pair differ so much in 0.6 % of the checks. Priority: half of the change.
    - `risk_warning`, from the meta-controller to every specialist: the value at risk is above `value_at_risk_use` of
      its limit, or the drawdown above `drawdown_use` of its target. Priority: the larger of the two uses, at most 1.
      `value_at_risk` is None in a market that measures none.

    A sector without any spread, and a record too short for the windows, have no correlation and give no signal.
    Raises DataError for shapes that do not fit, values that are not finite, and a risk or a drawdown below 0.
    """
    limits, count = limits or CoordinationLimits(), len(sectors)
    gains = _finite(gains, "gains", (len(gains), count))
    exposures = _finite(exposures, "exposures", (count,))
    found = [
        *_hedges(gains, exposures, sectors, timestamp, limits),
        *_changes(gains, sectors, timestamp, limits),
        *_warnings(exposures, sectors, timestamp, value_at_risk, drawdown, limits),
    ]
    return tuple(found)


def _hedges(
    gains: np.ndarray, exposures: np.ndarray, sectors: Sequence[str], timestamp: int, limits: CoordinationLimits
) -> Iterator[CoordinationSignal]:
    if len(gains) < limits.recent:
        return
    recent = gains[-limits.recent :]
    large = (np.abs(exposures) >= limits.exposure) & (exposures != 0)
    for speaks, listens, correlation in _pairs(recent):
        if not (correlation > limits.correlation and large[speaks] and large[listens]):
            continue
        first, second = recent[:, speaks].std(ddof=1), recent[:, listens].std(ddof=1)
        data = {
            "correlation": correlation, "limit": limits.correlation, "bars": limits.recent,
            "exposures": {sectors[speaks]: exposures[speaks], sectors[listens]: exposures[listens]},
            "deviation": math.sqrt(first**2 + second**2 + 2 * correlation * first * second),
            "factor": -correlation * first / second, "deviation_hedged": first * math.sqrt(1 - correlation**2),
        }  # fmt: skip
        yield _signal("hedge_opportunity", sectors[speaks], sectors[listens], data, correlation, timestamp)


def _changes(
    gains: np.ndarray, sectors: Sequence[str], timestamp: int, limits: CoordinationLimits
) -> Iterator[CoordinationSignal]:
    if len(gains) < 2 * limits.recent:
        return
    recent, earlier = gains[-limits.recent :], gains[-limits.recent - limits.long : -limits.recent]
    before = {frozenset(pair): correlation for *pair, correlation in _pairs(earlier)}
    for speaks, listens, correlation in _pairs(recent):
        change = correlation - before.get(frozenset((speaks, listens)), math.nan)
        if abs(change) > limits.change:
            data = {
                "recent": correlation, "long": correlation - change, "change": change, "limit": limits.change,
                "recent_bars": len(recent), "long_bars": len(earlier),
            }  # fmt: skip
            yield _signal("correlation_alert", sectors[speaks], sectors[listens], data, abs(change) / 2, timestamp)


def _warnings(
    exposures: np.ndarray,
    sectors: Sequence[str],
    timestamp: int,
    value_at_risk: float | None,
    drawdown: float,
    limits: CoordinationLimits,
) -> Iterator[CoordinationSignal]:
    data: dict[str, Any] = {}
    high = []
    for name, value in (("value_at_risk", value_at_risk), ("drawdown", drawdown)):
        if value is None:
            continue
        if not (math.isfinite(value) and value >= 0):
            raise DataError(f"{name} is {value}; give a loss as a share of equity, 0 or above")
        use = value / getattr(limits, name)
        data |= {name: value, f"{name}_limit": getattr(limits, name), f"{name}_use": use}
        if use > getattr(limits, f"{name}_use"):
            high.append(use)
    for sector, exposure in zip(sectors, exposures, strict=True) if high else ():
        yield _signal("risk_warning", META, sector, data | {"exposure": exposure}, min(1.0, max(high)), timestamp)


def _pairs(gains: np.ndarray) -> Iterator[tuple[int, int, float]]:
    """(the one that spreads more, the other, their correlation) of all pairs that both have spread."""
    deviations = spread(gains.T)
    for a, b in combinations(range(gains.shape[1]), 2):
        if deviations[a] > 0 and deviations[b] > 0:
            correlation = float(np.corrcoef(gains[:, a], gains[:, b])[0, 1])
            first, second = (a, b) if deviations[a] >= deviations[b] else (b, a)
            yield first, second, min(1.0, max(-1.0, correlation))


def _signal(
    kind: str, speaks: str, listens: str, data: dict[str, Any], priority: float, timestamp: int
) -> CoordinationSignal:
    return CoordinationSignal(speaks, listens, kind, data, min(1.0, max(0.0, priority)), timestamp=timestamp)


def _finite(values: Any, name: str, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(values, dtype=np.float64)
    if array.shape != shape:
        raise DataError(f"{name} has shape {array.shape}, not {shape}")
    if not np.isfinite(array).all():
        where = ", ".join(str(place) for place in np.argwhere(~np.isfinite(array))[0])
        raise DataError(f"{name} is not finite at {where}; leave out what was not measured, on purpose")
    return array
