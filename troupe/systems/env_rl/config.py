"""The configuration of PPO on an environment; imports no torch. Keys are stable-baselines3's where it has them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from troupe.config import Frozen
from troupe.models.config import ActorCriticConfig
from troupe.training.config import PPOConfig

__all__ = ["EnvConfig", "EnvRLConfig", "EvalConfig", "RunConfig"]


class EnvConfig(Frozen):
    """What is acted in."""

    id: str = "CartPole-v1"
    """An id that Gymnasium knows, or package.module:Id, which imports the package first."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of `gymnasium.make`."""
    n_envs: int = Field(8, ge=1)
    """Environments side by side."""
    carry: bool = True
    """Episodes go on from one rollout to the next. Off, every rollout begins new ones: then a resume is exact for every
    seeded environment, and what happens after `ppo.n_steps` steps of an episode is never seen."""
    norm_obs: bool = False
    """Observations less their running mean, divided by their running deviation (VecNormalize)."""
    norm_reward: bool = False
    """Rewards divided by the running deviation of the discounted return (VecNormalize). Reports show them as paid."""


class EvalConfig(Frozen):
    """How the policy is judged: the likeliest actions, episodes of their own."""

    episodes: int = Field(20, ge=2)
    """Episodes per evaluation."""
    every: int = Field(0, ge=0)
    """Rollouts between evaluations; 0 evaluates the last policy only, which is always done."""
    max_steps: int = Field(100_000, ge=1)
    """An episode that is not over after so many steps is an error."""


class RunConfig(Frozen):
    """The run."""

    total_timesteps: int = Field(100_000, ge=1)
    """Steps in all environments together, up to the end of a rollout."""
    save_freq: int = Field(10, ge=1)
    """Rollouts between checkpoints."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept besides the best."""
    logger: tuple[Literal["jsonl", "tensorboard", "wandb", "mlflow", "console"], ...] = ("jsonl", "tensorboard")
    """Trackers."""
    project_name: str = "troupe"
    """Project in the trackers."""
    experiment_name: str = "env"
    """Run name in the trackers."""
    default_local_dir: str = "runs/env"
    """The run folder."""
    resume: Literal["auto", "never"] = "auto"
    """`auto` continues the run that the folder holds; `never` refuses a folder that holds one."""
    threads: int = Field(1, ge=1)
    """Torch threads."""


class EnvRLConfig(Frozen):
    """Everything a run depends on."""

    seed: int = Field(0, ge=0)
    """Seeds weights, episodes, actions and minibatches."""
    env: EnvConfig = EnvConfig()
    net: ActorCriticConfig = ActorCriticConfig()
    ppo: PPOConfig = PPOConfig()
    evaluation: EvalConfig = EvalConfig()
    trainer: RunConfig = RunConfig()

    @model_validator(mode="after")
    def _fits(self) -> EnvRLConfig:
        rollout = self.ppo.n_steps * self.env.n_envs
        if rollout % self.ppo.batch_size:
            raise ValueError(
                f"ppo.n_steps * env.n_envs = {rollout} is no multiple of ppo.batch_size={self.ppo.batch_size}; "
                "choose one that divides it"
            )
        return self


ALIASES: dict[str, str] = {
    **{name: f"ppo.{name}" for name in PPOConfig.model_fields if name != "schedule"},
    "n_envs": "env.n_envs",
    "total_timesteps": "trainer.total_timesteps",
    "n_timesteps": "trainer.total_timesteps",
}
"""Keys as stable-baselines3 and its zoo spell them, without a section."""
