"""The recorder: keyed noise, waves, lineage, tools."""

from __future__ import annotations

import asyncio
import copy
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import numpy as np
import pytest

from troupe.agents import AgentSpec, PromptTooLong, Team, Wave, keyed_uniforms
from troupe.engines.scripted import ScriptedEngine
from troupe.episode import FinishReason, Outcome, Sampling, StopReason, message
from troupe.errors import CreditError, EpisodeError
from troupe.handles import EpisodeHandle
from troupe.models.chat import TemplateFormat

ASK = [message("system", "brief"), message("user", "hi")]


def play(engine: Any, *parts: Callable[[Team], Awaitable[Any]], limit: int = 4096) -> list[Any]:
    """Runs one episode per part, side by side on one wave; an exception is a part's result."""
    wave = Wave(engine)
    spec = AgentSpec("team", Sampling(max_tokens=8), limit)

    async def one(number: int, part: Callable[[Team], Awaitable[Any]]) -> Any:
        handle = EpisodeHandle(f"e{number}", "t")
        wave.enter(handle.id)
        try:
            return await part(Team({"a": spec, "b": spec}, wave, handle, (0, number)))
        finally:
            wave.leave(handle.id)

    async def everyone() -> list[Any]:
        jobs = (one(i, part) for i, part in enumerate(parts))
        return await asyncio.wait_for(asyncio.gather(*jobs, return_exceptions=True), 20)

    return asyncio.run(everyone())


def only(results: list[Any]) -> Any:
    [result] = results
    if isinstance(result, BaseException):
        raise result
    return result


# ---------------------------------------------------------------------------------------------- noise


def test_noise_is_a_function_of_key_and_position() -> None:
    long = keyed_uniforms((0, 3, "t", 1, "a", 0), 500)
    assert np.array_equal(keyed_uniforms((0, 3, "t", 1, "a", 0), 7), long[:7])
    assert ((long >= 0) & (long < 1)).all()
    assert abs(long.mean() - 0.5) < 0.05 and abs(long.var() - 1 / 12) < 0.01


def test_every_part_of_the_key_counts() -> None:
    keys = [
        (0, 3, "t", 1, "a", 0),
        (1, 3, "t", 1, "a", 0),
        (0, 3, "t", 1, "b", 0),
        (0, 3, "t", 1, "a", 1),
        (0, 3, "t", "1", "a", 0),
    ]
    assert len({float(keyed_uniforms(key, 1)[0]) for key in keys}) == len(keys)


# ---------------------------------------------------------------------------------------------- the wave


def test_the_wave_waits_for_every_live_episode(two_faced: Any) -> None:
    engine = two_faced()

    async def fast(team: Team) -> None:
        await team.a.chat(ASK)

    async def slow(team: Team) -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        await asyncio.sleep(0.02)
        await team.a.chat(ASK)

    play(engine, fast, slow, fast)
    assert [len(wave) for wave in engine.waves] == [3]


def test_an_episode_that_ends_or_fails_holds_nobody(two_faced: Any) -> None:
    engine = two_faced()

    async def long(team: Team) -> str:
        for _ in range(3):
            reply = await team.a.chat(ASK)
        return str(reply.text)

    async def short(team: Team) -> None:
        await team.a.chat(ASK)

    async def broken(team: Team) -> None:
        await team.a.chat(ASK)
        raise RuntimeError("lost")

    results = play(engine, long, short, broken)
    assert results[0] == "ok" and isinstance(results[2], RuntimeError)
    assert [len(wave) for wave in engine.waves] == [3, 1, 1]


def test_parallel_chats_of_one_episode_share_a_batch(two_faced: Any) -> None:
    engine = two_faced(lambda request: request.key[-2])

    async def both(team: Team) -> list[str]:
        replies = await asyncio.gather(team.b.chat(ASK), team.a.chat(ASK), team.a.chat(ASK))
        return [reply.text for reply in replies]

    assert play(engine, both, both) == [["b", "a", "a"]] * 2
    assert [len(wave) for wave in engine.waves] == [6]


def test_external_work_holds_the_wave(two_faced: Any) -> None:
    def parts(wait: Callable[[Team], Awaitable[Any]]) -> Callable[[Team], Awaitable[Any]]:
        async def late(team: Team) -> None:
            await wait(team)
            await team.b.chat(ASK)

        async def part(team: Team) -> None:
            await asyncio.gather(team.a.chat(ASK), late(team))

        return part

    held, unheld = two_faced(), two_faced()
    play(held, parts(lambda team: team.in_thread(time.sleep, 0.03)))
    assert [len(wave) for wave in held.waves] == [2]
    play(unheld, parts(lambda team: asyncio.sleep(0.03)))
    assert [len(wave) for wave in unheld.waves] == [1, 1]


