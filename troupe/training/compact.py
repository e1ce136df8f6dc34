"""PPO's loss of a small tanh network and its gradient, written out: one node of the graph in place of eighty.

On a network of two layers of 64 units, three quarters of an update's time go to the graph around a few products of
matrices. Here losses and gradients are computed together with NumPy, whose calls cost a third of torch's; tests hold
both against `ppo_clip`, `value_loss` and autograd. The gradients still pass through the learner's backward pass.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from troupe.batch import Batch
from troupe.maths.losses import LOG_RATIO_LIMIT
from troupe.models.actions import CategoricalHead, GaussianHead
from troupe.models.actor_critic import ActorCritic, tanh_backward, tanh_forward
from troupe.training.config import PPOConfig

__all__ = ["Surrogate", "compact_ppo", "fits", "squared_error", "surrogate"]


class _Targets(NamedTuple):
    """What the loss compares the network with; arrays of n entries."""

    actions: np.ndarray  # [n] or [n, A]
    old: np.ndarray
    advantages: np.ndarray
    returns: np.ndarray
    values: np.ndarray


class _Scored(NamedTuple):
    """Log-probs and entropies, and how they depend on the numbers [n, P] and on log-deviations [A]."""

    logprobs: np.ndarray  # [n]
    entropy: float  # mean
    d_logprobs: np.ndarray  # [n, P]
    d_entropy: np.ndarray | None  # [n, P], of the mean; None: it does not depend on them
    d_log_std: np.ndarray | None  # [n, A], of the log-probs


class Surrogate(NamedTuple):
    """PPO's policy loss of each row of `[..., n]`."""

    loss: np.ndarray  # [...]
    slope: np.ndarray  # [..., n]: of the loss, by the log-probs
    approx_kl: np.ndarray  # [...]: k3 of the old policy against the new one
    clip_fraction: np.ndarray  # [...]


def fits(net: ActorCritic, steps: Batch) -> bool:
    """Whether `compact_ppo` can take this network and these steps `[n, 1]`."""
    simple = isinstance(net.policy, CategoricalHead | GaussianHead) and steps["mask"].shape[1] == 1
    return simple and all(weight.requires_grad for weight in net.weights) and net.compact(steps.inputs["observations"])


