"""Tracking a run: metrics to JSON lines, TensorBoard, W&B, MLflow and the console, from one call.

    with Tracker("runs/math", ("jsonl", "tensorboard"), project="math", name="run-1", config={"lr": 1e-4}) as tracker:
        for step in range(100):
            tracker.log({"loss": loss}, step)
            tracker.log_timing({"seconds": seconds}, step)
        checkpoint_state = {"metrics": tracker.offset}

A tracker that cannot start stops the run; one that stumbles later warns once and the run goes on. `metrics.jsonl` has
the same bytes after a kill and a resume as without them, so nothing that depends on the clock belongs into it: times
go to `timing.jsonl`, which is never cut and so also tells of the work that was lost.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from troupe.errors import ConfigError, DataError, MissingExtra, UserError, did_you_mean
from troupe.stores.atomic import storage_errors, write_atomic
from troupe.stores.jsonl import JsonLines
from troupe.stores.trackers import Backend, Console, JsonLinesBackend, MLflow, Run, TensorBoard, WandB, metrics_line

__all__ = ["BACKENDS", "Tracker", "TrackerError"]

logger = logging.getLogger(__name__)

BACKENDS: dict[str, Callable[[Run], Backend]] = {
    "console": Console,
    "jsonl": JsonLinesBackend,
    "mlflow": MLflow,
    "tensorboard": TensorBoard,
    "wandb": WandB,
}

_RESERVED = ("nonfinite", "step")


class TrackerError(UserError):
    """A tracker that could not start."""


class Tracker:
    """Sends each metric to every backend, and keeps `run.json` (project, name, config, run ids) in the folder.

    A second Tracker on the same folder continues the run. Raises ConfigError for an unknown backend, MissingExtra for
    an absent package, TrackerError naming the backend and the cause where one cannot start.
    """

    def __init__(
        self,
        folder: str | Path,
        backends: Sequence[str] = ("jsonl", "tensorboard"),
        *,
        project: str,
        name: str,
        config: Mapping[str, Any],
    ) -> None:
        for backend in backends:
            if backend not in BACKENDS:
                raise ConfigError(f"there is no tracker {backend!r}{did_you_mean(backend, BACKENDS)}")
        self.folder = Path(folder)
        with storage_errors("write", self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        self._backends: dict[str, Backend] = {}
        self._warned: set[str] = set()
        self._closed = False
        run = Run(self.folder, project, name, config, _earlier_ids(self.folder))
        try:
            for backend in dict.fromkeys(backends):
                self._backends[backend] = _start(backend, run)
            self._timing = JsonLines(self.folder / "timing.jsonl", fsync="never")
            _write_run(run, self._backends)
        except BaseException:
            self.close(failed=True)
            raise

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs numbers (anything that `float` takes) of one step. Raises DataError for what is not a number."""
        values = _numbers(metrics)
        self._each("log", lambda backend: backend.log(values, step))

    def log_timing(self, times: Mapping[str, float], step: int) -> None:
        """Logs wall-clock and CPU times: to `timing.jsonl`, and under `timing/` to every backend but `jsonl`."""
        values = _numbers(times)
        self._guard("timing.jsonl", "log", lambda: self._timing.append([metrics_line(values, step)]))
        named = {f"timing/{key}": value for key, value in values.items()}
        self._each("log", lambda backend: backend.log(named, step), skip="jsonl")

    @property
    def offset(self) -> int | None:
        """Bytes of `metrics.jsonl`, for the checkpoint; None without the backend `jsonl`. Flushes every backend."""
        self._each("flush", lambda backend: backend.flush(), skip="jsonl")
        jsonl = self._jsonl()
        return jsonl.lines.offset if jsonl else None

    def truncate(self, offset: int | None, step: int) -> int:
        """Goes back to a checkpoint taken at `offset` after `step` was logged; returns how many lines were dropped.

        A checkpoint without an offset (None) was taken without the backend `jsonl`; what earlier parts of the run wrote
        stays, up to its `step`. Raises StorageError where `metrics.jsonl` is shorter than the checkpoint says.
        """
        jsonl = self._jsonl()
        dropped = jsonl.truncate(offset, step) if jsonl else 0
        self._each("rewind", lambda backend: backend.rewind(step))
        return dropped

    def close(self, *, failed: bool = False) -> None:
        """Flushes and ends every backend. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._each("close", lambda backend: backend.close(failed=failed))
        if hasattr(self, "_timing"):
            self._guard("timing.jsonl", "close", self._timing.close)

    def __enter__(self) -> Tracker:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(failed=kind is not None)

    def _jsonl(self) -> JsonLinesBackend | None:
        backend = self._backends.get("jsonl")
        return backend if isinstance(backend, JsonLinesBackend) else None

    def _each(self, doing: str, act: Callable[[Backend], None], skip: str = "") -> None:
        for name, backend in self._backends.items():
            if name != skip:
                self._guard(name, doing, lambda backend=backend: act(backend))  # type: ignore[misc]

    def _guard(self, name: str, doing: str, act: Callable[[], None]) -> None:
        """A foreign service may raise anything; a run of many hours goes on without it, and says so once."""
        try:
            act()
        except Exception as error:
            if name not in self._warned:
                self._warned.add(name)
                logger.warning("the tracker %r failed to %s and may miss metrics from now on: %s", name, doing, error)


def _start(name: str, run: Run) -> Backend:
    try:
        return BACKENDS[name](run)
    except MissingExtra:
        raise
    except Exception as error:
        raise TrackerError(
            f"the tracker {name!r} could not start: {error}; mend it or leave {name!r} out of the trackers"
        ) from error


def _numbers(metrics: Mapping[str, float]) -> dict[str, float]:
    values = {}
    for key, value in metrics.items():
        if key in _RESERVED:
            raise DataError(f"a metric cannot be called {key!r}; choose a name other than {', '.join(_RESERVED)}")
        try:
            values[key] = float(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise DataError(f"the metric {key!r} is not a number: {value!r}") from error
    return values


def _earlier_ids(folder: Path) -> dict[str, str]:
    path = folder / "run.json"
    if not path.exists():
        return {}
    with storage_errors("read", path):
        text = path.read_bytes()
    try:
        return dict(json.loads(text)["ids"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a tracker's run file: {error!r}; delete it to start a new run") from error


def _write_run(run: Run, backends: Mapping[str, Backend]) -> None:
    ids = {**run.ids, **{name: backend.id for name, backend in backends.items() if backend.id}}
    record = {"project": run.project, "name": run.name, "config": run.config, "ids": ids}
    text = json.dumps(record, indent=1, default=str)
    write_atomic(run.folder / "run.json", (text + "\n").encode())
