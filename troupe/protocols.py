"""Contracts between the wings. Worlds, engines and training never import one another; they meet through these.

Plain Protocols: nothing inherits from them, and any object of the right shape will do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from troupe.episode import FinishReason, Message, Problem, Sampling, Task

__all__ = [
    "ChatFormat",
    "Engine",
    "Generation",
    "GenerationRequest",
    "Reward",
    "RewardFn",
    "TaskGenerator",
    "Tool",
    "Workflow",
]


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One call of one agent, as token ids.

    `key` identifies the call among all calls of a run: (run seed, update, task, rollout, agent, call). Sampling noise
    is a function of the key and the position alone, and a synchronous engine sorts a wave by it, so that neither
    the arrival order nor the number of workers can change what is sampled. `parent` names the earlier generation whose
    full sequence `prompt_ids` extends, so that an engine may continue its key-value cache. `messages` and `tools` say
    the same as `prompt_ids`, for engines that take no token ids.
    """

    policy: str
    prompt_ids: tuple[int, ...]  # the full prompt
    sampling: Sampling
    key: tuple[Any, ...]
    id: str = ""
    parent: str | None = None
    messages: tuple[Message, ...] = ()
    tools: tuple[Tool, ...] = ()


@dataclass(frozen=True, slots=True)
class Generation:
    """What an engine answers. `logprobs[i]` belongs to `response_ids[i]`; None from an engine that has none."""

    response_ids: tuple[int, ...]
    logprobs: tuple[float, ...] | None
    finish_reason: FinishReason
    policy_version: int = 0


@runtime_checkable
class ChatFormat(Protocol):
    """Messages to token ids and back, for one model family."""

    def encode(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        """Token ids of a whole conversation, ready for the assistant to speak."""

    def extend(
        self, before: Sequence[Message], response_ids: Sequence[int], after: Sequence[Message], tools: Sequence[Tool]
    ) -> tuple[int, ...] | None:
        """Token ids to append after `response_ids` so that the assistant may speak again.

        `before` ends just before the assistant's turn that `response_ids` are; `after` holds what followed it, and
        begins with that turn as a message. None where the template rewrites history: the caller starts a new row.
        """

    def decode(self, response_ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        """Text of a response without its end-of-turn token, trimmed before the first complete stop string's end."""

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> dict[str, Any]:
        """The assistant message of a response text, in OpenAI's shape. A call that names no tool is for the first of
        the `tools` that were offered."""


class Engine(Protocol):
    """Who answers. `exact_tokens` is True where sampled ids and their log-probs come back: only then can it train."""

    exact_tokens: bool

    def chat_format(self, policy: str) -> ChatFormat: ...

    async def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """Answers in the order of the requests. What it raises ends the run: an engine that fails is a failed
        program."""
        ...


class Tool(Protocol):
    """A function that an agent may call. Failures are answers that begin with 'error', never exceptions."""

    name: str
    description: str
    parameters: Mapping[str, Any]  # JSON schema of the arguments

    def __call__(self, **arguments: Any) -> str: ...


@dataclass(frozen=True, slots=True)
class Reward:
    """What a reward function pays: `reward` counts, `parts` explain it; field names as document 004's code has them."""

    reward: float
    is_correct: bool
    metadata: Mapping[str, Any]


class RewardFn(Protocol):
    """Pays an answer after the run. It sees the task with its answer; the workflow never does."""

    def __call__(self, task: Task, answer: str | None) -> Reward: ...


class Workflow(Protocol):
    """A team. `run` sees the problem without its answer; `reward` pays afterwards, on the same mutable handles."""

    @property
    def agent_names(self) -> tuple[str, ...]: ...

    @property
    def credit(self) -> Mapping[str, str]:
        """agent -> what it is paid for, in a sentence; printed in the credit table."""
        ...

    async def run(self, problem: Problem, agents: Any) -> Any: ...

    def reward(self, task: Task, episode: Any) -> None:
        """Called in a thread, beside those of other episodes; each episode has a workflow object of its own."""


class TaskGenerator(Protocol):
    """Makes tasks. The same seed gives the same tasks."""

    def generate(self, n: int) -> list[Task]: ...

    def __iter__(self) -> Iterator[Task]: ...
