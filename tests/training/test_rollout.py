"""Running episodes: what fails is data, what breaks the program stops it, and arrival order changes nothing."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from troupe.agents import AgentSpec, Team
from troupe.engines.local import LocalEngine
from troupe.episode import Episode, Outcome, Problem, Sampling, StopReason, Task, message
from troupe.errors import ConfigError, CreditError
from troupe.handles import EpisodeHandle
from troupe.models.language import Policy
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync

ASK = [message("user", "hi")]
Run = Callable[[Problem, Team], Awaitable[Any]]


class Scene:
    """A workflow made of two functions."""

    agent_names = ("a", "b")
    credit: dict[str, str] = {}  # noqa: RUF012

    def __init__(self, run: Run, reward: Callable[[Task, EpisodeHandle], None] | None = None) -> None:
        self._run = run
        self._reward = reward or self._solved

    @staticmethod
    def _solved(task: Task, episode: EpisodeHandle) -> None:
        episode.outcome = Outcome.SUCCESS
        for trajectory in episode.trajectories:
            trajectory.reward = 1.0

    async def run(self, problem: Problem, agents: Team) -> Any:
        return await self._run(problem, agents)

    def reward(self, task: Task, episode: EpisodeHandle) -> None:
        self._reward(task, episode)


def jobs(n: int, rollouts: int = 1) -> list[Job]:
    return [Job(Task(f"t{i}", "k", f"problem {i}", answer=f"SECRET {i}"), r) for i in range(n) for r in range(rollouts)]


def run(engine: Any, make: Callable[[], Any], which: list[Job], limit: int = 4096, **settings: Any) -> list[Episode]:
    specs = {name: AgentSpec("team", Sampling(max_tokens=8), limit) for name in ("a", "b")}
    return run_episodes_sync(
        which, make, engine, specs, RolloutSettings(**{"key": (0, 1), "purpose": "test", **settings})
    )


async def chat(problem: Problem, team: Team) -> None:
    await team.a.chat(ASK)


# ---------------------------------------------------------------------------------------------- what is recorded


def test_episodes_come_back_in_the_order_of_the_jobs(two_faced: Any) -> None:
    async def talk(problem: Problem, team: Team) -> dict[str, float]:
        for _ in range(4 - int(problem.id[1])):
            await team.a.chat(ASK)
        return {"calls": 4.0 - int(problem.id[1])}

    episodes = run(two_faced(), lambda: Scene(talk), jobs(4))
    assert [e.task_id for e in episodes] == ["t0", "t1", "t2", "t3"]
    assert [len(e.trajectories[0].steps) for e in episodes] == [4, 3, 2, 1]
    assert [e.metrics for e in episodes] == [{"calls": 4.0 - i} for i in range(4)]
    first = episodes[0]
    assert (first.id, first.group, first.outcome) == ("test/t0/0", "test/t0", Outcome.SUCCESS)
    assert Episode.from_dict(first.to_dict()) == first


def test_attempts_at_one_task_share_a_group_and_differ_in_their_noise(two_faced: Any) -> None:
    engine = two_faced(lambda request: "abcdefgh")
    episodes = run(engine, lambda: Scene(chat), jobs(1, rollouts=4))
    assert {e.group for e in episodes} == {"test/t0"} and len({e.id for e in episodes}) == 4
    said = {e.trajectories[0].steps[0].tokens.response_ids for e in episodes if e.trajectories[0].steps[0].tokens}
    assert len(said) == 4
    assert [request.key for wave in engine.waves for request in wave] == [(0, 1, "t0", r, "a", 0) for r in range(4)]


def test_the_workflow_never_sees_the_answer(two_faced: Any) -> None:
    seen = []

    async def look(problem: Problem, team: Team) -> None:
        seen.append(f"{problem!r} {team.episode!r} {team.key!r}")
        await team.a.chat(ASK)

    paid = []
    run(two_faced(), lambda: Scene(look, lambda task, episode: paid.append(task.answer)), jobs(2))
    assert "SECRET" not in "".join(seen) and paid == ["SECRET 0", "SECRET 1"]


def test_pay_in_the_run_and_afterwards(two_faced: Any) -> None:
    """Document 004 assigns `trajectory.steps[0].reward` while the episode runs."""

    async def talk(problem: Problem, team: Team) -> list[Any]:
        trajectory = team.a.new_trajectory()
        await team.a.chat(ASK)
        trajectory.steps[0].reward = 0.25
        trajectory.steps[0].info["note"] = "kept"
        return [trajectory]

    [episode] = run(two_faced(), lambda: Scene(talk, lambda task, episode: None), jobs(1))
    [trajectory] = episode.trajectories
    assert (trajectory.steps[0].reward, trajectory.reward) == (0.25, None)
    assert trajectory.steps[0].info == {"note": "kept"} and trajectory.has_step_rewards


def test_without_pay_nobody_is_asked_for_the_answer(two_faced: Any) -> None:
    def reward(task: Task, episode: EpisodeHandle) -> None:
        raise AssertionError("deployment has no answers")

    specs = {"a": AgentSpec("team")}
    settings = RolloutSettings((0, 1), "serve")
    [episode] = run_episodes_sync(jobs(1), lambda: Scene(chat, reward), two_faced(), specs, settings, pay=False)
    assert episode.outcome is Outcome.FAILURE and "error" not in episode.metadata


# ---------------------------------------------------------------------------------------------- failed episodes


def test_one_bad_episode_never_stops_its_siblings(two_faced: Any) -> None:
    async def fragile(problem: Problem, team: Team) -> None:
        await team.a.chat(ASK)
        if problem.id == "t1":
            raise KeyError("lost it")
        await team.a.chat(ASK)

    episodes = run(two_faced(), lambda: Scene(fragile), jobs(3))
    assert [e.outcome for e in episodes] == [Outcome.SUCCESS, Outcome.ERROR, Outcome.SUCCESS]
    broken = episodes[1]
    assert broken.metadata["error"].startswith("KeyError: 'lost it' (test_rollout.py:")
    assert broken.trajectories[0].stop_reason is StopReason.ERROR and len(broken.trajectories[0].steps) == 1
    assert broken.trajectories[0].reward is None


def test_a_reward_that_raises_is_an_error_of_its_episode(two_faced: Any) -> None:
    def reward(task: Task, episode: EpisodeHandle) -> None:
        if task.id == "t0":
            raise ZeroDivisionError("division by zero")
        episode.outcome = Outcome.SUCCESS

    episodes = run(two_faced(), lambda: Scene(chat, reward), jobs(2))
    assert [e.outcome for e in episodes] == [Outcome.ERROR, Outcome.SUCCESS]
    assert "ZeroDivisionError" in episodes[0].metadata["error"]


def test_rewards_are_paid_beside_one_another(two_faced: Any) -> None:
    """Hidden tests take seconds: nobody waits for another episode's."""
    together = threading.Barrier(2)

    def meet(task: Task, episode: EpisodeHandle) -> None:
        together.wait(timeout=10)
        episode.trajectories[0].reward = 1.0

    episodes = run(two_faced(), lambda: Scene(chat, meet), jobs(2))
    assert [e.trajectories[0].reward for e in episodes] == [1.0, 1.0]


