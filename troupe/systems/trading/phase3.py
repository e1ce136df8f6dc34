"""Phase 3: the meta-controller and the specialists learn together, in one graph.

    Phase3JointTrainer(config).train()

The meta-controller's gradient runs through the embeddings into the specialists' encoders, where it meets their own.
Each agent has its optimiser and its period of updates; where gradients oppose each other on an encoder, they are
projected (`GradientCoordinationSystem`), and a curriculum may make markets harder as the team gets better.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from troupe.envs.market.build import market_of
from troupe.envs.market.core import MarketCore
from troupe.envs.market.rolling import rolling_volatility, simple_returns
from troupe.envs.market.simulator import simulate
from troupe.envs.market.team import META, TeamVector
from troupe.models.team import TeamActorCritic
from troupe.systems.trading.backtest import Track
from troupe.systems.trading.checkpointing import ModelCheckpointingSystem
from troupe.systems.trading.coordination import GradientCoordinationSystem
from troupe.systems.trading.curriculum import PERFORMANCE, AdvancedCurriculumLearning, TrainingScenario
from troupe.systems.trading.hierarchy_config import TradingConfig
from troupe.systems.trading.judging import judge
from troupe.systems.trading.phase import (
    PhaseTrainer,
    Workspace,
    device_of,
    gate_of,
    log,
    module_hashes,
    phase_settings,
    risk_metrics,
    run_phase,
    seed_of,
)
from troupe.training.config import PPOConfig
from troupe.training.learner import Learner, OptimizerGroup, flattened
from troupe.training.objectives import team_actor_critic
from troupe.training.ppo_run import PPORun

__all__ = ["Phase3JointTrainer", "coordinated", "joint_learner", "joint_run"]


def joint_learner(
    net: TeamActorCritic,
    settings: PPOConfig,
    remaining: Callable[[], float],
    *,
    periods: Mapping[str, int],
    projection: bool,
    target_kl: float = 0.01,
    use_amp: bool = False,
) -> tuple[Learner, GradientCoordinationSystem]:
    """A group under Adam for each agent, whose gradients meet in a `GradientCoordinationSystem`. Its factors on the
    learning rates are those of `adaptive_learning_rates`, 1 as long as nobody calls that."""
    named = {agent: _named(net, agent) for agent in net.agents}
    flat = {agent: flattened(parameters.values()) for agent, parameters in named.items()}
    if not use_amp and not net.compiled and net.compact(flat[net.lead]):
        # Gradients are written out, and two pieces of each agent are enough.
        named = {agent: _pieces(net, agent, flat[agent]) for agent in net.agents}
    coordination = GradientCoordinationSystem(
        {name: parameter for each in named.values() for name, parameter in each.items()}, net.agents,
        projection=projection, target_kl=target_kl,
    )  # fmt: skip
    falls = "learning_rate" in settings.schedule

    def schedule(agent: str) -> Callable[[int], float]:
        return lambda step: coordination.factors[agent] * (remaining() if falls else 1.0)

    groups = {}
    for agent, parameters in named.items():
        optimizer = torch.optim.Adam([flat[agent]], lr=settings.learning_rate, eps=1e-5, fused=True)
        groups[agent] = OptimizerGroup(
            parameters, optimizer, period=periods[agent], max_norm=settings.max_grad_norm, schedule=schedule(agent),
            flat=flat[agent],
        )  # fmt: skip
    return Learner(groups, amp="bf16" if use_amp else None, combine=coordination), coordination


def _named(net: TeamActorCritic, agent: str) -> dict[str, torch.nn.Parameter]:
    prefix = _prefix(net, agent)
    return {name: parameter for name, parameter in net.named_parameters() if name.startswith(prefix)}


def _pieces(net: TeamActorCritic, agent: str, flat: torch.nn.Parameter) -> dict[str, torch.nn.Parameter]:
    encoder, heads = net.share(agent, flat)
    return {f"{_prefix(net, agent)}towers.flat": encoder, f"{_prefix(net, agent)}heads.flat": heads}


def _prefix(net: TeamActorCritic, agent: str) -> str:
    return f"{net.lead}." if agent == net.lead else f"specialists.{agent}."


def joint_run(
    config: TradingConfig,
    net: TeamActorCritic,
    envs: TeamVector,
    *,
    learning_rate: float | None,
    total_timesteps: int,
    seed: int,
    device: torch.device | str = "cpu",
) -> tuple[PPORun, GradientCoordinationSystem]:
    """A run in which the whole team learns on, by the rules of `config.phase3`, and how its gradients meet."""
    joint, trainer, made = config.phase3, config.trainer, []
    periods = dict.fromkeys(net.agents, joint.specialist_update_freq) | {net.lead: joint.meta_update_freq}

    def learner(net: Any, settings: PPOConfig, remaining: Callable[[], float]) -> Learner:
        found, coordination = joint_learner(
            net, settings, remaining, periods=periods, projection=joint.gradient_coordination,
            target_kl=joint.desired_kl, use_amp=trainer.use_amp,
        )  # fmt: skip
        made.append(coordination)
        return found

    if trainer.compile:
        net.compile_evaluation()
    run = PPORun(
        envs, net, phase_settings(config, learning_rate), total_timesteps=total_timesteps, seed=seed,
        objective=team_actor_critic, learner=learner, device=device,
    )  # fmt: skip
    return run, made[0]


def coordinated(
    config: TradingConfig, coordination: GradientCoordinationSystem, metrics: Mapping[str, float]
) -> dict[str, float]:
    """The metrics of a rollout and how its gradients met; adapts the learning rates to it where phase 3 does that."""
    found = {**metrics, **coordination.metrics()}
    if config.phase3.adaptive_learning_rates:
        kl = {agent: {"approx_kl": found[f"train/approx_kl/{agent}"]} for agent in coordination.agents}
        factors = coordination.adaptive_learning_rates(kl)
        found |= {f"coordination/rate/{agent}": factor for agent, factor in factors.items()}
    return found


class Phase3JointTrainer(PhaseTrainer):
    """Trains the whole team. It ends at a gate: it must beat the system that was traded after phase 2, by the Sharpe
    ratio of the same validation episodes; otherwise that system stays.

    Raises ConfigError, DataError for what cannot be traded, StorageError where phase 1 or 2 has not ended.
    """

    coordination: GradientCoordinationSystem | None = None
    curriculum: AdvancedCurriculumLearning | None = None
    _envs: TeamVector | None = None
    _scenario: TrainingScenario | None = None
    _scenarios = 0  # drawn so far
    _in_scenario = 0  # rollouts

    def load_pretrained_models(self, upto: int = 2) -> None:
        """The specialists of phase 1 and, unless `upto` is 1, the meta-controller of phase 2. Raises StorageError where
        one of the phases has not ended."""
        space = self.opened()
        for number in range(1, upto + 1):
            space.read_results(number)
        self.read(1, {sector: sector for sector in self.team.sectors})
        if upto == 2:
            self.read(2, {"": META})
        first = {name: each["parameter_hash"] for name, each in space.read_results(1)["specialists"].items()}
        expected = first if upto == 1 else first | {META: space.read_results(2)["parameter_hashes"][META]}
        space.check_weights(self.net, expected)

    def create_joint_training_env(self) -> TeamVector:
        """Accounts that all agents trade together: in the training market, or in the curriculum's present one."""
        core, starts = self.core, None
        if self._scenario is not None:
            core, starts = self._market_of(self._scenario)
        team = self.data.team(core, typical=self.data.typical)
        self._envs = TeamVector(core, team, self.config.trainer.n_envs, self.config.reward, starts=starts)
        return self._envs

    def train(self) -> dict[str, Any]:
        """Trains, judges, writes phase3_results.json and returns it."""
        config = self.config
        space = self.space = Workspace.of(config, self.data)
        with space.logged(3):
            self.load_pretrained_models()
            before, incumbent = module_hashes(self.net), self._incumbent()
            self.device = device_of(config)
            self.net.to(self.device)
            self._run = self._begun()
            run_phase(
                self._run, space, 3, "", {"team": self.net}, progress=self.progress, each=self._each,
                extra=self._state, restore=self._restore,
            )  # fmt: skip
            self.net.to("cpu")
            played, _ = judge(self.data, config, self.net, "validation")
            judged = played.against(gate_of(config), incumbent)
            log.info("phase 3: %s", "; ".join(judged.decision.reasons))
            results = {
                "phase": 3, "timesteps": config.phase3.total_timesteps, "gate": judged.decision.to_dict(),
                "against": "the system that was traded after phase 2", "metrics": judged.metrics,
                "parameter_hashes_before": before, "parameter_hashes": module_hashes(self.net),
            }  # fmt: skip
            space.write_results(3, results)
        return results

    def load(self) -> None:
        """The team as it stands in the run folder. Raises StorageError where phase 3 was never begun."""
        space = self.opened()
        store = ModelCheckpointingSystem(space.phase(3), keep_last=self.config.trainer.keep_last)
        store.load_checkpoint("latest", into={"team": self.net})
        if space.results(3).exists():
            space.check_weights(self.net, space.read_results(3)["parameter_hashes"])

    def evaluate(self, n_episodes: int = 100) -> dict[str, Any]:
        """Metrics of the team as phase 3 left it, on validation episodes."""
        self.load()
        played, _ = judge(self.data, self.config, self.net, "validation", count=n_episodes)
        return played.metrics()

    # ------------------------------------------------------------------------------------------ the run

    def _begun(self) -> PPORun:
        config, joint = self.config, self.config.phase3
        if joint.curriculum_learning:
            self.curriculum = AdvancedCurriculumLearning(config.curriculum, seed=seed_of(config.seed, 3, 1))
            self._next_scenario()

        run, self.coordination = joint_run(
            config, self.net, self.create_joint_training_env(), learning_rate=joint.learning_rate,
            total_timesteps=joint.total_timesteps, seed=seed_of(config.seed, 3), device=self.device,
        )  # fmt: skip
        return run

    def _each(self, metrics: dict[str, float]) -> dict[str, float]:
        """After a rollout: how gradients met, learning rates, the curriculum."""
        assert self.coordination is not None and self._envs is not None
        metrics = coordinated(self.config, self.coordination, metrics)
        metrics |= risk_metrics(self._envs)
        return metrics if self.curriculum is None else metrics | self._advance()

    def _advance(self) -> dict[str, float]:
        """The curriculum sees how the episodes that ended fared, per bar, and may send the team elsewhere."""
        assert self.curriculum is not None and self._scenario is not None
        ended, level = self._run.episodes, self.curriculum.level
        self.curriculum.update_curriculum({PERFORMANCE: ended.returns / np.maximum(ended.lengths, 1)})
        self._in_scenario += 1
        found = self.curriculum.metrics() | {
            "curriculum/difficulty": self._scenario.difficulty,
            "curriculum/cost_scale": self._scenario.cost_scale,
        }
        if self.curriculum.level != level or self._in_scenario >= self.config.phase3.scenario_rollouts:
            self._next_scenario()
            self._run.collector.enter(self.create_joint_training_env())
        return found

    def _next_scenario(self) -> None:
        assert self.curriculum is not None
        self._scenario = self.curriculum.generate_scenario(self.curriculum.level)
        self._scenarios, self._in_scenario = self._scenarios + 1, 0
        log.info("phase 3: scenario %d, %s", self._scenarios, self._scenario)

    def _market_of(self, scenario: TrainingScenario) -> tuple[MarketCore, np.ndarray | None]:
        """A scenario's market, and where its episodes may start. Real bars cannot be made anew: of them a scenario
        chooses the costs, and how calm the bars are after which episodes start."""
        config, train = self.config, self.data.markets["train"]
        scale = train.rules.cost_scale * scenario.cost_scale
        if self.data.is_history:
            core = self.data.core("train", cost_scale=scale)
            moves = simple_returns(train.bars[0].close).mean(1, keepdims=True)
            calm = rolling_volatility(moves, train.rules.correlation_window)[core.starts, 0]
            return core, core.starts[calm <= np.quantile(calm, max(0.2, scenario.difficulty))]
        chosen = config.market.simulation
        generator = np.random.default_rng(np.random.SeedSequence([config.seed, 3, 2, self._scenarios]))
        bars = simulate(scenario.model(train.instruments), chosen.bars, chosen.paths, generator, chosen.bar_seconds)
        market = market_of(bars, train.instruments, config.market)
        return market.core(self.data.normaliser, cost_scale=scale), None

    def _state(self) -> dict[str, Any]:
        assert self.coordination is not None
        state: dict[str, Any] = {"coordination": self.coordination.state_dict(), "curriculum": None}
        if self.curriculum is not None and self._scenario is not None:
            state |= {
                "curriculum": self.curriculum.state_dict(), "scenario": asdict(self._scenario),
                "scenarios": self._scenarios, "in_scenario": self._in_scenario,
            }  # fmt: skip
        return state

    def _restore(self, stored: Mapping[str, Any]) -> None:
        assert self.coordination is not None
        self.coordination.load_state_dict(stored["coordination"])
        if self.curriculum is not None:
            self.curriculum.load_state_dict(stored["curriculum"])
            self._scenario = TrainingScenario(**stored["scenario"])
            self._scenarios, self._in_scenario = stored["scenarios"], stored["in_scenario"]
            self._run.collector.enter(self.create_joint_training_env())

    # ------------------------------------------------------------------------------------------ judging

    def _incumbent(self) -> Track:
        """What was traded after phase 2, on the validation episodes."""
        assert self.space is not None
        first, second = self.space.read_results(1), self.space.read_results(2)
        if second["gate"]["promote"]:
            return judge(self.data, self.config, self.net, "validation")[0].track
        return judge(self.data, self.config, self.net, "validation", mode="equal", active=first["improved"])[0].track
