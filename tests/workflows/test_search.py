"""The search team: every branch of its loop, what each is paid, and that neither the truth nor a trick decides."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from troupe.agents import AgentSpec
from troupe.engines.scripted import ScriptedEngine
from troupe.episode import Episode, Outcome, Sampling, Task
from troupe.errors import ConfigError
from troupe.rewards.search import search_reward_fn
from troupe.tasks.corpora import load_corpus
from troupe.tasks.facts import FactsGenerator
from troupe.tools.search import SearchTool
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync
from troupe.workflows.search import PROMPTS, SearchWorkflow

ROWS = [
    {"id": "7", "title": "", "text": "Dolek works for Wativ"},
    {"id": "8", "title": "", "text": "Sulek works for Dolek"},
    {"id": "9", "title": "", "text": "Wativ lives in Jawick"},
    {"id": "10", "title": "", "text": "Wativ keeps a goat"},
]
TASK = Task(
    "t", "two_hop", "Name the town of the boss of Dolek.", answer={"answers": ["Jawick"], "passages": ["7", "9"]}
)


def make(**arguments: Any) -> SearchWorkflow:
    settings = {"reward_function": search_reward_fn, "search_tool": SearchTool(ROWS), "prompts": "compact"}
    return SearchWorkflow(**{**settings, **arguments})


def run(engine: Any, tasks: Sequence[Task] = (TASK,), rollouts: int = 1, **arguments: Any) -> list[Episode]:
    specs = {name: AgentSpec("team", Sampling(16)) for name in SearchWorkflow.agent_names}
    jobs = [Job(task, rollout) for task in tasks for rollout in range(rollouts)]
    return run_episodes_sync(jobs, lambda: make(**arguments), engine, specs, RolloutSettings((0, 1), "test"))


@pytest.fixture
def play(tiny: Any) -> Any:
    """`play(query_optimizer=[...], retriever=[...], answerer=[...])`: what each says at its calls."""

    def build(task: Task = TASK, arguments: Mapping[str, Any] | None = None, **script: Sequence[str]) -> Episode:
        engine = ScriptedEngine(tiny.format, lambda request: f"<ans>{script[request.key[-2]][request.key[-1]]}</ans>")
        return run(engine, [task], **(arguments or {}))[0]

    return build


def pay(episode: Episode) -> dict[str, list[float | None]]:
    return {agent: [t.reward for t in episode.of(agent)] for agent in SearchWorkflow.agent_names}


def told(episode: Episode, agent: str, attempt: int = 0) -> str:
    return str(episode.of(agent)[attempt].steps[0].observation[-1]["content"])


# ---------------------------------------------------------------------------------------------- branches


def test_two_hops_in_two_cycles(play: Any) -> None:
    episode = play(query_optimizer=["Dolek works", "Wativ lives"], retriever=["1", "1"], answerer=["unknown", "Jawick"])
    assert episode.outcome is Outcome.SUCCESS and episode.metadata["answer"] == "Jawick"
    assert pay(episode) == {"query_optimizer": [1.0, 1.0], "retriever": [1.0, 1.0], "answerer": [1.0, 1.0]}
    expected = {
        "total_iterations": 2,
        "answerer_attempts": 2,
        "searches": 2,
        "empty_searches": 0,
        "answered": 1,
        "final_success": 1,
        "f1": 1,
        "query_success": 1,
        "retriever_precision": 1,
        "retriever_recall": 1,
        "evidence_recall": 1,
        "answerer_success_rate": 1,
    }
    assert {name: episode.metrics[name] for name in expected} == expected


def test_what_each_agent_is_told(play: Any) -> None:
    episode = play(query_optimizer=["Dolek works", "Wativ lives"], retriever=["1", "1"], answerer=["unknown", "Jawick"])
    question = TASK.prompt
    assert told(episode, "query_optimizer") == question
    assert told(episode, "query_optimizer", 1) == "Found: Dolek works for Wativ"
    assert told(episode, "retriever") == (
        f"{question}\nQuery: Dolek works\n1 Dolek works for Wativ\n2 Sulek works for Dolek"
    )
    assert told(episode, "retriever", 1) == (
        f"{question}\nKnown: Dolek works for Wativ\nQuery: Wativ lives\n1 Wativ lives in Jawick\n2 Wativ keeps a goat"
    )  # what the team holds is not found again
    assert told(episode, "answerer") == f"{question}\nFacts: Dolek works for Wativ"
    assert told(episode, "answerer", 1) == "Facts: Wativ lives in Jawick"
    assert [t.steps[0].parent for t in episode.of("answerer")] == [None, "answerer/0"]


def test_a_query_that_finds_nothing_needed(play: Any) -> None:
    """Nothing picked is nothing new: the answerer is not asked until the last cycle."""
    episode = play(query_optimizer=["goat", "Dolek works"], retriever=["None.", "1"], answerer=["Unknown"])
    assert pay(episode) == {"query_optimizer": [0.0, 1.0], "retriever": [1.0, 1.0], "answerer": [0.5]}
    assert told(episode, "query_optimizer", 1) == "Found: nothing"
    assert episode.outcome is Outcome.FAILURE and episode.metadata["answer"] is None
    assert (episode.metrics["query_success"], episode.metrics["answered"]) == (0.5, 0)


def test_a_query_that_finds_nothing_at_all(play: Any) -> None:
    episode = play(query_optimizer=["xyzzy", "xyzzy"], retriever=[], answerer=["Jawick"])
    assert pay(episode) == {"query_optimizer": [0.0, 0.0], "retriever": [], "answerer": [1.0]}
    assert episode.metrics["empty_searches"] == 2 and told(episode, "answerer").endswith("Facts: nothing")


def test_wrong_picks(play: Any) -> None:
    episode = play(
        query_optimizer=["Dolek works", "Dolek works"], retriever=["2", "none"], answerer=["unknown", "unknown"]
    )
    assert pay(episode)["retriever"] == [0.0, 0.0]
    assert episode.metrics["retriever_precision"] == 0.0 and episode.metrics["retriever_recall"] == 0.0


@pytest.mark.parametrize(
    ("picked", "value"),
    [("1", 1.0), ("1, 2", 2 / 3), ("2", 0.0), ("none", 0.0), ("1,1", 1.0)]
    + [(junk, 0.0) for junk in ("3", "0", "first", "1" * 5000)],  # int() refuses thousands of digits
)
def test_what_a_pick_is_worth(play: Any, picked: str, value: float) -> None:
    episode = play(
        TASK, {"max_refinement_iterations": 1}, query_optimizer=["Dolek works"], retriever=[picked], answerer=["x"]
    )
    assert pay(episode)["retriever"] == [pytest.approx(value)]


def test_an_answer_in_words_alone_is_none(tiny: Any) -> None:
    [episode] = run(ScriptedEngine(tiny.format, lambda request: "I do not know"))
    assert episode.outcome is Outcome.FAILURE and episode.metadata["answer"] is None
    assert pay(episode) == {"query_optimizer": [0.0, 0.0], "retriever": [], "answerer": [0.0]}


def test_unknown_is_right_only_while_something_lacks(play: Any) -> None:
    episode = play(
        query_optimizer=["Dolek works", "Wativ lives"], retriever=["1", "1"], answerer=["unknown", "unknown"]
    )
    assert pay(episode)["answerer"] == [1.0, 0.0] and episode.metrics["answerer_success_rate"] == 0.5


def test_a_team_that_holds_all_has_nothing_left_to_find(play: Any) -> None:
    """One query finds both passages; the second attempt of the query optimizer can be neither right nor wrong."""
    both = replace(TASK, answer={"answers": ["Jawick"], "passages": ["9", "10"]})
    episode = play(both, query_optimizer=["Wativ", "Wativ"], retriever=["2, 3", "1"], answerer=["unknown", "Jawick"])
    assert told(episode, "retriever").splitlines()[2:] == [
        "1 Dolek works for Wativ",
        "2 Wativ lives in Jawick",
        "3 Wativ keeps a goat",
    ]
    assert pay(episode) == {"query_optimizer": [1.0, None], "retriever": [1.0, 0.0], "answerer": [0.0, 1.0]}


def test_the_answer_may_come_at_once(play: Any) -> None:
    episode = play(query_optimizer=["Dolek works"], retriever=["1"], answerer=["Jawick"])
    assert episode.outcome is Outcome.SUCCESS and episode.metrics["total_iterations"] == 1
    assert episode.metrics["evidence_recall"] == 0.5


def test_a_wrong_answer_ends_the_run_too(play: Any) -> None:
    """The loop ends on the answerer's word, not on the truth."""
    episode = play(query_optimizer=["Dolek works"], retriever=["1"], answerer=["Jawick town"])
    assert episode.outcome is Outcome.FAILURE and episode.metadata["answer"] == "Jawick town"
    assert pay(episode)["answerer"] == [pytest.approx(0.1 * 2 / 3)]


