"""Checkpoints: folders that hold everything a run needs to go on, and that are complete or absent.

    runs/math/checkpoints/
    ├── checkpoint_20/
    └── checkpoint_40/
        ├── model.safetensors      one file per group of tensors
        ├── optimizer.safetensors
        ├── state.json             counters, schedules, generator states, byte offsets of the append-only stores
        ├── state.safetensors      the tensors inside the state, if there are any
        ├── files/                 what the `files` callback wrote, e.g. an adapter
        └── manifest.json          written last: step, metrics, size and sha256 of every file

Reading one runs no code: safetensors and JSON, never pickle.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from troupe.errors import DataError, StorageError
from troupe.stores.atomic import publish_folder, remove_folder, remove_leftovers, staged_folder, storage_errors
from troupe.stores.manifest import is_complete, read_manifest, verify, write_manifest
from troupe.stores.state import join_state, parameter_hash, read_tensors, split_state, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint", "CheckpointStore", "join_state", "parameter_hash", "resolve", "split_state"]

_FOLDER = re.compile(r"checkpoint_(\d+)")
_GROUP = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_STATE = "state"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint, read and verified. Tensors lie on the CPU: `tensors["model"]["layer.weight"]`."""

    step: int
    path: Path
    tensors: Mapping[str, Mapping[str, Tensor]]
    state: Any
    metrics: Mapping[str, float]

    @property
    def files(self) -> Path:
        """Folder of what the `files` callback wrote."""
        return self.path / "files"


