"""The SWE team: every branch of its loop, what each agent is paid, and that neither the truth nor a trick decides."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from troupe.agents import AgentSpec
from troupe.engines.local import LocalEngine
from troupe.engines.scripted import ScriptedEngine
from troupe.episode import Episode, Outcome, Sampling, Task
from troupe.errors import ConfigError, DataError
from troupe.models.language import Policy
from troupe.protocols import Reward
from troupe.rewards.swe import locates, swe_reward_fn
from troupe.sandbox.listings import listing
from troupe.sandbox.patches import PatchError, apply_patch, make_patch
from troupe.tasks.bugs import BugGenerator
from troupe.tools.files import Workspace
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync
from troupe.workflows import TEACHERS, WORKFLOWS
from troupe.workflows.swe import PROMPTS, RUN, SWEWorkflow, as_patch, location_in, region

FILES = {
    "a.py": "def f(x):\n  y = x*3\n  return y-2\n",
    "b.py": "def g(x):\n  return x\n",
}
CALLS = [{"module": "a", "function": "f", "args": [x], "value": 3 * x + 2} for x in (4, 0)]
TASK = Task(
    id="t",
    kind="operator",
    prompt="the listing\ntest_f: f(4) is 10, not 14",
    data={"files": FILES, "issue": "test_f: f(4) is 10, not 14", "tests": {"calls": CALLS[:1]}},
    answer={"tests": {"calls": CALLS}, "fault": [["a.py", 3]]},
)
FIXED = {**FILES, "a.py": "def f(x):\n  y = x*3\n  return y+2\n"}
PLACE, FIX = "<ans>a.py:3</ans>", "<ans>3: return y+2</ans>"
WRONG, CHEAT = "<ans>3: return y+3</ans>", "<ans>3: return 14</ans>"  # the second passes the visible test
OK, BAD = "<ans>ok</ans>", "<ans>bad</ans>"


@pytest.fixture
def make(sandbox: Any) -> Any:  # noqa: F811
    def build(**arguments: Any) -> SWEWorkflow:
        settings = {
            "reward_function": partial(swe_reward_fn, sandbox=sandbox),
            "location_function": locates,
            "workspace": partial(Workspace, sandbox=sandbox),
            "prompts": "compact",
        }
        return SWEWorkflow(**{**settings, **arguments})

    return build


@pytest.fixture
def run(make: Any) -> Any:
    def episodes(engine: Any, tasks: Sequence[Task], rollouts: int = 1, **arguments: Any) -> list[Episode]:
        specs = {name: AgentSpec("team", Sampling(16)) for name in SWEWorkflow.agent_names}
        jobs = [Job(task, rollout) for task in tasks for rollout in range(rollouts)]
        return run_episodes_sync(jobs, lambda: make(**arguments), engine, specs, RolloutSettings((0, 1), "test"))

    return episodes


@pytest.fixture
def play(tiny: Any, run: Any) -> Any:
    """`play(analyzer=[...], writer=[...], validator=[...])`: what each says at its calls."""

    def build(task: Task = TASK, arguments: Mapping[str, Any] | None = None, **script: Sequence[str]) -> Episode:
        engine = ScriptedEngine(tiny.format, lambda request: script[request.key[-2]][request.key[-1]])
        return run(engine, [task], **(arguments or {}))[0]

    return build


def pay(episode: Episode) -> dict[str, list[float | None]]:
    return {agent: [t.reward for t in episode.of(agent)] for agent in SWEWorkflow.agent_names}


def heard(episode: Episode, agent: str) -> list[str]:
    """What an agent was told, step by step."""
    return [said["content"] for t in episode.of(agent) for step in t.steps for said in step.observation]


# ---------------------------------------------------------------------------------------------- branches


def test_right_at_once(play: Any) -> None:
    episode = play(analyzer=[PLACE], writer=[FIX], validator=[RUN, OK])
    assert episode.outcome is Outcome.SUCCESS
    assert apply_patch(FILES, episode.metadata["answer"]) == FIXED
    assert pay(episode) == {"analyzer": [1.0], "writer": [1.0], "validator": [1.0]}
    expected = {
        "analyzer_runs": 1,
        "analyzer_success": 1,
        "writer_attempts": 1,
        "writer_success_rate": 1,
        "patch_applies": 1,
        "validator_checks": 1,
        "validator_true_accepts": 1,
        "tool_calls": 1,
        "total_iterations": 1,
        "accepted": 1,
        "final_success": 1,
    }
    assert episode.metrics == expected
    assert heard(episode, "analyzer") == ["find", TASK.prompt]
    assert heard(episode, "writer") == [
        "fix",
        f"{TASK.data['issue']}\nFault: a.py:3\n1 def f(x):\n2   y = x*3\n3   return y-2",
    ]
    assert heard(episode, "validator") == ["judge", f"{TASK.data['issue']}\nPatch: 3: return y+2", "ok"]


def test_rejected_then_right(play: Any) -> None:
    episode = play(analyzer=[PLACE, PLACE], writer=[WRONG, FIX], validator=[RUN, BAD, RUN, OK])
    assert episode.outcome is Outcome.SUCCESS
    assert pay(episode) == {"analyzer": [1.0, 1.0], "writer": [0.0, 1.0], "validator": [1.0, 1.0]}
    metrics = episode.metrics
    assert (metrics["total_iterations"], metrics["writer_attempts"], metrics["writer_success_rate"]) == (2, 2, 0.5)
    assert (metrics["validator_true_accepts"], metrics["validator_true_rejects"]) == (1, 1)
    second = episode.of("analyzer")[1].steps[0]
    assert second.parent == "analyzer/0" and heard(episode, "analyzer")[2:] == ["Rejected: 3: return y+3"]
    assert heard(episode, "validator")[2] == "f(4) is 15, not 14"


def test_the_loop_ends_on_the_validators_word_and_not_on_the_truth(play: Any) -> None:
    """It rejects the right patch, and then accepts one that the visible test cannot tell from it."""
    episode = play(analyzer=[PLACE, PLACE], writer=[FIX, CHEAT], validator=[BAD, RUN, OK])
    assert episode.outcome is Outcome.FAILURE and episode.metrics["accepted"] == 1
    assert heard(episode, "validator")[-1] == "ok"
    assert pay(episode) == {"analyzer": [1.0, 1.0], "writer": [1.0, 0.0], "validator": [0.0, 0.0]}
    assert (episode.metrics["validator_true_accepts"], episode.metrics["validator_true_rejects"]) == (0, 0)


def test_a_reward_function_may_pay_in_part(play: Any) -> None:
    def graded(task: Task, patch: str | None) -> Reward:
        right = patch is not None and "y+2" in patch
        return Reward(1.0 if right else -0.5 if patch is None else 0.25, right, {})

    episode = play(
        TASK,
        {"reward_function": graded},
        analyzer=[PLACE] * 3,
        writer=["<ans>?</ans>", WRONG, FIX],
        validator=[BAD, OK],
    )
    assert pay(episode)["writer"] == [-0.5, 0.25, 1.0] and episode.metrics["writer_success_rate"] == 1 / 3
    assert episode.outcome is Outcome.SUCCESS and pay(episode)["validator"] == [1.0, 1.0]


def test_nobody_accepts(play: Any) -> None:
    episode = play(
        TASK, {"max_refinement_iterations": 2}, analyzer=[PLACE] * 2, writer=[WRONG] * 2, validator=[BAD] * 2
    )
    assert episode.outcome is Outcome.FAILURE and episode.metrics["accepted"] == 0
    assert episode.metrics["total_iterations"] == 2


@pytest.mark.parametrize(
    "said", ["somewhere", "<ans>a.py</ans>", "<ans>c.py:1</ans>", "<ans>a.py:4</ans>", "<ans>3</ans>"]
)
def test_an_analysis_that_names_no_line_ends_the_cycle(play: Any, said: str) -> None:
    episode = play(TASK, {"max_refinement_iterations": 1}, analyzer=[said], writer=[], validator=[])
    assert pay(episode) == {"analyzer": [0.0], "writer": [], "validator": []}
    assert episode.metadata["answer"] is None and "patch_applies" not in episode.metrics


@pytest.mark.parametrize(
    "said", ["<ans>?</ans>", "<ans>3: return y-2</ans>", "<ans>9: x</ans>", "<ans>3 return y</ans>", "y+2"]
)
def test_a_patch_that_applies_to_nothing_is_not_validated(play: Any, said: str) -> None:
    episode = play(
        TASK,
        {"max_refinement_iterations": 2},
        analyzer=["<ans>b.py:2</ans>", PLACE],
        writer=[said, FIX],
        validator=[OK],
    )
    assert heard(episode, "analyzer")[2] == "Rejected: b.py:2"
    assert pay(episode) == {"analyzer": [0.0, 1.0], "writer": [0.0, 1.0], "validator": [1.0]}
    assert episode.metrics["patch_applies"] == 0.5 and episode.metrics["analyzer_success"] == 0


def test_a_unified_diff_is_a_patch(play: Any) -> None:
    diff = make_patch(FILES, FIXED)
    episode = play(analyzer=["<ans>b.py:1</ans>"], writer=[f"<ans>{diff}</ans>"], validator=[OK])
    assert episode.outcome is Outcome.SUCCESS and pay(episode)["analyzer"] == [0.0]
    assert episode.metadata["answer"] == diff
    wrong = play(
        TASK,
        {"max_refinement_iterations": 1},
        analyzer=[PLACE],
        writer=[f"<ans>{diff.replace('y-2', 'y-1')}</ans>"],
        validator=[],
    )
    assert wrong.metadata["answer"] is None and wrong.metrics["patch_applies"] == 0


def test_agents_use_the_tools_of_a_working_copy(play: Any) -> None:
    read = '<tool_call>{"name": "read", "arguments": {"path": "a.py", "start": 3}}</tool_call>'
    edit = '<tool_call>{"name": "edit", "arguments": {"path": "a.py", "line": 3, "text": "  return y+2"}}</tool_call>'
    episode = play(
        analyzer=['<tool_call>{"name": "search", "arguments": {"text": "y-2"}}</tool_call>', PLACE],
        writer=[read, edit, RUN, "It is done."],
        validator=[RUN, OK],
    )
    assert episode.outcome is Outcome.SUCCESS and episode.metrics["tool_calls"] == 5
    assert heard(episode, "analyzer")[2] == "a.py:3: return y-2"
    assert heard(episode, "writer")[2:] == ["3   return y-2", "ok", "ok"]
    assert apply_patch(FILES, episode.metadata["answer"]) == FIXED
    assert "Patch: diff --git a/a.py b/a.py" in heard(episode, "validator")[1]


def test_a_writer_that_edits_and_never_stops_has_no_patch(play: Any) -> None:
    edit = '<tool_call>{"name": "edit", "arguments": {"path": "a.py", "line": 3, "text": "  return y+2"}}</tool_call>'
    arguments = {"max_refinement_iterations": 1, "max_tool_calls": 2}
    episode = play(TASK, arguments, analyzer=[PLACE], writer=[edit, edit], validator=[])
    assert [t.stop_reason for t in episode.of("writer")] == ["max_turns_exceeded"]
    assert episode.metadata["answer"] is None and pay(episode)["writer"] == [0.0]


# ---------------------------------------------------------------------------------------------- the truth stays outside


BUGS = {task.id: task for task in BugGenerator((0.5, 0.5), 2).generate(24)}


def babble(request: Any) -> str:
    """A team that gets everywhere: right and wrong places, patches and verdicts, by chance."""
    *_, task, _, agent, _ = request.key
    rng = random.Random(repr(request.key))
    path, line, text = (BUGS[task].solution[key] for key in ("path", "line", "text"))
    if agent == "analyzer":
        return rng.choice([f"<ans>{path}:{line}</ans>"] * 3 + [f"<ans>{path}:1</ans>", "nowhere"])
    if agent == "writer":
        return rng.choice([f"<ans>{path}:{line}:{text}</ans>"] * 2 + [f"<ans>{line}: return 1</ans>", "<ans>?</ans>"])
    return rng.choice([RUN, OK, BAD])


def test_the_truth_is_never_read_inside_the_loop(run: Any, tiny: Any) -> None:
    """With another bug's tests and fault the team hears, says and does the same; only the pay differs."""
    tasks = list(BUGS.values())
    others = [replace(a, answer=b.answer, solution=None) for a, b in zip(tasks, tasks[1:] + tasks[:1], strict=True)]
    first, second = (run(ScriptedEngine(tiny.format, babble), set_) for set_ in (tasks, others))
    spoken = [
        [(e.id, s.id, s.observation, s.action, e.metadata["answer"]) for e in episodes for s in e.steps()]
        for episodes in (first, second)
    ]
    assert spoken[0] == spoken[1]
    assert 3 < sum(e.outcome is Outcome.SUCCESS for e in first) < 24
    assert not any(e.outcome is Outcome.SUCCESS for e in second)
    assert {e.metrics["total_iterations"] for e in first} == {1.0, 2.0, 3.0}
    for agent in SWEWorkflow.agent_names:
        assert {t.reward for e in first for t in e.of(agent)} == {0.0, 1.0}


