"""Research questions of one's own: what is read, and what is said about rows that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from troupe.errors import DataError
from troupe.rewards.research import research_reward_fn
from troupe.tasks.corpora import load_corpus
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.research import prepare_deepresearch, read_deepresearch

PASSAGES = [
    {"id": "p1", "title": "Annual report", "text": "The harbour was dredged in 1931."},
    {"id": "p2", "text": "The city paid for it."},
]
QUESTION: dict[str, Any] = {
    "question": "When was the harbour dredged, and who paid?",
    "facts": [{"values": ["1931"], "passages": ["p1"]}, {"values": ["the city", "the council"], "passages": "p2"}],
}


def folder(root: Path, *questions: object) -> Path:
    (root / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PASSAGES))
    lines = [row if isinstance(row, str) else json.dumps(row) for row in questions]
    (root / "questions.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return root


def fact(**changes: Any) -> dict[str, Any]:
    return {**QUESTION, "question": "Another?", "facts": [{**QUESTION["facts"][0], **changes}]}


def test_a_question_becomes_a_task_that_carries_its_passages(tmp_path: Path) -> None:
    [task], passages = read_deepresearch(folder(tmp_path, QUESTION))
    assert (task.kind, task.prompt, task.difficulty) == ("deepresearch", QUESTION["question"], 0.25)
    assert task.answer["facts"][0] == {
        "values": ["1931"],
        "passages": {"p1": "Annual report The harbour was dredged in 1931."},
    }
    assert [passage["id"] for passage in passages] == ["p1", "p2"]
    assert research_reward_fn(task, "The harbour was dredged in 1931 [p1]. The city paid for it [p2].").is_correct


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ("{", "not a JSON object"),
        ({"facts": QUESTION["facts"]}, "no text under 'question'"),
        ({"question": "Another?"}, "no list under 'facts'; name what a report must say"),
        ({"question": "Another?", "facts": ["1931"]}, "fact 1 is not an object with values and passages"),
        (fact(values=[]), "fact 1 has no values; both are needed"),
        (fact(passages=[]), "fact 1 has no passages; both are needed"),
        (fact(passages=["p9"]), "fact 1 names the passage 'p9', which the corpus does not have"),
        (fact(values=["1954"]), r"fact 1: the passage 'p1' holds none of the values \['1954'\]"),
        (fact(values=["193"]), r"fact 1: the passage 'p1' holds none of the values \['193'\]"),
        (fact(values=[1931]), "fact 1: 'values' must be a text or a list of texts"),
        (QUESTION, "the question was asked before"),
    ],
)
def test_a_bad_question_is_named_by_file_and_line(tmp_path: Path, row: object, complaint: str) -> None:
    with pytest.raises(DataError, match=f"questions.jsonl:2: {complaint}"):
        read_deepresearch(folder(tmp_path, QUESTION, row))


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"is not a folder; give one that holds questions.jsonl and corpus.jsonl"):
        read_deepresearch(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no corpus.jsonl or corpus.jsonl.gz; it holds nothing"):
        read_deepresearch(tmp_path)
    with pytest.raises(DataError, match="holds no questions"):
        read_deepresearch(folder(tmp_path))
    with pytest.raises(DataError, match=r"is read from files"):
        prepare_deepresearch(None, DatasetRegistry(tmp_path), seed=0)


def test_prepared_questions_name_their_corpus(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path / "data")
    questions = [{**QUESTION, "question": f"{QUESTION['question']} ({n})"} for n in range(10)]
    counts = prepare_deepresearch(folder(tmp_path, *questions), registry, seed=0, held_out=0.3)
    assert counts == {"rows": 10, "passages": 2, "train": 7, "held_out": 3}
    for task in registry.load_dataset("deepresearch", "held_out"):
        assert [passage["id"] for passage in load_corpus(task.data["corpus"])] == ["p1", "p2"]
