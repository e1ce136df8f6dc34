"""Killed anywhere and started again, a run on tasks ends as if nothing had happened, with workers and without."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.selfplay_runs import finish, weights
from tests.task_runs import start

CURRICULUM = {"curriculum__enabled": True, "curriculum__high": 0.5}


def remains(folder: Path) -> dict[str, Any]:
    """Files by their bytes, checkpoints by the hashes of their files."""
    kept: dict[str, Any] = {name: (folder / name).read_bytes() for name in ("metrics.jsonl", "final.json")}
    for path in sorted(folder.glob("checkpoint_*")):
        manifest = json.loads((path / "manifest.json").read_text())
        kept[path.name] = {name: entry["sha256"] for name, entry in manifest["files"].items()}
    return kept


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run without workers."""
    folder = tmp_path_factory.mktemp("tasks") / "run"
    code, out, err = finish(start(folder, **CURRICULUM))
    assert code in (0, 3), err
    (folder / "weights.txt").write_text(weights(out))
    return folder


def killed_after(folder: Path, iterations: int, delay: float, **changed: Any) -> None:
    process = start(folder, **CURRICULUM, **changed)
    metrics = folder / "metrics.jsonl"
    deadline = time.monotonic() + 100
    while time.monotonic() < deadline and process.poll() is None:
        if metrics.exists() and len(metrics.read_text().splitlines()) >= iterations:
            break
        time.sleep(0.005)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0, 3)  # a short run may have ended before


@pytest.mark.parametrize(("workers", "iterations", "delay"), [(0, 1, 0.02), (2, 3, 0.0)])
def test_kill_and_resume(reference: Path, tmp_path: Path, workers: int, iterations: int, delay: float) -> None:
    folder = tmp_path / "run"
    killed_after(folder, iterations, delay, acting__workers=workers)
    code, out, err = finish(start(folder, **CURRICULUM, acting__workers=workers))
    assert code in (0, 3), err
    assert weights(out) == (reference / "weights.txt").read_text()
    assert remains(folder) == remains(reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_kill_anywhere(reference: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    folder = tmp_path / "run"
    for _ in range(2):
        killed_after(folder, rng.randint(0, 3), rng.random(), acting__workers=rng.choice((0, 1)))
    code, out, err = finish(start(folder, **CURRICULUM))
    assert code in (0, 3), err
    assert weights(out) == (reference / "weights.txt").read_text()
    assert remains(folder) == remains(reference)
