"""Reports: what counts as stated and cited, and that padding, dumping and guessing do not pay."""

from __future__ import annotations

from typing import Any

import pytest

from troupe.episode import Task
from troupe.errors import ConfigError, DataError
from troupe.rewards import REWARDS
from troupe.rewards.research import RewardConfig, research_reward_fn, statements
from troupe.tasks.facts import ResearchGenerator, passages

FACTS = [
    {"values": ["Wativ"], "passages": {"31": "Dolek works for Wativ"}},
    {"values": ["Kemere", "Kemere town"], "passages": {"19": "Dolek lives in Kemere", "20": "Kemere houses Dolek"}},
]
TASK = Task("t", "two_facts", "Report the boss and the town of Dolek.", answer={"facts": FACTS})
GOOD = "Dolek works for Wativ [31]. Dolek lives in Kemere [19]."


def parts(report: str | None, config: RewardConfig | None = None) -> tuple[float, float, bool]:
    result = research_reward_fn(TASK, report, config or RewardConfig())
    assert result.reward == result.metadata["coverage"] * result.metadata["precision"]
    return result.metadata["coverage"], round(result.metadata["precision"], 3), result.is_correct


def test_it_is_the_registered_reward() -> None:
    assert REWARDS["research"] is research_reward_fn


@pytest.mark.parametrize(
    "report",
    [
        GOOD,
        "Dolek lives in Kemere [19]. Dolek works for Wativ [31].",
        "dolek works for Wativ. [31] Kemere houses Dolek! [20]",
        "Works for Wativ [31]; lives in Kemere [19]",
        "The Dolek works for Wativ, [31]\nDolek lives in Kemere [19] [20]",
        "Wativ [31] Kemere [19]",
        "Dolek works for Wativ [31], lives in Kemere [19]",
    ],
)
def test_right_reports(report: str) -> None:
    assert parts(report) == (1.0, 1.0, True)


@pytest.mark.parametrize(
    ("report", "coverage", "precision"),
    [
        (None, 0.0, 0.0),
        ("", 0.0, 0.0),
        ("nothing", 0.0, 0.0),
        ("Dolek works for Wativ [31].", 0.5, 1.0),
        ("Dolek works for Wativ. Dolek lives in Kemere.", 0.0, 0.0),  # uncited
        ("Dolek works for Wativ [19]. Dolek lives in Kemere [31].", 0.0, 0.0),  # cited the other way round
        ("Dolek works for Wativ [31]. Dolek lives in Kemere [31].", 0.5, 0.5),
        ("Dolek works for Wativ [99]. Dolek lives in Kemere [19].", 0.5, 0.5),  # no such passage
        ("Dolek works for Wativ [31] [99]. Dolek lives in Kemere [19].", 0.5, 0.5),  # one too many
        ("Dolek works for Wativ [31]. Dolek lives in Duby [19].", 0.5, 0.5),  # wrong value
        ("Wativ works for Dolek [31]. Dolek lives in Kemere [19].", 0.5, 0.5),  # the passage's words, turned round
        ("Dolek does not work for Wativ [31].", 0.0, 0.0),
        ("Wativ or Kemere or Duby [31].", 0.0, 0.0),  # candidates under a right citation
        ("Wativ Kemere [31]. Wativ Kemere [19].", 0.0, 0.0),
        ("Hail. Dolek works for Wativ [31]. Dolek lives in Kemere [19].", 1.0, 0.667),
        (GOOD + " That is all.", 1.0, 0.667),
        (GOOD + " " + GOOD, 1.0, 0.5),  # said twice
        ("Dolek works for Kemere [31] [19]. Dolek lives in Wativ [19] [31].", 0.0, 0.0),  # two passages put together
        ("Dolek works for Wativ, lives in Kemere [31] [19].", 0.0, 0.0),  # each clause needs its own citation
        ("[31] [19]", 0.0, 0.0),
        ("[31] [19] Dolek works for Wativ. Dolek lives in Kemere.", 0.0, 0.0),
    ],
)
def test_what_a_wrong_report_is_worth(report: str | None, coverage: float, precision: float) -> None:
    assert parts(report) == (coverage, precision, False)


