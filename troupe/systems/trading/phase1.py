"""Phase 1: each specialist learns alone, on its own instruments.

    Phase1Trainer(config).train()          # {"forex": {...}, "commodities": {...}, "equity": {...}}

Specialists learn in parallel processes and know nothing of one another; `phase1.total_timesteps` is of *each* of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import as_completed
from typing import Any

from troupe.envs.market.team import TeamVector
from troupe.errors import ConfigError, did_you_mean
from troupe.stores.state import parameter_hash
from troupe.systems.trading.backtest import Track, episodes
from troupe.systems.trading.data import Stretch
from troupe.systems.trading.hierarchy import HierarchyStrategy
from troupe.systems.trading.judging import decide
from troupe.systems.trading.phase import (
    PhaseTrainer,
    Workspace,
    gate_of,
    log,
    phase_settings,
    risk_metrics,
    run_phase,
    seed_of,
)
from troupe.systems.trading.phase_metrics import specialist_metrics
from troupe.systems.trading.processes import learning_processes
from troupe.systems.trading.seats import Seat
from troupe.training.ppo_run import PPORun

__all__ = ["Phase1Trainer"]


class Phase1Trainer(PhaseTrainer):
    """Trains the specialists of document 002. Each ends at a gate: it must beat holding nothing on episodes that it has
    not learned from, by its Sharpe ratio; one that does not is said to have no edge.

    `market` given in code takes the place of the configured one; specialists then learn one after the other. Raises
    ConfigError, DataError for what cannot be traded.
    """

    def train(self) -> dict[str, Any]:
        """Trains whoever is not trained yet, judges all, writes phase1_results.json and returns it. Raises
        TrainingError where a specialist's process fails."""
        self.space = Workspace.of(self.config, self.data)
        with self.space.logged(1):
            found: dict[str, Any] = {}
            for name in self._learned():
                found[name] = self._judged(name)
                log.info("phase 1 %s: %s", name, "; ".join(found[name]["gate"]["reasons"]))
            results = {
                "phase": 1, "timesteps_each": self.config.phase1.total_timesteps, "specialists": found,
                "improved": [name for name, each in found.items() if each["gate"]["promote"]],
            }  # fmt: skip
            self.space.write_results(1, results)
        return results

    def train_specialist(self, specialist_name: str) -> dict[str, Any]:
        """Trains one, from wherever it stands, and judges it."""
        self.space = Workspace.of(self.config, self.data)
        with self.space.logged(1):
            self._train(specialist_name)
        return self._judged(specialist_name)

    def evaluate_specialist(self, specialist_name: str, n_episodes: int = 100) -> dict[str, Any]:
        """Metrics of one on validation episodes: each instrument's Sharpe ratio, win rate, drawdown, Sortino and Calmar
        ratio, with intervals over episodes."""
        self.load(specialist_name)
        return specialist_metrics(self._track(specialist_name, "validation", n_episodes))

    def load(self, specialist_name: str) -> None:
        """The specialist as it stands in the run folder. Raises StorageError where it was never trained."""
        self._known(specialist_name)
        self.read(1, {specialist_name: specialist_name})

    # ------------------------------------------------------------------------------------------ learning

    def _learned(self) -> tuple[str, ...]:
        """Trains all; in processes where that is possible."""
        sectors = self.team.sectors
        processes = min(self.config.trainer.processes or len(sectors), len(sectors))
        if processes == 1 or self.given:
            for name in sectors:
                self._train(name)
            return sectors
        settings = self.config.model_dump(mode="json")
        with learning_processes(processes) as pool:
            waiting = {pool.submit(_train_alone, settings, name): name for name in sectors}
            for done, future in enumerate(as_completed(waiting), 1):
                future.result()
                self.load(waiting[future])
                self.progress(f"phase 1 {waiting[future]}", done, len(sectors), {})
        return sectors

    def _train(self, name: str) -> None:
        self._known(name)
        assert self.space is not None
        config, number = self.config, self.team.sectors.index(name)
        module = self.net.module(name)
        envs = TeamVector(self.core, self.team, config.trainer.n_envs, config.reward)
        run = PPORun(
            Seat(envs, name, self.net), module, phase_settings(config, config.phase1.learning_rate),
            total_timesteps=config.phase1.total_timesteps, seed=seed_of(config.seed, 1, number),
        )  # fmt: skip

        def each(metrics: dict[str, float]) -> dict[str, float]:
            return metrics | risk_metrics(envs)

        run_phase(run, self.space, 1, name, {name: module}, progress=self.progress, each=each)

    def _known(self, name: str) -> None:
        if name not in self.team.sectors:
            raise ConfigError(
                f"there is no specialist {name!r}{did_you_mean(name, self.team.sectors)}; the sectors that are traded "
                f"are {', '.join(self.team.sectors)}"
            )

    # ------------------------------------------------------------------------------------------ judging

    def _judged(self, name: str) -> dict[str, Any]:
        track = self._track(name, "validation")
        decision = decide(gate_of(self.config), track)
        return {
            "timesteps": self.config.phase1.total_timesteps, "gate": decision.to_dict(),
            "metrics": specialist_metrics(track), "parameter_hash": parameter_hash(self.net.module(name).state_dict()),
        }  # fmt: skip

    def _track(self, name: str, stretch: Stretch, count: int | None = None) -> Track:
        rows, bars = self.data.episodes(stretch, count)
        strategy = HierarchyStrategy(
            self.net, self.data.names, typical=self.data.typical, scale=self.data.scale, mode="equal", active=(name,)
        )
        return episodes(self.data.core(stretch), strategy, rows, bars)


def _train_alone(settings: Mapping[str, Any], name: str) -> None:
    """In a process of its own; what it learned is in the run folder."""
    trainer = Phase1Trainer(settings)
    with trainer.opened().logged(1):
        trainer._train(name)
