"""The messages of an evaluation against the strategy and the books that they speak of."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from troupe.config import load
from troupe.envs.market.config import BreakerLevel
from troupe.envs.market.regimes import detect_market_regime
from troupe.errors import ConfigError, DataError
from troupe.systems.trading.backtest import backtest, episodes
from troupe.systems.trading.conversation import LOG, breaker_passings, converse, hub_of, limits_of
from troupe.systems.trading.data import TradingData
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.systems.trading.hub import CommunicationHub, read_messages
from troupe.systems.trading.judging import Played, judge, strategy_of
from troupe.systems.trading.messages import AlertMessage, AllocationMessage, CoordinationSignal, PerformanceReport
from troupe.systems.trading.phase import team_net
from troupe.systems.trading.reports import coordination_signals, performance_reports, sector_record

RULES = {"max_position_size": 1.0, "warmup_steps": 20, "episode_length": 120, "correlation_window": 20}
LIMITS = {
    "max_leverage": 3.0, "max_sector_allocation": 1.5, "max_portfolio_var": 0.08, "stop_loss_pct": 0.02,
    "breaker": [{"drawdown": 0.02, "bars": 3}, {"drawdown": 0.04, "bars": 12}],
}  # fmt: skip


def world(scenario: str = "crisis", **rules: Any) -> tuple[TradingConfig, TradingData, Any]:
    """A hierarchy without training that trades with conviction: the messages are what is looked at."""
    config = load(
        TradingConfig,
        preset={
            "market": {
                "features": ["return", "mean_20"], "rules": RULES | rules,
                "simulation": {"scenario": scenario, "paths": 2, "bars": 400},
            },
            "evaluation": {"episodes": 10, "paths": 2},
            "communication": {"log_all_messages": True},
            "net": {"meta_shared_trunk": False},
        },
    ).config  # fmt: skip
    data = TradingData.of(config)
    team = data.team(data.core("train"))
    net = team_net(config, team.views, team.parts)
    with torch.no_grad():
        for agent in net.agents:
            net.module(agent).policy.linear.weight.mul_(60.0)
    return config, data, net


@pytest.fixture(scope="module")
def played() -> Played:
    config, data, net = world(**LIMITS)
    return judge(data, config, net, "test", count=4)[0]


def conversation(played: Played, **options: Any) -> tuple[list[Any], dict[str, Any]]:
    hub = CommunicationHub(10**6, seed=1)
    statistics = converse(played, hub=hub, **options)
    return [message for _, message in hub._history], statistics


def of_kind(messages: list[Any], kind: type) -> list[Any]:
    return [message for message in messages if type(message) is kind]


def test_allocations_are_what_the_team_said(played):
    account, sectors = 1, played.strategy.team.sectors
    messages = of_kind(conversation(played, account=account)[0], AllocationMessage)
    shares, risk = played.strategy.shares[account], played.strategy.risk[account]
    times = played.track.times[account].tolist()
    assert np.ptp(shares, axis=0).min() > 0.1  # the allocation moves
    for place, sector in enumerate(sectors):
        own = [m for m in messages if m.specialist_id == sector]
        assert [(m.allocation, m.risk_appetite) for m in own] == [
            (shares[times.index(m.timestamp), place], risk[times.index(m.timestamp)]) for m in own
        ]
        assert [m.timestamp for m in own] == times  # every bar says something new here
    by_bar = {time: sum(m.allocation for m in messages if m.timestamp == time) for time in times}
    assert list(by_bar.values()) == pytest.approx([1.0] * len(times))


def test_messages_are_what_specialists_read_one_bar_later(played):
    strategy, team, times = played.strategy, played.strategy.team, played.track.times[0].tolist()
    read = strategy.observed[0]
    for message in of_kind(conversation(played)[0], AllocationMessage):
        bar = times.index(message.timestamp)
        if bar + 1 < len(times):
            columns, view = team.columns[message.specialist_id], read[bar + 1, team.views[message.specialist_id]]
            told = {name: float(view[columns.index(name)]) for name in (f"share_{message.specialist_id}", "risk")}
            assert told[f"share_{message.specialist_id}"] == pytest.approx(3 * message.allocation - 1, abs=1e-6)
            assert told["risk"] == pytest.approx(message.risk_appetite - 1, abs=1e-6)


def test_nothing_is_repeated():
    """Equal allocation says the same at every bar, until the market's regime is another."""
    config, data, net = world()
    _, equal = judge(data, config, net, "test", mode="equal")
    strategy = strategy_of(data, net, "equal")
    rows, bars = data.episodes("test")
    track = episodes(data.core("test"), strategy, rows, bars)
    assert (track.returns == equal.returns).all()
    messages = of_kind(
        conversation(Played(track, strategy, equal, strategy.sector_gains, config))[0], AllocationMessage
    )
    for sector in strategy.team.sectors:
        own = [m for m in messages if m.specialist_id == sector]
        assert {(m.allocation, m.risk_appetite) for m in own} == {(1 / 3, 1.0)}
        regimes = [m.market_regime for m in own]
        assert 1 <= len(own) < 40 and all(a != b for a, b in pairwise(regimes))


