"""Killed anywhere and started again, a self-play run ends as if nothing had happened, with one worker and with two."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.selfplay_runs import finish, remains, start, weights


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run without workers, which must not be changed."""
    folder = tmp_path_factory.mktemp("selfplay") / "run"
    code, out, err = finish(start(folder))
    assert code in (0, 3), err
    (folder / "weights.txt").write_text(weights(out))
    return folder


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


def killed_after(folder: Path, iterations: int, delay: float, **changed: Any) -> None:
    """Starts a run and kills it `delay` seconds after its metrics have so many lines."""
    process = start(folder, **changed)
    deadline = time.monotonic() + 100
    while lines(folder) < iterations and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(delay)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode in (-signal.SIGKILL, 0, 3)  # a short run may have ended before


def test_the_run_that_is_compared_here_learns(reference: Path) -> None:
    rows = [json.loads(line) for line in (reference / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert all(row["learn/grad_norm/net"] > 0.01 for row in rows)
    assert rows[-1]["replay/added"] > rows[-1]["replay/size"] == 200  # the window has turned over
    assert "arena/elo" in rows[1] and "arena/elo" in rows[3]


@pytest.mark.parametrize(("iterations", "delay"), [(1, 0.0), (3, 0.05)])
def test_kill_and_resume(reference: Path, tmp_path: Path, iterations: int, delay: float) -> None:
    folder = tmp_path / "run"
    killed_after(folder, iterations, delay)
    code, out, err = finish(start(folder))
    assert code in (0, 3), err
    assert weights(out) == (reference / "weights.txt").read_text()
    assert remains(folder) == remains(reference)


BOARD = {
    "game": "connect_four", "net__kind": "conv", "net__blocks": 1, "net__channels": 4, "net__hidden": None,
    "search__simulations": 4, "arena__anchors": "[random]", "trainer__iterations": 3,
}  # fmt: skip
"""A convolutional network: its weights lie in memory in an order of their own, which files do not keep."""


@pytest.fixture(scope="module")
def convolutional(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run without workers, which must not be changed."""
    folder = tmp_path_factory.mktemp("convolutional") / "run"
    code, out, err = finish(start(folder, **BOARD))
    assert code in (0, 3), err
    (folder / "weights.txt").write_text(weights(out))
    return folder


@pytest.mark.slow
def test_kill_and_resume_with_convolutions(convolutional: Path, tmp_path: Path) -> None:
    killed_after(tmp_path / "run", 2, 0.0, **BOARD)
    code, out, err = finish(start(tmp_path / "run", **BOARD))
    assert code in (0, 3), err
    assert weights(out) == (convolutional / "weights.txt").read_text()
    assert remains(tmp_path / "run") == remains(convolutional)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("iterations", "delay"), [(1, 0.0), (2, 0.1)])
def test_kill_and_resume_with_convolutions_and_workers(
    convolutional: Path, tmp_path: Path, workers: int, iterations: int, delay: float
) -> None:
    killed_after(tmp_path / "run", iterations, delay, acting__workers=workers, **BOARD)
    assert lines(tmp_path / "run") >= iterations and not (tmp_path / "run" / "summary.json").exists()  # in its midst
    code, out, err = finish(start(tmp_path / "run", acting__workers=workers, **BOARD))
    assert code in (0, 3), err
    assert weights(out) == (convolutional / "weights.txt").read_text()
    assert remains(tmp_path / "run") == remains(convolutional)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("seed", range(5))
def test_kill_and_resume_with_workers(reference: Path, tmp_path: Path, workers: int, seed: int) -> None:
    struck = tmp_path / "struck"
    rng = random.Random(seed)
    killed_after(struck, rng.randrange(4), rng.uniform(0, 1.0), acting__workers=workers)
    code, again, err = finish(start(struck, acting__workers=3 - workers))
    assert code in (0, 3), err
    assert weights(again) == (reference / "weights.txt").read_text()
    assert remains(struck) == remains(reference)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10))
def test_kill_at_ten_random_moments(reference: Path, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    folder = tmp_path / "run"
    for _ in range(2):
        killed_after(folder, rng.randrange(4), rng.uniform(0, 0.5))
    code, out, err = finish(start(folder))
    assert code in (0, 3), err
    assert weights(out) == (reference / "weights.txt").read_text()
    assert remains(folder) == remains(reference)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_play_what_the_trainer_would(reference: Path, tmp_path: Path, workers: int) -> None:
    code, out, err = finish(start(tmp_path / "run", acting__workers=workers))
    assert code in (0, 3), err
    assert weights(out) == (reference / "weights.txt").read_text()
    assert remains(tmp_path / "run") == remains(reference)


def test_workers_end_with_a_killed_trainer(tmp_path: Path) -> None:
    import psutil

    process = start(tmp_path / "run", acting__workers=2, trainer__iterations=200)
    while lines(tmp_path / "run") < 1:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    workers = psutil.Process(process.pid).children(recursive=True)
    assert len(workers) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive
