"""An episode as people read it: who was told what, said what, called which tool and was paid how much.

    parts(episode)[1].turns[0]
    Turn(told=(("system", "compute"), ("user", "Solve 4x - 30 = 34\\nPlan: (34+30)/4")), said="",
         calls=(ToolCall("calculator", "34+30", "64"),), reward=None, cut=False)

Shared by the report page and the terminal, so that both tell the same story.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from troupe.episode import Episode, FinishReason, Step, StopReason, Trajectory

__all__ = ["Part", "ToolCall", "Turn", "parts", "problem_text"]

_CALL_MARKUP = re.compile(r"<(call|tool_call)>.*?</\1>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool. `result` is None where the tool was never run (the agent had used up its turns)."""

    tool: str
    arguments: str
    result: str | None


@dataclass(frozen=True, slots=True)
class Turn:
    """One step: what was new in the prompt as (role, text), then the answer."""

    told: tuple[tuple[str, str], ...]
    said: str  # without the mark-up of tool calls, which `calls` holds
    calls: tuple[ToolCall, ...]
    reward: float | None
    cut: bool  # the length limit ended the answer


@dataclass(frozen=True, slots=True)
class Part:
    """One trajectory: an agent's attempt, numbered from 1 among the attempts of that agent."""

    agent: str
    attempt: int
    turns: tuple[Turn, ...]
    reward: float | None
    stopped: str  # why it ended early, in words; "" for an agent that finished


_STOPPED = {
    StopReason.DONE: "",
    StopReason.UNKNOWN: "",
    StopReason.MAX_TURNS: "used up its turns",
    StopReason.PROMPT_TOO_LONG: "the prompt outgrew its limit",
    StopReason.RESPONSE_TOO_LONG: "the answer was cut off",
    StopReason.TIMEOUT: "ran out of time",
    StopReason.ERROR: "stopped by an error",
}


def parts(episode: Episode) -> tuple[Part, ...]:
    """The trajectories of an episode in the order in which they began."""
    results = _tool_results(episode)
    attempts: dict[str, int] = {}
    found = []
    for trajectory in episode.trajectories:
        attempts[trajectory.agent] = attempts.get(trajectory.agent, 0) + 1
        found.append(_part(trajectory, attempts[trajectory.agent], results))
    return tuple(found)


def problem_text(episode: Episode) -> str | None:
    """What the first agent was asked: the first user message, or None where there is none."""
    for step in episode.steps():
        for role, text in _heard(step.observation):
            if role == "user":
                return text
    return None


def _part(trajectory: Trajectory, attempt: int, results: Mapping[str, Sequence[str]]) -> Part:
    paid = trajectory.reward is not None or trajectory.has_step_rewards
    return Part(
        agent=trajectory.agent,
        attempt=attempt,
        turns=tuple(_turn(step, results.get(step.id, ())) for step in trajectory.steps),
        reward=trajectory.total_reward if paid else None,
        stopped=_STOPPED[trajectory.stop_reason],
    )


def _turn(step: Step, results: Sequence[str]) -> Turn:
    calls = step.action.get("tool_calls") or () if isinstance(step.action, Mapping) else ()
    said = _text(step.action.get("content") if isinstance(step.action, Mapping) else step.action)
    return Turn(
        # A tool's result is shown beside its call; only one whose call is unknown stands alone.
        told=tuple((r, t) for r, t in _heard(step.observation) if r != "tool" or step.parent is None),
        said=_CALL_MARKUP.sub("", said).strip() if calls else said,
        calls=tuple(_call(call, results[i] if i < len(results) else None) for i, call in enumerate(calls)),
        reward=step.reward,
        cut=step.tokens is not None and step.tokens.finish_reason is FinishReason.LENGTH,
    )


def _tool_results(episode: Episode) -> dict[str, list[str]]:
    """Step id -> what its tool calls returned: the tool messages of the step that continues it."""
    return {
        step.parent: [text for role, text in _heard(step.observation) if role == "tool"]
        for step in episode.steps()
        if step.parent is not None
    }


def _heard(observation: Any) -> list[tuple[str, str]]:
    if isinstance(observation, (list, tuple)) and all(isinstance(m, Mapping) and "role" in m for m in observation):
        return [(str(m["role"]), _text(m.get("content"))) for m in observation]
    return [] if observation is None else [("observation", _text(observation))]


def _text(content: Any) -> str:
    """The text of a message: a string, or OpenAI's list of typed pieces; anything else as JSON."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, (list, tuple)) and all(isinstance(p, Mapping) and "text" in p for p in content):
        return "\n".join(str(piece["text"]) for piece in content)
    return json.dumps(content, ensure_ascii=False, default=str)


def _call(call: Mapping[str, Any], result: str | None) -> ToolCall:
    function = call.get("function") or {}
    return ToolCall(str(function.get("name") or "unreadable call"), _arguments(function.get("arguments")), result)


def _arguments(raw: Any) -> str:
    """`436-3` for a single argument, `a=1, b="x"` for several, the raw text where it is no JSON object."""
    try:
        values = json.loads(raw) if isinstance(raw, str) else raw
    except ValueError:
        return _text(raw)
    if not isinstance(values, Mapping):
        return _text(raw)
    if len(values) == 1:
        return _text(next(iter(values.values())))
    return ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in values.items())
