"""The messages of an evaluation: what a hierarchy's agents told one another while it traded, bar by bar.

    with hub_of(config, folder) as hub:
        statistics = converse(trainer.play(trainer.traded(), "test"), hub=hub)

Nothing is decided here. A team's agents speak through their observations (see `troupe.envs.market.team`); this writes
down what they said, what each specialist's books showed by then, and what limits did to the account. A message carries
the close of the bar that it is about. Row t of a `Track` is the bar in which the decision of bar t was filled and
marked: its allocation was said at the close before, and is what the specialists read at `times[t]`.

Legend: T bars, S sectors, M instruments, of one account.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from troupe.envs.market.config import BreakerLevel, MarketRules
from troupe.envs.market.regimes import REGIMES, regime_series
from troupe.errors import ConfigError, DataError
from troupe.stores.atomic import storage_errors
from troupe.systems.trading.backtest import Track
from troupe.systems.trading.hierarchy import HierarchyStrategy
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.systems.trading.hub import CommunicationHub
from troupe.systems.trading.judging import Played
from troupe.systems.trading.messages import AllocationMessage
from troupe.systems.trading.reports import (
    CoordinationLimits,
    SectorRecord,
    performance_reports,
    sector_record,
    unrealized_profit,
)

__all__ = ["LOG", "converse", "hub_of", "limits_of"]

LOG = "messages.jsonl"

_RULES = {
    "sector": "max_sector_allocation", "leverage": "max_leverage", "correlation": "max_correlation_exposure",
    "var": "max_portfolio_var", "stop_loss": "stop_loss_pct", "margin_call": "margin_call",
}  # fmt: skip
"""Limit -> the rule that sets it. The circuit breaker is told by the levels that were passed."""

_SEVERITY = {"stop_loss": "warning", "margin_call": "critical"}
"""Of limits that closed positions; the others only shrink what was asked for."""


def hub_of(config: TradingConfig, folder: str | Path) -> CommunicationHub:
    """The hub of an evaluation, as `config.communication` wants it. With `log_all_messages` the messages go to
    messages.jsonl in the run folder, in place of an earlier evaluation's. Raises StorageError."""
    chosen = config.communication
    log = Path(folder) / LOG if chosen.log_all_messages else None
    if log is not None:
        with storage_errors("replace", log):
            log.unlink(missing_ok=True)
    return CommunicationHub(
        chosen.message_history_size, chosen.correlation_id_enabled, chosen.log_all_messages, seed=config.seed,
        log_file=log,
    )  # fmt: skip


def limits_of(config: TradingConfig) -> CoordinationLimits:
    """When agents warn one another under these rules: the limits of the account where it has some, document 002's
    where not, over the window that the market's risk estimates have."""
    rules, defaults = config.market.rules, CoordinationLimits()
    return replace(
        defaults, recent=rules.correlation_window, long=5 * rules.correlation_window,
        value_at_risk=rules.max_portfolio_var or defaults.value_at_risk,
        drawdown=config.reward.max_drawdown_target or defaults.drawdown,
    )  # fmt: skip


def converse(
    played: Played,
    *,
    hub: CommunicationHub,
    account: int = 0,
    every: int = 50,
    limits: CoordinationLimits | None = None,
) -> dict[str, Any]:
    """Sends the messages of one account of an evaluated hierarchy, and returns the hub's statistics. In each bar:

    - an `AllocationMessage` to each specialist whose share, risk appetite or market regime is not what it was told
      last. The regime is that of the equal-weight market over the closes before the bar;
    - an `AlertMessage` where a limit begins to act, a level of the circuit breaker is passed, or the drawdown passes
      its target: once per passing, and again only after the account came back;
    - at every `every` bars the specialists' `PerformanceReport`s over all bars up to this one, as answers to their last
      allocation, and the `CoordinationSignal`s under `limits` (None: `limits_of` the run's config). A specialist's
      confidence is that of its policy when it chose the bar's signals; one that is not asked for any has none.

    Agents that the hub does not know are registered. Two calls on hubs of one seed send the same messages. Raises
    ConfigError for `every` below 1, DataError for an account that was not played.
    """
    if every < 1:
        raise ConfigError(f"every={every}: reports are made at every 1 bar or more")
    heard = _Heard.of(played, account)
    for name in played.strategy.team.agents:
        if name not in hub.agents:
            hub.register_agent(name)
    chosen = limits_of(played.config) if limits is None else limits
    alerts = heard.alerts()
    said: dict[str, AllocationMessage] = {}
    for bar in range(len(heard.times)):
        _allocate(hub, heard, bar, said)
        for kind, severity, text, data in alerts.get(bar, ()):
            hub.broadcast_alert(kind, severity, text, data, timestamp=heard.times[bar])
        if (bar + 1) % every == 0:
            _report(hub, heard, bar, said, chosen)
    return hub.get_statistics()