def test_without_named_passages_the_answer_pays_all(play: Any) -> None:
    plain = replace(TASK, answer="Jawick")
    script = {"query_optimizer": ["Dolek works"], "retriever": ["2"]}
    assert pay(play(plain, **script, answerer=["Jawick"])) == {name: [1.0] for name in SearchWorkflow.agent_names}
    wrong = play(plain, {"max_refinement_iterations": 1}, **script, answerer=["unknown"])
    assert pay(wrong) == {name: [0.0] for name in SearchWorkflow.agent_names}
    assert "query_success" not in wrong.metrics


def test_an_answer_that_is_never_closed_does_not_count(tiny: Any) -> None:
    [episode] = run(ScriptedEngine(tiny.format, lambda request: "<ans>Jawick"))
    assert episode.metadata["answer"] is None


# ---------------------------------------------------------------------------------------------- the truth


def corrupted(tasks: Sequence[Task]) -> list[Task]:
    wrong = {"answers": ["31337"], "passages": ["31337"]}
    return [replace(task, answer=wrong, solution={"plan": ["x"], "check": ["y"]}) for task in tasks]


def sampled(episodes: Sequence[Episode]) -> list[Any]:
    return [(e.id, s.id, s.tokens.prompt_ids, s.tokens.response_ids) for e in episodes for s in e.steps() if s.tokens]


