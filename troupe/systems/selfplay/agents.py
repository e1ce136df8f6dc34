"""Agents as judges of positions: one gives the policy, one the value, and their calls are counted.

An agent is a torch module that maps a float tensor of observations `[n, ...]` to (logits `[n, A]`, values `[n]`), a
`PolicyValueNet` for one; or any object with `policy(observations) -> logits`, or `value(observations) -> values`. In a
world of candidates a policy is shown one row per candidate, the observation with the candidate's encoding appended, and
gives a single logit for it; a value is shown the observation with zeros appended.

An agent of many worlds has a method `for_world(input_shape, logits)` that returns such a module for one of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from troupe.engines.evaluator import masked_softmax, uniform_priors
from troupe.errors import ConfigError, DataError, TrainingError
from troupe.protocols import Game, Positions

__all__ = ["AgentEvaluator", "Encode", "Family", "Forward", "forward_of", "in_world", "rows_of"]

Encode = Callable[[Any, Any], np.ndarray]
"""(state, candidate) -> float32 `[d]`."""

Forward = Callable[[Tensor], Tensor]
"""Observations `[n, ...]` to logits `[n, A]`, or to values `[n]`."""


class Family(NamedTuple):
    """Worlds that one network can serve, and one search hold."""

    players: int
    observation_shape: tuple[int, ...]
    actions: int | None  # None: candidates
    encoding: int = 0  # length of a candidate's encoding; 0 where candidates have none
    vocabulary: int = 0  # V where observations are token ids and actions are fixed, else 0
    pointers: int = 0  # positions that actions point at

    @classmethod
    def of(cls, game: Game) -> Family:
        shape = tuple(game.observation_shape)
        if game.actions is None:
            return cls(game.players, shape, None, int(getattr(game, "encoding", 0)))
        vocabulary = int(getattr(game, "vocabulary", 0))
        pointers = int(getattr(game, "pointers", 0)) if vocabulary else 0
        return cls(game.players, shape, game.actions, 0, vocabulary, pointers)

    @property
    def name(self) -> str:
        """Such as `p2-2x3x3-a9`, `p1-110-c49` for candidates, or `p1-40-a80-v96-t20` for tokens."""
        shape = "x".join(map(str, self.observation_shape))
        tokens = f"-v{self.vocabulary}-t{self.pointers}" if self.vocabulary else ""
        actions = f"c{self.encoding}" if self.actions is None else f"a{self.actions}{tokens}"
        return f"p{self.players}-{shape}-{actions}"

    @classmethod
    def named(cls, name: str) -> Family:
        """The family of this `name`. Raises DataError for another text."""
        match = re.fullmatch(r"p([12])-([0-9x]*)-(?:c([0-9]+)|a([0-9]+)(?:-v([0-9]+)-t([0-9]+))?)", name)
        if match is None:
            raise DataError(f"{name!r} names no family of worlds; write it as in p2-2x3x3-a9 or p1-110-c49")
        shape = tuple(int(length) for length in match[2].split("x") if length)
        if match[3] is not None:
            return cls(int(match[1]), shape, None, int(match[3]))
        return cls(int(match[1]), shape, int(match[4]), 0, int(match[5] or 0), int(match[6] or 0))

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Of one row that an agent is shown."""
        if self.actions is not None:
            return self.observation_shape
        return (int(np.prod(self.observation_shape)) + self.encoding,)

    @property
    def logits(self) -> int:
        """How many an agent gives for one row."""
        return 1 if self.actions is None else self.actions


def rows_of(family: Family, observation: np.ndarray, encoded: Sequence[np.ndarray] = ()) -> np.ndarray:
    """What agents are shown of one state: float32 `[1, ...]` with fixed actions; `[1 + k, D + d]` with k candidates,
    the state itself first."""
    if family.actions is not None:
        return observation[None].astype(np.float32)
    rows = np.zeros((1 + len(encoded), *family.input_shape), np.float32)
    rows[:, : observation.size] = observation.reshape(-1)
    for row, code in zip(rows[1:], encoded, strict=True):
        row[observation.size :] = code
    return rows


def in_world(agent: Any, family: Family) -> Any:
    """What an agent of many worlds is in those of one family; any other agent as it is. Raises ConfigError where the
    agent cannot play there."""
    return agent.for_world(family.input_shape, family.logits) if hasattr(agent, "for_world") else agent


def forward_of(agent: Any, what: str, device: str = "cpu") -> Forward:
    """`agent` as a function of tensors that keeps gradients; `what` is "policy" or "value".

    Raises ConfigError for an agent that gives no such thing.
    """
    # PolicyValueNet has parts of these names, which are no methods: they take features, not observations.
    method = getattr(agent, what, None) if hasattr(type(agent), what) or not isinstance(agent, nn.Module) else None
    if method is not None and callable(method):
        if isinstance(agent, nn.Module):
            return lambda rows: method(rows.to(device))
        return lambda rows: torch.as_tensor(np.asarray(method(rows.cpu().numpy())), dtype=torch.float32)
    if isinstance(agent, nn.Module):
        return lambda rows: _both(agent, agent(rows.to(device)))[what == "value"]
    raise ConfigError(
        f"an agent of type {type(agent).__name__} gives no {what}: it needs a method {what}(observations), or to be a "
        "torch module that returns (logits, values)"
    )