def _allocate(hub: CommunicationHub, heard: _Heard, bar: int, said: dict[str, AllocationMessage]) -> None:
    for place, sector in enumerate(heard.record.sectors):
        words = (float(heard.record.shares[bar, place]), float(heard.risk[bar]), heard.regimes[bar])
        last = said.get(sector)
        if last is None or words != (last.allocation, last.risk_appetite, last.market_regime):
            said[sector] = hub.send_allocation(sector, *words, timestamp=heard.times[bar])


def _report(
    hub: CommunicationHub, heard: _Heard, bar: int, said: dict[str, AllocationMessage], limits: CoordinationLimits
) -> None:
    record, time = heard.until(bar), heard.times[bar]
    reports = performance_reports(record, heard.means[bar], heard.deviations, timestamp=time)
    for sector, report in reports.items():
        hub.send_message(report, reply_to=said[sector] if hub.correlation_id_enabled else None)
    hub.check_coordination_opportunities(
        record.gains, record.by_sector(record.weights[-1]),
        value_at_risk=None if heard.rules.max_portfolio_var is None else float(heard.value_at_risk[bar]),
        drawdown=float(heard.drawdown[bar]), timestamp=time, specialists=record.sectors, limits=limits,
    )  # fmt: skip


Alert = tuple[str, str, str, dict[str, Any]]
"""Kind, severity, sentence, numbers."""


@dataclass(frozen=True, eq=False)
class _Heard:
    """One account of an evaluation, everything by bar."""

    times: list[int]
    record: SectorRecord  # of all bars
    open_profit: np.ndarray  # float64 [T, M], account currency
    risk: np.ndarray  # float64 [T]
    regimes: list[str]
    means: np.ndarray  # float64 [T, M], of the signals' distributions
    deviations: np.ndarray  # float64 [M]
    value_at_risk: np.ndarray  # float64 [T]
    drawdown: np.ndarray  # float64 [T], at the bar's close
    equity: np.ndarray  # float64 [T + 1]
    fired: dict[str, np.ndarray]  # bool [T]
    rules: MarketRules
    target: float | None  # of the drawdown

    @classmethod
    def of(cls, played: Played, account: int) -> _Heard:
        strategy, rules = played.strategy, played.config.market.rules
        track = _alone(played.track, account)
        team, equity = strategy.team, track.equity[0]
        sector_of = np.array([[name in m for m in team.members.values()].index(True) for name in track.instruments])
        rates = _rates(track)
        record = sector_record(track, 0, team.sectors, sector_of, strategy.shares[account], rates=rates)
        means, deviations = _policies(strategy, account, track.instruments)
        return cls(
            track.times.tolist(), record,
            unrealized_profit(track.units[0], track.amounts[0], track.fills[0], track.closes, rates),
            strategy.risk[account], _regimes(track.closes), means, deviations, track.value_at_risk[0],
            1.0 - (equity / np.maximum.accumulate(equity))[1:], equity,
            {name: acted[0] for name, acted in track.fired.items()}, rules, played.config.reward.max_drawdown_target,
        )  # fmt: skip

    def until(self, bar: int) -> SectorRecord:
        """What the books showed at the close of a bar."""
        stop, record = bar + 1, self.record
        return replace(
            record, gains=record.gains[:stop], shares=record.shares[:stop], weights=record.weights[:stop],
            unrealized=self.open_profit[bar],
        )  # fmt: skip

    def alerts(self) -> dict[int, list[Alert]]:
        """Bar -> what everybody is told at its close."""
        found: dict[int, list[Alert]] = {}
        for bar, alert in chain(self._limits(), self._breaker(), self._target()):
            found.setdefault(bar, []).append(alert)
        return found

    def _limits(self) -> Iterator[tuple[int, Alert]]:
        for name, key in _RULES.items():
            if name not in self.fired:
                continue
            limit = getattr(self.rules, key)
            text = f"{key}={limit} began to act"
            for bar in _passings(self.fired[name]):
                yield bar, (name, _SEVERITY.get(name, "info"), text, {"limit": limit} | self._numbers(bar))

    def _breaker(self) -> Iterator[tuple[int, Alert]]:
        for bar, level, loss in breaker_passings(self.rules.breaker, self.equity, self.times):
            text = (
                f"the day's loss of {loss:.2%} passed {level.drawdown:.2%}: positions stay closed for {level.bars} bars"
            )
            data = {"loss": loss, "level": level.drawdown, "bars": level.bars} | self._numbers(bar)
            yield bar, ("circuit_breaker", "critical", text, data)

    def _target(self) -> Iterator[tuple[int, Alert]]:
        if self.target is None:
            return
        for bar in _passings(self.drawdown > self.target):
            text = f"the drawdown of {self.drawdown[bar]:.2%} passed its target of {self.target:.2%}"
            yield bar, ("drawdown", "warning", text, {"target": self.target} | self._numbers(bar))

    def _numbers(self, bar: int) -> dict[str, float]:
        """How the account stands at the close."""
        found = {
            "equity": self.equity[bar + 1], "drawdown": self.drawdown[bar],
            "gross": np.abs(self.record.weights[bar]).sum(),
        }  # fmt: skip
        if self.rules.max_portfolio_var is not None:
            found["value_at_risk"] = self.value_at_risk[bar]
        return {name: float(value) for name, value in found.items()}