@pytest.mark.parametrize("said", ["", "everywhere", "1 2 3", "a.py", "a.py:1 a.py:2 a.py:3", "a.py:2,a.py:3", "*:3"])
def test_no_wrong_place_is_worth_the_right_one(play: Any, said: str) -> None:
    settings = {"max_refinement_iterations": 1}
    wrong = play(TASK, settings, analyzer=[f"<ans>{said}</ans>"], writer=[FIX], validator=[OK])
    right = play(TASK, settings, analyzer=[PLACE], writer=[FIX], validator=[OK])
    assert (pay(wrong)["analyzer"], pay(right)["analyzer"]) == ([0.0], [1.0])


@pytest.mark.parametrize("edit", [FIX, WRONG, CHEAT])
def test_no_wrong_verdict_is_worth_the_right_one(play: Any, edit: str) -> None:
    settings = {"max_refinement_iterations": 1, "max_tool_calls": 2}

    def worth(*words: str) -> float:
        return pay(play(TASK, settings, analyzer=[PLACE], writer=[edit], validator=words))["validator"][0]

    truth, other = (OK, BAD) if edit == FIX else (BAD, OK)
    tricks = (
        other,
        "<ans>ok bad</ans>",
        "<ans>ok or bad</ans>",
        "<ans>okbad</ans>",
        "<ans>1</ans>",
        "<ans></ans>",
        "ok",
    )
    assert max(map(worth, tricks)) == worth(RUN, RUN) == 0.0
    assert worth(truth) == worth(RUN, truth) == 1.0


