"""The math team: every branch of its loop, what each is paid, and that neither the truth nor a trick decides."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from troupe.agents import AgentSpec
from troupe.engines.local import LocalEngine
from troupe.engines.scripted import ScriptedEngine
from troupe.episode import Episode, Outcome, Sampling, Task
from troupe.errors import ConfigError
from troupe.models.language import Policy
from troupe.rewards.math import math_reward_fn
from troupe.sandbox import Sandbox
from troupe.tasks.math import MathProblemGenerator
from troupe.tools.calculator import Calculator
from troupe.tools.python import PythonTool
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync
from troupe.workflows.math_tool import PROMPTS, MathToolWorkflow, plan_value

TASK = Task("t", "linear", "Solve 3x + 5 = 20", {"unknowns": ["x"]}, 0.5, "5", {"plan": ["(20-5)/3"]})
RIGHT_PLAN, WRONG_PLAN = "<ans>(20-5)/3</ans>", "<ans>(20+5)/3</ans>"


def make(**arguments: Any) -> MathToolWorkflow:
    settings = {"reward_function": math_reward_fn, "calculator": Calculator(), "prompts": "compact"}
    return MathToolWorkflow(**{**settings, **arguments})


def run(engine: Any, tasks: Sequence[Task] = (TASK,), rollouts: int = 1, **arguments: Any) -> list[Episode]:
    specs = {name: AgentSpec("team", Sampling(16)) for name in MathToolWorkflow.agent_names}
    jobs = [Job(task, rollout) for task in tasks for rollout in range(rollouts)]
    return run_episodes_sync(jobs, lambda: make(**arguments), engine, specs, RolloutSettings((0, 1), "test"))


@pytest.fixture
def play(tiny: Any) -> Any:
    """`play(analyzer=[...], executor=[...], verifier=[...])`: what each says at its calls."""

    def build(task: Task = TASK, arguments: Mapping[str, Any] | None = None, **script: Sequence[str]) -> Episode:
        engine = ScriptedEngine(tiny.format, lambda request: script[request.key[-2]][request.key[-1]])
        return run(engine, [task], **(arguments or {}))[0]

    return build


def pay(episode: Episode) -> dict[str, list[float | None]]:
    return {agent: [t.reward for t in episode.of(agent)] for agent in MathToolWorkflow.agent_names}


def said(answer: str) -> str:
    return f"<ans>{answer}</ans>"


# ---------------------------------------------------------------------------------------------- branches


def test_python_beside_the_calculator(play: Any, sandbox: Sandbox) -> None:  # noqa: F811
    """A call that names its tool reaches it; one that does not is the calculator's."""
    program = '<tool_call>{"name": "python", "arguments": {"code": "print((20-5)//3)"}}</tool_call>'
    python = {"python_tool": PythonTool(lambda: sandbox), "use_python": True}
    script = {"analyzer": [RIGHT_PLAN], "executor": [program, "<call>15/3</call>", said("5")], "verifier": [said("ok")]}
    episode = play(arguments=python, **script)
    told = [m for step in episode.of("executor")[0].steps for m in step.observation if m["role"] == "tool"]
    assert [(m["name"], m["content"]) for m in told] == [("python", "5"), ("calculator", "5")]
    assert episode.outcome is Outcome.SUCCESS and episode.metrics["tool_calls"] == 2
    without = play(arguments={**python, "use_python": False}, **script)
    assert without.of("executor")[0].steps[1].observation[-1]["content"] == "error: there is no tool 'python'"
    with pytest.raises(ConfigError, match="use_python=true needs python_tool"):
        make(use_python=True)


def test_right_at_once(play: Any) -> None:
    episode = play(
        analyzer=[RIGHT_PLAN],
        executor=["<call>20-5</call>", "<call>15/3</call>", said("5")],
        verifier=["<call>3*5+5-20</call>", said("OK.")],
    )
    assert episode.outcome is Outcome.SUCCESS and episode.metadata["answer"] == "5"
    assert pay(episode) == {"analyzer": [1.0], "executor": [1.0], "verifier": [1.0]}
    expected = {
        "analyzer_runs": 1,
        "executor_attempts": 1,
        "verifier_checks": 1,
        "total_iterations": 1,
        "tool_calls": 3,
        "accepted": 1,
        "final_success": 1,
        "analyzer_success": 1,
        "first_answer_success": 1,
        "verifier_true_accepts": 1,
    }
    assert {name: episode.metrics[name] for name in expected} == expected
    results = [
        m["content"] for step in episode.of("executor")[0].steps for m in step.observation if m["role"] == "tool"
    ]
    assert results == ["15", "5"]


