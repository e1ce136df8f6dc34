"""The research team: every branch of its loop, researchers side by side, what each is paid, and that neither the truth
nor a trick decides."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from troupe.agents import AgentSpec
from troupe.batch import pack
from troupe.engines.scripted import ScriptedEngine
from troupe.episode import Episode, Outcome, Sampling, Task
from troupe.errors import ConfigError
from troupe.rewards.research import research_reward_fn
from troupe.tasks.corpora import load_corpus
from troupe.tasks.facts import ResearchGenerator
from troupe.tools.search import CiteTool, ReadTool, SearchTool
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync
from troupe.workflows.deepresearch import PROMPTS, DeepResearchWorkflow

ROWS = [
    {"id": "7", "title": "", "text": "Dolek works for Wativ"},
    {"id": "8", "title": "", "text": "Sulek works for Dolek"},
    {"id": "9", "title": "", "text": "Dolek lives in Jawick"},
    {"id": "10", "title": "", "text": "Wativ keeps a goat"},
]
FACTS = [
    {"values": ["Wativ"], "passages": {"7": "Dolek works for Wativ"}},
    {"values": ["Jawick"], "passages": {"9": "Dolek lives in Jawick"}},
]
TASK = Task("t", "two_facts", "Report the boss and the town of Dolek.", answer={"facts": FACTS})
REPORT = "Dolek works for Wativ [7]. Dolek lives in Jawick [9]."


def make(**arguments: Any) -> DeepResearchWorkflow:
    tools = {"search_tool": SearchTool(ROWS), "read_tool": ReadTool, "cite_tool": CiteTool}
    return DeepResearchWorkflow(**{"reward_function": research_reward_fn, **tools, "prompts": "compact", **arguments})


def run(engine: Any, tasks: Sequence[Task] = (TASK,), rollouts: int = 1, **arguments: Any) -> list[Episode]:
    specs = {name: AgentSpec("team", Sampling(64)) for name in DeepResearchWorkflow.agent_names}
    jobs = [Job(task, rollout) for task in tasks for rollout in range(rollouts)]
    return run_episodes_sync(jobs, lambda: make(**arguments), engine, specs, RolloutSettings((0, 1), "test"))


Script = Mapping[str, Any]


def speak(script: Script) -> Callable[[Any], str]:
    """Planner, writer and critic say their lines in turn; a researcher's lines go by what it was asked."""
    said: dict[tuple[str, str], int] = {}

    def say(request: Any) -> str:
        agent = request.key[-2]
        if agent != "researcher":
            return f"<ans>{script[agent][request.key[-1]]}</ans>"
        question = str(request.messages[1]["content"])
        turn = said[agent, question] = said.get((agent, question), -1) + 1
        return str(script["researcher"][question][turn])

    return say


@pytest.fixture
def play(tiny: Any) -> Any:
    def build(task: Task = TASK, arguments: Mapping[str, Any] | None = None, **script: Any) -> Episode:
        return run(ScriptedEngine(tiny.format, speak(script)), [task], **(arguments or {}))[0]

    return build


def pay(episode: Episode) -> dict[str, list[float | None]]:
    return {agent: [t.reward for t in episode.of(agent)] for agent in DeepResearchWorkflow.agent_names}


def told(episode: Episode, agent: str, attempt: int = 0) -> str:
    return str(episode.of(agent)[attempt].steps[0].observation[-1]["content"])


BOTH = {"boss": ["<call> Dolek works</call>", "<ans>7</ans>"], "town": ["<call>Dolek lives</call>", "<ans>9</ans>"]}


# ---------------------------------------------------------------------------------------------- branches


def test_right_at_once(play: Any) -> None:
    episode = play(planner=["boss; town"], researcher=BOTH, writer=[REPORT], critic=["ok"])
    assert episode.outcome is Outcome.SUCCESS and episode.metadata["answer"] == REPORT
    assert pay(episode) == {"planner": [1.0], "researcher": [1.0, 1.0], "writer": [1.0], "critic": [1.0]}
    expected = {
        "planner_runs": 1,
        "researchers": 2,
        "writer_attempts": 1,
        "critic_checks": 1,
        "total_iterations": 1,
        "sources": 2,
        "tool_calls": 2,
        "accepted": 1,
        "tool_call_validity": 1,
        "final_success": 1,
        "report_reward": 1,
        "coverage": 1,
        "precision": 1,
        "planner_success": 1,
        "researcher_success": 1,
        "writer_success_rate": 1,
        "critic_true_accepts": 1,
    }
    assert {name: episode.metrics[name] for name in expected} == expected
    assert "critic_true_rejects" not in episode.metrics


