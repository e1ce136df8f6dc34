"""Several actors that read one another: a meta-controller over the embeddings of its specialists.

    net = TeamActorCritic(config, views, parts, lead="meta", seed=0)
    actions, logprobs, values = net.act(observations, generator)              # [n, A], [n, K], [n, K]
    meta, forex, equity = net.evaluate(observations, actions)                 # log-probs, entropies, values [n]

Legend: n rows, K agents, the lead first, E widths of all embeddings together. A specialist's hidden layers are shared
by its policy and its value; what the last of them gives is its embedding. The lead reads its own view and all
embeddings: live, its gradient reaches the specialists' layers too; detached, they are numbers like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from troupe.errors import ConfigError
from troupe.models.actions import Box
from troupe.models.actor_critic import ActorCritic, Evaluated
from troupe.models.config import ActorCriticConfig, TeamConfig

__all__ = ["Played", "TeamActorCritic"]


class Played(NamedTuple):
    """What each agent did or thinks; all `[n, K]` but the actions `[n, A]`."""

    actions: Tensor
    logprobs: Tensor
    values: Tensor


class TeamActorCritic(nn.Module):
    """`meta` and `specialists[name]`, each an `ActorCritic`. `views` and `parts` say where in an observation and in an
    action each agent's numbers stand; the agents follow one another in both. All actions are `Box`es of [-1, 1].

    A specialist's weights from what it is told by the lead, the last `told` columns of its view, begin at 0: as long as
    nobody trains them with messages that vary, it does not listen.
    """

    def __init__(
        self, config: TeamConfig, views: Mapping[str, slice], parts: Mapping[str, slice], *, seed: int, told: int = 2
    ) -> None:
        super().__init__()
        self.lead, *self.names = views
        if list(parts) != list(views) or not self.names:
            raise ConfigError(f"views are of {list(views)}, parts of {list(parts)}: write a lead and its specialists")
        self.views, self.parts = dict(views), dict(parts)
        seeds = torch.randint(2**31, (len(views),), generator=torch.Generator().manual_seed(seed)).tolist()
        specialist = ActorCriticConfig(
            hidden=config.specialist_hidden, activation=config.activation, shared_trunk=True, log_std=config.log_std
        )
        made = {
            name: ActorCritic(specialist, (_size(views[name]),), _box(parts[name]), seed=number)
            for name, number in zip(self.names, seeds[1:], strict=True)
        }
        for net in made.values():
            net.towers.weights[0].data[:, :, -told:] = 0.0
        self.specialists = nn.ModuleDict(made)
        meta = ActorCriticConfig(
            hidden=config.meta_hidden, activation=config.activation, log_std=config.log_std,
            shared_trunk=config.meta_shared_trunk,
        )  # fmt: skip
        inputs = _size(views[self.lead]) + len(self.names) * config.specialist_hidden[-1]
        self.meta = ActorCritic(meta, (inputs,), _box(parts[self.lead]), seed=seeds[0])

    @property
    def agents(self) -> tuple[str, ...]:
        return (self.lead, *self.names)

    def module(self, agent: str) -> ActorCritic:
        """The network of one agent."""
        net = self.meta if agent == self.lead else self.specialists[agent]
        assert isinstance(net, ActorCritic)
        return net

    def view(self, observations: Tensor, agent: str) -> Tensor:
        return observations[..., self.views[agent]]

    def embeddings(self, observations: Tensor) -> Tensor:
        """`[n, E]`."""
        return torch.cat([self.module(name).towers(self.view(observations, name))[0] for name in self.names], -1)

    def forward(self, observations: Tensor, *, live: bool = True) -> tuple[list[Tensor], list[Tensor]]:
        """(numbers that describe each agent's policy, each agent's values `[n]`). Agents stay apart, so that what one
        is paid for runs back through what it has read alone."""
        numbers, values, features = [], [], []
        for name in self.names:
            number, value, seen = self.module(name).read(self.view(observations, name))
            numbers.append(number)
            values.append(value)
            features.append(seen if live else seen.detach())
        led, value = self.meta(torch.cat([self.view(observations, self.lead), *features], -1))
        return [led, *numbers], [value, *values]

    @torch.no_grad()
    def act(self, observations: Tensor, generator: torch.Generator | None) -> Played:
        """Actions for `[n, O]`; without a generator the likeliest ones."""
        numbers, values = self(observations)
        drawn = [
            self.module(name).policy.draw(each, generator) for name, each in zip(self.agents, numbers, strict=True)
        ]
        actions, logprobs = zip(*drawn, strict=True)
        return Played(torch.cat(actions, -1), torch.stack(logprobs, -1), torch.stack(values, -1))

    @torch.no_grad()
    def likeliest(self, observations: Tensor) -> Tensor:
        """The likeliest actions `[n, A]` alone, in half the time of `act`."""
        features = [self.module(name).towers(self.view(observations, name))[0] for name in self.names]
        seen = torch.cat([self.view(observations, self.lead), *features], -1)
        led = self.meta.policy(self.meta.towers(seen)[0])
        said = [self.module(name).policy(each) for name, each in zip(self.names, features, strict=True)]
        return torch.cat([led, *said], -1)

    def evaluate(self, observations: Tensor, actions: Tensor) -> list[Evaluated]:
        """For each agent log-probs and entropies in nats, and values, all `[n]`, of actions `[n, A]` in these
        states."""
        numbers, values = self(observations)
        return [
            Evaluated(*self.module(name).policy.score(each, actions[:, self.parts[name]]), value)
            for name, each, value in zip(self.agents, numbers, values, strict=True)
        ]

    def compile_evaluation(self) -> None:
        """Lets torch.compile fuse `evaluate`, forward and backward; sampling stays as it is."""
        self.evaluate = torch.compile(self.evaluate)  # type: ignore[method-assign]

    @torch.no_grad()
    def values(self, observations: Tensor) -> Tensor:
        """`[n, K]`."""
        return torch.stack(self(observations)[1], -1)


def _size(part: slice) -> int:
    return int(part.stop - part.start)


def _box(part: slice) -> Box:
    return Box((-1.0,) * _size(part), (1.0,) * _size(part))