def test_requests_are_sorted_by_key_whatever_arrives_first(two_faced: Any) -> None:
    def run(order: list[int]) -> tuple[list[Any], Mapping[str, Any]]:
        engine = two_faced(lambda request: "abc")

        async def part(team: Team, pause: int) -> None:
            for _ in range(pause):
                await asyncio.sleep(0)
            await asyncio.gather(team.a.chat(ASK), team.b.chat(ASK))

        play(engine, *(lambda team, pause=pause: part(team, pause) for pause in order))
        return [[request.key for request in wave] for wave in engine.waves], engine.answers

    first, same = run([0, 1, 2, 3]), run([3, 0, 2, 1])
    assert first == same
    assert first[0] == [sorted(first[0][0])]


def test_an_engine_that_fails_is_remembered(two_faced: Any) -> None:
    engine = two_faced(lambda request: 1 / 0)

    async def part(team: Team) -> None:
        await team.a.chat(ASK)

    failures = play(engine, part, part)
    assert all(isinstance(failure, EpisodeError) for failure in failures)


def test_an_engine_that_forgets_an_answer_fails(two_faced: Any) -> None:
    """Too few answers must not leave anybody waiting for ever."""
    engine = two_faced()
    whole = engine.generate

    async def short(requests: Any) -> Any:
        return (await whole(requests))[:-1]

    engine.generate = short

    async def part(team: Team) -> None:
        await team.a.chat(ASK)

    assert all(isinstance(failure, EpisodeError) for failure in play(engine, part, part))


# ---------------------------------------------------------------------------------------------- conversations


def test_a_continued_conversation_sends_only_what_is_new(two_faced: Any) -> None:
    engine = two_faced()

    async def talk(team: Team) -> Any:
        first = await team.a.chat(ASK)
        await team.a.chat([*ASK, first.message, message("user", "and?")])
        return team.episode.freeze()

    episode = only(play(engine, talk))
    first, second = episode.trajectories[0].steps
    layout = engine.layout
    assert first.tokens.prompt_ids == layout.encode(ASK) and first.parent is None
    assert (second.parent, second.tokens.prompt_ids) == ("a/0", layout.encode([message("user", "and?")]))
    assert second.observation == [message("user", "and?")] and not second.info
    request = engine.answers["e0/a/1"][0]
    assert request.prompt_ids == (*first.tokens.prompt_ids, *first.tokens.response_ids, *second.tokens.prompt_ids)
    assert request.parent == "e0/a/0"
    assert first.tokens.policy_version == 3 and second.tokens.mask == (1,) * len(second.tokens.response_ids)


def test_two_continuations_of_one_reply_are_siblings(two_faced: Any) -> None:
    async def talk(team: Team) -> Any:
        first = await team.a.chat(ASK)
        said = [*ASK, first.message]
        await asyncio.gather(*(team.a.chat([*said, message("user", word)]) for word in ("left", "right")))
        return team.episode.freeze()

    episode = only(play(two_faced(), talk))
    assert [(step.parent, bool(step.info)) for step in episode.steps()] == [
        (None, False),
        ("a/0", False),
        ("a/0", False),
    ]


def test_asking_again_continues_the_answer_that_was_kept(two_faced: Any) -> None:
    """Two samples of one prompt; the conversation goes on from the first."""
    engine = two_faced(lambda request: f"answer {request.key[-1]}")

    async def talk(team: Team) -> Any:
        kept = await team.a.chat(ASK)
        await team.a.chat(ASK)
        await team.a.chat([*ASK, kept.message, message("user", "and?")])
        return team.episode.freeze()

    assert [(step.parent, bool(step.info)) for step in only(play(engine, talk)).steps()][2] == ("a/0", False)


@pytest.mark.parametrize("edit", ["changed", "dropped"])
def test_edited_history_forks_and_is_counted(two_faced: Any, edit: str) -> None:
    engine = two_faced()

    async def talk(team: Team) -> Any:
        await team.a.chat(ASK)
        edited = [message("assistant", "no")] if edit == "changed" else []
        await team.a.chat([*ASK, *edited, message("user", "and?")])
        return team.episode.freeze()

    second = only(play(engine, talk)).trajectories[0].steps[1]
    assert second.parent is None and second.info == {"fork": True}
    assert engine.answers["e0/a/1"][0].prompt_ids == second.tokens.prompt_ids