def test_how_long_paying_takes_decides_nothing(two_faced: Any) -> None:
    """Who joins which wave must not depend on the clock: a token may depend on its batch's rounding."""
    clock = random.Random()

    def slow(task: Task, episode: EpisodeHandle) -> None:
        time.sleep(clock.uniform(0, 0.02))
        episode.trajectories[0].reward = 1.0

    async def talk(problem: Problem, team: Team) -> None:
        for _ in range(1 + int(problem.id[1:]) % 3):
            await team.a.chat(ASK)

    waves = []
    for _ in range(3):
        engine = two_faced()
        run(engine, lambda: Scene(talk, slow), jobs(16), parallel=4)
        waves.append([len(wave) for wave in engine.waves])
    assert waves[0] == waves[1] == waves[2] and max(waves[0]) == 4


def test_an_episode_that_hangs_runs_out_of_time(two_faced: Any) -> None:
    async def hang(problem: Problem, team: Team) -> None:
        await team.a.chat(ASK)
        if problem.id == "t0":
            await asyncio.sleep(30)
        await team.a.chat(ASK)

    episodes = run(two_faced(), lambda: Scene(hang), jobs(2), timeout=0.3)
    assert [e.outcome for e in episodes] == [Outcome.TIMEOUT, Outcome.SUCCESS]
    assert episodes[0].metadata["error"] == "longer than 0.3 s"
    assert episodes[0].trajectories[0].stop_reason is StopReason.TIMEOUT