def breaker_passings(
    levels: Sequence[BreakerLevel], equity: np.ndarray, times: Sequence[int]
) -> Iterator[tuple[int, BreakerLevel, float]]:
    """(bar, level, the day's loss) wherever a level of the circuit breaker is passed, each once a day, as the core
    counts them: `equity` `[T + 1]` before the bars and after, `times` `[T]` of their closes."""
    first, rung, day = equity[0], 0, None
    for bar, time in enumerate(times):
        today = (time - 1) // 86_400
        if today != day:
            first, rung, day = equity[bar], 0, today
        loss = float(1.0 - equity[bar + 1] / first)
        for number, level in enumerate(levels):
            if loss >= level.drawdown and rung <= number:
                rung = number + 1
                yield bar, level, loss


def _passings(acted: np.ndarray) -> list[int]:
    """Bars in which something is so that was not in the bar before."""
    return np.flatnonzero(acted & ~np.concatenate([[False], acted[:-1]])).tolist()


def _alone(track: Track, account: int) -> Track:
    """One account of a track, over its own bars `[T]`."""
    if not 0 <= account < len(track.returns):
        raise DataError(f"account {account} was not played; there are 0 to {len(track.returns) - 1}")
    one = slice(account, account + 1)
    kept: dict[str, Any] = {name: getattr(track, name)[one] for name in _BY_ACCOUNT}
    if track.times.ndim == 2:
        kept |= {"times": track.times[account], "closes": track.closes[account]}
    return replace(track, fired={name: acted[one] for name, acted in track.fired.items()}, **kept)


_BY_ACCOUNT = (
    "returns", "cost", "turnover", "weights", "units", "amounts", "fills", "profit", "charges", "value_at_risk",
    "ruined",
)  # fmt: skip


def _rates(track: Track) -> np.ndarray:
    """Account currency per quote unit `[T, M]` where something is held, else 1: weight = units close rate / equity."""
    value = track.units[0] * track.closes
    found = np.ones_like(value)
    np.divide(track.weights[0] * track.equity[0, 1:, None], value, out=found, where=value != 0)
    return found


def _regimes(closes: np.ndarray) -> list[str]:
    """Of the equal-weight market by the closes before each bar: the first two bars have none to go by."""
    returns = (np.diff(closes, axis=0) / closes[:-1]).mean(1)
    known = regime_series(returns)[:-1] if len(returns) > 1 else np.zeros(0, dtype=np.int8)
    start = [REGIMES.index("neutral")] * (len(closes) - len(known))
    return [REGIMES[number] for number in [*start, *known.tolist()]]


@torch.no_grad()
def _policies(strategy: HierarchyStrategy, account: int, instruments: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(means `[T, M]`, standard deviations `[M]`) of the distributions that the specialists had over their signals."""
    net, team = strategy.net, strategy.team
    numbers, _ = net(torch.as_tensor(strategy.observed[account]))
    signals = strategy.signals[account]
    means, deviations = np.zeros(signals.shape), np.ones(len(instruments))
    for sector, each in zip(net.names, numbers[1:], strict=True):
        places = [instruments.index(name) for name in team.members[sector]]
        log_std = net.module(sector).policy.log_std
        assert isinstance(log_std, torch.Tensor)
        deviations[places] = log_std.double().exp().numpy()
        if signals[:, places].any():
            means[:, places] = each.double().numpy()
    return means, deviations