def test_corrupted_answers_change_pay_and_no_token(run: Any, tiny: Any) -> None:
    engine = LocalEngine({"team": Policy("team", tiny)})
    corrupted = replace(TASK, answer={"tests": {"calls": [{**CALLS[0], "value": 1}]}, "fault": [["b.py", 1]]})
    runs = [run(engine, [task], rollouts=4) for task in (TASK, corrupted)]
    sampled = [[step.tokens.response_ids for e in episodes for step in e.steps()] for episodes in runs]
    assert sampled[0] == sampled[1]


def test_every_agent_is_paid_by_the_hidden_tests_alone(play: Any) -> None:
    other = replace(TASK, answer={"tests": {"calls": [{**CALLS[0], "value": 15}]}, "fault": [["a.py", 2]]})
    episode = play(other, analyzer=[PLACE], writer=[FIX], validator=[RUN, OK])
    assert pay(episode) == {"analyzer": [0.0], "writer": [0.0], "validator": [0.0]}


def test_a_task_without_files_says_what_is_missing(play: Any) -> None:
    task = replace(TASK, data={"repository": "org/repo at 1f0a"})
    with pytest.raises(DataError, match=r"task t lacks a checkout of org/repo at 1f0a; add one with with_checkout"):
        play(task, analyzer=[PLACE], writer=[FIX], validator=[OK])


