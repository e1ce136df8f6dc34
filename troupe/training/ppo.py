"""PPO's update from one rollout: epochs of minibatches through the learner."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch

from troupe.batch import Batch
from troupe.errors import ConfigError
from troupe.models.actor_critic import ActorCritic
from troupe.training.config import PPOConfig
from troupe.training.learner import Learner, OptimizerGroup, flattened
from troupe.training.objectives import Meter, Objective, actor_critic

__all__ = ["explained_variance", "ppo_learner", "ppo_update"]

TOO_FAR = 1.5
"""Learning from a rollout stops at so many times `target_kl` (as in OpenAI's Spinning Up and stable-baselines3)."""


def ppo_learner(net: ActorCritic, settings: PPOConfig, remaining: Callable[[], float]) -> Learner:
    """A learner under Adam (epsilon 1e-5, detail 3 of Huang et al. 2022); `remaining` is the share of the run that is
    still to come, for a learning rate that falls."""
    named = net.trained
    flat = flattened(named.values())
    net.share(flat)
    falls = "learning_rate" in settings.schedule
    optimizer = torch.optim.Adam([flat], lr=settings.learning_rate, eps=1e-5, fused=True)
    group = OptimizerGroup(
        named,
        optimizer,
        max_norm=settings.max_grad_norm,
        flat=flat,
        schedule=(lambda step: remaining()) if falls else None,
    )
    return Learner({"net": group})


def ppo_update(
    net: Any,
    batch: Batch,
    learner: Learner,
    settings: PPOConfig,
    *,
    generator: torch.Generator,
    remaining: float = 1.0,
    objective: Objective = actor_critic,
) -> dict[str, float]:
    """Learns from a rollout and returns the metrics, means over the minibatches. Raises ConfigError where a minibatch
    would be larger than the rollout."""
    size = int(batch["mask"].sum())
    if size < settings.batch_size:
        raise ConfigError(f"a rollout of {size} steps is smaller than one minibatch; write a batch_size below that")
    clip = settings.clip_range * (remaining if "clip_range" in settings.schedule else 1.0)
    meter, losses = Meter(), Meter()
    metrics: dict[str, float] = {}
    done = 0
    for steps in _epochs(batch, settings, generator):
        with learner.autocast():  # the losses are needed before the update, which may not come
            terms = objective(net, steps, settings, meter, clip_range=clip)()
        if settings.target_kl is not None and meter.last["approx_kl"] > TOO_FAR * settings.target_kl:
            break
        metrics = learner.update([lambda terms=terms: terms])  # type: ignore[misc]
        for name, value in metrics.items():
            losses.sums[name] = losses.sums.get(name, 0.0) + value
        done += 1
    means = {name: total / max(1, done) for name, total in losses.sums.items()}
    rate = {name: value for name, value in metrics.items() if name.startswith(("lr/", "skipped"))}
    return means | rate | meter.means() | {"steps": float(done), "explained_variance": explained_variance(batch)}


_READ = ("actions", "old_logprobs", "advantages", "returns", "values", "mask")


def _epochs(batch: Batch, settings: PPOConfig, generator: torch.Generator) -> Iterator[Batch]:
    """Minibatches `[n, 1]` of about `batch_size` steps, every step once per epoch: those of `minibatches(unit="step")`,
    but shuffled an epoch at a time, so that a minibatch is made of views."""
    kept = batch["mask"].bool()
    inputs = {name: value[kept].unsqueeze(1) for name, value in batch.inputs.items()}
    columns = {name: batch[name][kept].unsqueeze(1) for name in _READ}
    count = len(columns["mask"])
    parts = round(count / settings.batch_size)
    bounds = [round(part * count / parts) for part in range(parts + 1)]
    for _ in range(settings.n_epochs):
        order = torch.randperm(count, generator=generator).to(kept.device)
        seen = {name: value[order] for name, value in inputs.items()}
        told = {name: value[order] for name, value in columns.items()}
        for low, high in pairwise(bounds):
            yield Batch(
                {name: value[low:high] for name, value in seen.items()},
                {name: value[low:high] for name, value in told.items()},
            )


def explained_variance(batch: Batch) -> float:
    """1 - Var(R - V) / Var(R) over the steps of the batch: 1 for a perfect critic, 0 for one that knows the mean alone;
    0 where all returns are the same. Of several agents the first."""
    kept = batch["mask"].bool()
    returns, values = (batch[name][kept].reshape(int(kept.sum()), -1)[:, 0] for name in ("returns", "values"))
    variance = float(returns.var(correction=0))
    return 1.0 - float((returns - values).var(correction=0)) / variance if variance > 0 else 0.0
