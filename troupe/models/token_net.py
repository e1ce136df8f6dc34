"""Networks of searched tasks: a policy and a value from observations that are token ids.

    net = token_net(TokenNetConfig(), vocabulary=40, length=48, actions=60, pointers=20, seed=0)
    logits, values = net(observations)  # float32 [n, 48] of ids -> [n, 60], [n]

Id 0 is padding: nothing looks at it. With `pointers` P, action p * K + j is the j-th of K at the token of position p,
and the policy reads its logits there; without, it reads all of them from the pooled state.

Legend: n rows, L tokens, V vocabulary, D width, A actions, P tokens that actions point at, K = A / P.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from troupe.errors import ConfigError
from troupe.models.config import TokenNetConfig
from troupe.models.policy_value import HEAD_SCALE
from troupe.models.token_trunks import dense, steps_of, token_trunk

__all__ = ["Calls", "PolicyAndValue", "TokenNet", "token_net"]


class TokenNet(nn.Module):
    """Trunk, policy head and value head; built by `token_net`.

    The trunk gives features `[n, 1 + P, D]`: the pooled state, then the tokens that actions point at.
    """

    def __init__(
        self,
        config: TokenNetConfig,
        trunk: nn.Module,
        *,
        vocabulary: int,
        length: int,
        actions: int,
        pointers: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.config, self.observation_shape, self.actions = config, (length,), actions
        self.vocabulary, self.pointers = vocabulary, pointers
        self.trunk = trunk
        self.policy = PointerHead(config.hidden, actions // pointers, generator) if pointers else _Pooled(
            _last(config.hidden, actions, generator))  # fmt: skip
        hidden = dense(config.hidden, config.hidden, generator)
        self.value = _Pooled(hidden, nn.ReLU(), _last(config.hidden, 1, generator))
        if config.value_range != "unbounded":
            self.value.append(nn.Sigmoid() if config.value_range == "unit" else nn.Tanh())

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """float `[n, L]` of token ids -> (logits `[n, A]`, values `[n]`)."""
        return self._heads(self.trunk(observations))

    def segments(self, observations: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What `forward` would give after each segment, each with a graph of its own: for a loss on all of them. One
        pair where the network has no recursion."""
        return [self._heads(features) for features in steps_of(self.trunk, observations)]

    def _heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy(features), self.value(features).squeeze(-1)


def token_net(
    config: TokenNetConfig, *, vocabulary: int, length: int, actions: int, pointers: int = 0, seed: int = 0
) -> TokenNet:
    """The untrained network that belongs to `seed`, on the CPU: nearly uniform policies, values near the middle of
    their range. Raises ConfigError for sizes that do not fit together."""
    _check(config, vocabulary, length, actions, pointers)
    generator = torch.Generator().manual_seed(seed)
    trunk = token_trunk(config, vocabulary, length, pointers, generator)
    return TokenNet(
        config,
        trunk,
        vocabulary=vocabulary,
        length=length,
        actions=actions,
        pointers=pointers,
        generator=generator,
    )


# ---------------------------------------------------------------------------------------------- heads


