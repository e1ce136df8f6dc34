"""Programming problems of several formats as one data set, `deepcoder`.

MBPP asks some of its questions twice in other words. Problems with one prompt, the same tests or the same solution but
for its names are twins, and twins never stand on both sides of the split.
"""

from __future__ import annotations

import ast
import builtins
import hashlib
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError
from troupe.tasks.code_stdin import stdin_task
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.humaneval import humaneval_task
from troupe.tasks.mbpp import mbpp_task
from troupe.tasks.rows import hub_rows, objects
from troupe.tasks.splits import content_id, split

__all__ = ["prepare_deepcoder"]

FORMATS = {"test_list": mbpp_task, "entry_point": humaneval_task, "inputs": stdin_task}
"""The key that tells a format -> its reader, which gives None for a row whose tests cannot be used."""

FOLDERS = ("mbpp", "humaneval", "code_stdin")
"""Folders that are looked into below a folder of data sets."""

HUB_NAME = ("google-research-datasets/mbpp", "full")
HUB_SPLITS = ("train", "validation", "prompt")
"""What is fetched where no files are given: MBPP without `test`, which is for comparison with published results."""


def prepare_deepcoder(
    source: str | Path | None, registry: DatasetRegistry, *, seed: int, held_out: float = 0.1
) -> dict[str, int]:
    """Reads MBPP, HumanEval and stdin/stdout rows and registers them as `deepcoder`, split into `train` and `held_out`.

    `source` is a `.jsonl[.gz]` file, a folder with such files, or one with the folders of `FOLDERS`; without it MBPP
    comes from the Hugging Face hub, which needs the package `datasets`. `held_out` is a fraction of the problems; of
    twins that are held out, one is kept. Returns counts: the tasks of each kind, the rows `left_out` because their
    tests are no comparisons with literals or would pay a constant, and the size of each split. Raises DataError where
    there is nothing to read, and for a bad row.
    """
    if not 0 < held_out < 1:
        raise DataError(f"held_out is {held_out!r}; write a fraction between 0 and 1")
    origin = "hub" if source is None else Path(source).name
    rows = [_task(row, where) for where, row in (_hub_rows() if source is None else _file_rows(Path(source)))]
    tasks = _with_twins({task.id: task for task in rows if task is not None}.values())
    if len(tasks) < 2:
        raise DataError(f"{source or 'the hub'} holds {len(tasks)} usable problems; two are needed to hold one out")
    original = {task.id: task for task in tasks}
    alike = [replace(task, kind="deepcoder") for task in tasks]  # a problem may come in two formats, which are kinds
    train, rest = ([original[t.id] for t in part] for part in split(alike, (1 - held_out, held_out), seed))
    for name, part in (("train", train), ("held_out", rest)):
        registry.register_dataset("deepcoder", part, name, source=origin, seed=seed, held_out=held_out)
    kinds = Counter(task.kind for task in tasks)
    return {**dict(sorted(kinds.items())), "left_out": rows.count(None), "train": len(train), "held_out": len(rest)}


def _with_twins(tasks: Iterable[Task]) -> list[Task]:
    """The tasks with a `key` that twins share (see `fingerprint`), whatever their order."""
    leaders: dict[str, str] = {}

    def leader(mark: str) -> str:
        while leaders.setdefault(mark, mark) != mark:
            mark = leaders[mark]
        return mark

    tasks = list(tasks)
    for task in tasks:
        first, *others = sorted({leader(mark) for mark in _marks(task)})
        leaders.update(dict.fromkeys(others, first))
    return [replace(task, data={**task.data, "key": leader(_marks(task)[0])}) for task in tasks]


def _marks(task: Task) -> list[str]:
    """What makes a twin: the prompt, the tests, the program. As hashes, since `data` is seen by the team."""
    program = task.solution["program"] if task.solution else ""
    said = [content_id("prompt", task.prompt), repr(task.answer), *_shape(program)]
    return [hashlib.blake2b(part.encode(errors="replace"), digest_size=8).hexdigest() for part in said]


def _shape(program: str) -> list[str]:
    """A program without the names that it gives; nothing for what is no program of this Python."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes such as "\d"
            tree = ast.parse(program)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    given: dict[str, str] = {}
    for node in ast.walk(tree):
        for field in ("name", "arg", "id"):
            name = getattr(node, field, None)
            if isinstance(name, str) and not hasattr(builtins, name):
                setattr(node, field, given.setdefault(name, f"v{len(given)}"))
    return [ast.dump(tree)] if tree.body else []


def _files(source: Path) -> Iterator[Path]:
    if not source.exists():
        raise DataError(f"{source} does not exist; give a file of problems, or a folder that holds some")
    if not source.is_dir():
        yield source
        return
    folders = [source, *(source / name for name in FOLDERS if (source / name).is_dir())]
    found = [path for folder in folders for path in sorted(folder.iterdir()) if path.name.endswith(_ENDINGS)]
    if not found:
        raise DataError(f"{source} holds no .jsonl or .jsonl.gz file, nor does {' or '.join(FOLDERS)} in it")
    yield from found


_ENDINGS = (".jsonl", ".jsonl.gz")


def _file_rows(source: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for path in _files(source):
        yield from objects(path, "deepcoder")


def _hub_rows() -> Iterator[tuple[str, Mapping[str, Any]]]:
    for part in HUB_SPLITS:
        yield from hub_rows(*HUB_NAME, split=part, what="MBPP")


def _task(row: Mapping[str, Any], where: str) -> Task | None:
    known = [reader for key, reader in FORMATS.items() if key in row]
    if not known:
        raise DataError(
            f"{where}: not a problem; a row has test_list (MBPP), entry_point (HumanEval) or inputs (stdin/stdout)"
        )
    return known[0](row, where)
