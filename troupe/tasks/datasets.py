"""Prepared sets of tasks on disk, by name and split.

    registry = DatasetRegistry("data")
    prepare_gsm8k("downloads/gsm8k", registry, seed=0)  # {"rows": 7473, "calls": 7376, ..., "held_out": 747}
    registry.load_dataset("gsm8k", "train")             # [Task(...), ...]

A split is a file of JSON lines, named by its content, and a manifest that points at it:

    data/gsm8k/train-4be1f0a2c93d.jsonl
    data/gsm8k/train.json          {"file": ..., "rows": 6726, "sha256": ..., "metadata": {"source": ...}}

The manifest is written last and atomically, so that a reader sees the old set or the new one, whole.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError, did_you_mean
from troupe.stores.atomic import storage_errors, write_atomic
from troupe.tasks.gsm8k import read_gsm8k
from troupe.tasks.splits import split as split_tasks

__all__ = ["DatasetRegistry", "prepare_gsm8k", "read_gsm8k"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")


class DatasetRegistry:
    """Named, split sets of tasks below one folder."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def register_dataset(self, name: str, data: Sequence[Task], split: str, **metadata: Any) -> Path:
        """Stores `data` as `name`/`split`, in place of an earlier set of that name, and returns the manifest's path.

        Raises DataError for a name that is no file name, an empty set or a task that is not JSON, and StorageError
        where the folder cannot be written.
        """
        _check_names(name, split)
        if not data:
            raise DataError(f"dataset {name}/{split} would be empty; register at least one task")
        content = "".join(_line(task) for task in data).encode()
        digest = hashlib.sha256(content).hexdigest()
        file = f"{split}-{digest[:12]}.jsonl"
        manifest = {"file": file, "rows": len(data), "sha256": digest, "metadata": metadata}
        folder = self.root / name
        with storage_errors("write", folder):
            folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / file, content)
        write_atomic(folder / f"{split}.json", json.dumps(manifest, indent=1).encode())
        for stale in folder.glob(f"{split}-{'[0-9a-f]' * 12}.jsonl"):
            if stale.name != file:
                stale.unlink()
        return folder / f"{split}.json"

    def load_dataset(self, name: str, split: str) -> list[Task]:
        """The stored tasks. Raises DataError for an unknown name or split (listing what exists) and a damaged file."""
        manifest = self.manifest(name, split)
        path = self.root / name / manifest["file"]
        content = path.read_bytes() if path.exists() else b""
        lines = content.decode(errors="replace").splitlines()
        tasks = [_read(line, f"{path}:{number}") for number, line in enumerate(lines, start=1)]
        if hashlib.sha256(content).hexdigest() != manifest["sha256"]:
            raise DataError(f"{path} is not the file that {split}.json describes; prepare the dataset again")
        return tasks

    def remove_dataset(self, name: str, split: str) -> None:
        """Deletes one set, its manifest first. Raises DataError for a set that is not there, and StorageError."""
        file = self.manifest(name, split)["file"]
        with storage_errors("delete from", self.root / name):
            (self.root / name / f"{split}.json").unlink()
            (self.root / name / file).unlink(missing_ok=True)

    def manifest(self, name: str, split: str) -> dict[str, Any]:
        """`{"file", "rows", "sha256", "metadata"}` of one set. Where another split of the set has a `remedy` in its
        metadata, the error for a split that is not there ends with it."""
        if name not in self.names():
            raise DataError(f"{self.root} has no dataset {name!r}{did_you_mean(name, self.names())}")
        if split not in self.splits(name):
            known = self.splits(name)
            remedies = [self.manifest(name, other)["metadata"].get("remedy") for other in known]
            hint = "".join(f"; {remedy}" for remedy in remedies if remedy)
            raise DataError(f"dataset {name} has no split {split!r}{did_you_mean(split, known)}{hint}")
        path = self.root / name / f"{split}.json"
        try:
            manifest = json.loads(path.read_bytes())
            return {key: manifest[key] for key in ("file", "rows", "sha256", "metadata")}
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is not a dataset manifest ({error}); prepare the dataset again") from error

    def names(self) -> list[str]:
        """Names of the stored datasets, sorted."""
        return sorted({path.parent.name for path in self.root.glob("*/*.json")})

    def splits(self, name: str) -> list[str]:
        """Splits of one dataset, sorted."""
        return sorted(path.stem for path in (self.root / name).glob("*.json"))


def prepare_gsm8k(
    source: str | Path | None, registry: DatasetRegistry, *, seed: int, held_out: float = 0.1
) -> dict[str, int]:
    """Reads GSM8K (see `read_gsm8k`) and registers it as `gsm8k` with the splits `train` and `held_out`.

    `held_out` is a fraction of the questions. The same seed splits them alike whatever their order in the file.
    Returns counts: `rows`, `calls` (rows whose calculator calls verify), `plans` (rows with a composed plan), and the
    size of each split.
    """
    if not 0 < held_out < 1:
        raise DataError(f"held_out is {held_out!r}; write a fraction between 0 and 1")
    tasks = read_gsm8k(source)
    train, rest = split_tasks(tasks, (1 - held_out, held_out), seed)
    origin = "hub" if source is None else Path(source).name
    for name, part in (("train", train), ("held_out", rest)):
        registry.register_dataset("gsm8k", part, name, source=origin, seed=seed, held_out=held_out)
    return {
        "rows": len(tasks),
        "calls": sum("calls" in task.solution for task in tasks),
        "plans": sum("plan" in task.solution for task in tasks),
        "train": len(train),
        "held_out": len(rest),
    }


def _check_names(*names: str) -> None:
    for name in names:
        if not _NAME.fullmatch(name):
            raise DataError(f"{name!r} cannot name a dataset or split; use letters, digits, '_', '-' and '.'")


def _line(task: Task) -> str:
    try:
        return json.dumps(task.to_dict(), allow_nan=False, ensure_ascii=True) + "\n"
    except (TypeError, ValueError) as error:
        raise DataError(f"task {task.id} cannot be stored as JSON: {error}") from error


def _read(line: str, where: str) -> Task:
    try:
        record: Mapping[str, Any] = json.loads(line)
        return Task.from_dict(record)
    except (ValueError, DataError) as error:
        raise DataError(f"{where}: not a stored task ({error}); prepare the dataset again") from error
