"""The coding team: every branch of its loop, what each is paid, and that neither the truth nor a trick decides."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from troupe.agents import AgentSpec
from troupe.engines.scripted import ScriptedEngine
from troupe.episode import Episode, Outcome, Problem, Sampling, Task
from troupe.errors import ConfigError
from troupe.rewards.code import CodeRewardConfig, code_reward_fn
from troupe.sandbox.remembered import Remembered
from troupe.tasks.code import CodeProblemGenerator
from troupe.tools.run_tests import RunTests
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync
from troupe.workflows.deepcoder import PROMPTS, DeepCoderWorkflow, first_failure, public_tests

PUBLIC = [{"args": [4], "value": 14}, {"args": [0], "value": 2}]
HIDDEN = [{"args": [x], "value": 3 * x + 2} for x in range(-5, 15)]
PROMPT = "Write f(x): multiply by 3; then add 2."
TASK = Task("t", "arithmetic", PROMPT, {"entry": "f", "public": PUBLIC}, 0.5, HIDDEN)
RIGHT = "def f(x):\n return x*3+2"
FIRST_FAILS = "def f(x):\n return x+2"  # 6 and 2
SECOND_FAILS = "def f(x):\n return x*3+2 if x else 0"  # 14 and 0
LUCKY = "def f(x):\n return x*3+2 if x in (0, 4) else 0"  # both public tests pass
SIX = {
    "generator_success", "test_runner_analyses", "refiner_attempts", "refiner_success_rate", "total_iterations",
    "final_success",
}  # fmt: skip


def said(text: str) -> str:
    return f"<ans>{text}</ans>"


RUN = "<call>run</call>"


@pytest.fixture(scope="session")
def tools(sandbox: Any) -> dict[str, Any]:  # noqa: F811
    remembered = Remembered(sandbox)
    return {"reward_function": partial(code_reward_fn, sandbox=remembered), "run_tests": RunTests(remembered)}


def run(
    engine: Any, arguments: Mapping[str, Any], tasks: Sequence[Task] = (TASK,), *, pay: bool = True
) -> list[Episode]:
    specs = {name: AgentSpec("team", Sampling(64)) for name in DeepCoderWorkflow.agent_names}

    def make() -> DeepCoderWorkflow:
        return DeepCoderWorkflow(**{"prompts": "compact", **arguments})

    settings = RolloutSettings((0, 1), "test")
    return run_episodes_sync([Job(task) for task in tasks], make, engine, specs, settings, pay=pay)


@pytest.fixture
def play(tiny: Any, tools: dict[str, Any]) -> Any:
    """`play(generator=[...], test_runner=[...], refiner=[...])`: what each says at its calls."""

    def build(task: Task = TASK, arguments: Mapping[str, Any] | None = None, **script: Sequence[str]) -> Episode:
        engine = ScriptedEngine(tiny.format, lambda request: script[request.key[-2]][request.key[-1]])
        return run(engine, {**tools, **(arguments or {})}, [task])[0]

    return build


def paid(episode: Episode) -> dict[str, list[float | None]]:
    return {agent: [t.reward for t in episode.of(agent)] for agent in DeepCoderWorkflow.agent_names}


# ---------------------------------------------------------------------------------------------- branches


def test_right_at_once(play: Any) -> None:
    episode = play(generator=[said(RIGHT)], test_runner=[RUN, said("ok")], refiner=[])
    assert episode.outcome is Outcome.SUCCESS and episode.metadata["answer"] == RIGHT
    assert paid(episode) == {"generator": [1.0], "test_runner": [1.0], "refiner": []}
    assert dict(episode.metrics) == {
        "generator_success": 1.0, "test_runner_analyses": 1.0, "refiner_attempts": 0.0, "total_iterations": 0.0,
        "final_success": 1.0,
    }  # fmt: skip
    asked = episode.of("generator")[0].steps[0].observation
    assert [m["content"] for m in asked] == ["write", f"f(4)==14\nf(0)==2\n{PROMPT}"]
    looked, concluded = episode.of("test_runner")[0].steps
    assert looked.observation[1]["content"] == f"{PROMPT}\nProgram:\n{RIGHT}"
    assert [m["content"] for m in concluded.observation] == ["f(4)==14 gives 14\nf(0)==2 gives 2"]
    assert concluded.parent == looked.id


def test_wrong_twice_then_repaired(play: Any) -> None:
    """Document 004's example: three analyses, two refinements, one of which is right."""
    episode = play(
        generator=[said(FIRST_FAILS)],
        test_runner=[RUN, said("1"), RUN, said("2: it gives 0"), RUN, said("ok")],
        refiner=[said(SECOND_FAILS), said(RIGHT)],
    )
    assert episode.outcome is Outcome.SUCCESS and episode.metadata["answer"] == RIGHT
    assert paid(episode) == {"generator": [0.0], "test_runner": [1.0, 1.0, 1.0], "refiner": [0.0, 1.0]}
    assert dict(episode.metrics) == {
        "generator_success": 0.0, "test_runner_analyses": 3.0, "refiner_attempts": 2.0, "refiner_success_rate": 0.5,
        "total_iterations": 2.0, "final_success": 1.0,
    }  # fmt: skip
    assert set(episode.metrics) == SIX
    asked = episode.of("refiner")[1].steps[0].observation[1]["content"]
    assert asked == f"Program:\n{SECOND_FAILS}\nTests: 2: it gives 0\nf(4)==14\nf(0)==2\n{PROMPT}"


