"""Builders that several shelves share: a tiny language model, episodes and batches of given tokens, an engine whose
text does not determine its tokens."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest
import torch

from tests.runs import finished, launch, reference  # noqa: F401  (fixtures)
from troupe.agents import keyed_uniforms
from troupe.batch import Batch, pack
from troupe.episode import Episode, FinishReason, Message, Sampling, Step, Tokens, Trajectory, message
from troupe.models.config import TinyConfig
from troupe.models.language import LanguageModel, build_tiny
from troupe.protocols import Generation, GenerationRequest, Tool

torch.set_num_threads(1)

SIZES = {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "intermediate_size": 48, "vocab_size": 320}
CORPUS = ["Solve 3x + 5 = 20", "Ann has 12 books and buys 5 more. How many books?", "Plan: ", "(20-5)/3", "Answer: 5"]


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., LanguageModel]:
    """`tiny_model(seed=0, **sizes)` builds a random embedded model of some 25,000 parameters; a new one each time."""

    def build(seed: int = 0, **sizes: int) -> LanguageModel:
        return build_tiny(CORPUS * 8, TinyConfig(**{**SIZES, "max_positions": 512, **sizes}), seed)

    return build


@pytest.fixture(scope="session")
def tiny(tiny_model: Callable[..., LanguageModel]) -> LanguageModel:
    """One model for all tests that change no weights."""
    return tiny_model()


# ---------------------------------------------------------------------------------------------- episodes and batches


@pytest.fixture(scope="session")
def make_step() -> Callable[..., Step]:
    """`make_step("solver/0", [5, 6], [7, 1])`: the agent is what stands before the slash; log-probs default to -1."""
    return _step


def _step(
    id: str,
    prompt: Sequence[int],
    response: Sequence[int],
    *,
    parent: str | None = None,
    reward: float | None = None,
    policy: str = "team",
    logprobs: Sequence[float] | None = None,
    temperature: float = 1.0,
    version: int = 0,
    agent: str | None = None,
    **more: Any,
) -> Step:
    tokens = Tokens(
        prompt_ids=tuple(prompt),
        response_ids=tuple(response),
        logprobs=tuple(logprobs) if logprobs is not None else (-1.0,) * len(response),
        mask=(1,) * len(response),
        policy=policy,
        policy_version=version,
        sampling=Sampling(temperature=temperature),
    )
    return Step(id, agent or id.split("/")[0], parent, reward=reward, tokens=tokens, **more)


@pytest.fixture(scope="session")
def make_episode() -> Callable[..., Episode]:
    """`make_episode("t", (steps, reward), ...)`: one trajectory per pair, its agent is its steps'."""

    def build(task: str, *pairs: tuple[Iterable[Step], float | None], id: str = "e", **fields: Any) -> Episode:
        trajectories = []
        for steps, reward in pairs:
            kept = tuple(steps)
            trajectories.append(Trajectory(kept[0].agent, kept, reward))
        return Episode(id=id, task_id=task, group=task, trajectories=tuple(trajectories), **fields)

    return build


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., Batch]:
    """`make_batch([(prompt, response), ...], policies=..., temperatures=...)`: one row each, advantages drawn by
    seed."""

    def build(
        rows: Sequence[tuple[Sequence[int], Sequence[int]]],
        policies: Sequence[str] = ("team",),
        temperatures: Sequence[float] = (1.0,),
        seed: int = 0,
    ) -> Batch:
        episodes = []
        for i, (prompt, response) in enumerate(rows):
            step = _step(
                "solver/0",
                prompt,
                response,
                policy=policies[i % len(policies)],
                temperature=temperatures[i % len(temperatures)],
            )
            episodes.append(Episode(f"e{i}", "t", (Trajectory("solver", (step,), 0.0),)))
        batch = pack(episodes)
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(batch["mask"].shape, generator=generator) * batch["mask"]
        return batch.with_columns(advantages=noise)

    return build