def test_what_each_agent_is_told(play: Any) -> None:
    episode = play(planner=["boss; town"], researcher=BOTH, writer=[REPORT], critic=["ok"])
    sources = "Sources:\n[7] Dolek works for Wativ\n[9] Dolek lives in Jawick"
    assert told(episode, "planner") == TASK.prompt
    assert [told(episode, "researcher", n) for n in (0, 1)] == ["boss", "town"]
    assert told(episode, "writer") == f"{TASK.prompt}\n{sources}"
    assert told(episode, "critic") == f"{TASK.prompt}\nReport: {REPORT}\n{sources}"


def test_rejected_then_right(play: Any) -> None:
    """What was cited is kept: the second plan asks for the town alone."""
    half = "Dolek works for Wativ [7]."
    episode = play(planner=["boss", "town"], researcher=BOTH, writer=[half, REPORT], critic=["bad", "ok"])
    assert episode.outcome is Outcome.SUCCESS
    assert pay(episode) == {
        "planner": [pytest.approx(2 / 3), 1.0],
        "researcher": [1.0, 1.0],
        "writer": [pytest.approx(0.7), 1.0],
        "critic": [1.0, 1.0],
    }
    assert told(episode, "planner", 1) == f"Rejected: {half}"
    assert episode.metrics["critic_true_accepts"] == episode.metrics["critic_true_rejects"] == 1
    assert episode.metrics["writer_success_rate"] == 0.5
    assert episode.metrics["planner_success"] == pytest.approx(2 / 3)  # the first plan's


def test_the_report_may_only_have_to_be_written_again(play: Any) -> None:
    script = {"researcher": BOTH, "writer": ["Dolek works for Wativ [9].", REPORT], "critic": ["bad", "ok"]}
    episode = play(planner=["boss; town", "none"], **script)
    assert episode.outcome is Outcome.SUCCESS and episode.metrics["researchers"] == 2
    assert pay(episode)["planner"] == [1.0, None] and pay(episode)["writer"] == [0.0, 1.0]


def test_an_accepted_wrong_report_ends_the_run(play: Any) -> None:
    """The loop ends on the critic's word, not on the truth."""
    episode = play(planner=["boss"], researcher=BOTH, writer=["Dolek works for Wativ [7]."], critic=["ok"])
    assert episode.outcome is Outcome.FAILURE and episode.metrics["total_iterations"] == 1
    assert pay(episode)["critic"] == [0.0] and episode.metrics["coverage"] == 0.5


def test_no_plan_no_research_no_report(play: Any) -> None:
    episode = play(planner=["none", " ; "], researcher={}, writer=[], critic=[])
    assert pay(episode) == {"planner": [0.0, 0.0], "researcher": [], "writer": [], "critic": []}
    assert episode.outcome is Outcome.FAILURE and episode.metadata["answer"] is None
    assert told(episode, "planner", 1) == "Rejected: nothing"


def test_a_question_asked_twice_is_looked_up_once_and_long_plans_are_cut(play: Any) -> None:
    once = {"max_refinement_iterations": 1, "max_researchers": 2}
    episode = play(TASK, once, planner=["boss; boss; town; pet"], researcher=BOTH, writer=[REPORT], critic=["ok"])
    assert [told(episode, "researcher", n) for n in (0, 1)] == ["boss", "town"]
    assert len(episode.of("researcher")) == 2


def test_a_question_that_brings_nothing_costs_the_planner(play: Any) -> None:
    script = {**BOTH, "pet": ["<call>Wativ keeps</call>", "<ans>10</ans>"], "again": ["<ans>7</ans>"]}
    episode = play(planner=["boss; pet; town; again"], researcher=script, writer=[REPORT], critic=["ok"])
    assert pay(episode)["planner"] == [pytest.approx(2 * 2 / (4 + 2))]
    assert pay(episode)["researcher"] == [1.0, 0.0, 1.0, 1.0]


# ---------------------------------------------------------------------------------------------- researchers