def test_a_reward_function_may_pay_in_part(play: Any, tools: dict[str, Any]) -> None:
    """What it pays is what the authors get; right is still all or nothing."""
    config = CodeRewardConfig(correct_reward=2.0, incorrect_reward=-1.0, partial_reward=1.0)
    arguments = {"reward_function": partial(tools["reward_function"], config=config)}
    script = {"generator": ["I cannot"], "test_runner": [RUN, said("1"), RUN, said("ok")]}
    nearly = "def f(x):\n return x*3+2 if x else 0"
    episode = play(TASK, arguments, **script, refiner=[said(nearly), said(RIGHT)])
    assert paid(episode)["generator"] == [-1.0] and paid(episode)["test_runner"] == [0.0, 1.0]
    assert paid(episode)["refiner"] == [pytest.approx(-0.05), 2.0]
    assert episode.metrics["refiner_success_rate"] == 0.5 and episode.outcome is Outcome.SUCCESS


def test_refinements_are_used_up(play: Any) -> None:
    episode = play(
        TASK,
        {"max_refinement_iterations": 2},
        generator=[said(FIRST_FAILS)],
        test_runner=[RUN, said("1")] * 2,
        refiner=[said(FIRST_FAILS), said(SECOND_FAILS)],
    )
    assert episode.outcome is Outcome.FAILURE and episode.metadata["answer"] == SECOND_FAILS
    assert episode.metrics["refiner_success_rate"] == 0.0 and episode.metrics["test_runner_analyses"] == 2.0


def test_the_loop_ends_where_the_public_tests_pass_right_or_wrong(play: Any) -> None:
    episode = play(generator=[said(LUCKY)], test_runner=[RUN, said("ok")], refiner=[])
    assert episode.outcome is Outcome.FAILURE
    assert paid(episode) == {"generator": [0.0], "test_runner": [1.0], "refiner": []}


def test_the_loop_does_not_end_on_a_wrong_word(play: Any) -> None:
    episode = play(generator=[said(FIRST_FAILS)], test_runner=[RUN, said("ok"), said("ok")], refiner=[said(RIGHT)])
    assert paid(episode) == {"generator": [0.0], "test_runner": [0.0, 1.0], "refiner": [1.0]}


def test_without_a_program_nothing_is_run_and_the_refiner_may_still_write_one(play: Any) -> None:
    episode = play(generator=["I cannot"], test_runner=[RUN, said("ok")], refiner=[said(RIGHT)])
    assert episode.outcome is Outcome.SUCCESS
    assert paid(episode) == {"generator": [0.0], "test_runner": [1.0], "refiner": [1.0]}
    assert episode.of("refiner")[0].steps[0].observation[1]["content"].startswith("Program:\nnone\nTests: failed\n")


def test_a_test_runner_that_only_calls_has_said_nothing(play: Any) -> None:
    episode = play(generator=[said(RIGHT)], test_runner=[RUN, RUN], refiner=[])
    assert paid(episode)["test_runner"] == [0.0]
    assert [t.stop_reason for t in episode.of("test_runner")] == ["max_turns_exceeded"]


def test_a_test_runner_may_call_by_name(play: Any) -> None:
    call = '<tool_call>{"name": "run_tests", "arguments": {}}</tool_call>'
    episode = play(generator=[said(RIGHT)], test_runner=[call, said("ok")], refiner=[])
    assert episode.of("test_runner")[0].steps[1].observation[0]["content"] == "f(4)==14 gives 14\nf(0)==2 gives 2"


def test_errors_are_shown(play: Any) -> None:
    broken = "def f(x):\n return y"
    episode = play(generator=[said(broken)], test_runner=[RUN, said("1"), RUN, said("ok")], refiner=[said(RIGHT)])
    shown = episode.of("test_runner")[0].steps[1].observation[0]["content"].splitlines()
    assert shown[0] == "f(4)==14 gives error: NameError: name 'y' is not defined"


