"""The recorder behind `agents.<name>.chat()`: lineage and token truth.

A workflow talks to its agents in messages. Underneath, every call is token ids: the prompt of a call that continues an
earlier conversation is that call's ids, its sampled response, and the ids of what was added since; decoded text is
never tokenised again. Where a template rewrites history the call starts a new row, and is counted as a fork.

`Wave` gathers the calls of all running episodes and lets the engine answer once every one of them waits. Requests
are sorted by key, so the composition of each batch, and with it every rounding error, is the same on every run.
Work that a workflow awaits elsewhere (a sandbox, a search server) goes through `Team.external`, so that the wave knows
of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np

from troupe.episode import FinishReason, Message, Sampling, StopReason, Tokens, message
from troupe.errors import CreditError, EpisodeError, TroupeError, did_you_mean
from troupe.handles import EpisodeHandle, StepHandle, TrajectoryHandle
from troupe.protocols import Engine, Generation, GenerationRequest, Tool
from troupe.threads import in_thread

__all__ = [
    "Agent",
    "AgentSpec",
    "PromptTooLong",
    "Reply",
    "Team",
    "Wave",
    "keyed_uniforms",
]

T = TypeVar("T")


class PromptTooLong(EpisodeError):
    """The next prompt does not fit; the episode ends with `outcome="truncated"`."""


def keyed_uniforms(key: tuple[Any, ...], n: int) -> np.ndarray:
    """`n` uniforms in [0, 1), float64 `[n]`: the noise of one call, a function of its key alone.

    The key is hashed (BLAKE2b, 128 bits) into the key of a Philox counter generator (Salmon et al. 2011), so calls are
    independent streams and position i of a call is the same number whoever asks, and in whatever order.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=16).digest()
    bits = np.random.Philox(key=np.frombuffer(digest, dtype=np.uint64))
    return np.random.Generator(bits).random(n)


# ---------------------------------------------------------------------------------------------- the wave


_Call = tuple[GenerationRequest, "asyncio.Future[Generation]"]