def compact_ppo(
    net: ActorCritic, steps: Batch, settings: PPOConfig, clip: float
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """(losses `policy`, `value` and, where it counts, `entropy`; means that are measured). The same as the objective
    by autograd, for what `fits`."""
    columns = (steps[name].numpy() for name in ("actions", "old_logprobs", "advantages", "returns", "values"))
    targets = _Targets(*(column.reshape(len(column), *column.shape[2:]) for column in columns))
    log_std = net.policy.log_std if isinstance(net.policy, GaussianHead) else None
    measured: dict[str, float] = {}
    x = steps.inputs["observations"].reshape(len(steps), -1)
    policy, value, entropy = _CompactPPO.apply(x, targets, settings, clip, measured, log_std, net.weights, *net.leaves)
    losses = {"policy": policy, "value": value}
    return losses | ({"entropy": entropy} if settings.ent_coef > 0 else {}), measured


class _CompactPPO(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        targets: _Targets,
        settings: PPOConfig,
        clip: float,
        measured: dict[str, float],
        log_std: Tensor | None,
        weights: tuple[Tensor, ...],
        *leaves: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        numbers, values, passed = tanh_forward(x, weights)
        if log_std is None:
            scored = _categorical(numbers.numpy(), targets.actions, settings.ent_coef > 0)
        else:
            scored = _gaussian(numbers.numpy(), targets.actions, log_std.detach().numpy())
        policy = surrogate(scored.logprobs, targets.old, targets.advantages, clip, settings.normalize_advantage)
        value, d_values = squared_error(values.numpy(), targets.returns, targets.values, settings)
        measured["approx_kl"], measured["clip_fraction"] = float(policy.approx_kl), float(policy.clip_fraction)
        measured["entropy"] = scored.entropy
        ctx.network = weights, passed, len(leaves)
        ctx.found = policy.slope, d_values, scored, settings.ent_coef
        entropy = torch.scalar_tensor(-settings.ent_coef * scored.entropy)
        return torch.scalar_tensor(float(policy.loss)), torch.scalar_tensor(float(value)), entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, policy: Tensor, value: Tensor, entropy: Tensor) -> tuple[Tensor | None, ...]:
        d_logprobs, d_values, scored, ent_coef = ctx.found
        along, weight = d_logprobs * np.float32(policy.item()), np.float32(-ent_coef * entropy.item())
        d_numbers = np.ascontiguousarray(along[:, None] * scored.d_logprobs)
        if weight and scored.d_entropy is not None:
            d_numbers += weight * scored.d_entropy
        d_log_std: list[Tensor] = []
        if scored.d_log_std is not None:
            d_log_std = [torch.from_numpy(along @ scored.d_log_std + weight)]  # each entropy grows by 1
        # Copied: products of matrices round by where in memory their rows lie.
        d_values = torch.tensor(d_values * np.float32(value.item()))
        weights, passed, count = ctx.network
        _, *found = tanh_backward(torch.tensor(d_numbers), d_values, weights, passed, into_x=False)
        found += d_log_std
        if count == 1:
            found = [torch.cat([gradient.reshape(-1) for gradient in found if gradient is not None])]
        return None, None, None, None, None, None, None, *found


def _categorical(numbers: np.ndarray, actions: np.ndarray, with_entropy: bool) -> _Scored:
    """d log p_a / dz = 1_a - p;  dH / dz = -p (log p + H)."""
    logp = np.ascontiguousarray(numbers.T)  # [P, n]: sums over few numbers are slow, sums of few rows are fast
    logp -= logp.max(0)
    logp -= np.log(np.exp(logp).sum(0))
    p = np.exp(logp)
    columns = np.arange(len(actions))
    entropies = -(p * logp).sum(0)
    d_entropy = (p * (logp + entropies)).T * np.float32(-1 / len(actions)) if with_entropy else None
    slope = -p
    slope[actions, columns] += 1
    return _Scored(logp[actions, columns], float(entropies.mean()), slope.T, d_entropy, None)


def _gaussian(means: np.ndarray, actions: np.ndarray, log_std: np.ndarray) -> _Scored:
    """d log p / dm = (a - m) / s^2;  d log p / d log s = ((a - m) / s)^2 - 1."""
    inverse = np.exp(-log_std)
    scaled = (actions - means) * inverse
    squares = scaled * scaled
    total = float(log_std.sum())
    logprobs = -0.5 * squares.sum(1) - np.float32(total + len(log_std) * 0.5 * math.log(2 * math.pi))
    entropy = total + len(log_std) * 0.5 * math.log(2 * math.pi * math.e)
    return _Scored(logprobs, entropy, scaled * inverse, None, squares - 1)


def surrogate(logprobs: np.ndarray, old: np.ndarray, advantages: np.ndarray, clip: float, normalize: bool) -> Surrogate:
    """The mean of `ppo_clip` over each row of `[..., n]`, and its gradient."""
    n = logprobs.shape[-1]
    if normalize and n > 1:
        centred = advantages - advantages.mean(-1, keepdims=True)
        deviation = np.sqrt((centred * centred).sum(-1, keepdims=True) / np.float32(n - 1))
        advantages = centred / (deviation + np.float32(1e-8))
    moved = logprobs - old
    change = np.clip(moved, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    ratio = np.exp(change)
    plain, bounded = ratio * advantages, np.clip(ratio, 1 - clip, 1 + clip) * advantages
    counts = plain <= bounded
    slope = plain * (counts & (change == moved)) * np.float32(-1 / n)
    loss = -np.minimum(plain, bounded).mean(-1)
    return Surrogate(loss, slope, (np.expm1(moved) - moved).mean(-1), 1.0 - counts.mean(-1))


def squared_error(
    values: np.ndarray, returns: np.ndarray, old: np.ndarray, settings: PPOConfig
) -> tuple[np.ndarray, np.ndarray]:
    """(vf_coef times the mean of (V - R)^2 over each row of `[..., n]`, its gradient by the values); V clipped where
    the settings say so."""
    n, limit = values.shape[-1], settings.clip_range_vf
    if limit is None:
        error = values - returns
        slope = error
    else:
        moved = values - old
        change = np.clip(moved, -limit, limit)
        error = old + change - returns
        slope = error * (change == moved)
    loss = (error * error).sum(-1) * np.float32(settings.vf_coef / n)
    return loss, slope * np.float32(2 * settings.vf_coef / n)
