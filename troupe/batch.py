"""What is learned from: dense `[B, T]` tensors and a mask.

Legend: B rows, T columns, S steps. A row is one exact-prefix lineage of one agent's conversation: a step whose full
prompt extends the row continues it, any other step starts a new row. Column t of every tensor speaks of the
token (bar, move) at position t: `actions[:, t]` was drawn in the state that the columns before t describe.

Invariant, property-tested: every sampled token appears exactly once with `mask` 1, and no other token carries loss.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from troupe.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from troupe.episode import Episode, Step

__all__ = ["Batch", "RowInfo", "Span", "minibatches", "pack"]


@dataclass(frozen=True, slots=True)
class RowInfo:
    """Where a row comes from."""

    episode: int  # index into the episodes that were packed
    agent: str
    policy: str
    length: int  # tokens before padding


@dataclass(frozen=True, slots=True)
class Span:
    """Where a step's sampled tokens stand: `actions[row, start : start + length]`."""

    episode: int
    trajectory: int
    step: int
    row: int
    start: int
    length: int


@dataclass(frozen=True)
class Batch:
    """Tensors `[B, T]` or `[B, T, ...]` by name, and where the rows came from.

    The names in use: `actions` (long), `mask` (float, 1 where the action was sampled by a policy), `rewards`, `values`,
    `terminated`, `truncated`, `old_logprobs`, `ref_logprobs`, `advantages`, `returns`, `targets`, `weights`,
    `temperature` (what the token was sampled at), `version` and `group` (long, per token, since merged steps may
    differ). `inputs` is a mapping of its own: what the model reads (`input_ids` for language, observations for
    environments).
    """

    inputs: Mapping[str, Tensor]
    columns: Mapping[str, Tensor]
    rows: tuple[RowInfo, ...] = ()
    spans: tuple[Span, ...] = ()
    forks: int = 0  # steps whose prompt did not extend their parent's row: the template rewrites history
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Tensor:
        return self.columns[name]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def __len__(self) -> int:
        return int(self.columns["mask"].shape[0])

    def with_columns(self, **columns: Tensor) -> Batch:
        """The same rows with columns added or replaced; each must begin with `[B, T]`."""
        shape = self.columns["mask"].shape
        for name, column in columns.items():
            if column.shape[:2] != shape:
                raise DataError(f"column {name!r} has shape {tuple(column.shape)}; the batch is {tuple(shape)}")
        return replace(self, columns={**self.columns, **columns})

    def take(self, index: Sequence[int] | Tensor) -> Batch:
        """The rows of `index`, cut to the longest of them. Spans are dropped: they speak of the full batch."""
        chosen = torch.as_tensor(index, dtype=torch.long)
        rows = tuple(self.rows[i] for i in chosen.tolist()) if self.rows else ()
        width = max((row.length for row in rows), default=self.columns["mask"].shape[1])
        return Batch(
            inputs={name: value[chosen, :width] for name, value in self.inputs.items()},
            columns={name: value[chosen, :width] for name, value in self.columns.items()},
            rows=rows,
            metadata=self.metadata,
        )

    def to(self, device: torch.device | str) -> Batch:
        return replace(
            self,
            inputs={name: value.to(device) for name, value in self.inputs.items()},
            columns={name: value.to(device) for name, value in self.columns.items()},
        )


class _Row:
    """A row under construction: token ids, and which of them were sampled with which log-prob."""

    __slots__ = ("agent", "episode", "ids", "logprobs", "mask", "policy", "temperature", "version")

    def __init__(self, episode: int, agent: str, policy: str, context: Sequence[int]) -> None:
        self.episode, self.agent, self.policy = episode, agent, policy
        self.ids: list[int] = list(context)
        self.mask: list[int] = [0] * len(context)
        self.logprobs: list[float] = [0.0] * len(context)
        self.version: list[int] = [0] * len(context)
        self.temperature: list[float] = [1.0] * len(context)

    def append(self, step: Step, prompt: Sequence[int]) -> int:
        """Adds the step's prompt suffix and response; returns the column where the response starts."""
        tokens = step.tokens
        assert tokens is not None
        start = len(self.ids) + len(prompt)
        size = len(tokens.response_ids)
        self.ids += [*prompt, *tokens.response_ids]
        self.mask += [0] * len(prompt) + list(tokens.mask)
        self.logprobs += [0.0] * len(prompt) + list(tokens.logprobs or [0.0] * size)
        self.version += [0] * len(prompt) + [tokens.policy_version] * size
        self.temperature += [1.0] * len(prompt) + [tokens.sampling.temperature] * size
        return start


