"""Where metrics go: one class per backend, each of the shape of `Backend`.

| backend | where | after a resume |
|---|---|---|
| jsonl | `<folder>/metrics.jsonl` | cut back to the checkpoint: the same bytes as an uninterrupted run |
| tensorboard | `<folder>/logs` | later events are purged (`purge_step`) |
| wandb | `<folder>/wandb`, offline unless WANDB_MODE is set | the same run goes on; repeated steps come twice |
| mlflow | `<folder>/mlflow.db` unless MLFLOW_TRACKING_URI is set | the same run goes on, sent at checkpoints |
| console | standard error | nothing |

TensorBoard files are written through the `tensorboard` package alone: 0.45 CPU-seconds to import, where
`torch.utils.tensorboard` takes 3.
"""

from __future__ import annotations

import math
import os
import re
import socket
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from troupe.errors import MissingExtra
from troupe.stores.jsonl import JsonLines

__all__ = ["Backend", "Console", "JsonLinesBackend", "MLflow", "Run", "TensorBoard", "WandB"]


@dataclass(frozen=True, slots=True)
class Run:
    """What a backend needs to know. `ids` holds the run ids that earlier processes of the same run were given."""

    folder: Path
    project: str
    name: str
    config: Mapping[str, Any]
    ids: Mapping[str, str]


class Backend(Protocol):
    """One destination. `id` is the run's name over there, kept for a resume; None where it needs none."""

    id: str | None

    def log(self, metrics: Mapping[str, float], step: int) -> None: ...

    def flush(self) -> None:
        """Called at checkpoints."""

    def rewind(self, step: int) -> None:
        """Forgets what was logged after `step`, as far as the destination can."""

    def close(self, *, failed: bool) -> None: ...


class JsonLinesBackend:
    """`metrics.jsonl`: deterministic bytes (sorted keys, no clock), one line per call of `log`.

    {"loss":0.25,"step":3}
    {"loss":null,"nonfinite":["loss"],"step":4}
    """

    id: str | None = None

    def __init__(self, run: Run) -> None:
        self.lines = JsonLines(run.folder / "metrics.jsonl")

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self.lines.append([metrics_line(metrics, step)])

    def flush(self) -> None:
        _ = self.lines.offset  # reading it flushes

    def truncate(self, offset: int | None, step: int) -> int:
        """Drops the lines after `offset` bytes, or those from the first line of a later step on where the checkpoint
        knows no offset; returns how many."""
        return self.lines.truncate(self._end_of(step) if offset is None else offset)

    def rewind(self, step: int) -> None:
        """Nothing: `Tracker.truncate` cuts the file."""

    def close(self, *, failed: bool) -> None:
        self.lines.close()

    def _end_of(self, step: int) -> int:
        later = (position for position, line in self.lines.records() if line["step"] > step)
        return next(later, self.lines.offset)


class TensorBoard:
    """Scalars in TensorBoard's event files, under `<folder>/logs`.

    The package's own EventFileWriter is not used: its thread dies for good on a full disk, and a process restarted
    within the same second may get a file name that sorts before the one it continues, which undoes the purge.
    """

    id: str | None = None

    def __init__(self, run: Run) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise MissingExtra("tensorboard", "all", "the tracker 'tensorboard'") from error

        logs = run.folder / "logs"
        logs.mkdir(exist_ok=True)
        self._file = open(_event_path(logs), "xb")  # noqa: SIM115 (closed by close)
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=key, simple_value=metrics[key]) for key in sorted(metrics)]
        self._write(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))

    def flush(self) -> None:
        """Nothing: every record is handed to the system at once."""

    def rewind(self, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        # A START record tells readers to forget every earlier event from its own step on.
        self._write(Event(wall_time=time.time(), step=step + 1, session_log=SessionLog(status=SessionLog.START)))

    def close(self, *, failed: bool) -> None:
        self._file.close()

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())
        self._file.flush()