def test_a_problem_may_be_a_text_alone(play: Any) -> None:
    task = Task("asked", "asked", f"{listing(FILES)}\ntest_f: f(4) is 10, not 14", answer=TASK.answer)
    episode = play(task, analyzer=[PLACE, PLACE], writer=[WRONG, FIX], validator=[RUN, BAD, RUN, OK])
    assert episode.outcome is Outcome.SUCCESS
    assert heard(episode, "validator")[1:3] == [
        "test_f: f(4) is 10, not 14\nPatch: 3: return y+3",
        "f(4) is 15, not 14",
    ]
    with pytest.raises(DataError, match="task t lacks its files; put them into"):
        play(replace(TASK, data={}), analyzer=[PLACE], writer=[FIX], validator=[OK])


# ---------------------------------------------------------------------------------------------- words


def test_locations() -> None:
    assert location_in("a.py:3", FILES) == ("a.py", 3) and location_in(" b.py:1 f", FILES) == ("b.py", 1)
    assert location_in("2", {"b.py": FILES["b.py"]}) == ("b.py", 2)
    for said in (None, "", "a.py:0", "a.py:4", "a.py:-1", "c.py:1", "2", "a.py", "line 3"):
        assert location_in(said, FILES) is None


def test_regions() -> None:
    assert region(FILES, "a.py", 2, 0) == "Fault: a.py:2\n2   y = x*3"
    assert region(FILES, "b.py", 1, 9) == "Fault: b.py:1\n1 def g(x):\n2   return x"