def test_rejected_then_right(play: Any) -> None:
    """25/3 is what the wrong plan computes to: faithful work on it is worth 0.3, finding it wrong is worth 1."""
    episode = play(
        analyzer=[WRONG_PLAN, RIGHT_PLAN], executor=[said("25/3"), said("5")], verifier=[said("bad"), said("ok")]
    )
    assert episode.outcome is Outcome.SUCCESS and episode.metadata["answer"] == "5"
    assert pay(episode) == {"analyzer": [0.0, 1.0], "executor": [pytest.approx(0.3), 1.0], "verifier": [1.0, 1.0]}
    metrics = episode.metrics
    assert (metrics["total_iterations"], metrics["analyzer_success"], metrics["first_answer_success"]) == (2, 0, 0)
    assert (metrics["verifier_true_accepts"], metrics["verifier_true_rejects"]) == (1, 1)
    second = episode.of("analyzer")[1].steps[0]
    assert second.parent == "analyzer/0" and second.observation == [{"role": "user", "content": "Rejected: 25/3"}]


def test_nobody_accepts(play: Any) -> None:
    episode = play(
        TASK,
        {"max_refinement_iterations": 2},
        analyzer=[WRONG_PLAN] * 2,
        executor=[said("25/3")] * 2,
        verifier=[said("bad")] * 2,
    )
    assert episode.outcome is Outcome.FAILURE and episode.metrics["accepted"] == 0
    assert episode.metrics["total_iterations"] == 2 and episode.metrics["verifier_true_rejects"] == 1
    assert "verifier_true_accepts" not in episode.metrics


def test_no_plan(play: Any) -> None:
    episode = play(analyzer=["I do not know", "<ans> </ans>", "<ans>"], executor=[], verifier=[])
    assert episode.outcome is Outcome.FAILURE and episode.metadata["answer"] is None
    assert pay(episode) == {"analyzer": [0.0] * 3, "executor": [], "verifier": []}
    assert (episode.metrics["analyzer_runs"], episode.metrics["executor_attempts"]) == (3, 0)


def test_no_answer(play: Any) -> None:
    episode = play(
        TASK,
        {"max_refinement_iterations": 1},
        analyzer=[RIGHT_PLAN],
        executor=["<call>20-5</call>", "fifteen, I think"],
        verifier=[],
    )
    assert pay(episode) == {"analyzer": [1.0], "executor": [0.0], "verifier": []}
    assert episode.outcome is Outcome.FAILURE and episode.metrics["verifier_checks"] == 0


def test_too_many_calls(play: Any) -> None:
    episode = play(
        TASK,
        {"max_refinement_iterations": 1, "max_tool_calls": 2},
        analyzer=[RIGHT_PLAN],
        executor=["<call>20-5</call>", "<call>15/3</call>", said("5")],
        verifier=[],
    )
    assert [t.stop_reason for t in episode.of("executor")] == ["max_turns_exceeded"]
    assert pay(episode)["executor"] == [0.0]


def test_a_plan_in_prose_is_worth_what_the_executor_makes_of_it(play: Any) -> None:
    prose = said("subtract five and divide by three")
    good = play(analyzer=[prose], executor=[said("5")], verifier=[said("ok")])
    assert pay(good) == {"analyzer": [1.0], "executor": [1.0], "verifier": [1.0]}
    assert good.metrics["analyzer_success"] == 0  # what the plan itself computes to is nothing
    bad = play(analyzer=[prose], executor=[said("6")], verifier=[said("ok")])
    assert pay(bad) == {"analyzer": [0.0], "executor": [0.0], "verifier": [0.0]}


def test_a_right_answer_in_spite_of_the_plan(play: Any) -> None:
    episode = play(analyzer=[WRONG_PLAN], executor=[said("5")], verifier=[said("ok")])
    assert pay(episode) == {"analyzer": [0.0], "executor": [pytest.approx(0.7)], "verifier": [1.0]}


