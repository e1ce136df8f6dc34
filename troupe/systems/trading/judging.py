"""A hierarchy and its rivals on the same episodes: what gates compare and reports show."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from troupe.models.team import TeamActorCritic
from troupe.systems.trading.backtest import Track, episodes
from troupe.systems.trading.data import Stretch, TradingData
from troupe.systems.trading.hierarchy import HierarchyStrategy, Mode
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.systems.trading.phase_metrics import episode_sharpes, team_metrics
from troupe.training.evaluation import Decision, Gate

__all__ = ["Judged", "Played", "decide", "judge", "strategy_of"]


@dataclass(frozen=True)
class Judged:
    """A gate's answer, and everything that was measured."""

    decision: Decision
    metrics: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Played:
    """One team on some episodes."""

    track: Track
    strategy: HierarchyStrategy
    equal: Track  # the same team with equal allocation
    equal_gains: np.ndarray  # its sectors' gains [A, T, S]
    config: TradingConfig

    def metrics(self) -> dict[str, Any]:
        rules, reward = self.config.market.rules, self.config.reward
        return team_metrics(
            self.track, self.strategy, self.equal, self.equal_gains, var_limit=rules.max_portfolio_var,
            var_confidence=rules.var_confidence, drawdown_target=reward.max_drawdown_target,
        )  # fmt: skip

    def against(self, gate: Gate, *incumbents: Track) -> Judged:
        """Whether it beats each of some tracks of the same episodes. The answer is that of the one that it beats least
        surely."""
        found = [decide(gate, self.track, each) for each in incumbents]
        least = min(found, key=lambda each: -math.inf if each.difference is None else each.difference.low)
        return Judged(least, self.metrics())


def decide(gate: Gate, candidate: Track, incumbent: Track | None = None) -> Decision:
    """By the Sharpe ratios of the same episodes; without an incumbent, of holding nothing. Whoever was ruined in one of
    them is refused: a Sharpe ratio does not say how bad that is."""
    if candidate.ruined.any():
        lost, count = int(candidate.ruined.sum()), len(candidate.ruined)
        return Decision(False, (f"ruined in {lost} of {count} episodes",))
    ours = episode_sharpes(candidate).tolist()
    theirs = [0.0] * len(ours) if incumbent is None else episode_sharpes(incumbent).tolist()
    return gate.decide_scores(ours, theirs)


def strategy_of(
    data: TradingData, net: TeamActorCritic, mode: Mode = "team", active: Collection[str] | None = None
) -> HierarchyStrategy:
    return HierarchyStrategy(net, data.names, typical=data.typical, scale=data.scale, mode=mode, active=active)


def judge(
    data: TradingData,
    config: TradingConfig,
    net: TeamActorCritic,
    stretch: Stretch,
    *,
    count: int | None = None,
    mode: Mode = "team",
    active: Collection[str] | None = None,
) -> tuple[Played, Track]:
    """(the team, its equal allocation) on the episodes of a stretch."""
    rows, bars = data.episodes(stretch, count)
    core = data.core(stretch)
    equal_strategy = strategy_of(data, net, "equal", active)
    equal = episodes(core, equal_strategy, rows, bars)
    strategy = strategy_of(data, net, mode, active)
    track = episodes(core, strategy, rows, bars)
    return Played(track, strategy, equal, equal_strategy.sector_gains, config), equal
