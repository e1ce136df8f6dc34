"""A run of PPO between two rollouts: everything that the next one depends on, in one object.

run = PPORun(envs, ActorCriticConfig(), PPOConfig(), total_timesteps=100_000, seed=0)
while run.rollouts < run.total:
    metrics = run.rollout()
store.save(run.rollouts, {"net": dict(run.net.state_dict())}, run.state_dict(), metrics)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from troupe.models.actor_critic import ActorCritic
from troupe.models.config import ActorCriticConfig
from troupe.training.collection import Collector, Episodes
from troupe.training.config import PPOConfig
from troupe.training.learner import Learner
from troupe.training.objectives import Objective, actor_critic
from troupe.training.ppo import ppo_learner, ppo_update

__all__ = ["PPORun", "run_seeds"]


def run_seeds(seed: int) -> list[int]:
    """Of weights, collection, minibatches and evaluation."""
    return [int(child.generate_state(1)[0]) for child in np.random.SeedSequence(seed).spawn(4)]


class PPORun:
    """Network, collector, learner and the order of minibatches, for a known number of rollouts.

    `net` is a configuration, or a network that learns on: whatever `objective` takes, and `learner` makes a learner of.
    """

    def __init__(
        self,
        envs: Any,
        net: ActorCriticConfig | Any,
        settings: PPOConfig,
        *,
        total_timesteps: int,
        seed: int,
        carry: bool = True,
        normalize_observations: bool = False,
        normalize_rewards: bool = False,
        learner: Callable[[Any, PPOConfig, Callable[[], float]], Learner] = ppo_learner,
        objective: Objective = actor_critic,
        device: torch.device | str = "cpu",
    ) -> None:
        self.settings = settings
        weights, episodes, shuffle, _ = run_seeds(seed)
        self.collector = Collector(
            envs, n_steps=settings.n_steps, gamma=settings.gamma, gae_lambda=settings.gae_lambda, seed=episodes,
            carry=carry, normalize_observations=normalize_observations, normalize_rewards=normalize_rewards,
            device=device,
        )  # fmt: skip
        self.per_rollout = settings.n_steps * self.collector.num_envs
        self.total = -(-total_timesteps // self.per_rollout)  # rollouts
        if isinstance(net, ActorCriticConfig):
            net = ActorCritic(net, self.collector.observation_shape, self.collector.space, seed=weights)
        self.net = net
        self.learner = learner(net, settings, lambda: self.remaining)
        self.objective = objective
        self.shuffle = torch.Generator().manual_seed(shuffle)
        self.rollouts = 0  # learned from
        self.episodes = Episodes(np.zeros(0), np.zeros(0, dtype=np.int64))  # that ended in the last rollout
        self.cpu: dict[str, float] = {}  # seconds of the last rollout, by what was done

    @property
    def timesteps(self) -> int:
        return self.rollouts * self.per_rollout

    @property
    def remaining(self) -> float:
        """Share of the run that is to come, 1 during the first rollout."""
        return 1.0 - self.rollouts / self.total

    def rollout(self) -> dict[str, float]:
        """Collects one rollout and learns from it. Metrics of the episodes that ended and of the updates."""
        began = time.process_time()
        batch = self.collector.collect(self.net)
        collected = time.process_time()
        learned = ppo_update(
            self.net, batch, self.learner, self.settings, generator=self.shuffle, remaining=self.remaining,
            objective=self.objective,
        )  # fmt: skip
        self.rollouts += 1
        self.cpu = {"cpu/collect_s": collected - began, "cpu/learn_s": time.process_time() - collected}
        self.episodes = batch.metadata["episodes"]
        return _episode_metrics(self.episodes) | {f"train/{name}": v for name, v in learned.items()}

    def state_dict(self) -> dict[str, Any]:
        """Everything but the network's weights."""
        return {
            "rollouts": self.rollouts,
            "learner": self.learner.state_dict(),
            "collector": self.collector.state_dict(),
            "shuffle": self.shuffle.get_state(),
        }

    def load_state_dict(self, net: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Continues from there."""
        self.net.load_state_dict(net)
        self.rollouts = state["rollouts"]
        self.learner.load_state_dict(state["learner"])
        self.collector.load_state_dict(state["collector"])
        self.shuffle.set_state(state["shuffle"])


def _episode_metrics(episodes: Episodes) -> dict[str, float]:
    """Of the episodes that ended in a rollout; nothing where none did."""
    metrics = {"rollout/episodes": float(len(episodes.returns))}
    if len(episodes.returns):
        metrics["rollout/ep_rew_mean"] = float(episodes.returns.mean())
        metrics["rollout/ep_len_mean"] = float(episodes.lengths.mean())
    return metrics