@pytest.mark.parametrize(
    ("lines", "value"),
    [
        (["<ans>7</ans>"], 1.0),
        (["<ans>[7], 9</ans>"], 1.0),
        (["<ans>[7] [9]</ans>"], 1.0),
        (["<ans>[7, 9]</ans>"], 1.0),
        (["<ans>7, 8</ans>"], 0.5),
        (["<ans>7, 8, 9, 10</ans>"], 0.5),
        (["<ans>8</ans>"], 0.0),
        (["<ans>99</ans>"], 0.0),
        (["<ans>none</ans>"], 0.0),
        (["in my opinion, 7"], 0.0),
        (["<call>cite 7</call>", "<ans>none</ans>"], 1.0),
        (["<call>read 7</call>", "<ans>7</ans>"], 1.0),
        (["<call>cite 7</call>", "<call>cite [8]</call>", "<ans>none</ans>"], 0.5),
    ],
)
def test_what_citing_is_worth(play: Any, lines: list[str], value: float) -> None:
    once = {"max_refinement_iterations": 1}
    episode = play(TASK, once, planner=["boss"], researcher={"boss": lines}, writer=["x"] * 2, critic=["ok"] * 2)
    assert pay(episode)["researcher"] == [value]


def test_tools_may_be_called_by_name(play: Any) -> None:
    calls = [
        '<tool_call>{"name": "search", "arguments": {"query": "Dolek works"}}</tool_call>',
        '<tool_call>{"name": "cite", "arguments": {"passage": "7", "quote": "works for Wativ"}}</tool_call>'
        '<tool_call>{"name": "cite", "arguments": {"passage": "8", "quote": "works for Wativ"}}</tool_call>',
        '<tool_call>{"name": "serch", "arguments": {}}</tool_call>'
        '<tool_call>{"name": "read", "arguments": [7]}</tool_call>',
        "<ans>none</ans>",
    ]
    episode = play(
        TASK,
        {"max_refinement_iterations": 1},
        planner=["boss"],
        researcher={"boss": calls},
        writer=["x"],
        critic=["ok"],
    )
    answers = [m["content"] for s in episode.of("researcher")[0].steps for m in s.observation if m["role"] == "tool"]
    assert answers == [
        "[7] Dolek works for Wativ\n[8] Sulek works for Dolek\n[9] Dolek lives in Jawick",
        "[7] works for Wativ",
        "error: passage [8] does not say that",
        "error: there is no tool 'serch'",
        "error: arguments must be a JSON object",
    ]
    assert pay(episode)["researcher"] == [1.0] and episode.metrics["tool_call_validity"] == pytest.approx(2 / 5)
    assert told(episode, "writer").endswith("Sources:\n[7] works for Wativ")


@pytest.mark.parametrize(
    "call",
    [
        '{"name": "search", "arguments": {"self": "Dolek"}}',
        '{"name": "read", "arguments": {"self": "7"}}',
        '{"name": "cite", "arguments": {"passage": "7", "finding": 1}}',
        '{"name": "cite", "arguments": {"passage": "7", "desk": 1}}',
        '{"name": "cite", "arguments": "7"}',
        '{"arguments": 1}',
        "{" + "[" * 100 + "}",
    ],
)
def test_a_call_that_makes_no_sense_costs_that_call_alone(play: Any, call: str) -> None:
    lines = [f"<tool_call>{call}</tool_call>", "<ans>7</ans>"]
    once = {"max_refinement_iterations": 1}
    episode = play(TASK, once, planner=["boss"], researcher={"boss": lines}, writer=["x"], critic=["bad"])
    assert "error" not in episode.metadata and pay(episode)["researcher"] == [1.0]
    assert str(episode.of("researcher")[0].steps[1].observation[-1]["content"]).startswith("error: ")
    assert episode.metrics["tool_call_validity"] == 0.0


def test_an_id_may_hold_a_comma(play: Any) -> None:
    rows = [{"id": "Paris, Texas", "title": "", "text": "Paris lies in Lamar County"}, *ROWS]
    facts = [{"values": ["Lamar"], "passages": {"Paris, Texas": "Paris lies in Lamar County"}}]
    for said in ("Paris, Texas", "[Paris, Texas]"):
        episode = play(
            replace(TASK, answer={"facts": facts}),
            {"search_tool": SearchTool(rows), "max_refinement_iterations": 1},
            planner=["where"],
            researcher={"where": [f"<ans>{said}</ans>"]},
            writer=["Paris lies in Lamar County [Paris, Texas]."],
            critic=["ok"],
        )
        assert episode.outcome is Outcome.SUCCESS and pay(episode)["researcher"] == [1.0]


