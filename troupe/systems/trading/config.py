"""The configuration of a walk-forward evaluation; imports no torch."""

from __future__ import annotations

from math import isfinite
from typing import Literal

from pydantic import Field, model_validator

from troupe.config import Frozen
from troupe.envs.market.config import MarketConfig, SimulationConfig, read_when, sources_read_when
from troupe.envs.market.rewards import RewardRules, reward_read_when
from troupe.models.config import ActorCriticConfig
from troupe.training.config import PPOConfig

__all__ = ["FoldsConfig", "TradingRunConfig", "WalkForwardConfig"]


class FoldsConfig(Frozen):
    """Where learning ends and trading begins."""

    count: int = Field(4, ge=1)
    """Test stretches of equal length, one after the other."""
    first: float = Field(0.5, gt=0, lt=1)
    """Share of the bars before the first test stretch."""
    purge: int = Field(1, ge=1)
    """Bars between learning and trading: the horizon of a decision."""
    embargo: int = Field(20, ge=0)
    """Bars more, for what lingers in serially correlated data."""
    rolling: int | None = Field(None, ge=2)
    """Bars that are learned from; null takes all that came before."""


class TradingRunConfig(Frozen):
    """The run."""

    total_timesteps: int = Field(100_000, ge=1)
    """Steps that each policy learns from, in all its environments together."""
    n_envs: int = Field(64, ge=1)
    """Accounts that trade side by side while learning."""
    seeds: int = Field(5, ge=1)
    """Policies per fold; below five the intervals say little."""
    save_freq: int = Field(10, ge=1)
    """Rollouts between checkpoints."""
    cost_sweep: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0)
    """Factors on all costs under which the learned policies trade once more."""
    default_local_dir: str = "runs/market"
    """The run folder."""
    trials: str | None = None
    """File that counts everything ever tried on these bars; null writes trials.jsonl beside the run folder."""
    resume: Literal["auto", "never"] = "auto"
    """`auto` continues the run that the folder holds; `never` refuses a folder that holds one."""
    threads: int = Field(1, ge=1)
    """Torch threads."""


class WalkForwardConfig(Frozen):
    """Everything an evaluation depends on."""

    read_when = (*read_when("market.rules"), *sources_read_when("market"), *reward_read_when("reward"))

    seed: int = Field(0, ge=0)
    """The first seed; policies take this and the ones after it."""
    market: MarketConfig = MarketConfig(simulation=SimulationConfig(paths=1))
    reward: RewardRules = RewardRules()
    net: ActorCriticConfig = ActorCriticConfig()
    ppo: PPOConfig = PPOConfig(n_steps=64, batch_size=512)
    folds: FoldsConfig = FoldsConfig()
    trainer: TradingRunConfig = TradingRunConfig()

    @model_validator(mode="after")
    def _fits(self) -> WalkForwardConfig:
        rollout = self.ppo.n_steps * self.trainer.n_envs
        if rollout % self.ppo.batch_size:
            raise ValueError(
                f"ppo.n_steps * trainer.n_envs = {rollout} is no multiple of ppo.batch_size={self.ppo.batch_size}; "
                "choose one that divides it"
            )
        factors = self.trainer.cost_sweep
        if 1.0 not in factors or len(set(factors)) < len(factors) or not all(isfinite(f) and f >= 0 for f in factors):
            raise ValueError("trainer.cost_sweep needs different factors of 0 or more, and 1 among them")
        return self
