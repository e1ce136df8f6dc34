"""`EnvTrainer`: collect, learn, evaluate; PPO on one environment."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from troupe.config import load
from troupe.errors import ConfigError
from troupe.maths.statistics import Interval, mean_interval
from troupe.models.actor_critic import ActorCritic
from troupe.stores.atomic import write_atomic
from troupe.stores.opening import open_run
from troupe.stores.state import parameter_hash
from troupe.systems.env_rl import state
from troupe.systems.env_rl.config import ALIASES, EnvConfig, EnvRLConfig
from troupe.training.collection import Episodes, play_episodes
from troupe.training.ppo_run import PPORun, run_seeds
from troupe.training.vector_envs import environments

__all__ = ["EnvResult", "EnvTrainer"]

Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class EnvResult:
    """What a run ended with. `returns`: mean return of the evaluation episodes of the last policy, 95 % interval."""

    folder: Path
    timesteps: int
    returns: Interval
    parameter_hash: str
    seconds: float  # of this call
    cpu_seconds: float


class EnvTrainer:
    """Trains an `ActorCritic` with PPO (Schulman et al. 2017, arXiv:1707.06347) on one environment.

    The folder `trainer.default_local_dir` holds the whole run, and a second call continues it. `make(n)` may give the
    environments in place of `env.id`: a BatchEnv or a Gymnasium VectorEnv of n environments, for training and once more
    for evaluation. Raises ConfigError for an environment that there is none of, or that no network here can act in.
    """

    def __init__(
        self,
        config: EnvRLConfig | Mapping[str, Any] | None = None,
        *,
        make: Callable[[int], Any] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.config = _as_config(config)
        torch.set_num_threads(self.config.trainer.threads)
        self.folder = Path(self.config.trainer.default_local_dir)
        self.progress: Progress = progress or (lambda phase, step, total, metrics: None)
        self._make = make or (lambda n: _environments(self.config.env, n))
        self._envs = self._make(self.config.env.n_envs)
        self._begin()

    def _begin(self) -> None:
        """Everything as it stands before the first rollout."""
        config = self.config
        self.ppo = PPORun(
            self._envs, config.net, config.ppo, total_timesteps=config.trainer.total_timesteps, seed=config.seed,
            carry=config.env.carry, normalize_observations=config.env.norm_obs,
            normalize_rewards=config.env.norm_reward,
        )  # fmt: skip
        self.evaluated: dict[str, float] = {}

    @property
    def net(self) -> ActorCritic:
        return self.ppo.net

    @property
    def timesteps(self) -> int:
        return self.ppo.timesteps

    # ------------------------------------------------------------------------------------------ the run

    def train(self) -> EnvResult:
        """Runs to the last rollout, from wherever the run folder stands. Raises TrainingError, DataError for numbers
        that are not finite, StorageError."""
        began = time.perf_counter(), time.process_time()
        with ExitStack() as opened:
            self._open(opened)
            while self.ppo.rollouts < self.ppo.total:
                metrics = self._one_rollout()
                self.tracker.log(metrics, self.timesteps)
                self.progress("env", self.timesteps, self.ppo.total * self.ppo.per_rollout, metrics)
                if self.ppo.rollouts % self.config.trainer.save_freq == 0 or self.ppo.rollouts == self.ppo.total:
                    state.save(self, metrics)
        return self._finished(time.perf_counter() - began[0], time.process_time() - began[1])

    def _one_rollout(self) -> dict[str, float]:
        """Collect -> learn -> evaluate."""
        began = time.perf_counter()
        metrics = self.ppo.rollout()
        self.tracker.log_timing({"time/rollout_s": time.perf_counter() - began} | self.ppo.cpu, self.timesteps)
        every = self.config.evaluation.every
        if self.ppo.rollouts == self.ppo.total or (every and self.ppo.rollouts % every == 0):
            metrics |= self._evaluate()
        return metrics

    def _evaluate(self) -> dict[str, float]:
        episodes = self.evaluate()
        returns = mean_interval(episodes.returns.tolist())
        self.evaluated = {
            "eval/return": returns.mean,
            "eval/return_low": returns.low,
            "eval/return_high": returns.high,
            "eval/length": float(episodes.lengths.mean()),
            "eval/episodes": float(returns.n),
        }
        return self.evaluated

    def evaluate(self, *, deterministic: bool = True) -> Episodes:
        """The evaluation episodes of the policy as it stands: the same starts each time, which training never sees."""
        settings = self.config.evaluation
        envs = self._make(min(settings.episodes, self.config.env.n_envs))
        try:
            return play_episodes(
                self.net, envs, settings.episodes, seed=run_seeds(self.config.seed)[3], deterministic=deterministic,
                scale=self.ppo.collector.observation_scale, max_steps=settings.max_steps,
            )  # fmt: skip
        finally:
            if hasattr(envs, "close"):
                envs.close()

    # ------------------------------------------------------------------------------------------ start and end

    def _open(self, opened: ExitStack) -> None:
        """The run folder, and the run as it stands in there. What must be closed is left to `opened`."""
        self.store, self.tracker = open_run(
            self.folder, self.config, EnvRLConfig(), state.MAY_CHANGE, "eval/return", opened
        )  # fmt: skip
        self._begin()  # an earlier call may have been stopped in the midst of its work
        state.restore(self)

    def _finished(self, seconds: float, cpu_seconds: float) -> EnvResult:
        found = self.evaluated
        returns = Interval(
            found["eval/return"], found["eval/return_low"], found["eval/return_high"], int(found["eval/episodes"])
        )
        digest = parameter_hash(self.net.state_dict())
        summary = {
            "title": f"PPO: {self.config.env.id}",
            "timesteps": self.timesteps,
            "return": asdict(returns),
            "length": found["eval/length"],
            "seed": self.config.seed,
            "parameter_hash": digest,
            "machine": f"{platform.machine()}, Python {platform.python_version()}, CPU",
        }
        write_atomic(self.folder / "summary.json", json.dumps(summary, indent=1).encode())
        return EnvResult(self.folder, self.timesteps, returns, digest, seconds, cpu_seconds)


def _environments(config: EnvConfig, n: int) -> Any:
    if config.id.startswith("troupe/"):
        import troupe.envs.market.faces  # noqa: F401  # registers the ids of this package

    return environments(config.id, n, **config.args)


def _as_config(config: Any) -> EnvRLConfig:
    if isinstance(config, EnvRLConfig):
        return config
    if config is None or isinstance(config, Mapping):
        return load(EnvRLConfig, preset=config or {}, aliases=ALIASES).config
    raise ConfigError(f"config must be an EnvRLConfig or a mapping, found {type(config).__name__}")