class WandB:
    """A Weights & Biases run; `wandb sync` uploads an offline one."""

    def __init__(self, run: Run) -> None:
        try:
            import wandb
        except ImportError as error:
            raise MissingExtra("wandb", "tracking", "the tracker 'wandb'") from error

        self.id: str | None = run.ids.get("wandb") or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=run.project,
            name=run.name,
            config=dict(run.config),
            dir=str(run.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),  # type: ignore[arg-type]
            id=self.id,
            resume="allow" if "wandb" in run.ids else None,
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        self._run.log(dict(metrics), step=step)

    def flush(self) -> None:
        """Nothing: W&B's own process writes as metrics arrive."""

    def rewind(self, step: int) -> None:
        """Nothing: W&B keeps what it was given; of a step that comes twice its server keeps the first."""

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class MLflow:
    """An MLflow run. Metrics are sent in batches: at checkpoints, on close, and whenever 1,000 have gathered."""

    BATCH = 1000  # the most that MLflow's log_batch takes

    def __init__(self, run: Run) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise MissingExtra("mlflow", "tracking", "the tracker 'mlflow'") from error

        folder = run.folder.resolve()
        self._client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db"))
        self._waiting: list[tuple[str, float, int, int]] = []  # key, value, milliseconds, step
        self._run_id = run.ids.get("mlflow") or self._create(run, folder)
        self._client.update_run(self._run_id, status="RUNNING")
        self.id: str | None = self._run_id

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self._waiting.extend((_mlflow_key(key), metrics[key], now, step) for key in sorted(metrics))
        if len(self._waiting) >= self.BATCH:
            self.flush()

    def flush(self) -> None:
        from mlflow.entities import Metric

        while self._waiting:
            batch = [Metric(key, value, now, step) for key, value, now, step in self._waiting[: self.BATCH]]
            self._client.log_batch(self._run_id, metrics=batch)
            del self._waiting[: self.BATCH]

    def rewind(self, step: int) -> None:
        self._waiting = [entry for entry in self._waiting if entry[3] <= step]

    def close(self, *, failed: bool) -> None:
        self.flush()
        self._client.set_terminated(self._run_id, status="FAILED" if failed else "FINISHED")

    def _create(self, run: Run, folder: Path) -> str:
        from mlflow.entities import Param

        found = self._client.get_experiment_by_name(run.project)
        experiment = found.experiment_id if found else self._client.create_experiment(run.project)
        run_id = self._client.create_run(experiment, run_name=run.name).info.run_id
        params = [Param(_mlflow_key(key), str(value)[:6000]) for key, value in sorted(_flat(run.config).items())]
        for start in range(0, len(params), 100):  # log_batch takes 100 parameters at most
            self._client.log_batch(run_id, params=params[start : start + 100])
        return run_id


class Console:
    """One line per call on standard error."""

    id: str | None = None

    def __init__(self, run: Run) -> None:
        from rich.console import Console as RichConsole

        self._console = RichConsole(stderr=True, soft_wrap=True)
        self._name = run.name

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        values = "  ".join(f"{key} {metrics[key]:.4g}" for key in sorted(metrics))
        self._console.print(f"{self._name}  step {step}  {values}", markup=False)

    def flush(self) -> None:
        """Nothing is held back."""

    def rewind(self, step: int) -> None:
        self._console.print(f"{self._name}  resumed after step {step}", markup=False)

    def close(self, *, failed: bool) -> None:
        """Nothing to close."""


def metrics_line(metrics: Mapping[str, float], step: int) -> bytes:
    """One JSON line: sorted keys; NaN and infinities are null, their keys listed under `nonfinite`."""
    values: dict[str, Any] = {key: value if math.isfinite(value) else None for key, value in metrics.items()}
    nonfinite = sorted(key for key, value in values.items() if value is None)
    extra = {"nonfinite": nonfinite} if nonfinite else {}
    return orjson.dumps({**values, **extra, "step": step}, option=orjson.OPT_SORT_KEYS)


def _event_path(logs: Path) -> Path:
    """A new event file that sorts after all others: readers take them in the order of their names."""
    stamps = (
        int(found[1]) for path in logs.iterdir() if (found := re.match(r"events\.out\.tfevents\.(\d+)", path.name))
    )
    stamp = max([int(time.time()), *(earlier + 1 for earlier in stamps)])
    return logs / f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}.0"


def _mlflow_key(key: str) -> str:
    """MLflow refuses other characters, `@` of `pass@1` among them."""
    return re.sub(r"[^\w\-. :/]", "_", key)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