class CheckpointStore:
    """The checkpoints of one run.

    Pruning keeps the newest `keep_last`, the best by `metric` (`mode` "max" or "min"), and always the one just
    written. What a killed save left behind is removed on opening and listed in `removed_leftovers`.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep_last: int = 2,
        metric: str | None = None,
        mode: Literal["max", "min"] = "max",
    ) -> None:
        if keep_last < 1:
            raise ValueError(f"keep_last must be at least 1, found {keep_last}")
        if mode not in ("max", "min"):
            raise ValueError(f"mode must be 'max' or 'min', found {mode!r}")
        self.folder = Path(folder)
        self._keep_last = keep_last
        self._metric = metric
        self._mode = mode
        self.removed_leftovers = remove_leftovers(self.folder)

    def save(
        self,
        step: int,
        tensors: Mapping[str, Mapping[str, Tensor]],
        state: Mapping[str, Any],
        metrics: Mapping[str, float],
        files: Callable[[Path], None] | None = None,
    ) -> Path:
        """Writes `checkpoint_<step>` and prunes; saving a step again replaces it atomically. Returns the folder.

        `state` may hold whatever `split_state` takes, tensors included. `files` gets an empty folder to write into.
        Raises StorageError for a disk that is full or read-only, DataError for a state that cannot be stored.
        """
        _check_groups(step, tensors)
        target = self.folder / f"checkpoint_{step}"
        state_tensors, encoded = split_state(state)
        with staged_folder(self.folder, target.name) as temp:
            groups = {**tensors, _STATE: state_tensors} if state_tensors else tensors
            for name, group in groups.items():
                write_tensors(temp / f"{name}.safetensors", group)
            (temp / f"{_STATE}.json").write_text(json.dumps(encoded, indent=1, allow_nan=False), encoding="utf-8")
            if files is not None:
                (temp / "files").mkdir()
                files(temp / "files")
            write_manifest(temp, self._manifest(step, metrics))
            publish_folder(temp, target)
        self._prune(step)
        return target

    def load(self, which: Literal["latest", "best"] | int | str | Path = "latest") -> Checkpoint:
        """Reads a checkpoint after checking sizes and hashes: "latest", "best", a step, or a path (see `resolve`).

        Raises StorageError where there is none, or naming the file that is torn.
        """
        path = self._path(which)
        manifest = read_manifest(path)
        verify(path, manifest)
        groups = {file.stem: read_tensors(file) for file in sorted(path.glob("*.safetensors"))}
        with storage_errors("read", path):
            encoded = json.loads((path / f"{_STATE}.json").read_bytes())
        state = join_state(groups.pop(_STATE, {}), encoded)
        return Checkpoint(manifest["step"], path, groups, state, _metrics_of(manifest))

    def steps(self) -> list[int]:
        """Steps of the complete checkpoints, in order."""
        return sorted(_complete(self.folder))

    def latest(self) -> int | None:
        """The newest step; None where nothing was saved yet."""
        return max(self.steps(), default=None)

    def best(self, metric: str | None = None) -> int:
        """The step with the best `metric` (default: the store's); the earliest of equals. NaN and inf do not count.

        Raises StorageError where no checkpoint has it.
        """
        metric = metric or self._metric
        if metric is None:
            raise StorageError(f"no metric says which checkpoint in {self.folder} is best; pass metric='...'")
        return _best(self.folder, metric, self._mode)

    def discard_after(self, step: int) -> list[int]:
        """Removes the checkpoints after `step`, for a run that restarts from an older one; returns their steps."""
        later = [found for found in self.steps() if found > step]
        for found in later:
            remove_folder(self.folder / f"checkpoint_{found}")
        return later

    def _manifest(self, step: int, metrics: Mapping[str, float]) -> dict[str, Any]:
        values = {name: float(value) for name, value in metrics.items()}
        return {
            "step": step,
            "metrics": {name: value if math.isfinite(value) else None for name, value in values.items()},
            "nonfinite": {name: repr(value) for name, value in values.items() if not math.isfinite(value)},
            "best_by": {"metric": self._metric, "mode": self._mode} if self._metric else None,
        }

    def _path(self, which: int | str | Path) -> Path:
        if which == "latest":
            step = self.latest()
            if step is None:
                raise StorageError(f"{self.folder} holds no checkpoint; save one first, or correct the path")
            return self.folder / f"checkpoint_{step}"
        if which == "best":
            return self.folder / f"checkpoint_{self.best()}"
        if isinstance(which, int):
            if which not in self.steps():
                raise StorageError(f"{self.folder} has no checkpoint of step {which}; it has {self.steps()}")
            return self.folder / f"checkpoint_{which}"
        return resolve(which)

    def _prune(self, written: int) -> None:
        steps = self.steps()
        keep = {*steps[-self._keep_last :], written}
        if self._metric and _scores(self.folder, self._metric):
            keep.add(self.best())
        for step in steps:
            if step not in keep:
                remove_folder(self.folder / f"checkpoint_{step}")


def resolve(path: str | Path) -> Path:
    """The checkpoint folder that a path means.

    A checkpoint folder is itself. A run folder (with `checkpoint_<step>` folders, or a `checkpoints` folder of them)
    is its latest. The documented names of single files stand for folders: `.../best_model.pt` is the best checkpoint
    beside it (the latest where the run named no metric), `.../<name>.pt` what `.../<name>` resolves to.
    Raises StorageError for anything else; a real `.pt` file is a pickle, and is not read.
    """
    path = Path(path)
    if path.is_dir():
        return _resolve_folder(path)
    if path.exists():
        raise StorageError(f"{path} is a file, and pickles are never read; give the checkpoint folder instead")
    if path.name in ("best_model.pt", "best_model"):
        return _resolve_best(path.parent)
    if path.suffix == ".pt" and path.with_suffix("").is_dir():
        return _resolve_folder(path.with_suffix(""))
    raise StorageError(f"{path} does not exist; give a run folder or one of its checkpoint_<step> folders")


def _resolve_folder(path: Path) -> Path:
    if is_complete(path):
        return path
    found = _complete(path) or _complete(path / "checkpoints")
    if not found:
        raise StorageError(f"{path} holds no complete checkpoint; give a run folder or a checkpoint_<step> folder")
    return found[max(found)]


def _resolve_best(folder: Path) -> Path:
    latest = _resolve_folder(folder)
    best_by = read_manifest(latest).get("best_by")
    if not best_by:
        return latest
    return latest.parent / f"checkpoint_{_best(latest.parent, best_by['metric'], best_by['mode'])}"


def _complete(folder: Path) -> dict[int, Path]:
    """{step: folder} of the complete checkpoints in `folder`."""
    if not folder.is_dir():
        return {}
    matches = ((_FOLDER.fullmatch(path.name), path) for path in folder.iterdir())
    return {int(match[1]): path for match, path in matches if match and is_complete(path)}


def _scores(folder: Path, metric: str) -> dict[int, float]:
    """{step: finite value of `metric`}, in the order of the steps."""
    scores = {step: read_manifest(path)["metrics"].get(metric) for step, path in sorted(_complete(folder).items())}
    return {step: score for step, score in scores.items() if score is not None}


def _best(folder: Path, metric: str, mode: str) -> int:
    scores = _scores(folder, metric)
    if not scores:
        raise StorageError(f"no checkpoint in {folder} has a finite metric {metric!r}; name one that was saved")
    return (max if mode == "max" else min)(scores, key=lambda step: scores[step])


def _metrics_of(manifest: Mapping[str, Any]) -> dict[str, float]:
    nonfinite = manifest["nonfinite"]
    return {name: float(nonfinite.get(name, value)) for name, value in manifest["metrics"].items()}


def _check_groups(step: int, tensors: Mapping[str, Any]) -> None:
    if step < 0:
        raise ValueError(f"a checkpoint's step must be 0 or more, found {step}")
    for name in tensors:
        if name == _STATE or not _GROUP.fullmatch(name):
            raise DataError(f"{name!r} cannot name a group of tensors; use letters, digits, '_', '-', not 'state'")