def test_a_thread_that_hangs_costs_its_episode_and_no_more(two_faced: Any) -> None:
    never = threading.Event()

    async def hang(problem: Problem, agents: Team) -> None:
        await agents.a.chat(ASK)
        if problem.prompt == "problem 0":
            await agents.in_thread(never.wait)

    began = time.monotonic()
    episodes = run(two_faced(), lambda: Scene(hang), jobs(2), timeout=0.3)
    assert [e.outcome for e in episodes] == [Outcome.TIMEOUT, Outcome.SUCCESS]
    assert time.monotonic() - began < 5.0
    never.set()


def test_a_reward_that_hangs_costs_its_episode_and_no_more(two_faced: Any) -> None:
    never = threading.Event()

    def reward(task: Task, episode: EpisodeHandle) -> None:
        episode.trajectories[0].reward = 1.0
        if task.id == "t0":
            never.wait()
        episode.outcome = Outcome.SUCCESS

    async def chat(problem: Problem, agents: Team) -> None:
        await agents.a.chat(ASK)

    episodes = run(two_faced(), lambda: Scene(chat, reward), jobs(2), timeout=0.3)
    never.set()
    assert [e.outcome for e in episodes] == [Outcome.TIMEOUT, Outcome.SUCCESS]
    assert [e.trajectories[0].reward for e in episodes] == [None, 1.0]
    assert episodes[0].metadata["error"] == "its reward took longer than 0.3 s"


@pytest.mark.parametrize("outside", [False, True])
def test_an_episode_that_hangs_beside_its_own_call_runs_out_of_time(two_faced: Any, outside: bool) -> None:
    """Its call waits for the wave; with a hanging tool the wave waits for it. Neither may wait for ever."""

    async def hang(problem: Problem, team: Team) -> None:
        if problem.id == "t0":
            tool = asyncio.sleep(30)
            await asyncio.gather(team.a.chat(ASK), team.external(tool) if outside else tool)
        await team.a.chat(ASK)

    episodes = run(two_faced(), lambda: Scene(hang), jobs(2), timeout=0.3)
    assert [e.outcome for e in episodes] == [Outcome.TIMEOUT, Outcome.SUCCESS]


def test_the_engines_time_counts(two_faced: Any) -> None:
    class Slow(two_faced):  # type: ignore[misc]
        async def generate(self, requests: Any) -> Any:
            await asyncio.sleep(1.0)
            return await super().generate(requests)

    episodes = run(Slow(), lambda: Scene(chat), jobs(2), timeout=0.2)
    assert [e.outcome for e in episodes] == [Outcome.TIMEOUT] * 2


def test_a_tools_own_timeout_is_an_error_not_ours(two_faced: Any) -> None:
    async def slow_tool(problem: Problem, team: Team) -> None:
        await team.a.chat(ASK)
        raise TimeoutError("the search server took too long")

    for timeout in (None, 20.0):
        [episode] = run(two_faced(), lambda: Scene(slow_tool), jobs(1), timeout=timeout)
        assert episode.outcome is Outcome.ERROR and "the search server took too long" in episode.metadata["error"]