class Wave:
    """Answers the calls of all live episodes together, in an order that does not depend on their arrival.

    An episode's time limit stands still while all that it does is wait for the others to speak: otherwise one that
    hangs would take its siblings with it.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.failure: BaseException | None = None  # the engine failed: the program did, not an episode
        self._live: dict[str, asyncio.Timeout | None] = {}
        self._left: dict[str, float] = {}  # seconds of the episodes whose time stands still
        self._outside: Counter[str] = Counter()  # awaits outside of the event loop, by episode
        self._pending: dict[str, list[_Call]] = {}  # open calls by episode; every key is a live episode
        self._arrivals = 0
        self._flusher: asyncio.Task[None] | None = None

    def enter(self, episode: str, limit: asyncio.Timeout | None = None) -> None:
        self._live[episode] = limit

    def leave(self, episode: str) -> None:
        """The episode is over; its open calls are withdrawn."""
        self._live.pop(episode, None)
        self._left.pop(episode, None)
        self._pending.pop(episode, None)
        self._wake()

    async def generate(self, episode: str, request: GenerationRequest) -> Generation:
        future: asyncio.Future[Generation] = asyncio.get_running_loop().create_future()
        self._pending.setdefault(episode, []).append((request, future))
        self._arrivals += 1
        self._keep_time(episode)
        self._wake()
        return await future

    async def external(self, episode: str, work: Awaitable[T]) -> T:
        """Awaits `work` that happens outside of the event loop; no batch is closed meanwhile."""
        self._outside[episode] += 1
        self._keep_time(episode)
        try:
            return await work
        finally:
            self._outside[episode] -= 1
            self._keep_time(episode)
            self._wake()

    def excuse(self, seconds: float) -> None:
        """Gives all live episodes back the time in which the event loop stood still."""
        for limit in self._live.values():
            if limit is not None and not limit.expired() and (until := limit.when()) is not None:
                limit.reschedule(until + seconds)

    def _keep_time(self, episode: str) -> None:
        limit = self._live.get(episode)
        if limit is None or limit.expired():
            return
        now, until = asyncio.get_running_loop().time(), limit.when()
        waits = episode in self._pending and not self._outside[episode]
        if waits and until is not None:
            self._left[episode] = until - now
            limit.reschedule(None)
        elif not waits and episode in self._left:
            limit.reschedule(now + self._left.pop(episode))

    def _complete(self) -> bool:
        return bool(self._pending) and len(self._pending) == len(self._live) and not self._outside.total()

    def _wake(self) -> None:
        if self._flusher is None and self._complete():
            self._flusher = asyncio.get_running_loop().create_task(self._flush())

    async def _flush(self) -> None:
        """Waits until no further call arrives (an episode may hold several at once), then answers all of them."""
        seen = -1
        while seen != self._arrivals:
            seen = self._arrivals
            for _ in range(3):  # let the siblings of parallel calls speak: no clock, only turns of the loop
                await asyncio.sleep(0)
        self._flusher = None
        if not self._complete():
            return
        wave = sorted((call for calls in self._pending.values() for call in calls), key=lambda call: call[0].key)
        episodes, self._pending = list(self._pending), {}
        for episode in episodes:
            self._keep_time(episode)
        try:
            answers = await self.engine.generate([request for request, _ in wave])
            if len(answers) != len(wave):
                raise TroupeError(
                    f"the engine gave {len(answers)} answers to {len(wave)} requests; it must give one to each"
                )
        except Exception as error:
            self.failure = error
            for _, future in wave:
                if not future.done():
                    future.set_exception(EpisodeError(f"the engine failed: {error}"))
            return
        for (_, future), answer in zip(wave, answers, strict=True):
            if not future.done():
                future.set_result(answer)


# ---------------------------------------------------------------------------------------------- agents


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """Which policy an agent speaks with, and how."""

    policy: str
    sampling: Sampling = Sampling()
    max_prompt_tokens: int = 4096


@dataclass(frozen=True, slots=True)
class Reply:
    """What an agent said. `message` goes back into the conversation; `step` may be paid."""

    message: dict[str, Any]
    text: str
    step: StepHandle
    finish_reason: FinishReason

    @property
    def tool_calls(self) -> Sequence[Mapping[str, Any]]:
        return self.message.get("tool_calls") or ()

    @property
    def truncated(self) -> bool:
        return self.finish_reason is FinishReason.LENGTH


@dataclass(slots=True)
class _Turn:
    """A recorded call, to be continued: the conversation before it, its message, its full ids and request id."""

    before: tuple[str, ...]
    said: str
    step: str
    messages: list[Message]
    ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    request: str
    tools: tuple[Tool, ...]


class Agent:
    """One agent of one running episode. Each call is recorded in the current trajectory."""

    def __init__(self, name: str, spec: AgentSpec, team: Team) -> None:
        self.name = name
        self._spec = spec
        self._team = team
        self._calls = 0
        self._turns: list[_Turn] = []
        self._current: TrajectoryHandle | None = None

    def new_trajectory(self) -> TrajectoryHandle:
        """Begins another attempt: what the agent does from here is paid apart from what it did before."""
        self._current = TrajectoryHandle(self.name)
        self._team.episode.trajectories.append(self._current)
        return self._current

    async def chat(
        self,
        messages: Sequence[Message],
        tools: Sequence[Tool] = (),
        *,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
    ) -> Reply:
        """Answers `messages` (OpenAI's shape). Raises PromptTooLong where the prompt outgrew its limit."""
        trajectory = self._current or self.new_trajectory()
        wave, episode = self._team.wave, self._team.episode
        spec = self._spec
        layout = wave.engine.chat_format(spec.policy)
        keys = tuple(_fingerprint(m) for m in messages)
        parent, prompt, suffix, fork = self._prompt(layout, messages, keys, tools)
        if len(prompt) > spec.max_prompt_tokens:
            trajectory.stop_reason = StopReason.PROMPT_TOO_LONG
            raise PromptTooLong(
                f"agent {self.name!r}: the prompt has {len(prompt)} tokens, more than the {spec.max_prompt_tokens} of "
                "data.max_prompt_length"
            )
        number, self._calls = self._calls, self._calls + 1
        sampling = Sampling(
            max_tokens=min(max_tokens or spec.sampling.max_tokens, spec.sampling.max_tokens),
            temperature=spec.sampling.temperature,
            stop=tuple(stop) or spec.sampling.stop,
        )
        request = GenerationRequest(
            policy=spec.policy,
            prompt_ids=prompt,
            sampling=sampling,
            key=(*self._team.key, self.name, number),
            id=f"{episode.id}/{self.name}/{number}",
            parent=parent.request if parent else None,
            messages=tuple(messages),
            tools=tuple(tools),
        )
        answer = await wave.generate(episode.id, request)
        text = layout.decode(answer.response_ids, sampling.stop)
        said = layout.parse(text, tools)
        step = StepHandle(
            id=f"{self.name}/{number}",
            agent=self.name,
            parent=parent.step if parent else None,
            observation=list(messages if parent is None else messages[len(parent.before) + 1 :]),
            action=said,
            tokens=Tokens(
                prompt_ids=suffix,
                response_ids=answer.response_ids,
                logprobs=answer.logprobs,
                mask=(1,) * len(answer.response_ids),
                policy=spec.policy,
                policy_version=answer.policy_version,
                sampling=sampling,
                finish_reason=answer.finish_reason,
            ),
            info={"fork": True} if fork else {},
        )
        trajectory.steps.append(step)
        trajectory.stop_reason = (
            StopReason.RESPONSE_TOO_LONG if answer.finish_reason is FinishReason.LENGTH else StopReason.DONE
        )
        self._turns.append(
            _Turn(
                before=keys,
                said=_fingerprint(said),
                step=step.id,
                messages=list(messages),
                ids=prompt + answer.response_ids,
                response_ids=answer.response_ids,
                request=request.id,
                tools=request.tools,
            )
        )
        return Reply(said, text, step, answer.finish_reason)

    async def act(
        self, messages: Sequence[Message], tools: Sequence[Tool], *, max_turns: int = 4, **options: Any
    ) -> tuple[Reply, list[Message]]:
        """Chats until the agent calls no more tools, or `max_turns` calls were made.

        Tools run as they are called (`Team.answer`). Returns the last reply and the
        whole conversation, that reply included.
        """
        conversation = list(messages)
        for turn in range(max_turns):
            reply = await self.chat(conversation, tools, **options)
            conversation.append(reply.message)
            if not reply.tool_calls or reply.truncated:
                return reply, conversation
            if turn == max_turns - 1:
                break
            for call in reply.tool_calls:
                conversation.append(await self._team.answer(call, tools))
        assert self._current is not None
        self._current.stop_reason = StopReason.MAX_TURNS
        return reply, conversation

    def _prompt(
        self, layout: Any, messages: Sequence[Message], keys: tuple[str, ...], tools: Sequence[Tool]
    ) -> tuple[_Turn | None, tuple[int, ...], tuple[int, ...], bool]:
        """The turn that this call continues, the full prompt, its new suffix, and whether history was rewritten.

        Rewritten: by the template, or by a workflow that changed or dropped what was said, or showed other tools.
        """
        fork = False
        for turn in reversed(self._turns):
            n = len(turn.before)
            if len(keys) <= n or keys[:n] != turn.before:
                continue
            fork = True  # unless this or an earlier turn is continued
            if keys[n] == turn.said:
                suffix = layout.extend(turn.messages, turn.response_ids, messages[n:], tools)
                if suffix is not None and _shows_alike(layout, turn, tuple(tools)):
                    return turn, turn.ids + suffix, suffix, False
                break
        prompt = layout.encode(messages, tools)
        return None, prompt, prompt, fork


class Team:
    """The agents of one running episode, by name: `agents.verifier.chat(...)`."""

    def __init__(
        self, specs: Mapping[str, AgentSpec], wave: Wave, episode: EpisodeHandle, key: tuple[Any, ...]
    ) -> None:
        self.wave = wave
        self.episode = episode
        self.key = key
        self._agents = {name: Agent(name, spec, self) for name, spec in specs.items()}

    def __getattr__(self, name: str) -> Agent:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Agent:
        try:
            return self._agents[name]
        except KeyError:
            raise CreditError(f"this team has no agent {name!r}{did_you_mean(name, self._agents)}") from None

    async def answer(self, call: Mapping[str, Any], tools: Sequence[Tool]) -> Message:
        """What a tool call comes to, as a message: the result of the tool (a coroutine is awaited through `external`),
        or, where it cannot be called so, one that begins with `error:`. What a tool raises is not caught."""
        name, arguments = call["function"]["name"], call["function"]["arguments"]
        tool = next((tool for tool in tools if tool.name == name), None)
        if tool is None:
            result = f"error: there is no tool {name!r}"
        else:
            try:
                given = json.loads(arguments)
                if not isinstance(given, dict):
                    raise ValueError("arguments must be a JSON object")
                _signature(type(tool).__call__).bind(tool, **given)
            except (ValueError, TypeError, RecursionError) as error:
                result = f"error: {error}"
            else:
                value: Any = tool(**given)
                result = await self.external(value) if inspect.isawaitable(value) else value
        return message("tool", result, tool_call_id=call["id"], name=name)

    async def external(self, work: Awaitable[T]) -> T:
        """Awaits work outside of the event loop (a thread, a process, a server) so that the wave waits for it too."""
        return await self.wave.external(self.episode.id, work)

    async def in_thread(self, function: Callable[..., T], *arguments: Any) -> T:
        """Runs a blocking function in a thread; one that outlasts the episode's time limit is left to itself."""
        return await self.external(in_thread(function, *arguments))


def _shows_alike(layout: Any, turn: _Turn, tools: tuple[Tool, ...]) -> bool:
    """Whether the turn's prompt would read the same with these tools."""
    return tools == turn.tools or layout.encode(turn.messages, tools) == layout.encode(turn.messages, turn.tools)


@lru_cache(maxsize=256)
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


def _fingerprint(said: Message) -> str:
    """What of a message makes it the same message."""
    return f"{said['role']}\0{said.get('name', '')}\0{said.get('content')}\0{_calls(said)}"


def _calls(said: Message) -> str:
    calls = said.get("tool_calls")
    return "" if not calls else json.dumps([[c["function"]["name"], c["function"]["arguments"]] for c in calls])