def test_a_reply_that_was_cut_off_holds_no_program(two_faced: Any, tools: dict[str, Any]) -> None:
    [episode] = run(two_faced(lambda request: (said(RIGHT), False)), {**tools, "max_refinement_iterations": 1})
    assert paid(episode) == {"generator": [0.0], "test_runner": [], "refiner": [0.0]}


def test_programs_in_fenced_blocks(play: Any) -> None:
    episode = play(generator=[f"So:\n```python\n{RIGHT}\n```\n"], test_runner=[RUN, said("ok")], refiner=[])
    assert episode.metadata["answer"] == RIGHT and episode.outcome is Outcome.SUCCESS


# ---------------------------------------------------------------------------------------------- other problems


def test_tests_in_the_prompt_are_run(play: Any) -> None:
    asked = Task("asked", "asked", f"{PROMPT}\nf(4)==14\nassert f(0) == 2", answer=HIDDEN)
    script = {"test_runner": [RUN, said("2"), RUN, said("ok")], "refiner": [said(RIGHT)]}
    episode = play(asked, generator=[said(SECOND_FAILS)], **script)
    assert episode.outcome is Outcome.SUCCESS and paid(episode)["test_runner"] == [1.0, 1.0]
    assert episode.of("generator")[0].steps[0].observation[1]["content"] == asked.prompt  # shown once
    assert public_tests(asked.problem) == ("f", PUBLIC)


def test_without_tests_the_first_program_is_the_answer(tiny: Any, tools: dict[str, Any]) -> None:
    engine = ScriptedEngine(tiny.format, lambda request: said(RIGHT))
    [episode] = run(engine, tools, [Task("asked", "asked", "Write f.")], pay=False)
    assert episode.metadata["answer"] == RIGHT
    assert {t.agent for t in episode.trajectories} == {"generator"}


def test_programs_that_read_their_input(play: Any) -> None:
    cases = [{"stdin": f"{n}\n", "stdout": f"{n * n}\n"} for n in (3, 5, 8)]
    task = Task("s", "stdin", "Square.", {"public": cases[:1]}, answer=cases)
    right = "print(int(input()) ** 2)"
    script = {"test_runner": [RUN, said("1"), RUN, said("ok")], "refiner": [said(right)]}
    episode = play(task, generator=[said("print(6)")], **script)
    assert paid(episode) == {"generator": [0.0], "test_runner": [1.0, 1.0], "refiner": [1.0]}
    assert episode.of("generator")[0].steps[0].observation[1]["content"] == "input:\n3\noutput:\n9\nSquare."
    assert episode.of("test_runner")[0].steps[1].observation[0]["content"] == "input:\n3\noutput:\n9 gives 6"


# ---------------------------------------------------------------------------------------------- pay


@pytest.mark.parametrize(
    ("program", "truth"), [(RIGHT, "ok"), (LUCKY, "ok"), (FIRST_FAILS, "1"), (SECOND_FAILS, "2"), ("def f(", "1")]
)
def test_no_wrong_diagnosis_is_worth_a_right_one(play: Any, program: str, truth: str) -> None:
    def worth(*words: str) -> float:
        script = {"generator": [said(program)], "test_runner": list(words), "refiner": [said(RIGHT)]}
        return float(paid(play(TASK, {"max_refinement_iterations": 1}, **script))["test_runner"][0] or 0.0)

    others = [word for word in ("ok", "1", "2", "3", "0", "-1", "01", "1.0") if word != truth]
    tricks = [
        *others,
        "ok 1 2",
        "1, 2",
        "ok or 1",
        "all",
        "",
        "okay",
        "first",
        f"not {truth}",
        "1 2 ok",
        "none",
        PROMPT,
    ]
    assert max(worth(said(trick)) for trick in tricks) == 0.0
    assert worth("no diagnosis at all") == 0.0 and worth(RUN, RUN) == 0.0
    assert worth(said(truth)) == worth(RUN, said(truth)) == worth(RUN, said(f"{truth}: because")) == 1.0
    assert worth(said(f"{truth.upper()}.")) == 1.0


@pytest.mark.parametrize(
    "wrong", ["def f(x):\n return {4: 14, 0: 2}.get(x)", LUCKY, "def f(x):\n return 14", "pass", ""]
)
def test_no_wrong_program_is_worth_a_right_one(play: Any, wrong: str) -> None:
    words = [RUN, said("1")] * 2
    settings = {"max_refinement_iterations": 1}
    first = play(TASK, settings, generator=[said(wrong)], test_runner=words, refiner=[said(wrong)])
    assert set(paid(first)["generator"] + paid(first)["refiner"]) == {0.0}
    second = play(TASK, settings, generator=[said(RIGHT)], test_runner=words, refiner=[])
    assert paid(second)["generator"] == [1.0]


