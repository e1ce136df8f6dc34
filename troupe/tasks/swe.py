"""Repair tasks of several formats, each as a data set under the name that document 004 or its authors give it.

Rows of SWE-bench and R2E-Gym hold no repository. Beside them, or in a folder of their own, stands a checkout for each
task that is to be run, at the commit that the task names:

    downloads/r2e_gym/train.jsonl
    downloads/checkouts/tornado__7d91e3c9.../             the files of the task of that id, `.git` or not
    downloads/checkouts/astropy__astropy-12907/

Tasks with a checkout are trained on and scored; the others are kept in a split of their own (`WAITING`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.quixbugs import quixbugs_task
from troupe.tasks.rows import hub_rows, objects
from troupe.tasks.splits import split
from troupe.tasks.swebench import CheckoutError, r2e_task, swebench_task, with_checkout

__all__ = ["prepare_swe"]

FOLDERS = ("quixbugs", "swebench_lite", "swebench_verified", "swebench", "r2e_gym")
"""Folders that are looked into below a folder of data sets."""

CHECKOUTS = "checkouts"
"""A folder beside the rows: `checkouts/<task id>` is the repository of that task at its commit."""

HUB_NAMES = {"R2E-Gym/R2E-Gym-Subset": "train", "princeton-nlp/SWE-bench_Verified": "test"}
"""What is fetched where no files are given, and the split that it has there."""

HELD_OUT = ("SWE_Bench_Verified",)
"""Sets that teams are compared on, document 004's validation set; nothing of them is for training."""

WAITING = "without_checkout"
"""The split of tasks that lack their repository. They can be read, but neither trained on nor scored."""


def prepare_swe(
    source: str | Path | None, registry: DatasetRegistry, *, seed: int, held_out: float = 0.1
) -> dict[str, int]:
    """Reads QuixBugs, SWE-bench and R2E-Gym rows, and registers each set with the splits `train` and `held_out`, those
    of `HELD_OUT` with `held_out` alone. Tasks that lack a checkout are the split `WAITING`.

    `source` is a `.jsonl[.gz]` file, a folder with such files, or one with the folders of `FOLDERS`. Without it, and
    where it has checkouts alone, `R2E_Gym_Subset` and `SWE_Bench_Verified` come from the Hugging Face hub, which needs
    the package `datasets`. `held_out` is a fraction of a set's tasks. QuixBugs' programs, and the tests of tasks that
    have a checkout, are run in the sandbox to see that they fail and pass; a task whose checkout cannot be run is left
    out, and the manifests say why (`metadata["left_out"]`: task id to sentence). Returns, for each set, the size of
    each split, and how many tasks were left out for each reason. Raises DataError where there is nothing to read or
    nothing of a set can be used, and for a bad row; then nothing is stored.
    """
    if not 0 < held_out < 1:
        raise DataError(f"held_out is {held_out!r}; write a fraction between 0 and 1")
    folder = None if source is None else _folder(Path(source))
    sets: dict[str, _Found] = {}
    with _Reader() as reader:
        for origin, where, row in _hub() if source is None else _file_rows(Path(source)):
            task = reader.task(row, where)
            sets.setdefault(_set_name(task, origin), _Found()).add(task, folder, reader)
    parts = {name: _parts(name, found, held_out, seed) for name, found in sorted(sets.items())}
    counts = {}
    for name, splits in parts.items():  # nothing is stored before everything was found good
        left_out = sets[name].left_out
        metadata = {"source": name, "seed": seed, "held_out": held_out}
        metadata["left_out"] = {task: str(error) for task, error in left_out.items()}
        for part, rows in splits.items():
            more = {"remedy": _remedy(rows, source)} if part == WAITING else {}
            registry.register_dataset(name, rows, part, **metadata, **more)
            counts[f"{name}/{part}"] = len(rows)
        for stale in set(registry.splits(name)) - set(splits):  # such as what waited until its checkouts came
            registry.remove_dataset(name, stale)
        reasons = Counter(error.reason for error in left_out.values())
        counts |= {f"{name} left out, {reason}": count for reason, count in sorted(reasons.items())}
    return counts


@dataclass
class _Found:
    """One set's tasks by id: those that can be run, those that lack a checkout, and why others were left out."""

    ready: dict[str, Task] = field(default_factory=dict)
    waiting: dict[str, Task] = field(default_factory=dict)
    left_out: dict[str, CheckoutError] = field(default_factory=dict)

    def add(self, task: Task, folder: Path | None, reader: _Reader) -> None:
        if "files" in task.data:
            self.ready[task.id] = task
        elif folder is None or not (folder / CHECKOUTS / task.id).is_dir():
            self.waiting[task.id] = task
        else:
            try:
                self.ready[task.id] = with_checkout(task, folder / CHECKOUTS / task.id, sandbox=reader.sandbox)
            except CheckoutError as error:
                self.left_out[task.id] = error


def _parts(name: str, found: _Found, held_out: float, seed: int) -> dict[str, list[Task]]:
    """The tasks of each split that has some."""
    ready, waiting = list(found.ready.values()), list(found.waiting.values())
    why = f"; of those left out, the first: {next(iter(found.left_out.values()))}" if found.left_out else ""
    if not ready and not waiting:
        raise DataError(f"{name} has no task that can be run{why}")
    parts = {"held_out": ready, WAITING: waiting}
    if ready and name not in HELD_OUT:
        if len(ready) < 2:
            raise DataError(f"{name} has 1 task that can be run; two are needed to hold one out{why}")
        parts["train"], parts["held_out"] = split(ready, (1 - held_out, held_out), seed)
        for part in ("train", "held_out"):
            if not parts[part]:
                raise DataError(f"held_out={held_out} leaves no task of {name} for {part}; write another fraction")
    return {part: parts[part] for part in ("train", "held_out", WAITING) if parts.get(part)}


def _remedy(waiting: Sequence[Task], source: str | Path | None) -> str:
    """What is to be done about the tasks that lack a checkout."""
    folder = "DIR" if source is None else _folder(Path(source))
    first = waiting[0]
    return (
        f"tasks that lack a checkout of their repository: {len(waiting)}; put each one's, at its commit, into a folder "
        f"named by the task's id ({folder}/{CHECKOUTS}/{first.id} for {first.data['repository']}) and prepare again "
        f"with --from {source or folder}"
    )


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
    if not files and (source / CHECKOUTS).is_dir():
        yield from _hub()
        return
    if not files:
        raise DataError(
            f"{source} holds no .jsonl or .jsonl.gz file, nor does {', '.join(FOLDERS)} in it, and no {CHECKOUTS} for "
            "rows of the hub"
        )
    for path in files:
        for where, row in objects(path, "swe"):
            yield f"{path.parent.name}/{path.name}", where, row


def _hub() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for name, part in HUB_NAMES.items():
        for where, row in hub_rows(name, split=part, what=name.rpartition("/")[2], streaming=True):
            yield name, where, row