def _both(agent: Any, answer: Any) -> tuple[Tensor, Tensor]:
    if not (isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(part, Tensor) for part in answer)):
        raise ConfigError(f"{type(agent).__name__} returned a {type(answer).__name__}; agents return (logits, values)")
    return answer


@dataclass(slots=True)
class AgentEvaluator:
    """An `Evaluator` of one family of worlds: `policy` and `value` are agents, None for uniform priors and value 0.

    `policy_calls` and `value_calls` count forward passes, one for both where one agent is both.
    """

    family: Family
    policy: Any = None
    value: Any = None
    device: str = "cpu"
    encode: Encode | None = None
    policy_calls: int = 0
    value_calls: int = 0

    def __post_init__(self) -> None:
        both = self.policy is self.value
        self.policy = in_world(self.policy, self.family)
        self.value = self.policy if both else in_world(self.value, self.family)
        for agent in (self.policy, self.value):
            shape, actions = getattr(agent, "observation_shape", None), getattr(agent, "actions", None)
            found = (None if shape is None else tuple(shape), actions)
            if agent is not None and (
                found[0] not in (None, self.family.input_shape) or (actions or self.family.logits) != self.family.logits
            ):
                raise ConfigError(
                    f"an agent takes observations {list(found[0] or ())} and gives {actions} logits, the world shows "
                    f"{list(self.family.input_shape)} and wants {self.family.logits}; give it tasks of its own world"
                )
        for agent, what in ((self.policy, "policy"), (self.value, "value")):
            if agent is not None:
                forward_of(agent, what)
        if self.policy is not None and self.family.actions is None and self.encode is None:
            raise ConfigError("the world has candidates that cannot be encoded; give it encode(state, action)")

    def evaluate(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        """(priors float64 `[n, W]`, values float64 `[n]`). Raises TrainingError where an agent's answer is not
        finite."""
        observations = np.ascontiguousarray(positions.observations(), np.float32)
        with torch.inference_mode():
            if self.family.actions is None:
                logits, values = self._candidates(positions, observations)
            else:
                logits, values = self._forward(observations, observations)
        if not (np.isfinite(values).all() and (logits is None or np.isfinite(logits[positions.legal]).all())):
            raise TrainingError("an agent gave a logit or a value that is not finite; its weights have diverged")
        priors = uniform_priors(positions.legal) if logits is None else masked_softmax(logits, positions.legal)
        return priors, values

    def _forward(self, rows: np.ndarray, states: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """(logits `[len(rows), A]`, values `[len(states)]`)."""
        logits, values = None, np.zeros(len(states))
        for agent in {id(agent): agent for agent in (self.policy, self.value) if isinstance(agent, nn.Module)}.values():
            agent.eval()
        if self.policy is not None:
            self.policy_calls += 1
        if self.value is not None:
            self.value_calls += 1
        if self.policy is self.value is not None and rows is states and not hasattr(type(self.policy), "policy"):
            both = _both(self.policy, self.policy(torch.from_numpy(rows).to(self.device)))
            return both[0].float().cpu().numpy(), both[1].double().cpu().numpy()
        if self.policy is not None:
            logits = forward_of(self.policy, "policy", self.device)(torch.from_numpy(rows)).float().cpu().numpy()
        if self.value is not None:
            answer = forward_of(self.value, "value", self.device)(torch.from_numpy(states))
            values = answer.double().cpu().numpy().reshape(len(states))
        return logits, values

    def _encoders(self, positions: Positions) -> Sequence[Encode | None]:
        """Each position's own, since a world may encode by its task."""
        games = getattr(positions, "games", None)
        if games is None:
            return [self.encode] * len(positions)
        return [getattr(game, "encode", self.encode) for game in games()]

    def _candidates(self, positions: Positions, observations: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        named = positions.candidates() or ()
        blocks = []
        for state, actions, observation, encode in zip(
            positions.states(), named, observations, self._encoders(positions), strict=True
        ):
            wanted = actions if self.policy is not None else ()
            codes = [encode(state, action) for action in wanted] if encode is not None else []
            blocks.append(rows_of(self.family, observation, codes))
        own = np.stack([block[0] for block in blocks])
        given, values = self._forward(np.concatenate([block[1:] for block in blocks]), own)
        if given is None:
            return None, values
        logits = np.zeros(positions.legal.shape)
        logits[positions.legal] = given.reshape(-1)  # the mask is true for each state's candidates, in their order
        return logits, values