def test_the_truth_is_never_read_by_a_team_that_gets_everywhere(two_faced: Any) -> None:
    tasks = FactsGenerator((0.0, 0.0), seed=6, kinds=("one_hop", "two_hop")).generate(30)
    by_id = {task.id: task for task in tasks}

    def say(request: Any) -> str:
        *_, id, _, agent, _ = request.key
        rng, task = random.Random(repr(request.key)), by_id[id]
        if agent == "query_optimizer":
            return f"<ans>{rng.choice([*task.solution['plan'], 'xyzzy', 'goat'])}</ans>"
        if agent == "retriever":
            return f"<ans>{rng.choice(['1', '2', '1, 2', 'none', 'all'])}</ans>"
        return f"<ans>{rng.choice([*task.answer['answers'], 'unknown', 'goat'])}</ans>"

    library = SearchTool(load=load_corpus)
    first, second = (
        run(two_faced(say), tasks, search_tool=library),
        run(two_faced(say), corrupted(tasks), search_tool=library),
    )
    assert sampled(first) == sampled(second)
    solved = [e.outcome is Outcome.SUCCESS for e in first]
    assert 3 < sum(solved) < 30 and not any(e.outcome is Outcome.SUCCESS for e in second)
    assert {e.metrics["total_iterations"] for e in first} == {1.0, 2.0}
    for agent in SearchWorkflow.agent_names:
        assert len({t.reward for e in first for t in e.of(agent)}) > 1  # every agent's reward varies


def test_the_best_wrong_play_of_each_agent_is_worth_less_than_the_plainest_right_one(play: Any) -> None:
    right = pay(play(query_optimizer=["Dolek works"], retriever=["1"], answerer=["Jawick"]))
    assert right == {name: [1.0] for name in SearchWorkflow.agent_names}
    once = {"max_refinement_iterations": 1, "top_k": 2}
    stuffed = play(
        TASK, once, query_optimizer=["goat lives"], retriever=["1, 2"], answerer=["Jawick Kemere Wativ goat"]
    )
    assert max(pay(stuffed)["answerer"]) <= 0.1  # type: ignore[type-var]
    everything = play(TASK, once, query_optimizer=["Dolek works"], retriever=["1, 2"], answerer=["Dolek"])
    assert pay(everything)["retriever"] == [pytest.approx(2 / 3)]
    honest = play(TASK, once, query_optimizer=["goat"], retriever=["none"], answerer=["unknown"])
    assert pay(honest)["answerer"] == [0.5]  # a team that gives up has not answered
    for query in ("goat", "", "a b c", "query", "keeps a goat"):
        lost = play(TASK, once, query_optimizer=[query], retriever=["1"], answerer=["x"])
        assert pay(lost)["query_optimizer"] == [0.0]


# ---------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_refinement_iterations": 0}, "max_refinement_iterations=0 and top_k=4 must be at least 1"),
        ({"top_k": 0}, "top_k=0 must be at least 1"),
        ({"search_tool": len}, r"has no method search\(query, k\); give a SearchTool"),
        ({"prompts": "compct"}, r"prompts='compct' is not known \(did you mean 'compact'\?\)"),
        ({"prompts": {"retriever": "pick", "answerer": "do"}}, "no system prompt for the agent 'query_optimizer'"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(**arguments)


def test_both_sets_of_prompts_speak_to_all_agents() -> None:
    assert set(PROMPTS["instruct"]) == set(PROMPTS["compact"]) == set(SearchWorkflow.agent_names)
    assert set(SearchWorkflow.credit) == set(SearchWorkflow.agent_names)


class Server:
    """A search that answers later, in one collection."""

    async def search(self, query: str, k: int | None = None) -> Any:
        await asyncio.sleep(0.001)
        return SearchTool(ROWS).search(query, k)


def test_a_search_may_be_a_coroutine(play: Any) -> None:
    script = {"query_optimizer": ["Dolek works"], "retriever": ["1"], "answerer": ["Jawick"]}
    assert play(TASK, {"search_tool": Server()}, **script).outcome is Outcome.SUCCESS


def test_the_collection_is_the_tasks_or_that_of_the_argument(play: Any) -> None:
    script = {"query_optimizer": ["Dolek works"] * 2, "retriever": ["1"] * 2, "answerer": ["unknown"] * 2}
    load = {"ours": ROWS, "others": [{"id": "1", "title": "", "text": "Dolek works for nobody"}]}
    library = {"search_tool": SearchTool(load=load.__getitem__), "corpus": "ours"}
    assert told(play(TASK, library, **script), "answerer").endswith("Dolek works for Wativ")
    named = replace(TASK, data={"corpus": "others"})
    assert told(play(named, library, **script), "answerer").endswith("Dolek works for nobody")
    with pytest.raises(ConfigError, match=r"names the corpus 'others', but Server has no on\(corpus\)"):
        play(named, {"search_tool": Server()}, **script)
