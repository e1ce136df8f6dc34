"""What every run begins with: its folder, its checkpoints, its trackers, and a watch."""

from __future__ import annotations

import time
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from troupe.stores.checkpoints import CheckpointStore
from troupe.stores.jsonl import JsonLines
from troupe.stores.run_config import make_run_folder, remember_config
from troupe.stores.tracking import Tracker

__all__ = ["Stopwatch", "open_run", "spent"]


class _Config(Protocol):
    """A run's config with the keys that every trainer has."""

    @property
    def trainer(self) -> Any: ...

    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


def open_run(
    folder: Path,
    config: _Config,
    defaults: BaseModel,
    may_change: Collection[str],
    metric: str,
    opened: ExitStack,
) -> tuple[CheckpointStore, Tracker]:
    """The checkpoints and trackers of the run that `trainer.default_local_dir` holds or begins; `opened` closes them.

    `metric` says which checkpoint is the best; `may_change` and `defaults` are those of `remember_config`. Raises
    StorageError for a folder that cannot be made, that `trainer.resume=never` must not continue, or that was begun with
    another config.
    """
    trainer, written = config.trainer, config.model_dump(mode="json")
    store = CheckpointStore(folder, keep_last=trainer.keep_last, metric=metric)
    begun = store.latest() is not None
    make_run_folder(folder, "trainer.default_local_dir", begun=begun, resume=trainer.resume)
    remember_config(folder, written, defaults.model_dump(mode="json"), may_change)
    tracker = Tracker(
        folder, trainer.logger, project=trainer.project_name, name=trainer.experiment_name, config=written
    )  # fmt: skip
    return store, opened.enter_context(tracker)


class Stopwatch:
    """Seconds by the clock, and CPU-seconds of this process and, if they are given, of others."""

    def __init__(self) -> None:
        self._before = time.perf_counter(), time.process_time()

    def lap(self, others: float = 0.0) -> dict[str, float]:
        """Since the last lap, by the names that `Tracker.log_timing` writes. `others`: the CPU-seconds of other
        processes so far."""
        before = self._before
        self._before = time.perf_counter(), time.process_time() + others
        return {"time/elapsed_s": self._before[0] - before[0], "cpu/elapsed_s": self._before[1] - before[1]}


def spent(folder: Path) -> tuple[float, float]:
    """(seconds, CPU-seconds) of all processes that worked on the run so far, by its timing.jsonl.

    Nothing that depends on the clock may stand in a checkpoint: a continued run ends with the same files.
    """
    lines = JsonLines(folder / "timing.jsonl", mode="r")
    try:
        rows = [row for _, row in lines.records()]
    finally:
        lines.close()
    seconds, cpu = (sum(row.get(f"{kind}/elapsed_s", 0.0) for row in rows) for kind in ("time", "cpu"))
    return seconds, cpu
