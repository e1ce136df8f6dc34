"""One policy that learns to trade: PPO on a market core, and the strategy that it becomes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from troupe.envs.market.core import MarketCore, MarketState
from troupe.envs.market.rewards import RewardRules
from troupe.envs.market.vector import MarketVector
from troupe.models.actor_critic import ActorCritic
from troupe.models.config import ActorCriticConfig
from troupe.stores.checkpoints import CheckpointStore
from troupe.training.collection import as_inputs
from troupe.training.config import PPOConfig
from troupe.training.ppo_run import PPORun

__all__ = ["PolicyStrategy", "learn_to_trade"]


class PolicyStrategy:
    """The likeliest action of a network, as a `Strategy`."""

    def __init__(self, net: ActorCritic) -> None:
        self.net = net

    def __call__(self, core: MarketCore, state: MarketState) -> Any:
        observations = as_inputs(core.observe(state))
        return self.net.act(observations, None)[0].clamp(-1.0, 1.0).double().numpy()


def learn_to_trade(
    core: MarketCore,
    reward: RewardRules,
    net: ActorCriticConfig,
    settings: PPOConfig,
    *,
    total_timesteps: int,
    n_envs: int,
    seed: int,
    folder: Path | None = None,
    save_freq: int = 10,
    progress: Callable[[int, int, dict[str, float]], None] | None = None,
) -> ActorCritic:
    """PPO on episodes of the core; the network of the last rollout.

    With a `folder` it is checkpointed there every `save_freq` rollouts and continues exactly, also when it is already
    done. Raises TrainingError, DataError for numbers that are not finite, StorageError.
    """
    run = PPORun(
        MarketVector(core, n_envs, reward), net, settings, total_timesteps=total_timesteps, seed=seed
    )  # fmt: skip
    store = None if folder is None else CheckpointStore(folder, keep_last=1, metric="rollout/ep_rew_mean")
    if store is not None and store.latest() is not None:
        checkpoint = store.load("latest")
        run.load_state_dict(checkpoint.tensors["net"], checkpoint.state)
    while run.rollouts < run.total:
        metrics = run.rollout()
        if progress is not None:
            progress(run.rollouts, run.total, metrics)
        if store is not None and (run.rollouts % save_freq == 0 or run.rollouts == run.total):
            scored = {name: value for name, value in metrics.items() if name == "rollout/ep_rew_mean"}
            store.save(run.rollouts, {"net": dict(run.net.state_dict())}, run.state_dict(), scored)
    return run.net.eval()