def pack(
    episodes: Sequence[Episode],
    *,
    agents: Sequence[str] | None = None,
    pad_id: int = 0,
    max_length: int | None = None,
) -> Batch:
    """Builds the batch of all steps of `agents` (default: every agent) that carry tokens.

    A step continues the row that its `parent` ended, if agent and policy agree and no sibling did so before;
    otherwise it starts a new row whose context (earlier sampled tokens included) carries no loss. `old_logprobs` are
    the sampled ones. Raises DataError for an unknown parent, lengths that disagree, a row longer than `max_length`, or
    nothing to pack.
    """
    rows: list[_Row] = []
    placed: list[Span] = []
    forks = 0
    for e, episode in enumerate(episodes):
        contexts: dict[str, tuple[int, ...]] = {}  # step id -> its full prompt and response
        tails: dict[str, int] = {}  # step id -> the row that it ends
        for k, trajectory in enumerate(episode.trajectories):
            for s, step in enumerate(trajectory.steps):
                tokens = step.tokens
                if tokens is None:
                    continue
                _check(step, episode.id)
                before: tuple[int, ...] = ()
                if step.parent is not None:
                    if step.parent not in contexts:
                        raise DataError(
                            f"episode {episode.id!r}: step {step.id!r} names the unknown parent {step.parent!r}"
                        )
                    before = contexts[step.parent]
                contexts[step.id] = (*before, *tokens.prompt_ids, *tokens.response_ids)
                forks += bool(step.info.get("fork"))
                if agents is not None and step.agent not in agents:
                    continue
                row = tails.pop(step.parent, None) if step.parent is not None else None
                if row is not None and (rows[row].agent, rows[row].policy) != (step.agent, tokens.policy):
                    row = None
                if row is None:
                    row = len(rows)
                    rows.append(_Row(e, step.agent, tokens.policy, before))
                start = rows[row].append(step, tokens.prompt_ids)
                tails[step.id] = row
                placed.append(Span(e, k, s, row, start, len(tokens.response_ids)))
    if not rows:
        raise DataError("there is nothing to learn from: no episode holds a step with tokens of a trained agent")
    longest = max(range(len(rows)), key=lambda i: len(rows[i].ids))
    if max_length is not None and len(rows[longest].ids) > max_length:
        raise DataError(
            f"episode {episodes[rows[longest].episode].id!r}: a row of agent {rows[longest].agent!r} has "
            f"{len(rows[longest].ids)} tokens, more than max_length={max_length}"
        )
    return Batch(
        inputs={"input_ids": _dense([r.ids for r in rows], pad_id, np.int64)},
        columns={
            "actions": _dense([r.ids for r in rows], pad_id, np.int64),
            "mask": _dense([r.mask for r in rows], 0, np.float32),
            "old_logprobs": _dense([r.logprobs for r in rows], 0, np.float32),
            "version": _dense([r.version for r in rows], 0, np.int64),
            "temperature": _dense([r.temperature for r in rows], 1, np.float32),
        },
        rows=tuple(RowInfo(r.episode, r.agent, r.policy, len(r.ids)) for r in rows),
        spans=tuple(placed),
        forks=forks,
    )


def _check(step: Step, episode_id: str) -> None:
    tokens = step.tokens
    assert tokens is not None
    size = len(tokens.response_ids)
    for name, values in (("mask", tokens.mask), ("logprobs", tokens.logprobs)):
        if values is not None and len(values) != size:
            raise DataError(
                f"episode {episode_id!r}: step {step.id!r} has {size} response ids but {len(values)} entries in {name}"
            )


def _dense(rows: Sequence[Sequence[float]], fill: float, dtype: Any) -> Tensor:
    """Right-padded `[B, T]`."""
    out = np.full((len(rows), max(map(len, rows))), fill, dtype=dtype)
    for i, row in enumerate(rows):
        out[i, : len(row)] = row
    return torch.from_numpy(out)


def minibatches(
    batch: Batch,
    size: int,
    *,
    generator: torch.Generator,
    unit: str = "row",
    together: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Shuffled minibatches of about `size` units, each unit once.

    `unit="row"` keeps rows whole (language); `unit="step"` makes every masked column its own row of one column
    (environments without memory). `together[i]` is a group id per row: rows of one group stay side by side, which
    lets a model compute a prefix that they share once; the groups are shuffled.
    """
    if unit == "step":
        batch = _flatten_steps(batch)
    elif unit != "row":
        raise DataError(f"minibatches(unit={unit!r}): write 'row' or 'step'")
    if together is None:
        order = torch.randperm(len(batch), generator=generator).tolist()
    else:
        members: dict[int, list[int]] = {}
        for i, group in enumerate(together):
            members.setdefault(group, []).append(i)
        groups = list(members.values())
        order = [i for g in torch.randperm(len(groups), generator=generator).tolist() for i in groups[g]]
    parts = max(1, round(len(order) / size))
    bounds = [round(p * len(order) / parts) for p in range(parts + 1)]
    for low, high in pairwise(bounds):
        if high > low:
            yield batch.take(order[low:high])


def _flatten_steps(batch: Batch) -> Batch:
    keep = batch["mask"].bool()
    return Batch(
        inputs={name: value[keep].unsqueeze(1) for name, value in batch.inputs.items()},
        columns={name: value[keep].unsqueeze(1) for name, value in batch.columns.items()},
        metadata=batch.metadata,
    )