def test_a_template_that_rewrites_history_forks(two_faced: Any) -> None:
    async def talk(team: Team) -> Any:
        first = await team.a.chat(ASK)
        await team.a.chat([*ASK, first.message, message("user", "and?")])
        await team.b.chat(ASK)
        return team.episode.freeze()

    episode = only(play(two_faced(refuses=True), talk))
    assert [step.info for step in episode.steps()] == [{}, {"fork": True}, {}]
    assert [step.parent for step in episode.steps()] == [None] * 3


def test_agents_do_not_continue_one_another(two_faced: Any) -> None:
    async def talk(team: Team) -> Any:
        first = await team.a.chat(ASK)
        await team.b.chat([*ASK, first.message, message("user", "and?")])
        return team.episode.freeze()

    assert only(play(two_faced(), talk)).of("b")[0].steps[0].parent is None


def test_other_tools_are_another_prompt(tiny: Any) -> None:
    """A template that shows tools to the model must not go on from a prompt that showed others."""
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.chat_template = "{% if tools %}{{ tools[0].function.name }}{% endif %}" + tiny.tokenizer.chat_template
    layout = TemplateFormat(tokenizer)

    async def talk(team: Team) -> Any:
        first = await team.a.chat(ASK)
        await team.a.chat([*ASK, first.message, message("user", "use it")], [Adder()])
        return team.episode.freeze()

    second = only(play(ScriptedEngine(layout, lambda request: "ok"), talk)).trajectories[0].steps[1]
    assert layout.decode(second.tokens.prompt_ids).startswith("adder") and second.info == {"fork": True}
    blind = only(play(ScriptedEngine(tiny.format, lambda request: "ok"), talk)).trajectories[0].steps[1]
    assert blind.parent == "a/0"  # a template that shows no tools may go on


def test_each_trajectory_is_paid_apart(two_faced: Any) -> None:
    async def talk(team: Team) -> Any:
        first = team.a.new_trajectory()
        await team.a.chat(ASK)
        second = team.a.new_trajectory()
        await team.a.chat(ASK)
        team.a.new_trajectory()  # nothing happens in it
        first.reward, second.reward = 1.0, 0.0
        second.steps[0].reward = 0.25
        return team.episode.freeze()

    trajectories = only(play(two_faced(), talk)).trajectories
    assert [(t.reward, t.steps[0].reward, t.steps[-1].done) for t in trajectories] == [(1, None, True), (0, 0.25, True)]
    assert [t.stop_reason for t in trajectories] == [StopReason.DONE] * 2


def test_a_prompt_that_outgrew_its_limit_is_refused(two_faced: Any) -> None:
    engine = two_faced()

    async def talk(team: Team) -> Any:
        try:
            await team.a.chat([message("user", "x" * 40)])
        except PromptTooLong as error:
            return str(error), team.episode.trajectories[0].stop_reason

    said, reason = only(play(engine, talk, limit=30))
    assert "'a': the prompt has 43 tokens" in said and "30" in said and "data.max_prompt_length" in said
    assert reason is StopReason.PROMPT_TOO_LONG and not engine.waves


def test_an_unknown_agent_is_named(two_faced: Any) -> None:
    async def talk(team: Team) -> None:
        await team.verifyer.chat(ASK)

    with pytest.raises(CreditError, match="no agent 'verifyer'"):
        only(play(two_faced(), talk))


def test_limits_of_a_call_never_exceed_the_agents(two_faced: Any) -> None:
    engine = two_faced()

    async def talk(team: Team) -> None:
        await team.a.chat(ASK, max_tokens=3, stop=["!"])
        await team.a.chat(ASK, max_tokens=99)

    play(engine, talk)
    sampled = [request.sampling for wave in engine.waves for request in wave]
    assert [(s.max_tokens, s.stop) for s in sampled] == [(3, ("!",)), (8, ())]


def test_a_reply_that_was_cut_off_says_so(two_faced: Any) -> None:
    async def talk(team: Team) -> Any:
        reply = await team.a.chat(ASK)
        return reply.truncated, reply.finish_reason, team.episode.trajectories[0].stop_reason

    expected = (True, FinishReason.LENGTH, StopReason.RESPONSE_TOO_LONG)
    assert only(play(two_faced(lambda request: ("abc", False)), talk)) == expected


def test_a_running_episode_may_be_paid_as_document_004_does(two_faced: Any) -> None:
    async def talk(team: Team) -> Any:
        await team.a.chat(ASK)
        trajectory = team.episode.trajectories[0]
        trajectory.steps[0].reward = 0.5
        team.episode.outcome = Outcome.SUCCESS
        return team.episode.freeze()

    episode = only(play(two_faced(), talk))
    assert episode.trajectories[0].steps[0].reward == 0.5 and episode.outcome is Outcome.SUCCESS


