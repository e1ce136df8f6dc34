"""All three phases, one after the other, and what is traded in the end.

    result = HierarchyTrainer(config).train()
    result.improved, result.test["sharpe"]

A run goes on wherever it was stopped: phases that have ended are kept, the one under way continues from its last
checkpoint. What is traded is what the gates let through: the team of phase 3, else that of phase 2, else the
specialists that beat holding nothing, with equal allocation, else nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from troupe.envs.market.build import Market
from troupe.errors import StorageError
from troupe.maths.edge import EdgeTest, edge_test
from troupe.models.team import TeamActorCritic
from troupe.stores.atomic import write_atomic
from troupe.systems.trading.assessment import ALPHA
from troupe.systems.trading.data import Stretch, TradingData
from troupe.systems.trading.hierarchy import HierarchyStrategy, Mode
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.systems.trading.judging import Played, judge, strategy_of
from troupe.systems.trading.phase import Progress, Workspace, as_trading_config, gate_of
from troupe.systems.trading.phase1 import Phase1Trainer
from troupe.systems.trading.phase2 import Phase2Trainer
from troupe.systems.trading.phase3 import Phase3JointTrainer

__all__ = ["HierarchyTrainer", "Traded", "TradingResult", "edge_of"]

PHASES = (1, 2, 3)


@dataclass(frozen=True, eq=False)
class Traded:
    """What the gates let through."""

    net: TeamActorCritic
    mode: Mode
    active: tuple[str, ...]  # sectors whose specialists trade
    phase: int  # that it comes from; 0: nothing is traded


@dataclass(frozen=True)
class TradingResult:
    """What a run ended with."""

    folder: Path
    phases: Mapping[int, Mapping[str, Any]]  # their results, as written
    traded: int  # phase of what is traded, 0 for nothing
    test: Mapping[str, Any]  # metrics on episodes that neither learning nor gates have seen
    edge: EdgeTest  # of the mean over the test's histories
    seconds: float

    @property
    def improved(self) -> tuple[int, ...]:
        """Phases whose gate promoted something."""
        return tuple(
            n for n, found in self.phases.items() if found.get("improved") or found.get("gate", {}).get("promote")
        )


class HierarchyTrainer:
    """Document 002's pipeline. `market` given in code takes the place of the configured one; `data` is already
    split."""

    def __init__(
        self,
        config: TradingConfig | Mapping[str, Any] | None = None,
        *,
        market: Market | None = None,
        progress: Progress | None = None,
        data: TradingData | None = None,
    ) -> None:
        self.config = as_trading_config(config)
        self.data = TradingData.of(self.config, market) if data is None else data
        self.progress = progress
        self._given = market is not None or data is not None
        self.data.check_gates(gate_of(self.config).min_tasks)

    def train(self, phases: Sequence[int] = PHASES) -> TradingResult:
        """Runs the phases that have not ended, and tests what is traded. Raises as `learn`."""
        began = time.perf_counter()
        self.data.check_test()
        traded = self.learn(phases)
        folder, space = Path(self.config.trainer.output_dir), Workspace.of(self.config, self.data)
        found = {number: space.read_results(number) for number in PHASES if space.results(number).exists()}
        played = self.play(traded, "test")
        edge = edge_of(played)
        result = TradingResult(folder, found, traded.phase, played.metrics(), edge, time.perf_counter() - began)
        write_atomic(folder / "training_summary.json", json.dumps(_summary(result, self.config), indent=1).encode())
        return result

    def learn(self, phases: Sequence[int] = PHASES) -> Traded:
        """Runs the phases that have not ended; what the gates let through, untested. Raises StorageError for a folder
        that `trainer.resume=never` must not continue."""
        folder = Path(self.config.trainer.output_dir)
        if self.config.trainer.resume == "never" and (folder / "config.json").exists():
            raise StorageError(f"{folder} holds a run; write trainer.resume=auto to continue it, or another folder")
        space = Workspace.of(self.config, self.data)
        for number in phases:
            if not space.results(number).exists():
                self._trainer(number).train()
        return self.traded()

    def traded(self) -> Traded:
        """What the gates let through so far. Raises StorageError before phase 1 has ended."""
        space = Workspace.of(self.config, self.data)
        last = Phase3JointTrainer(self.config, data=self.data)
        first = space.read_results(1)
        sectors = last.team.sectors
        if space.results(3).exists() and space.read_results(3)["gate"]["promote"]:
            last.load()
            return Traded(last.net, "team", sectors, 3)
        if space.results(2).exists() and space.read_results(2)["gate"]["promote"]:
            last.load_pretrained_models(upto=2)
            return Traded(last.net, "team", sectors, 2)
        last.load_pretrained_models(upto=1)
        return Traded(last.net, "equal", tuple(first["improved"]), 1 if first["improved"] else 0)

    def strategy(self, traded: Traded | None = None) -> HierarchyStrategy:
        """For a backtest on any core with the same features."""
        chosen = self.traded() if traded is None else traded
        return strategy_of(self.data, chosen.net, chosen.mode, chosen.active)

    def play(self, traded: Traded, stretch: Stretch, count: int | None = None) -> Played:
        """What is traded, on the episodes of a stretch."""
        return judge(
            self.data, self.config, traded.net, stretch, count=count, mode=traded.mode, active=traded.active
        )[0]  # fmt: skip

    def _trainer(self, number: int) -> Phase1Trainer | Phase2Trainer | Phase3JointTrainer:
        if number == 1:
            data = self.data if self._given else None  # processes read the market themselves
            return Phase1Trainer(self.config, data=data, progress=self.progress)
        kind = Phase2Trainer if number == 2 else Phase3JointTrainer
        return kind(self.config, data=self.data, progress=self.progress)


def edge_of(played: Played) -> EdgeTest:
    """Of the mean return per bar. Episodes of several histories are independent records of the same bars of the clock,
    whose mean is one record; those of one history follow one another."""
    returns = played.track.returns
    times = played.track.times
    follows = len(np.unique(times)) == times.size
    return edge_test(returns.reshape(-1) if follows else returns.mean(0), ALPHA)


def _summary(result: TradingResult, config: TradingConfig) -> dict[str, Any]:
    return {
        "title": "hierarchical trading in three phases", "seed": config.seed, "traded_phase": result.traded,
        "improved_phases": list(result.improved), "test": dict(result.test),
        "edge": {
            "significant": result.edge.significant, "p": result.edge.p_value, "alpha": result.edge.alpha,
            "bars": result.edge.n,
        },
    }  # fmt: skip
