from __future__ import annotations

import json
import logging
import math
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from troupe.errors import ConfigError, DataError, MissingExtra, StorageError, UserError
from troupe.stores import tracking
from troupe.stores.tracking import BACKENDS, Tracker, TrackerError


def tracker(folder: Path, *backends: str, **changes) -> Tracker:
    options = {"project": "maths", "name": "run-1", "config": {"lr": 0.1, "agents": {"solver": "team"}}}
    return Tracker(folder, backends, **(options | changes))


def metrics(step: int) -> dict[str, float]:
    return {"reward": step / 7, "loss": math.nan if step % 5 == 0 else 1 / (step + 1), "actor/kl": step * 1e-9}


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder / "logs"))
    accumulator.Reload()
    return [(event.step, event.value) for event in accumulator.Scalars(tag)]


def test_the_dict_names_every_backend() -> None:
    assert set(BACKENDS) == {"jsonl", "tensorboard", "wandb", "mlflow", "console"}


def test_jsonl_bytes_are_deterministic(tmp_path: Path) -> None:
    with tracker(tmp_path, "jsonl") as run:
        run.log({"b": np.float32(0.1), "a": 1, "π": 2.5}, 0)
        run.log({"loss": math.nan, "kl": -math.inf, "a": 1e-300}, 1)
        run.log_timing({"seconds": 0.5}, 1)
    assert (tmp_path / "metrics.jsonl").read_text() == (
        '{"a":1.0,"b":0.10000000149011612,"step":0,"π":2.5}\n'
        '{"a":1e-300,"kl":null,"loss":null,"nonfinite":["kl","loss"],"step":1}\n'
    )
    assert json.loads((tmp_path / "timing.jsonl").read_text()) == {"seconds": 0.5, "step": 1}
    assert json.loads((tmp_path / "run.json").read_text()) == {
        "project": "maths",
        "name": "run-1",
        "config": {"lr": 0.1, "agents": {"solver": "team"}},
        "ids": {},
    }


def test_wrong_metrics_are_refused(tmp_path: Path) -> None:
    run = tracker(tmp_path, "jsonl")
    for wrong, sentence in (({"step": 1}, "cannot be called 'step'"), ({"loss": "low"}, "'loss' is not a number")):
        with pytest.raises(DataError, match=sentence):
            run.log(wrong, 0)
    assert run.offset == 0


def test_resume_gives_the_bytes_of_an_uninterrupted_run(tmp_path: Path) -> None:
    with tracker(tmp_path / "whole", "jsonl", "tensorboard") as run:
        for step in range(20):
            run.log(metrics(step), step)
    run = tracker(tmp_path / "resumed", "jsonl", "tensorboard")
    for step in range(14):
        run.log(metrics(step), step)
        if step == 9:
            offset = run.offset
    run.close(failed=True)
    with tracker(tmp_path / "resumed", "jsonl", "tensorboard") as run:
        assert run.truncate(offset, 9) == 4
        for step in range(10, 20):
            run.log(metrics(step), step)
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    assert (resumed / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert (
        scalars(resumed, "reward")
        == scalars(whole, "reward")
        == [(step, float(np.float32(step / 7))) for step in range(20)]
    )
    with tracker(resumed, "jsonl") as run, pytest.raises(StorageError, match=r"metrics\.jsonl holds"):
        run.truncate(offset * 10, 9)


def test_a_checkpoint_without_jsonl_keeps_what_an_earlier_part_wrote(tmp_path: Path) -> None:
    """Steps 0 to 2 with jsonl, 3 and 4 with the console alone, the rest with jsonl again."""
    with tracker(tmp_path, "jsonl") as run:
        for step in range(3):
            run.log(metrics(step), step)
    with tracker(tmp_path, "console") as run:
        for step in (3, 4):
            run.log(metrics(step), step)
        offset = run.offset
    assert offset is None
    for dropped in (0, 3):  # the second time a kill has left the steps 5 to 7 behind
        with tracker(tmp_path, "jsonl") as run:
            assert run.truncate(offset, 4) == dropped
            for step in (5, 6, 7):
                run.log(metrics(step), step)
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2, 5, 6, 7]


