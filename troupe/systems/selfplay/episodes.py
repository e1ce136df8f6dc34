"""Document 001's records of self-play: an episode with the search behind each of its actions, and what is learned."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from troupe.episode import Action, Episode, MCTSTrace, Outcome, State, Step, Trajectory
from troupe.errors import DataError
from troupe.stores.state import join_state, split_state

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ExampleType", "SelfPlayEpisode", "TrainingExample"]

ExampleType = Literal["policy", "value", "reasoning", "negative"]


@dataclass(frozen=True, eq=False)
class SelfPlayEpisode:
    """One attempt at one task.

    `states[t]` is where `actions[t]` was chosen by the search `mcts_traces[t]`; a last state follows where one was
    reached. Rewards are those of the player who moves first. `outcome` is success, failure, timeout or error;
    `metadata` says why, and holds what the extractor needs beside the documented fields:

        family                  the world's players, observation_shape, actions (None: candidates); None where the time
                                was over before there was a world
        symmetries              their name in the generator's `symmetries`; "" where the world has none
        query, index            the task's prompt, and the number of the attempt
        to_play                 the player to move in each state
        complete                whether the attempt came to its end, so that the outcome is verified
        done                    whether the world ended there; one that is answered goes on
        discount                of the search
        legal, policies         per action: legal action indices (or encoded candidates), and the search's policy
        chosen                  per action: its place among them
    """

    task_id: str
    initial_state: Any
    actions: list[Action]
    states: list[State]
    rewards: list[float]
    mcts_traces: list[MCTSTrace]
    outcome: Outcome  # equal to document 001's strings
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def total_reward(self) -> float:
        return float(sum(self.rewards))

    @property
    def episode_length(self) -> int:
        """Actions taken."""
        return len(self.actions)

    @property
    def search_efficiency(self) -> float:
        """Reward per simulation and second of search; 0 where nothing was searched."""
        simulations = sum(trace.num_simulations for trace in self.mcts_traces)
        spent = simulations * sum(trace.search_time for trace in self.mcts_traces)
        return self.total_reward / spent if spent > 0 else 0.0

    @property
    def solution_path(self) -> list[str]:
        """The action ids of an attempt that succeeded; empty for another."""
        return [action.action_id for action in self.actions] if self.outcome is Outcome.SUCCESS else []

    def to_episode(self) -> Episode:
        """As the record of every other system, for reports and stores: one agent, a step per action."""
        last = len(self.actions) - 1
        steps = tuple(
            Step(f"search/{t}", "search", observation=self.states[t].state_id, action=action.action_id,
                 reward=self.rewards[t], done=t == last)
            for t, action in enumerate(self.actions)
        )  # fmt: skip
        known: dict[str, Any] = {
            key: self.metadata[key] for key in ("answer", "error", "reason") if key in self.metadata
        }
        return Episode(
            id=f"{self.task_id}/{self.metadata.get('index', 0)}", task_id=self.task_id,
            trajectories=(Trajectory("search", steps),), outcome=self.outcome, group=self.task_id, metadata=known,
        )  # fmt: skip

    def to_state(self) -> dict[str, Any]:
        """Dicts, lists and arrays: what a checkpoint holds. `from_state` gives the episode back, but for states that
        are objects of some library: those stay behind as texts."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "initial_state": _value(self.initial_state),
            "actions": [_plain(action) for action in self.actions],
            "states": [_plain(state) | {"raw_state": _value(state.raw_state)} for state in self.states],
            "mcts_traces": [_plain(trace) for trace in self.mcts_traces],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> SelfPlayEpisode:
        """Raises DataError for a missing or unknown field."""
        try:
            return cls(
                **{
                    **state,
                    "actions": [Action(**row) for row in state["actions"]],
                    "states": [State(**row) for row in state["states"]],
                    "mcts_traces": [MCTSTrace(**row) for row in state["mcts_traces"]],
                    "outcome": Outcome(state["outcome"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"a stored episode of self-play cannot be read: {error}") from error

    def to_bytes(self) -> bytes:
        """`to_state` in some kilobytes: its arrays and the rest as JSON, compressed. `from_bytes` reads it."""
        tensors, encoded = split_state(self.to_state())
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        layout = {name: [array.dtype.name, list(array.shape)] for name, array in arrays.items()}
        head = json.dumps([encoded, layout], separators=(",", ":"), allow_nan=False).encode()
        body = b"".join(array.tobytes() for array in arrays.values())
        return zlib.compress(len(head).to_bytes(8, "little") + head + body, 1)

    @classmethod
    def from_bytes(cls, stored: bytes) -> SelfPlayEpisode:
        """Runs no code. Raises DataError for other bytes."""
        import torch

        try:
            content = zlib.decompress(stored)
            at = 8 + int.from_bytes(content[:8], "little")
            encoded, layout = json.loads(content[8:at])
            tensors = {}
            for name, (dtype, shape) in layout.items():
                array = np.frombuffer(content, np.dtype(dtype), math.prod(shape), at).reshape(shape)
                tensors[name] = torch.from_numpy(array.copy())
                at += array.nbytes
        except (zlib.error, ValueError, TypeError, AttributeError) as error:
            raise DataError(f"a stored episode of self-play cannot be read: {error}") from error
        return cls.from_state(join_state(tensors, encoded))

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON: arrays become lists."""
        shown: dict[str, Any] = _json(self.to_state())
        return shown


def _plain(record: Any) -> dict[str, Any]:
    return {f.name: getattr(record, f.name) for f in fields(record)}


def _value(value: Any) -> Any:
    """A plain value as it is; another object as its text."""
    if value is None or isinstance(value, bool | int | float | str | np.ndarray | np.generic):
        return value
    if isinstance(value, Mapping):
        return {key: _value(item) for key, item in value.items()}
    if isinstance(value, list | tuple):  # a tuple of its own kind, too
        return type(value)(map(_value, value)) if type(value) in (list, tuple) else tuple(map(_value, value))
    return str(value)


def _json(value: Any) -> Any:
    if hasattr(value, "tolist"):  # an array, a number of NumPy's, a tensor
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_json(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


@dataclass(frozen=True, eq=False)
class TrainingExample:
    """Something to learn from one state.

    `target` by `example_type`: a policy over the legal actions, the value of the state, the pair (query, chain of
    reasoning), or the action that should become less likely.
    """

    example_id: str
    example_type: ExampleType
    state: Tensor
    target: Any
    weight: float = 1.0
    metadata: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        shown: dict[str, Any] = _json(_plain(self))
        return shown