def test_a_verifier_that_accepts_what_is_wrong(play: Any) -> None:
    episode = play(analyzer=[WRONG_PLAN], executor=[said("25/3")], verifier=[said("ok")])
    assert episode.outcome is Outcome.FAILURE and episode.metrics["accepted"] == 1  # the loop ends on its word
    assert pay(episode)["verifier"] == [0.0] and episode.metrics["verifier_true_rejects"] == 0


def test_a_verifier_that_rejects_what_is_right(play: Any) -> None:
    episode = play(analyzer=[RIGHT_PLAN] * 2, executor=[said("5")] * 2, verifier=[said("bad"), said("ok")])
    assert pay(episode)["verifier"] == [0.0, 1.0] and episode.metrics["verifier_true_accepts"] == 0.5
    assert episode.outcome is Outcome.SUCCESS


def test_a_reply_that_was_cut_off_says_nothing(two_faced: Any) -> None:
    """Its tags may look complete, but the agent had not finished."""
    episode = run(two_faced(lambda request: (RIGHT_PLAN, False)))[0]
    assert pay(episode) == {"analyzer": [0.0] * 3, "executor": [], "verifier": []}


def test_several_components(play: Any) -> None:
    task = Task("q", "quadratic", "Solve x^2 - 5x + 6 = 0", {"unknowns": ["x"]}, 0.5, "2, 3")
    episode = play(task, analyzer=[said("(5-1)/2, (5+1)/2")], executor=[said("2, 3")], verifier=[said("ok")])
    assert pay(episode) == {"analyzer": [1.0], "executor": [1.0], "verifier": [1.0]}


# ---------------------------------------------------------------------------------------------- pay


WRONG = ["6", "25/3", "", "4, 5", "5 or 6", "5, 5", "Solve 3x + 5 = 20", "(20-5)/3", "x", "1/0", "5" * 200, "ok", "-5"]


def test_no_wrong_plan_is_worth_a_right_one(play: Any) -> None:
    """The best wrong plan scores below the plainest right one, whatever an honest executor makes of it."""

    def worth(plan: str) -> float:
        value = plan_value(plan) or plan
        reward = pay(
            play(
                TASK,
                {"max_refinement_iterations": 1},
                analyzer=[said(plan)],
                executor=[said(value)],
                verifier=[said("ok")],
            )
        )["analyzer"][0]
        assert reward is not None
        return reward

    right = ["5", "5.0", "(20-5)/3", "15/3"]
    wrong = [plan for plan in WRONG if plan_value(plan) != "5"]
    assert len(wrong) > 8
    assert max(worth(plan) for plan in wrong) == 0.0 < min(worth(plan) for plan in right) == 1.0


@pytest.mark.parametrize("plan", ["(20-5)/3", "(20+5)/3", "think hard"])
def test_no_wrong_answer_is_worth_a_right_one(play: Any, plan: str) -> None:
    def worth(answer: str) -> float:
        script = {"analyzer": [said(plan)], "executor": [said(answer)], "verifier": [said("ok")]}
        return float(pay(play(TASK, {"max_refinement_iterations": 1}, **script))["executor"][0] or 0.0)

    assert max(worth(answer) for answer in WRONG) <= 0.3 + 1e-9 < min(worth("5"), worth("5.0")) >= 0.7


@pytest.mark.parametrize(("answer", "right", "wrong"), [("5", "ok", "bad"), ("25/3", "bad", "ok")])
def test_no_wrong_verdict_is_worth_a_right_one(play: Any, answer: str, right: str, wrong: str) -> None:
    def worth(*verdict: str) -> float:
        script = {"analyzer": [RIGHT_PLAN], "executor": [said(answer)], "verifier": list(verdict)}
        return float(pay(play(TASK, {"max_refinement_iterations": 1}, **script))["verifier"][0] or 0.0)

    tricks = [wrong, wrong.upper(), f"{right}{right}", f"{right} {wrong}", "", "yes", answer, f"{right}, {wrong}"]
    assert max(worth(said(trick)) for trick in tricks) == 0.0 < worth(said(right)) == 1.0
    assert worth(said(f"{right.upper()}.")) == 1.0
    assert worth(said(right) + said(wrong)) == 0.0 and worth("no verdict at all") == 0.0
    assert worth("<call>3*5+5-20</call>", said(right)) == 1.0