# ---------------------------------------------------------------------------------------------- tools


class Adder:
    """Adds two numbers."""

    name, description = "adder", "adds"
    parameters: Mapping[str, Any] = {"type": "object", "properties": {"a": {}, "b": {}}}

    def __call__(self, a: int, b: int) -> str:
        return str(a + b)


class Slow(Adder):
    """Adds two numbers elsewhere."""

    name = "slow"

    def __call__(self, a: int, b: int) -> Any:
        return self._later(a, b)

    async def _later(self, a: int, b: int) -> str:
        await asyncio.sleep(0.02)
        return str(a + b)


def calls(*said: str, tiny: Any) -> ScriptedEngine:
    """An engine that says one line per call of an episode."""
    return ScriptedEngine(tiny.format, lambda request: said[request.key[-1]])


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        ('{"name": "adder", "arguments": {"a": 2, "b": 3}}', "5"),
        ('{"name": "slow", "arguments": {"a": 2, "b": 3}}', "5"),
        ('{"name": "oven", "arguments": {}}', "error: there is no tool 'oven'"),
        ('{"name": "adder", "arguments": {"a": 2}}', "error: missing a required argument: 'b'"),
        ('{"name": "adder", "arguments": {"a": 2, "c": 3}}', "error: missing a required argument: 'b'"),
        ('{"name": "adder", "arguments": [2, 3]}', "error: arguments must be a JSON object"),
        ('{"name": "adder", "arguments": "nonsense"}', "error: arguments must be a JSON object"),
        ("{not json}", "error: there is no tool ''"),
    ],
)
def test_a_call_is_answered_whatever_it_says(tiny: Any, said: str, answer: str) -> None:
    engine = calls(f"<tool_call>{said}</tool_call>", "done", tiny=tiny)

    async def talk(team: Team) -> Any:
        return await team.a.act(ASK, [Adder(), Slow()])

    reply, conversation = only(play(engine, talk))
    assert reply.text == "done"
    assert [m["role"] for m in conversation] == ["system", "user", "assistant", "tool", "assistant"]
    assert conversation[3]["content"] == answer and conversation[3]["tool_call_id"] == "call_0"


def test_several_calls_of_one_turn_are_all_answered(tiny: Any) -> None:
    one = '<tool_call>{"name": "adder", "arguments": {"a": 1, "b": 1}}</tool_call>'
    two = '<tool_call>{"name": "adder", "arguments": {"a": 2, "b": 2}}</tool_call>'

    async def talk(team: Team) -> Any:
        return await team.a.act(ASK, [Adder()])

    _, conversation = only(play(calls(one + two, "done", tiny=tiny), talk))
    assert [m["content"] for m in conversation if m["role"] == "tool"] == ["2", "4"]


def test_turns_are_bounded(tiny: Any) -> None:
    call = '<tool_call>{"name": "adder", "arguments": {"a": 1, "b": 1}}</tool_call>'

    async def talk(team: Team) -> Any:
        reply, conversation = await team.a.act(ASK, [Adder()], max_turns=3)
        return reply, conversation, team.episode.trajectories[0]

    reply, conversation, trajectory = only(play(calls(*[call] * 4, tiny=tiny), talk))
    assert reply.tool_calls and conversation[-1]["role"] == "assistant"
    assert len(trajectory.steps) == 3 and trajectory.stop_reason is StopReason.MAX_TURNS


def test_a_call_that_was_cut_off_is_not_made(two_faced: Any) -> None:
    engine = two_faced(lambda request: ("<call>x</call>", False))

    async def talk(team: Team) -> Any:
        reply, conversation = await team.a.act(ASK, [Adder()])
        return reply.truncated, len(conversation)

    assert only(play(engine, talk)) == (True, 3)


def test_shuffled_arrivals_change_nothing(two_faced: Any) -> None:
    """Twenty episodes of different lengths, started in any order: every call gets the tokens of its key."""

    def run(seed: int) -> dict[str, Any]:
        engine = two_faced(lambda request: "abcdefgh"[: 1 + request.key[1] % 8])
        rng = random.Random(seed)

        async def part(team: Team, pause: int) -> None:
            for _ in range(1 + team.key[1] % 3):
                for _ in range(pause):
                    await asyncio.sleep(0)
                await team.a.chat(ASK)

        pauses = [rng.randrange(5) for _ in range(20)]
        play(engine, *(lambda team, pause=pause: part(team, pause) for pause in pauses))
        return {name: answer for name, (_, answer) in engine.answers.items()}

    assert run(0) == run(1)
