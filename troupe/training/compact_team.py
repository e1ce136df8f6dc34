"""PPO's losses of a team and their gradients, written out: what `troupe.training.compact` is for one network.

Autograd walks the graph of a team once for each loss that is to have a gradient of its own. Here all gradients are
found in one pass, and where the lead's objective reaches a specialist's encoder, it goes through the same products as
the specialist's own, side by side. Tests hold them against autograd.

Legend: n rows, K agents, the lead first, A numbers of an action of all of them, agent by agent; W width of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from troupe.batch import Batch
from troupe.models.actor_critic import layers_backward, tanh_backward
from troupe.models.team import TeamActorCritic
from troupe.training.compact import squared_error, surrogate
from troupe.training.config import PPOConfig

__all__ = ["MEASURED", "compact_team", "fits_team", "measures"]

MEASURED = ("approx_kl", "clip_fraction", "entropy")


class _Told(NamedTuple):
    """What the losses compare the team with; sums over few columns are slow, sums of few rows are fast."""

    actions: np.ndarray  # [A, n]
    old: np.ndarray  # [K, n], as the rest
    advantages: np.ndarray
    returns: np.ndarray
    values: np.ndarray


class _Slopes(NamedTuple):
    """Of each agent's loss by what it said."""

    means: Tensor  # [A, n]: of the policies' normal distributions
    log_std: Tensor  # [A]
    values: Tensor  # [K, n]


def fits_team(net: TeamActorCritic, steps: Batch) -> bool:
    """Whether `compact_team` can take this team and these steps `[n, 1]`."""
    simple = steps["mask"].shape[1] == 1 and not net.compiled
    return simple and net.compact(steps.inputs["observations"]) and all(leaf.requires_grad for leaf in _leaves(net))