def test_words_of_two_passages_do_not_make_a_third_statement() -> None:
    """Everything here is false, and every word of it stands in what it cites, in that order."""
    facts = [
        {"values": ["Wativ"], "passages": {"31": "Dolek works for Wativ"}},
        {"values": ["Duby"], "passages": {"40": "Sulek lives in Duby"}},
    ]
    task = Task("t", "two_facts", "Report the boss of Dolek, the town of Sulek.", answer={"facts": facts})
    assert research_reward_fn(task, "Dolek works for Wativ [31]. Sulek lives in Duby [40].").is_correct
    assert research_reward_fn(task, "Dolek lives in Duby [31][40]. Sulek works for Wativ [40][31].").reward == 0.0


def test_one_statement_may_cover_two_facts_of_one_passage() -> None:
    dredged = {"p7": "The harbour was dredged in 1931 and again in 1954."}
    task = Task("t", "k", "When?", answer={"facts": [{"values": [y], "passages": dredged} for y in ("1931", "1954")]})
    assert research_reward_fn(task, "The harbour was dredged in 1931 and 1954 [p7].").is_correct
    assert research_reward_fn(task, "The harbour was dredged in 1931 [p7].").reward == 0.5


def test_looser_support_allows_rephrasing_and_is_easier_to_fool() -> None:
    said = "It is known that Dolek works for Wativ [31]. Dolek lives in Kemere [19]."  # 4 of 8 words are the passage's
    assert parts(said) == (0.5, 0.5, False)
    assert parts(said, RewardConfig(support=0.5)) == (1.0, 1.0, True)
    assert parts("Wativ or [31]. Kemere Duby [19].", RewardConfig(support=0.5)) == (1.0, 1.0, True)
    for bad in (0.0, 1.1, -1.0, float("nan")):
        with pytest.raises(ConfigError, match="write a share"):
            RewardConfig(support=bad)


def test_padding_never_helps() -> None:
    """The plainest right report beats it with anything added, over generated tasks; a whole corpus is worth nothing."""
    for task in ResearchGenerator((0.0, 0.0), 3).generate(30):
        sentences = {text: id for fact in task.answer["facts"] for id, text in fact["passages"].items()}
        plain = " ".join(f"{text} [{id}]." for text, id in sentences.items())
        assert research_reward_fn(task, plain).reward == 1.0
        corpus = passages(task.data["corpus"])
        for padding in (corpus[0], corpus[7]):
            if padding["id"] not in sentences.values():
                padded = research_reward_fn(task, f"{plain} {padding['text']} [{padding['id']}].")
                assert padded.reward < 1.0 and not padded.is_correct
        dump = " ".join(f"{row['text']} [{row['id']}]." for row in corpus)
        assert research_reward_fn(task, dump).reward < 0.02


def test_statements_and_their_citations() -> None:
    found = [(" ".join(s.words), s.cited) for s in statements("One. Two [1] [2]. Three [b c]; four")]
    assert found == [("one", ()), ("two", ("1", "2")), ("three", ("b c",)), ("four", ())]


def test_an_abbreviation_does_not_end_a_statement() -> None:
    text = "Edward D. Wood Jr. was an American filmmaker"
    assert [s.cited for s in statements(f"{text} [e]. He died. [f]")] == [("e",), ("f",)]
    task = Task("t", "k", "p", answer={"facts": [{"values": ["American"], "passages": {"e": f"{text}."}}]})
    assert research_reward_fn(task, f"{text} [e].").is_correct
    assert research_reward_fn(task, f"He was tall. {text} [e].").reward == 0.5


@pytest.mark.parametrize(
    "answer", [None, "text", {}, {"facts": []}, {"facts": [{"values": ["x"]}]}, {"facts": [{"passages": {"1": "x"}}]}]
)
def test_a_task_without_facts_is_an_error(answer: Any) -> None:
    with pytest.raises(DataError, match="task t has no facts"):
        research_reward_fn(Task("t", "k", "p", answer=answer), "x [1].")
