"""What an agent can do, and the distribution that a network gives over it.

    head = action_head(Box((-2.0,), (2.0,)), features=64, generator=generator)
    actions, logprobs = head.draw(head(features), generator)

Legend: n rows, P numbers that describe one distribution, A entries of one action. One head serves single agents and
hierarchies alike: what differs between kinds of actions is in here, and one PPO learns them all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from troupe.errors import ConfigError

__all__ = [
    "ActionHead",
    "Box",
    "CategoricalHead",
    "Discrete",
    "GaussianHead",
    "MultiBinary",
    "MultiCategoricalHead",
    "MultiDiscrete",
    "OnOffHead",
    "Space",
    "action_head",
    "orthogonal_",
    "space_of",
]

POLICY_GAIN = 0.01
"""Scale of an untrained policy's last layer: near the uniform policy, yet not without gradient."""


@dataclass(frozen=True, slots=True)
class Discrete:
    """One of n actions; the world counts them from `start`, a network from 0."""

    n: int
    start: int = 0


@dataclass(frozen=True, slots=True)
class MultiDiscrete:
    """Several choices at once, of `sizes[i]` actions each."""

    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class MultiBinary:
    """n switches."""

    n: int


@dataclass(frozen=True, slots=True)
class Box:
    """Numbers between bounds, which may be infinite; flat, and `shape` is what the world wants them in."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    shape: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not all(a < b for a, b in zip(self.low, self.high, strict=True)):
            raise ConfigError("a Box needs as many upper bounds as lower ones, each above its lower one")
        if not self.shape:
            object.__setattr__(self, "shape", (len(self.low),))


Space: TypeAlias = Discrete | Box | MultiDiscrete | MultiBinary


def space_of(space: Any) -> Space:
    """Our space for a Gymnasium one (or for our own). Raises ConfigError for spaces that no head gives actions for."""
    if isinstance(space, Space):
        return space
    kind = type(space).__name__
    if kind == "Discrete":
        return Discrete(int(space.n), int(space.start))
    if kind == "MultiBinary" and isinstance(space.n, int):
        return MultiBinary(int(space.n))
    if kind == "MultiDiscrete" and space.nvec.ndim == 1 and not space.start.any():
        return MultiDiscrete(tuple(int(n) for n in space.nvec))
    if kind == "Box":
        low, high = (tuple(float(v) for v in bound.reshape(-1)) for bound in (space.low, space.high))
        return Box(low, high, tuple(space.shape))
    raise ConfigError(
        f"there is no policy for the action space {space}; it may be Discrete, Box, MultiDiscrete (of one row, from 0) "
        "or MultiBinary (of one row)"
    )


def orthogonal_(weight: Tensor, gain: float, generator: torch.Generator) -> Tensor:
    """An orthogonal matrix times `gain`, in place, as PPO's reference implementations begin (Huang et al. 2022, "The 37
    implementation details of proximal policy optimization", detail 2)."""
    nn.init.orthogonal_(weight, gain, generator=generator)
    return weight