def compact_team(
    net: TeamActorCritic, steps: Batch, settings: PPOConfig, clip: float
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """(agent -> its loss, means that are measured). The same as the objective by autograd, for what `fits_team`."""
    names = ("actions", "old_logprobs", "advantages", "returns", "values")
    told = _Told(*(np.ascontiguousarray(steps[name].numpy()[:, 0].T) for name in names))
    measured: dict[str, float] = {}
    seen = steps.inputs["observations"][:, 0]
    losses = _CompactTeam.apply(net, seen, told, settings, clip, measured, *_leaves(net))
    return dict(zip(net.agents, losses, strict=True)), measured


def measures(agents: Sequence[str], table: Sequence[Sequence[float]]) -> dict[str, float]:
    """By name the rows `MEASURED` of `table` `[3, K]`: each agent's, and the mean over the agents."""
    found: dict[str, float] = {}
    for name, row in zip(MEASURED, table, strict=True):
        found[name] = sum(row) / len(row)
        found.update({f"{name}/{agent}": value for agent, value in zip(agents, row, strict=True)})
    return found


def _leaves(net: TeamActorCritic) -> list[Tensor]:
    return [leaf for agent in net.agents for part in net.leaves(agent) for leaf in part]


class _CompactTeam(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        net: TeamActorCritic,
        seen: Tensor,
        told: _Told,
        settings: PPOConfig,
        clip: float,
        measured: dict[str, float],
        *leaves: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        passed = net.passed(seen)
        means, values = (said.numpy() for said in net.said(passed))
        losses, slopes = _losses(net, means, values, told, settings, clip, measured)
        ctx.reached, ctx.count = _reached(net, passed, slopes), len(leaves)
        return torch.from_numpy(losses).unbind()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *weights: Tensor | None) -> tuple[Tensor | None, ...]:
        found: list[Tensor | None] = [None] * ctx.count
        for weight, reached in zip(weights, ctx.reached, strict=True):
            if weight is None:
                continue
            factor = weight.item()
            for place, gradient in reached:
                part, before = gradient if factor == 1.0 else gradient * factor, found[place]
                found[place] = part if before is None else before + part
        return None, None, None, None, None, None, *found


def _losses(
    net: TeamActorCritic,
    means: np.ndarray,
    values: np.ndarray,
    told: _Told,
    settings: PPOConfig,
    clip: float,
    measured: dict[str, float],
) -> tuple[np.ndarray, _Slopes]:
    """(each agent's loss `[K]`, its slopes) of what was said: means `[A, n]` and values `[K, n]`.

    d log p / dm = (a - m) / s^2;  d log p / d log s = ((a - m) / s)^2 - 1;  an entropy grows with each log s by 1
    """
    starts = [part.start for part in net.parts.values()]
    sizes = np.array([part.stop - part.start for part in net.parts.values()])
    log_std = net.log_std.numpy()
    spread, inverse = np.add.reduceat(log_std, starts), np.exp(-log_std)[:, None]
    scaled = (told.actions - means) * inverse
    squares = scaled * scaled
    normal = (spread + sizes * (0.5 * math.log(2 * math.pi))).astype(np.float32)
    entropy = (spread + sizes * (0.5 * math.log(2 * math.pi * math.e))).astype(np.float32)
    logprobs = np.float32(-0.5) * np.add.reduceat(squares, starts, axis=0) - normal[:, None]
    policy = surrogate(logprobs, told.old, told.advantages, clip, settings.normalize_advantage)
    value, d_values = squared_error(values, told.returns, told.values, settings)
    measured |= measures(net.agents, [x.tolist() for x in (policy.approx_kl, policy.clip_fraction, entropy)])
    along = np.repeat(policy.slope, sizes, axis=0)
    d_log_std = (along * (squares - 1)).sum(1) - np.float32(settings.ent_coef)
    # Copied, as in `as_inputs` of the collector: products of matrices round by where in memory their rows lie.
    slopes = _Slopes(*(torch.tensor(x) for x in (along * scaled * inverse, d_log_std, d_values)))
    return policy.loss + value - np.float32(settings.ent_coef) * entropy, slopes


def _reached(
    net: TeamActorCritic, passed: Sequence[Sequence[Tensor]], slopes: _Slopes
) -> list[list[tuple[int, Tensor]]]:
    """For each agent (place among the leaves, gradient of its loss) of all that its loss reaches."""
    into, *own = _of_lead(net, passed[0], slopes)
    reached = [list(enumerate(_shaped(own, net.leaves(net.lead))))]
    place = len(reached[0])
    for number, name in enumerate(net.names, 1):
        leaves = net.leaves(name)
        (encoder, led), heads = _of_specialist(net, name, passed[number], slopes, number, into[number - 1])
        reached.append(list(enumerate(_shaped((encoder, heads), leaves), place)))
        reached[0] += enumerate(_shaped((led,), leaves[:1]), place)
        place += len(reached[-1])
    return reached


def _shaped(gradients: Sequence[Tensor], leaves: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Rows of numbers as the leaves that they belong to."""
    found: list[Tensor] = []
    for gradient, wanted in zip(gradients, leaves, strict=True):
        parts = gradient.split([leaf.numel() for leaf in wanted]) if len(wanted) > 1 else [gradient]
        found += [part.view(leaf.shape) for part, leaf in zip(parts, wanted, strict=True)]
    return found


def _of_lead(
    net: TeamActorCritic, passed: Sequence[Tensor], slopes: _Slopes
) -> tuple[Sequence[Tensor], Tensor, Tensor]:
    """Gradients of the lead's loss: by each specialist's embedding `[n, W]`, and rows of those by its encoder and by
    its heads."""
    module, part = net.module(net.lead), net.parts[net.lead]
    own = passed[0].shape[-1] - sum(net.widths)  # inputs that are nobody's embedding
    *heads, first, bias = module.weights[:6]
    weights = (*heads, first[..., own:], bias, *module.weights[6:])
    everything = tanh_backward(slopes.means[part].T, slopes.values[0], weights, passed, into_x=True)
    into, *found = (gradient for gradient in everything if gradient is not None)
    return into.split(net.widths, -1), _row(found[4::2] + found[5::2]), _row([slopes.log_std[part], *found[:4]])


def _of_specialist(
    net: TeamActorCritic, name: str, passed: Sequence[Tensor], slopes: _Slopes, number: int, led: Tensor
) -> tuple[Tensor, Tensor]:
    """(gradients of its own loss and of the lead's by its encoder, two rows; those of its own by its heads, a row).
    `led` is the lead's by its embedding."""
    part, (policy, _, value, _, *layers) = net.parts[name], net.module(name).weights
    means, values, features = slopes.means[part], slopes.values[number : number + 1], passed[-1][0]
    gradient = torch.empty(2, *features.shape)
    torch.mm(means.T, policy, out=gradient[0]).addmm_(values.T, value)
    gradient[1] = led
    weights, given = ([tensor.expand(2, -1, -1) for tensor in each] for each in (layers, passed))
    _, found = layers_backward(gradient, weights, given, into_x=False)
    heads = [slopes.log_std[part], means @ features, means.sum(1), values @ features, values.sum(1)]
    return torch.cat([each.view(2, -1) for each in (*found[::2], *found[1::2])], 1), _row(heads)


def _row(gradients: Sequence[Tensor]) -> Tensor:
    return torch.cat([gradient.reshape(-1) for gradient in gradients])