def test_the_regime_is_known_before_the_bar(played):
    trend = np.exp(0.01 * np.maximum(0, np.arange(120) - 60))[None, :, None]
    rising = replace(played, track=replace(played.track, closes=played.track.closes * trend))
    said = {}
    for name, each in (("as it was", played), ("rising", rising)):
        times, closes = each.track.times[2].tolist(), each.track.closes[2]
        moves = (closes[1:] / closes[:-1] - 1).mean(1)  # of the bars 1, 2, ...
        said[name] = [
            (m.timestamp, m.market_regime) for m in of_kind(conversation(each, account=2)[0], AllocationMessage)
        ]
        for time, regime in said[name]:
            bar = times.index(time)
            assert regime == (detect_market_regime(moves[: bar - 1]) if bar > 1 else "neutral")
    assert {regime for _, regime in said["rising"]} >= {"neutral", "bull"}
    # Closes differ from that of bar 61 on, which nobody can have seen before bar 62.
    assert said["rising"][: 3 * 62] == said["as it was"][: 3 * 62] and said["rising"] != said["as it was"]


@pytest.mark.parametrize("scenario", ["crisis", "trending"])
def test_reports_know_what_was_known_by_then(scenario):
    """An account that stops after 50 bars, with the core's own conversion rates, gives the same reports."""
    config, data, net = world(scenario)
    whole = judge(data, config, net, "test", count=4)[0]
    reports = {m.specialist_id: m for m in of_kind(conversation(whole, account=3, every=50)[0], PerformanceReport)[:3]}
    core, (rows, _), strategy = data.core("test"), data.episodes("test", 4), strategy_of(data, net)
    short = backtest(core, strategy, int(rows[3]), int(rows[3]) + 50, accounts=4)  # as many: sums round alike
    team = strategy.team
    assert core.tape.rates is not None and (core.tape.rates != 1).any()  # USDJPY
    sector_of = np.array([team.sectors.index(each.sector) for each in core.tape.instruments])
    rates = core.tape.rates[rows[3] + 1 : rows[3] + 51]
    record = sector_record(short, 3, team.sectors, sector_of, strategy.shares[3], rates=rates)
    with torch.no_grad():
        numbers, _ = net(torch.as_tensor(strategy.observed[3][-1:]))
    means = np.concatenate([each[0].double().numpy() for each in numbers[1:]])  # in the core's order here
    assert [name for each in team.members.values() for name in each] == list(core.instruments)
    deviations = np.full(len(means), np.exp(np.float32(config.net.log_std)))
    expected = performance_reports(record, means, deviations, timestamp=int(short.times[-1]))
    assert list(reports) == list(expected)
    for sector, report in reports.items():
        for name, value in _numbers(expected[sector]).items():
            assert _numbers(report)[name] == pytest.approx(value, rel=1e-5, abs=1e-6)
        assert report.timestamp == expected[sector].timestamp and report.unrealized_pnl != 0


