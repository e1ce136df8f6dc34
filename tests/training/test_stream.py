"""Episodes without a barrier: full groups in a fixed order, versions that are told, failures that are raised."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import pytest

from troupe.agents import AgentSpec
from troupe.engines.local import LocalEngine
from troupe.engines.scripted import ScriptedEngine
from troupe.episode import Episode, Outcome, Sampling, Task, message
from troupe.errors import CreditError
from troupe.models.language import Policy
from troupe.training.rollout import RolloutSettings
from troupe.training.stream import EpisodeStream, staleness


class Chatter:
    """Speaks once for every hundred in the task's number, so that some episodes take longer than others."""

    agent_names = ("speaker",)
    credit: ClassVar[dict[str, str]] = {}

    async def run(self, problem: Any, agents: Any) -> None:
        said = [message("user", problem.prompt)]
        for _ in range(1 + problem.data["turns"]):
            reply = await agents.speaker.chat(said)
            said += [reply.message, message("user", "more")]

    def reward(self, task: Task, episode: Any) -> None:
        episode.trajectories[0].reward = 1.0
        episode.outcome = Outcome.SUCCESS


def tasks(turns: Sequence[int] = (0, 3, 0, 1)) -> Iterator[Task]:
    for number, n in enumerate(itertools.cycle(turns)):
        yield Task(f"t{number}", "talk", f"Say {number}", data={"turns": n})


def stream(tiny: Any, in_flight: int = 2, workflow: Any = Chatter, engine: Any = None, **more: Any) -> EpisodeStream:
    engine = engine or LocalEngine({"team": Policy("team", tiny)}, max_batch=16)
    specs = {"speaker": AgentSpec("team", Sampling(4, 1.0), 400)}
    settings = RolloutSettings((0, "s"), "s", timeout=more.get("timeout"))
    return EpisodeStream(more.get("source", tasks()), 2, workflow, engine, specs, settings, in_flight=in_flight)


def names(groups: Sequence[Sequence[Episode]]) -> list[str]:
    return [group[0].task_id for group in groups]


def test_groups_come_whole_as_they_are_done(tiny: Any) -> None:
    source = stream(tiny)
    first = source.take(2)
    # t0 takes one wave and makes room for t2, which is done before t1 with its four.
    assert names(first) == ["t0", "t2"]
    assert all([e.metadata["kind"] for e in group] == ["talk"] * 2 for group in first)
    assert len({e.group for group in first for e in group}) == 2 and len({e.id for g in first for e in g}) == 4
    later = names(source.take(3))
    assert "t1" in later and len(set(later)) == 3
    source.close()


def test_the_same_seed_gives_the_same_episodes(tiny: Any) -> None:
    one, two = stream(tiny), stream(tiny)
    assert [one.take(3), one.take(2)] == [two.take(3), two.take(2)]
    other = stream(tiny, in_flight=3)
    assert {e.id: e for g in other.take(3) for e in g}.keys() != {}  # another width is another order, and still runs
    for source in (one, two, other):
        source.close()


def test_tokens_tell_which_weights_spoke(tiny_model: Any) -> None:
    """t1 begins under version 0 and goes on under 1 and 2."""
    policy = Policy("team", tiny_model())
    engine = LocalEngine({"team": policy}, max_batch=16)
    source = stream(None, engine=engine)
    ages: dict[str, int] = {}
    for _ in range(4):
        for group in source.take(1):
            ages[group[0].task_id] = max(staleness(episode, {"team": policy.version}) for episode in group)
        policy.version += 1
        engine.forget()
    assert ages["t0"] == 0 and ages["t1"] > 0
    source.close()


def test_staleness_looks_at_the_oldest_token_of_those_who_learn(make_step: Any, make_episode: Any) -> None:
    steps = [make_step("a/0", [1], [50], version=3), make_step("a/1", [2], [51], parent="a/0", version=5)]
    episode = make_episode("t", (steps, 1.0))
    assert staleness(episode, {"team": 5}) == 2
    assert staleness(episode, {"other": 9}) == 0


@pytest.mark.parametrize("where", ["run", "reward"])
def test_a_thread_that_hangs_costs_its_episodes_and_no_more(tiny: Any, where: str) -> None:
    never = threading.Event()

    class Hangs(Chatter):
        async def run(self, problem: Any, agents: Any) -> None:
            await super().run(problem, agents)
            if where == "run" and problem.id == "t0":
                await agents.in_thread(never.wait)

        def reward(self, task: Task, episode: Any) -> None:
            if where == "reward" and task.id == "t0":
                never.wait()
            super().reward(task, episode)

    source = stream(tiny, workflow=Hangs, timeout=0.3)
    outcomes = {group[0].task_id: {e.outcome for e in group} for group in source.take(3)}
    source.close()
    never.set()
    assert outcomes.pop("t0") == {Outcome.TIMEOUT} and set().union(*outcomes.values()) == {Outcome.SUCCESS}


def test_an_episode_that_raises_is_an_episode(tiny: Any) -> None:
    class Raises(Chatter):
        async def run(self, problem: Any, agents: Any) -> None:
            await super().run(problem, agents)
            if problem.id == "t0":
                raise ValueError("broken")

    source = stream(tiny, workflow=Raises)
    (group,) = source.take(1)
    assert [e.outcome for e in group] == [Outcome.ERROR] * 2
    assert [e.outcome for e in source.take(1)[0]] == [Outcome.SUCCESS] * 2
    source.close()


def test_a_failed_engine_and_a_misfit_workflow_are_raised(tiny: Any) -> None:
    class Broken(ScriptedEngine):
        async def generate(self, requests: Any) -> Any:
            raise OSError("no device")

    source = stream(tiny, engine=Broken(tiny.format, lambda request: "x"))
    with pytest.raises(OSError, match="no device"):
        source.take(1)
    source.close()

    class Misfit(Chatter):
        async def run(self, problem: Any, agents: Any) -> None:
            await agents.listener.chat([message("user", "?")])

    source = stream(tiny, workflow=Misfit)
    with pytest.raises(CreditError, match="listener"):
        source.take(1)
    source.close()


def test_closing_withdraws_what_is_under_way(tiny: Any) -> None:
    ended: list[str] = []

    class Tells(Chatter):
        async def run(self, problem: Any, agents: Any) -> None:
            try:
                await super().run(problem, agents)
            finally:
                ended.append(problem.id)

    source = stream(tiny, workflow=Tells)
    source.take(1)
    source.close()
    assert "t1" in ended  # was under way
