"""The configuration of hierarchical trading in three phases; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from troupe.config import Frozen, ReadWhen
from troupe.envs.market.config import PLANTED_SCENARIOS, MarketConfig, read_when, sources_read_when
from troupe.envs.market.rewards import RewardRules, reward_read_when
from troupe.models.config import TeamConfig
from troupe.systems.trading.curriculum import CurriculumConfig
from troupe.training.config import PPOConfig

__all__ = [
    "CommunicationConfig",
    "EpisodesConfig",
    "JointConfig",
    "PhaseConfig",
    "TradingConfig",
    "TradingTrainerConfig",
]


class PhaseConfig(Frozen):
    """One phase."""

    total_timesteps: int = Field(ge=1)
    """Steps in all environments together, up to the end of a rollout."""
    learning_rate: float | None = Field(None, gt=0)
    """Of Adam in this phase; null takes ppo.learning_rate."""


class JointConfig(PhaseConfig):
    """Phase 3."""

    meta_update_freq: int = Field(1, ge=1)
    """The meta-controller steps at every so many minibatches, on the mean of their gradients."""
    specialist_update_freq: int = Field(5, ge=1)
    """The same for the specialists."""
    gradient_coordination: bool = True
    """Where the gradients of the meta-controller and of a specialist oppose each other on the specialist's encoder,
    each is projected onto the normal plane of the other (PCGrad); off, they are added."""
    adaptive_learning_rates: bool = False
    """Learning rates of the agents follow how far their policies moved in a rollout."""
    desired_kl: float = Field(0.01, gt=0)
    """KL divergence of a rollout's updates that adaptive learning rates aim at."""
    curriculum_learning: bool = False
    """Markets get harder as the team gets better."""
    scenario_rollouts: int = Field(20, ge=1)
    """Rollouts in one market of the curriculum."""


class EpisodesConfig(Frozen):
    """How phases are judged: paired episodes that nobody has learned from."""

    episodes: int = Field(100, ge=10)
    """At most (a gate needs ten); on one history as many as fit without overlap."""
    bars: int | None = Field(None, ge=2)
    """Of an episode; null takes market.rules.episode_length."""
    paths: int = Field(16, ge=1)
    """Simulated histories of validation, and as many of the test."""
    validation: float = Field(0.15, gt=0, lt=0.5)
    """Share of a single history that the gates judge by; it follows what is learned from."""
    test: float = Field(0.2, gt=0, lt=0.5)
    """Share of a single history that nothing but the last evaluation sees; its end."""
    confidence: float = Field(0.95, gt=0.5, lt=1)
    """Of the gates' intervals."""


class CommunicationConfig(Frozen):
    """Messages of an evaluation."""

    message_history_size: int = Field(1000, ge=1)
    """Messages that the hub keeps."""
    correlation_id_enabled: bool = True
    """Messages that belong together carry one id."""
    log_all_messages: bool = False
    """Write every message to messages.jsonl of the run."""


class TradingTrainerConfig(Frozen):
    """The run."""

    n_envs: int = Field(8, ge=1)
    """Accounts that trade side by side while learning."""
    processes: int | None = Field(None, ge=1)
    """Specialists that learn at the same time, each in a process; null takes all of them: three on two
    cores are done before two and then the third."""
    save_freq: int = Field(20, ge=1)
    """Rollouts between checkpoints."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept besides the best."""
    logger: tuple[Literal["jsonl", "tensorboard", "wandb", "mlflow", "console"], ...] = ("jsonl", "tensorboard")
    """Trackers."""
    project_name: str = "troupe"
    """Project in the trackers."""
    experiment_name: str = "trading"
    """Run name in the trackers."""
    output_dir: str = "runs/trading"
    """The run folder: a folder per phase, results, evaluation, tear sheet."""
    log_dir: str | None = None
    """Where phase1, phase2 and phase3 log; null takes logs in output_dir."""
    resume: Literal["auto", "never"] = "auto"
    """`auto` continues the run that the folder holds; `never` refuses a folder that holds one (all
    phases together; one trainer alone always continues)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Of the networks; `auto` takes the CPU, which is faster for ones this small."""
    use_amp: bool = False
    """Mixed precision (bf16) in phase 3."""
    compile: bool = False
    """Let torch.compile fuse phase 3's forward and backward pass; on the CPU it needs a C++ compiler."""
    threads: int = Field(1, ge=1)
    """Torch threads per process."""


