"""Killed anywhere and started again, a run ends as if nothing had happened."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.runs import ROOT

TINY = {
    "env": "Pendulum-v1", "n_envs": 3, "net.hidden": "[16]", "n_steps": 64, "batch_size": 48, "n_epochs": 4,
    "evaluation.episodes": 3, "evaluation.every": 4, "trainer.total_timesteps": 192 * 24, "trainer.save_freq": 1,
    "trainer.logger": "[jsonl]",
}  # fmt: skip
"""24 rollouts of 64 steps, while an episode has 200: most kills leave three open."""


def start(folder: Path, **changed: Any) -> subprocess.Popen[str]:
    values = TINY | {"trainer.default_local_dir": folder} | {k.replace("__", "."): v for k, v in changed.items()}
    words = [f"{key}={value}" for key, value in values.items()]
    return subprocess.Popen(
        [sys.executable, "-m", "troupe", "train", *words], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finished(folder: Path, **changed: Any) -> tuple[str, bytes]:
    """(hash of the weights, metrics) of a run that came to its end."""
    out, err = (process := start(folder, **changed)).communicate(timeout=150)
    assert process.returncode == 0, err
    found = re.search(r"weights: ([0-9a-f]+)", out)
    assert found is not None, out
    return found[1], (folder / "metrics.jsonl").read_bytes()


def killed(folder: Path, rollouts: int, **changed: Any) -> None:
    process = start(folder, **changed)
    path = folder / "metrics.jsonl"
    while process.poll() is None and (not path.exists() or len(path.read_bytes().splitlines()) < rollouts):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL, "the run was over before it was killed"


SCALED = {"env__norm_obs": True, "env__norm_reward": True, "ppo__schedule": "[learning_rate]"}


@pytest.mark.parametrize("options", [{}, SCALED], ids=["plain", "scaled"])
def test_kill_and_resume(tmp_path: Path, options: dict[str, Any]) -> None:
    expected = finished(tmp_path / "whole", **options)
    for rollouts in (2, 7):
        killed(tmp_path / "struck", rollouts, **options)
    assert finished(tmp_path / "struck", **options) == expected


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"env": "CartPole-v1"}, {"env__carry": False}, {"trainer__save_freq": 5}])
def test_kill_and_resume_elsewhere(tmp_path: Path, options: dict[str, Any]) -> None:
    expected = finished(tmp_path / "whole", **options)
    for rollouts in (1, 4, 9, 13):
        killed(tmp_path / "struck", rollouts, **options)
    assert finished(tmp_path / "struck", **options) == expected
