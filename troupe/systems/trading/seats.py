"""One agent of a team learns while the others are played by somebody else: phases 1 and 2.

    envs = Seat(team_vector, "forex", net)     # alone: the other sectors hold nothing, equal shares at full risk
    envs = Seat(team_vector, "meta", net)      # over the frozen specialists of `net`, and their embeddings

What the learner sees is what its network reads inside the team, so that the network that was trained in a seat fits
into the team as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from troupe.envs.market.team import META, TeamVector
from troupe.models.team import TeamActorCritic
from troupe.training.collection import as_inputs

__all__ = ["Seat", "equal_allocation"]


def equal_allocation(sectors: int) -> np.ndarray:
    """The meta-controller's action that passes the signals on: equal logits, full risk; float64 `[S + 1]`."""
    return np.array([0.0] * sectors + [1.0])


class Seat:
    """A BatchEnv of one agent's observations, actions and rewards. The others are not trained: their likeliest actions
    are taken, outside any graph."""

    def __init__(self, envs: TeamVector, agent: str, net: TeamActorCritic) -> None:
        self.envs, self.agent, self.net = envs, agent, net
        self.num_envs, self.team = envs.num_envs, envs.team
        self._index = envs.agents.index(agent)
        self._part, self._width = self.team.parts[agent], net.module(agent).observation_shape[0]
        self._whole: Any = None  # observations of all agents
        self._signals: Any = None  # what the specialists say to them

    @property
    def single_observation_space(self) -> Any:
        from gymnasium.spaces import Box

        return Box(-np.inf, np.inf, (self._width,), np.float32)

    @property
    def single_action_space(self) -> Any:
        from gymnasium.spaces import Box

        return Box(-1.0, 1.0, (self._part.stop - self._part.start,), np.float32)

    def reset(self, generator: np.random.Generator, where: Any | None = None) -> Any:
        return self._seen(self.envs.reset(generator, where))

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any]:
        whole = self._others()
        whole[:, self._part] = actions
        lead = self.agent == META
        observations, rewards, terminated, truncated = self.envs.step(whole, portfolio_only=lead)
        return self._seen(observations), rewards if lead else rewards[:, self._index], terminated, truncated

    def _others(self) -> np.ndarray:
        """What the rest of the team does `[N, S + 1 + M]`; this agent's part is empty."""
        actions = np.zeros((self.num_envs, self.team.action_size))
        if self.agent == META:
            actions[:, self._part.stop :] = self._signals
        else:
            actions[:, self.team.parts[META]] = equal_allocation(len(self.team.sectors))
        return actions

    def _seen(self, observations: Any) -> Any:
        self._whole = observations
        own = observations[:, self.team.views[self.agent]]
        if self.agent != META:
            return own
        embeddings, signals = self.net.specialists_likeliest(as_inputs(observations))
        self._signals = signals.clamp(-1.0, 1.0).numpy()
        return np.concatenate([own, embeddings.numpy()], axis=1)

    def state_dict(self) -> dict[str, Any]:
        return self.envs.state_dict()

    def load_state_dict(self, stored: Mapping[str, Any]) -> Any:
        return self._seen(self.envs.load_state_dict(stored))