def test_the_generator_is_not_paid_for_the_refiners_work(play: Any) -> None:
    episode = play(generator=[said(FIRST_FAILS)], test_runner=[RUN, said("1"), RUN, said("ok")], refiner=[said(RIGHT)])
    assert paid(episode) == {"generator": [0.0], "test_runner": [1.0, 1.0], "refiner": [1.0]}


def test_every_agents_reward_varies(two_faced: Any, tools: dict[str, Any]) -> None:
    episodes = run(two_faced(babble), tools, CodeProblemGenerator(seed=2).generate(24))
    for agent in DeepCoderWorkflow.agent_names:
        assert {t.reward for e in episodes for t in e.of(agent)} == {0.0, 1.0}


def test_credit_says_what_is_paid() -> None:
    assert set(DeepCoderWorkflow.credit) == set(DeepCoderWorkflow.agent_names)


# ---------------------------------------------------------------------------------------------- the hidden truth

SOLUTIONS = {task.id: task.solution for task in CodeProblemGenerator(seed=2).generate(24)}


def babble(request: Any) -> str:
    """A team that gets everywhere: right and wrong programs and diagnoses, by chance."""
    *_, task, _, agent, _ = request.key
    rng = random.Random(repr(request.key))
    if agent == "test_runner":
        return rng.choice([RUN, said("ok"), said("1"), said("2: odd")])
    solution = SOLUTIONS[task]
    return rng.choice([said(solution["program"]), said(rng.choice(solution["mutants"])), "nothing"])


def sampled(episodes: Sequence[Episode]) -> list[Any]:
    return [(e.id, s.id, s.tokens.prompt_ids, s.tokens.response_ids) for e in episodes for s in e.steps() if s.tokens]


def test_the_truth_is_never_read_inside_the_loop(two_faced: Any, tools: dict[str, Any]) -> None:
    """With other hidden tests the team says and does the same; only the pay differs."""
    tasks = CodeProblemGenerator(seed=2).generate(24)
    corrupted = [replace(t, answer=[{"args": c["args"], "value": "?"} for c in t.answer], solution=None) for t in tasks]
    first, second = run(two_faced(babble), tools, tasks), run(two_faced(babble), tools, corrupted)
    assert sampled(first) == sampled(second)
    solved = sum(e.outcome is Outcome.SUCCESS for e in first)
    assert 3 < solved < 24 and not any(e.outcome is Outcome.SUCCESS for e in second)
    assert {e.metrics["total_iterations"] for e in first} >= {0.0, 1.0, 2.0}
    unpaid = run(two_faced(babble), tools, tasks, pay=False)
    assert sampled(unpaid) == sampled(first) and all(
        e.metadata["answer"] == f.metadata["answer"] for e, f in zip(unpaid, first, strict=True)
    )


# ---------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_refinement_iterations": 0}, "max_refinement_iterations must be at least 1, found 0"),
        ({"prompts": "compct"}, r"prompts='compct' is not known \(did you mean 'compact'\?\)"),
        ({"prompts": {"generator": "write", "refiner": "fix"}}, "no system prompt for the agent 'test_runner'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DeepCoderWorkflow(reward_function=code_reward_fn, run_tests=lambda *_: None, **arguments)  # type: ignore[arg-type]


def test_prompts_may_be_given(play: Any) -> None:
    own = {name: f"you are the {name}" for name in DeepCoderWorkflow.agent_names}
    script = {"generator": [said(FIRST_FAILS)], "test_runner": [said("1"), said("ok")], "refiner": [said(RIGHT)]}
    episode = play(TASK, {"prompts": own}, **script)
    spoken = {t.agent: t.steps[0].observation[0]["content"] for t in episode.trajectories}
    assert spoken == own and set(PROMPTS["instruct"]) == set(PROMPTS["compact"]) == set(own)


@pytest.mark.parametrize(
    ("passed", "first"), [((True, True), "ok"), ((False, True), "1"), ((True, False), "2"), ((False, False), "1")]
)
def test_the_first_failure(passed: Sequence[bool], first: str) -> None:
    assert first_failure(passed) == first


def test_lines_that_are_no_tests_are_none() -> None:
    prompt = "Write f.\nf(x)==1\ng(1)==2\nf(2)>1\nf(2)==4\nx==3\n\nf([1,2],'a')==(1,)"
    assert public_tests(Problem("p", "asked", prompt)) == (
        "f",
        [{"args": [2], "value": 4}, {"args": [[1, 2], "a"], "value": {"tuple": [1]}}],
    )