class PointerHead(nn.Module):
    """K logits from each token that actions point at."""

    def __init__(self, width: int, each: int, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = _last(width, each, generator)

    def forward(self, features: Tensor) -> Tensor:
        """`[n, 1 + P, D]` -> `[n, P * K]`."""
        return self.layer(features[:, 1:]).flatten(1)


class _Pooled(nn.Sequential):
    """Layers over the pooled state."""

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(features[:, 0])


def _last(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Small, so that an untrained network has next to no opinion."""
    layer = dense(inputs, outputs, generator)
    layer.weight.data *= HEAD_SCALE / math.sqrt(2.0)
    return layer


# ---------------------------------------------------------------------------------------------- two networks as one


@dataclass(slots=True)
class Calls:
    """How often each of two networks was asked. Copies of the networks count here too."""

    policy: int = 0
    value: int = 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Calls:
        return self


class PolicyAndValue(nn.Module):
    """The logits of one network, the values of the other: HRM as the policy and TRM as the value, for one.

    It holds the parts of both that it needs, not copies. `calls` counts the forward passes of each. Raises ConfigError
    for networks of different tasks.
    """

    def __init__(self, policy_net: TokenNet, value_net: TokenNet) -> None:
        super().__init__()
        for name in ("observation_shape", "actions", "pointers", "vocabulary"):
            of_policy, of_value = getattr(policy_net, name), getattr(value_net, name)
            if of_policy != of_value:
                raise ConfigError(
                    f"the policy's network has {name} {of_policy}, the value's {of_value}; build both for one task"
                )
        self.config, self.observation_shape = policy_net.config, policy_net.observation_shape
        self.actions, self.vocabulary, self.pointers = policy_net.actions, policy_net.vocabulary, policy_net.pointers
        self.calls = Calls()
        rows = 1 + self.pointers
        self.trunk = _Trunks(policy_net.trunk, value_net.trunk, self.calls)
        self.policy = _Part(policy_net.policy, slice(0, rows), policy_net.config.hidden)
        self.value = _Part(value_net.value, slice(rows, 2 * rows), value_net.config.hidden)

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """float `[n, L]` of token ids -> (logits `[n, A]`, values `[n]`)."""
        return self._heads(self.trunk(observations))

    def segments(self, observations: Tensor) -> list[tuple[Tensor, Tensor]]:
        """As `TokenNet.segments`. Where one network has fewer, each of its segments stands in as many pairs."""
        return [self._heads(features) for features in self.trunk.steps(observations)]

    def _heads(self, features: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy(features), self.value(features).squeeze(-1)


class _Trunks(nn.Module):
    """Two trunks, the features of the second below those of the first: `[n, 2 (1 + P), the larger D]`."""

    def __init__(self, policy: nn.Module, value: nn.Module, calls: Calls) -> None:
        super().__init__()
        self.policy, self.value, self.calls = policy, value, calls

    def forward(self, observations: Tensor) -> Tensor:
        self._count()
        return _below(self.policy(observations), self.value(observations))

    def steps(self, observations: Tensor) -> list[Tensor]:
        self._count()
        first, second = steps_of(self.policy, observations), steps_of(self.value, observations)
        n = max(len(first), len(second))
        return [_below(first[i * len(first) // n], second[i * len(second) // n]) for i in range(n)]

    def _count(self) -> None:
        self.calls.policy += 1
        self.calls.value += 1


class _Part(nn.Module):
    """A head that finds its features among those of two trunks."""

    def __init__(self, head: nn.Module, rows: slice, width: int) -> None:
        super().__init__()
        self.head, self.rows, self.width = head, rows, width

    def forward(self, features: Tensor) -> Tensor:
        return self.head(features[:, self.rows, : self.width])


def _below(first: Tensor, second: Tensor) -> Tensor:
    wide = max(first.shape[-1], second.shape[-1])
    return torch.cat([functional.pad(part, (0, wide - part.shape[-1])) for part in (first, second)], dim=1)


# ---------------------------------------------------------------------------------------------- sizes


def _check(config: TokenNetConfig, vocabulary: int, length: int, actions: int, pointers: int) -> None:
    if vocabulary < 2 or length < 1 or actions < 1:
        raise ConfigError(
            f"a network of tokens needs vocabulary >= 2, length >= 1 and actions >= 1, not {vocabulary}, {length} and "
            f"{actions}"
        )
    if not 0 <= pointers <= length:
        raise ConfigError(f"actions can point at 0 to {length} tokens, not {pointers}")
    if pointers and actions % pointers:
        raise ConfigError(f"{actions} actions cannot be shared among {pointers} tokens; A must be P * K")
    if config.kind in _ATTENTIVE and config.hidden % config.heads:
        raise ConfigError(f"hidden: {config.hidden} does not split into {config.heads} heads; write another number")


_ATTENTIVE = ("transformer", "hrm", "trm")