class ActionHead(nn.Module):
    """A linear layer from features `[n, F]` to the numbers `[n, P]` that describe one distribution per row.

    `draw(numbers, generator)` -> (actions, log-probs `[n]`), the likeliest actions where the generator is None;
    `score(numbers, actions)` -> (log-probs `[n]`, entropies `[n]`), both in nats.
    """

    discrete = True

    def __init__(self, features: int, numbers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.linear = nn.utils.skip_init(nn.Linear, features, numbers)
        orthogonal_(self.linear.weight.data, POLICY_GAIN, generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        return self.linear(features)

    def draw(self, numbers: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def score(self, numbers: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class CategoricalHead(ActionHead):
    """softmax over n actions; actions are long `[n]`."""

    def draw(self, numbers: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        logp = torch.log_softmax(numbers, -1)
        chosen = _chosen(logp, generator)
        return chosen.squeeze(-1), logp.gather(-1, chosen).squeeze(-1)

    def score(self, numbers: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        logp = torch.log_softmax(numbers, -1)
        return logp.gather(-1, actions.unsqueeze(-1)).squeeze(-1), -(logp.exp() * logp).sum(-1)


class MultiCategoricalHead(ActionHead):
    """Independent softmaxes; actions are long `[n, A]`."""

    def __init__(self, features: int, sizes: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__(features, sum(sizes), generator)
        self.sizes = sizes

    def draw(self, numbers: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        logps = [torch.log_softmax(part, -1) for part in numbers.split(self.sizes, -1)]
        chosen = [_chosen(logp, generator) for logp in logps]
        found = [logp.gather(-1, index) for logp, index in zip(logps, chosen, strict=True)]
        return torch.cat(chosen, -1), torch.cat(found, -1).sum(-1)

    def score(self, numbers: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        logps = [torch.log_softmax(part, -1) for part in numbers.split(self.sizes, -1)]
        found = [logp.gather(-1, actions[..., i : i + 1]).squeeze(-1) for i, logp in enumerate(logps)]
        entropies = [-(logp.exp() * logp).sum(-1) for logp in logps]
        return torch.stack(found).sum(0), torch.stack(entropies).sum(0)


class OnOffHead(ActionHead):
    """Independent switches, each on with probability sigmoid(number); actions are long `[n, A]` of 0 and 1."""

    def draw(self, numbers: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        if generator is None:
            actions = (numbers > 0).long()
        else:
            noise = torch.rand(numbers.shape, generator=generator, device=numbers.device)
            actions = (noise < numbers.sigmoid()).long()
        return actions, self.score(numbers, actions)[0]

    def score(self, numbers: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        on, off = nn.functional.logsigmoid(numbers), nn.functional.logsigmoid(-numbers)
        return torch.where(actions > 0, on, off).sum(-1), -(on.exp() * on + off.exp() * off).sum(-1)


class GaussianHead(ActionHead):
    """Independent normal distributions whose standard deviations do not depend on the state; actions are `[n, A]`.

    What is drawn may lie outside the space's bounds: the world gets it clipped, the batch as it was drawn, so that its
    log-prob is that of the normal distribution (details of continuous actions 4 and 5 in Huang et al. 2022).
    """

    discrete = False

    def __init__(self, features: int, size: int, generator: torch.Generator, log_std: float = 0.0) -> None:
        super().__init__(features, size, generator)
        self.log_std = nn.Parameter(torch.full((size,), log_std))

    def draw(self, numbers: Tensor, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
        if generator is None:
            actions = numbers
        else:
            noise = torch.randn(numbers.shape, generator=generator, device=numbers.device)
            actions = numbers + self.log_std.exp() * noise
        return actions, self._logprobs(numbers, actions)

    def score(self, numbers: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        entropy = self.log_std.sum() + len(self.log_std) * 0.5 * math.log(2 * math.pi * math.e)
        return self._logprobs(numbers, actions), entropy.expand(numbers.shape[:-1])

    def _logprobs(self, means: Tensor, actions: Tensor) -> Tensor:
        scaled = (actions - means) * torch.exp(-self.log_std)
        constant = self.log_std.sum() + len(self.log_std) * 0.5 * math.log(2 * math.pi)
        return -0.5 * (scaled * scaled).sum(-1) - constant


def action_head(space: Space, features: int, generator: torch.Generator, *, log_std: float = 0.0) -> ActionHead:
    """The head for a space; `log_std` is where a Gaussian's standard deviations begin."""
    match space:
        case Discrete(n=n):
            return CategoricalHead(features, n, generator)
        case MultiDiscrete(sizes=sizes):
            return MultiCategoricalHead(features, sizes, generator)
        case MultiBinary(n=n):
            return OnOffHead(features, n, generator)
        case Box(low=low):
            return GaussianHead(features, len(low), generator, log_std)


def _chosen(logp: Tensor, generator: torch.Generator | None) -> Tensor:
    """`[n, 1]`."""
    if generator is None:
        return logp.argmax(-1, keepdim=True)
    return torch.multinomial(logp.exp(), 1, generator=generator)
