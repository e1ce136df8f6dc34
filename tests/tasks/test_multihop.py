"""Reading HotpotQA, 2WikiMultihopQA and MuSiQue: small files written here, and the real ones where TROUPE_DATA points
at them."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.hub import documented, hotpot, hub
from troupe.errors import DataError, MissingExtra
from troupe.rewards.search import search_reward_fn
from troupe.tasks.corpora import load_corpus
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.multihop import (
    prepare_2wiki,
    prepare_hotpotqa,
    prepare_musique,
    read_2wiki,
    read_hotpotqa,
    read_musique,
)
from troupe.tools.search import SearchTool

MILL: dict[str, Any] = {
    "id": "1",
    "question": "Which river drives the mill of Ham?",
    "answer": "the Duby",
    "type": "bridge",
    "supporting_facts": [["Ham", 0], ["Mill", 1], ["Ham", 1]],
    "context": [
        ["Ham", ["Ham is a village.", " It has one mill."]],
        ["Mill", ["The mill is old.", "The Duby drives it."]],
        ["Sea", ["The sea is far."]],
    ],
}
BRIDGE = {**MILL, "question": "Who built the bridge?", "context": [*MILL["context"], ["Sea", ["Another sea."]]]}
PARAGRAPHS: dict[str, Any] = {
    "id": "2hop__1_2",
    "question": "Where does the miller live?",
    "answer": "Ham",
    "answer_aliases": ["Old Ham", "Ham"],
    "paragraphs": [
        {"idx": 0, "title": "Miller", "paragraph_text": "The miller lives in Ham.", "is_supporting": True},
        {"idx": 1, "title": "Smith", "paragraph_text": "The smith lives in Duby.", "is_supporting": False},
    ],
}


def written(folder: Path, *rows: object, name: str = "train.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != key}


def test_a_row_with_titles_becomes_a_task_and_passages(tmp_path: Path) -> None:
    [task], passages = read_hotpotqa(written(tmp_path, MILL))
    assert (task.kind, task.prompt, task.difficulty) == ("hotpotqa", MILL["question"], 0.5)
    assert task.answer == {"answers": ["the Duby"], "passages": ["Ham", "Mill"]} and task.solution is None
    assert passages[0] == {"id": "Ham", "title": "Ham", "text": "Ham is a village. It has one mill."}
    assert [passage["id"] for passage in passages] == ["Ham", "Mill", "Sea"]


def test_passages_of_all_rows_are_one_corpus_and_a_title_may_have_two(tmp_path: Path) -> None:
    tasks, passages = read_hotpotqa(written(tmp_path, MILL, BRIDGE, MILL))
    assert len(tasks) == 2  # a question asked twice is one
    assert [passage["id"] for passage in passages] == ["Ham", "Mill", "Sea", "Sea (2)"]


def test_a_row_with_paragraphs_becomes_a_task_and_passages(tmp_path: Path) -> None:
    [task], passages = read_musique(written(tmp_path, PARAGRAPHS))
    assert task.answer == {"answers": ["Ham", "Old Ham"], "passages": ["Miller"]}
    assert task.data == {"type": "2hop"} and [passage["id"] for passage in passages] == ["Miller", "Smith"]


def test_rows_whose_answer_was_taken_out_are_left_out(tmp_path: Path) -> None:
    """MuSiQue-Full has such rows beside the others: an answer, and no passage to find it in."""
    rest = {**PARAGRAPHS, "question": "Who?", "answerable": False, "paragraphs": PARAGRAPHS["paragraphs"][1:]}
    tasks, passages = read_musique(written(tmp_path, {**PARAGRAPHS, "answerable": True}, rest))
    assert [task.prompt for task in tasks] == [PARAGRAPHS["question"]]
    assert [passage["id"] for passage in passages] == ["Miller", "Smith"]


def test_a_folder_may_add_passages(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "corpus.jsonl.gz", "wt") as file:
        file.write('{"title": "Moon", "text": "The moon is farther."}\n{"title": "Sea", "text": "The sea is far."}\n')
    _, passages = read_2wiki(written(tmp_path, MILL).parent)
    assert [passage["id"] for passage in passages] == ["Ham", "Mill", "Sea", "Moon"]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('{"question": ', "not a JSON object"),
        ([1], "not a JSON object, but list"),
        (without(MILL, "question"), "no text under 'question'"),
        ({**MILL, "answer": " "}, "no text under 'answer'"),
        ({**MILL, "context": {}}, "no list under 'context'"),
        ({**MILL, "context": [["Ham", "text"]]}, r"an entry of 'context' must be \[title, \[sentence, ...\]\]"),
        (without(MILL, "supporting_facts"), "no list under 'supporting_facts'"),
        ({**MILL, "supporting_facts": [["Moon", 0]]}, "the supporting passage 'Moon' is not in 'context'"),
        ({**MILL, "supporting_facts": ["Ham"]}, r"an entry of .supporting_facts. must be \[title, sentence number\]"),
    ],
)
def test_a_bad_row_is_named_by_file_and_line(tmp_path: Path, row: object, complaint: str) -> None:
    with pytest.raises(DataError, match=f"train.jsonl:2: {complaint}"):
        read_hotpotqa(written(tmp_path, MILL, row))


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (without(PARAGRAPHS, "paragraphs"), "no list under 'paragraphs'"),
        ({**PARAGRAPHS, "paragraphs": ["text"]}, "an entry of 'paragraphs' must be an object"),
        ({**PARAGRAPHS, "paragraphs": PARAGRAPHS["paragraphs"][1:]}, "no passage supports the answer"),
        ({**PARAGRAPHS, "answer_aliases": [3]}, "'answer_aliases' must be a text or a list of texts"),
        ({**PARAGRAPHS, "paragraphs": [{"title": "Miller"}]}, "no text under 'paragraph_text'"),
    ],
)
def test_a_bad_row_with_paragraphs_is_named_too(tmp_path: Path, row: object, complaint: str) -> None:
    with pytest.raises(DataError, match=f"train.jsonl:2: {complaint}"):
        read_musique(written(tmp_path, PARAGRAPHS, row))


def test_missing_and_empty_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_hotpotqa(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match=r"has no train.jsonl or train.jsonl.gz or .*; it holds nothing"):
        read_musique(tmp_path)
    with pytest.raises(DataError, match="holds no rows; hotpotqa has one JSON object on each line"):
        read_hotpotqa(written(tmp_path))


def many(n: int) -> list[dict[str, Any]]:
    return [{**MILL, "question": f"Which river drives mill {i}?"} for i in range(n)]


def test_prepared_sets_name_a_corpus_that_a_search_tool_loads(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path / "data")
    counts = prepare_hotpotqa(written(tmp_path, *many(20)), registry, seed=0, held_out=0.2)
    assert counts == {"rows": 20, "passages": 3, "train": 16, "held_out": 4}
    tasks = [task for split in ("train", "held_out") for task in registry.load_dataset("hotpotqa", split)]
    assert len({task.id for task in tasks}) == 20
    [corpus] = {task.data["corpus"] for task in tasks}
    assert Path(corpus).parent == tmp_path / "data" / "hotpotqa"
    assert [p.id for p in SearchTool(load=load_corpus).on(corpus).search("Duby drives")] == ["Mill"]


def test_without_files_hotpotqa_comes_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, documented)
    registry = DatasetRegistry(tmp_path)
    assert prepare_hotpotqa(None, registry, seed=0, held_out=0.2) == {
        "rows": 20, "passages": 3, "train": 16, "held_out": 4,
    }  # fmt: skip
    assert asked == [("hotpotqa/hotpot_qa", "distractor", "train")]
    assert registry.manifest("hotpotqa", "train")["metadata"]["source"] == "hub"
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match="reading hotpotqa without files needs the package 'datasets'"):
        prepare_hotpotqa(None, registry, seed=0)


def test_rows_of_the_hub_are_those_of_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub(monkeypatch, lambda *name: [{**hotpot(1), "question": MILL["question"]}])
    assert read_hotpotqa(None) == read_hotpotqa(written(tmp_path, MILL))


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"context": None}, "no list under 'context'"),
        ({"context": {"title": ["Ham"]}}, "no list under 'context'"),
        ({"context": {"title": ["Ham"], "sentences": []}}, "no list under 'context'"),
        (
            {"supporting_facts": {"title": ["Moon"], "sent_id": [0]}},
            "the supporting passage 'Moon' is not in 'context'",
        ),
    ],
)
def test_a_bad_row_of_the_hub_is_named(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], complaint: str
) -> None:
    hub(monkeypatch, lambda *name: [hotpot(1), {**hotpot(2), **changed}])
    with pytest.raises(DataError, match=f"^hotpotqa/hotpot_qa/distractor, row 2: {complaint}"):
        read_hotpotqa(None)


def test_preparing_again_leaves_one_corpus(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path / "data")
    prepare_2wiki(written(tmp_path, *many(4)), registry, seed=0, held_out=0.5)
    changed = [{**row, "context": [*row["context"], ["Moon", ["The moon is farther."]]]} for row in many(4)]
    prepare_2wiki(written(tmp_path, *changed), registry, seed=0, held_out=0.5)
    [corpus] = (tmp_path / "data" / "2wiki").glob("corpus-*")
    assert len(load_corpus(str(corpus))) == 4
    assert {task.data["corpus"] for task in registry.load_dataset("2wiki", "train")} == {str(corpus)}


def test_preparing_needs_files_and_a_fraction(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path)
    with pytest.raises(
        DataError, match=r"musique is read from files; name the folder that holds train.jsonl with --from"
    ):
        prepare_musique(None, registry, seed=0)
    with pytest.raises(DataError, match="write a fraction between 0 and 1"):
        prepare_musique(written(tmp_path, PARAGRAPHS), registry, seed=0, held_out=1.0)


@pytest.mark.skipif("TROUPE_DATA" not in os.environ, reason="TROUPE_DATA does not point at the public data")
@pytest.mark.parametrize(
    ("read", "folder", "rows", "fewest"),
    [
        (read_hotpotqa, "hotpotqa", 177, 1700),
        (read_2wiki, "2wikimultihopqa", 500, 6119),
        (read_musique, "musique", 99, 1600),
    ],
)
def test_the_real_sets(read: Any, folder: str, rows: int, fewest: int) -> None:
    """Their first queries find gold passages far more often than chance would."""
    tasks, passages = read(Path(os.environ["TROUPE_DATA"]) / folder)
    assert len(tasks) == len({task.id for task in tasks}) == rows and len(passages) >= fewest
    ids = {passage["id"] for passage in passages}
    assert len(ids) == len(passages) and all(set(task.answer["passages"]) <= ids for task in tasks)
    assert all(search_reward_fn(task, answer).is_correct for task in tasks for answer in task.answer["answers"])
    library = SearchTool(passages)
    found = [{p.id for p in library.search(task.prompt, 10)} & set(task.answer["passages"]) for task in tasks]
    assert sum(map(bool, found)) / rows > 0.8
