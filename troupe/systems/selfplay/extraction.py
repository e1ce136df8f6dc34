"""What episodes of self-play teach: four kinds of examples (document 001).

    data = TrainingDataExtractor().extract_examples(episodes)
    loader = DataLoader(SelfPlayDataset(data["policy"], "policy"), batch_size=64, shuffle=True)

Only attempts that came to their end teach anything: nobody has verified the outcome of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.utils.data import Dataset

from troupe.episode import Outcome
from troupe.errors import ConfigError, DataError, did_you_mean
from troupe.systems.selfplay.agents import Family
from troupe.systems.selfplay.episodes import ExampleType, SelfPlayEpisode, TrainingExample

__all__ = ["SelfPlayDataset", "TrainingDataExtractor"]

TYPES: tuple[str, ...] = get_args(ExampleType)

NEEDED = (
    *("complete", "done", "discount", "family", "index", "query", "symmetries"),
    *("chosen", "legal", "policies", "to_play"),
)
"""Metadata of an episode that are read here; see `SelfPlayEpisode`."""


class TrainingDataExtractor:
    """`success_weight` is the weight of what is to be imitated and of values, `failure_weight` that of the actions of
    failed attempts. What a verified outcome says of a state is as true after a failure, so values weigh the same."""

    def __init__(self, success_weight: float = 1.0, failure_weight: float = 0.3) -> None:
        for name, weight in (("success_weight", success_weight), ("failure_weight", failure_weight)):
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"{name} is {weight}; write a finite number, 0 or more")
        self.success_weight, self.failure_weight = success_weight, failure_weight

    def extract_examples(self, episodes: Sequence[SelfPlayEpisode]) -> dict[str, list[TrainingExample]]:
        """{"policy", "value", "reasoning", "negative"}: the examples of all attempts that were completed.

        Raises DataError for an episode without the metadata that `SelfPlayEpisodeGenerator` writes.
        """
        found: dict[str, list[TrainingExample]] = {name: [] for name in TYPES}
        for episode in episodes:
            missing = [key for key in NEEDED if key not in episode.metadata]
            if missing:
                raise DataError(
                    f"the metadata of episode {episode.task_id!r} lack {missing[0]!r}; let SelfPlayEpisodeGenerator "
                    "make it"
                )
            if episode.metadata["complete"]:
                found["policy"] += self._extract_policy_examples(episode)
                found["value"] += self._extract_value_examples(episode)
                found["reasoning"] += self._extract_reasoning_examples(episode)
                found["negative"] += self._extract_negative_examples(episode)
        return found

    def _extract_policy_examples(self, episode: SelfPlayEpisode) -> list[TrainingExample]:
        """(state, policy): of both players of a game, unless the first failed: then of the one who refuted him.

        In a game the target is the policy of the search, which saw the rewards. Where an answer is checked afterwards
        the search saw none, and the target is the action on the verified path. Over the world's actions `[A]`, with the
        mask in `metadata["legal"]`; over the state's candidates `[k]`, encoded in `metadata["candidates"]` `[k, d]`.
        """
        found = []
        for t in _steps(episode):
            if episode.outcome is not Outcome.SUCCESS and _is_first(episode, t):
                continue
            policy = episode.metadata["policies"][t]
            if "answer" in episode.metadata:
                policy = np.eye(len(policy))[episode.metadata["chosen"][t]]
            target, more = _over_actions(episode, t, policy)
            found.append(_example(episode, "policy", t, target, self.success_weight, more))
        return found

    def _extract_value_examples(self, episode: SelfPlayEpisode) -> list[TrainingExample]:
        """(state, value): the rewards to come, discounted as in the search, as the player to move sees them; `[]` float
        tensors.

        What an answer is paid comes with the state in which it has been given. That one counts, too: the world goes on
        from it, and the search asks for its value.
        """
        movers, values = episode.metadata["to_play"], _returns(episode)
        found = []
        for t, value in enumerate(values[: len(episode.states)]):
            sign = 1.0 if movers[t] == movers[0] else -1.0
            target = torch.tensor(sign * value, dtype=torch.float32)
            found.append(_example(episode, "value", t, target, self.success_weight, {}))
        return found

    def _extract_reasoning_examples(self, episode: SelfPlayEpisode) -> list[TrainingExample]:
        """(query, chain): the problem and the steps that solved it, as text."""
        if episode.outcome is not Outcome.SUCCESS or not episode.actions:
            return []
        target = (str(episode.metadata["query"]), _chain(episode))
        return [_example(episode, "reasoning", 0, target, self.success_weight, {})]

    def _extract_negative_examples(self, episode: SelfPlayEpisode) -> list[TrainingExample]:
        """(state, action) of whoever made the attempt, where it failed. The target is the action's index `[]`, with
        `metadata` as for policies."""
        if episode.outcome is not Outcome.FAILURE:
            return []
        found = []
        for t in _steps(episode):
            if _is_first(episode, t):
                chosen = np.eye(len(episode.metadata["policies"][t]))[episode.metadata["chosen"][t]]
                target, more = _over_actions(episode, t, chosen)
                found.append(_example(episode, "negative", t, target.argmax(), self.failure_weight, more))
        return found


def _returns(episode: SelfPlayEpisode) -> list[float]:
    """G_t = r_t + gamma G_{t+1} of every action, to the player who moved first; and what the end was paid, where the
    world goes on from it."""
    gamma, rewards = episode.metadata["discount"], list(episode.rewards)
    end = 0.0
    if "answer" in episode.metadata:  # the last reward contains it
        end = float(episode.outcome is Outcome.SUCCESS)
        rewards[-1] -= end
    found = [end]
    for reward in reversed(rewards):
        found.append(reward + gamma * found[-1])
    found.reverse()
    return found[:-1] if episode.metadata["done"] else found


def _steps(episode: SelfPlayEpisode) -> Iterator[int]:
    return iter(range(len(episode.actions)))


def _is_first(episode: SelfPlayEpisode, t: int) -> bool:
    movers = episode.metadata["to_play"]
    return bool(movers[t] == movers[0])


def _over_actions(episode: SelfPlayEpisode, t: int, policy: np.ndarray) -> tuple[Tensor, dict[str, Any]]:
    """(the policy as a target, what goes with it)."""
    family, legal = Family(**episode.metadata["family"]), episode.metadata["legal"][t]
    if family.actions is None:
        encoded = np.zeros((len(policy), 0)) if legal is None else legal
        return torch.tensor(policy, dtype=torch.float32), {"candidates": torch.tensor(encoded, dtype=torch.float32)}
    target, mask = torch.zeros(family.actions), torch.zeros(family.actions, dtype=torch.bool)
    target[legal], mask[legal] = torch.tensor(policy, dtype=torch.float32), True
    return target, {"legal": mask}


def _example(
    episode: SelfPlayEpisode, kind: ExampleType, t: int, target: Any, weight: float, more: dict[str, Any]
) -> TrainingExample:
    metadata = {
        "task_id": episode.task_id,
        "step": t,
        "to_play": episode.metadata["to_play"][t],
        "family": Family(**episode.metadata["family"]).name,
        "symmetries": episode.metadata["symmetries"],
        **more,
    }
    state = torch.as_tensor(np.asarray(episode.states[t].representation), dtype=torch.float32)
    name = f"{episode.task_id}/{episode.metadata['index']}/{kind}/{t}"
    return TrainingExample(name, kind, state, target, weight, metadata)


def _chain(episode: SelfPlayEpisode) -> str:
    """Steps as lines: "1. 12+5 = 17", "2. The answer is 17"; the moves of a game by player."""
    lines = []
    for t, action in enumerate(episode.actions):
        text = action.action_id
        if "says" in action.parameters:
            text = action.parameters["says"]
        elif action.action_type == "answer":
            text = f"The answer is {text.removeprefix('answer ')}."
        elif "answer" in episode.metadata:
            after = episode.states[t + 1].raw_state
            made = after.get("made", ()) if isinstance(after, dict) else ()
            text = made[-1].replace("=", " = ") if made else text
        else:
            text = f"Player {action.parameters['player']} plays {text}."
        lines.append(f"{t + 1}. {text}")
    return "\n".join(lines)


class SelfPlayDataset(Dataset[dict[str, Any]]):
    """The examples of one type as {"state", "target", "weight", "metadata"}, which go through a DataLoader's default
    collation.

    Where states list their own candidates, the lists are padded to the longest: a policy is `[K]`, and the metadata
    have `candidates` `[K, d]` and `legal` bool `[K]`. Raises ConfigError for an unknown type or family, and where the
    examples are of several families and `family` picks none of them by its name.
    """

    def __init__(self, examples: Sequence[TrainingExample], example_type: str, family: str | None = None) -> None:
        if example_type not in TYPES:
            raise ConfigError(f"there are no examples of type {example_type!r}{did_you_mean(example_type, TYPES)}")
        chosen = [example for example in examples if example.example_type == example_type]
        known = sorted({example.metadata["family"] for example in chosen})
        if family is None and len(known) > 1:
            raise ConfigError(f"the states of {', '.join(known)} have different shapes; pass one of them as family")
        if family is not None and chosen and family not in known:
            raise ConfigError(f"no example is of the family {family!r}{did_you_mean(family, known)}")
        self.examples = [example for example in chosen if family in (None, example.metadata["family"])]
        self._width = max((len(e.metadata.get("candidates", ())) for e in self.examples), default=0)

    def __len__(self) -> int:
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self.examples[index]
        target, metadata = example.target, example.metadata
        if "candidates" in metadata:
            codes = metadata["candidates"]
            more = self._width - len(codes)
            legal = torch.arange(self._width) < len(codes)
            metadata = {**metadata, "candidates": pad(codes, (0, 0, 0, more)), "legal": legal}
            target = pad(target, (0, more)) if example.example_type == "policy" else target
        return {"state": example.state, "target": target, "weight": example.weight, "metadata": metadata}
