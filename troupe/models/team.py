"""Several actors that read one another: a meta-controller over the embeddings of its specialists.

    net = TeamActorCritic(config, views, parts, lead="meta", seed=0)
    actions, logprobs, values = net.act(observations, generator)              # [n, A], [n, K], [n, K]
    meta, forex, equity = net.evaluate(observations, actions)                 # log-probs, entropies, values [n]

Legend: n rows, K agents, the lead first, E widths of all embeddings together. A specialist's hidden layers are shared
by its policy and its value; what the last of them gives is its embedding. The lead reads its own view and all
embeddings: live, its gradient reaches the specialists' layers too; detached, they are numbers like any other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from troupe.errors import ConfigError, TrainingError
from troupe.models.actions import Box, GaussianHead
from troupe.models.actor_critic import ActorCritic, Evaluated, Thought, layers_forward, tanh_thought
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
        self.widths = [config.specialist_hidden[-1]] * len(self.names)
        """Of the embeddings."""
        self._nets = {self.lead: self.meta, **made}
        self._log_stds = [net.policy.log_std for net in self._nets.values() if isinstance(net.policy, GaussianHead)]
        self._parameters_of = {
            agent: (tuple(net.towers.parameters()), (*net.policy.parameters(), *net.value.parameters()))
            for agent, net in self._nets.items()
        }
        self._pieces: dict[
            str, tuple[nn.Parameter, nn.Parameter]
        ] = {}  # in a dict: they are no parameters of their own
        self.compiled = False
        """Whether `evaluate` is torch.compile's."""

    @property
    def agents(self) -> tuple[str, ...]:
        return (self.lead, *self.names)

    def module(self, agent: str) -> ActorCritic:
        """The network of one agent."""
        return self._nets[agent]

    def view(self, observations: Tensor, agent: str) -> Tensor:
        return observations[..., self.views[agent]]

    @torch.no_grad()
    def embeddings(self, observations: Tensor) -> Tensor:
        """`[n, E]`."""
        return self.specialists_likeliest(observations)[0]

    @torch.no_grad()
    def specialists_likeliest(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """(embeddings `[n, E]`, the specialists' likeliest actions, all but the lead's part of `[n, A]`)."""
        if self.few(observations):
            thoughts = self._specialists_thoughts(observations.numpy())
            both = [each.features for each in thoughts], [each.numbers for each in thoughts]
            return torch.from_numpy(np.concatenate(both[0], 1)), torch.from_numpy(np.concatenate(both[1], 1))
        features = [self.module(name).towers(self.view(observations, name))[0] for name in self.names]
        said = [self.module(name).policy(each) for name, each in zip(self.names, features, strict=True)]
        return torch.cat(features, -1), torch.cat(said, -1)

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
        if self.compact(observations):
            return self._acted(observations, generator)
        numbers, values = self(observations)
        drawn = [
            self.module(name).policy.draw(each, generator) for name, each in zip(self.agents, numbers, strict=True)
        ]
        actions, logprobs = zip(*drawn, strict=True)
        return Played(torch.cat(actions, -1), torch.stack(logprobs, -1), torch.stack(values, -1))

    def _acted(self, observations: Tensor, generator: torch.Generator | None) -> Played:
        """`act` with one distribution for all agents; each draws what it would draw alone."""
        if self.few(observations):
            means, values = self._thought(observations.numpy())
        else:
            means, values = (np.ascontiguousarray(each.numpy().T) for each in self.said(self.passed(observations)))
        actions, log_std = means, self.log_std.numpy()
        if generator is not None:
            noise = [torch.randn(len(means), _size(p), generator=generator).numpy() for p in self.parts.values()]
            actions = means + np.exp(log_std) * np.concatenate(noise, 1)
        scaled = (actions - means) * np.exp(-log_std)
        each = np.float32(-0.5) * scaled * scaled - (log_std + np.float32(0.5 * math.log(2 * math.pi)))
        starts = [part.start for part in self.parts.values()]
        logprobs = np.add.reduceat(each, starts, axis=1)
        return Played(torch.from_numpy(actions), torch.from_numpy(logprobs), torch.from_numpy(values))

    def _thought(self, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(means of the policies `[n, A]`, values `[n, K]`) of few observations."""
        thoughts = self._specialists_thoughts(seen)
        read = np.concatenate([seen[:, self.views[self.lead]], *(each.features for each in thoughts)], 1)
        thoughts.insert(0, tanh_thought(read, self.meta.weights))
        return np.concatenate([each.numbers for each in thoughts], 1), np.stack([each.values for each in thoughts], 1)

    def _specialists_thoughts(self, seen: np.ndarray) -> list[Thought]:
        return [tanh_thought(seen[:, self.views[name]], self.module(name).weights) for name in self.names]

    @torch.no_grad()
    def likeliest(self, observations: Tensor) -> Tensor:
        """The likeliest actions `[n, A]` alone, in half the time of `act`."""
        if self.few(observations):
            return torch.from_numpy(self._thought(observations.numpy())[0])
        features, signals = self.specialists_likeliest(observations)
        led = self.meta.policy(self.meta.towers(torch.cat([self.view(observations, self.lead), features], -1))[0])
        return torch.cat([led, signals], -1)

    # ------------------------------------------------------------------------------------------ outside the graph

    def compact(self, observations: Tensor) -> bool:
        """Whether `passed` and `said` are this network, for these inputs."""
        return self.meta.compact(observations)

    def few(self, observations: Tensor) -> bool:
        """Whether `tanh_thought` is every agent's network, and the observations are few enough for it."""
        return all(net.few(observations) for net in self._nets.values())

    @torch.no_grad()
    def passed(self, observations: Tensor) -> list[list[Tensor]]:
        """For each agent what goes through its hidden layers, h_0 to h_L of `tanh_forward`."""
        features = [layers_forward(self.view(observations, name), self.module(name).weights[4:]) for name in self.names]
        read = torch.cat([self.view(observations, self.lead), *(each[-1][0] for each in features)], -1)
        return [layers_forward(read, self.module(self.lead).weights[4:]), *features]

    @torch.no_grad()
    def said(self, passed: Sequence[Sequence[Tensor]]) -> tuple[Tensor, Tensor]:
        """(means of the policies `[A, n]`, values `[K, n]`)."""
        n = passed[0][0].shape[1]
        means, values = torch.empty(_stop(self.parts), n), torch.empty(len(passed), n)
        for place, (agent, features) in enumerate(zip(self.agents, passed, strict=True)):
            policy, policy_bias, value, value_bias = self.module(agent).weights[:4]
            torch.addmm(policy_bias[:, None], policy, features[-1][0].T, out=means[self.parts[agent]])
            torch.addmm(value_bias[:, None], value, features[-1][-1].T, out=values[place : place + 1])
        return means, values

    @property
    def log_std(self) -> Tensor:
        """`[A]`, detached."""
        return torch.cat([each.detach() for each in self._log_stds])

    def leaves(self, agent: str) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """What a gradient that is written out belongs to: the parameters of (the agent's encoder, its heads), or the
        two pieces of memory that they share. Raises TrainingError where the parameters have left these."""
        encoder, heads = self._parameters_of[agent]
        if agent not in self._pieces:
            return encoder, heads
        pieces = self._pieces[agent]
        if (pieces[0].data_ptr(), pieces[1].data_ptr()) != (encoder[0].data_ptr(), heads[0].data_ptr()):
            raise TrainingError("parameters were moved or flattened again since their optimiser was made; make it last")
        return pieces[:1], pieces[1:]

    @property
    def shared(self) -> bool:
        """Whether somebody learns from the two pieces alone."""
        return bool(self._pieces)

    def share(self, agent: str, flat: Tensor) -> tuple[nn.Parameter, nn.Parameter]:
        """(encoder, heads): the two pieces of `flat`, in which all parameters of the agent lie in the order of
        `leaves`, so that one gradient is enough for each."""
        sizes = [sum(parameter.numel() for parameter in part) for part in self._parameters_of[agent]]
        encoder, heads = (nn.Parameter(piece) for piece in flat.detach().split(sizes))
        self._pieces[agent] = encoder, heads
        return encoder, heads

    # ------------------------------------------------------------------------------------------ learning

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
        self.compiled = True

    @torch.no_grad()
    def values(self, observations: Tensor) -> Tensor:
        """`[n, K]`."""
        return torch.stack(self(observations)[1], -1)


def _stop(parts: Mapping[str, slice]) -> int:
    return max(part.stop for part in parts.values())


def _size(part: slice) -> int:
    return int(part.stop - part.start)


def _box(part: slice) -> Box:
    return Box((-1.0,) * _size(part), (1.0,) * _size(part))