def test_a_researcher_has_a_limited_number_of_turns(play: Any) -> None:
    limits = {"max_refinement_iterations": 1, "max_tool_calls": 2}
    episode = play(
        TASK, limits, planner=["boss"], researcher={"boss": ["<call>Dolek</call>"] * 2}, writer=[], critic=[]
    )
    assert [t.stop_reason for t in episode.of("researcher")] == ["max_turns_exceeded"]
    assert pay(episode)["researcher"] == [0.0] and episode.metrics["tool_calls"] == 1


def test_researchers_speak_in_the_same_waves_and_each_has_a_trajectory(two_faced: Any) -> None:
    """Three researchers of two turns each: two waves, not six; each trajectory holds one researcher's turns alone."""
    names = ("boss", "town", "pet")
    lines = {name: [f"<call>{name} of Dolek</call>", "<ans>7</ans>"] for name in names}
    script = {"planner": ["boss; town; pet"], "researcher": lines, "writer": ["x [7]."], "critic": ["ok"]}
    engine = two_faced(speak(script))
    [episode] = run(engine)
    assert [len(wave) for wave in engine.waves] == [1, 3, 3, 1, 1]
    for name, trajectory in zip(names, episode.of("researcher"), strict=True):
        first, second = trajectory.steps
        assert first.observation[-1]["content"] == name and name in str(first.action["content"])
        assert second.parent == first.id and second.observation[0]["role"] == "tool"
        assert [first.done, second.done] == [False, True]
    batch = pack([episode])
    assert int(batch["mask"].sum()) == sum(len(s.tokens.response_ids) for s in episode.steps() if s.tokens)
    assert len(batch.rows) == 6 and batch.forks == 0


def test_a_researcher_whose_prompt_outgrows_its_limit_truncates_the_episode(two_faced: Any) -> None:
    script = {"planner": ["boss; town"], "researcher": {**BOTH, "boss": [f"<call>{'x' * 400}</call>"]}}
    engine = two_faced(speak(script))
    specs = {name: AgentSpec("team", Sampling(500), 300) for name in DeepResearchWorkflow.agent_names}
    [episode] = run_episodes_sync([Job(TASK)], make, engine, specs, RolloutSettings((0, 1), "test"))
    assert episode.outcome is Outcome.TRUNCATED and "max_prompt_length" in episode.metadata["error"]
    assert next(len(t.steps) for t in episode.of("researcher")) == 1


# ---------------------------------------------------------------------------------------------- the truth


def corrupted(tasks: Sequence[Task]) -> list[Task]:
    facts = [{"values": ["31337"], "passages": {"31337": "31337"}}]
    return [replace(task, answer={"facts": facts}, solution=None) for task in tasks]


def sampled(episodes: Sequence[Episode]) -> list[Any]:
    return [(e.id, s.id, s.tokens.prompt_ids, s.tokens.response_ids) for e in episodes for s in e.steps() if s.tokens]