def test_an_episode_in_which_nobody_spoke_is_an_error(two_faced: Any) -> None:
    async def silent(problem: Problem, team: Team) -> None:
        team.a.new_trajectory()

    [episode] = run(two_faced(), lambda: Scene(silent), jobs(1))
    assert episode.outcome is Outcome.ERROR and "no agent was asked" in episode.metadata["error"]


def test_a_prompt_that_is_too_long_truncates(two_faced: Any) -> None:
    async def grow(problem: Problem, team: Team) -> None:
        await team.a.chat(ASK)
        await team.a.chat([message("user", "x" * 99)])

    def reward(task: Task, episode: EpisodeHandle) -> None:
        episode.trajectories[0].reward = 0.0

    [episode] = run(two_faced(), lambda: Scene(grow, reward), jobs(1), limit=50)
    assert episode.outcome is Outcome.TRUNCATED and "data.max_prompt_length" in episode.metadata["error"]
    assert episode.trajectories[0].stop_reason is StopReason.PROMPT_TOO_LONG
    assert episode.trajectories[0].reward == 0.0  # it is paid: running out of room is the team's doing


def test_a_prompt_that_is_too_long_truncates_inside_a_task_group(two_faced: Any) -> None:
    """Solvers side by side in a task group, as multi-agent workflows are written."""

    async def both(problem: Problem, team: Team) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(team.a.chat(ASK))
            group.create_task(team.b.chat([message("user", "x" * 99)]))

    [episode] = run(two_faced(), lambda: Scene(both, lambda task, episode: None), jobs(1), limit=50)
    assert episode.outcome is Outcome.TRUNCATED and "data.max_prompt_length" in episode.metadata["error"]


# ---------------------------------------------------------------------------------------------- failed programs


class Boom(Exception):
    pass


def test_an_engine_that_raises_stops_the_run_with_its_exception(two_faced: Any) -> None:
    def say(request: Any) -> str:
        if request.key[2] == "t1" and request.key[-1] == 1:
            raise Boom("out of memory")
        return "ok"

    async def twice(problem: Problem, team: Team) -> None:
        await team.a.chat(ASK)
        await team.a.chat(ASK)

    with pytest.raises(Boom, match="out of memory"):
        run(two_faced(say), lambda: Scene(twice), jobs(3))


def test_a_workflow_can_not_swallow_a_failed_engine(two_faced: Any) -> None:
    async def stubborn(problem: Problem, team: Team) -> None:
        try:
            await team.a.chat(ASK)
        except Exception:
            team.episode.metadata["hidden"] = True

    def say(request: Any) -> str:
        raise Boom("out of memory")

    with pytest.raises(Boom):
        run(two_faced(say), lambda: Scene(stubborn), jobs(2))


def test_an_unknown_agent_stops_the_run(two_faced: Any) -> None:
    async def lost(problem: Problem, team: Team) -> None:
        await team.c.chat(ASK)

    with pytest.raises(CreditError, match="no agent 'c'"):
        run(two_faced(), lambda: Scene(lost), jobs(2))


def test_an_unknown_agent_inside_a_task_group_stops_the_run(two_faced: Any) -> None:
    async def lost(problem: Problem, team: Team) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(team.a.chat(ASK))
            group.create_task(team.c.chat(ASK))

    with pytest.raises(CreditError, match="no agent 'c'"):
        run(two_faced(), lambda: Scene(lost), jobs(2))


def test_a_workflow_that_returns_something_else_stops_the_run(two_faced: Any) -> None:
    async def odd(problem: Problem, team: Team) -> int:
        await team.a.chat(ASK)
        return 7

    with pytest.raises(
        CreditError, match=r"run\(\) must return None, its trajectories or a mapping of metrics; found int"
    ):
        run(two_faced(), lambda: Scene(odd), jobs(1))