def _numbers(report: PerformanceReport) -> dict[str, float]:
    names = ("confidence_score", "realized_pnl", "unrealized_pnl", "sharpe_ratio", "win_rate", "risk_utilization")
    return {name: getattr(report, name) for name in names}


def test_reports_answer_the_last_allocation(played):
    hub = CommunicationHub(10**6, seed=1)
    converse(played, hub=hub, every=40)
    for report in hub.get_messages_by_type("PerformanceReport"):
        asked, answer = hub.get_correlation_chain(report.correlation_id)
        assert answer == report and asked.specialist_id == report.specialist_id and asked.timestamp <= report.timestamp
    assert len(hub.get_messages_by_type("PerformanceReport")) == 3 * (120 // 40)
    unnumbered = CommunicationHub(10**6, correlation_id_enabled=False)
    converse(played, hub=unnumbered)
    assert all(m.correlation_id is None for _, m in unnumbered._history)


def test_a_specialist_that_is_not_asked_has_no_opinion():
    config, data, net = world()
    found, _ = judge(data, config, net, "test", active=("forex", "equity"))
    reports = of_kind(conversation(found)[0], PerformanceReport)
    confident = {m.specialist_id: m.confidence_score > 0 for m in reports}
    assert confident == {"forex": True, "commodities": False, "equity": True}


def test_signals_are_those_of_the_record_so_far(played):
    messages, _ = conversation(played, every=30)
    track, strategy = played.track, played.strategy
    sector_of = [strategy.team.sectors.index(s) for s in ("forex",) * 3 + ("commodities",) * 2 + ("equity",) * 3]
    expected = []
    for bar in range(29, 120, 30):
        net = [track.weights[0, bar, np.array(sector_of) == k].sum() for k in range(3)]
        equity = track.equity[0, : bar + 2]
        expected += coordination_signals(
            strategy.sector_gains[0, : bar + 1], np.array(net), strategy.team.sectors,
            value_at_risk=track.value_at_risk[0, bar], drawdown=1 - equity[-1] / equity.max(),
            timestamp=int(track.times[0, bar]), limits=limits_of(played.config),
        )  # fmt: skip
    found = of_kind(messages, CoordinationSignal)
    assert len(found) == len(expected) > 0
    for one, other in zip(found, expected, strict=True):
        assert (one.timestamp, one.from_specialist, one.to_specialist, one.signal_type) == (
            other.timestamp, other.from_specialist, other.to_specialist, other.signal_type,
        )  # fmt: skip
        assert one.priority == pytest.approx(other.priority, rel=1e-9)


def test_alerts_are_what_happened_once_each(played):
    for account in range(len(played.track.returns)):
        alerts = of_kind(conversation(played, account=account)[0], AlertMessage)
        times = played.track.times[account].tolist()
        told = {
            kind: [times.index(m.timestamp) for m in alerts if m.alert_type == kind]
            for kind in ("sector", "leverage", "var", "stop_loss", "circuit_breaker", "drawdown")
        }
        for name in ("sector", "leverage", "var", "stop_loss"):
            acted = played.track.fired[name][account]
            assert told[name] == [t for t in range(len(acted)) if acted[t] and (t == 0 or not acted[t - 1])]
        halted = played.track.fired["breaker"][account]
        for bar in told["circuit_breaker"]:
            assert bar + 1 == len(halted) or halted[bar + 1]
        assert {t for t in range(1, len(halted)) if halted[t] and not halted[t - 1]} <= {
            bar + 1 for bar in told["circuit_breaker"]
        }
        equity = played.track.equity[account]
        below = [1 - equity[t + 1] / equity[: t + 2].max() > 0.15 for t in range(len(times))]
        assert told["drawdown"] == [t for t in range(len(times)) if below[t] and (t == 0 or not below[t - 1])]
        for alert in alerts:
            bar = times.index(alert.timestamp)
            assert alert.data["equity"] == pytest.approx(equity[bar + 1])
            assert alert.data["value_at_risk"] == played.track.value_at_risk[account, bar]
    everybody = [m.alert_type for a in range(4) for m in of_kind(conversation(played, account=a)[0], AlertMessage)]
    assert {"sector", "stop_loss", "circuit_breaker"} <= set(everybody)


def test_breaker_levels_by_hand():
    # 100 -> 98 (2 %), 97 (3 %), 95 (5 %) on one day; the next one begins at 95 and loses 95 -> 92 (3.16 %)
    levels = (BreakerLevel(drawdown=0.03, bars=2), BreakerLevel(drawdown=0.05, bars=9))
    hours = [3600, 7200, 86_400, 86_401, 90_000]  # a bar that closes at midnight belongs to the day that ends
    found = list(breaker_passings(levels, np.array([100.0, 98.0, 97.0, 95.0, 95.0, 92.0]), hours))
    assert [(bar, level.drawdown, round(loss, 4)) for bar, level, loss in found] == [
        (1, 0.03, 0.03), (2, 0.05, 0.05), (4, 0.03, 0.0316),
    ]  # fmt: skip
    crash = list(breaker_passings(levels, np.array([100.0, 90.0]), [3600]))
    assert [level.drawdown for _, level, _ in crash] == [0.03, 0.05]


def test_two_evaluations_write_the_same_log(played, tmp_path):
    logs = []
    for name in ("a", "b", "a"):  # the last one takes the place of the first
        (tmp_path / name).mkdir(exist_ok=True)
        with hub_of(played.config, tmp_path / name) as hub:
            statistics = converse(played, hub=hub)
        logs.append((tmp_path / name / LOG).read_bytes())
        assert len(read_messages(tmp_path / name / LOG)) == statistics["sent"] == sum(statistics["by_type"].values())
    assert logs[0] == logs[1] == logs[2]
    assert set(statistics["agents"]) == {"meta", "forex", "commodities", "equity"}


def test_without_a_log_nothing_is_written(played, tmp_path):
    quiet = played.config.communication.model_copy(update={"log_all_messages": False, "message_history_size": 7})
    with hub_of(played.config.model_copy(update={"communication": quiet}), tmp_path) as hub:
        statistics = converse(played, hub=hub)
    assert list(tmp_path.iterdir()) == [] and statistics["held"] == 7 and statistics["sent"] > 300


def test_accounts_of_one_stretch_share_its_clock(played):
    """A backtest of accounts side by side has one row of times."""
    config, data, net = world()
    core, strategy = data.core("test"), strategy_of(data, net)
    track = backtest(core, strategy, 30, 90, accounts=2)
    side = Played(track, strategy, track, strategy.sector_gains, config)
    found = of_kind(conversation(side, account=1, every=60)[0], PerformanceReport)
    assert [m.timestamp for m in found] == [int(track.times[-1])] * 3
    total = sum(m.realized_pnl + m.unrealized_pnl for m in found)
    assert total == pytest.approx(track.equity[1, -1] - track.capital)


def test_limits_follow_the_rules(played):
    limits = limits_of(played.config)
    assert (limits.recent, limits.long, limits.value_at_risk, limits.drawdown) == (20, 100, 0.08, 0.15)
    free = played.config.reward.model_copy(update={"max_drawdown_target": None})
    assert limits_of(played.config.model_copy(update={"reward": free})).drawdown == 0.15
    alerts = of_kind(
        conversation(replace(played, config=played.config.model_copy(update={"reward": free})))[0], AlertMessage
    )
    assert all(m.alert_type != "drawdown" for m in alerts)


def test_what_cannot_be_told(played):
    with pytest.raises(DataError, match="account 4 was not played; there are 0 to 3"):
        conversation(played, account=4)
    with pytest.raises(ConfigError, match="every=0"):
        conversation(played, every=0)
