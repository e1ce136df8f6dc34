"""Research questions of one's own: what a report must say, and which passages say so.

A folder holds `corpus.jsonl`, one passage on each line, and `questions.jsonl`:

    {"id": "p7", "title": "Annual report", "text": "The harbour was dredged in 1931 and again in 1954."}

    {"question": "When was the harbour dredged, and who paid?", "facts": [
        {"values": ["1931"], "passages": ["p7"]},
        {"values": ["the city", "the council"], "passages": ["p3", "p9"]}]}

A fact counts as reported where a statement holds one of its values and cites one of its passages. The task read from
the row carries the passages' texts, so that a reward can check what is cited:

    Task(id="deepresearch-...", kind="deepresearch", prompt="When was the harbour ...", data={"corpus": "data/..."},
         answer={"facts": [{"values": ["1931"], "passages": {"p7": "The harbour was dredged in 1931 and ..."}}, ...]})
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError
from troupe.tasks.corpora import read_corpus
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.multihop import Read, register_with_corpus
from troupe.tasks.rows import locate, objects, text, texts
from troupe.tasks.splits import content_id

__all__ = ["prepare_deepresearch", "read_deepresearch"]

NAME = "deepresearch"


def read_deepresearch(source: str | Path) -> Read:
    """The questions and passages of a folder. Raises DataError with file and line for a row that cannot be used."""
    folder = Path(source)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder; give one that holds questions.jsonl and corpus.jsonl")
    passages = read_corpus(locate(folder, "corpus.jsonl", "corpus.jsonl.gz"))
    by_id = {passage["id"]: f"{passage['title']} {passage['text']}".strip() for passage in passages}
    questions = locate(folder, "questions.jsonl", "questions.jsonl.gz")
    tasks: dict[str, Task] = {}
    for where, row in objects(questions, NAME):
        task = _task(row, where, by_id)
        if task.id in tasks:
            raise DataError(f"{where}: the question was asked before; delete one of the two")
        tasks[task.id] = task
    if not tasks:
        raise DataError(f"{questions} holds no questions; each line is an object with question and facts")
    return list(tasks.values()), passages


def prepare_deepresearch(
    source: str | Path | None, registry: DatasetRegistry, *, seed: int, held_out: float = 0.1
) -> dict[str, int]:
    """Registers a folder's questions as `deepresearch` with the splits `train` and `held_out`, and its passages.
    Returns counts."""
    if source is None:
        raise DataError(
            "deepresearch is read from files; name the folder with questions.jsonl and corpus.jsonl (--from)"
        )
    tasks, passages = read_deepresearch(source)
    return register_with_corpus(NAME, tasks, passages, registry, seed=seed, held_out=held_out, source=Path(source).name)


def _task(row: Mapping[str, Any], where: str, passages: Mapping[str, str]) -> Task:
    question, facts = text(row, "question", where), row.get("facts")
    if not isinstance(facts, list) or not facts:
        raise DataError(f"{where}: no list under 'facts'; name what a report must say")
    answer = {"facts": [_fact(fact, f"{where}: fact {n}", passages) for n, fact in enumerate(facts, start=1)]}
    difficulty = min(1.0, len(facts) / 8)
    return Task(content_id(NAME, question), NAME, question, {}, difficulty, answer)


def _fact(fact: Any, where: str, passages: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(fact, Mapping):
        raise DataError(f"{where} is not an object with values and passages")
    values, ids = texts(fact, "values", where), texts(fact, "passages", where)
    if not values or not ids:
        raise DataError(f"{where} has no {'passages' if values else 'values'}; both are needed")
    for id in ids:
        if id not in passages:
            raise DataError(f"{where} names the passage {id!r}, which the corpus does not have")
        if not any(_holds(passages[id], value) for value in values):
            raise DataError(f"{where}: the passage {id!r} holds none of the values {values!r}")
    return {"values": values, "passages": {id: passages[id] for id in ids}}


def _holds(passage: str, value: str) -> bool:
    """Whether the value stands there in whole words, as a statement must have it: "193" is not in "1931"."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", passage, re.IGNORECASE) is not None
