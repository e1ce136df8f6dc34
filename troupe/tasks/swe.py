"""Repair tasks of several formats, each as a data set under the name that document 004 or its authors give it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError, MissingExtra
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.quixbugs import quixbugs_task
from troupe.tasks.rows import objects
from troupe.tasks.splits import split
from troupe.tasks.swebench import r2e_task, swebench_task, with_checkout

__all__ = ["prepare_swe"]

FOLDERS = ("quixbugs", "swebench_lite", "swebench_verified", "swebench", "r2e_gym")
"""Folders that are looked into below a folder of data sets."""

CHECKOUTS = "checkouts"
"""A folder beside the rows: `checkouts/<task id>` is the repository of that task at its commit."""

HUB_NAMES = {"R2E-Gym/R2E-Gym-Subset": "train", "princeton-nlp/SWE-bench_Verified": "test"}
"""What is fetched where no files are given, and the split that it has there."""


def prepare_swe(
    source: str | Path | None, registry: DatasetRegistry, *, seed: int, held_out: float = 0.1
) -> dict[str, int]:
    """Reads QuixBugs, SWE-bench and R2E-Gym rows, and registers each set with the splits `train` and `held_out`.

    `source` is a `.jsonl[.gz]` file, a folder with such files, or one with the folders of `FOLDERS`; without it
    `R2E_Gym_Subset` and `SWE_Bench_Verified` come from the Hugging Face hub, which needs the package `datasets`.
    `held_out` is a fraction of a set's tasks. QuixBugs' programs, and the tests of tasks that have a checkout, are run
    in the sandbox to see that they fail and pass. Returns, for each set, the size of each split, and how many tasks
    lack a checkout. Raises DataError where there is nothing to read, and for a bad row.
    """
    if not 0 < held_out < 1:
        raise DataError(f"held_out is {held_out!r}; write a fraction between 0 and 1")
    sets: dict[str, dict[str, Task]] = {}
    with _Reader() as reader:
        for name, where, row in _hub_rows() if source is None else _file_rows(Path(source)):
            task = reader.task(row, where)
            checkout = None if source is None else _folder(Path(source)) / CHECKOUTS / task.id
            if checkout is not None and checkout.is_dir():
                task = with_checkout(task, checkout, sandbox=reader.sandbox)
            sets.setdefault(_set_name(task, name), {})[task.id] = task
    parts = {name: _split(name, tasks, held_out, seed) for name, tasks in sorted(sets.items())}
    counts = {}
    for name, splits in parts.items():  # nothing is stored before everything was found good
        for part, rows in splits.items():
            registry.register_dataset(name, rows, part, source=name, seed=seed, held_out=held_out)
            counts[f"{name}/{part}"] = len(rows)
        lacking = sum("files" not in task.data for rows in splits.values() for task in rows)
        counts |= {f"{name} without checkout": lacking} if lacking else {}
    return counts


def _split(name: str, tasks: Mapping[str, Task], held_out: float, seed: int) -> dict[str, list[Task]]:
    if len(tasks) < 2:
        raise DataError(f"{name} has {len(tasks)} task; two are needed to hold one out")
    parts = dict(zip(("train", "held_out"), split(tasks.values(), (1 - held_out, held_out), seed), strict=True))
    for part, rows in parts.items():
        if not rows:
            raise DataError(f"held_out={held_out} leaves no task of {name} for {part}; write another fraction")
    return parts


class _Reader:
    """Rows of any format to tasks; the sandbox is made with the first row that needs it."""

    def __init__(self) -> None:
        self._sandbox: Any = None

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._sandbox is not None:
            self._sandbox.close()

    def task(self, row: Mapping[str, Any], where: str) -> Task:
        if "parsed_commit_content" in row:
            return r2e_task(row, where)
        if "test_patch" in row:
            return swebench_task(row, where)
        if "buggy" not in row:
            raise DataError(
                f"{where}: not a repair task; a row has buggy (QuixBugs), test_patch (SWE-bench) or "
                "parsed_commit_content (R2E-Gym)"
            )
        return quixbugs_task(row, where, sandbox=self.sandbox)

    @property
    def sandbox(self) -> Any:
        if self._sandbox is None:
            from troupe.sandbox import Limits, Sandbox

            self._sandbox = Sandbox(Limits(wall_seconds=10.0, cpu_seconds=5.0))
        return self._sandbox


def _set_name(task: Task, origin: str) -> str:
    if task.kind == "swebench":
        known = ("Verified", "Lite", "Multimodal")
        return "_".join(["SWE_Bench", *(word for word in known if word.lower() in origin.lower())][:2])
    return {"r2e": "R2E_Gym_Subset"}.get(task.kind, task.kind)


def _folder(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def _file_rows(source: Path) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(file with its folder, `file:line`, row)."""
    if not source.exists():
        raise DataError(f"{source} does not exist; give a file of rows, or a folder that holds some")
    folders = [source, *(source / name for name in FOLDERS)]
    inside = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    files = [path for path in inside if path.name.endswith((".jsonl", ".jsonl.gz"))] if source.is_dir() else [source]
    if not files:
        raise DataError(f"{source} holds no .jsonl or .jsonl.gz file, nor does {', '.join(FOLDERS)} in it")
    for path in files:
        for where, row in objects(path, "swe"):
            yield f"{path.parent.name}/{path.name}", where, row


def _hub_rows() -> Iterable[tuple[str, str, Mapping[str, Any]]]:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise MissingExtra("datasets", "sft", "reading SWE-bench and R2E-Gym without files") from error
    for name, part in HUB_NAMES.items():
        for number, row in enumerate(load_dataset(name, split=part, streaming=True), 1):
            yield name, f"{name}:{number}", row
