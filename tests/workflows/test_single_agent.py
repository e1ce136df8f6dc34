"""One agent in one environment: what the environment pays reaches the step that it pays for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tests.guessing import Guesser, LetterGame, words
from troupe.agents import AgentSpec
from troupe.engines.scripted import ScriptedEngine
from troupe.episode import Episode, Outcome, Sampling, StopReason, Task, message
from troupe.errors import ConfigError
from troupe.protocols import GenerationRequest
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync
from troupe.workflows.single_agent import SingleAgentWorkflow

(TASK,) = words("abba")


def play(
    tiny: Any, said: str | Callable[[GenerationRequest], str], task: Task = TASK, *, limit: int = 1 << 16, n: int = 1,
    pay: bool = True, **arguments: Any,
) -> list[Episode]:  # fmt: skip
    """The agent says one word of `said` per step."""

    def speak(request: GenerationRequest) -> str:
        return said(request) if callable(said) else said.split()[request.key[-1]]

    def make() -> SingleAgentWorkflow:
        return SingleAgentWorkflow(**{"agent_class": Guesser, "env_class": LetterGame, **arguments})

    specs = {"agent": AgentSpec("team", Sampling(1 << 16), limit)}
    jobs = [Job(task, rollout) for rollout in range(n)]
    engine = ScriptedEngine(tiny.format, speak)
    return run_episodes_sync(jobs, make, engine, specs, RolloutSettings((0, "t"), "t"), pay=pay)


def test_each_step_is_paid_what_the_environment_paid(tiny: Any) -> None:
    (episode,) = play(tiny, "x a b never")
    (trajectory,) = episode.trajectories
    assert [step.reward for step in trajectory.steps] == [0.0, 1.0, 1.0] and trajectory.reward is None
    assert trajectory.returns() == (2.0, 2.0, 1.0)
    assert episode.outcome is Outcome.SUCCESS and trajectory.stop_reason is StopReason.DONE
    assert episode.metrics == {"env_steps": 3.0, "return": 2.0, "final_success": 1.0}


def test_the_conversation_is_the_agents_and_continues_exactly(tiny: Any) -> None:
    (episode,) = play(tiny, "a b", agent_args={"system": "play"})
    first, second = episode.trajectories[0].steps
    assert first.observation == [message("system", "play"), message("user", "____")]
    assert second.observation == [message("user", "a__a")] and second.parent == first.id
    assert "fork" not in second.info


def test_a_truncation_is_no_failure_and_no_success(tiny: Any) -> None:
    """By the environment's own limit, by the workflow's, and by a prompt that outgrew its own."""
    (by_env,) = play(tiny, "a x y", env_args={"guesses": 2})
    (by_steps,) = play(tiny, "a x y", max_steps=2)
    (by_prompt,) = play(tiny, "a x y z", limit=30)
    reasons = [StopReason.MAX_TURNS, StopReason.MAX_TURNS, StopReason.PROMPT_TOO_LONG]
    for episode, reason in zip((by_env, by_steps, by_prompt), reasons, strict=True):
        assert episode.outcome is Outcome.TRUNCATED and episode.metrics["final_success"] == 0.0
        assert episode.trajectories[0].stop_reason is reason
        assert [step.reward for step in episode.trajectories[0].steps][:2] == [1.0, 0.0]


def test_without_a_word_of_success_the_rewards_decide(tiny: Any) -> None:
    class Silent(LetterGame):
        def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
            observation, reward, _, _, _ = super().step(action)
            return observation, reward, self.left == 4, False, {}

    assert play(tiny, "a x", env_class=Silent)[0].outcome is Outcome.SUCCESS
    assert play(tiny, "x y", env_class=Silent)[0].outcome is Outcome.FAILURE
    assert play(tiny, "a x", env_class=Silent, env_args={"pay": -1.0})[0].outcome is Outcome.FAILURE


class Sum:
    """Says right or wrong only at the end, by the answer."""

    closed: list[int] = []  # noqa: RUF012  (what the test looks at)

    async def reset(self, task: Any, seed: int) -> str:
        assert not hasattr(task, "answer") and not hasattr(task, "solution")
        self.seed = seed
        return str(task.prompt)

    async def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        await asyncio.sleep(0)
        self.said = action
        return "", 0.0, True, False, {}

    def close(self) -> None:
        self.closed.append(self.seed)

    def final_reward(self, task: Task) -> float:
        return float(self.said == task.answer)


class Plain:
    def observe(self, observation: str) -> list[Any]:
        return [message("user", observation)]


def test_coroutines_a_final_reward_seeds_and_the_default_action(tiny: Any) -> None:
    Sum.closed.clear()
    task = Task("sum", "sum", "2+2", answer="4")
    episodes = play(tiny, lambda request: "45"[request.key[3]], task, n=2, agent_class=Plain, env_class=Sum)
    assert [episode.outcome for episode in episodes] == [Outcome.SUCCESS, Outcome.FAILURE]
    assert [episode.trajectories[0].total_reward for episode in episodes] == [1.0, 0.0]
    other = Task("other", "sum", "2+2", answer="4")
    play(tiny, lambda _: "4", other, agent_class=Plain, env_class=Sum)
    first, second, third = Sum.closed
    assert first == second != third  # attempts at one task begin alike


def test_nothing_is_paid_where_nobody_knows_the_answer(tiny: Any) -> None:
    (episode,) = play(tiny, "a b", pay=False)
    assert [step.reward for step in episode.trajectories[0].steps] == [None, None]


def test_an_environment_that_fails_fails_its_episode(tiny: Any) -> None:
    class Broken(LetterGame):
        def step(self, action: str) -> Any:
            raise RuntimeError("the server is gone")

    (episode,) = play(tiny, "a", env_class=Broken)
    assert episode.outcome is Outcome.ERROR and "the server is gone" in str(episode.metadata["error"])


class Four(LetterGame):
    def step(self, action: str) -> Any:
        return super().step(action)[:4]


class NoStep:
    def reset(self, task: Any) -> str:
        return ""


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"env_args": {"gueses": 3}}, "env_args do not fit env_class LetterGame: .*gueses"),
        ({"agent_args": {"systm": ""}}, "agent_args do not fit agent_class Guesser: .*systm"),
        ({"env_class": NoStep}, "env_class NoStep has no method 'step'; it needs reset and step"),
        ({"agent_class": LetterGame}, "agent_class LetterGame has no method 'observe'; it needs observe"),
        ({"max_steps": 0}, "max_steps must be at least 1, found 0"),
        ({"env_class": Four}, r"Four\.step must return \(observation, .*, info\), found tuple of 4"),
    ],
)
def test_classes_that_do_not_fit(tiny: Any, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        play(tiny, "a b", **arguments)
