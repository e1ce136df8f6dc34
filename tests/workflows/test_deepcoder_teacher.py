"""The teacher: without noise it solves everything at once; with noise it errs, and its test runner still does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from troupe.agents import AgentSpec
from troupe.engines.scripted import ScriptedEngine
from troupe.episode import Episode, Outcome, Sampling, Task
from troupe.errors import ConfigError
from troupe.rewards.code import code_reward_fn
from troupe.tasks.code import KINDS, CodeProblemGenerator
from troupe.tools.run_tests import RunTests
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync
from troupe.workflows.deepcoder import DeepCoderWorkflow
from troupe.workflows.deepcoder_teacher import DeepCoderTeacher


def tasks(kind: str, n: int = 20) -> list[Task]:
    found = {task.id: task for task in CodeProblemGenerator((0.0, 1.0), 2, (kind,)).generate(2 * n)}
    return list(found.values())[:n]


@pytest.fixture
def demonstrate(tiny: Any, sandbox: Any) -> Any:  # noqa: F811
    def build(shown: Sequence[Task], noise: float, seed: int = 0, rollouts: int = 1) -> list[Episode]:
        teacher = DeepCoderTeacher(shown, noise=noise, seed=seed)
        specs = {name: AgentSpec("team", Sampling(1 << 16), 1 << 16) for name in DeepCoderWorkflow.agent_names}
        arguments = {"reward_function": partial(code_reward_fn, sandbox=sandbox), "run_tests": RunTests(sandbox)}
        jobs = [Job(task, rollout) for task in shown for rollout in range(rollouts)]
        return run_episodes_sync(
            jobs,
            lambda: DeepCoderWorkflow(**arguments, prompts="compact", max_refinement_iterations=2),
            ScriptedEngine(tiny.format, teacher),
            specs,
            RolloutSettings((0, "demo"), "demo"),
        )

    return build


@pytest.mark.parametrize("kind", KINDS)
def test_without_noise_every_task_is_solved_at_once(demonstrate: Any, kind: str) -> None:
    for episode in demonstrate(tasks(kind), 0.0):
        assert episode.outcome is Outcome.SUCCESS and "error" not in episode.metadata
        assert [(t.agent, t.reward, len(t.steps)) for t in episode.trajectories] == [
            ("generator", 1.0, 1),
            ("test_runner", 1.0, 2),
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_noise_spoils_programs_but_no_diagnosis(demonstrate: Any, kind: str) -> None:
    episodes = demonstrate(tasks(kind), 0.6, rollouts=3)
    assert not any("error" in episode.metadata for episode in episodes)
    assert {t.reward for episode in episodes for t in episode.of("test_runner")} == {1.0}
    assert {t.reward for episode in episodes for t in episode.of("refiner")} == {0.0, 1.0}
    said = {str(t.steps[-1].action["content"]) for episode in episodes for t in episode.of("test_runner")}
    assert said == {"<ans>ok</ans>", "<ans>1</ans>", "<ans>2</ans>"}
    first = sum(episode.metrics["generator_success"] for episode in episodes) / len(episodes)
    assert 0.1 < first < 0.75 and first <= sum(e.outcome is Outcome.SUCCESS for e in episodes) / len(episodes)


def test_more_noise_is_less_success(demonstrate: Any) -> None:
    shown = tasks("list")
    rates = [
        sum(episode.metrics["generator_success"] for episode in demonstrate(shown, noise)) / len(shown)
        for noise in (0.0, 0.4, 1.0)
    ]
    assert rates[0] == 1.0 > rates[1] > rates[2] == 0.0


def test_the_seed_decides_what_is_spoiled(demonstrate: Any) -> None:
    shown = tasks("arithmetic", 10)

    def texts(seed: int) -> list[str]:
        return [str(s.action["content"]) for e in demonstrate(shown, 0.5, seed) for s in e.steps()]

    assert texts(1) == texts(1) != texts(2)


def test_attempts_at_one_task_are_spoiled_apart(demonstrate: Any) -> None:
    episodes = demonstrate(tasks("string", 1), 0.7, rollouts=6)
    assert len({str(e.trajectories[0].steps[0].action["content"]) for e in episodes}) > 1


def test_other_tests_than_generated_ones_are_diagnosed(demonstrate: Any) -> None:
    """Inputs and outputs of several lines, and errors that would write on."""
    cases = [{"stdin": f"{a}\n{b}\n", "stdout": f"{a}\n{a + b}\n"} for a, b in ((1, 2), (3, 4), (5, 5))]
    right = "a, b = int(input()), int(input())\nprint(a)\nprint(a + b)"
    fed = Task("s", "stdin", "Add.", {"public": cases}, answer=cases, solution={"program": right})
    stops = replace(fed, id="w", solution={"program": f"{right}\nassert a < 3, 'too\\nlarge'"})
    calls = [{"args": [x], "value": 2 * x} for x in (1, 2)]
    raises = "def f(x):\n if x == 2: raise ValueError('a\\nb')\n return x+x"
    called = Task("c", "mbpp", "Double.", {"entry": "f", "public": calls}, answer=calls, solution={"program": raises})
    episodes = demonstrate([fed, stops, called], 0.0)
    assert not any("error" in episode.metadata for episode in episodes)
    assert {t.reward for episode in episodes for t in episode.of("test_runner")} == {1.0}
    said = [str(episode.of("test_runner")[0].steps[-1].action["content"]) for episode in episodes]
    assert said == ["<ans>ok</ans>", "<ans>2</ans>", "<ans>2</ans>"]


@pytest.mark.parametrize("solution", [None, {}, {"program": ""}, "text", {"mutants": ["x"]}])
def test_what_has_no_program_can_not_be_taught(solution: Any) -> None:
    task = tasks("list", 1)[0]
    assert DeepCoderTeacher.can_teach(task) and not DeepCoderTeacher.can_teach(replace(task, solution=solution))


def test_noise_without_wrong_programs_is_refused() -> None:
    task = Task("mbpp-1", "mbpp", "Double.", {"entry": "f"}, solution={"program": "def f(x): return 2*x"})
    DeepCoderTeacher([task], noise=0.0, seed=0)
    with pytest.raises(ConfigError, match=r"task mbpp-1 comes without wrong programs .* write sft.noise=0"):
        DeepCoderTeacher([task], noise=0.1, seed=0)