def test_credit_says_what_is_paid() -> None:
    assert set(MathToolWorkflow.credit) == set(MathToolWorkflow.agent_names)


# ---------------------------------------------------------------------------------------------- the hidden truth


def corrupted(tasks: Sequence[Task]) -> list[Task]:
    return [replace(task, answer="31337", solution={"plan": ["31337"], "check": ["{0}"]}) for task in tasks]


def sampled(episodes: Sequence[Episode]) -> list[Any]:
    return [(e.id, s.id, s.tokens.prompt_ids, s.tokens.response_ids) for e in episodes for s in e.steps() if s.tokens]


def eager(tiny_model: Any) -> LocalEngine:
    """A random model that likes tags, a digit and ending: at times it plans and answers something."""
    model = tiny_model(seed=3, layers=1)
    liked = [model.tokenizer.convert_tokens_to_ids(t) for t in ("<ans>", "</ans>", "<|end|>", "1")]
    with torch.no_grad():
        weight = model.network.get_input_embeddings().weight
        weight[:, 0] = 1.0
        weight[liked] = 0.0
        weight[liked, 0] = torch.tensor([3.0, 3.0, 2.75, 3.0])
    return LocalEngine({"team": Policy("team", model)})


def test_the_truth_is_never_read_inside_the_loop(tiny_model: Any) -> None:
    """A real model's tokens are the same with right and with corrupted answers; only the pay differs."""
    tasks = MathProblemGenerator((0.0, 0.0), seed=5, kinds=("linear",)).generate(12)
    first = run(eager(tiny_model), tasks, rollouts=8)
    second = run(eager(tiny_model), corrupted(tasks), rollouts=8)
    assert sampled(first) == sampled(second)
    assert sum(episode.metrics["verifier_checks"] for episode in first) >= 5  # they got somewhere


def test_the_truth_is_never_read_by_a_team_that_gets_everywhere(two_faced: Any) -> None:
    tasks = MathProblemGenerator((0.5, 0.5), seed=6, kinds=("linear", "quadratic")).generate(20)
    plans = {task.id: ", ".join(task.solution["plan"]) for task in tasks}

    def say(request: Any) -> str:
        *_, task, _, agent, _ = request.key
        rng = random.Random(repr(request.key))
        if agent == "analyzer":
            return rng.choice([said(plans[task]), said("7"), "nothing"])
        if agent == "executor":
            return rng.choice([said(plan_value(plans[task]) or ""), "<call>2*3</call>", said("6")])
        return rng.choice([said("ok"), said("bad"), "<call>1-1</call>"])

    first, second = run(two_faced(say), tasks), run(two_faced(say), corrupted(tasks))
    assert sampled(first) == sampled(second)
    solved = [e.outcome is Outcome.SUCCESS for e in first]
    assert 3 < sum(solved) < 20 and not any(e.outcome is Outcome.SUCCESS for e in second)
    assert {e.metrics["total_iterations"] for e in first} == {1.0, 2.0, 3.0}


# ---------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_refinement_iterations": 0}, "max_refinement_iterations must be at least 1, found 0"),
        ({"prompts": "compct"}, r"prompts='compct' is not known \(did you mean 'compact'\?\)"),
        ({"prompts": {"analyzer": "plan", "executor": "do"}}, "no system prompt for the agent 'verifier'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**arguments)


def test_prompts_may_be_given(tiny: Any) -> None:
    own = {name: f"you are the {name}" for name in MathToolWorkflow.agent_names}
    script = {"analyzer": RIGHT_PLAN, "executor": said("5"), "verifier": said("ok")}
    [episode] = run(ScriptedEngine(tiny.format, lambda request: script[request.key[-2]]), prompts=own)
    assert [t.steps[0].observation[0]["content"] for t in episode.trajectories] == list(own.values())
    assert set(PROMPTS["instruct"]) == set(PROMPTS["compact"]) == set(own)


@pytest.mark.parametrize(
    ("plan", "value"),
    [
        ("(20-5)/3", "5"),
        ("7/3", "7/3"),
        ("1+1, 2*3", "2, 6"),
        ("take five", None),
        ("1/0", None),
        (None, None),
        ("", None),
    ],
)
def test_what_a_plan_computes_to(plan: str | None, value: str | None) -> None:
    assert plan_value(plan) == value