@pytest.mark.parametrize(
    ("said", "after"),
    [
        ("3: return y+2", FIXED),
        ("3:return y+2", FIXED),
        ("  a.py:3:   return y+2  ", FIXED),  # the old line's indentation stays
        ("b.py:2: return 2*x", {**FILES, "b.py": "def g(x):\n  return 2*x\n"}),
        ("2: z = x*3\n3: return z+2", {**FILES, "a.py": "def f(x):\n  z = x*3\n  return z+2\n"}),
        ("2: d = {1: x}", {**FILES, "a.py": "def f(x):\n  d = {1: x}\n  return y-2\n"}),
    ],
)
def test_short_edits_become_unified_diffs(said: str, after: Any) -> None:
    assert apply_patch(FILES, as_patch(FILES, said, "a.py")) == after


@pytest.mark.parametrize(
    "said", ["", "return y+2", "0: x", "4: x", "c.py:1: x", "3: return y-2", "3: x\nok", "--- a/a.py"]
)
def test_what_is_no_edit_is_refused(said: str) -> None:
    with pytest.raises(PatchError):
        as_patch(FILES, said, "a.py")


def test_a_file_without_a_last_line_end_keeps_it_so() -> None:
    files = {"a.py": "x = 1\ny = 2"}
    assert apply_patch(files, as_patch(files, "1: x = 3", "a.py")) == {"a.py": "x = 3\ny = 2"}


# ---------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"max_refinement_iterations": 0}, "max_refinement_iterations must be at least 1"),
        ({"prompts": "compakt"}, "did you mean 'compact'"),
        ({"prompts": {"analyzer": "", "writer": ""}}, "no system prompt for the agent 'validator'"),
    ],
)
def test_arguments_that_do_not_fit(make: Any, arguments: Any, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        make(**arguments)


def test_prompts_of_ones_own(play: Any) -> None:
    own = {name: f"you are the {name}" for name in SWEWorkflow.agent_names}
    episode = play(TASK, {"prompts": own}, analyzer=[PLACE], writer=[FIX], validator=[OK])
    assert heard(episode, "writer")[0] == "you are the writer"


def test_it_is_registered_and_its_words_are_known_to_the_tokenizer() -> None:
    assert WORKFLOWS["swe"] is SWEWorkflow and "swe" in TEACHERS
    assert set(PROMPTS["compact"].values()) < set(SWEWorkflow.vocabulary) and RUN in SWEWorkflow.vocabulary
    assert set(SWEWorkflow.credit) == set(SWEWorkflow.agent_names) == set(PROMPTS["instruct"])
