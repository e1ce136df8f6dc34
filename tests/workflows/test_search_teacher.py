"""The teacher: without noise it solves whatever it can teach; with noise it errs, and its answerer still does not."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from troupe.agents import AgentSpec
from troupe.engines.scripted import ScriptedEngine
from troupe.episode import Episode, Outcome, Sampling, Task
from troupe.rewards.search import search_reward_fn
from troupe.tasks.corpora import load_corpus
from troupe.tasks.facts import FactsGenerator
from troupe.tools.search import SearchTool
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync
from troupe.workflows.search import SearchWorkflow
from troupe.workflows.search_teacher import Queries, SearchTeacher

LIBRARY = SearchTool(load=load_corpus)


def tasks(kind: str, n: int = 40, seed: int = 2) -> list[Task]:
    return FactsGenerator((0.0, 0.5), seed, (kind,)).generate(n)


def demonstrate(tiny: Any, shown: Sequence[Task], noise: float, seed: int = 0, cycles: int = 3) -> list[Episode]:
    teacher = SearchTeacher(shown, noise=noise, seed=seed)
    specs = {name: AgentSpec("team", Sampling(1 << 16), 1 << 16) for name in SearchWorkflow.agent_names}

    def make() -> SearchWorkflow:
        return SearchWorkflow(
            reward_function=search_reward_fn,
            search_tool=LIBRARY,
            max_refinement_iterations=cycles,
            prompts="compact",
        )

    engine = ScriptedEngine(tiny.format, teacher)
    return run_episodes_sync([Job(task) for task in shown], make, engine, specs, RolloutSettings((0, "demo"), "demo"))


def solved(episodes: Sequence[Episode]) -> float:
    return sum(episode.outcome is Outcome.SUCCESS for episode in episodes) / len(episodes)


@pytest.mark.parametrize(("kind", "hops"), [("one_hop", 1), ("two_hop", 2), ("three_hop", 3)])
def test_without_noise_every_task_is_solved_in_as_many_cycles_as_it_has_hops(tiny: Any, kind: str, hops: int) -> None:
    for episode in demonstrate(tiny, tasks(kind), 0.0):
        assert episode.outcome is Outcome.SUCCESS and episode.metrics["total_iterations"] == hops
        assert {trajectory.reward for trajectory in episode.trajectories} == {1.0}
        assert episode.metrics["evidence_recall"] == 1.0 and "error" not in episode.metadata


@pytest.mark.parametrize("kind", ["one_hop", "two_hop"])
def test_noise_spoils_queries_and_picks_but_no_answer(tiny: Any, kind: str) -> None:
    episodes = demonstrate(tiny, tasks(kind, 80), 0.5)
    assert {t.reward for episode in episodes for t in episode.of("answerer")} == {0.5, 1.0}
    for agent in ("query_optimizer", "retriever"):
        assert {t.reward for episode in episodes for t in episode.of(agent)} >= {0.0, 1.0}
    assert any(episode.metrics["total_iterations"] > 1 for episode in episodes)
    assert not any("error" in episode.metadata for episode in episodes)


def test_more_noise_is_less_success(tiny: Any) -> None:
    shown = tasks("two_hop", 100)
    rates = [solved(demonstrate(tiny, shown, noise, cycles=2)) for noise in (0.0, 0.3, 0.9)]
    assert rates[0] == 1.0 > rates[1] > rates[2]


def test_the_seed_decides_what_is_spoiled(tiny: Any) -> None:
    shown = tasks("two_hop", 12)

    def texts(seed: int) -> list[str]:
        return [str(s.action["content"]) for e in demonstrate(tiny, shown, 0.5, seed) for s in e.steps()]

    assert texts(1) == texts(1) != texts(2)


def test_spoiled_queries_are_near_misses() -> None:
    queries = Queries(["Dolek works", "Dolek lives", "Sulek works", "Sulek lives"])
    rng = random.Random(0)
    drawn = {queries.spoiled("Dolek works", "Name the boss of Dolek.", rng) for _ in range(200)}
    assert drawn == {"Dolek boss", "Dolek lives", "Sulek works"}


def test_the_answer_to_be_paid_for_is_not_what_is_shown(tiny: Any) -> None:
    """Permuting answers is a control of reinforcement learning; demonstrations stay as they are."""
    shown = tasks("two_hop", 10)
    permuted = [replace(task, answer=other.answer) for task, other in zip(shown, shown[1:] + shown[:1], strict=True)]

    def texts(chosen: Sequence[Task]) -> list[str]:
        return [str(s.action["content"]) for e in demonstrate(tiny, chosen, 0.3) for s in e.steps()]

    assert texts(shown) == texts(permuted)


@pytest.mark.parametrize(
    "solution",
    [None, {}, "text", {"plan": ["x"], "check": ["y"]}, {"plan": ["x"], "check": [], "answer": "z"}, {"answer": "z"}],
)
def test_what_has_no_worked_solution_can_not_be_taught(solution: Any) -> None:
    task = tasks("one_hop", 1)[0]
    assert SearchTeacher.can_teach(task) and not SearchTeacher.can_teach(replace(task, solution=solution))