@pytest.fixture(scope="session")
def random_rows() -> Callable[..., list[tuple[list[int], list[int]]]]:
    """`random_rows(seed, n)`: prompts that share prefixes of random length, as the attempts of a group do."""

    def build(seed: int, n: int = 12, longest: int = 24, vocabulary: int = 300) -> list[tuple[list[int], list[int]]]:
        rng = random.Random(seed)
        stems = [[rng.randrange(vocabulary) for _ in range(longest)] for _ in range(3)]
        rows = []
        for _ in range(n):
            stem = rng.choice(stems)
            prompt = stem[: rng.randint(1, longest)] + [rng.randrange(vocabulary) for _ in range(rng.randint(0, 3))]
            rows.append((prompt, [rng.randrange(vocabulary) for _ in range(rng.randint(1, 9))]))
        return rows

    return build


# ---------------------------------------------------------------------------------------------- tokens that drift

_ROLES = {"system": 2, "user": 3, "assistant": 4, "tool": 5}
_CALL = re.compile(r"<call>(.*?)</call>", re.DOTALL)


class TwoFaced:
    """A chat format in which every character has two ids: text does not say which was sampled, and encoding it again
    gives the even ones. Where `refuses` is set the template rewrites history."""

    eos_id = 1

    def __init__(self, refuses: bool = False) -> None:
        self.refuses = refuses

    def encode(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        return (*self._turns(messages), _ROLES["assistant"])

    def extend(
        self, before: Sequence[Message], response_ids: Sequence[int], after: Sequence[Message], tools: Sequence[Tool]
    ) -> tuple[int, ...] | None:
        if self.refuses:
            return None
        rest = self.encode(after[1:])
        return rest if response_ids and response_ids[-1] == self.eos_id else (self.eos_id, *rest)

    def decode(self, response_ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        return "".join(chr((i - 8) // 2) for i in response_ids if i >= 8)

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> dict[str, Any]:
        said = message("assistant", text)
        calls = [{"name": "echo", "arguments": json.dumps({"text": found})} for found in _CALL.findall(text)]
        if calls:
            said["tool_calls"] = [{"id": f"c{i}", "type": "function", "function": c} for i, c in enumerate(calls)]
        return said

    @staticmethod
    def _turns(messages: Sequence[Message]) -> tuple[int, ...]:
        ids: list[int] = []
        for said in messages:
            ids += [_ROLES[said["role"]], *(8 + 2 * ord(c) for c in str(said.get("content") or "")), 1]
        return tuple(ids)


class TwoFacedEngine:
    """Says what `say(request)` returns, its characters' faces drawn by the request's key, and remembers everything.

    `say` returns text, or (text, whether the turn ends by itself).
    """

    exact_tokens = True

    def __init__(self, say: Callable[[GenerationRequest], Any] = lambda request: "ok", refuses: bool = False) -> None:
        self.layout = TwoFaced(refuses)
        self.say = say
        self.waves: list[list[GenerationRequest]] = []
        self.answers: dict[str, tuple[GenerationRequest, Generation]] = {}

    def chat_format(self, policy: str) -> TwoFaced:
        return self.layout

    async def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        self.waves.append(list(requests))
        answers = [self._answer(request) for request in requests]
        self.answers |= {r.id: (r, a) for r, a in zip(requests, answers, strict=True)}
        return answers

    def _answer(self, request: GenerationRequest) -> Generation:
        said = self.say(request)
        text, ends = said if isinstance(said, tuple) else (said, True)
        noise = keyed_uniforms(request.key, len(text) + 1)
        ids = [8 + 2 * ord(c) + int(u < 0.5) for c, u in zip(text, noise, strict=False)] + [1] * ends
        reason = FinishReason.STOP if ends else FinishReason.LENGTH
        return Generation(tuple(ids), tuple(-float(u) for u in noise[: len(ids)]), reason, policy_version=3)


@pytest.fixture(scope="session")
def two_faced() -> type[TwoFacedEngine]:
    """An engine whose decoded text, tokenised again, gives other ids than were sampled."""
    return TwoFacedEngine


@pytest.fixture
def letters_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """`workflow.name=letters` for one test."""
    from tests.letters import register
    from troupe.workflows import TEACHERS, WORKFLOWS

    workflows: dict[str, Any] = {}
    teachers: dict[str, Any] = {}
    register(workflows, teachers)
    monkeypatch.setitem(WORKFLOWS, "letters", workflows["letters"])
    monkeypatch.setitem(TEACHERS, "letters", teachers["letters"])