def test_a_model_that_is_too_short_stops_the_run(tiny: Any) -> None:
    async def long(problem: Problem, team: Team) -> None:
        await team.a.chat([message("user", "9" * 600)])

    with pytest.raises(ConfigError, match="do not fit the model's 512 positions"):
        run(LocalEngine({"team": Policy("team", tiny)}), lambda: Scene(long), jobs(1))


# ---------------------------------------------------------------------------------------------- order


async def converse(problem: Problem, team: Team) -> None:
    """Three turns, two agents, at times side by side."""
    talk = [message("system", "brief"), message("user", problem.prompt)]
    first = await team.a.chat(talk)
    talk += [first.message, message("user", "and?")]
    for _ in range(int(problem.id[1:]) % 3):
        replies = await asyncio.gather(team.a.chat(talk), team.b.chat(talk))
        talk += [replies[0].message, message("user", replies[1].text)]


def tokens(episodes: list[Episode]) -> dict[tuple[str, str], Any]:
    return {
        (episode.id, step.id): (step.tokens.prompt_ids, step.tokens.response_ids)
        for episode in episodes
        for step in episode.steps()
        if step.tokens
    }


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_neither_arrival_nor_parallelism_changes_a_token(tiny: Any, temperature: float) -> None:
    """All at once, one after the other, three at a time, and in another order: the same ids."""
    specs = {name: AgentSpec("team", Sampling(8, temperature)) for name in ("a", "b")}

    def collect(which: list[Job], parallel: int) -> list[Episode]:
        engine = LocalEngine({"team": Policy("team", tiny)})
        settings = RolloutSettings((7, 1), "test", parallel=parallel)
        return run_episodes_sync(which, lambda: Scene(converse), engine, specs, settings)

    which = jobs(5, rollouts=2)
    shuffled = random.Random(0).sample(which, len(which))
    expected = tokens(collect(which, 1024))
    assert len(expected) == 2 * (1 + 3 + 5 + 1 + 3)
    for found in (collect(which, 1), collect(which, 3), collect(shuffled, 1024), collect(shuffled, 2)):
        assert tokens(found) == expected
    again = collect(which, 1024)
    assert [e.to_dict() for e in again] == [e.to_dict() for e in collect(which, 1024)]  # log-probs to the last bit
    sampled = {ids for (_, step), (_, ids) in expected.items() if step == "a/0"}
    assert len(sampled) > 4 or not temperature


def test_another_seed_or_update_is_other_noise(tiny: Any) -> None:
    def collect(key: tuple[int, int]) -> list[Episode]:
        return run(LocalEngine({"team": Policy("team", tiny)}), lambda: Scene(converse), jobs(2), key=key)

    assert tokens(collect((0, 1))) != tokens(collect((0, 2))) and tokens(collect((0, 1))) != tokens(collect((1, 1)))


def test_no_more_than_so_many_run_at_once(two_faced: Any) -> None:
    live, most = 0, 0

    async def counted(problem: Problem, team: Team) -> None:
        nonlocal live, most
        live, most = live + 1, max(most, live + 1)
        await team.a.chat(ASK)
        live -= 1

    run(two_faced(), lambda: Scene(counted), jobs(7), parallel=3)
    assert most == 3


def test_each_episode_has_a_workflow_of_its_own(two_faced: Any) -> None:
    made: list[Scene] = []

    def make() -> Scene:
        made.append(Scene(chat))
        return made[-1]

    run(two_faced(), make, jobs(3))
    assert len(made) == 3


def test_jobs_are_named_by_purpose_task_and_rollout() -> None:
    job = Job(Task("t", "k", "?"), 3)
    assert job.id("val") == "val/t/3" and replace(job, rollout=0).id("val") == "val/t/0"