def test_kill_at_random_moments_and_resume(tmp_path: Path, killed_after) -> None:
    rng = random.Random(2)
    with tracker(tmp_path / "whole", "jsonl") as run:
        for step in range(30):
            run.log(metrics(step), step)
    for trial in range(4):
        folder = tmp_path / str(trial)

        def log_for_ever(folder: Path = folder) -> None:
            run = tracker(folder, "jsonl", "tensorboard")
            for step in range(10**9):
                run.log(metrics(step), step)
                time.sleep(1e-3)
                if step == 5:
                    (folder / "offset").write_text(str(run.offset))
                if step == 6:
                    (folder / "ready").touch()

        killed_after(0.1 * rng.random(), folder / "ready", log_for_ever)
        (events,) = (folder / "logs").iterdir()
        events.write_bytes(events.read_bytes() + b"\x18\0\0\0half a record")
        with tracker(folder, "jsonl", "tensorboard") as run:
            assert run.truncate(int((folder / "offset").read_text()), 5) > 0
            for step in range(6, 30):
                run.log(metrics(step), step)
        assert (folder / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
        assert [step for step, _ in scalars(folder, "reward")] == list(range(30))


def test_tensorboard_reads_back_and_imports_neither_torch_nor_tensorflow(tmp_path: Path) -> None:
    script = (
        "import sys; from troupe.stores.tracking import Tracker\n"
        f"run = Tracker({str(tmp_path)!r}, project='p', name='n', config={{}})\n"
        "run.log({'reward': 0.5}, 3); run.log_timing({'seconds': 2.0}, 3); run.close()\n"
        "heavy = {'torch', 'tensorflow', 'wandb', 'mlflow', 'transformers'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[2])
    assert scalars(tmp_path, "reward") == [(3, 0.5)]
    assert scalars(tmp_path, "timing/seconds") == [(3, 2.0)]


def test_console_prints_one_line_per_call(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with tracker(tmp_path, "console") as run:
        run.log({"reward[a]": 0.123456, "loss": math.nan}, 4)
        assert run.offset is None
    assert "run-1  step 4  loss nan  reward[a] 0.1235\n" in capsys.readouterr().err
    assert not (tmp_path / "metrics.jsonl").exists()


def test_an_unknown_backend_is_guessed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no tracker 'tensorbord' .did you mean 'tensorboard'"):
        tracker(tmp_path / "run", "jsonl", "tensorbord")
    assert not (tmp_path / "run").exists()


def test_a_tracker_that_cannot_start_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []

    class Witness:
        id = None

        def __init__(self, run) -> None: ...

        def close(self, *, failed: bool) -> None:
            closed.append(failed)

    def refuse(run):
        raise ConnectionError("no route to the server")

    monkeypatch.setattr(tracking, "BACKENDS", {"witness": Witness, "refusing": refuse})
    with pytest.raises(TrackerError, match="tracker 'refusing' could not start: no route to the server"):
        tracker(tmp_path, "witness", "refusing")
    assert issubclass(TrackerError, UserError) and closed == [True]


def test_an_absent_package_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, f"{package}.tracking", None)
        with pytest.raises(MissingExtra, match=rf"'{package}' needs .* pip install 'troupe-train\[tracking\]'"):
            tracker(tmp_path, package)


def test_a_stumbling_tracker_warns_once_and_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Stumbling:
        id = None

        def __init__(self, run) -> None: ...

        def __getattr__(self, name: str):
            raise ConnectionError(f"lost the server in {name}")

    monkeypatch.setattr(tracking, "BACKENDS", BACKENDS | {"stumbling": Stumbling})
    with caplog.at_level(logging.WARNING), tracker(tmp_path, "stumbling", "jsonl") as run:
        for step in range(3):
            run.log({"loss": 1.0}, step)
        run.truncate(run.offset, 2)
    assert [record.getMessage() for record in caplog.records] == [
        "the tracker 'stumbling' failed to log and may miss metrics from now on: lost the server in log"
    ]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_a_full_disk_warns_and_keeps_whole_lines(small_disk: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tracker(small_disk, "jsonl", "tensorboard")
    run.log({"loss": 1.0}, 0)
    (small_disk / "ballast").write_bytes(b"x" * (1 << 19))
    with caplog.at_level(logging.WARNING):
        for step in range(1, 200):
            run.log({f"metric/{number}": float(step) for number in range(200)}, step)
    run.close()
    assert len([r for r in caplog.records if "'jsonl' failed to log" in r.getMessage()]) == 1
    assert "the disk is full" in caplog.text
    lines = (small_disk / "metrics.jsonl").read_text()
    assert lines.endswith("\n") and [json.loads(line)["step"] for line in lines.splitlines()][:2] == [0, 1]


def test_a_read_only_folder_is_one_sentence(tmp_path: Path, read_only) -> None:
    folder = tmp_path / "ro"
    folder.mkdir()
    with read_only(folder):
        with pytest.raises(UserError, match=r"'jsonl' could not start: cannot open .*metrics\.jsonl: .* read-only"):
            tracker(folder, "jsonl")
        with pytest.raises(StorageError, match=r"cannot write .*deeper: the folder is read-only"):
            tracker(folder / "deeper", "jsonl")


def test_a_foreign_run_file_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("[]")
    with pytest.raises(DataError, match=r"run\.json is not a tracker's run file"):
        tracker(tmp_path, "jsonl")
    assert (tmp_path / "run.json").read_text() == "[]"


@pytest.mark.tracking
def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_MODE", raising=False)
    with tracker(tmp_path, "wandb") as run:
        run.log({"reward": 0.5, "loss": math.nan}, 0)
        run.log_timing({"seconds": 1.5}, 1)
    written = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    run_id = json.loads((tmp_path / "run.json").read_text())["ids"]["wandb"]
    assert len(written) == 1 and written[0].name == f"run-{run_id}.wandb"
    missing, deadline = {b"reward", b"timing/seconds", b"maths", b"run-1"}, time.monotonic() + 20
    while missing and time.monotonic() < deadline:  # W&B's own process writes on after finish() has returned
        content = written[0].read_bytes()
        missing = {word for word in missing if word not in content}
        time.sleep(0.05)
    assert not missing
    with tracker(tmp_path, "wandb") as run:  # a resume continues the same run
        run.truncate(0, 0)
        run.log({"later": 1.0}, 1)
    names = {path.name for path in (tmp_path / "wandb").glob("offline-run-*/*.wandb")}
    assert names == {f"run-{run_id}.wandb"}
    assert json.loads((tmp_path / "run.json").read_text())["ids"]["wandb"] == run_id


@pytest.mark.tracking
def test_mlflow_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    from mlflow.tracking import MlflowClient

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    run = tracker(tmp_path, "jsonl", "mlflow")
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    run_id = json.loads((tmp_path / "run.json").read_text())["ids"]["mlflow"]
    for step in range(3):
        run.log({"reward": step / 2, "pass@1": 1.0, "loss": math.nan}, step)
    assert client.get_metric_history(run_id, "reward") == []  # batched
    offset = run.offset
    assert [(m.step, m.value) for m in client.get_metric_history(run_id, "reward")] == [(0, 0.0), (1, 0.5), (2, 1.0)]
    run.log({"reward": 99.0}, 3)
    run.truncate(offset, 2)
    run.log({"reward": 1.5}, 3)
    run.close(failed=True)
    found = client.get_run(run_id)
    assert found.info.status == "FAILED" and found.info.run_name == "run-1"
    assert found.data.params == {"lr": "0.1", "agents.solver": "team"}
    assert found.data.metrics["reward"] == 1.5 and found.data.metrics["pass_1"] == 1.0
    with tracker(tmp_path, "mlflow") as run:  # a resume continues the same run; 1,200 metrics go in two batches
        for step in range(4, 1204):
            run.log({"reward": float(step)}, step)
    assert client.get_run(run_id).info.status == "FINISHED"
    history = [(metric.step, metric.value) for metric in client.get_metric_history(run_id, "reward")]
    assert len(history) == 1204 and history[3:5] == [(3, 1.5), (4, 4.0)]
