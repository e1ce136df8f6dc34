"""Questions that need several passages: HotpotQA, 2WikiMultihopQA and MuSiQue, their authors' rows as JSON lines.

A row of HotpotQA (Yang et al. 2018, arXiv:1809.09600), and of 2WikiMultihopQA (Ho et al. 2020, arXiv:2011.01060):

    {"id": "5a8b57f2", "question": "Were Scott Derrickson and Ed Wood of the same nationality?", "answer": "yes",
     "type": "comparison", "level": "hard", "supporting_facts": [["Scott Derrickson", 0], ["Ed Wood", 0]],
     "context": [["Ed Wood", ["Edward Davis Wood Jr. was an American filmmaker ...", ...]], ... ten of them]}

A row of MuSiQue (Trivedi et al. 2022, arXiv:2108.00573):

    {"id": "2hop__4_5", "question": "...", "answer": "...", "answer_aliases": [...], "paragraphs": [
        {"idx": 0, "title": "Sleen", "paragraph_text": "...", "is_supporting": false}, ... twenty of them]}

and the task read from either:

    Task(id="hotpotqa-...", kind="hotpotqa", prompt="Were Scott Derrickson ...", data={"corpus": "data/hotpotqa/...",
    ...},
         answer={"answers": ["yes"], "passages": ["Scott Derrickson", "Ed Wood"]})

Rows of the hub have columns for pairs, `{"context": {"title": [...], "sentences": [[...], ...]}, ...}`, and are put
into their authors' form. The passages of all rows are one corpus, the distractors of each question among them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError
from troupe.tasks.corpora import Passages, read_corpus, stale_corpora, write_corpus
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.rows import hub_rows, locate, objects, text, texts
from troupe.tasks.splits import content_id
from troupe.tasks.splits import split as split_tasks

__all__ = [
    "prepare_2wiki",
    "prepare_hotpotqa",
    "prepare_musique",
    "read_2wiki",
    "read_hotpotqa",
    "read_musique",
    "register_with_corpus",
]

Read = tuple[list[Task], list[dict[str, str]]]
"""Tasks without a corpus name, and the passages that they are answered from."""


@dataclass(frozen=True)
class _Source:
    """Where a data set's files are, and how a row becomes a question."""

    name: str
    files: tuple[str, ...]
    task: Callable[[Mapping[str, Any], str, Passages], Task | None]
    corpora: tuple[str, ...] = ()  # more passages, where the folder has them
    hub: tuple[str, ...] = ()  # name on the Hugging Face hub, and the configuration

    def read(self, source: str | Path | None) -> Read:
        if source is None and not self.hub:
            raise DataError(f"{self.name} is read from files; name the folder that holds {self.files[0]} with --from")
        path = None if source is None else locate(source, *self.files)
        passages = Passages()
        rows = self._hub_rows() if path is None else objects(path, self.name)
        read = [self.task(row, where, passages) for where, row in rows]
        tasks = [task for task in read if task is not None]
        if not tasks:
            what = "questions that can be answered" if read else "rows"
            raise DataError(f"{path or self.hub[0]} holds no {what}; {self.name} has one JSON object on each line")
        more = [] if path is None else [path.parent / name for name in self.corpora]
        for row in (row for file in more if file.exists() for row in read_corpus(file)):
            passages.add(row["title"], row["text"])
        return list({task.id: task for task in tasks}.values()), passages.rows

    def _hub_rows(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        for where, row in hub_rows(*self.hub, split="train", what=self.name):
            yield where, {**row, **{key: _pairs(row.get(key), columns) for key, columns in _COLUMNS.items()}}

    def prepare(
        self, source: str | Path | None, registry: DatasetRegistry, *, seed: int, held_out: float
    ) -> dict[str, int]:
        tasks, passages = self.read(source)
        origin = "hub" if source is None else Path(source).name
        return register_with_corpus(self.name, tasks, passages, registry, seed=seed, held_out=held_out, source=origin)


def register_with_corpus(
    name: str,
    tasks: Sequence[Task],
    passages: Sequence[Mapping[str, str]],
    registry: DatasetRegistry,
    *,
    seed: int,
    held_out: float,
    source: str,
) -> dict[str, int]:
    """Stores the passages beside the splits `train` and `held_out`, whose tasks name them in `data["corpus"]`.

    `held_out` is a fraction of the questions. Returns counts of rows, passages and tasks in each split.
    """
    if not 0 < held_out < 1:
        raise DataError(f"held_out is {held_out!r}; write a fraction between 0 and 1")
    corpus = write_corpus(registry.root / name, passages)
    placed = [replace(task, data={**task.data, "corpus": str(corpus)}) for task in tasks]
    train, rest = split_tasks(placed, (1 - held_out, held_out), seed)
    for split, part in (("train", train), ("held_out", rest)):
        registry.register_dataset(name, part, split, source=source, seed=seed, held_out=held_out, corpus=corpus.name)
    for stale in stale_corpora(corpus):
        stale.unlink()
    return {"rows": len(tasks), "passages": len(passages), "train": len(train), "held_out": len(rest)}


# ---------------------------------------------------------------------------------------------- rows


def _titled(kind: str) -> Callable[[Mapping[str, Any], str, Passages], Task]:
    """HotpotQA's form: contexts are [title, sentences], supporting facts [title, number of the sentence]."""

    def task(row: Mapping[str, Any], where: str, passages: Passages) -> Task:
        ids: dict[str, str] = {}
        for entry in _list(row, "context", where):
            if not _is_context(entry):
                raise DataError(f"{where}: an entry of 'context' must be [title, [sentence, ...]]")
            title, sentences = entry[0].strip(), " ".join(sentence.strip() for sentence in entry[1])
            if sentences:
                ids[title] = passages.add(title, sentences)
        gold = []
        for entry in _list(row, "supporting_facts", where):
            if not isinstance(entry, list) or not entry or not isinstance(entry[0], str):
                raise DataError(f"{where}: an entry of 'supporting_facts' must be [title, sentence number]")
            if entry[0].strip() not in ids:
                raise DataError(f"{where}: the supporting passage {entry[0]!r} is not in 'context'")
            gold.append(ids[entry[0].strip()])
        return _task(kind, row, where, gold, {"type": str(row.get("type") or "")})

    return task


def _is_context(entry: Any) -> bool:
    return (
        isinstance(entry, list)
        and len(entry) == 2
        and isinstance(entry[0], str)
        and isinstance(entry[1], list)
        and all(isinstance(sentence, str) for sentence in entry[1])
    )


_COLUMNS = {"context": ("title", "sentences"), "supporting_facts": ("title", "sent_id")}
"""Lists of pairs that the hub keeps as two columns each."""


def _pairs(found: Any, columns: tuple[str, str]) -> Any:
    """`{"title": [a, b], "sent_id": [0, 1]}` as `[[a, 0], [b, 1]]`; what has another form is left for its reader to
    refuse."""
    if not isinstance(found, Mapping) or not all(isinstance(found.get(column), list) for column in columns):
        return found
    left, right = (found[column] for column in columns)
    return [list(pair) for pair in zip(left, right, strict=True)] if len(left) == len(right) else found


def _musique(row: Mapping[str, Any], where: str, passages: Passages) -> Task | None:
    """None for a row of MuSiQue-Full whose answer was taken out of its paragraphs; they are distractors all the
    same."""
    gold = []
    for paragraph in _list(row, "paragraphs", where):
        if not isinstance(paragraph, Mapping):
            raise DataError(f"{where}: an entry of 'paragraphs' must be an object")
        id = passages.add(text(paragraph, "title", where), text(paragraph, "paragraph_text", where))
        if paragraph.get("is_supporting") is True:
            gold.append(id)
    if row.get("answerable") is False:
        return None
    return _task("musique", row, where, gold, {"type": str(row.get("id") or "").partition("__")[0]})


def _task(kind: str, row: Mapping[str, Any], where: str, gold: Sequence[str], data: Mapping[str, Any]) -> Task:
    question = text(row, "question", where)
    if not gold:
        raise DataError(f"{where}: no passage supports the answer; a retriever could not be paid")
    gold = list(dict.fromkeys(gold))
    answers = list(dict.fromkeys([text(row, "answer", where), *texts(row, "answer_aliases", where)]))
    return Task(
        id=content_id(kind, question),
        kind=kind,
        prompt=question,
        data=dict(data),
        difficulty=min(1.0, len(gold) / 4),
        answer={"answers": answers, "passages": gold},
    )


def _list(row: Mapping[str, Any], key: str, where: str) -> list[Any]:
    found = row.get(key)
    if not isinstance(found, list) or not found:
        raise DataError(f"{where}: no list under {key!r}")
    return found


# ---------------------------------------------------------------------------------------------- data sets

_HOTPOTQA = _Source(
    "hotpotqa",
    ("train.jsonl", "train.jsonl.gz", "dev_distractor_sample.jsonl.gz"),
    _titled("hotpotqa"),
    hub=("hotpotqa/hotpot_qa", "distractor"),
)
_2WIKI = _Source(
    "2wiki", ("train.jsonl", "train.jsonl.gz", "train_sample.jsonl.gz"), _titled("2wiki"), ("corpus.jsonl.gz",)
)
_MUSIQUE = _Source("musique", ("train.jsonl", "train.jsonl.gz", "dev_sample.jsonl.gz"), _musique)


def read_hotpotqa(source: str | Path | None) -> Read:
    """HotpotQA's questions and passages, from a file or the folder that holds it; without one, those of its training
    split on the Hugging Face hub, which needs the package `datasets`. Raises DataError with file and line."""
    return _HOTPOTQA.read(source)


def read_2wiki(source: str | Path) -> Read:
    """2WikiMultihopQA's, as `read_hotpotqa`; a `corpus.jsonl.gz` in the same folder adds passages."""
    return _2WIKI.read(source)


def read_musique(source: str | Path) -> Read:
    """MuSiQue's, as `read_hotpotqa`."""
    return _MUSIQUE.read(source)


def prepare_hotpotqa(
    source: str | Path | None, registry: DatasetRegistry, *, seed: int, held_out: float = 0.1
) -> dict[str, int]:
    """Registers HotpotQA (see `read_hotpotqa`) as `hotpotqa` with the splits `train` and `held_out`, and its passages.
    Returns counts."""
    return _HOTPOTQA.prepare(source, registry, seed=seed, held_out=held_out)


def prepare_2wiki(
    source: str | Path | None, registry: DatasetRegistry, *, seed: int, held_out: float = 0.1
) -> dict[str, int]:
    """2WikiMultihopQA as `2wiki`."""
    return _2WIKI.prepare(source, registry, seed=seed, held_out=held_out)


def prepare_musique(
    source: str | Path | None, registry: DatasetRegistry, *, seed: int, held_out: float = 0.1
) -> dict[str, int]:
    """MuSiQue as `musique`."""
    return _MUSIQUE.prepare(source, registry, seed=seed, held_out=held_out)
