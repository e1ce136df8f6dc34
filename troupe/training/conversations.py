"""Plain conversations as demonstrations: what anybody said well, in a policy's own tokens, ready for fine-tuning.

episodes = demonstrations(policy, read_conversations("chains.jsonl"))
fine_tune(policy, episodes, SftConfig(steps=200), TrainerConfig(), folder, ...)     # systems.workflow_rl.sft
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from troupe.episode import Episode, FinishReason, Message, Outcome, Step, StopReason, Tokens, Trajectory
from troupe.errors import DataError, StorageError

if TYPE_CHECKING:
    from troupe.models.language import Policy

__all__ = ["demonstrations", "read_conversations"]


def read_conversations(path: str | Path) -> list[Mapping[str, Any]]:
    """The rows of a file with one JSON object a line, each with `messages` in OpenAI's shape (`write_chains` writes
    such files; other keys are kept). Raises StorageError for a file that cannot be read, DataError for a row that is no
    conversation in which an assistant speaks."""
    try:
        lines = Path(path).read_text(encoding="utf-8").split("\n")  # JSON texts may hold other separators of lines
    except (OSError, UnicodeDecodeError) as error:
        raise StorageError(f"{path} cannot be read: {error}") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}, line {number}: not JSON ({error}); write one object a line") from None
            if not _is_conversation(row):
                raise DataError(
                    f"{path}, line {number}: no conversation in which an assistant speaks; write "
                    '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}'
                )
            rows.append(row)
    return rows


def demonstrations(policy: Policy, conversations: Sequence[Mapping[str, Any]], agent: str = "solver") -> list[Episode]:
    """An episode for each conversation, a step for each assistant turn with text that answers something: its prompt is
    all that was said before, and only what the assistant says is learned. Raises DataError for a row that is no
    conversation, or a turn that does not fit the model's positions."""
    return [_demonstration(policy, row, i, agent) for i, row in enumerate(conversations)]


def _demonstration(policy: Policy, row: Mapping[str, Any], number: int, agent: str) -> Episode:
    if not _is_conversation(row):
        raise DataError(f"conversation {number} has no 'messages' in which an assistant speaks; give it some")
    said: Sequence[Message] = row["messages"]
    turns = [i for i in range(1, len(said)) if _speaks(said[i])]
    steps = tuple(_step(policy, said[: i + 1], number, f"{agent}/{k}", agent) for k, i in enumerate(turns))
    task = str(row.get("task_id", f"conversation-{number}"))
    trajectory = Trajectory(agent, steps, None, StopReason.DONE)
    return Episode(f"conversation-{number}", task, (trajectory,), Outcome.SUCCESS, group=task)


def _step(policy: Policy, said: Sequence[Message], number: int, identity: str, agent: str) -> Step:
    """The last message, in answer to all before it. Every turn is encoded whole, so that templates which rewrite
    history are read as the model would read them; what turns share is computed once by the prefix trees."""
    layout, room = policy.model.format, policy.model.max_positions
    prompt, response = layout.encode(said[:-1]), layout.encode_response(str(said[-1]["content"]))
    if len(prompt) + len(response) > room:
        raise DataError(
            f"conversation {number} has a turn of {len(prompt) + len(response)} tokens, prompt included; the model has "
            f"{room} positions: leave it out, or take a model with more"
        )
    tokens = Tokens(prompt, response, None, (1,) * len(response), policy.name, finish_reason=FinishReason.STOP)
    return Step(identity, agent, None, list(said[:-1]), said[-1], tokens=tokens)


def _is_conversation(row: Any) -> bool:
    if not isinstance(row, Mapping) or not isinstance(row.get("messages"), list):
        return False
    said = row["messages"]
    whole = all(isinstance(m, Mapping) and isinstance(m.get("role"), str) and "content" in m for m in said)
    return whole and any(map(_speaks, said[1:]))


def _speaks(message: Mapping[str, Any]) -> bool:
    """Whether it is a turn to learn: an assistant's text. Tool calls alone have none."""
    return message["role"] == "assistant" and isinstance(message["content"], str)