class TradingConfig(Frozen):
    """Everything a run depends on."""

    read_when = (
        *read_when("market.rules"), *sources_read_when("market"), *reward_read_when("reward"),
        ReadWhen(
            ("evaluation.paths",), lambda config: not config.market.data.files,
            "is for simulated markets; a history is split by evaluation.validation and evaluation.test",
        ),
        ReadWhen(
            ("evaluation.validation", "evaluation.test"), lambda config: bool(config.market.data.files),
            "is for market.data.files; of simulated markets write evaluation.paths",
        ),
        ReadWhen(
            ("phase3.desired_kl",), lambda config: config.phase3.adaptive_learning_rates,
            "is for phase3.adaptive_learning_rates; write that, too, or leave it out",
        ),
        ReadWhen(
            ("curriculum", "phase3.scenario_rollouts"), lambda config: config.phase3.curriculum_learning,
            "is for phase3.curriculum_learning; write that, too, or leave it out",
        ),
    )  # fmt: skip

    seed: int = Field(0, ge=0)
    """Seeds weights, episodes, actions and minibatches."""
    market: MarketConfig = MarketConfig()
    allocation_scale: float = Field(2.0, gt=0)
    """Largest logit of an allocation: with 3 sectors and 2.0 a sector gets between 1 % and 96 %."""
    reward: RewardRules = RewardRules(kind="differential_sharpe")
    net: TeamConfig = TeamConfig()
    ppo: PPOConfig = PPOConfig(n_steps=256, batch_size=256, ent_coef=0.0)
    phase1: PhaseConfig = PhaseConfig(total_timesteps=500_000)
    phase2: PhaseConfig = PhaseConfig(total_timesteps=300_000)
    phase3: JointConfig = JointConfig(total_timesteps=1_000_000, learning_rate=1e-4)
    curriculum: CurriculumConfig = CurriculumConfig()
    evaluation: EpisodesConfig = EpisodesConfig()
    communication: CommunicationConfig = CommunicationConfig()
    trainer: TradingTrainerConfig = TradingTrainerConfig()

    @model_validator(mode="after")
    def _fits(self) -> TradingConfig:
        rollout = self.ppo.n_steps * self.trainer.n_envs
        if rollout % self.ppo.batch_size:
            raise ValueError(
                f"ppo.n_steps * trainer.n_envs = {rollout} is no multiple of ppo.batch_size={self.ppo.batch_size}; "
                "choose one that divides it"
            )
        steps = -(-self.phase3.total_timesteps // rollout) * (rollout // self.ppo.batch_size) * self.ppo.n_epochs
        for key in ("meta_update_freq", "specialist_update_freq"):
            if getattr(self.phase3, key) > steps:
                raise ValueError(
                    f"phase3.{key}={getattr(self.phase3, key)} is more than the {steps} minibatches of phase 3: those "
                    "agents would never learn"
                )
        stay = self.phase3.scenario_rollouts * self.ppo.n_steps
        if self.phase3.curriculum_learning and stay <= self.market.rules.episode_length:
            raise ValueError(
                f"phase3.scenario_rollouts={self.phase3.scenario_rollouts} stays {stay} bars in a market, where no "
                f"episode would end: they have {self.market.rules.episode_length} bars; write more rollouts, or "
                "shorter episodes"
            )
        if self.market.data.files and self.evaluation.validation + self.evaluation.test >= 0.8:
            raise ValueError("evaluation.validation and evaluation.test leave less than a fifth to learn from")
        if (
            not self.market.data.files
            and self.market.simulation.scenario in PLANTED_SCENARIOS
            and self.phase3.curriculum_learning
        ):
            raise ValueError(
                f"curriculum_learning draws markets of document 002's scenarios, and market.simulation.scenario="
                f"{self.market.simulation.scenario} is none of them; leave one of the two out"
            )
        return self
