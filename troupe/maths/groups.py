"""Who is compared with whom: a sample's group decides whose mean reward is its baseline.

A group key is a function of one `Sample`; the names that a config may use are the literal dict `GROUP_KEYS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from troupe.errors import CreditError, did_you_mean

__all__ = ["GROUP_KEYS", "GroupKey", "GroupSizes", "Sample", "group_ids", "group_sizes"]


@dataclass(frozen=True, slots=True)
class Sample:
    """What a group key may look at."""

    task: str
    agent: str
    turn: int = 0  # the agent's own count of its calls, from 0
    prompt_hash: str = ""  # of the full prompt's token ids


GroupKey = Callable[[Sample], tuple[str | int, ...]]

GROUP_KEYS: dict[str, GroupKey] = {
    "by_task": lambda s: (s.task,),  # everyone who worked on the task; right only where all agents share one reward
    "by_agent": lambda s: (s.task, s.agent),  # the same part of the same task; the default
    "by_agent_turn": lambda s: (s.task, s.agent, s.turn),  # later turns face other odds (AT-GRPO, arXiv:2510.11062)
    "by_prompt": lambda s: (s.task, s.prompt_hash),  # literally the same state, whoever was asked
}


def group_ids(samples: Sequence[Sample], key: str | GroupKey) -> Tensor:
    """Group of each sample as int64 `[N]`, numbered from 0 in order of first appearance.

    `key` is a name in `GROUP_KEYS` or a function of one `Sample`. Raises CreditError for an unknown name.
    """
    if isinstance(key, str):
        if key not in GROUP_KEYS:
            raise CreditError(f"unknown group key {key!r}{did_you_mean(key, GROUP_KEYS)}")
        key = GROUP_KEYS[key]
    numbers: dict[tuple[str | int, ...], int] = {}
    return torch.tensor([numbers.setdefault(key(s), len(numbers)) for s in samples], dtype=torch.int64)


@dataclass(frozen=True, slots=True, eq=False)
class GroupSizes:
    """How many samples share each sample's group."""

    sizes: Tensor  # int64 [N]
    singleton: Tensor  # bool [N]: nobody to be compared with; advantage 0


def group_sizes(groups: Tensor) -> GroupSizes:
    """Sizes of the groups that `groups`, int64 `[N]`, assigns; each is repeated for every member."""
    _, member_of, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    return GroupSizes(counts[member_of], counts[member_of] == 1)
