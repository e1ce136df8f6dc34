"""Phase 2: the meta-controller learns to allocate over specialists that stand still.

    Phase2Trainer(config).train()

It reads its own view of the market, the specialists' records and their embeddings, which are numbers like any other:
nothing of a specialist changes, and their hashes before and after say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from troupe.envs.market.team import META, TeamVector
from troupe.errors import TrainingError
from troupe.systems.trading.judging import Judged, judge
from troupe.systems.trading.phase import (
    PhaseTrainer,
    Workspace,
    gate_of,
    log,
    module_hashes,
    phase_settings,
    risk_metrics,
    run_phase,
    seed_of,
)
from troupe.systems.trading.seats import Seat
from troupe.training.ppo_run import PPORun

__all__ = ["Phase2Trainer"]


class Phase2Trainer(PhaseTrainer):
    """Trains the meta-controller. It ends at a gate: it must beat equal allocation of the same specialists, and also
    what phase 1 let through (perhaps nothing), by the Sharpe ratio of the same validation episodes.

    Raises ConfigError, DataError for what cannot be traded, StorageError where phase 1 has not ended.
    """

    _envs: TeamVector | None = None

    def load_pretrained_specialists(self) -> dict[str, str]:
        """The specialists of phase 1, as they stand in the run folder; returns their hashes."""
        space = self.opened()
        results = space.read_results(1)
        self.read(1, {sector: sector for sector in self.team.sectors})
        expected = {name: each["parameter_hash"] for name, each in results["specialists"].items()}
        space.check_weights(self.net, expected)
        return expected

    def create_portfolio_environment(self) -> Seat:
        """The portfolio as the meta-controller sees it, over the specialists as they stand."""
        self._envs = TeamVector(self.core, self.team, self.config.trainer.n_envs, self.config.reward)
        return Seat(self._envs, META, self.net)

    def train(self) -> dict[str, Any]:
        """Trains, judges, writes phase2_results.json and returns it. Raises TrainingError where a specialist has
        changed."""
        config = self.config
        space = self.space = Workspace.of(config, self.data)
        with space.logged(2):
            before = self.load_pretrained_specialists()
            module = self.net.module(META)
            run = PPORun(
                self.create_portfolio_environment(), module, phase_settings(config, config.phase2.learning_rate),
                total_timesteps=config.phase2.total_timesteps, seed=seed_of(config.seed, 2),
            )  # fmt: skip
            run_phase(run, space, 2, "", {META: module}, progress=self.progress, each=self._each)
            hashes = module_hashes(self.net)
            if any(hashes[sector] != digest for sector, digest in before.items()):
                raise TrainingError("a frozen specialist changed in phase 2")
            judged = self._judged(space.read_results(1)["improved"])
            log.info("phase 2: %s", "; ".join(judged.decision.reasons))
            results = {
                "phase": 2, "timesteps": config.phase2.total_timesteps, "gate": judged.decision.to_dict(),
                "against": "equal allocation, and what phase 1 let through", "metrics": judged.metrics,
                "parameter_hashes": hashes,
            }  # fmt: skip
            space.write_results(2, results)
        return results

    def _each(self, metrics: dict[str, float]) -> dict[str, float]:
        assert self._envs is not None
        return metrics | risk_metrics(self._envs)

    def _judged(self, improved: Sequence[str]) -> Judged:
        """Allocation must help, and what it makes of specialists that lose must not lose less, but earn."""
        candidate, equal = judge(self.data, self.config, self.net, "validation")
        through = judge(self.data, self.config, self.net, "validation", mode="equal", active=improved)[0]
        return candidate.against(gate_of(self.config), equal, through.track)