def test_the_truth_is_never_read_by_a_team_that_gets_everywhere(two_faced: Any) -> None:
    tasks = ResearchGenerator((0.0, 0.0), seed=6).generate(30)
    by_id = {task.id: task for task in tasks}

    def say(request: Any) -> str:
        *_, id, _, agent, _ = request.key
        rng, task = random.Random(repr(request.key)), by_id[id]
        known = {i: text for fact in task.answer["facts"] for i, text in fact["passages"].items()}
        right = " ".join(f"{text} [{i}]." for i, text in known.items())
        lines = {
            "planner": ["; ".join(task.solution["plan"])] * 3 + [task.solution["plan"][0], "none"],
            "researcher": [", ".join(known), next(iter(known)), "1", "none"],
            "writer": [right, right, right[: len(right) // 2], "nothing"],
            "critic": ["ok", "bad"],
        }[agent]
        if agent == "researcher" and rng.random() < 0.3:
            return f"<call>{rng.choice(task.solution['calls'])}</call>"
        return f"<ans>{rng.choice(lines)}</ans>"

    library = SearchTool(load=load_corpus)
    specs = {name: AgentSpec("team", Sampling(1000)) for name in DeepResearchWorkflow.agent_names}

    def play_all(chosen: Sequence[Task]) -> list[Episode]:
        def workflow() -> DeepResearchWorkflow:
            return make(search_tool=library)

        settings = RolloutSettings((0, 1), "test")
        return run_episodes_sync(
            [Job(t, n) for t in chosen for n in range(3)], workflow, two_faced(say), specs, settings
        )

    first, second = play_all(tasks), play_all(corrupted(tasks))
    assert not any("error" in episode.metadata for episode in first)
    assert sampled(first) == sampled(second)
    solved = [e.outcome is Outcome.SUCCESS for e in first]
    assert 5 < sum(solved) < 90 and not any(e.outcome is Outcome.SUCCESS for e in second)
    assert {e.metrics["total_iterations"] for e in first} == {1.0, 2.0}
    for agent in DeepResearchWorkflow.agent_names:
        assert len({t.reward for e in first for t in e.of(agent)}) > 1  # every agent's reward varies


@pytest.mark.parametrize(
    "report",
    [
        "Dolek works for Wativ [7]. Dolek lives in Jawick [9]. Wativ keeps a goat [10].",
        "Dolek works for Wativ [9]. Dolek lives in Jawick [7].",
        "Dolek works for Wativ. Dolek lives in Jawick.",
        "Wativ works for Dolek [7]. Dolek lives in Jawick [9].",
        "Dolek works for Wativ [7].",
    ],
)
def test_the_best_wrong_report_is_worth_less_than_the_plainest_right_one(play: Any, report: str) -> None:
    script = {"planner": ["boss; town"], "researcher": BOTH, "critic": ["ok"]}
    assert pay(play(**script, writer=[REPORT]))["writer"] == [1.0]
    wrong = play(**script, writer=[report])
    assert pay(wrong)["writer"][0] < 0.7 and pay(wrong)["critic"] == [0.0]  # type: ignore[operator]


@pytest.mark.parametrize(
    ("report", "truth", "other"), [(REPORT, "ok", "bad"), ("Dolek lives in Jawick [7].", "bad", "ok")]
)
def test_no_wrong_verdict_is_worth_the_right_one(play: Any, report: str, truth: str, other: str) -> None:
    def worth(verdict: str) -> float | None:
        script = {"planner": ["boss; town"], "researcher": BOTH, "writer": [report], "critic": [verdict]}
        return pay(play(TASK, {"max_refinement_iterations": 1}, **script))["critic"][0]

    tricks = [other, f"{truth} {other}", f"{truth} or {other}", f"not {other}", "", "yes", "1", report]
    assert {worth(trick) for trick in tricks} == {0.0}
    assert worth(truth) == worth(f"{truth.upper()}.") == 1.0


def test_a_writer_with_half_the_sources_cannot_outrank_a_right_report(play: Any) -> None:
    script = {"planner": ["boss"], "researcher": BOTH, "critic": ["ok"]}
    assert pay(play(**script, writer=["Dolek works for Wativ [7]."]))["writer"] == [pytest.approx(0.7)]


def test_a_writer_without_a_useful_source_is_not_paid(play: Any) -> None:
    script = {"planner": ["pet"], "researcher": {"pet": ["<ans>10</ans>"]}, "critic": ["ok"]}
    assert pay(play(**script, writer=["Wativ keeps a goat [10]."]))["writer"] == [None]


# ---------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_refinement_iterations": 0}, "max_refinement_iterations must be at least 1, found 0"),
        ({"max_researchers": 0}, "max_researchers must be at least 1, found 0"),
        ({"max_tool_calls": 0}, "max_tool_calls must be at least 1, found 0"),
        ({"prompts": "compct"}, r"prompts='compct' is not known \(did you mean 'compact'\?\)"),
        ({"prompts": {"planner": "plan"}}, "no system prompt for the agent 'researcher'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**arguments)


def test_both_sets_of_prompts_speak_to_all_agents() -> None:
    assert set(PROMPTS["instruct"]) == set(PROMPTS["compact"]) == set(DeepResearchWorkflow.agent_names)
    assert set(DeepResearchWorkflow.credit) == set(DeepResearchWorkflow.agent_names)
